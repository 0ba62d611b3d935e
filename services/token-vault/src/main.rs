//! The token vault as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    common::service::main::<token_vault::TokenVault>()
}
