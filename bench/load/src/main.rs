//! Load programs: each scenario starts what it measures, puts load on it, checks every answer, and says what it saw.
//!
//! ```text
//! load vault | rotation | cold-start [--grants N] [--tenants N] [--rounds N] [--seconds N] [--programs FOLDER]
//! ```
//!
//! Figures are of use as ratios to a floor that was measured in the same run, with the same client. A wrong answer ends
//! the run with an error; a slow one never does.

mod cluster;
mod credentials;
mod drive;
mod echo;
mod http2;
mod process;
mod report;
mod scenario;
mod spans;
mod usage;
mod world;

use std::process::ExitCode;

use scenario::Options;

fn main() -> ExitCode {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::complain(&error);
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run() -> anyhow::Result<()> {
    let options = Options::parse(std::env::args_os().skip(1))?;
    scenario::run(&options).await
}
