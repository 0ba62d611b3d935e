//! OAuth clients: told by their owners, never told back.

use aws_lc_rs::hmac;
use common::identity::Caller;
use common::validate::Fields;
use common::{Problem, Secret};
use contracts::vault::v1 as pb;
use oauth_client::PushEndpoint;
use tonic::{Response, Status};

use super::VaultApi;
use super::decode::{LONGEST_SECRET, LONGEST_TEXT, client_key, duration, opt, texts};
use crate::contract;
use crate::error::Error;
use crate::grant::ClientKey;
use crate::oauth_client::{AuthMethod, OwnEndpoints, Settings};
use crate::push_authorization_request::Push;
use crate::put_oauth_client::PutClient;
use crate::start_device_authorization::Start;
use crate::verify_macs::{Macs, Signed};

impl VaultApi {
    pub(super) async fn put_client(
        &self,
        caller: &Caller,
        request: pb::PutOAuthClientRequest,
    ) -> Result<Response<pb::PutOAuthClientResponse>, Status> {
        let put = decode_client(caller, request.oauth_client.unwrap_or_default())?;
        self.vault
            .put_oauth_client(put)
            .await
            .map_err(Problem::from)?;
        Ok(Response::new(pb::PutOAuthClientResponse {}))
    }

    pub(super) async fn delete_client(
        &self,
        caller: &Caller,
        request: &pb::DeleteOAuthClientRequest,
    ) -> Result<Response<pb::DeleteOAuthClientResponse>, Status> {
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        let id = fields.id("oauth_client_id", &request.oauth_client_id);
        fields.finish()?;
        let (Some(tenant), Some(id)) = (tenant, id) else {
            return Err(Problem::not_found("OAuth client").into());
        };
        let deleted = self
            .vault
            .store
            .oauth_client_delete(ClientKey { tenant, id }, caller.actor())
            .await;
        if !deleted.map_err(|error| error.problem())? {
            return Err(Problem::from(Error::ClientNotFound).into());
        }
        Ok(Response::new(pb::DeleteOAuthClientResponse {}))
    }
}

impl VaultApi {
    pub(super) async fn push(
        &self,
        caller: &Caller,
        request: pb::PushAuthorizationRequestRequest,
    ) -> Result<Response<pb::PushAuthorizationRequestResponse>, Status> {
        let push = decode_push(caller, request)?;
        let pushed = Box::pin(self.vault.push_authorization_request(&push))
            .await
            .map_err(Problem::from)?;
        Ok(Response::new(pb::PushAuthorizationRequestResponse {
            request_uri: pushed.request_uri,
            expires_at: Some(contract::timestamp(pushed.expires_at)),
        }))
    }

    pub(super) async fn start_device(
        &self,
        caller: &Caller,
        request: pb::StartDeviceAuthorizationRequest,
    ) -> Result<Response<pb::StartDeviceAuthorizationResponse>, Status> {
        let start = decode_start(caller, request)?;
        let started = Box::pin(self.vault.start_device_authorization(&start))
            .await
            .map_err(Problem::from)?;
        Ok(Response::new(pb::StartDeviceAuthorizationResponse {
            device_code: started.device_code.expose().clone(),
            user_code: started.user_code,
            verification_uri: started.verification_uri.into(),
            verification_uri_complete: started
                .verification_uri_complete
                .map(String::from)
                .unwrap_or_default(),
            expires_at: Some(contract::timestamp(started.expires_at)),
            interval: prost_types::Duration::try_from(started.interval).ok(),
        }))
    }

    pub(super) async fn macs(
        &self,
        caller: &Caller,
        request: pb::VerifyMacsRequest,
    ) -> Result<Response<pb::VerifyMacsResponse>, Status> {
        let macs = decode_macs(caller, request)?;
        let valid = self.vault.verify_macs(&macs).await.map_err(Problem::from)?;
        Ok(Response::new(pb::VerifyMacsResponse { valid }))
    }
}

/// What proves a client (RFC 6749, 2.3; RFC 7521, 4.2).
const CLIENT_AUTHENTICATION: [&str; 3] =
    ["client_assertion", "client_assertion_type", "client_secret"];
/// As many messages are verified in one call.
const MOST_MESSAGES: usize = 256;
const MOST_SCOPES: usize = 200;

