//! Who was handed what.

use common::TenantKey;
use common::pg::{Row, Scope, ToSql, Tx};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, StoreError, get};

const RECORDS_APPEND: &str = "-- {schema}.access_records_append
INSERT INTO {schema}.access_records
    (bucket, chain_id, sequence, occurred_at, tenant_id, grant_id, resource, caller, user_id, action, purpose, trace_id)
SELECT $1, $2, record.*
FROM unnest($3::bigint[], $4::timestamptz[], $5::uuid[], $6::uuid[], $7::text[], $8::text[], $9::text[], $10::text[],
    $11::text[], $12::text[]) AS record";

const LINK_APPEND: &str = "-- {schema}.access_link_append
INSERT INTO {schema}.access_links (bucket, chain_id, sequence, records, kek_id, mac, occurred_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)";

const RECORDS_LIST: &str = "-- {schema}.access_records_list
SELECT chain_id, sequence, occurred_at, tenant_id, grant_id, resource, caller, user_id, action, purpose, trace_id
FROM {schema}.access_records
WHERE tenant_id = $1
  AND ($2::uuid IS NULL OR grant_id = $2)
  AND ($3::text = '' OR caller = $3)
  AND ($4::timestamptz IS NULL OR occurred_at > $4)
  AND ($5::timestamptz IS NULL OR occurred_at < $5)
  AND ($6::timestamptz IS NULL OR (occurred_at, chain_id, sequence) < ($6, $7, $8))
ORDER BY occurred_at DESC, chain_id DESC, sequence DESC
LIMIT $9";

/// A record in its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccessRow {
    pub(crate) sequence: i64,
    pub(crate) occurred_at: OffsetDateTime,
    pub(crate) tenant_id: Uuid,
    pub(crate) grant_id: Option<Uuid>,
    pub(crate) resource: String,
    pub(crate) caller: String,
    pub(crate) user_id: String,
    pub(crate) action: String,
    pub(crate) purpose: String,
    pub(crate) trace_id: String,
}

/// What a flush adds to its chain.
#[derive(Clone, Debug)]
pub(crate) struct LinkRow {
    pub(crate) chain_id: Uuid,
    /// Of its last record.
    pub(crate) sequence: i64,
    pub(crate) kek_id: String,
    pub(crate) mac: Vec<u8>,
    pub(crate) occurred_at: OffsetDateTime,
}

/// Where a page ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordPosition {
    pub(crate) occurred_at: OffsetDateTime,
    pub(crate) chain_id: Uuid,
    pub(crate) sequence: i64,
}

/// Which records are asked for.
#[derive(Clone, Debug)]
pub(crate) struct RecordFilter {
    pub(crate) tenant: TenantKey,
    pub(crate) grant_id: Option<Uuid>,
    pub(crate) caller: String,
    pub(crate) after: Option<OffsetDateTime>,
    pub(crate) before: Option<OffsetDateTime>,
    pub(crate) behind: Option<RecordPosition>,
    pub(crate) limit: i64,
}

impl Store {
    /// Appends a flush, records and link, in one transaction of the writer's own log bucket.
    pub(crate) async fn records_append(
        &self,
        rows: &[AccessRow],
        link: &LinkRow,
    ) -> Result<(), StoreError> {
        let (rows, link) = (rows.to_vec(), link.clone());
        self.db
            .run_tx(
                "access_records_append",
                Scope::System,
                async move |tx: &Tx| {
                    let bucket = common::bucket_of(link.chain_id);
                    let sequences: Vec<i64> = rows.iter().map(|row| row.sequence).collect();
                    let times: Vec<OffsetDateTime> =
                        rows.iter().map(|row| row.occurred_at).collect();
                    let tenants: Vec<Uuid> = rows.iter().map(|row| row.tenant_id).collect();
                    let grants: Vec<Option<Uuid>> = rows.iter().map(|row| row.grant_id).collect();
                    let texts =
                        |of: fn(&AccessRow) -> &str| rows.iter().map(of).collect::<Vec<&str>>();
                    let (resources, callers) =
                        (texts(|row| &row.resource), texts(|row| &row.caller));
                    let (users, actions) = (texts(|row| &row.user_id), texts(|row| &row.action));
                    let (purposes, traces) =
                        (texts(|row| &row.purpose), texts(|row| &row.trace_id));
                    let params: &[&(dyn ToSql + Sync)] = &[
                        &bucket,
                        &link.chain_id,
                        &sequences,
                        &times,
                        &tenants,
                        &grants,
                        &resources,
                        &callers,
                        &users,
                        &actions,
                        &purposes,
                        &traces,
                    ];
                    tx.execute(RECORDS_APPEND, params).await?;
                    let count = rows.len() as i32;
                    let params: &[&(dyn ToSql + Sync)] = &[
                        &bucket,
                        &link.chain_id,
                        &link.sequence,
                        &count,
                        &link.kek_id,
                        &link.mac,
                        &link.occurred_at,
                    ];
                    tx.execute(LINK_APPEND, params).await?;
                    Ok(())
                },
            )
            .await
    }

    /// A page of a tenant's records, the newest first, each with its chain.
    pub(crate) async fn records_list(
        &self,
        filter: &RecordFilter,
    ) -> Result<Vec<(Uuid, AccessRow)>, StoreError> {
        let behind = filter.behind;
        let params: &[&(dyn ToSql + Sync)] = &[
            &filter.tenant.id(),
            &filter.grant_id,
            &filter.caller,
            &filter.after,
            &filter.before,
            &behind.map(|position| position.occurred_at),
            &behind.map(|position| position.chain_id),
            &behind.map(|position| position.sequence),
            &filter.limit,
        ];
        let rows = self
            .db
            .query(Scope::Tenant(filter.tenant), RECORDS_LIST, params)
            .await?;
        rows.iter().map(from).collect()
    }
}

fn from(row: &Row) -> Result<(Uuid, AccessRow), StoreError> {
    let record = AccessRow {
        sequence: get(row, "sequence")?,
        occurred_at: get(row, "occurred_at")?,
        tenant_id: get(row, "tenant_id")?,
        grant_id: get(row, "grant_id")?,
        resource: get(row, "resource")?,
        caller: get(row, "caller")?,
        user_id: get(row, "user_id")?,
        action: get(row, "action")?,
        purpose: get(row, "purpose")?,
        trace_id: get(row, "trace_id")?,
    };
    Ok((get(row, "chain_id")?, record))
}
