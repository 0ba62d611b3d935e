//! What the broker asks of others: secrets of the vault, names of the directory.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::rpc::{CallError, Channel, Streaming};
use common::{Code, Deps, Secret, TenantKey};
use contracts::directory::v1::directory_service_client::DirectoryServiceClient;
use contracts::directory::v1::{GetTenantRequest, GetUserRequest, Tenant};
use contracts::vault::v1::service_key_service_client::ServiceKeyServiceClient;
use contracts::vault::v1::token_vault_service_client::TokenVaultServiceClient;
use contracts::vault::v1::{
    BatchGetCredentialsRequest, ConfirmGrantRequest, CredentialResult, DeleteOAuthClientRequest,
    ExchangeAuthorizationRequest, GetCredentialRequest, GetServiceKeyRequest,
    GetServiceKeyResponse, Grant, ListGrantsRequest, ListGrantsResponse, OAuthClient,
    PutCredentialRequest, PutOAuthClientRequest, RefreshGrantRequest, RevocationMode,
    RevokeGrantRequest, WatchGrantEventsRequest, WatchGrantEventsResponse,
};
use uuid::Uuid;

use crate::credential::Credential;
use crate::error::Error;

/// The vault. Calls travel with the actor on whose behalf the task runs.
#[derive(Clone, Debug)]
pub(crate) struct Vault(Channel);

impl Vault {
    pub(crate) fn new(channel: Channel) -> Self {
        Self(channel)
    }

    fn tokens(&self) -> TokenVaultServiceClient<Channel> {
        TokenVaultServiceClient::new(self.0.clone())
    }

    /// Stores a client and its secret, in place of an earlier version.
    pub(crate) async fn put_oauth_client(&self, client: OAuthClient) -> Result<(), Error> {
        let request = PutOAuthClientRequest {
            oauth_client: Some(client),
        };
        self.tokens()
            .put_o_auth_client(request)
            .await
            .map(drop)
            .map_err(failed)
    }

    /// Forgets a client.
    pub(crate) async fn delete_oauth_client(
        &self,
        tenant: TenantKey,
        oauth_client_id: Uuid,
    ) -> Result<(), Error> {
        let request = DeleteOAuthClientRequest {
            tenant_id: tenant.to_string(),
            oauth_client_id: oauth_client_id.to_string(),
        };
        match self
            .tokens()
            .delete_o_auth_client(request)
            .await
            .map_err(CallError::from)
        {
            Ok(_) => Ok(()),
            Err(error) if error.code == Code::NotFound => Ok(()),
            Err(error) => Err(Error::Vault(error)),
        }
    }

    /// Trades an authorization for a grant. A call that got no answer is made once more: the grant's id makes it the same.
    pub(crate) async fn exchange(
        &self,
        request: ExchangeAuthorizationRequest,
    ) -> Result<Grant, Error> {
        let mut answer = self
            .tokens()
            .exchange_authorization(request.clone())
            .await
            .map_err(CallError::from);
        if answer
            .as_ref()
            .is_err_and(|error| error.code == Code::Unavailable && error.reason.is_none())
        {
            answer = self
                .tokens()
                .exchange_authorization(request)
                .await
                .map_err(CallError::from);
        }
        grant(answer.map_err(Error::Vault)?.into_inner().grant)
    }

    /// Seals a credential that came from elsewhere.
    pub(crate) async fn put_credential(
        &self,
        request: PutCredentialRequest,
    ) -> Result<Grant, Error> {
        grant(
            self.tokens()
                .put_credential(request)
                .await
                .map_err(failed)?
                .into_inner()
                .grant,
        )
    }

    /// A credential that is valid now.
    pub(crate) async fn credential(
        &self,
        tenant: TenantKey,
        grant_id: Uuid,
        min_validity: Option<prost_types::Duration>,
        purpose: &str,
    ) -> Result<Credential, Error> {
        let request = GetCredentialRequest {
            tenant_id: tenant.to_string(),
            grant_id: grant_id.to_string(),
            min_validity,
            purpose: purpose.to_owned(),
            token_name: String::new(),
        };
        let answer = self
            .tokens()
            .get_credential(request)
            .await
            .map_err(failed)?
            .into_inner();
        answer
            .credential
            .and_then(Credential::of)
            .ok_or_else(incomplete)
    }

    /// Credentials of several grants, each with its own outcome, in the order asked.
    pub(crate) async fn credentials(
        &self,
        tenant: TenantKey,
        grant_ids: Vec<String>,
        purpose: &str,
    ) -> Result<Vec<CredentialResult>, Error> {
        let request = BatchGetCredentialsRequest {
            tenant_id: tenant.to_string(),
            grant_ids,
            min_validity: None,
            purpose: purpose.to_owned(),
        };
        Ok(self
            .tokens()
            .batch_get_credentials(request)
            .await
            .map_err(failed)?
            .into_inner()
            .results)
    }

    /// Refreshes, unless there is a newer version than the refused one.
    pub(crate) async fn refresh(
        &self,
        tenant: TenantKey,
        grant_id: Uuid,
        refused_version: i64,
    ) -> Result<(), Error> {
        let request = RefreshGrantRequest {
            tenant_id: tenant.to_string(),
            grant_id: grant_id.to_string(),
            refused_version,
        };
        self.tokens()
            .refresh_grant(request)
            .await
            .map(drop)
            .map_err(failed)
    }

