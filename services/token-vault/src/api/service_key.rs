//! `ServiceKeyService`: keys with which the other services seal what is theirs.

use common::identity::Identity;
use common::validate::Fields;
use common::{Problem, Secret};
use contracts::vault::v1 as pb;
use contracts::vault::v1::service_key_service_server::ServiceKeyService;
use envelope::derive_service_key;
use tonic::{Request, Response, Status};

use crate::access_records::{Access, Recipient, Recorder};
use crate::error::Error;
use crate::keys::{CACHE_FOR, KeysError};
use crate::vault::Vault;

/// Derives them.
#[derive(Clone, Debug)]
pub(crate) struct ServiceKeyApi {
    vault: Vault,
    recorder: Recorder,
}

impl ServiceKeyApi {
    pub(crate) fn new(vault: Vault, recorder: Recorder) -> Self {
        Self { vault, recorder }
    }
}

#[tonic::async_trait]
impl ServiceKeyService for ServiceKeyApi {
    async fn get_service_key(
        &self,
        request: Request<pb::GetServiceKeyRequest>,
    ) -> Result<Response<pb::GetServiceKeyResponse>, Status> {
        let caller = common::rpc::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        fields.check(
            request.key_version >= 0,
            "key_version",
            "must not be negative; 0 is the current one",
        );
        fields.finish()?;
        let tenant = tenant.ok_or_else(|| Problem::not_found("tenant"))?;
        let service = service_of(&caller.identity)?;
        let version = Some(request.key_version).filter(|version| *version > 0);
        let data_key = self.vault.keys.hand_out(tenant, version).await;
        let data_key = data_key.map_err(|error| match error {
            KeysError::Missing(_) => Problem::not_found("key version"),
            error => Error::Keys(error).into(),
        })?;
        let key = derive_service_key(&data_key, &service);
        let access = Access {
            tenant,
            grant_id: None,
            resource: format!("service-key/{service}"),
            recipient: Recipient::of(&caller),
            action: "GetServiceKey",
            purpose: String::new(),
        };
        self.recorder
            .append(access)
            .await
            .map_err(|error| Problem::from(Error::from(error)))?;
        let bytes = Secret::new(key.expose().to_vec());
        Ok(Response::new(pb::GetServiceKeyResponse {
            key_version: key.version().cast_signed(),
            key: bytes.expose().clone(),
            cache_for: CACHE_FOR.try_into().ok(),
        }))
    }
}

/// The key is the calling service's own: `ingest` for `webhook-ingest`.
fn service_of(identity: &Identity) -> Result<String, Problem> {
    match identity {
        Identity::Service(name) => Ok(name.rsplit('-').next().unwrap_or(name).to_owned()),
        _ => Err(Problem::permission_denied(
            "only a service has keys of its own",
        )),
    }
}
