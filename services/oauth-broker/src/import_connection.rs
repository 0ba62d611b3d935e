//! Connecting without a browser: a key, a password, the client's own credentials, or tokens from another system.

use common::TenantKey;
use common::identity::Caller;
use common::pg::Scope;
use common::pg::request_ids::{self, Call};
use contracts::broker::v1::import_connection_request::Credential;
use contracts::broker::v1::{AuthMode, ImportConnectionRequest, ImportConnectionResponse};
use contracts::vault::v1::{
    ApiKey, BasicAuth, ClientCredentials, ExchangeAuthorizationRequest, Grant, OAuth2Tokens,
    PutCredentialRequest, exchange_authorization_request::Authorization,
    put_credential_request::Credential as Sealed,
};
use std::collections::BTreeMap;
use uuid::Uuid;

use crate::api::encode;
use crate::broker::Broker;
use crate::clients::map;
use crate::connection::Connection;
use crate::error::{Error, ProviderError};
use crate::integration::Integration;
use crate::provider_api::ProviderApi;
use crate::save_connection::Saving;
use crate::session::Authorized;
use crate::store::accounts::account_list_now;
use crate::store::connections::connection_by_grant;
use crate::store::grant_duties::{Duty, duty_put};
use crate::store::imports::import_grant;

const METHOD: &str = "ConnectService/ImportConnection";

impl Broker {
    /// Imports it. A repeated call puts the same grant, and so makes no second connection.
    pub(crate) async fn import_connection(
        &self,
        caller: &Caller,
        tenant: TenantKey,
        request: ImportConnectionRequest,
    ) -> Result<ImportConnectionResponse, Error> {
        self.active_tenant(tenant).await?;
        let integration = self.integration(tenant, &request.integration_id).await?;
        check_mode(&integration, request.credential.as_ref())?;
        let resolved = integration.resolve()?;
        let given: BTreeMap<_, _> = request.connection_parameters.clone().into_iter().collect();
        let parameters = resolved.parameters(&given)?;
        let grant_id = import_grant(
            &self.db,
            tenant,
            &request.request_id,
            tenant.new_id(&self.deps),
        )
        .await?;
        let connection = match self.imported(tenant, grant_id).await? {
            Some(known) => known,
            None => {
                self.import_anew(
                    caller,
                    tenant,
                    grant_id,
                    &integration,
                    &parameters,
                    &request,
                )
                .await?
            }
        };
        self.answer_import(tenant, connection, request).await
    }

    async fn import_anew(
        &self,
        caller: &Caller,
        tenant: TenantKey,
        grant_id: Uuid,
        integration: &Integration,
        parameters: &BTreeMap<String, String>,
        request: &ImportConnectionRequest,
    ) -> Result<Connection, Error> {
        let resolved = integration.resolve()?;
        let grant = self
            .seal(tenant, grant_id, integration, parameters, request)
            .await?;
        let api = ProviderApi {
            egress: &self.egress,
            resolved: &resolved,
            parameters,
        };
        let taken = self.take_import(caller, tenant, integration, api, &grant, request);
        match Box::pin(taken).await {
            Ok(connection) => Ok(connection),
            Err(error) => {
                // What came from another system is not ours to end at the provider.
                self.abandon(tenant, grant_id, Duty::RevokeHere).await?;
                Err(error)
            }
        }
    }

    async fn take_import(
        &self,
        caller: &Caller,
        tenant: TenantKey,
        integration: &Integration,
        api: ProviderApi<'_>,
        grant: &Grant,
        request: &ImportConnectionRequest,
    ) -> Result<Connection, Error> {
        let authorized = self
            .authorized(tenant, api, grant, integration.scopes.clone())
            .await?;
        if api.resolved.provider().verify.is_some() && !integration_is_oauth(integration) {
            self.check_accepted(tenant, api, &authorized).await?;
        }
        let email = match request.user_email.as_str() {
            "" if !request.user_id.is_empty() => {
                self.directory.email(tenant, &request.user_id).await?
            }
            given => given.to_owned(),
        };
        self.save_connection(Saving {
            integration,
            tenant,
            user_id: &request.user_id,
            user_email: &email,
            labels: &BTreeMap::new(),
            reconnect: None,
            session_id: None,
            authorized: &authorized,
            actor: caller.actor(),
            action: METHOD,
        })
        .await
    }

    /// A key or password that the provider does not take is not kept.
    async fn check_accepted(
        &self,
        tenant: TenantKey,
        api: ProviderApi<'_>,
        authorized: &Authorized,
    ) -> Result<(), Error> {
        let purpose = "test of a new connection";
        let credential = self
            .vault
            .credential(tenant, authorized.grant.grant_id, None, purpose)
            .await?;
        let account = authorized
            .active()
            .map(|account| account.external_account_id.as_str());
        match api.verify(account, &credential).await? {
            None | Some(200..=299) => Ok(()),
            Some(status) => Err(ProviderError::Status(status).into()),
        }
    }