    /// The grant has its connection. `None` where the vault knows no such grant any more.
    pub(crate) async fn confirm(
        &self,
        tenant: TenantKey,
        grant_id: Uuid,
    ) -> Result<Option<Grant>, Error> {
        let request = ConfirmGrantRequest {
            tenant_id: tenant.to_string(),
            grant_id: grant_id.to_string(),
        };
        match self
            .tokens()
            .confirm_grant(request)
            .await
            .map_err(CallError::from)
        {
            Ok(answer) => Ok(answer.into_inner().grant),
            Err(error)
                if error.code == Code::NotFound || error.code == Code::FailedPrecondition =>
            {
                Ok(None)
            }
            Err(error) => Err(Error::Vault(error)),
        }
    }

    /// Ends the grant; says whether the provider has confirmed it.
    pub(crate) async fn revoke(
        &self,
        tenant: TenantKey,
        grant_id: Uuid,
        mode: RevocationMode,
    ) -> Result<bool, Error> {
        let request = RevokeGrantRequest {
            tenant_id: tenant.to_string(),
            grant_id: grant_id.to_string(),
            mode: mode.into(),
        };
        match self
            .tokens()
            .revoke_grant(request)
            .await
            .map_err(CallError::from)
        {
            Ok(answer) => Ok(answer.into_inner().revoked_at_provider),
            Err(error) if error.code == Code::NotFound => Ok(false),
            Err(error) => Err(Error::Vault(error)),
        }
    }

    /// The changes of grants behind a cursor.
    pub(crate) async fn watch(
        &self,
        after_cursor: String,
        from_head: bool,
    ) -> Result<Streaming<WatchGrantEventsResponse>, CallError> {
        let request = WatchGrantEventsRequest {
            after_cursor,
            from_head,
        };
        Ok(self
            .tokens()
            .watch_grant_events(request)
            .await?
            .into_inner())
    }

    /// A page of all grants.
    pub(crate) async fn list_grants(
        &self,
        page_token: String,
    ) -> Result<ListGrantsResponse, CallError> {
        let request = ListGrantsRequest {
            page_size: 1000,
            page_token,
            ..ListGrantsRequest::default()
        };
        Ok(self.tokens().list_grants(request).await?.into_inner())
    }

    /// The key for what is the broker's own; version 0 is the current one.
    pub(crate) async fn service_key(
        &self,
        tenant: TenantKey,
        version: i32,
    ) -> Result<GetServiceKeyResponse, Error> {
        let request = GetServiceKeyRequest {
            tenant_id: tenant.to_string(),
            key_version: version,
        };
        let mut client = ServiceKeyServiceClient::new(self.0.clone());
        Ok(client
            .get_service_key(request)
            .await
            .map_err(failed)?
            .into_inner())
    }
}

fn failed(status: impl Into<CallError>) -> Error {
    Error::Vault(status.into())
}

fn grant(grant: Option<Grant>) -> Result<Grant, Error> {
    grant.ok_or_else(incomplete)
}

/// An answer without what the contract promises.
fn incomplete() -> Error {
    Error::Vault(CallError::incomplete("the token vault"))
}

/// How long a tenant's name is kept.
const TENANT_CACHED_FOR: Duration = Duration::from_secs(30);
const MOST_TENANTS: usize = 10_000;

/// The directory, whose tenants are kept for a moment.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    channel: Channel,
    deps: Deps,
    tenants: Arc<Mutex<HashMap<TenantKey, (Duration, Tenant)>>>,
}

impl Directory {
    pub(crate) fn new(channel: Channel, deps: &Deps) -> Self {
        Self {
            channel,
            deps: deps.clone(),
            tenants: Arc::default(),
        }
    }

    /// The tenant; `None` where there is none.
    pub(crate) async fn tenant(&self, tenant: TenantKey) -> Result<Option<Tenant>, Error> {
        let now = self.deps.clock.boottime();
        if let Some((until, found)) = self
            .tenants
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&tenant)
            && *until > now
        {
            return Ok(Some(found.clone()));
        }
        let request = GetTenantRequest {
            tenant_id: tenant.to_string(),
        };
        let answer = DirectoryServiceClient::new(self.channel.clone())
            .get_tenant(request)
            .await;
        let found = match answer.map_err(CallError::from) {
            Ok(answer) => answer.into_inner().tenant,
            Err(error) if error.code == Code::NotFound => None,
            Err(error) => return Err(Error::Directory(error)),
        };
        if let Some(found) = &found {
            let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
            if tenants.len() >= MOST_TENANTS {
                tenants.clear();
            }
            tenants.insert(tenant, (now + TENANT_CACHED_FOR, found.clone()));
        }
        Ok(found)
    }

    /// The user's e-mail, as far as the directory knows the user.
    pub(crate) async fn email(&self, tenant: TenantKey, user_id: &str) -> Result<String, Error> {
        let request = GetUserRequest {
            tenant_id: tenant.to_string(),
            user_id: user_id.to_owned(),
        };
        let answer = DirectoryServiceClient::new(self.channel.clone())
            .get_user(request)
            .await;
        match answer.map_err(CallError::from) {
            Ok(answer) => Ok(answer
                .into_inner()
                .user
                .map(|user| user.email)
                .unwrap_or_default()),
            Err(error) if error.code == Code::NotFound => Ok(String::new()),
            Err(error) => Err(Error::Directory(error)),
        }
    }
}

/// A secret on its way into a request that cannot hold it otherwise.
pub(crate) fn reveal(secret: &Secret<String>) -> String {
    secret.expose().clone()
}

/// A connection's parameters as requests have them.
pub(crate) fn map(parameters: &BTreeMap<String, String>) -> HashMap<String, String> {
    parameters
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
