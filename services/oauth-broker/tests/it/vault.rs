//! A stand-in for the vault: it keeps what it is given, trades codes at the real token endpoint, and tells of grants.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use common::rpc::unimplemented;
use common::{Deps, Problem, Reason};
use contracts::vault::v1::exchange_authorization_request::Authorization;
use contracts::vault::v1::put_credential_request::Credential as Put;
use contracts::vault::v1::service_key_service_server::ServiceKeyService;
use contracts::vault::v1::token_vault_service_server::TokenVaultService;
use contracts::vault::v1::*;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use http::Method;
use provider_sim::http_client;
use serde_json::{Value, json};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

#[derive(Clone)]
pub(crate) struct Vault {
    deps: Deps,
    state: Arc<Mutex<State>>,
    events: watch::Sender<Vec<WatchGrantEventsResponse>>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) clients: HashMap<String, OAuthClient>,
    pub(crate) grants: HashMap<String, Held>,
    pub(crate) revocations: Vec<(String, RevocationMode)>,
    pub(crate) exchanges: Vec<ExchangeAuthorizationRequest>,
    pub(crate) purposes: Vec<String>,
    /// Confirming and revoking fail this often.
    pub(crate) failures: u32,
}

#[derive(Clone)]
pub(crate) struct Held {
    pub(crate) grant: Grant,
    pub(crate) secret: credential::Secret,
    pub(crate) refresh_token: String,
    pub(crate) confirmed: bool,
}

impl Vault {
    pub(crate) fn new(deps: &Deps) -> Self {
        Self {
            deps: deps.clone(),
            state: Arc::default(),
            events: watch::Sender::new(Vec::new()),
        }
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap())
    }

    /// Changes a grant, and tells of it.
    pub(crate) fn change(
        &self,
        grant_id: &str,
        kind: GrantEventKind,
        change: impl FnOnce(&mut Grant),
    ) {
        let grant = self.with(|state| {
            let held = state.grants.get_mut(grant_id).unwrap();
            change(&mut held.grant);
            held.grant.revision += 1;
            held.grant.clone()
        });
        self.tell(WatchGrantEventsResponse {
            grant: Some(grant),
            kind: kind.into(),
            ..Default::default()
        });
    }

    pub(crate) fn tell(&self, event: WatchGrantEventsResponse) {
        self.events.send_modify(|events| {
            let cursor = (events.len() + 1).to_string();
            events.push(WatchGrantEventsResponse { cursor, ..event });
        });
    }

    fn keep(&self, grant: Grant, secret: credential::Secret, refresh_token: String) -> Grant {
        let held = Held {
            grant: grant.clone(),
            secret,
            refresh_token,
            confirmed: false,
        };
        self.with(|state| state.grants.insert(grant.grant_id.clone(), held));
        let created = GrantEventKind::Created;
        self.tell(WatchGrantEventsResponse {
            grant: Some(grant.clone()),
            kind: created.into(),
            ..Default::default()
        });
        grant
    }

    fn held(&self, tenant_id: &str, grant_id: &str) -> Result<Held, Problem> {
        let held = self.with(|state| state.grants.get(grant_id).cloned());
        held.filter(|held| held.grant.tenant_id == tenant_id)
            .ok_or_else(|| Problem::not_found("grant"))
    }

    fn credential(&self, tenant_id: &str, grant_id: &str) -> Result<Credential, Problem> {
        let held = self.held(tenant_id, grant_id)?;
        match held.grant.state() {
            GrantState::Active | GrantState::Unconfirmed | GrantState::RefreshFailing => {}
            _ => {
                return Err(Problem::failed_precondition(
                    Reason::ReauthorizationRequired,
                    "connect again",
                ));
            }
        }
        Ok(Credential {
            grant_id: grant_id.into(),
            version: held.grant.version,
            secret: Some(held.secret),
        })
    }

    async fn ask(
        &self,
        client: &OAuthClient,
        mut form: Vec<(&str, String)>,
    ) -> Result<Value, Problem> {
        let basic = STANDARD.encode(format!("{}:{}", client.client_id, client.client_secret));
        let basic = format!("Basic {basic}");
        let mut headers = vec![
            ("content-type", "application/x-www-form-urlencoded"),
            ("accept", "application/json"),
        ];
        if client.auth_method() == ClientAuthMethod::SecretBasic {
            headers.push(("authorization", &basic));
        } else {
            form.push(("client_id", client.client_id.clone()));
            form.push(("client_secret", client.client_secret.clone()));
        }
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let timeout = Duration::from_secs(10);
        let answer = http_client::send(
            Method::POST,
            &client.token_endpoint,
            &headers,
            Bytes::from(body),
            timeout,
        )
        .await
        .unwrap();
        let json = answer.json().unwrap_or_default();
        match answer.status.as_u16() {
            200 => Ok(json),
            500.. => Err(Problem::new(
                common::Code::Unavailable,
                Reason::ProviderUnavailable,
                "the provider is away",
            )),
            _ if json["error"] == "invalid_client" => Err(Problem::failed_precondition(
                Reason::IntegrationMisconfigured,
                "the client is refused",
            )),
            _ => Err(Problem::failed_precondition(
                Reason::ReauthorizationRequired,
                "the code is refused",
            )),
        }
    }

    fn read(&self, json: &Value) -> (AccessToken, String, Value) {
        let expires_in = json["expires_in"].as_i64();
        let now = self.deps.now().unix_timestamp();
        let scopes = json["scope"]
            .as_str()
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        let token = AccessToken {
            value: json["access_token"].as_str().unwrap().into(),
            token_type: json["token_type"].as_str().unwrap_or_default().into(),
            expires_at: expires_in.map(|seconds| prost_types::Timestamp {
                seconds: now + seconds,
                nanos: 0,
            }),
            scopes,
        };
        let mut raw = json!({"scope": json["scope"]});
        if let Some(claims) = json["id_token"]
            .as_str()
            .and_then(|token| token.split('.').nth(1))
        {
            raw["id_token"] =
                serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
        }
        (
            token,
            json["refresh_token"].as_str().unwrap_or_default().into(),
            raw,
        )
    }
}