fn decode_push(
    caller: &Caller,
    request: pb::PushAuthorizationRequestRequest,
) -> Result<Push, Problem> {
    let mut fields = Fields::new();
    let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
    let client = client_key(
        &mut fields,
        tenant,
        &request.oauth_client_tenant_id,
        &request.oauth_client_id,
    );
    let params = texts(
        &mut fields,
        "authorization_params",
        request.authorization_params,
    );
    for reserved in PushEndpoint::RESERVED {
        fields.check(
            !params.contains_key(reserved),
            format!("authorization_params.{reserved}"),
            "must not be there: the vault adds what proves the client",
        );
    }
    fields.check(
        params.contains_key("response_type"),
        "authorization_params.response_type",
        "is required",
    );
    let parameters = texts(&mut fields, "parameters", request.parameters);
    fields.finish()?;
    match (tenant, client) {
        (Some(tenant), Some(client)) => Ok(Push {
            tenant,
            client,
            request: params,
            parameters,
        }),
        _ => Err(Problem::not_found("tenant")),
    }
}

fn decode_start(
    caller: &Caller,
    request: pb::StartDeviceAuthorizationRequest,
) -> Result<Start, Problem> {
    let mut fields = Fields::new();
    let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
    let client = client_key(
        &mut fields,
        tenant,
        &request.oauth_client_tenant_id,
        &request.oauth_client_id,
    );
    let scopes_are_fine = request.scopes.len() <= MOST_SCOPES
        && request
            .scopes
            .iter()
            .all(|scope| !scope.is_empty() && scope.len() <= LONGEST_TEXT);
    fields.check(
        scopes_are_fine,
        "scopes",
        format_args!("must be at most {MOST_SCOPES}, none of them empty"),
    );
    let parameters = texts(&mut fields, "parameters", request.parameters);
    fields.finish()?;
    match (tenant, client) {
        (Some(tenant), Some(client)) => Ok(Start {
            tenant,
            client,
            scopes: request.scopes,
            parameters,
        }),
        _ => Err(Problem::not_found("tenant")),
    }
}

