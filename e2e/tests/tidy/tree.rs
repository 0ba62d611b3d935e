//! What lies in the tree: its files, and its packages.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Folders that are made, not written.
const MADE: &[&str] = &[
    ".git",
    ".hawser",
    ".tools",
    "__pycache__",
    "node_modules",
    "target",
];

/// A text file.
pub(crate) struct File {
    /// From the root, with slashes.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A package of the workspace.
pub(crate) struct Package {
    pub(crate) name: String,
    /// `services/token-vault`.
    pub(crate) folder: String,
    pub(crate) manifest: toml::Table,
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("e2e lies in the root")
        .to_path_buf()
}

/// Every text file below `folder` whose name ends with `ending`, sorted.
pub(crate) fn files(folder: &str, ending: &str) -> Vec<File> {
    let mut paths = Vec::new();
    walk(&root().join(folder), &mut paths);
    paths.sort();
    let text = |path: PathBuf| {
        let text = String::from_utf8(fs::read(&path).ok()?).ok()?;
        let path = path
            .strip_prefix(root())
            .expect("it was found there")
            .to_str()?
            .to_owned();
        Some(File { path, text })
    };
    paths
        .into_iter()
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .filter_map(text)
        .collect()
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path))
        .unwrap_or_else(|error| panic!("{path} cannot be read: {error}"))
}

pub(crate) fn parse(path: &str) -> toml::Table {
    read(path)
        .parse()
        .unwrap_or_else(|error| panic!("{path} is not TOML: {error}"))
}

/// Every package, by name.
pub(crate) fn packages() -> BTreeMap<String, Package> {
    let manifests = files("", "Cargo.toml")
        .into_iter()
        .filter(|file| file.path != "Cargo.toml");
    let package = |file: File| {
        let manifest: toml::Table = file.text.parse().expect("cargo has read it");
        let name = manifest["package"]["name"]
            .as_str()
            .expect("cargo has read it")
            .to_owned();
        let folder = file.path.trim_end_matches("/Cargo.toml").to_owned();
        (
            name.clone(),
            Package {
                name,
                folder,
                manifest,
            },
        )
    };
    manifests.map(package).collect()
}

impl Package {
    pub(crate) fn is_service(&self) -> bool {
        self.folder.starts_with("services/")
    }

    /// The names in one of the manifest's tables of dependencies, those for some targets alone included.
    pub(crate) fn dependencies(&self, table: &str) -> BTreeSet<String> {
        let everywhere = self.manifest.get(table).into_iter();
        let targets = self.manifest.get("target").and_then(toml::Value::as_table);
        let somewhere = targets
            .into_iter()
            .flat_map(toml::Table::values)
            .filter_map(|target| target.get(table));
        everywhere
            .chain(somewhere)
            .filter_map(toml::Value::as_table)
            .flat_map(toml::Table::keys)
            .cloned()
            .collect()
    }

    /// What ends up in what it builds: dependencies of dependencies in the workspace included.
    pub(crate) fn closure(&self, packages: &BTreeMap<String, Package>) -> BTreeSet<String> {
        let mut reached = BTreeSet::new();
        let mut open = vec![self];
        while let Some(package) = open.pop() {
            let direct = package.dependencies("dependencies");
            let ours = direct.iter().filter_map(|name| packages.get(name));
            open.extend(ours.filter(|package| reached.insert(package.name.clone())));
        }
        reached
    }
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let made = entry
            .file_name()
            .to_str()
            .is_some_and(|name| MADE.contains(&name));
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && !made => walk(&path, paths),
            Ok(kind) if kind.is_file() => paths.push(path),
            _ => {}
        }
    }
}
