//! Checks every connector, with the same code that reads it later, and compiles the result in as JSON.
#![expect(
    clippy::disallowed_methods,
    reason = "a build script is configured by cargo, through the environment"
)]

#[expect(
    unreachable_pub,
    unused_imports,
    reason = "the library's own module, of which a build needs a part"
)]
#[path = "src/schema/mod.rs"]
mod schema;

use std::path::PathBuf;
use std::{env, fs, process};

fn main() {
    println!("cargo::rerun-if-changed=connectors");
    println!("cargo::rerun-if-changed=src/schema");
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let mut files: Vec<_> = fs::read_dir(root.join("connectors"))
        .expect("the connectors' folder is part of the crate")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    files.sort();

    let mut connectors = Vec::new();
    let mut problems = Vec::new();
    for path in &files {
        let text = fs::read_to_string(path).expect("a readable file");
        let name = path
            .file_name()
            .expect("a file has a name")
            .to_string_lossy();
        match schema::parse(&format!("connectors/{name}"), &text) {
            Ok(connector) => connectors.push(connector),
            Err(found) => problems.extend(found),
        }
    }
    if !problems.is_empty() {
        for problem in &problems {
            eprintln!("error: {problem}");
        }
        process::exit(1);
    }
    let json = serde_json::to_vec(&connectors).expect("connectors are representable as JSON");
    fs::write(out.join("connectors.json"), json).expect("a writable OUT_DIR");
}
