//! The two ways in: an authorization that is traded here, and a credential that was obtained elsewhere.

use common::identity::Caller;
use common::validate::Fields;
use common::{Problem, Secret};
use contracts::vault::v1 as pb;
use oauth_client::Verifier;
use tonic::{Response, Status};

use super::VaultApi;
use super::decode::{LONGEST_SECRET, LONGEST_TEXT, client_key, opt, opt_id, texts};
use crate::contract;
use crate::exchange_authorization::{Authorization, Exchange};
use crate::grant::GrantKey;
use crate::put_credential::{Content, Put};

const LONGEST_JSON: usize = 256 * 1024;

impl VaultApi {
    pub(super) async fn exchange(
        &self,
        caller: &Caller,
        request: pb::ExchangeAuthorizationRequest,
    ) -> Result<Response<pb::ExchangeAuthorizationResponse>, Status> {
        let exchange = decode_exchange(caller, request)?;
        let grant = self
            .vault
            .exchange_authorization(exchange)
            .await
            .map_err(Problem::from)?;
        Ok(Response::new(pb::ExchangeAuthorizationResponse {
            grant: Some(contract::grant(&grant)),
        }))
    }

    pub(super) async fn put(
        &self,
        caller: &Caller,
        request: pb::PutCredentialRequest,
    ) -> Result<Response<pb::PutCredentialResponse>, Status> {
        let put = decode_put(caller, request)?;
        let grant = Box::pin(self.vault.put_credential(put))
            .await
            .map_err(Problem::from)?;
        Ok(Response::new(pb::PutCredentialResponse {
            grant: Some(contract::grant(&grant)),
        }))
    }
}

fn decode_exchange(
    caller: &Caller,
    request: pb::ExchangeAuthorizationRequest,
) -> Result<Exchange, Problem> {
    use pb::exchange_authorization_request::Authorization as Asked;
    let mut fields = Fields::new();
    let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
    let grant_id = fields.id("grant_id", &request.grant_id);
    let client = client_key(
        &mut fields,
        tenant,
        &request.oauth_client_tenant_id,
        &request.oauth_client_id,
    );
    fields.check(
        request.expected_version >= 0,
        "expected_version",
        "must not be negative",
    );
    let parameters = texts(&mut fields, "parameters", request.parameters);
    let authorization = match request.authorization {
        Some(Asked::AuthorizationCode(asked)) => {
            fields.require("authorization_code.code", &asked.code);
            fields.at_most("authorization_code.code", &asked.code, LONGEST_SECRET);
            fields.require("authorization_code.redirect_uri", &asked.redirect_uri);
            Some(Authorization::Code {
                code: Secret::new(asked.code),
                redirect_uri: asked.redirect_uri,
                verifier: opt(asked.code_verifier)
                    .map(|text| Verifier::from_kept(Secret::new(text))),
                nonce: opt(asked.nonce),
            })
        }
        Some(Asked::ClientCredentials(asked)) => Some(Authorization::ClientCredentials {
            scopes: asked.scopes,
        }),
        Some(Asked::DeviceCode(asked)) => {
            fields.require("device_code.device_code", &asked.device_code);
            fields.at_most(
                "device_code.device_code",
                &asked.device_code,
                LONGEST_SECRET,
            );
            Some(Authorization::DeviceCode {
                device_code: Secret::new(asked.device_code),
            })
        }
        Some(Asked::JwtBearer(asked)) => {
            fields.at_most("jwt_bearer.subject", &asked.subject, LONGEST_TEXT);
            Some(Authorization::JwtBearer {
                subject: asked.subject,
                scopes: asked.scopes,
            })
        }
        None => None,
    };
    fields.check(authorization.is_some(), "authorization", "is required");
    fields.finish()?;
    match (tenant, grant_id, client, authorization) {
        (Some(tenant), Some(id), Some(client), Some(authorization)) => Ok(Exchange {
            grant: GrantKey { tenant, id },
            client,
            authorization,
            expected_version: request.expected_version,
            parameters,
            actor: caller.actor().clone(),
        }),
        _ => Err(Problem::not_found("tenant")),
    }
}

fn decode_put(caller: &Caller, request: pb::PutCredentialRequest) -> Result<Put, Problem> {
    use pb::put_credential_request::Credential as Asked;
    let mut fields = Fields::new();
    let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
    let grant_id = fields.id("grant_id", &request.grant_id);
    let has_client = opt_id(&mut fields, "oauth_client_id", &request.oauth_client_id).is_some();
    let client = has_client
        .then(|| {
            client_key(
                &mut fields,
                tenant,
                &request.oauth_client_tenant_id,
                &request.oauth_client_id,
            )
        })
        .flatten();
    fields.check(
        request.expected_version >= 0,
        "expected_version",
        "must not be negative",
    );
    let parameters = texts(&mut fields, "parameters", request.parameters);
    let content = match request.credential {
        Some(Asked::Oauth2(asked)) => {
            fields.require("oauth2.access_token", &asked.access_token);
            fields.at_most("oauth2.access_token", &asked.access_token, LONGEST_SECRET);
            fields.at_most("oauth2.refresh_token", &asked.refresh_token, LONGEST_SECRET);
            fields.at_most("oauth2.raw_json", &asked.raw_json, LONGEST_JSON);
            let is_object = asked.raw_json.is_empty()
                || serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(
                    &asked.raw_json,
                )
                .is_ok();
            fields.check(is_object, "oauth2.raw_json", "must be a JSON object");
            let needs_client = asked.refresh_token.is_empty() || has_client;
            fields.check(
                needs_client,
                "oauth_client_id",
                "is required for tokens that are to be refreshed",
            );
            let expires_at = asked.expires_at.map(contract::time);
            fields.check(
                expires_at != Some(None),
                "oauth2.expires_at",
                "must be a time",
            );
            Some(Content::OAuth2 {
                access_token: Secret::new(asked.access_token),
                refresh_token: opt(asked.refresh_token).map(Secret::new),
                token_type: asked.token_type,
                expires_at: expires_at.flatten(),
                scopes: asked.scopes,
                raw_json: asked.raw_json,
            })
        }
        Some(Asked::ApiKey(asked)) => {
            fields.require("api_key.value", &asked.value);
            fields.at_most("api_key.value", &asked.value, LONGEST_SECRET);
            Some(Content::ApiKey(Secret::new(asked.value)))
        }
        Some(Asked::Basic(asked)) => {
            fields.require("basic.username", &asked.username);
            fields.at_most("basic.username", &asked.username, LONGEST_TEXT);
            fields.at_most("basic.password", &asked.password, LONGEST_SECRET);
            Some(Content::Basic {
                username: asked.username,
                password: Secret::new(asked.password),
            })
        }
        None => None,
    };
    fields.check(content.is_some(), "credential", "is required");
    fields.finish()?;
    match (tenant, grant_id, content) {
        (Some(tenant), Some(id), Some(content)) => Ok(Put {
            grant: GrantKey { tenant, id },
            client,
            content,
            expected_version: request.expected_version,
            parameters,
            actor: caller.actor().clone(),
        }),
        _ => Err(Problem::not_found("tenant")),
    }
}
