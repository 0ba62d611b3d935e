//! Which package may depend on which.

use crate::{none, tree};

/// What puts the services together.
const TOGETHER: &[&str] = &["e2e", "hawser"];

const TABLES: &[&str] = &["dependencies", "dev-dependencies", "build-dependencies"];

#[test]
fn services_never_depend_on_each_other() {
    let packages = tree::packages();
    let services: Vec<_> = packages
        .values()
        .filter(|package| package.is_service())
        .collect();
    assert!(services.len() >= 7, "the services are not found any more");
    let mut violations = Vec::new();
    for package in packages
        .values()
        .filter(|package| !TOGETHER.contains(&package.name.as_str()))
    {
        for table in TABLES {
            for dependency in package.dependencies(table) {
                // A package may be its own dev-dependency, with a feature that its tests need.
                let other = dependency != package.name;
                if other && services.iter().any(|service| service.name == dependency) {
                    violations.push(format!(
                        "{}/Cargo.toml: {table} has the service {dependency}; call it by its contract, or move what is shared into a crate",
                        package.folder
                    ));
                }
            }
        }
    }
    none(&violations);
}

#[test]
fn what_is_for_tests_is_in_no_release_build() {
    let packages = tree::packages();
    assert!(
        packages.contains_key("testkit") && packages.contains_key("provider-sim"),
        "they are not found any more"
    );
    let mut violations = Vec::new();
    for package in packages.values().filter(|package| package.is_service()) {
        let built = package.closure(&packages);
        if built.contains("testkit") {
            violations.push(format!(
                "{} is built with testkit: make it a dev-dependency",
                package.name
            ));
        }
        // The demo connects to the simulated provider, so the CLI carries it.
        if built.contains("provider-sim") && package.name != "hawser" {
            violations.push(format!(
                "{} is built with provider-sim: make it a dev-dependency",
                package.name
            ));
        }
    }
    none(&violations);
}

#[test]
fn versions_stand_once() {
    let mut violations = Vec::new();
    for package in tree::packages().values() {
        for table in TABLES {
            let Some(dependencies) = package.manifest.get(*table).and_then(toml::Value::as_table)
            else {
                continue;
            };
            for (name, dependency) in dependencies {
                let inherited = dependency.get("workspace").and_then(toml::Value::as_bool);
                if inherited != Some(true) && *name != package.name {
                    violations.push(format!(
                        "{}/Cargo.toml: {name} has a version of its own; put it into [workspace.dependencies]",
                        package.folder
                    ));
                }
            }
        }
        // Generated code is not held to the lints.
        let lints = package
            .manifest
            .get("lints")
            .and_then(|lints| lints.get("workspace"))
            .and_then(toml::Value::as_bool);
        if lints != Some(true) && package.name != "contracts" {
            violations.push(format!(
                "{}/Cargo.toml: [lints] workspace = true is missing",
                package.folder
            ));
        }
    }
    none(&violations);
}
