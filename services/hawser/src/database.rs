//! The database from the command line: migrate, seed, reset.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use common::Deps;
use common::pg::{self, Database};

use crate::cli::say;
use crate::data_dir::DataDir;
use crate::up::{SCHEMAS, Server};

/// The SQL for a database administrator.
pub(crate) fn bootstrap_sql() -> String {
    pg::bootstrap_sql(&SCHEMAS)
}

/// Brings every schema up to date.
///
/// # Errors
/// Where the database cannot be reached, or is newer than this version.
pub(crate) async fn migrate(url: Option<String>, password_file: Option<PathBuf>) -> Result<()> {
    let url = url.context("say which database with --database-url; the one of `hawser up` is brought up to date when it starts")?;
    let mut config = pg::PgConfig::new(url);
    config.password_file = password_file;
    for schema in SCHEMAS {
        pg::migrate(&config, schema).await.with_context(|| {
            format!("the schema `{}` cannot be brought up to date", schema.name)
        })?;
        say(&format!("{} is up to date", schema.name))?;
    }
    Ok(())
}

/// Makes the development tenant.
///
/// # Errors
/// Where the instance's database is not its own, or is not to be had.
pub(crate) async fn seed(data_dir: PathBuf) -> Result<()> {
    let deps = Deps::system("hawser");
    let dir = DataDir::at(&data_dir)?;
    let server = Server::open_development(&dir, &deps).await?;
    // Whatever is opened so is the database that `hawser up` made for itself.
    let development = tenant_directory::Development::confirmed(true)?;
    let database = Database::open(
        &server.login("directory")?,
        &tenant_directory::SCHEMA,
        &deps,
    )?;
    let seeded = tenant_directory::seed(&database, &deps, development).await;
    database.close();
    server.stop().await?;
    let seeded = seeded.context("the development tenant cannot be made")?;
    say(&format!(
        "tenant acme is {}, with the admin {} and the users {}",
        seeded.tenant_id,
        seeded.admin,
        seeded.users.join(", ")
    ))
}

/// Deletes everything in a development database.
///
/// # Errors
/// Where it runs, or is not a development database.
pub(crate) async fn reset(data_dir: PathBuf, yes: bool) -> Result<()> {
    if !yes {
        bail!(
            "this deletes everything in the database of {}; say --yes if that is what you want",
            data_dir.display()
        );
    }
    let deps = Deps::system("hawser");
    let held = DataDir::at(&data_dir)?.hold()?;
    let server = Server::start_development(&held.dir, &deps).await?;
    let emptied = server.empty(&held.dir, &deps).await;
    server.stop().await?;
    emptied?;
    say("the database is empty, and its schemas are up to date")
}
