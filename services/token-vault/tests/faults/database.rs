//! The database taken away between a provider's answer and its commit.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use common::config::Duration as Setting;
use common::pg::PgConfig;
use common::rpc::CallError;
use contracts::vault::v1::Credential;
use provider_sim::{Fault, FaultRule};
use testkit::chaos::Proxy;
use testkit::{StopMode, TestServer, eventually};
use token_vault::SCHEMA;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::fleet::{ask, asked};
use crate::replica::{PATIENCE, answers_in};
use crate::world::{Instance, World, get_at, token_of};

/// A vault behind a proxy, with a server of its own, and a request under way whose answer is still to come.
struct Ground {
    // It drains before its database goes.
    vault: Instance,
    proxy: Proxy,
    server: TestServer,
    world: World,
    grant: Uuid,
    reader: JoinHandle<Result<Credential, CallError>>,
}

/// Long enough for the database to be taken away meanwhile.
const ANSWER_TIME: u64 = 3000;

impl Ground {
    async fn new() -> Self {
        let world = World::without_vault().await;
        let server = TestServer::start(&[&SCHEMA]).await;
        let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], server.port()))).await;
        let vault = start(&world, "vault", &server, &proxy).await;
        world.put_right_client(&vault).await;
        let grant = world.connect(&vault).await;
        let admin = server.admin().await;
        let expire = "UPDATE vault.grants SET issued_at = now() - interval '1 h', expires_at = now() - interval '1 s'";
        assert_eq!(admin.execute(expire, &[]).await.unwrap(), 1);
        let delay = Fault::Delay {
            millis: ANSWER_TIME,
        };
        world.sim.control().inject(FaultRule::once("token", delay));
        let (mut client, request) = (world.vault(&vault), world.get_request(grant));
        let reader = tokio::spawn(async move { get_at(&mut client, request).await });
        eventually(PATIENCE, async || {
            let sql = "SELECT intent_sent_at IS NOT NULL FROM vault.grants";
            admin.query_one(sql, &[]).await.unwrap().get(0)
        })
        .await;
        Self {
            vault,
            proxy,
            server,
            world,
            grant,
            reader,
        }
    }

    /// The answer is there, and lies where it is safe.
    async fn answered(&self) {
        let spool = self.world.folder().join("spool-vault");
        eventually(PATIENCE, async || answers_in(&spool) == 1).await;
        assert_eq!(self.world.refreshes(), 1);
    }

    /// Callers are told to come again, and the answer is still where it is safe.
    async fn expect_refused(&self) {
        let mut client = self.world.vault(&self.vault);
        let patience = Duration::from_secs(1);
        let asked = ask(&self.world, &mut client, self.grant, patience).await;
        assert!(asked.unwrap_err().is_transient());
        self.answered().await;
    }

    /// It was asked for once, and has arrived.
    async fn expect_refreshed(self) {
        let mut client = self.world.vault(&self.vault);
        eventually(PATIENCE, async || {
            let credential = ask(&self.world, &mut client, self.grant, PATIENCE).await;
            credential.is_ok_and(|credential| credential.version == 2)
        })
        .await;
        let credential = self.world.get(&self.vault, self.grant).await.unwrap();
        assert!(self.world.works(&token_of(&credential)).await);
        let counters = self.world.sim.control().counters();
        assert_eq!((asked(&self.world), counters.refreshes()), (1, 1));
        let spool = self.world.folder().join("spool-vault");
        eventually(PATIENCE, async || answers_in(&spool) == 0).await;
        // Whoever waited for it may have been told to come again meanwhile.
        drop(self.reader);
    }
}

