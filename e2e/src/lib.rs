//! What whole-system tests start: the real `hawser`, and what others wrote, as processes of their own.
//!
//! A process writes what it says into files. When a test fails, their ends are shown; when a `hawser` is finished with,
//! its log is looked into, and a warning or an error that the test did not expect makes the test fail.

mod hawser;
mod instance;
mod log;

pub use hawser::{Hawser, Home, Up, hawser_program};
pub use instance::{ClientTls, Instance, Issuer};
pub use log::{Log, LogLine};
pub use testkit::Process;

use std::path::{Path, PathBuf};

/// The workspace's folder.
pub fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package
        .parent()
        .expect("e2e lies in the root")
        .to_path_buf()
}
