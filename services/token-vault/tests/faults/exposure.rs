//! For how long a provider's answer is in a process alone: from its arrival until it is fsync'd. A kill in between loses it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use common::config::Duration as Setting;
use uuid::Uuid;

use crate::fleet::{all_due, expire_all, import, setting, until_fresh};
use crate::replica::Replica;
use crate::world::World;

/// Microseconds from one of the vaults' points to another, sorted.
pub(crate) struct Exposure(Vec<i64>);

/// In the long form, on a machine that does nothing else, and with a build that is not optimised.
const LONGEST: Duration = Duration::from_millis(10);

impl Exposure {
    /// As the vaults have noted it, in all their lives.
    pub(crate) fn of<'a>(replicas: impl IntoIterator<Item = &'a Replica>) -> Self {
        let mut answered: BTreeMap<(i32, Uuid), i64> = BTreeMap::new();
        let mut spans = Vec::new();
        for reached in replicas.into_iter().flat_map(Replica::reached) {
            let key = (reached.pid, reached.grant);
            match reached.point.as_str() {
                "answered" => drop(answered.insert(key, reached.micros)),
                "spooled" => spans.extend(answered.remove(&key).map(|at| reached.micros - at)),
                _ => {}
            }
        }
        spans.sort_unstable();
        Self(spans)
    }

    fn percentile(&self, share: usize) -> i64 {
        let last = self.0.len().saturating_sub(1);
        self.0.get(last * share / 100).copied().unwrap_or(0)
    }
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "from a provider's answer to its fsync, {} times: half within {} µs, 99 % within {} µs, the longest {} µs",
            self.0.len(),
            self.percentile(50),
            self.percentile(99),
            self.percentile(100),
        )
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_in_the_process_alone_for_milliseconds() {
    let count = setting("FAULT_GRANTS").map_or(50, |grants| grants.min(2000));
    let (world, maker) = World::new().await;
    import(&world, &maker, count as usize).await;
    drop(maker);
    expire_all(&world).await;
    all_due(&world).await;
    let replica = Replica::new(&world, "vault", |config| {
        config.tasks.sweep_every = Setting::from_millis(100);
        config.refresh.concurrency = 4;
    });
    let _process = replica.start("");
    until_fresh(&world, count).await;
    let exposure = Exposure::of([&replica]);
    eprintln!("{exposure}");
    if setting("FAULT_GRANTS").is_some() {
        assert!(exposure.percentile(99) < LONGEST.as_micros() as i64);
    }
}