    async fn seal(
        &self,
        tenant: TenantKey,
        grant_id: Uuid,
        integration: &Integration,
        parameters: &BTreeMap<String, String>,
        request: &ImportConnectionRequest,
    ) -> Result<Grant, Error> {
        let oauth_client_id = integration
            .oauth_client_id
            .map(|id| id.to_string())
            .unwrap_or_default();
        let oauth_client_tenant_id = integration
            .oauth_client_id
            .map(|_| integration.tenant.to_string());
        let put = |credential| PutCredentialRequest {
            tenant_id: tenant.to_string(),
            grant_id: grant_id.to_string(),
            oauth_client_id: oauth_client_id.clone(),
            oauth_client_tenant_id: oauth_client_tenant_id.clone().unwrap_or_default(),
            expected_version: 0,
            parameters: map(parameters),
            credential: Some(credential),
        };
        match request.credential.clone() {
            Some(Credential::Tokens(tokens)) => {
                let tokens = OAuth2Tokens {
                    access_token: tokens.access_token,
                    refresh_token: tokens.refresh_token,
                    token_type: "Bearer".to_owned(),
                    expires_at: tokens.expires_at,
                    scopes: tokens.scopes,
                    raw_json: String::new(),
                };
                self.vault.put_credential(put(Sealed::Oauth2(tokens))).await
            }
            Some(Credential::ApiKey(value)) => {
                self.vault
                    .put_credential(put(Sealed::ApiKey(ApiKey { value })))
                    .await
            }
            Some(Credential::Password(pair)) => {
                let basic = BasicAuth {
                    username: pair.username,
                    password: pair.password,
                };
                self.vault.put_credential(put(Sealed::Basic(basic))).await
            }
            Some(Credential::ClientCredentials(_)) | None => {
                let resolved = integration.resolve()?;
                let scopes = integration.requested_scopes(resolved.provider(), &[]);
                self.vault
                    .exchange(ExchangeAuthorizationRequest {
                        tenant_id: tenant.to_string(),
                        oauth_client_id,
                        grant_id: grant_id.to_string(),
                        oauth_client_tenant_id: oauth_client_tenant_id.unwrap_or_default(),
                        expected_version: 0,
                        parameters: map(parameters),
                        authorization: Some(Authorization::ClientCredentials(ClientCredentials {
                            scopes,
                        })),
                    })
                    .await
            }
        }
    }

    async fn imported(
        &self,
        tenant: TenantKey,
        grant_id: Uuid,
    ) -> Result<Option<Connection>, Error> {
        self.db
            .run_tx("import_get", Scope::Tenant(tenant), async move |tx| {
                Ok::<_, Error>(connection_by_grant(tx, tenant, grant_id).await?)
            })
            .await
    }

    /// The grant leads to nothing.
    async fn abandon(&self, tenant: TenantKey, grant_id: Uuid, duty: Duty) -> Result<(), Error> {
        self.db
            .run_tx("grant_abandon", Scope::Tenant(tenant), async move |tx| {
                if connection_by_grant(tx, tenant, grant_id).await?.is_none() {
                    duty_put(tx, tenant, grant_id, duty).await?;
                }
                Ok::<_, Error>(())
            })
            .await?;
        self.settle_now(tenant, grant_id, duty).await;
        Ok(())
    }

    /// The first answer to this request, secrets aside.
    async fn answer_import(
        &self,
        tenant: TenantKey,
        connection: Connection,
        mut request: ImportConnectionRequest,
    ) -> Result<ImportConnectionResponse, Error> {
        match &mut request.credential {
            Some(Credential::Tokens(tokens)) => {
                tokens.access_token = self
                    .sealer
                    .fingerprint(tenant, &tokens.access_token)
                    .await?;
                tokens.refresh_token = self
                    .sealer
                    .fingerprint(tenant, &tokens.refresh_token)
                    .await?;
            }
            Some(Credential::ApiKey(key)) => *key = self.sealer.fingerprint(tenant, key).await?,
            Some(Credential::Password(pair)) => {
                pair.password = self.sealer.fingerprint(tenant, &pair.password).await?;
            }
            Some(Credential::ClientCredentials(_)) | None => {}
        }
        let accounts = account_list_now(&self.db, tenant, connection.connection_id).await?;
        let active = accounts.iter().find(|account| account.active);
        let answer = ImportConnectionResponse {
            connection: Some(encode::connection(&connection, active, &[])),
        };
        self.db
            .run_tx("import_answer", Scope::Tenant(tenant), async move |tx| {
                let call = Call {
                    tenant,
                    method: METHOD,
                    request_id: &request.request_id,
                    body: &request,
                };
                request_ids::run(tx, call, async || Ok::<_, Error>(answer.clone())).await
            })
            .await
    }
}

fn integration_is_oauth(integration: &Integration) -> bool {
    !matches!(integration.auth_mode, AuthMode::ApiKey | AuthMode::Basic)
}

fn check_mode(integration: &Integration, credential: Option<&Credential>) -> Result<(), Error> {
    let wanted = match integration.auth_mode {
        AuthMode::ApiKey => (
            "api_key",
            matches!(credential, Some(Credential::ApiKey(key)) if !key.is_empty()),
        ),
        AuthMode::Basic => (
            "password",
            matches!(credential, Some(Credential::Password(pair)) if !pair.username.is_empty()),
        ),
        AuthMode::Oauth2ClientCredentials => (
            "client_credentials",
            matches!(credential, Some(Credential::ClientCredentials(true))),
        ),
        _ => {
            let given = matches!(credential, Some(Credential::Tokens(tokens)) if !tokens.access_token.is_empty());
            ("tokens", given)
        }
    };
    match wanted {
        (_, true) => Ok(()),
        (field, false) => {
            let what =
                "is what the integration's auth_mode takes; give it, and no other credential";
            Err(common::Problem::invalid_field(field, what).into())
        }
    }
}
