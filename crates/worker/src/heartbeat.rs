//! One beat for all leases of a process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::lifecycle::Shutdown;
use contracts::scheduler::v1::HeartbeatRequest;

use crate::lease::{Lease, Stop};
use crate::scheduler::Scheduler;

/// The leases that are held, by job.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held(Arc<Mutex<BTreeMap<String, Lease>>>);

impl Held {
    /// Takes a lease up. An older one of the same job is over.
    pub(crate) fn add(&self, lease: &Lease) {
        let older = self
            .leases()
            .insert(lease.reference().job_id.clone(), lease.clone());
        if let Some(older) = older {
            older.halt(Stop::Lost);
        }
    }

    /// Lets a lease go, unless a newer one of the same job has taken its place.
    pub(crate) fn remove(&self, lease: &Lease) {
        let mut leases = self.leases();
        let id = &lease.reference().job_id;
        if leases
            .get(id)
            .is_some_and(|held| held.reference() == lease.reference())
        {
            leases.remove(id);
        }
    }

    fn all(&self) -> Vec<Lease> {
        self.leases().values().cloned().collect()
    }

    fn leases(&self) -> MutexGuard<'_, BTreeMap<String, Lease>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Beats three times in the life of a lease, until everything has drained.
pub(crate) async fn run(
    scheduler: Scheduler,
    held: Held,
    worker_id: String,
    lease: Duration,
    shutdown: Shutdown,
) -> Result<(), std::convert::Infallible> {
    let interval = lease / 3;
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = shutdown.drained() => return Ok(()),
        }
        beat(&scheduler, &held, &worker_id, lease, interval).await;
    }
}

async fn beat(
    scheduler: &Scheduler,
    held: &Held,
    worker_id: &str,
    lease: Duration,
    patience: Duration,
) {
    // Whoever was frozen finds out before it says anything.
    for late in held.all().iter().filter(|lease| !lease.is_good()) {
        tracing::warn!(
            event = "lease_expired",
            tenant.id = late.job().tenant_id,
            job.id = late.job().job_id,
            "a lease ran out before it could be extended; the job is left to whoever leases it next"
        );
        late.halt(Stop::Lost);
    }
    let leases: Vec<_> = held
        .all()
        .into_iter()
        .filter(|lease| lease.stop() != Some(Stop::Lost))
        .collect();
    if leases.is_empty() {
        return;
    }
    let sent_at = scheduler.deps().clock.boottime();
    let request = HeartbeatRequest {
        worker_id: worker_id.to_owned(),
        leases: leases
            .iter()
            .map(|lease| lease.reference().clone())
            .collect(),
        lease: lease.try_into().ok(),
    };
    let answer = match scheduler.heartbeat(request, patience).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::warn!(event = "heartbeat_failed", %error, "the scheduler did not take a heartbeat; the next one follows");
            return;
        }
    };
    for held in leases {
        let id = &held.job().job_id;
        if answer.lost_job_ids.contains(id) {
            held.halt(Stop::Lost);
            continue;
        }
        held.extend(sent_at + lease);
        if answer.cancelled_job_ids.contains(id) {
            held.halt(Stop::Cancelled);
        }
    }
}
