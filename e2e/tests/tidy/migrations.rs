//! Migrations: named, numbered, registered, and such that the schema can be sharded later.

use std::collections::BTreeMap;

use crate::none;
use crate::tree::{self, File};

/// What a sharded schema cannot have, as whole words.
const UNSHARDABLE: &[&str] = &[
    "as identity",
    "bigserial",
    "create function",
    "create or replace function",
    "create or replace procedure",
    "create or replace trigger",
    "create procedure",
    "create sequence",
    "create trigger",
    "serial",
    "smallserial",
];

/// Append-only tables whose batches span tenants, at the cost of a commit in two phases once they are sharded.
const BATCHED: &[&str] = &["event_log"];

#[test]
fn migrations_are_numbered_and_registered() {
    let mut violations = Vec::new();
    let mut last: BTreeMap<String, usize> = BTreeMap::new();
    for file in migrations() {
        let (folder, name) = file
            .path
            .split_once("/migrations/")
            .expect("they are found by it");
        let name = name.trim_end_matches(".sql");
        let number = last.entry(folder.to_owned()).or_default();
        *number += 1;
        if !name.starts_with(&format!("{number:04}_")) || name.split('_').count() < 3 {
            violations.push(format!(
                "{}: the next one is called {number:04}_verb_noun.sql",
                file.path
            ));
        }
        let registered = tree::files(&format!("{folder}/src"), ".rs")
            .iter()
            .any(|source| source.text.contains(&format!("\"{name}\"")));
        if !registered {
            violations.push(format!(
                "{}: nothing in {folder}/src names it; add it to pg::migrations!",
                file.path
            ));
        }
    }
    none(&violations);
}

#[test]
fn schemas_can_be_sharded() {
    let mut violations = Vec::new();
    for file in migrations() {
        for statement in statements(&file.text) {
            let words: Vec<_> = statement
                .split(|character: char| !character.is_alphanumeric() && character != '_')
                .filter(|word| !word.is_empty())
                .collect();
            let line = format!(" {} ", words.join(" "));
            for word in UNSHARDABLE
                .iter()
                .filter(|word| line.contains(&format!(" {word} ")))
            {
                violations.push(format!("{}: `{word}`; ids and numbers are made in Rust, and what follows a write is written with it", file.path));
            }
            // A lookup by a name that is unique over all tenants has no bucket: it is sharded by the name's hash.
            if line.starts_with(" create table ")
                && words.contains(&"bucket")
                && !BATCHED.contains(&words[3])
            {
                for key in keys(&statement).filter(|key| !key.starts_with("bucket")) {
                    violations.push(format!(
                        "{}: a key on ({key}); each begins with the bucket",
                        file.path
                    ));
                }
                if statement
                    .lines()
                    .any(|line| line.trim().ends_with("primary key,") || line.contains(" unique,"))
                {
                    violations.push(format!(
                        "{}: a key on one column; each begins with the bucket",
                        file.path
                    ));
                }
            }
        }
    }
    none(&violations);
}

fn migrations() -> Vec<File> {
    let files: Vec<_> = tree::files("", ".sql")
        .into_iter()
        .filter(|file| file.path.contains("/migrations/"))
        .collect();
    assert!(!files.is_empty(), "the migrations are not found any more");
    files
}

/// The statements in lower case, without comments.
fn statements(text: &str) -> Vec<String> {
    let text: Vec<_> = text
        .lines()
        .map(|line| line.split("--").next().unwrap_or_default())
        .collect();
    text.join("\n")
        .to_lowercase()
        .split(';')
        .map(|statement| statement.trim().to_owned())
        .collect()
}

/// The columns of each primary key and unique constraint.
fn keys(statement: &str) -> impl Iterator<Item = &str> {
    ["primary key (", "unique ("]
        .into_iter()
        .flat_map(move |constraint| {
            statement
                .split(constraint)
                .skip(1)
                .map(|rest| rest.split(')').next().unwrap_or_default().trim())
        })
}

#[test]
fn keys_are_found() {
    let text = "CREATE TABLE t ( -- a table\n  bucket smallint,\n  PRIMARY KEY (bucket, id),\n  UNIQUE (name)\n); SELECT 1";
    let statements = statements(text);
    assert_eq!(statements.len(), 2);
    assert_eq!(
        keys(&statements[0]).collect::<Vec<_>>(),
        ["bucket, id", "name"]
    );
}
