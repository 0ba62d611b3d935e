//! Documents.

use common::TenantKey;
use common::pg::{Database, Error, Row, Scope, Tx};
use time::OffsetDateTime;
use uuid::Uuid;

use super::streams::{Locked, StreamFilter};
use super::tenant_in;
use crate::document::{Attribution, Content, Document, Held, Method, StreamName};

macro_rules! columns {
    () => {
        "d.tenant_id, d.document_id, d.stream_key, d.external_id, d.title, d.content, d.content_hash, d.content_url,
    d.source_updated_at, d.ingested_by_user_id, d.ingested_by_user_email, d.ingestion_method, d.job_id,
    d.first_ingested_at, d.updated_at, d.deleted_at, d.revision, d.place"
    };
}

/// What an answer may hold: the size of a row beside its texts, and of all rows.
macro_rules! size {
    () => {
        "octet_length(d.content) + octet_length(d.title) + octet_length(d.content_url) + 600"
    };
}

const MOST_BYTES: i64 = 3 * 1024 * 1024;

/// Without the content: what is judged by its hash need not be read.
const DOCUMENTS_KNOWN: &str = "\
-- ingest.documents_known
SELECT external_id, document_id, title, content_hash, content_url, source_updated_at, ingested_by_user_id,
    ingested_by_user_email, ingestion_method, job_id, first_ingested_at, updated_at, deleted_at, revision
FROM ingest.documents
WHERE bucket = $1
    AND stream_key = $2
    AND external_id = ANY ($3)";

const DOCUMENTS_WRITE: &str = "\
-- ingest.documents_write
INSERT INTO ingest.documents (
    bucket, tenant_id, document_id, stream_key, external_id, title, content, content_hash, content_url,
    source_updated_at, ingested_by_user_id, ingested_by_user_email, ingestion_method, job_id, first_ingested_at,
    updated_at, deleted_at, revision, place, seen_job_id, seen_at)
SELECT $1::smallint, $2::uuid, document_id, $3::uuid, external_id, title, content, content_hash, content_url,
    source_updated_at, ingested_by_user_id, ingested_by_user_email, ingestion_method, $4::text, first_ingested_at,
    $5::timestamptz, deleted_at, revision, place, $4::text, $5::timestamptz
FROM unnest($6::uuid[], $7::text[], $8::text[], $9::bytea[], $10::bytea[], $11::text[], $12::timestamptz[],
    $13::text[], $14::text[], $15::smallint[], $16::timestamptz[], $17::timestamptz[], $18::bigint[], $19::bigint[])
    AS i (document_id, external_id, title, content, content_hash, content_url, source_updated_at,
    ingested_by_user_id, ingested_by_user_email, ingestion_method, first_ingested_at, deleted_at, revision, place)
ON CONFLICT (bucket, stream_key, external_id) DO UPDATE
SET title = EXCLUDED.title,
    content = EXCLUDED.content,
    content_hash = EXCLUDED.content_hash,
    content_url = EXCLUDED.content_url,
    source_updated_at = EXCLUDED.source_updated_at,
    job_id = EXCLUDED.job_id,
    updated_at = EXCLUDED.updated_at,
    deleted_at = EXCLUDED.deleted_at,
    revision = EXCLUDED.revision,
    place = EXCLUDED.place,
    seen_job_id = EXCLUDED.seen_job_id,
    seen_at = EXCLUDED.seen_at";

const DOCUMENTS_DELETE: &str = "\
-- ingest.documents_delete
UPDATE ingest.documents AS d
SET source_updated_at = i.source_updated_at,
    job_id = $3,
    updated_at = $4,
    deleted_at = $4,
    revision = d.revision + 1,
    place = i.place,
    seen_job_id = $3,
    seen_at = $4
FROM unnest($5::uuid[], $6::timestamptz[], $7::bigint[]) AS i (document_id, source_updated_at, place)
WHERE d.bucket = $1
    AND d.tenant_id = $2
    AND d.document_id = i.document_id";

