//! Calls that may be repeated: the same request id with the same body has the first answer, and happens once.

use aws_lc_rs::digest;
use prost::Message;

use super::{Database, Error, Scope, Tx};
use crate::{Code, Problem, Reason, TenantKey};

const REQUEST_RESERVE: &str = "\
-- {schema}.request_id_reserve
INSERT INTO {schema}.request_ids (bucket, tenant_id, method, request_id, body_hash, created_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (bucket, tenant_id, method, request_id) DO NOTHING";

const REQUEST_GET: &str = "\
-- {schema}.request_id_get
SELECT body_hash, answer
FROM {schema}.request_ids
WHERE bucket = $1 AND tenant_id = $2 AND method = $3 AND request_id = $4";

const REQUEST_ANSWER: &str = "\
-- {schema}.request_id_answer
UPDATE {schema}.request_ids
SET answer = $5
WHERE bucket = $1 AND tenant_id = $2 AND method = $3 AND request_id = $4";

const BUCKETS_WITH_OLD: &str = "\
-- {schema}.request_id_buckets_list
SELECT DISTINCT bucket
FROM {schema}.request_ids
WHERE created_at < $1";

const OLD_DELETE: &str = "\
-- {schema}.request_ids_delete
DELETE FROM {schema}.request_ids
WHERE bucket = $1 AND created_at < $2";

/// In bytes; a UUID has 36.
const LONGEST_ID: usize = 200;
/// At least a day is promised.
const KEPT: time::Duration = time::Duration::hours(48);

/// A call as its caller may repeat it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a, B> {
    /// Whose; [`TenantKey::PLATFORM`] where the method is about no tenant, or makes one.
    pub tenant: TenantKey,
    /// "TenantService/CreateTenant".
    pub method: &'a str,
    /// Chosen by the caller; an empty one makes the call an ordinary one.
    pub request_id: &'a str,
    /// The request.
    pub body: &'a B,
}

/// Runs `work` in `tx` unless this call has been answered before; then gives that answer, and nothing happens. The answer is stored in
/// the same transaction. Of callers at the same time one works, and the others wait for its answer.
///
/// For an answer with a secret in it see [`run_without`].
///
/// # Errors
/// `REQUEST_ID_REUSED` where the id came with another body before; what `work` says; database trouble.
pub async fn run<B, R, E>(
    tx: &Tx,
    call: Call<'_, B>,
    work: impl AsyncFnOnce() -> Result<R, E>,
) -> Result<R, E>
where
    B: Message,
    R: Message + Default,
    E: From<Error> + From<Problem>,
{
    run_storing(tx, call, work, R::encode_to_vec).await
}

/// As [`run`], for an answer that must not be stored as it is: `without` takes the secret out of what is stored, so a
/// repeated call gets an answer without it.
///
/// # Errors
/// As [`run`].
pub async fn run_without<B, R, E>(
    tx: &Tx,
    call: Call<'_, B>,
    work: impl AsyncFnOnce() -> Result<R, E>,
    without: impl FnOnce(R) -> R,
) -> Result<R, E>
where
    B: Message,
    R: Message + Default + Clone,
    E: From<Error> + From<Problem>,
{
    run_storing(tx, call, work, |answer: &R| {
        without(answer.clone()).encode_to_vec()
    })
    .await
}

async fn run_storing<B, R, E>(
    tx: &Tx,
    call: Call<'_, B>,
    work: impl AsyncFnOnce() -> Result<R, E>,
    stored: impl FnOnce(&R) -> Vec<u8>,
) -> Result<R, E>
where
    B: Message,
    R: Message + Default,
    E: From<Error> + From<Problem>,
{
    if call.request_id.is_empty() {
        return work().await;
    }
    if call.request_id.len() > LONGEST_ID {
        return Err(Problem::invalid_field(
            "request_id",
            format!("must have at most {LONGEST_ID} bytes"),
        )
        .into());
    }
    let (bucket, tenant) = (call.tenant.bucket(), call.tenant.id());
    let hash = digest::digest(&digest::SHA256, &call.body.encode_to_vec())
        .as_ref()
        .to_vec();
    // Waits for another transaction with the same key, and then sees what became of it.
    let reserved = tx
        .execute(
            REQUEST_RESERVE,
            &[
                &bucket,
                &tenant,
                &call.method,
                &call.request_id,
                &hash,
                &tx.deps().now(),
            ],
        )
        .await?;
    if reserved == 1 {
        let answer = work().await?;
        tx.execute(
            REQUEST_ANSWER,
            &[
                &bucket,
                &tenant,
                &call.method,
                &call.request_id,
                &stored(&answer),
            ],
        )
        .await?;
        return Ok(answer);
    }
    let row = tx
        .query_one(
            REQUEST_GET,
            &[&bucket, &tenant, &call.method, &call.request_id],
        )
        .await?;
    if row.get::<_, &[u8]>("body_hash") != hash {
        let message = format!(
            "the request id {:?} was used before with another body: take a new one",
            call.request_id
        );
        return Err(Problem::new(Code::AlreadyExists, Reason::RequestIdReused, message).into());
    }
    let answer: Option<&[u8]> = row.get("answer");
    let answer =
        answer.expect("a committed row has its answer: both are written in one transaction");
    R::decode(answer).map_err(|error| Problem::internal(&error).into())
}

/// Forgets what is older than is promised.
pub(super) async fn purge(db: &Database) -> Result<(), Error> {
    let old = db.deps().now() - KEPT;
    for row in db.query(Scope::System, BUCKETS_WITH_OLD, &[&old]).await? {
        let bucket: i16 = row.get("bucket");
        db.execute(Scope::System, OLD_DELETE, &[&bucket, &old])
            .await?;
    }
    Ok(())
}