#[tonic::async_trait]
impl TokenVaultService for Vault {
    type WatchGrantEventsStream = BoxStream<'static, Result<WatchGrantEventsResponse, Status>>;

    async fn put_o_auth_client(
        &self,
        request: Request<PutOAuthClientRequest>,
    ) -> Result<Response<PutOAuthClientResponse>, Status> {
        let client = request.into_inner().oauth_client.unwrap();
        self.with(|state| state.clients.insert(client.oauth_client_id.clone(), client));
        Ok(Response::new(PutOAuthClientResponse {}))
    }

    async fn delete_o_auth_client(
        &self,
        request: Request<DeleteOAuthClientRequest>,
    ) -> Result<Response<DeleteOAuthClientResponse>, Status> {
        let id = request.into_inner().oauth_client_id;
        self.with(|state| state.clients.remove(&id))
            .ok_or_else(|| Problem::not_found("client"))?;
        Ok(Response::new(DeleteOAuthClientResponse {}))
    }

    async fn exchange_authorization(
        &self,
        request: Request<ExchangeAuthorizationRequest>,
    ) -> Result<Response<ExchangeAuthorizationResponse>, Status> {
        let request = request.into_inner();
        if let Ok(held) = self.held(&request.tenant_id, &request.grant_id) {
            return Ok(Response::new(ExchangeAuthorizationResponse {
                grant: Some(held.grant),
            }));
        }
        let client = self.with(|state| state.clients.get(&request.oauth_client_id).cloned());
        let client = client.ok_or_else(|| Problem::not_found("client"))?;
        assert_eq!(client.tenant_id, request.oauth_client_tenant_id);
        self.with(|state| state.exchanges.push(request.clone()));
        let form = match request.authorization.unwrap() {
            Authorization::AuthorizationCode(code) => {
                let mut form = vec![
                    ("grant_type", "authorization_code".into()),
                    ("code", code.code),
                    ("redirect_uri", code.redirect_uri),
                ];
                if !code.code_verifier.is_empty() {
                    form.push(("code_verifier", code.code_verifier));
                }
                form
            }
            Authorization::ClientCredentials(_) => {
                vec![("grant_type", "client_credentials".into())]
            }
            _ => return Err(unimplemented("other authorizations")),
        };
        let json = self.ask(&client, form).await?;
        let (token, refresh_token, raw) = self.read(&json);
        let grant = Grant {
            tenant_id: request.tenant_id,
            grant_id: request.grant_id,
            oauth_client_id: request.oauth_client_id,
            state: GrantState::Unconfirmed.into(),
            token_type: token.token_type.clone(),
            scopes: token.scopes.clone(),
            scope_raw: json["scope"].as_str().unwrap_or_default().into(),
            expires_at: token.expires_at,
            has_refresh_token: !refresh_token.is_empty(),
            version: 1,
            revision: 1,
            raw_json: raw.to_string(),
            ..Grant::default()
        };
        let grant = self.keep(grant, credential::Secret::AccessToken(token), refresh_token);
        Ok(Response::new(ExchangeAuthorizationResponse {
            grant: Some(grant),
        }))
    }