const DOCUMENTS_SEE: &str = "\
-- ingest.documents_see
UPDATE ingest.documents AS d
SET source_updated_at = i.source_updated_at,
    seen_job_id = $3,
    seen_at = $4
FROM unnest($5::uuid[], $6::timestamptz[]) AS i (document_id, source_updated_at)
WHERE d.bucket = $1
    AND d.tenant_id = $2
    AND d.document_id = i.document_id
    AND (d.seen_job_id <> $3 OR d.source_updated_at IS DISTINCT FROM i.source_updated_at)";

const DOCUMENTS_END: &str = "\
-- ingest.documents_end
WITH gone AS (
    SELECT document_id, row_number() OVER (ORDER BY document_id) AS ordinal
    FROM ingest.documents
    WHERE bucket = $1
        AND stream_key = $3
        AND deleted_at IS NULL
        AND seen_job_id <> $4
        AND seen_at < $5
    ORDER BY document_id
    LIMIT $8
)
UPDATE ingest.documents AS d
SET job_id = $4,
    updated_at = $6,
    deleted_at = $6,
    revision = d.revision + 1,
    place = $7 + gone.ordinal
FROM gone
WHERE d.bucket = $1
    AND d.tenant_id = $2
    AND d.document_id = gone.document_id";

const DOCUMENT_GET: &str = concat!(
    "-- ingest.document_get\nSELECT ",
    columns!(),
    ", s.connection_id, s.external_account_id, s.stream
FROM ingest.documents AS d
JOIN ingest.document_streams AS s
    ON s.bucket = d.bucket
    AND s.stream_key = d.stream_key
WHERE d.bucket = $1
    AND s.bucket = $1
    AND d.tenant_id = $2
    AND d.document_id = $3"
);

const DOCUMENT_LIST: &str = concat!(
    "-- ingest.document_list
WITH page AS (
    SELECT ",
    columns!(),
    ", s.connection_id, s.external_account_id, s.stream, ",
    size!(),
    " AS size
    FROM ingest.documents AS d
    JOIN ingest.document_streams AS s
        ON s.bucket = d.bucket
        AND s.stream_key = d.stream_key
    WHERE d.bucket = $1
        AND s.bucket = $1
        AND d.tenant_id = $2
        AND ($3::uuid IS NULL OR s.connection_id = $3)
        AND ($4 = '' OR s.external_account_id = $4)
        AND ($5 = '' OR s.stream = $5)
        AND ($6 = '' OR d.ingested_by_user_id = $6)
        AND ($7 OR d.deleted_at IS NULL)
        AND d.document_id > $8
    ORDER BY d.document_id
    LIMIT $9
), sized AS (
    SELECT p.*, sum(size) OVER (ORDER BY document_id) - size AS before
    FROM page AS p
)
SELECT *
FROM sized
WHERE before < $10
ORDER BY document_id"
);

const DOCUMENT_CHANGES: &str = concat!(
    "-- ingest.document_changes
WITH page AS (
    SELECT ",
    columns!(),
    ", s.connection_id, s.external_account_id, s.stream, ",
    size!(),
    " AS size
    FROM unnest($3::uuid[], $4::bigint[], $5::bigint[]) AS w (stream_key, after, until)
    JOIN ingest.document_streams AS s
        ON s.bucket = $1
        AND s.stream_key = w.stream_key
    CROSS JOIN LATERAL (
        SELECT *
        FROM ingest.documents AS c
        WHERE c.bucket = $1
            AND c.tenant_id = $2
            AND c.stream_key = w.stream_key
            AND c.place > w.after
            AND c.place <= w.until
        ORDER BY c.place
        LIMIT $6
    ) AS d
    ORDER BY d.stream_key, d.place
    LIMIT $6
), sized AS (
    SELECT p.*, sum(size) OVER (ORDER BY stream_key, place) - size AS before
    FROM page AS p
)
SELECT *
FROM sized
WHERE before < $7
ORDER BY stream_key, place"
);

/// A document as it is to be, and its place among the stream's changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) external_id: String,
    pub(crate) held: Held,
    pub(crate) place: i64,
}

