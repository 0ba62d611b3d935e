//! Which tenant a request to create one is about.

use common::TenantKey;

use super::{Database, Scope, StoreError, column, tenant};
use crate::name::hash_bucket;

/// What is remembered of a request.
pub(crate) struct Creation {
    /// The tenant that it makes.
    pub(crate) tenant: TenantKey,
    /// The hash of its body.
    pub(crate) body_hash: Vec<u8>,
    /// It was there before.
    pub(crate) repeated: bool,
}

const CREATION_BEGIN: &str = "\
-- directory.creation_begin
INSERT INTO directory.creations (bucket, request_id, body_hash, tenant_id)
VALUES ($1, $2, $3, $4)
ON CONFLICT (bucket, request_id) DO NOTHING";

const CREATION_GET: &str = "\
-- directory.creation_get
SELECT tenant_id, body_hash
FROM directory.creations
WHERE bucket = $1 AND request_id = $2";

const CREATION_FORGET: &str = "\
-- directory.creation_forget
DELETE FROM directory.creations
WHERE bucket = $1 AND request_id = $2 AND tenant_id = $3";

const CREATIONS_FORGET: &str = "\
-- directory.creations_forget
DELETE FROM directory.creations
WHERE bucket = $1 AND created_at < now() - '2 days'::interval";

/// Notes that `request_id` is to make `tenant`, or tells what it made or makes already.
pub(crate) async fn creation_begin(
    db: &Database,
    request_id: &str,
    body_hash: &[u8],
    tenant: TenantKey,
) -> Result<Creation, StoreError> {
    let bucket = bucket(request_id);
    loop {
        let begun = db
            .execute(
                Scope::System,
                CREATION_BEGIN,
                &[&bucket, &request_id, &body_hash, &tenant.id()],
            )
            .await?;
        if begun == 1 {
            return Ok(Creation {
                tenant,
                body_hash: body_hash.to_vec(),
                repeated: false,
            });
        }
        // It may have been forgotten in between, and then we begin.
        if let Some(row) = db
            .query_opt(Scope::System, CREATION_GET, &[&bucket, &request_id])
            .await?
        {
            let tenant = tenant::key(&row, "creations")?;
            return Ok(Creation {
                tenant,
                body_hash: column(&row, "body_hash")?,
                repeated: true,
            });
        }
    }
}

/// Forgets a request that has made nothing.
pub(crate) async fn creation_forget(
    db: &Database,
    request_id: &str,
    tenant: TenantKey,
) -> Result<(), StoreError> {
    db.execute(
        Scope::System,
        CREATION_FORGET,
        &[&bucket(request_id), &request_id, &tenant.id()],
    )
    .await?;
    Ok(())
}

/// Forgets the bucket's requests that are past their time.
pub(crate) async fn creations_forget(db: &Database, bucket: i16) -> Result<u64, StoreError> {
    Ok(db
        .execute(Scope::System, CREATIONS_FORGET, &[&bucket])
        .await?)
}

fn bucket(request_id: &str) -> i16 {
    hash_bucket(&["creation", request_id])
}
