//! The credentials that are put in, and what has to come out for each.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use common::{Deps, TenantKey};
use contracts::vault::v1::token_vault_service_client::TokenVaultServiceClient;
use contracts::vault::v1::{
    AccessToken, Credential, GetCredentialRequest, GetCredentialResponse, OAuth2Tokens,
    PutCredentialRequest, credential, put_credential_request,
};
use prost_types::Timestamp;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use uuid::Uuid;

/// A grant, and whose it is.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) tenant: TenantKey,
    pub(crate) id: Uuid,
}

/// Where the grants' refresh tokens are traded; without one there are none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    pub(crate) id: Uuid,
}

/// As long as many a provider's.
const TOKEN_LENGTH: usize = 256;
/// Far beyond the run.
const EXPIRES_AT: i64 = 4_102_444_800;
const TOKEN_TYPE: &str = "Bearer";
const SCOPES: [&str; 2] = ["records.read", "records.write"];
const PUTTERS: usize = 64;
/// A call that takes longer has been forgotten.
const PATIENCE: Duration = Duration::from_mins(1);

/// The token that belongs to this grant and no other.
fn token(grant_id: &str) -> String {
    let mut token = String::with_capacity(TOKEN_LENGTH + grant_id.len());
    while token.len() < TOKEN_LENGTH {
        token.push_str(grant_id);
    }
    token.truncate(TOKEN_LENGTH);
    token
}

/// What the vault answers for a grant of ours.
pub(crate) fn expected_answer(grant_id: &str) -> GetCredentialResponse {
    GetCredentialResponse {
        credential: Some(Credential {
            grant_id: grant_id.to_owned(),
            version: 1,
            secret: Some(credential::Secret::AccessToken(AccessToken {
                value: token(grant_id),
                token_type: TOKEN_TYPE.to_owned(),
                expires_at: Some(expires_at()),
                scopes: SCOPES.map(str::to_owned).to_vec(),
            })),
        }),
    }
}

fn expires_at() -> Timestamp {
    Timestamp {
        seconds: EXPIRES_AT,
        nanos: 0,
    }
}

impl Grant {
    /// New ids, nothing more.
    pub(crate) fn new(tenant: TenantKey, deps: &Deps) -> Self {
        Self {
            tenant,
            id: tenant.new_id(deps),
        }
    }

    pub(crate) fn request(&self) -> GetCredentialRequest {
        GetCredentialRequest {
            tenant_id: self.tenant.to_string(),
            grant_id: self.id.to_string(),
            purpose: "sync job 0190f3a1-7c42-7e5b-9d10-3f6a2b8c0042".to_owned(),
            ..GetCredentialRequest::default()
        }
    }

    /// Fetches the credential, and makes sure that it is the grant's own.
    pub(crate) async fn get(&self, vault: &mut TokenVaultServiceClient<Channel>) -> Result<()> {
        let request = self.request();
        let grant_id = request.grant_id.clone();
        let answered = tokio::time::timeout(PATIENCE, vault.get_credential(request)).await;
        let answer = match answered {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => bail!("{grant_id} cannot be read: {status}"),
            Err(_) => bail!("{grant_id} is not answered"),
        };
        ensure!(
            answer == expected_answer(&grant_id),
            "the answer for {grant_id} is not its credential"
        );
        Ok(())
    }

    async fn put(
        &self,
        vault: &mut TokenVaultServiceClient<Channel>,
        client: Option<Client>,
    ) -> Result<()> {
        let grant_id = self.id.to_string();
        let tokens = OAuth2Tokens {
            access_token: token(&grant_id),
            refresh_token: client
                .map(|_| format!("refresh {grant_id}"))
                .unwrap_or_default(),
            token_type: TOKEN_TYPE.to_owned(),
            expires_at: Some(expires_at()),
            scopes: SCOPES.map(str::to_owned).to_vec(),
            raw_json: String::new(),
        };
        let request = PutCredentialRequest {
            tenant_id: self.tenant.to_string(),
            grant_id,
            oauth_client_id: client
                .map(|client| client.id.to_string())
                .unwrap_or_default(),
            oauth_client_tenant_id: client
                .map(|_| TenantKey::PLATFORM.to_string())
                .unwrap_or_default(),
            credential: Some(put_credential_request::Credential::Oauth2(tokens)),
            ..PutCredentialRequest::default()
        };
        vault.put_credential(request).await?;
        Ok(())
    }
}

/// Grants of so many tenants, dealt out evenly.
pub(crate) fn grants(count: usize, tenants: usize, deps: &Deps) -> Vec<Grant> {
    let tenants: Vec<_> = (0..tenants.min(count))
        .map(|_| TenantKey::new_tenant(deps))
        .collect();
    tenants
        .iter()
        .cycle()
        .take(count)
        .map(|tenant| Grant::new(*tenant, deps))
        .collect()
}

/// Has the vault seal them all, through the same door as in production.
pub(crate) async fn put_all(
    grants: &[Grant],
    client: Option<Client>,
    channels: &[Channel],
) -> Result<()> {
    let mut putters = JoinSet::new();
    for (number, channel) in (0..PUTTERS).zip(channels.iter().cycle()) {
        let mine: Vec<Grant> = grants
            .iter()
            .skip(number)
            .step_by(PUTTERS)
            .cloned()
            .collect();
        let mut vault = TokenVaultServiceClient::new(channel.clone());
        putters.spawn(async move {
            for grant in mine {
                grant.put(&mut vault, client).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(putter) = putters.join_next().await {
        putter??;
    }
    Ok(())
}
