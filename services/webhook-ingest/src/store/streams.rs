//! Streams of documents: who may write to one, and how far its changes go.

use common::TenantKey;
use common::pg::{Database, Error, Scope, Tx};
use uuid::Uuid;

use crate::document::StreamName;

const STREAM_LOCK: &str = "\
-- ingest.stream_lock
SELECT stream_key, epoch, place
FROM ingest.document_streams
WHERE bucket = $1
    AND tenant_id = $2
    AND connection_id = $3
    AND external_account_id = $4
    AND stream = $5
FOR UPDATE";

const STREAM_INSERT: &str = "\
-- ingest.stream_insert
INSERT INTO ingest.document_streams (
    bucket, tenant_id, connection_id, external_account_id, stream, stream_key, epoch, place)
VALUES ($1, $2, $3, $4, $5, $6, 0, 0)
ON CONFLICT (bucket, tenant_id, connection_id, external_account_id, stream) DO NOTHING";

const STREAM_ADVANCE: &str = "\
-- ingest.stream_advance
UPDATE ingest.document_streams
SET epoch = $3,
    place = $4
WHERE bucket = $1
    AND stream_key = $2";

const STREAM_LIST: &str = "\
-- ingest.stream_list
SELECT stream_key, place
FROM ingest.document_streams
WHERE bucket = $1
    AND tenant_id = $2
    AND ($3::uuid IS NULL OR connection_id = $3)
    AND ($4 = '' OR external_account_id = $4)
    AND ($5 = '' OR stream = $5)
    AND place > 0
ORDER BY stream_key";

/// A stream whose row is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Locked {
    pub(crate) stream_key: Uuid,
    /// The highest lease epoch that has written.
    pub(crate) epoch: i64,
    /// Of the last change.
    pub(crate) place: i64,
}

/// What narrows a reading of changes; empty or `None` does not.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamFilter {
    pub(crate) connection_id: Option<Uuid>,
    pub(crate) external_account_id: String,
    pub(crate) stream: String,
}

/// The stream, for one writer alone; `None` where nothing was ever written to it.
pub(crate) async fn stream_lock(tx: &Tx, name: &StreamName) -> Result<Option<Locked>, Error> {
    let row = tx
        .query_opt(
            STREAM_LOCK,
            &[
                &name.tenant.bucket(),
                &name.tenant.id(),
                &name.connection_id,
                &name.external_account_id,
                &name.stream,
            ],
        )
        .await?;
    Ok(row.map(|row| Locked {
        stream_key: row.get("stream_key"),
        epoch: row.get("epoch"),
        place: row.get("place"),
    }))
}

/// As [`stream_lock`]; makes it where there is none.
pub(crate) async fn stream_ensure(tx: &Tx, name: &StreamName) -> Result<Locked, Error> {
    loop {
        if let Some(locked) = stream_lock(tx, name).await? {
            return Ok(locked);
        }
        // Another one who makes it is waited for here, and found in the next round.
        tx.execute(
            STREAM_INSERT,
            &[
                &name.tenant.bucket(),
                &name.tenant.id(),
                &name.connection_id,
                &name.external_account_id,
                &name.stream,
                &name.tenant.new_id(tx.deps()),
            ],
        )
        .await?;
    }
}

/// Writes how far it goes.
pub(crate) async fn stream_advance(
    tx: &Tx,
    tenant: TenantKey,
    stream: &Locked,
) -> Result<(), Error> {
    tx.execute(
        STREAM_ADVANCE,
        &[
            &tenant.bucket(),
            &stream.stream_key,
            &stream.epoch,
            &stream.place,
        ],
    )
    .await
    .map(drop)
}

/// The tenant's streams that have changes, and how far each goes. All that is at or before these places is committed.
pub(crate) async fn stream_list(
    db: &Database,
    tenant: TenantKey,
    filter: &StreamFilter,
) -> Result<Vec<(Uuid, i64)>, Error> {
    let rows = db
        .query(
            Scope::Tenant(tenant),
            STREAM_LIST,
            &[
                &tenant.bucket(),
                &tenant.id(),
                &filter.connection_id,
                &filter.external_account_id,
                &filter.stream,
            ],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| (row.get("stream_key"), row.get("place")))
        .collect())
}
