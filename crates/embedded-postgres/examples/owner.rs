//! A process that owns a cluster until it is killed: `owner FOLDER`. Says in FOLDER/up which process the server is.

use anyhow::{Context as _, Result};
use common::Deps;
use embedded_postgres::{Cluster, Options};

#[tokio::main]
async fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).context("owner FOLDER")?;
    let folder = std::path::PathBuf::from(folder);
    let options = Options {
        durable: false,
        ..Options::default()
    };
    let cluster = Cluster::start(&folder, &options, &Deps::system("owner")).await?;
    std::fs::write(folder.join("up"), cluster.pid().to_string())?;
    std::future::pending().await
}
