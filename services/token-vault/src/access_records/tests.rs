//! Chains over several days, which a running vault does not make in a test's time.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod retention;
mod tampering;

use std::sync::Arc;
use std::time::Duration;

use common::{Deps, TenantKey};
use envelope::{KeyEncryptionKey, KeyRing, Random};
use testkit::TestDatabase;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Day, Flusher, Head, Record, Recorder, Room};
use crate::keys::Keys;
use crate::store::Store;
use crate::verify_access_records::{Verified, Verifier};

const DAY: Duration = Duration::from_hours(24);

/// A database, and what a vault does with its access records.
struct Records {
    database: TestDatabase,
    store: Store,
    keys: Keys,
    deps: Deps,
    /// The beginning of today, by the database's clock.
    today: OffsetDateTime,
    tenant: TenantKey,
}

impl Records {
    /// Nothing has been dropped for `days` days.
    async fn over(days: i32) -> Self {
        let database = TestDatabase::create(&[&crate::SCHEMA]).await;
        let deps = testkit::deps();
        let store = Store::new(database.database_with(&crate::SCHEMA, &deps));
        let keys = keys("9f3c", &store, &deps);
        let now = store.server_time().await.unwrap();
        let sql = "UPDATE vault.access_retention SET dropped_to = dropped_to - $1";
        database.admin().await.execute(sql, &[&days]).await.unwrap();
        Self {
            tenant: TenantKey::new_tenant(&deps),
            today: now.replace_time(time::Time::MIDNIGHT),
            database,
            store,
            keys,
            deps,
        }
    }

    /// Noon, so many days ago.
    fn days_ago(&self, days: u32) -> OffsetDateTime {
        self.today - DAY * days + DAY / 2
    }

    /// A chain that is about to begin.
    async fn chain(&self) -> Flusher {
        let key = self.keys.records_key().await.unwrap();
        let room = Room::new();
        room.reaches(Day::of(self.today + DAY));
        Recorder::new(
            self.store.clone(),
            key,
            self.keys.kek_id(),
            room,
            &self.deps,
        )
        .1
    }

    fn verifier(&self) -> Verifier {
        Verifier::new(self.store.clone(), self.keys.clone())
    }

    async fn verify(&self, expected: &[Head]) -> Verified {
        self.verifier().verify(None, expected).await.unwrap()
    }

    /// Appends some records in one flush, each with a purpose of its own.
    async fn append(&self, chain: &mut Flusher, at: OffsetDateTime, count: i64) {
        let first = chain.head().sequence + 1;
        let purposes: Vec<_> = (first..first + count)
            .map(|each| format!("p{each}"))
            .collect();
        let grant_id = Some(self.tenant.new_id(&self.deps));
        let records: Vec<_> = purposes
            .iter()
            .map(|purpose| Record {
                tenant_id: self.tenant.id(),
                grant_id,
                resource: "",
                caller: "spiffe://hawser/oauth-broker",
                user_id: "ada",
                action: "GetCredential",
                purpose,
                trace_id: "0af7651916cd43dd8448eb211c80319c",
            })
            .collect();
        chain.append(&records, at).await.unwrap();
    }

    async fn sql(&self, sql: &str) {
        self.database
            .admin()
            .await
            .batch_execute(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
}

/// The key whose 64 digits repeat these four.
fn keys(digits: &str, store: &Store, deps: &Deps) -> Keys {
    let random: Random = {
        let deps = deps.clone();
        Arc::new(move |bytes: &mut [u8]| deps.rng.fill(bytes))
    };
    let key = KeyEncryptionKey::from_hex(&digits.repeat(16)).unwrap();
    let ring = KeyRing::local(key, [], &random).unwrap();
    Keys::new(Box::new(ring), store.clone(), deps.clone())
}

/// What is broken, and where.
fn broken(verified: &Verified) -> Vec<(Uuid, i64)> {
    verified
        .broken
        .iter()
        .map(|(chain, sequence)| (*chain, *sequence))
        .collect()
}
