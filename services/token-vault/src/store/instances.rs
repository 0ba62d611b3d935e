//! The vaults themselves.

use common::pg::Scope;
use uuid::Uuid;

use super::{Store, StoreError};

const INSTANCE_BEAT: &str = "-- {schema}.instance_beat
INSERT INTO {schema}.instances (instance_id, heartbeat_at)
VALUES ($1, now())
ON CONFLICT (instance_id) DO UPDATE
SET heartbeat_at = EXCLUDED.heartbeat_at";

impl Store {
    /// This instance is alive.
    pub(crate) async fn instance_beat(&self, instance: Uuid) -> Result<(), StoreError> {
        self.db
            .execute(Scope::System, INSTANCE_BEAT, &[&instance])
            .await?;
        Ok(())
    }
}
