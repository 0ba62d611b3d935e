//! The process killed at each step of a refresh, on a provider that ends a grant whose refresh token is used twice.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use common::Reason;
use token_vault::SCHEMA;
use tokio::process::{Child, Command};
use uuid::Uuid;

use crate::world::{World, get_at, token_of};

struct Killable {
    world: World,
    config: PathBuf,
    address: SocketAddr,
    grant: Uuid,
}

impl Killable {
    /// A grant with an expired token, and a vault in a process of its own that is not yet started.
    async fn new() -> Self {
        let (world, other) = World::new().await;
        let grant = world.connect(&other).await;
        world.expire(grant).await;
        drop(other);
        let mut config = world.config("killable", world.database.config(SCHEMA.name));
        config.grpc.listen = free_address();
        let path = world.folder().join("killable.toml");
        std::fs::write(&path, toml::to_string(&config).unwrap()).unwrap();
        Self {
            address: config.grpc.listen,
            world,
            config: path,
            grant,
        }
    }

    fn start(&self, failpoint: &str) -> Child {
        Command::new(env!("CARGO_BIN_EXE_token-vault"))
            .args(["serve", "--config"])
            .arg(&self.config)
            .env("HAWSER_VAULT_FAILPOINT", failpoint)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    /// Reads until the vault dies of its failpoint.
    async fn read_until_killed(&self, child: &mut Child) {
        use std::os::unix::process::ExitStatusExt as _;
        let mut vault = self.world.vault_at(self.address);
        let killed = testkit::eventually_some(Duration::from_mins(1), async || {
            let request = self.world.get_request(self.grant);
            let _ =
                tokio::time::timeout(Duration::from_secs(2), vault.get_credential(request)).await;
            child.try_wait().unwrap()
        });
        assert_eq!(
            killed.await.signal(),
            Some(9),
            "it was killed, and did not end otherwise"
        );
    }

    /// Kills at `point`, starts again, and reads.
    async fn crash_at(&self, point: &str) -> Result<String, common::rpc::CallError> {
        let mut child = self.start(point);
        self.read_until_killed(&mut child).await;
        let _again = self.start("");
        let mut vault = self.world.vault_at(self.address);
        testkit::eventually_some(Duration::from_mins(1), async || {
            match get_at(&mut vault, self.world.get_request(self.grant)).await {
                Err(error) if error.is_transient() => None,
                outcome => Some(outcome.map(|credential| token_of(&credential))),
            }
        })
        .await
    }
}

fn free_address() -> SocketAddr {
    // The child binds it a moment later; nobody else is given it in between, as the system hands ports out by turns.
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_request_a_crash_costs_nothing() {
    for point in ["claimed", "before_send"] {
        let killable = Killable::new().await;
        let token = killable.crash_at(point).await.unwrap();
        assert!(killable.world.works(&token).await, "{point}");
        let counters = killable.world.sim.control().counters();
        assert_eq!(
            (counters.refreshes(), counters.reuse_refused()),
            (1, 0),
            "{point}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn req_procore_01_an_answer_that_reached_the_disk_survives_the_crash() {
    for point in ["spooled", "committed"] {
        let killable = Killable::new().await;
        let token = killable.crash_at(point).await.unwrap();
        assert!(killable.world.works(&token).await, "{point}");
        let counters = killable.world.sim.control().counters();
        assert_eq!(
            (counters.refreshes(), counters.reuse_refused()),
            (1, 0),
            "{point}"
        );
        let left = std::fs::read_dir(killable.world.folder().join("spool-killable")).unwrap();
        let left = left.filter(|entry| {
            entry
                .as_ref()
                .unwrap()
                .path()
                .extension()
                .is_some_and(|kind| kind == "answer")
        });
        assert_eq!(left.count(), 0, "the spool is empty again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_answer_and_disk_the_loss_is_named() {
    let killable = Killable::new().await;
    let error = killable
        .crash_at("answered")
        .await
        .expect_err("the rotated token is lost");
    assert_eq!(error.reason, Some(Reason::ReauthorizationRequired));
    assert_eq!(error.metadata["cause"], "LOST_ROTATION");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_vault_takes_over_where_the_first_never_comes_back() {
    let killable = Killable::new().await;
    let mut child = killable.start("before_send");
    killable.read_until_killed(&mut child).await;
    // The intent says that the request may have been sent, so the other one waits for the first to come back. It does
    // not: the time that it has had is moved into the past.
    let other = killable.world.start("other").await;
    let admin = killable.world.database.admin().await;
    let moved = "UPDATE vault.grants SET intent_at = now() - interval '2 min', intent_sent_at = now() - interval '2 min',
            lease_until = now() - interval '90 s' WHERE intent_instance IS NOT NULL";
    assert_eq!(admin.execute(moved, &[]).await.unwrap(), 1);
    let credential = killable.world.get(&other, killable.grant).await.unwrap();
    assert_eq!(credential.version, 2);
    assert_eq!(killable.world.refreshes(), 1);
}
