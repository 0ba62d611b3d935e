//! What was begun and not finished: sessions whose time is over, grants that the vault has to be told of, routing keys that are
//! not published, reservations that were never used.

use std::convert::Infallible;
use std::time::Duration;

use common::lifecycle::Shutdown;
use common::problem::Chain;
use contracts::broker::v1::{ConnectSessionState, ConnectionState};

use crate::broker::{Broker, SharedBroker, browser_caller};
use crate::error::Error;
use crate::session::STATE_TTL;
use crate::store::connections::connection_get;
use crate::store::exclusive_accounts::{exclusive_confirm, exclusive_release, exclusive_stale};
use crate::store::grant_duties::{duty_due, duty_due_buckets};
use crate::store::imports::import_purge;
use crate::store::routing_keys::routing_key_unpublished_buckets;
use crate::store::sessions::{session_overdue, session_overdue_buckets, session_purge};

/// An ended session answers GetConnectSession for this long.
const SESSION_KEPT: time::Duration = time::Duration::days(7);
/// As long as a request id is known, and longer.
const IMPORT_KEPT: time::Duration = time::Duration::days(3);
/// A reservation is used within moments, or never.
const RESERVATION_KEPT: time::Duration = time::Duration::minutes(10);

/// Looks after all that until shutdown.
pub(crate) async fn reap(
    broker: SharedBroker,
    interval: Duration,
    shutdown: Shutdown,
) -> Result<(), Infallible> {
    loop {
        // Replicas that do the same at once do it twice, which changes nothing.
        let jitter = f64::from(u16::from_be_bytes(broker.deps.random())) / f64::from(u16::MAX);
        tokio::select! {
            () = tokio::time::sleep(interval.mul_f64(0.5 + jitter)) => {}
            () = shutdown.requested() => return Ok(()),
        }
        tokio::select! {
            outcome = broker.reap_once() => if let Err(error) = outcome {
                tracing::warn!(event = "reaper_failed", error = %Chain(&error), "what was left over could not be cleared; trying again");
            },
            () = shutdown.requested() => return Ok(()),
        }
    }
}

impl Broker {
    /// One round.
    pub(crate) async fn reap_once(&self) -> Result<(), Error> {
        self.reap_duties().await?;
        for bucket in routing_key_unpublished_buckets(&self.db).await? {
            self.publish(bucket, None).await?;
        }
        self.reap_sessions().await?;
        self.reap_reservations().await?;
        import_purge(&self.db, self.deps.now() - IMPORT_KEPT).await?;
        Ok(())
    }

    async fn reap_duties(&self) -> Result<(), Error> {
        for bucket in duty_due_buckets(&self.db).await? {
            for duty in duty_due(&self.db, bucket).await? {
                self.settle(&duty).await;
            }
        }
        Ok(())
    }

    async fn reap_sessions(&self) -> Result<(), Error> {
        let now = self.deps.now();
        // Who left for the provider in the last moment may still come back.
        let (overdue, forgotten) = (now - STATE_TTL, now - SESSION_KEPT);
        for bucket in session_overdue_buckets(&self.db, overdue, forgotten).await? {
            for session in session_overdue(&self.db, bucket, overdue).await? {
                let ended = self.end_session(
                    &session,
                    ConnectSessionState::Expired,
                    "session_expired",
                    "AUTHORIZATION_EXPIRED",
                    None,
                );
                common::identity::scope(browser_caller(&session), Box::pin(ended)).await?;
            }
            session_purge(&self.db, bucket, forgotten).await?;
        }
        Ok(())
    }

    async fn reap_reservations(&self) -> Result<(), Error> {
        for claim in exclusive_stale(&self.db, self.deps.now() - RESERVATION_KEPT).await? {
            let holder = connection_get(&self.db, claim.tenant, claim.connection_id).await?;
            let held = match holder.filter(|holder| holder.state != ConnectionState::Disconnected) {
                Some(holder) => self.exclusive_claim_of(&holder).await?,
                None => None,
            };
            if held.is_some_and(|held| held.external_account_id == claim.external_account_id) {
                exclusive_confirm(&self.db, &claim).await?;
            } else {
                exclusive_release(&self.db, &claim).await?;
            }
        }
        Ok(())
    }
}
