//! The end of a grant: nothing is handed out any more, the provider is told, the secrets are destroyed.

use std::time::Duration;

use common::Secret;
use common::identity::Actor;
use common::problem::Chain;
use oauth_client::{Class, Failure, RevocationEndpoint, TokenTypeHint};
use provider_catalog::RevocableToken;

use crate::error::Error;
use crate::grant::{Grant, GrantKey, State};
use crate::keys::KeysError;
use crate::providers::Resolved;
use crate::refresh_grant::new_tokens::origin;
use crate::secrets::{self, Credential, RefreshToken, RevocableTokens};
use crate::store::{Attribution, Revocation};
use crate::vault::Vault;

/// What became of tokens at their provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Revoked {
    /// The provider knows them no more.
    AtProvider,
    /// It has no endpoint for that, or cannot be asked; they are destroyed here.
    HereAlone,
    /// It is tried again.
    Later,
}

const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

impl Vault {
    /// Ends the grant; whether the provider confirmed it.
    pub(crate) async fn revoke_grant(
        &self,
        key: GrantKey,
        at_provider: bool,
        actor: &Actor,
        reason: &str,
    ) -> Result<bool, Error> {
        let by = Attribution {
            actor: actor.clone(),
            action: "TokenVaultService/RevokeGrant",
            reason: reason.to_owned(),
        };
        loop {
            let grant = self
                .store
                .grant_get(key)
                .await?
                .filter(Grant::is_visible)
                .ok_or(Error::GrantNotFound)?;
            if matches!(grant.state, State::Revoking | State::Revoked) {
                return Ok(false);
            }
            let revocation = if at_provider {
                self.revocation_of(&grant).await?
            } else {
                None
            };
            match self
                .store
                .grant_revoke(key, grant.version, revocation.as_ref(), &by)
                .await?
            {
                // It got new tokens in between.
                Some(false) => {}
                Some(true) => {
                    self.statistics.count(key.tenant, "grants_revoked", &[]);
                    tracing::info!(event = "grant_revoked", tenant.id = %key.tenant, grant.id = %key.id, reason, "a grant was revoked");
                    let Some(revocation) = revocation else {
                        return Ok(false);
                    };
                    return Ok(self.revoke_at_provider(&revocation).await? == Revoked::AtProvider);
                }
                None => return Err(Error::GrantNotFound),
            }
        }
    }

    /// Tries once to tell the provider; what is left to do stands on the list.
    pub(crate) async fn revoke_at_provider(
        &self,
        revocation: &Revocation,
    ) -> Result<Revoked, Error> {
        let outcome = match self.revoke_once(revocation).await {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::warn!(
                    event = "revocation_failed",
                    tenant.id = %revocation.tenant,
                    grant.id = %revocation.grant_id,
                    error = %Chain(&error),
                    "a provider could not be told of a revocation"
                );
                Revoked::Later
            }
        };
        if outcome == Revoked::Later && revocation.read_at < revocation.give_up_at {
            let pause = self.backoff(revocation.attempts, FIRST_PAUSE, LONGEST_PAUSE);
            self.store
                .revocation_delay(revocation, revocation.read_at + pause)
                .await?;
            return Ok(Revoked::Later);
        }
        self.store.revocation_end(revocation).await?;
        Ok(outcome)
    }

    async fn revoke_once(&self, revocation: &Revocation) -> Result<Revoked, Error> {
        let Some(client) = self.store.oauth_client_get(revocation.client).await? else {
            return Ok(Revoked::HereAlone);
        };
        let resolved = match self
            .providers
            .resolve(&client, &revocation.parameters, false)
            .await
        {
            Ok(resolved) => resolved,
            Err(error) if error.is_transient() => return Err(error.into()),
            Err(_) => return Ok(Revoked::HereAlone),
        };
        let place = secrets::revocation_place(revocation.tenant, revocation.id);
        let tokens: RevocableTokens = secrets::open(&self.keys, &place, &revocation.tokens).await?;
        let url = resolved
            .revocation_url
            .as_ref()
            .filter(|url| tokens.revocation_origin.as_ref() == Some(&origin(url)));
        if url.is_none() {
            return Ok(Revoked::HereAlone);
        }
        for (token, hint) in wanted(&resolved, &tokens) {
            match self.tell(&resolved, &token, hint).await {
                Ok(()) => {}
                Err(failure) if is_passing(&failure) => return Ok(Revoked::Later),
                Err(failure) => {
                    tracing::warn!(
                        event = "revocation_refused",
                        tenant.id = %revocation.tenant,
                        grant.id = %revocation.grant_id,
                        error = %Chain(&failure),
                        "a provider does not take a revocation"
                    );
                    return Ok(Revoked::HereAlone);
                }
            }
        }
        Ok(Revoked::AtProvider)
    }

    async fn tell(
        &self,
        resolved: &Resolved,
        token: &Secret<String>,
        hint: TokenTypeHint,
    ) -> Result<(), Failure> {
        let Some(url) = &resolved.revocation_url else {
            return Ok(());
        };
        let endpoint = RevocationEndpoint {
            url,
            client: resolved.client(),
            dialect: &resolved.dialect,
        };
        let hint = resolved.revocation.token_type_hint.then_some(hint);
        let call = endpoint
            .call(token, hint, &self.deps)
            .map_err(|_| Failure::new(Class::Configuration))?;
        call.send(&self.providers.egress, &self.deps).await
    }

    /// The grant's tokens, sealed for the list; `None` where there is nobody who could revoke them.
    async fn revocation_of(&self, grant: &Grant) -> Result<Option<Revocation>, KeysError> {
        let (Some(client), Some(sealed)) = (grant.client, &grant.credential) else {
            return Ok(None);
        };
        let key = grant.key;
        let credential: Credential = secrets::open(
            &self.keys,
            &secrets::credential_place(key, grant.version),
            sealed,
        )
        .await?;
        let refresh_token: Option<RefreshToken> = match &grant.refresh_token {
            Some(sealed) => Some(
                secrets::open(
                    &self.keys,
                    &secrets::refresh_token_place(key, grant.version),
                    sealed,
                )
                .await?,
            ),
            None => None,
        };
        let tokens = RevocableTokens::of(refresh_token.as_ref(), Some(&credential));
        Ok(Some(
            self.revocation(key, client, grant.parameters.clone(), &tokens)
                .await?,
        ))
    }
}

/// The tokens that the provider wants to be told of, in its order.
fn wanted(resolved: &Resolved, tokens: &RevocableTokens) -> Vec<(Secret<String>, TokenTypeHint)> {
    let of = |kind: &RevocableToken| match kind {
        RevocableToken::RefreshToken => tokens
            .refresh_token
            .clone()
            .map(|token| (token, TokenTypeHint::RefreshToken)),
        RevocableToken::AccessToken => tokens
            .access_token
            .clone()
            .map(|token| (token, TokenTypeHint::AccessToken)),
    };
    let named: Vec<_> = resolved.revocation.tokens.iter().filter_map(of).collect();
    // A grant without a refresh token still has its access token.
    let all = if named.is_empty() {
        of(&RevocableToken::AccessToken).into_iter().collect()
    } else {
        named
    };
    all.into_iter()
        .map(|(token, hint)| (Secret::new(token), hint))
        .collect()
}

fn is_passing(failure: &Failure) -> bool {
    matches!(
        failure.class,
        Class::Transient | Class::Ambiguous | Class::RateLimited { .. } | Class::ProviderBug
    )
}