async fn start(world: &World, name: &str, server: &TestServer, proxy: &Proxy) -> Instance {
    let database = PgConfig {
        statement_timeout: Duration::from_secs(5),
        ..server.config_through(proxy.address().port(), SCHEMA.name)
    };
    let mut config = world.config(name, database);
    config.refresh.provider_timeout = Setting::from_secs(20);
    world.start_with(config, world.deps.clone()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_down_for_longer_than_the_lease_gets_the_answer_first() {
    let mut ground = Ground::new().await;
    let beside = Proxy::start(SocketAddr::from(([127, 0, 0, 1], ground.server.port()))).await;
    let other = start(&ground.world, "other", &ground.server, &beside).await;
    ground.server.stop(StopMode::Immediate).await;
    ground.answered().await;
    ground.proxy.cut();
    beside.cut();
    ground.server.start_again().await;
    // It was down for ten minutes, in which nobody could be heard.
    let admin = ground.server.admin().await;
    let sql = "UPDATE vault.grants SET intent_at = intent_at - interval '10 min', intent_sent_at = intent_sent_at - interval '10 min',
            lease_until = lease_until - interval '10 min', expires_at = expires_at - interval '10 min'
        WHERE intent_sent_at IS NOT NULL";
    assert_eq!(admin.execute(sql, &[]).await.unwrap(), 1);
    let sql = "UPDATE vault.instances SET heartbeat_at = heartbeat_at - interval '10 min'";
    admin.execute(sql, &[]).await.unwrap();
    // The other vault is the first to be back, and wants the grant.
    let mut client = ground.world.vault(&other);
    let request = ground.world.get_request(ground.grant);
    let wanting = tokio::spawn(async move { get_at(&mut client, request).await });
    beside.pass();
    let before = beside.round_trips();
    // It has looked at the grant a few times, and asked for its lease.
    eventually(PATIENCE, async || beside.round_trips() > before + 20).await;
    assert_eq!(asked(&ground.world), 1, "it keeps its hands off");
    ground.proxy.pass();
    assert_eq!(wanting.await.unwrap().unwrap().version, 2);
    ground.expect_refreshed().await;
    drop(other);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_database_gets_the_answer_when_it_has_room() {
    let logs = testkit::logs::capture();
    logs.expect("");
    let mut ground = Ground::new().await;
    let outbox = empty_outbox(&ground.server).await;
    ground.server.stop(StopMode::Fast).await;
    // Every write to this file ends with ENOSPC, and Postgres says so as it does of a full disk.
    std::fs::remove_file(&outbox).unwrap();
    symlink("/dev/full", &outbox).unwrap();
    ground.server.start_again().await;
    ground.answered().await;
    ground.expect_refused().await;
    ground.server.stop(StopMode::Fast).await;
    std::fs::remove_file(&outbox).unwrap();
    std::fs::write(&outbox, []).unwrap();
    ground.server.own(&outbox);
    ground.server.start_again().await;
    ground.expect_refreshed().await;
}

/// The file of the outbox's rows, without any in it: the next one needs room.
async fn empty_outbox(server: &TestServer) -> PathBuf {
    let admin = server.admin().await;
    admin.batch_execute("TRUNCATE vault.outbox").await.unwrap();
    let row = admin
        .query_one("SELECT pg_relation_filepath('vault.outbox')", &[])
        .await
        .unwrap();
    server.data_folder().join(row.get::<_, String>(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_takes_no_writes_gets_the_answer_when_it_does() {
    let logs = testkit::logs::capture();
    logs.expect("");
    let ground = Ground::new().await;
    let admin = ground.server.admin().await;
    // As a primary that has become a standby: it reads, and refuses to write.
    let read_only = "ALTER ROLE hawser_vault SET default_transaction_read_only = on;
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'hawser_vault'";
    admin.batch_execute(read_only).await.unwrap();
    ground.answered().await;
    ground.expect_refused().await;
    let again = "ALTER ROLE hawser_vault RESET default_transaction_read_only;
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'hawser_vault'";
    admin.batch_execute(again).await.unwrap();
    ground.expect_refreshed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_does_not_answer_gets_the_answer_once() {
    let logs = testkit::logs::capture();
    logs.expect("");
    let ground = Ground::new().await;
    ground.proxy.stall();
    ground.answered().await;
    // At least one attempt was given up without a word from the database.
    eventually(PATIENCE, async || {
        let lines = logs.lines();
        lines.iter().any(|line| line.contains("answer_not_stored"))
    })
    .await;
    ground.proxy.pass();
    ground.expect_refreshed().await;
}
