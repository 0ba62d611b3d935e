//! Grants that come about without a code.

use super::{Grant, GrantError, Grants, Issued};
use crate::config::{ProviderConfig, RefreshTokens};

impl Grants {
    /// A user's consent on another device, with the refresh token that a code would have brought.
    pub(crate) fn consented(
        &mut self,
        provider: &ProviderConfig,
        client_id: &str,
        user: &str,
        scope: Vec<String>,
        now: i64,
    ) -> Issued {
        self.next_grant += 1;
        let grant = self.next_grant;
        self.by_id.insert(
            grant,
            Grant {
                provider: provider.slug.clone(),
                client_id: client_id.to_owned(),
                user: user.to_owned(),
                scope: scope.clone(),
                created_ms: now,
                generation: 0,
                revoked: None,
            },
        );
        let is_refreshable = match provider.refresh_tokens {
            RefreshTokens::Always => true,
            RefreshTokens::OfflineAccess => scope.iter().any(|scope| scope == "offline_access"),
            RefreshTokens::Never => false,
        };
        let refresh_token = is_refreshable.then(|| self.issue_refresh(provider, grant, now));
        self.issue_access(provider, grant, scope, refresh_token, now)
    }

    /// Another access token for one that is still good.
    pub(crate) fn traded(
        &mut self,
        provider: &ProviderConfig,
        client_id: &str,
        token: &str,
        now: i64,
    ) -> Result<Issued, GrantError> {
        let known = self.access.get(token).ok_or(GrantError::Unknown)?;
        if known.revoked {
            return Err(GrantError::Revoked);
        }
        if now >= known.expires_ms {
            return Err(GrantError::Expired);
        }
        let (id, scope) = (known.grant, known.scope.clone());
        let grant = self
            .by_id
            .get(&id)
            .filter(|grant| grant.provider == provider.slug)
            .ok_or(GrantError::Unknown)?;
        if grant.client_id != client_id {
            return Err(GrantError::OtherClient);
        }
        if grant.revoked.is_some() {
            return Err(GrantError::Revoked);
        }
        Ok(self.issue_access(provider, id, scope, None, now))
    }
}
