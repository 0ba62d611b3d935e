//! `provider-sim`: a simulator on its own, for trying things out by hand.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use provider_sim::{SimConfig, Simulator};
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

/// Plays OAuth providers and their APIs, with faults on demand.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where to listen. The control API is open to whoever reaches it.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// A TOML file that says what to play.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Where issued tokens are kept over a restart.
    #[arg(long)]
    state_file: Option<PathBuf>,
    /// Records in each collection.
    #[arg(long)]
    records: Option<u32>,
    /// Redirect back at once, without a consent page.
    #[arg(long)]
    auto_consent: bool,
    /// Where callers reach it, if not at the address it listens on.
    #[arg(long)]
    public_url: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    let listen = arguments.listen;
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen}; choose another --listen"))?;
    let mut simulator = Simulator::start(config(arguments)?, listener).await?;
    writeln!(std::io::stdout(), "ready {}", simulator.base_url())?;
    tokio::select! {
        () = simulator.ended() => anyhow::bail!("the simulator has stopped by itself"),
        signal = tokio::signal::ctrl_c() => signal?,
    }
    simulator.stop().await;
    Ok(())
}

fn config(arguments: Arguments) -> anyhow::Result<SimConfig> {
    let mut config = match &arguments.config {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            toml::from_str(&text)
                .with_context(|| format!("{} is not a configuration", path.display()))?
        }
        None => SimConfig::default(),
    };
    config.records = arguments.records.unwrap_or(config.records);
    config.state_file = arguments.state_file.or(config.state_file);
    config.public_url = arguments.public_url.or(config.public_url);
    for provider in &mut config.providers {
        provider.auto_consent |= arguments.auto_consent;
    }
    Ok(config)
}
