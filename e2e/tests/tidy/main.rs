//! The rules of the tree, checked by reading it and not by memory. A rule says in its failure what to do instead.

mod calls;
mod dependencies;
mod migrations;
mod pages;
mod rust;
mod sources;
mod tree;

/// Fails with each violation on a line of its own.
#[track_caller]
fn none(violations: &[String]) {
    assert!(violations.is_empty(), "\n  {}\n", violations.join("\n  "));
}