/// What lists documents.
#[derive(Clone, Debug)]
pub(crate) struct DocumentFilter {
    pub(crate) streams: StreamFilter,
    /// Empty for whoever brought them in.
    pub(crate) user_id: String,
    pub(crate) include_deleted: bool,
    /// Those behind this one.
    pub(crate) after: Uuid,
}

/// A span of a stream's changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) stream_key: Uuid,
    pub(crate) after: i64,
    pub(crate) until: i64,
}

/// What the stream has under these ids, without the content itself.
pub(crate) async fn documents_known(
    tx: &Tx,
    tenant: TenantKey,
    stream: &Locked,
    external_ids: &[&str],
) -> Result<Vec<(String, Held)>, Error> {
    let rows = tx
        .query(
            DOCUMENTS_KNOWN,
            &[&tenant.bucket(), &stream.stream_key, &external_ids],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| (row.get("external_id"), held(row, Vec::new())))
        .collect())
}

/// Inserts or updates all of them, in one statement.
pub(crate) async fn documents_write(
    tx: &Tx,
    tenant: TenantKey,
    stream: &Locked,
    job_id: &str,
    now: OffsetDateTime,
    documents: &[Written],
) -> Result<(), Error> {
    fn column<'a, T>(documents: &'a [Written], of: impl Fn(&'a Written) -> T) -> Vec<T> {
        documents.iter().map(of).collect()
    }
    if documents.is_empty() {
        return Ok(());
    }
    tx.execute(
        DOCUMENTS_WRITE,
        &[
            &tenant.bucket(),
            &tenant.id(),
            &stream.stream_key,
            &job_id,
            &now,
            &column(documents, |written| written.held.document_id),
            &column(documents, |written| written.external_id.as_str()),
            &column(documents, |written| written.held.content.title.as_str()),
            &column(documents, |written| written.held.content.json.as_slice()),
            &column(documents, |written| written.held.content.hash.as_slice()),
            &column(documents, |written| written.held.content.url.as_str()),
            &column(documents, |written| written.held.source_updated_at),
            &column(documents, |written| written.held.by.user_id.as_str()),
            &column(documents, |written| written.held.by.user_email.as_str()),
            &column(documents, |written| written.held.by.method as i16),
            &column(documents, |written| written.held.first_ingested_at),
            &column(documents, |written| written.held.deleted_at),
            &column(documents, |written| written.held.revision),
            &column(documents, |written| written.place),
        ],
    )
    .await
    .map(drop)
}

/// Marks documents as deleted that the ledger has; what they said stays.
pub(crate) async fn documents_delete(
    tx: &Tx,
    tenant: TenantKey,
    job_id: &str,
    now: OffsetDateTime,
    documents: &[Written],
) -> Result<(), Error> {
    if documents.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = documents.iter().map(|gone| gone.held.document_id).collect();
    let times: Vec<_> = documents
        .iter()
        .map(|gone| gone.held.source_updated_at)
        .collect();
    let places: Vec<i64> = documents.iter().map(|gone| gone.place).collect();
    tx.execute(
        DOCUMENTS_DELETE,
        &[
            &tenant.bucket(),
            &tenant.id(),
            &job_id,
            &now,
            &ids,
            &times,
            &places,
        ],
    )
    .await
    .map(drop)
}

/// Notes that the job has seen documents that have not changed, and the provider's time of each.
pub(crate) async fn documents_see(
    tx: &Tx,
    tenant: TenantKey,
    job_id: &str,
    now: OffsetDateTime,
    seen: &[(Uuid, Option<OffsetDateTime>)],
) -> Result<(), Error> {
    if seen.is_empty() {
        return Ok(());
    }
    let (ids, times): (Vec<Uuid>, Vec<_>) = seen.iter().copied().unzip();
    tx.execute(
        DOCUMENTS_SEE,
        &[&tenant.bucket(), &tenant.id(), &job_id, &now, &ids, &times],
    )
    .await
    .map(drop)
}

