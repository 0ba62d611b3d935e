//! What is measured, and with what.

mod cold_start;
mod rotation;
mod vault;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// What the command line says.
#[derive(Debug)]
pub(crate) struct Options {
    what: What,
    /// Grants to begin with; each scenario has its own default, the full size.
    pub(crate) grants: Option<usize>,
    pub(crate) tenants: usize,
    /// Floor and load take turns this often.
    pub(crate) rounds: usize,
    /// How long each turn lasts.
    pub(crate) turn: Duration,
    pub(crate) callers: usize,
    pub(crate) connections: usize,
    /// Calls a second, where they come at a rate of their own.
    pub(crate) rate: u32,
    /// Where the services' programs are; beside this one where it is not said.
    pub(crate) programs: PathBuf,
    /// Further settings of the vault: `telemetry.sample_ratio=0`.
    pub(crate) settings: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Vault,
    Rotation,
    ColdStart,
    /// The floor, in a process of its own: address and folder of certificates follow.
    Echo,
}

const USAGE: &str = "use it as: load vault|rotation|cold-start [--grants N] [--tenants N] [--rounds N] [--seconds N] \
    [--callers N] [--connections N] [--rate N] [--programs FOLDER] [--set setting=value]…";

impl Options {
    /// Reads the command line.
    pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self> {
        let mut parser = lexopt::Parser::from_args(arguments);
        let beside = std::env::current_exe()?;
        let mut options = Self {
            what: What::Vault,
            grants: None,
            tenants: 1000,
            rounds: 5,
            turn: Duration::from_secs(10),
            callers: 64,
            connections: 4,
            rate: 1000,
            programs: beside
                .parent()
                .context("a program lies in a folder")?
                .to_owned(),
            settings: Vec::new(),
        };
        let mut what = None;
        while let Some(argument) = parser.next()? {
            match argument {
                lexopt::Arg::Value(word) if what.is_none() => what = Some(word),
                lexopt::Arg::Long("grants") => options.grants = Some(number(&mut parser)?),
                lexopt::Arg::Long("tenants") => options.tenants = number(&mut parser)?,
                lexopt::Arg::Long("rounds") => options.rounds = number(&mut parser)?,
                lexopt::Arg::Long("seconds") => {
                    options.turn = Duration::from_secs(number(&mut parser)? as u64);
                }
                lexopt::Arg::Long("callers") => options.callers = number(&mut parser)?,
                lexopt::Arg::Long("connections") => options.connections = number(&mut parser)?,
                lexopt::Arg::Long("rate") => options.rate = number(&mut parser)? as u32,
                lexopt::Arg::Long("programs") => options.programs = parser.value()?.into(),
                lexopt::Arg::Long("set") => {
                    options
                        .settings
                        .push(parser.value()?.to_string_lossy().into_owned());
                }
                _ => bail!(USAGE),
            }
        }
        options.what = match what.as_ref().and_then(|word| word.to_str()) {
            Some("vault") => What::Vault,
            Some("rotation") => What::Rotation,
            Some("cold-start") => What::ColdStart,
            Some("echo") => What::Echo,
            _ => bail!(USAGE),
        };
        Ok(options)
    }
}

/// At least 1: nothing can be measured of none.
fn number(parser: &mut lexopt::Parser) -> Result<usize> {
    let value = parser.value()?;
    value
        .to_str()
        .and_then(|text| text.parse().ok())
        .filter(|number| *number > 0)
        .with_context(|| format!("{} is no number above 0", value.to_string_lossy()))
}

/// Runs what was asked for.
pub(crate) async fn run(options: &Options) -> Result<()> {
    match options.what {
        What::Vault => vault::run(options).await,
        What::Rotation => rotation::run(options).await,
        What::ColdStart => cold_start::run(options).await,
        What::Echo => crate::echo::serve(&options.programs).await,
    }
}
