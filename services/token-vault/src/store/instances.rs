//! The vaults themselves.

use common::pg::Scope;
use uuid::Uuid;

use super::{Store, StoreError};

const INSTANCE_BEAT: &str = "-- {schema}.instance_beat
INSERT INTO {schema}.instances (instance_id, heartbeat_at)
VALUES ($1, now())
ON CONFLICT (instance_id) DO UPDATE
SET heartbeat_at = EXCLUDED.heartbeat_at";

/// Those that were not heard of for a month and have left nothing open.
const INSTANCES_FORGET: &str = "-- {schema}.instances_forget
DELETE FROM {schema}.instances
WHERE heartbeat_at < now() - interval '30 days'
  AND NOT EXISTS (
    SELECT FROM {schema}.grants
    WHERE intent_instance = instances.instance_id
  )";

impl Store {
    /// This instance is alive.
    pub(crate) async fn instance_beat(&self, instance: Uuid) -> Result<(), StoreError> {
        self.db
            .execute(Scope::System, INSTANCE_BEAT, &[&instance])
            .await?;
        Ok(())
    }

    /// Forgets instances that are not coming back.
    pub(crate) async fn instances_forget(&self) -> Result<u64, StoreError> {
        Ok(self
            .db
            .execute(Scope::System, INSTANCES_FORGET, &[])
            .await?)
    }
}