/// Marks documents as deleted that neither the job has seen, nor anybody since it began; at most `limit`. Gives how many.
pub(crate) async fn documents_end(
    tx: &Tx,
    tenant: TenantKey,
    stream: &Locked,
    job_id: &str,
    started_at: OffsetDateTime,
    now: OffsetDateTime,
    limit: i64,
) -> Result<i64, Error> {
    let ended = tx
        .execute(
            DOCUMENTS_END,
            &[
                &tenant.bucket(),
                &tenant.id(),
                &stream.stream_key,
                &job_id,
                &started_at,
                &now,
                &stream.place,
                &limit,
            ],
        )
        .await?;
    Ok(ended as i64)
}

/// The tenant's document.
pub(crate) async fn document_get(
    db: &Database,
    tenant: TenantKey,
    document_id: Uuid,
) -> Result<Option<Document>, Error> {
    let row = db
        .query_opt(
            Scope::Tenant(tenant),
            DOCUMENT_GET,
            &[&tenant.bucket(), &tenant.id(), &document_id],
        )
        .await?;
    Ok(row.as_ref().map(document))
}

/// The tenant's documents in the order in which they came, as many as fit into an answer.
pub(crate) async fn document_list(
    db: &Database,
    tenant: TenantKey,
    filter: &DocumentFilter,
    limit: i64,
) -> Result<Vec<Document>, Error> {
    let rows = db
        .query(
            Scope::Tenant(tenant),
            DOCUMENT_LIST,
            &[
                &tenant.bucket(),
                &tenant.id(),
                &filter.streams.connection_id,
                &filter.streams.external_account_id,
                &filter.streams.stream,
                &filter.user_id,
                &filter.include_deleted,
                &filter.after,
                &limit,
                &MOST_BYTES,
            ],
        )
        .await?;
    Ok(rows.iter().map(document).collect())
}

/// The documents whose last change lies in one of these spans, stream by stream in the spans' order of keys, as many as
/// fit into an answer.
pub(crate) async fn document_changes(
    db: &Database,
    tenant: TenantKey,
    spans: &[Span],
    limit: i64,
) -> Result<Vec<Document>, Error> {
    let keys: Vec<Uuid> = spans.iter().map(|span| span.stream_key).collect();
    let after: Vec<i64> = spans.iter().map(|span| span.after).collect();
    let until: Vec<i64> = spans.iter().map(|span| span.until).collect();
    let rows = db
        .query(
            Scope::Tenant(tenant),
            DOCUMENT_CHANGES,
            &[
                &tenant.bucket(),
                &tenant.id(),
                &keys,
                &after,
                &until,
                &limit,
                &MOST_BYTES,
            ],
        )
        .await?;
    Ok(rows.iter().map(document).collect())
}

fn document(row: &Row) -> Document {
    Document {
        stream: StreamName {
            tenant: tenant_in(row, "tenant_id"),
            connection_id: row.get("connection_id"),
            external_account_id: row.get("external_account_id"),
            stream: row.get("stream"),
        },
        stream_key: row.get("stream_key"),
        place: row.get("place"),
        external_id: row.get("external_id"),
        held: held(row, row.get("content")),
    }
}

fn held(row: &Row, json: Vec<u8>) -> Held {
    Held {
        document_id: row.get("document_id"),
        content: Content {
            title: row.get("title"),
            json,
            hash: row.get("content_hash"),
            url: row.get("content_url"),
        },
        source_updated_at: row.get("source_updated_at"),
        by: Attribution {
            user_id: row.get("ingested_by_user_id"),
            user_email: row.get("ingested_by_user_email"),
            method: match row.get("ingestion_method") {
                2_i16 => Method::ManualUpload,
                3 => Method::Api,
                4 => Method::Webhook,
                _ => Method::OauthSync,
            },
        },
        job_id: row.get("job_id"),
        first_ingested_at: row.get("first_ingested_at"),
        updated_at: row.get("updated_at"),
        deleted_at: row.get("deleted_at"),
        revision: row.get("revision"),
    }
}
