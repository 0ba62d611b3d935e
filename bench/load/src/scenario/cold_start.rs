//! How long a vault takes to be ready on a big database, and how much memory it has then: with nothing due, and with many
//! grants due at a provider that takes every connection and never answers.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use common::TenantKey;
use contracts::vault::v1::token_vault_service_client::TokenVaultServiceClient;
use contracts::vault::v1::{ClientAuthMethod, OAuthClient, PutOAuthClientRequest};
use tokio::net::TcpListener;
use tonic::transport::Channel;

use super::Options;
use crate::credentials::{self, Client, Grant};
use crate::report::{self, Thousands, demand};
use crate::spans::median;
use crate::usage::memory;
use crate::world::{BROKER, World};

const GRANTS: usize = 1_000_000;
const DUE: usize = 10_000;
const READY_DEMAND: Duration = Duration::from_secs(2);
const MEMORY_DEMAND: f64 = 150.0;
/// Memory is looked at again after this.
const SETTLED_AFTER: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// One start.
struct Start {
    ready: Duration,
    resident: f64,
    most: f64,
}

pub(super) async fn run(options: &Options) -> Result<()> {
    let world = World::new(options).await?;
    let count = options.grants.unwrap_or(GRANTS);
    let due = DUE.min(count.div_ceil(10));
    let provider = silent_provider().await?;
    let vault = world.vault(&["a"]).await?;
    let channels = world
        .connect(vault.address, BROKER, options.connections)
        .await?;
    let client = put_client(&world, provider, &channels).await?;
    let grants = credentials::grants(due, options.tenants, &world.deps);
    credentials::put_all(&grants, Some(client), &channels).await?;
    vault.process.stop().await?;
    fill(&world, &grants, count).await?;

    let (mut world, mut idle, mut busy) = (world, Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        world = world.restart_postgres().await?;
        idle.push(start(&world, &grants, options).await?);
    }
    for _ in 0..options.rounds {
        make_due(&world, &grants).await?;
        world = world.restart_postgres().await?;
        busy.push(start(&world, &grants, options).await?);
    }
    report::line(format_args!(
        "{} grants of {} tenants; {} starts each, Postgres restarted before every one",
        Thousands(count as u64),
        Thousands(options.tenants.min(count) as u64),
        options.rounds
    ));
    say("nothing due", &idle);
    say(&format!("{} due", Thousands(due as u64)), &busy);
    Ok(())
}

/// Takes connections, and says nothing on them.
async fn silent_provider() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    Ok(address)
}

async fn put_client(world: &World, provider: SocketAddr, channels: &[Channel]) -> Result<Client> {
    let id = TenantKey::PLATFORM.new_id(&world.deps);
    let channel = channels.first().context("a connection was made")?;
    let client = OAuthClient {
        tenant_id: TenantKey::PLATFORM.to_string(),
        oauth_client_id: id.to_string(),
        provider: "oauth2".to_owned(),
        token_endpoint: format!("http://{provider}/token"),
        auth_method: ClientAuthMethod::SecretBasic as i32,
        client_id: "bench".to_owned(),
        client_secret: "bench".to_owned(),
        ..OAuthClient::default()
    };
    TokenVaultServiceClient::new(channel.clone())
        .put_o_auth_client(PutOAuthClientRequest {
            oauth_client: Some(client),
        })
        .await?;
    Ok(Client { id })
}

