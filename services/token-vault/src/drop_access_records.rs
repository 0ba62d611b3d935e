//! Dropping the access records of days that are over for long enough.
//!
//! A day is verified before it goes, and what is proved of its chains stays as their anchors. Both clocks have to agree
//! that the day is over: neither a vault's alone nor the database's alone loses a record.

use std::collections::BTreeMap;
use std::time::Duration;

use common::Deps;
use common::problem::Chain;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::access_records::{Day, Room};
use crate::keys::Keys;
use crate::store::{Store, StoreError};
use crate::verify_access_records::{Verifier, VerifyError};

/// Drops days, and knows how far there is room for records.
#[derive(Clone, Debug)]
pub(crate) struct Retention {
    store: Store,
    verifier: Verifier,
    deps: Deps,
    keep_days: u32,
    room: Room,
}

/// Why a day was not dropped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DropError {
    #[error("the database failed")]
    Store(#[from] StoreError),
    #[error("what is to be dropped cannot be verified")]
    Verify(#[from] VerifyError),
    #[error("the partition of day {0} holds records of a later one")]
    LaterRecords(i32),
}

const DAY: Duration = Duration::from_hours(24);

impl Retention {
    /// Keeps records for `keep`, a part of a day counting as a day.
    pub(crate) fn new(store: Store, keys: Keys, keep: Duration, room: Room, deps: &Deps) -> Self {
        let days = keep.as_secs().div_ceil(DAY.as_secs());
        let most = Day::MOST_KEPT;
        Self {
            verifier: Verifier::new(store.clone(), keys),
            store,
            deps: deps.clone(),
            keep_days: u32::try_from(days).unwrap_or(most).clamp(1, most),
            room,
        }
    }

    /// Drops every day that is over for long enough.
    pub(crate) async fn catch_up(&self) -> Result<(), DropError> {
        let today = self.today().await?;
        let last = today.minus(self.keep_days + 1);
        loop {
            let dropped_to = self.store.retention_get().await?;
            self.room.reaches(dropped_to.last_usable());
            if dropped_to >= last {
                return Ok(());
            }
            self.drop_day(dropped_to.next()).await?;
        }
    }

    /// Where there is room for today and tomorrow, the rest may be dropped later: it has to be verified, which takes its
    /// time.
    pub(crate) async fn make_room(&self) -> Result<(), DropError> {
        let dropped_to = self.store.retention_get().await?;
        self.room.reaches(dropped_to.last_usable());
        if self.room.is_there_on(self.today().await?.next()) {
            Ok(())
        } else {
            self.catch_up().await
        }
    }

    /// Verifies the oldest day that is kept, and drops it.
    pub(crate) async fn drop_day(&self, day: Day) -> Result<(), DropError> {
        let verified = self.verifier.verify_oldest_day(day).await?;
        let (has_records, broken) = (verified.has_records, verified.broken);
        if verified.has_later_records {
            // Nothing is said of what another vault has dropped while it was looked at.
            if self.store.retention_get().await?.next() != day {
                return Ok(());
            }
            tell(&broken);
            return Err(DropError::LaterRecords(day.number()));
        }
        let anchors = verified.anchors;
        if !self.store.day_drop(day, has_records, anchors).await? {
            return Ok(());
        }
        tell(&broken);
        if has_records {
            tracing::info!(
                event = "access_day_dropped",
                date = %date_of(day),
                "the access records of {} are not kept any more",
                date_of(day)
            );
        }
        Ok(())
    }

    async fn today(&self) -> Result<Day, StoreError> {
        let database = self.store.server_time().await?;
        Ok(Day::of(database.min(self.deps.now())))
    }
}

impl DropError {
    /// Says what kept a day from being dropped.
    pub(crate) fn log(&self) {
        match self {
            Self::LaterRecords(_) => tracing::error!(
                event = "access_day_kept",
                error = %Chain(self),
                "somebody has moved access records to a day that is about to be dropped: verify them and look who has written to the database"
            ),
            Self::Store(_) | Self::Verify(_) => tracing::warn!(
                event = "access_day_kept",
                error = %Chain(self),
                "old access records cannot be dropped; trying again in an hour"
            ),
        }
    }
}

fn tell(broken: &BTreeMap<Uuid, i64>) {
    for (chain_id, sequence) in broken {
        tracing::error!(
            event = "access_chain_broken",
            chain.id = %chain_id,
            sequence,
            "the chain of access records is broken at record {sequence}: somebody has written to the database"
        );
    }
}

fn date_of(day: Day) -> time::Date {
    (OffsetDateTime::UNIX_EPOCH + time::Duration::days(i64::from(day.number()))).date()
}
