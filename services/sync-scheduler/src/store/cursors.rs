//! Cursors: where the streams' incremental runs go on, and where they went on before.

use common::pg::{Error, Tx};
use uuid::Uuid;

use crate::stream::StreamKey;

const STREAM_MOVE_CURSOR: &str = "\
-- scheduler.stream_move_cursor
UPDATE scheduler.streams
SET cursor_json = $5,
    cursor_version = cursor_version + 1,
    updated_at = now()
WHERE bucket = $1
    AND connection_id = $2
    AND external_account_id = $3
    AND stream = $4
RETURNING cursor_version";

/// The cursor is worth nothing any more; its versions stay.
const STREAM_FORGET_CURSOR: &str = "\
-- scheduler.stream_forget_cursor
UPDATE scheduler.streams
SET cursor_json = NULL,
    cursor_version = cursor_version + 1,
    updated_at = now()
WHERE bucket = $1
    AND connection_id = $2
    AND external_account_id = $3
    AND stream = $4";

const CURSOR_INSERT: &str = "\
-- scheduler.cursor_insert
INSERT INTO scheduler.cursor_versions (
    bucket, tenant_id, connection_id, external_account_id, stream, version, cursor_json, job_id, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, now())";

/// Moves the cursor, and keeps the new version in its history.
pub(crate) async fn cursor_move(
    tx: &Tx,
    key: &StreamKey,
    cursor_json: &[u8],
    job_id: Uuid,
) -> Result<(), Error> {
    let row = tx
        .query_one(
            STREAM_MOVE_CURSOR,
            &[
                &key.tenant.bucket(),
                &key.connection_id,
                &key.external_account_id,
                &key.stream,
                &cursor_json,
            ],
        )
        .await?;
    let version: i64 = row.get("cursor_version");
    tx.execute(
        CURSOR_INSERT,
        &[
            &key.tenant.bucket(),
            &key.tenant.id(),
            &key.connection_id,
            &key.external_account_id,
            &key.stream,
            &version,
            &cursor_json,
            &job_id,
        ],
    )
    .await
    .map(drop)
}

/// Forgets the cursor.
pub(crate) async fn cursor_forget(tx: &Tx, key: &StreamKey) -> Result<(), Error> {
    tx.execute(
        STREAM_FORGET_CURSOR,
        &[
            &key.tenant.bucket(),
            &key.connection_id,
            &key.external_account_id,
            &key.stream,
        ],
    )
    .await
    .map(drop)
}
