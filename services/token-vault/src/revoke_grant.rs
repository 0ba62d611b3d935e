//! The end of a grant: nothing is handed out any more, the provider is told, the secrets are destroyed.

use std::time::Duration;

use common::Secret;
use common::identity::Actor;
use common::problem::Chain;
use oauth_client::{Class, Failure, RevocationEndpoint, TokenTypeHint};
use provider_catalog::RevocableToken;

use crate::error::Error;
use crate::failpoint;
use crate::grant::{Grant, GrantKey, State};
use crate::keys::KeysError;
use crate::providers::{Resolved, is_client_refused};
use crate::refresh_grant::new_tokens::origin;
use crate::secrets::{self, Credential, RefreshToken, RevocableTokens};
use crate::store::{Attribution, Revocation, RevokeOutcome};
use crate::vault::Vault;

/// What became of tokens at their provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Revoked {
    /// The provider knows them no more.
    AtProvider,
    /// It has no endpoint for that, or cannot be asked; they are destroyed here.
    HereAlone,
    /// It is tried again, not before the provider wants it.
    Later(Option<Duration>),
}

const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_hours(1);
/// No provider's word puts a revocation off for longer than this.
const LONGEST_TOLD: Duration = Duration::from_hours(6);

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
        self.revoke_by(key, at_provider, false, &by).await
    }

    /// Ends a grant that nobody has confirmed in time; whoever confirms it at the last moment keeps it.
    pub(crate) async fn revoke_unconfirmed(
        &self,
        key: GrantKey,
        actor: &Actor,
    ) -> Result<bool, Error> {
        let by = Attribution {
            actor: actor.clone(),
            action: "TokenVaultService/RevokeGrant",
            reason: "not confirmed in time".to_owned(),
        };
        self.revoke_by(key, true, true, &by).await
    }

    async fn revoke_by(
        &self,
        key: GrantKey,
        at_provider: bool,
        if_unconfirmed: bool,
        by: &Attribution,
    ) -> Result<bool, Error> {
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
                .grant_revoke(key, grant.version, revocation.as_ref(), if_unconfirmed, by)
                .await?
            {
                RevokeOutcome::Changed => {}
                RevokeOutcome::Kept => return Ok(false),
                RevokeOutcome::NotFound => return Err(Error::GrantNotFound),
                RevokeOutcome::Revoked => {
                    failpoint::reach("revoke_recorded", key.id);
                    self.statistics.count(key.tenant, "grants_revoked", &[]);
                    tracing::info!(event = "grant_revoked", tenant.id = %key.tenant, grant.id = %key.id, reason = by.reason, "a grant was revoked");
                    let Some(revocation) = revocation else {
                        return Ok(false);
                    };
                    return Ok(self.revoke_at_provider(&revocation).await? == Revoked::AtProvider);
                }
            }
        }
    }

    /// Tries once to tell the provider; what is left to do stands on the list.
    pub(crate) async fn revoke_at_provider(
        &self,
        revocation: &Revocation,
    ) -> Result<Revoked, Error> {
        let outcome = match Box::pin(self.revoke_once(revocation)).await {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::warn!(
                    event = "revocation_failed",
                    tenant.id = %revocation.tenant,
                    grant.id = %revocation.grant_id,
                    error = %Chain(&error),
                    "a provider could not be told of a revocation"
                );
                Revoked::Later(None)
            }
        };
        failpoint::reach("revoke_told", revocation.grant_id);
        if let Revoked::Later(told) = outcome
            && !revocation.is_last
        {
            let pause = self.backoff(revocation.attempts, FIRST_PAUSE, LONGEST_PAUSE);
            let pause = pause.max(told.unwrap_or_default().min(LONGEST_TOLD));
            self.store.revocation_delay(revocation, pause).await?;
            return Ok(outcome);
        }
        self.store.revocation_end(revocation).await?;
        failpoint::reach("revoke_ended", revocation.grant_id);
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
                Err(failure) if is_passing(&failure) => {
                    return Ok(Revoked::Later(failure.retry_after));
                }
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
        let hint = resolved.revocation.token_type_hint.then_some(hint);
        let mut told = Ok(());
        for client in resolved.clients() {
            let endpoint = RevocationEndpoint {
                url,
                client,
                dialect: &resolved.dialect,
                habits: &resolved.revocation,
            };
            let call = endpoint
                .call(token, hint, &self.deps)
                .map_err(|_| Failure::new(Class::Configuration))?;
            told = call.send(&self.providers.egress, &self.deps).await;
            if !told.as_ref().is_err_and(is_client_refused) {
                break;
            }
        }
        told
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
    let of = |kind: &RevocableToken| -> Vec<_> {
        let (tokens, hint) = match kind {
            RevocableToken::RefreshToken => (
                tokens.refresh_token.iter().collect::<Vec<_>>(),
                TokenTypeHint::RefreshToken,
            ),
            RevocableToken::AccessToken => (
                tokens.access_token.iter().chain(&tokens.others).collect(),
                TokenTypeHint::AccessToken,
            ),
        };
        let secrets = tokens.into_iter().cloned().map(Secret::new);
        secrets.map(|token| (token, hint)).collect()
    };
    let named: Vec<_> = resolved.revocation.tokens.iter().flat_map(of).collect();
    // A grant without a refresh token still has its access tokens.
    if named.is_empty() {
        of(&RevocableToken::AccessToken)
    } else {
        named
    }
}

/// A client that is refused may be put right within the day that the tokens are kept.
fn is_passing(failure: &Failure) -> bool {
    is_client_refused(failure)
        || matches!(
            failure.class,
            Class::Transient | Class::Ambiguous | Class::RateLimited { .. } | Class::ProviderBug
        )
}