    async fn put_credential(
        &self,
        request: Request<PutCredentialRequest>,
    ) -> Result<Response<PutCredentialResponse>, Status> {
        let request = request.into_inner();
        if let Ok(held) = self.held(&request.tenant_id, &request.grant_id) {
            return Ok(Response::new(PutCredentialResponse {
                grant: Some(held.grant),
            }));
        }
        let mut grant = Grant {
            tenant_id: request.tenant_id,
            grant_id: request.grant_id,
            oauth_client_id: request.oauth_client_id,
            state: GrantState::Unconfirmed.into(),
            version: 1,
            revision: 1,
            raw_json: "{}".into(),
            ..Grant::default()
        };
        let (secret, refresh_token) = match request.credential.unwrap() {
            Put::Oauth2(tokens) => {
                grant.has_refresh_token = !tokens.refresh_token.is_empty();
                grant.expires_at = tokens.expires_at;
                let token = AccessToken {
                    value: tokens.access_token,
                    token_type: tokens.token_type,
                    ..Default::default()
                };
                (credential::Secret::AccessToken(token), tokens.refresh_token)
            }
            Put::ApiKey(key) => (credential::Secret::ApiKey(key), String::new()),
            Put::Basic(basic) => (credential::Secret::Basic(basic), String::new()),
        };
        Ok(Response::new(PutCredentialResponse {
            grant: Some(self.keep(grant, secret, refresh_token)),
        }))
    }

    async fn get_credential(
        &self,
        request: Request<GetCredentialRequest>,
    ) -> Result<Response<GetCredentialResponse>, Status> {
        let request = request.into_inner();
        self.with(|state| state.purposes.push(request.purpose));
        let credential = self.credential(&request.tenant_id, &request.grant_id)?;
        Ok(Response::new(GetCredentialResponse {
            credential: Some(credential),
        }))
    }

    async fn batch_get_credentials(
        &self,
        request: Request<BatchGetCredentialsRequest>,
    ) -> Result<Response<BatchGetCredentialsResponse>, Status> {
        let request = request.into_inner();
        let results = request.grant_ids.iter().map(|id| {
            let result = match self.credential(&request.tenant_id, id) {
                Ok(credential) => credential_result::Result::Credential(credential),
                Err(problem) => credential_result::Result::Error(problem.into_item_error(id)),
            };
            CredentialResult {
                result: Some(result),
            }
        });
        Ok(Response::new(BatchGetCredentialsResponse {
            results: results.collect(),
        }))
    }

    async fn refresh_grant(
        &self,
        request: Request<RefreshGrantRequest>,
    ) -> Result<Response<RefreshGrantResponse>, Status> {
        let request = request.into_inner();
        let held = self.held(&request.tenant_id, &request.grant_id)?;
        if held.grant.version > request.refused_version {
            return Ok(Response::new(RefreshGrantResponse {
                grant: Some(held.grant),
            }));
        }
        let client = self.with(|state| state.clients[&held.grant.oauth_client_id].clone());
        let form = vec![
            ("grant_type", "refresh_token".into()),
            ("refresh_token", held.refresh_token),
        ];
        let json = self.ask(&client, form).await?;
        let (token, refresh_token, _) = self.read(&json);
        self.with(|state| {
            let held = state.grants.get_mut(&request.grant_id).unwrap();
            held.secret = credential::Secret::AccessToken(token.clone());
            held.refresh_token = refresh_token;
        });
        self.change(&request.grant_id, GrantEventKind::Refreshed, |grant| {
            grant.version += 1;
            grant.expires_at = token.expires_at;
        });
        let grant = self.held(&request.tenant_id, &request.grant_id)?.grant;
        Ok(Response::new(RefreshGrantResponse { grant: Some(grant) }))
    }

    async fn confirm_grant(
        &self,
        request: Request<ConfirmGrantRequest>,
    ) -> Result<Response<ConfirmGrantResponse>, Status> {
        let request = request.into_inner();
        self.fail_if_asked()?;
        self.held(&request.tenant_id, &request.grant_id)?;
        let grant = self.with(|state| {
            let held = state.grants.get_mut(&request.grant_id).unwrap();
            held.confirmed = true;
            if held.grant.state() == GrantState::Unconfirmed {
                held.grant.set_state(GrantState::Active);
                held.grant.revision += 1;
            }
            held.grant.clone()
        });
        Ok(Response::new(ConfirmGrantResponse { grant: Some(grant) }))
    }

