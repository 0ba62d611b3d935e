//! Who was handed what: appended by the flush, listed by the page.

use common::TenantKey;
use common::pg::{Row, Scope, ToSql};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, StoreError, get};
use crate::access_records::{Day, Mac, Record};

/// A flush lies in one bucket, the log bucket of the vault that writes it, and in one day.
macro_rules! records_insert {
    () => {
        "INSERT INTO {schema}.access_records
    (bucket, slot, chain_id, sequence, occurred_at, tenant_id, grant_id, resource, caller, user_id, action, purpose, trace_id, mac)
SELECT $1, $2, $3, $4::bigint + place, $5, tenant_id, grant_id, resource, caller, user_id, action, purpose, trace_id, mac
FROM unnest($6::uuid[], $7::uuid[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::bytea[])
    WITH ORDINALITY AS record (tenant_id, grant_id, resource, caller, user_id, action, purpose, trace_id, mac, place)"
    };
}

const RECORDS_APPEND: &str = concat!("-- {schema}.access_records_append\n", records_insert!());

/// The first flush of a chain.
const CHAIN_BEGIN: &str = concat!(
    "-- {schema}.access_chain_begin
WITH chain AS (
    INSERT INTO {schema}.access_chains (bucket, chain_id, kek_id, started_at)
    VALUES ($1, $3, $15, $5)
)
",
    records_insert!()
);

macro_rules! record_columns {
    () => {
        "chain_id, sequence, occurred_at, tenant_id, grant_id, resource, caller, user_id, action, purpose, trace_id"
    };
}

pub(super) const RECORDS_LIST: &str = concat!(
    "-- {schema}.access_records_list
SELECT ",
    record_columns!(),
    "
FROM {schema}.access_records
WHERE slot = ANY($1::smallint[])
  AND tenant_id = $2
  AND ($3::text = '' OR caller = $3)
  AND occurred_at > $4
  AND occurred_at < $5
  AND (occurred_at, chain_id, sequence) < ($6, $7, $8)
ORDER BY occurred_at DESC, chain_id DESC, sequence DESC
LIMIT $9"
);

pub(super) const RECORDS_LIST_OF_GRANT: &str = concat!(
    "-- {schema}.access_records_list_of_grant
SELECT ",
    record_columns!(),
    "
FROM {schema}.access_records
WHERE slot = ANY($1::smallint[])
  AND tenant_id = $2
  AND ($3::text = '' OR caller = $3)
  AND occurred_at > $4
  AND occurred_at < $5
  AND (occurred_at, chain_id, sequence) < ($6, $7, $8)
  AND grant_id = $10
ORDER BY occurred_at DESC, chain_id DESC, sequence DESC
LIMIT $9"
);

/// What a flush adds to its chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flush<'a> {
    pub(crate) chain_id: Uuid,
    /// Where the chain is new: under which key-encryption key it is authenticated.
    pub(crate) begins_under: Option<&'a str>,
    /// Of the record before the first one.
    pub(crate) behind: i64,
    pub(crate) occurred_at: OffsetDateTime,
    pub(crate) records: &'a [Record<'a>],
    pub(crate) macs: &'a [Mac],
}

/// A record in its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccessRow {
    pub(crate) chain_id: Uuid,
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
    /// Empty for every caller.
    pub(crate) caller: String,
    pub(crate) after: OffsetDateTime,
    pub(crate) before: OffsetDateTime,
    /// Only what is older than this record.
    pub(crate) behind: RecordPosition,
    pub(crate) limit: i64,
}

impl Store {
    /// Appends a flush, in one round trip.
    pub(crate) async fn records_append(&self, flush: &Flush<'_>) -> Result<(), StoreError> {
        let records = flush.records;
        let tenants: Vec<Uuid> = records.iter().map(|record| record.tenant_id).collect();
        let grants: Vec<Option<Uuid>> = records.iter().map(|record| record.grant_id).collect();
        let macs: Vec<&[u8]> = flush.macs.iter().map(Mac::as_slice).collect();
        let params: [&(dyn ToSql + Sync); 15] = [
            &common::bucket_of(flush.chain_id),
            &Day::of(flush.occurred_at).slot(),
            &flush.chain_id,
            &flush.behind,
            &flush.occurred_at,
            &tenants,
            &grants,
            &texts(records, |record| record.resource),
            &texts(records, |record| record.caller),
            &texts(records, |record| record.user_id),
            &texts(records, |record| record.action),
            &texts(records, |record| record.purpose),
            &texts(records, |record| record.trace_id),
            &macs,
            &flush.begins_under,
        ];
        let (sql, params) = match flush.begins_under {
            Some(_) => (CHAIN_BEGIN, &params[..]),
            None => (RECORDS_APPEND, &params[..14]),
        };
        let appended = self.db.execute(Scope::System, sql, params).await?;
        if appended == records.len() as u64 {
            Ok(())
        } else {
            Err(StoreError::Impossible {
                table: "access_records",
                what: "how many of a flush are there",
            })
        }
    }

    /// A tenant's newest records of those days, the newest first.
    pub(crate) async fn records_list(
        &self,
        filter: &RecordFilter,
        days: &[Day],
    ) -> Result<Vec<AccessRow>, StoreError> {
        let slots: Vec<i16> = days.iter().map(|day| day.slot()).collect();
        let params: [&(dyn ToSql + Sync); 10] = [
            &slots,
            &filter.tenant.id(),
            &filter.caller,
            &filter.after,
            &filter.before,
            &filter.behind.occurred_at,
            &filter.behind.chain_id,
            &filter.behind.sequence,
            &filter.limit,
            &filter.grant_id,
        ];
        let (sql, params) = match filter.grant_id {
            Some(_) => (RECORDS_LIST_OF_GRANT, &params[..]),
            None => (RECORDS_LIST, &params[..9]),
        };
        let rows = self.db.query(Scope::Tenant(filter.tenant), sql, params);
        rows.await?.iter().map(from).collect()
    }
}

fn texts<'a>(records: &[Record<'a>], of: fn(&Record<'a>) -> &'a str) -> Vec<&'a str> {
    records.iter().map(of).collect()
}

fn from(row: &Row) -> Result<AccessRow, StoreError> {
    Ok(AccessRow {
        chain_id: get(row, "chain_id")?,
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
    })
}
