//! The scenarios in short, so that they do not rot: every answer is checked and counted, no time is judged.

use std::path::PathBuf;
use std::process::Command;

/// The folder of cargo's own that this test was built in, where the programs are too.
fn programs() -> PathBuf {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_load"));
    program
        .parent()
        .expect("a program lies in a folder")
        .to_owned()
}

#[track_caller]
fn run(arguments: &[&str]) -> String {
    let programs = programs();
    let output = Command::new(env!("CARGO_BIN_EXE_load"))
        .args(arguments)
        .arg("--programs")
        .arg(&programs)
        .output()
        .expect("the program was built with its test");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complaints}");
    said
}

#[test]
fn every_answer_of_the_vault_has_its_record() {
    let said = run(&[
        "vault",
        "--grants",
        "1000",
        "--tenants",
        "20",
        "--rounds",
        "1",
        "--seconds",
        "1",
    ]);
    assert!(said.contains("one for each answer; met"), "{said}");
}

#[test]
fn grants_are_read_while_keys_are_rotated() {
    let said = run(&[
        "rotation",
        "--grants",
        "500",
        "--rate",
        "100",
        "--seconds",
        "1",
    ]);
    assert_eq!(
        said.matches("answers that were not the credential").count(),
        2,
        "{said}"
    );
}

#[test]
fn a_vault_starts_on_a_filled_database() {
    let said = run(&[
        "cold-start",
        "--grants",
        "5000",
        "--tenants",
        "20",
        "--rounds",
        "1",
        "--seconds",
        "1",
    ]);
    assert_eq!(said.matches("ready in").count(), 2, "{said}");
}
