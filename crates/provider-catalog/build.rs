//! Checks every file of the catalogue, with the same code that reads it later, and compiles the result in as JSON.
#![expect(
    clippy::disallowed_methods,
    reason = "a build script is configured by cargo, through the environment"
)]

#[expect(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::enum_variant_names,
    reason = "the library's own module, of which a build needs a part"
)]
#[path = "src/schema/mod.rs"]
mod schema;

use std::path::{Path, PathBuf};
use std::{env, fs, process};

fn main() {
    println!("cargo::rerun-if-changed=catalog");
    println!("cargo::rerun-if-changed=src/schema");
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let mut files: Vec<_> = fs::read_dir(root.join("catalog"))
        .expect("the catalogue's folder is part of the crate")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    files.sort();

    let mut providers: Vec<schema::Provider> = Vec::new();
    let mut problems = Vec::new();
    for path in &files {
        let text = fs::read_to_string(path).expect("a readable file");
        match schema::parse(&named(path), &text) {
            Ok(provider) => providers.push(provider),
            Err(found) => problems.extend(found),
        }
    }
    if let Err(unlinked) = schema::link(&mut providers) {
        problems.extend(unlinked.into_iter().map(|(key, problem)| {
            let file = format!("catalog/{key}.yaml");
            let text = fs::read_to_string(root.join(&file)).unwrap_or_default();
            schema::FileProblem::at(&file, &text, problem)
        }));
    }
    if !problems.is_empty() {
        for problem in &problems {
            eprintln!("error: {problem}");
        }
        process::exit(1);
    }
    let json = serde_json::to_vec(&providers).expect("the catalogue is representable as JSON");
    fs::write(out.join("catalog.json"), json).expect("a writable OUT_DIR");
}

fn named(path: &Path) -> String {
    format!(
        "catalog/{}",
        path.file_name()
            .expect("a file has a name")
            .to_string_lossy()
    )
}
