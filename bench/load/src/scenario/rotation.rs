//! New keys, while grants are read at a steady rate: rewrapping every tenant's data key, then sealing one tenant's values
//! anew.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use contracts::vault::v1::vault_admin_service_client::VaultAdminServiceClient;
use contracts::vault::v1::{
    GetKeyStatusRequest, GetKeyStatusResponse, RewrapDataKeysRequest, RotateDataKeysRequest,
};
use tokio::sync::watch;
use tonic::transport::Channel;

use super::Options;
use crate::credentials::{self, Grant};
use crate::drive::open_loop;
use crate::report::{self, Thousands, demand};
use crate::spans::Summary;
use crate::usage::memory;
use crate::world::{BROKER, OPERATOR, World};

const KEYS: usize = 100_000;
const P99_DEMAND: f64 = 2.0;
const LOOK_EVERY: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_mins(30);

type Admin = VaultAdminServiceClient<Channel>;

/// Who reads what.
struct Readers<'a> {
    world: &'a World,
    channels: Vec<Channel>,
    rate: u32,
    quiet: Duration,
}

pub(super) async fn run(options: &Options) -> Result<()> {
    let world = World::new(options).await?;
    let count = options.grants.unwrap_or(KEYS);
    // A data key for each of these, and many values under a single one.
    let scattered = credentials::grants(count, count, &world.deps);
    let gathered = credentials::grants(count, 1, &world.deps);
    let vault = world.vault(&["a"]).await?;
    let channels = world
        .connect(vault.address, BROKER, options.connections)
        .await?;
    let began = Instant::now();
    credentials::put_all(&scattered, None, &channels).await?;
    credentials::put_all(&gathered, None, &channels).await?;
    world
        .postgres
        .admin
        .execute("UPDATE vault.grants SET state = 'active', confirm_until = NULL, next_refresh_at = NULL", &[])
        .await?;
    world.postgres.settle().await?;
    report::progress(format_args!(
        "2 × {} grants sealed and settled in {:.0} s",
        Thousands(count as u64),
        began.elapsed().as_secs_f64()
    ));
    vault.process.stop().await?;

    world.make_kek("b")?;
    let vault = world.vault(&["b", "a"]).await?;
    let mut admin = VaultAdminServiceClient::new(
        world
            .connect(vault.address, OPERATOR, 1)
            .await?
            .pop()
            .context("a connection was made")?,
    );
    let readers = Readers {
        world: &world,
        channels: world
            .connect(vault.address, BROKER, options.connections)
            .await?,
        rate: options.rate,
        quiet: options.turn,
    };

    report::line(format_args!(
        "read at {} calls a second over {} connections, every answer checked; quiet for {} s before and after",
        options.rate,
        options.connections,
        options.turn.as_secs()
    ));
    rewrap(&readers, Arc::new(scattered), &mut admin).await?;
    rotate(&readers, Arc::new(gathered), &mut admin).await?;
    let (now, most) = memory(vault.process.pid())?;
    report::line(format_args!(
        "the vault's memory: {now:.0} MiB resident, {most:.0} MiB at most"
    ));
    vault.process.stop().await
}

async fn rewrap(readers: &Readers<'_>, grants: Arc<Vec<Grant>>, admin: &mut Admin) -> Result<()> {
    let before = status(admin).await?;
    ensure!(
        before.data_keys_under_older_keks >= grants.len() as i64,
        "{before:?}: the keys are not under the older key"
    );
    let quiet_before = readers.quiet(&grants).await?;
    let mut asked = admin.clone();
    let began = Instant::now();
    let busy = readers
        .until(&grants, async {
            asked.rewrap_data_keys(RewrapDataKeysRequest {}).await?;
            finished(&mut asked, |status| status.data_keys_under_older_keks == 0).await
        })
        .await?;
    let took = began.elapsed();
    let quiet_after = readers.quiet(&grants).await?;
    say(
        "rewrapping data keys",
        before.data_keys_under_older_keks,
        took,
        [quiet_before, busy, quiet_after],
    );
    Ok(())
}

async fn rotate(readers: &Readers<'_>, grants: Arc<Vec<Grant>>, admin: &mut Admin) -> Result<()> {
    let tenant = grants.first().context("there are grants")?.tenant;
    let quiet_before = readers.quiet(&grants).await?;
    let mut asked = admin.clone();
    let began = Instant::now();
    let busy = readers
        .until(&grants, async {
            let request = RotateDataKeysRequest {
                tenant_id: tenant.to_string(),
            };
            asked.rotate_data_keys(request).await?;
            finished(&mut asked, |status| {
                status.values_under_older_data_keys == 0
            })
            .await
        })
        .await?;
    let took = began.elapsed();
    let quiet_after = readers.quiet(&grants).await?;
    let left = readers
        .world
        .postgres
        .number("SELECT count(*) FROM vault.grants g WHERE key_version < (SELECT max(version) FROM vault.data_keys k WHERE k.bucket = g.bucket AND k.tenant_id = g.tenant_id)")
        .await?;
    ensure!(left == 0, "{left} values are still under an older data key");
    say(
        "re-encrypting a tenant's values",
        grants.len() as i64,
        took,
        [quiet_before, busy, quiet_after],
    );
    Ok(())
}

impl Readers<'_> {
    async fn quiet(&self, grants: &Arc<Vec<Grant>>) -> Result<Summary> {
        let lasting = self.quiet;
        self.until(grants, async {
            tokio::time::sleep(lasting).await;
            Ok(())
        })
        .await
    }

    /// Reads until the work is done.
    async fn until(
        &self,
        grants: &Arc<Vec<Grant>>,
        work: impl Future<Output = Result<()>>,
    ) -> Result<Summary> {
        let (done, until) = watch::channel(false);
        let deps = &self.world.deps;
        let reading = open_loop(&self.channels, self.rate, grants, until, deps);
        let work = async {
            let outcome = work.await;
            // Who reads ends for an error too.
            let _ = done.send(true);
            outcome
        };
        // A wrong answer ends it all.
        let (spans, ()) = futures::try_join!(reading, work)?;
        Ok(spans.summary())
    }
}

async fn status(admin: &mut Admin) -> Result<GetKeyStatusResponse> {
    Ok(admin
        .get_key_status(GetKeyStatusRequest {})
        .await?
        .into_inner())
}

async fn finished(admin: &mut Admin, is_over: fn(&GetKeyStatusResponse) -> bool) -> Result<()> {
    let began = Instant::now();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let status = status(admin).await?;
        if is_over(&status) {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "it does not end: {status:?}");
    }
}

fn say(what: &str, count: i64, took: Duration, [before, busy, after]: [Summary; 3]) {
    report::line(format_args!(
        "{what}: {} in {:.1} s, {:.0} a second",
        Thousands(count as u64),
        took.as_secs_f64(),
        count as f64 / took.as_secs_f64()
    ));
    for (when, summary) in [("before", before), ("meanwhile", busy), ("after", after)] {
        report::line(format_args!(
            "  {when:<10} {:>6.0} reads a second, p50 {:>6.2} ms, p99 {:>6.2} ms, worst {:>7.2} ms",
            summary.rate, summary.p50, summary.p99, summary.worst
        ));
    }
    // The quiet that is nearer to the work says more: caches are as warm as they will be.
    let ratio = busy.p99 / after.p99.min(before.p99);
    demand(
        "  p99, times the quiet one's",
        format_args!("{ratio:.2}"),
        format_args!("at most {P99_DEMAND}"),
        ratio <= P99_DEMAND,
    );
    demand("  answers that were not the credential", 0, "0", true);
}
