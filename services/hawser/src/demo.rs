//! The whole path in a minute, against the simulated provider: what a person sees, told a line a step.
//!
//! The services run in a process of their own, so that killing it is killing it.

mod journey;
mod provider;
mod system;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Args;
use common::Deps;

use crate::cli::say;
use journey::Journey;
use system::System;

/// How the demo runs.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Where the demo's instance is kept; begun anew each time.
    #[arg(long, env = "HAWSER_DEMO_DIR", default_value = ".hawser/demo")]
    data_dir: PathBuf,
    /// Records in each collection of the simulated provider.
    #[arg(long, default_value_t = 2000)]
    records: u32,
    /// Settings of the instance, as `hawser up --set` takes them.
    #[arg(long = "set", value_name = "SETTING=VALUE")]
    settings: Vec<String>,
    /// Keep everything running at the end, until Ctrl-C.
    #[arg(long)]
    stay: bool,
}

/// Readers of the expired token, all at once.
const READERS: usize = 100;

/// Goes down the path; any step that fails ends it.
///
/// # Errors
/// The step that failed, and why.
pub async fn demo(args: DemoArgs) -> Result<()> {
    let deps = Deps::system("hawser-demo");
    let began = Instant::now();
    let mut steps = Steps::default();

    steps.begin("Start every service, on a Postgres of its own")?;
    let mut system = System::fresh(&args.data_dir, args.records, &args.settings).await?;
    steps.done(&format!(
        "{} services answer, with mutual TLS between them",
        system.instance().grpc.len() + 1
    ))?;

    steps.begin("Create a customer, Acme, with a user, Alice, and its Procore integration")?;
    let mut journey = Journey::begin(&system, &deps).await?;
    steps.done(&format!("tenant {}", journey.tenant))?;

    steps.begin("Alice connects her Procore account in a browser: link, consent, account")?;
    journey.connect(&mut steps).await?;

    steps.begin("List what the grant reaches, and switch the active company")?;
    let (from, to) = journey.switch_account().await?;
    steps.done(&format!(
        "{from} → {to}; requests carry the new Procore-Company-Id"
    ))?;

    steps.begin("Read an access token, for one call to the provider")?;
    let read = journey.read_token().await?;
    steps.done(&read)?;

    steps.begin(&format!(
        "Let the token expire, and have {READERS} readers ask for it at once"
    ))?;
    let refreshes = journey.read_expired(READERS).await?;
    ensure!(
        refreshes == 1,
        "the provider saw {refreshes} refreshes where one was enough"
    );
    steps.done("every one of them has a valid token, and the provider saw exactly one refresh")?;

    steps.begin("Sync a year of history, once")?;
    let documents = journey.initial_sync().await?;
    steps.done(&format!("{documents} documents, each with who brought it in, how, and by which job; auto-sync enabled"))?;

    steps.begin("Try to sync it all once more")?;
    let refusal = journey.second_sync_is_refused().await?;
    steps.done(&format!("refused: {refusal}"))?;

    steps.begin("An operator allows one more")?;
    let unchanged = journey.override_once().await?;
    steps.done(&format!(
        "the override is used up; {unchanged} documents were found unchanged, none was doubled"
    ))?;

    steps.begin("The provider sends a signed webhook, twice; a forged one is refused")?;
    let webhook = journey.webhook().await?;
    steps.done(&webhook)?;

    steps.begin("Kill everything, and start it again")?;
    system.kill_and_restart().await?;
    journey.reconnect(&system, &deps)?;
    let after = journey.still_works().await?;
    steps.done(&after)?;

    let seconds = began.elapsed().as_secs();
    say(&format!(
        "\nAll of it in {seconds} s. What happened is kept in {}:",
        args.data_dir.display()
    ))?;
    for (name, url) in &system.instance().http {
        say(&format!("  {name:<14} {url}"))?;
    }
    if args.stay {
        say("It goes on running; Ctrl-C stops it.")?;
        tokio::signal::ctrl_c().await?;
    } else {
        say(&format!(
            "Start it again on the same ports: ./run up --data-dir {}",
            args.data_dir.display()
        ))?;
    }
    system.stop().await
}

/// Tells the steps.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    number: usize,
}

impl Steps {
    fn begin(&mut self, what: &str) -> Result<()> {
        self.number += 1;
        say(&format!("{:>2}. {what}", self.number))
    }

    fn done(&self, what: &str) -> Result<()> {
        debug_assert!(self.number > 0, "a step is begun before it is done");
        say(&format!("    ✓ {what}"))
    }
}
