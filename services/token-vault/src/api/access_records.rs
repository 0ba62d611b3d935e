//! Access records, listed and verified.

use common::Problem;
use common::identity::Caller;
use common::validate::{Fields, page_size};
use contracts::vault::v1 as pb;
use prost_types::Timestamp;
use time::OffsetDateTime;
use time::macros::datetime;
use tonic::{Response, Status};
use uuid::Uuid;

use super::decode::opt_id;
use super::page;
use crate::access_records::Head;
use crate::contract::{time, timestamp};
use crate::error::Error;
use crate::store::{AccessRow, RecordFilter, RecordPosition};
use crate::vault::Vault;
use crate::verify_access_records::{Verified, Verifier, VerifyError};

const EVER_AFTER: OffsetDateTime = datetime!(1970-01-01 0:00 UTC);
const EVER_BEFORE: OffsetDateTime = datetime!(9999-12-31 0:00 UTC);
const MAC_LEN: usize = 32;
const MOST_HEADS: usize = 10_000;

pub(super) async fn list(
    vault: &Vault,
    caller: &Caller,
    request: pb::ListAccessRecordsRequest,
) -> Result<Response<pb::ListAccessRecordsResponse>, Status> {
    let mut fields = Fields::new();
    let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
    let grant_id = opt_id(&mut fields, "grant_id", &request.grant_id);
    let limit = page_size(&mut fields, request.page_size);
    let after = bound(&mut fields, "occurred_after", request.occurred_after);
    let before = bound(&mut fields, "occurred_before", request.occurred_before);
    let behind = page::decode::<(i64, Uuid, i64)>(&mut fields, &request.page_token);
    let behind = behind.map(|(micros, chain_id, sequence)| RecordPosition {
        occurred_at: of_micros(micros).unwrap_or(EVER_AFTER),
        chain_id,
        sequence,
    });
    fields.finish()?;
    let filter = RecordFilter {
        tenant: tenant.ok_or_else(|| Problem::not_found("tenant"))?,
        grant_id,
        caller: request.caller,
        after: after.unwrap_or(EVER_AFTER),
        before: before.unwrap_or(EVER_BEFORE),
        behind: behind.unwrap_or(RecordPosition {
            occurred_at: EVER_BEFORE,
            chain_id: Uuid::max(),
            sequence: i64::MAX,
        }),
        limit,
    };
    let found = vault
        .list_access_records(filter)
        .await
        .map_err(|error| error.problem())?;
    let next = found.last().filter(|_| found.len() as i64 == limit);
    let next_page_token = next
        .map(|last| {
            let micros = (last.occurred_at.unix_timestamp_nanos() / 1000) as i64;
            page::encode(&(micros, last.chain_id, last.sequence))
        })
        .unwrap_or_default();
    Ok(Response::new(pb::ListAccessRecordsResponse {
        access_records: found.into_iter().map(record).collect(),
        next_page_token,
    }))
}

pub(super) async fn verify(
    vault: &Vault,
    request: pb::VerifyAccessRecordsRequest,
) -> Result<Response<pb::VerifyAccessRecordsResponse>, Status> {
    let mut fields = Fields::new();
    let only = opt_id(&mut fields, "chain_id", &request.chain_id);
    fields.check(
        request.expected_heads.len() <= MOST_HEADS,
        "expected_heads",
        format_args!("must be at most {MOST_HEADS}; the newest of each chain says it all"),
    );
    let expected: Vec<_> = request
        .expected_heads
        .into_iter()
        .take(MOST_HEADS)
        .enumerate()
        .filter_map(|(index, head)| expected_head(&mut fields, index, only, head))
        .collect();
    fields.finish()?;
    let verified = Verifier::new(vault.store.clone(), vault.keys.clone())
        .verify(only, &expected)
        .await
        .map_err(|error| match error {
            VerifyError::NoSuchChain => Problem::not_found("chain"),
            VerifyError::Store(error) => error.problem(),
            VerifyError::Keys(error) => Error::Keys(error).into(),
        })?;
    Ok(Response::new(answer(verified)))
}

fn bound(
    fields: &mut Fields,
    field: &'static str,
    at: Option<Timestamp>,
) -> Option<OffsetDateTime> {
    let found = at
        .and_then(time)
        .map(|found| found.clamp(EVER_AFTER, EVER_BEFORE));
    fields.check(
        found.is_some() == at.is_some(),
        field,
        "must be a time of this calendar",
    );
    found
}

fn of_micros(micros: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).ok()
}

fn expected_head(
    fields: &mut Fields,
    index: usize,
    only: Option<Uuid>,
    head: pb::ChainHead,
) -> Option<Head> {
    let at = |field: &str| format!("expected_heads.{index}.{field}");
    let chain_id = fields.id(&at("chain_id"), &head.chain_id);
    fields.check(
        only.is_none() || chain_id.is_none() || chain_id == only,
        at("chain_id"),
        "must be the chain that is to be verified",
    );
    fields.check(head.sequence > 0, at("sequence"), "must be at least 1");
    fields.check(
        head.mac.len() == MAC_LEN,
        at("mac"),
        format_args!("must be {MAC_LEN} bytes"),
    );
    chain_id.map(|chain_id| Head {
        chain_id,
        sequence: head.sequence,
        mac: head.mac,
    })
}

fn answer(verified: Verified) -> pb::VerifyAccessRecordsResponse {
    let broken = verified
        .broken
        .into_iter()
        .map(|(chain_id, sequence)| pb::BrokenChain {
            chain_id: chain_id.to_string(),
            first_broken_sequence: sequence,
        });
    let heads = verified.heads.into_iter().map(|head| pb::ChainHead {
        chain_id: head.chain_id.to_string(),
        sequence: head.sequence,
        mac: head.mac,
    });
    pb::VerifyAccessRecordsResponse {
        records_checked: verified.records,
        broken_chains: broken.collect(),
        heads: heads.collect(),
    }
}

fn record(row: AccessRow) -> pb::AccessRecord {
    pb::AccessRecord {
        sequence: row.sequence,
        occurred_at: Some(timestamp(row.occurred_at)),
        tenant_id: row.tenant_id.to_string(),
        grant_id: row.grant_id.map(|id| id.to_string()).unwrap_or_default(),
        caller: row.caller,
        user_id: row.user_id,
        action: row.action,
        purpose: row.purpose,
        trace_id: row.trace_id,
        chain_id: row.chain_id.to_string(),
        resource: row.resource,
    }
}