fn decode_macs(caller: &Caller, request: pb::VerifyMacsRequest) -> Result<Macs, Problem> {
    let mut fields = Fields::new();
    let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
    let client = client_key(
        &mut fields,
        tenant,
        &request.oauth_client_tenant_id,
        &request.oauth_client_id,
    );
    let algorithm = match pb::MacAlgorithm::try_from(request.algorithm) {
        Ok(pb::MacAlgorithm::HmacSha256) => Some(hmac::HMAC_SHA256),
        Ok(pb::MacAlgorithm::HmacSha1) => Some(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
        Ok(pb::MacAlgorithm::HmacSha512) => Some(hmac::HMAC_SHA512),
        Ok(pb::MacAlgorithm::Unspecified) | Err(_) => None,
    };
    fields.check(
        algorithm.is_some(),
        "algorithm",
        "is required, and must be one of the contract's",
    );
    fields.check(
        !request.messages.is_empty() && request.messages.len() <= MOST_MESSAGES,
        "messages",
        format_args!("must be 1 to {MOST_MESSAGES}"),
    );
    fields.finish()?;
    let messages = request.messages.into_iter().map(|signed| Signed {
        message: signed.message,
        mac: signed.mac,
    });
    match (tenant, client, algorithm) {
        (Some(tenant), Some(client), Some(algorithm)) => Ok(Macs {
            tenant,
            client,
            algorithm,
            messages: messages.collect(),
        }),
        _ => Err(Problem::not_found("tenant")),
    }
}

fn decode_client(caller: &Caller, client: pb::OAuthClient) -> Result<PutClient, Problem> {
    let mut fields = Fields::new();
    let tenant = match caller.tenant(&client.tenant_id) {
        Ok(tenant) => Some(tenant),
        Err(problem) if problem.fields.is_empty() => return Err(problem),
        Err(problem) => {
            fields.violate("oauth_client.tenant_id", &problem.fields[0].description);
            None
        }
    };
    let id = fields.id("oauth_client.oauth_client_id", &client.oauth_client_id);
    check_texts(&mut fields, &client);
    let auth_method = auth_method(&mut fields, client.auth_method);
    let refresh_margin = duration(
        &mut fields,
        "oauth_client.refresh_margin",
        client.refresh_margin,
    );
    let token_params = texts(
        &mut fields,
        "oauth_client.token_params",
        client.token_params,
    );
    for reserved in CLIENT_AUTHENTICATION {
        fields.check(
            !token_params.contains_key(reserved),
            format!("oauth_client.token_params.{reserved}"),
            "must not be there: the vault adds what proves the client, in one way alone",
        );
    }
    let until = client
        .previous_client_secret_expires_at
        .and_then(contract::time);
    fields.check(
        client.previous_client_secret.is_empty() || until.is_some(),
        "oauth_client.previous_client_secret_expires_at",
        "is required together with previous_client_secret",
    );
    fields.finish()?;
    let (Some(tenant), Some(id), Some(auth_method)) = (tenant, id, auth_method) else {
        return Err(Problem::not_found("tenant"));
    };
    Ok(PutClient {
        key: ClientKey { tenant, id },
        settings: Settings {
            provider: client.provider,
            endpoints: OwnEndpoints {
                token: opt(client.token_endpoint),
                refresh: opt(client.refresh_endpoint),
                revocation: opt(client.revocation_endpoint),
                pushed_authorization_request: opt(client.pushed_authorization_request_endpoint),
                device_authorization: opt(client.device_authorization_endpoint),
                jwks: opt(client.jwks_uri),
            },
            issuer: opt(client.issuer),
            auth_method,
            client_id: client.client_id,
            key_id: opt(client.key_id),
            token_params,
            refresh_margin,
        },
        secret: opt(client.client_secret).map(Secret::new),
        previous_secret: opt(client.previous_client_secret)
            .map(Secret::new)
            .zip(until),
        actor: caller.actor().clone(),
    })
}

/// What is there, how long it is, and whether endpoints are URLs.
fn check_texts(fields: &mut Fields, client: &pb::OAuthClient) {
    fields.require("oauth_client.provider", &client.provider);
    fields.require("oauth_client.client_id", &client.client_id);
    for (field, text, limit) in [
        ("oauth_client.client_id", &client.client_id, LONGEST_TEXT),
        ("oauth_client.key_id", &client.key_id, LONGEST_TEXT),
        ("oauth_client.issuer", &client.issuer, LONGEST_TEXT),
        (
            "oauth_client.client_secret",
            &client.client_secret,
            LONGEST_SECRET,
        ),
        (
            "oauth_client.previous_client_secret",
            &client.previous_client_secret,
            LONGEST_SECRET,
        ),
    ] {
        fields.at_most(field, text, limit);
    }
    for (field, url) in [
        ("oauth_client.token_endpoint", &client.token_endpoint),
        ("oauth_client.refresh_endpoint", &client.refresh_endpoint),
        (
            "oauth_client.revocation_endpoint",
            &client.revocation_endpoint,
        ),
        ("oauth_client.jwks_uri", &client.jwks_uri),
        (
            "oauth_client.pushed_authorization_request_endpoint",
            &client.pushed_authorization_request_endpoint,
        ),
        (
            "oauth_client.device_authorization_endpoint",
            &client.device_authorization_endpoint,
        ),
    ] {
        let is_url = || provider_catalog::UrlTemplate::try_from(url.clone()).is_ok();
        fields.check(url.is_empty() || is_url(), field, "must be an https URL");
        fields.at_most(field, url, LONGEST_TEXT);
    }
}

fn auth_method(fields: &mut Fields, method: i32) -> Option<AuthMethod> {
    let method = match pb::ClientAuthMethod::try_from(method) {
        Ok(pb::ClientAuthMethod::SecretBasic) => Some(AuthMethod::SecretBasic),
        Ok(pb::ClientAuthMethod::SecretPost) => Some(AuthMethod::SecretPost),
        Ok(pb::ClientAuthMethod::PrivateKeyJwt) => Some(AuthMethod::PrivateKeyJwt),
        Ok(pb::ClientAuthMethod::None) => Some(AuthMethod::None),
        Ok(pb::ClientAuthMethod::Unspecified) | Err(_) => None,
    };
    fields.check(
        method.is_some(),
        "oauth_client.auth_method",
        "is required, and must be one of the contract's",
    );
    method
}
