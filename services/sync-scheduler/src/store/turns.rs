//! Whose turn it is among the tenants of a bucket.

use common::pg::{Error, Tx};
use uuid::Uuid;

const TURN_TAKE: &str = "\
-- scheduler.turn_take
INSERT INTO scheduler.turns (bucket, tenant_id, served_at)
SELECT $1, served.tenant_id, now()
FROM (SELECT DISTINCT unnest($2::uuid[]) AS tenant_id) AS served
ORDER BY served.tenant_id
ON CONFLICT (bucket, tenant_id)
DO UPDATE SET served_at = EXCLUDED.served_at";

/// These tenants were given leases; others of the bucket come before them now.
pub(crate) async fn turn_take(tx: &Tx, bucket: i16, tenants: &[Uuid]) -> Result<(), Error> {
    tx.execute(TURN_TAKE, &[&bucket, &tenants]).await.map(drop)
}
