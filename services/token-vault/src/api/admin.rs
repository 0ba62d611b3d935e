//! `VaultAdminService`: for operators.

use common::Problem;
use common::validate::{Fields, page_size};
use contracts::vault::v1 as pb;
use contracts::vault::v1::vault_admin_service_server::VaultAdminService;
use time::OffsetDateTime;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::decode::opt_id;
use super::page;
use crate::contract::{time, timestamp};
use crate::error::Error;
use crate::store::{AccessRow, RecordFilter, RecordPosition};
use crate::vault::Vault;

/// Answers operators.
#[derive(Clone, Debug)]
pub(crate) struct AdminApi {
    vault: Vault,
}

impl AdminApi {
    pub(crate) fn new(vault: Vault) -> Self {
        Self { vault }
    }
}

#[tonic::async_trait]
impl VaultAdminService for AdminApi {
    async fn rewrap_data_keys(
        &self,
        _: Request<pb::RewrapDataKeysRequest>,
    ) -> Result<Response<pb::RewrapDataKeysResponse>, Status> {
        Err(common::rpc::unimplemented(
            "VaultAdminService/RewrapDataKeys",
        ))
    }

    async fn rotate_data_keys(
        &self,
        _: Request<pb::RotateDataKeysRequest>,
    ) -> Result<Response<pb::RotateDataKeysResponse>, Status> {
        Err(common::rpc::unimplemented(
            "VaultAdminService/RotateDataKeys",
        ))
    }

    async fn get_key_status(
        &self,
        _: Request<pb::GetKeyStatusRequest>,
    ) -> Result<Response<pb::GetKeyStatusResponse>, Status> {
        let (data_keys, under_older) = self
            .vault
            .keys
            .count()
            .await
            .map_err(|error| Problem::from(Error::Keys(error)))?;
        Ok(Response::new(pb::GetKeyStatusResponse {
            current_kek_id: self.vault.keys.kek_id().to_owned(),
            data_keys,
            data_keys_under_older_keks: under_older,
            // A tenant has one data key until data keys can be rotated.
            values_under_older_data_keys: 0,
        }))
    }

    async fn shred_tenant(
        &self,
        _: Request<pb::ShredTenantRequest>,
    ) -> Result<Response<pb::ShredTenantResponse>, Status> {
        Err(common::rpc::unimplemented("VaultAdminService/ShredTenant"))
    }

    async fn list_access_records(
        &self,
        request: Request<pb::ListAccessRecordsRequest>,
    ) -> Result<Response<pb::ListAccessRecordsResponse>, Status> {
        let caller = common::rpc::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        let grant_id = opt_id(&mut fields, "grant_id", &request.grant_id);
        let limit = page_size(&mut fields, request.page_size);
        let behind = page::decode::<(i64, Uuid, i64)>(&mut fields, &request.page_token);
        fields.finish()?;
        let behind = behind.and_then(|(micros, chain_id, sequence)| {
            let occurred_at =
                OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).ok()?;
            Some(RecordPosition {
                occurred_at,
                chain_id,
                sequence,
            })
        });
        let filter = RecordFilter {
            tenant: tenant.ok_or_else(|| Problem::not_found("tenant"))?,
            grant_id,
            caller: request.caller,
            after: request.occurred_after.and_then(time),
            before: request.occurred_before.and_then(time),
            behind,
            limit,
        };
        let found = self
            .vault
            .store
            .records_list(&filter)
            .await
            .map_err(|error| error.problem())?;
        let next = found.last().filter(|_| found.len() as i64 == limit);
        let next_page_token = next
            .map(|(chain, last)| {
                page::encode(&(
                    (last.occurred_at.unix_timestamp_nanos() / 1000) as i64,
                    chain,
                    last.sequence,
                ))
            })
            .unwrap_or_default();
        let access_records = found
            .into_iter()
            .map(|(chain, row)| record(chain, row))
            .collect();
        Ok(Response::new(pb::ListAccessRecordsResponse {
            access_records,
            next_page_token,
        }))
    }

    async fn verify_access_records(
        &self,
        _: Request<pb::VerifyAccessRecordsRequest>,
    ) -> Result<Response<pb::VerifyAccessRecordsResponse>, Status> {
        Err(common::rpc::unimplemented(
            "VaultAdminService/VerifyAccessRecords",
        ))
    }
}

fn record(chain: Uuid, row: AccessRow) -> pb::AccessRecord {
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
        chain_id: chain.to_string(),
        resource: row.resource,
    }
}