/// Copies rows up to `count`: a start does not open them, so it does not matter that none would open where it lies.
async fn fill(world: &World, grants: &[Grant], count: usize) -> Result<()> {
    let began = Instant::now();
    let admin = &world.postgres.admin;
    admin
        .execute(
            "UPDATE vault.grants SET state = 'active', confirm_until = NULL",
            &[],
        )
        .await?;
    let rows = admin
        .query(
            "SELECT column_name::text FROM information_schema.columns WHERE table_schema = 'vault' AND table_name = 'grants' AND is_generated = 'NEVER' ORDER BY ordinal_position",
            &[],
        )
        .await?;
    let columns: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let copied: Vec<String> = columns
        .iter()
        .map(|column| match column.as_str() {
            // The last two bytes are the tenant's bucket, as in every id.
            "grant_id" => "(left(gen_random_uuid()::text, 14) || '7' || substr(gen_random_uuid()::text, 16, 17) || right(tenant_id::text, 4))::uuid".to_owned(),
            other => other.to_owned(),
        })
        .collect();
    let rounds = count.saturating_sub(grants.len());
    let each = rounds.div_ceil(grants.len());
    admin
        .execute(
            &format!(
                "INSERT INTO vault.grants ({}) SELECT {} FROM vault.grants, generate_series(1, {each}) LIMIT {rounds}",
                columns.join(", "),
                copied.join(", ")
            ),
            &[],
        )
        .await?;
    world.postgres.settle().await?;
    report::progress(format_args!(
        "{} grants in {:.0} s",
        Thousands(count as u64),
        began.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// The grants that were really put are due; the rounds never are.
async fn make_due(world: &World, grants: &[Grant]) -> Result<()> {
    let ids: Vec<_> = grants.iter().map(|grant| grant.id).collect();
    let made = world
        .postgres
        .admin
        .execute(
            "UPDATE vault.grants SET next_refresh_at = now() - interval '1 s', retry_at = NULL, lease_until = NULL, intent_kind = NULL,
                intent_instance = NULL, intent_version = NULL, intent_at = NULL, intent_sent_at = NULL, answer_lost = false
            WHERE grant_id = ANY (SELECT unnest($1::text[])::uuid)",
            &[&ids.iter().map(ToString::to_string).collect::<Vec<_>>()],
        )
        .await?;
    ensure!(
        made == grants.len() as u64,
        "{made} of {} grants were made due",
        grants.len()
    );
    Ok(())
}

async fn start(world: &World, grants: &[Grant], options: &Options) -> Result<Start> {
    let vault = world.vault(&["a"]).await?;
    let (resident, _) = memory(vault.process.pid())?;
    // It does what it is for at once.
    let channel = world.connect(vault.address, BROKER, 1).await?;
    let channel = channel
        .into_iter()
        .next()
        .context("a connection was made")?;
    let grant = grants.first().context("there are grants")?;
    grant
        .get(&mut TokenVaultServiceClient::new(channel))
        .await?;
    let until = Instant::now() + SETTLED_AFTER.min(options.turn);
    while Instant::now() < until {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let (_, most) = memory(vault.process.pid())?;
    let start = Start {
        ready: vault.ready_after,
        resident,
        most,
    };
    report::progress(format_args!(
        "ready in {:.2} s, {:.0} MiB, {:.0} MiB at most, {} lines of warnings and errors",
        start.ready.as_secs_f64(),
        start.resident,
        start.most,
        vault.process.said("\"WARN\"")? + vault.process.said("\"ERROR\"")?
    ));
    vault.process.kill().await?;
    Ok(start)
}

fn say(what: &str, starts: &[Start]) {
    let worst = |figure: fn(&Start) -> f64| starts.iter().map(figure).fold(0.0, f64::max);
    let ready = worst(|start| start.ready.as_secs_f64());
    let most = worst(|start| start.most);
    demand(
        &format!("{what}: ready in"),
        format_args!(
            "{:.2} s, at worst {ready:.2} s",
            median(starts.iter().map(|start| start.ready.as_secs_f64()))
        ),
        format_args!("under {} s", READY_DEMAND.as_secs()),
        ready < READY_DEMAND.as_secs_f64(),
    );
    demand(
        &format!("{what}: resident"),
        format_args!(
            "{:.0} MiB when ready, {most:.0} MiB at most later on",
            median(starts.iter().map(|start| start.resident))
        ),
        format_args!("under {MEMORY_DEMAND} MiB"),
        most < MEMORY_DEMAND,
    );
}
