//! All that is needed for one call to a provider's API.

use common::Problem;
use common::TenantKey;
use common::identity::Caller;
use contracts::broker::v1::{
    BatchGetRequestContextsRequest, BatchGetRequestContextsResponse, GetRequestContextRequest,
    GetRequestContextResponse, RequestContextResult, TestConnectionResponse,
    request_context_result,
};
use contracts::vault::v1::credential_result;
use uuid::Uuid;

use crate::api::encode;
use crate::broker::Broker;
use crate::connection::{Account, Connection};
use crate::credential::Credential;
use crate::error::{Error, ProviderError};
use crate::provider_api::ProviderApi;
use crate::store::accounts::{account_active, account_list_now};
use crate::store::connections::connection_batch;

impl Broker {
    /// One connection's. The access is recorded by the vault before it answers.
    pub(crate) async fn request_context(
        &self,
        caller: &Caller,
        tenant: TenantKey,
        connection_id: Uuid,
        request: GetRequestContextRequest,
    ) -> Result<GetRequestContextResponse, Error> {
        let found = self.connection_of(caller, tenant, connection_id).await?;
        found.check_usable()?;
        let account = self
            .account_for(&found, &request.external_account_id)
            .await?;
        let grant_id = found.grant.grant_id;
        if request.refused_credential_version > 0 {
            self.vault
                .refresh(tenant, grant_id, request.refused_credential_version)
                .await?;
        }
        let credential = self
            .vault
            .credential(tenant, grant_id, request.min_validity, &request.purpose)
            .await?;
        self.context(&found, account.as_ref(), &credential).await
    }

    /// Many of one tenant's, each with its own outcome.
    pub(crate) async fn request_contexts(
        &self,
        caller: &Caller,
        tenant: TenantKey,
        connection_ids: &[Uuid],
        request: &BatchGetRequestContextsRequest,
    ) -> Result<BatchGetRequestContextsResponse, Error> {
        let mut found = connection_batch(&self.db, tenant, connection_ids).await?;
        found.retain(|found| caller.own_user().is_none_or(|user| user == found.user_id));
        let active = account_active(&self.db, tenant, connection_ids).await?;
        let usable: Vec<_> = found
            .iter()
            .filter(|found| found.check_usable().is_ok())
            .collect();
        let grant_ids = usable
            .iter()
            .map(|found| found.grant.grant_id.to_string())
            .collect();
        let credentials = if usable.is_empty() {
            Vec::new()
        } else {
            self.vault
                .credentials(tenant, grant_ids, &request.purpose)
                .await?
        };
        let mut credentials: std::collections::HashMap<_, _> = usable
            .iter()
            .map(|found| found.connection_id)
            .zip(credentials)
            .collect();
        let mut results = Vec::with_capacity(connection_ids.len());
        for id in connection_ids {
            let account = active
                .iter()
                .find(|(of, _)| of == id)
                .map(|(_, account)| account);
            let outcome = match found.iter().find(|found| found.connection_id == *id) {
                None => {
                    Err(Problem::from(Error::NotFound("connection"))
                        .into_item_error(id.to_string()))
                }
                Some(connection) => {
                    match credentials.get(id).and_then(|result| result.result.clone()) {
                        Some(credential_result::Result::Credential(credential)) => {
                            match Credential::of(credential) {
                                Some(credential) => {
                                    self.context(connection, account, &credential).await
                                }
                                None => Err(Error::NotFound("credential")),
                            }
                            .map_err(|error| Problem::from(error).into_item_error(id.to_string()))
                        }
                        Some(credential_result::Result::Error(mut error)) => {
                            error.id = id.to_string();
                            Err(error)
                        }
                        None => {
                            let error = connection
                                .check_usable()
                                .err()
                                .unwrap_or(Error::NotFound("credential"));
                            Err(Problem::from(error).into_item_error(id.to_string()))
                        }
                    }
                }
            };
            let result = match outcome {
                Ok(context) => request_context_result::Result::Context(context),
                Err(error) => request_context_result::Result::Error(error),
            };
            results.push(RequestContextResult {
                result: Some(result),
            });
        }
        credentials.clear();
        Ok(BatchGetRequestContextsResponse { results })
    }

    /// Calls the provider once.
    pub(crate) async fn test_connection(
        &self,
        caller: &Caller,
        tenant: TenantKey,
        connection_id: Uuid,
    ) -> Result<TestConnectionResponse, Error> {
        let found = self.connection_of(caller, tenant, connection_id).await?;
        found.check_usable()?;
        let account = self.account_for(&found, "").await?;
        let integration = self
            .integration_of(found.integration_tenant, &found.integration_id)
            .await?;
        let resolved = integration.resolve()?;
        let credential = self
            .vault
            .credential(tenant, found.grant.grant_id, None, "test of the connection")
            .await?;
        let api = ProviderApi {
            egress: &self.egress,
            resolved: &resolved,
            parameters: &found.parameters,
        };
        let account = account
            .as_ref()
            .map(|account| account.external_account_id.as_str());
        let status = api.verify(account, &credential).await?;
        let (accepted, message) = match status {
            None => (
                false,
                "the catalogue knows of no harmless call to try it with".to_owned(),
            ),
            Some(status @ 200..=299) => (true, format!("the provider answers with HTTP {status}")),
            Some(status) => (false, format!("the provider answers with HTTP {status}")),
        };
        Ok(TestConnectionResponse {
            accepted,
            http_status: status.map_or(0, i32::from),
            message,
        })
    }

    /// The account that a call is about: the one asked for, else the active one.
    async fn account_for(&self, found: &Connection, asked: &str) -> Result<Option<Account>, Error> {
        let accounts = account_list_now(&self.db, found.tenant, found.connection_id).await?;
        if asked.is_empty() {
            return Ok(accounts.into_iter().find(|account| account.active));
        }
        let account = accounts.into_iter().find(|account| {
            account.external_account_id == asked && account.disconnected_at.is_none()
        });
        account.map(Some).ok_or(Error::NotFound("account"))
    }

    async fn context(
        &self,
        found: &Connection,
        account: Option<&Account>,
        credential: &Credential,
    ) -> Result<GetRequestContextResponse, Error> {
        let integration = self
            .integration_of(found.integration_tenant, &found.integration_id)
            .await?;
        let resolved = integration.resolve()?;
        let base_url = match &resolved.provider().api.base_url {
            Some(template) => {
                let url = resolved
                    .url(template, &found.parameters)
                    .map_err(ProviderError::from)?;
                url.as_str().trim_end_matches('/').to_owned()
            }
            None => String::new(),
        };
        let account_id = account.map(|account| account.external_account_id.as_str());
        let carried = credential
            .carried(&resolved, account_id, &found.parameters)
            .map_err(ProviderError::from)?;
        Ok(GetRequestContextResponse {
            base_url,
            headers: carried.headers.into_iter().collect(),
            account: account.map(encode::account),
            expires_at: credential.expires_at.map(encode::timestamp),
            credential_version: credential.version,
            access_token: credential
                .bare()
                .map(|secret| secret.expose().clone())
                .unwrap_or_default(),
            query_params: carried.query.into_iter().collect(),
        })
    }
}
