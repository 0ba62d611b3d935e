//! Handing out.

use common::Problem;
use common::identity::Caller;
use common::validate::Fields;
use contracts::vault::v1 as pb;
use tonic::{Response, Status};
use uuid::Uuid;

use super::VaultApi;
use super::decode::{duration, grant_key};
use crate::access_records::Recipient;
use crate::contract::timestamp;
use crate::get_credential::{Handed, HandedSecret, Request};
use crate::grant::GrantKey;

const MOST_GRANTS: usize = 1000;
const LONGEST_PURPOSE: usize = 500;

impl VaultApi {
    pub(super) async fn get(
        &self,
        caller: &Caller,
        request: pb::GetCredentialRequest,
    ) -> Result<Response<pb::GetCredentialResponse>, Status> {
        let mut fields = Fields::new();
        let grant = fields.absorb(grant_key(caller, &request.tenant_id, &request.grant_id))?;
        let min_validity = duration(&mut fields, "min_validity", request.min_validity);
        fields.at_most("purpose", &request.purpose, LONGEST_PURPOSE);
        fields.finish()?;
        let grant = grant.ok_or_else(|| Problem::not_found("grant"))?;
        let asked = Request {
            grant,
            min_validity,
            purpose: request.purpose,
            token_name: request.token_name,
            recipient: Recipient::of(caller),
            action: "GetCredential",
            deadline: caller.deadline,
        };
        let handed = self.handout.get(asked).await.map_err(Problem::from)?;
        Ok(Response::new(pb::GetCredentialResponse {
            credential: Some(credential(grant.id, handed)),
        }))
    }

    pub(super) async fn batch_get(
        &self,
        caller: &Caller,
        request: pb::BatchGetCredentialsRequest,
    ) -> Result<Response<pb::BatchGetCredentialsResponse>, Status> {
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        let count = request.grant_ids.len();
        fields.check(
            (1..=MOST_GRANTS).contains(&count),
            "grant_ids",
            format_args!("must be 1 to {MOST_GRANTS}"),
        );
        let ids: Vec<_> = request
            .grant_ids
            .iter()
            .take(MOST_GRANTS)
            .enumerate()
            .filter_map(|(index, id)| fields.id(&format!("grant_ids.{index}"), id))
            .collect();
        let min_validity = duration(&mut fields, "min_validity", request.min_validity);
        fields.at_most("purpose", &request.purpose, LONGEST_PURPOSE);
        fields.finish()?;
        let tenant = tenant.ok_or_else(|| Problem::not_found("tenant"))?;
        let recipient = Recipient::of(caller);
        let asked: Vec<_> = ids
            .iter()
            .map(|&id| Request {
                grant: GrantKey { tenant, id },
                min_validity,
                purpose: request.purpose.clone(),
                token_name: String::new(),
                recipient: recipient.clone(),
                action: "BatchGetCredentials",
                deadline: caller.deadline,
            })
            .collect();
        let outcomes = self.handout.get_all(&asked).await;
        let results = ids
            .into_iter()
            .zip(outcomes)
            .map(|(id, outcome)| result(id, outcome.map_err(Problem::from)));
        Ok(Response::new(pb::BatchGetCredentialsResponse {
            results: results.collect(),
        }))
    }
}

fn result(id: Uuid, outcome: Result<Handed, Problem>) -> pb::CredentialResult {
    use pb::credential_result::Result as Slot;
    let slot = match outcome {
        Ok(handed) => Slot::Credential(credential(id, handed)),
        Err(problem) => Slot::Error(problem.into_item_error(id.to_string())),
    };
    pb::CredentialResult { result: Some(slot) }
}

fn credential(id: Uuid, handed: Handed) -> pb::Credential {
    use pb::credential::Secret as Slot;
    let secret = match handed.secret {
        HandedSecret::AccessToken(token) => Slot::AccessToken(pb::AccessToken {
            value: token.expose().clone(),
            token_type: handed.token_type,
            expires_at: handed.expires_at.map(timestamp),
            scopes: handed.scopes,
        }),
        HandedSecret::ApiKey(key) => Slot::ApiKey(pb::ApiKey {
            value: key.expose().clone(),
        }),
        HandedSecret::Basic { username, password } => Slot::Basic(pb::BasicAuth {
            username,
            password: password.expose().clone(),
        }),
    };
    pb::Credential {
        grant_id: id.to_string(),
        version: handed.version,
        secret: Some(secret),
    }
}