    async fn describe_grant(
        &self,
        request: Request<DescribeGrantRequest>,
    ) -> Result<Response<DescribeGrantResponse>, Status> {
        let request = request.into_inner();
        let grant = self.held(&request.tenant_id, &request.grant_id)?.grant;
        Ok(Response::new(DescribeGrantResponse { grant: Some(grant) }))
    }

    async fn list_grants(
        &self,
        _: Request<ListGrantsRequest>,
    ) -> Result<Response<ListGrantsResponse>, Status> {
        let grants = self.with(|state| {
            state
                .grants
                .values()
                .map(|held| held.grant.clone())
                .collect()
        });
        Ok(Response::new(ListGrantsResponse {
            grants,
            next_page_token: String::new(),
        }))
    }

    async fn revoke_grant(
        &self,
        request: Request<RevokeGrantRequest>,
    ) -> Result<Response<RevokeGrantResponse>, Status> {
        let request = request.into_inner();
        self.fail_if_asked()?;
        self.held(&request.tenant_id, &request.grant_id)?;
        let mode = request.mode();
        self.with(|state| state.revocations.push((request.grant_id.clone(), mode)));
        let now = prost_types::Timestamp {
            seconds: self.deps.now().unix_timestamp(),
            nanos: 0,
        };
        self.change(&request.grant_id, GrantEventKind::Revoked, |grant| {
            grant.set_state(GrantState::Revoked);
            grant.revoked_at = Some(now);
        });
        Ok(Response::new(RevokeGrantResponse {
            revoked_at_provider: mode == RevocationMode::Provider,
        }))
    }

    async fn push_authorization_request(
        &self,
        _: Request<PushAuthorizationRequestRequest>,
    ) -> Result<Response<PushAuthorizationRequestResponse>, Status> {
        Err(unimplemented("PushAuthorizationRequest"))
    }

    async fn start_device_authorization(
        &self,
        _: Request<StartDeviceAuthorizationRequest>,
    ) -> Result<Response<StartDeviceAuthorizationResponse>, Status> {
        Err(unimplemented("StartDeviceAuthorization"))
    }

    async fn verify_macs(
        &self,
        _: Request<VerifyMacsRequest>,
    ) -> Result<Response<VerifyMacsResponse>, Status> {
        Err(unimplemented("VerifyMacs"))
    }

    async fn watch_grant_events(
        &self,
        request: Request<WatchGrantEventsRequest>,
    ) -> Result<Response<Self::WatchGrantEventsStream>, Status> {
        let request = request.into_inner();
        if request.after_cursor == "too-old" {
            return Err(Problem::out_of_range("too old").into());
        }
        let begin = if request.from_head {
            self.events.borrow().len()
        } else {
            request.after_cursor.parse().unwrap_or(0)
        };
        let bookmark = WatchGrantEventsResponse {
            cursor: begin.to_string(),
            ..Default::default()
        };
        let receiver = self.events.subscribe();
        let stream = futures::stream::unfold((receiver, begin), |(mut receiver, at)| async move {
            let event = receiver.wait_for(|events| events.len() > at).await.ok()?[at].clone();
            Some((Ok(event), (receiver, at + 1)))
        });
        let first = futures::stream::iter(request.from_head.then_some(Ok(bookmark)));
        Ok(Response::new(first.chain(stream).boxed()))
    }
}

impl Vault {
    fn fail_if_asked(&self) -> Result<(), Problem> {
        let fails = self.with(|state| {
            let fails = state.failures > 0;
            state.failures = state.failures.saturating_sub(1);
            fails
        });
        if fails {
            Err(Problem::unavailable("as asked", Duration::from_secs(1)))
        } else {
            Ok(())
        }
    }
}

#[tonic::async_trait]
impl ServiceKeyService for Vault {
    async fn get_service_key(
        &self,
        request: Request<GetServiceKeyRequest>,
    ) -> Result<Response<GetServiceKeyResponse>, Status> {
        let tenant = request.into_inner().tenant_id;
        let key = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, tenant.as_bytes())
            .as_ref()
            .to_vec();
        let cache_for = Some(prost_types::Duration {
            seconds: 300,
            nanos: 0,
        });
        Ok(Response::new(GetServiceKeyResponse {
            key_version: 1,
            key,
            cache_for,
        }))
    }
}
