//! Grants and the tokens that belong to them: a state machine without HTTP.
//!
//! A grant is one user's consent to one client. Its refresh tokens are a family: what is done to one can end all of them.
//! Times are milliseconds since 1970 by the simulator's clock.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::pkce;
use crate::config::{ProviderConfig, RefreshTokens, Replay, Rotation};
use crate::random;

/// Generations of used refresh tokens that are remembered, so that using one again is told from a token that never was.
const REMEMBERED_GENERATIONS: u64 = 64;

/// One consent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Grant {
    pub(crate) provider: String,
    pub(crate) client_id: String,
    pub(crate) user: String,
    pub(crate) scope: Vec<String>,
    pub(crate) created_ms: i64,
    /// How often the refresh token was rotated.
    pub(crate) generation: u64,
    pub(crate) revoked: Option<RevokeCause>,
}

/// Why a grant ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokeCause {
    /// The client revoked a token.
    Client,
    /// A code was exchanged twice (RFC 6749, section 4.1.2).
    CodeReuse,
    /// A used refresh token was used again (RFC 9700, section 4.14.2).
    RefreshReuse,
    /// It was asked for through the control API.
    Control,
}

/// An authorization code and what it is bound to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Code {
    pub(crate) provider: String,
    pub(crate) client_id: String,
    pub(crate) user: String,
    pub(crate) redirect_uri: String,
    pub(crate) challenge: Option<String>,
    pub(crate) nonce: Option<String>,
    pub(crate) scope: Vec<String>,
    pub(crate) issued_ms: i64,
    /// The grant that came of it; set by the first exchange, whether it worked or not.
    pub(crate) exchanged: Option<Exchange>,
}

/// What became of a code.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Exchange {
    Refused,
    Granted(u64),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct AccessToken {
    grant: u64,
    scope: Vec<String>,
    expires_ms: i64,
    revoked: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct RefreshToken {
    grant: u64,
    generation: u64,
    expires_ms: Option<i64>,
    used: Option<Use>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Use {
    first_ms: i64,
    answer: Issued,
}

/// Tokens as they were issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Issued {
    pub(crate) grant: u64,
    pub(crate) access_token: String,
    pub(crate) refresh_token: Option<String>,
    pub(crate) scope: Vec<String>,
    pub(crate) expires_ms: i64,
}

/// A code that was exchanged for tokens.
#[derive(Debug)]
pub(crate) struct Exchanged {
    pub(crate) issued: Issued,
    pub(crate) nonce: Option<String>,
}

/// A refresh token that was answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refreshed {
    /// Used for the first time, or not one that rotates.
    Fresh(Issued),
    /// Used again within the window.
    Replayed(Issued),
}

/// Why there are no tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GrantError {
    #[error("it was never issued")]
    Unknown,
    #[error("it was issued to another client")]
    OtherClient,
    #[error("it has expired")]
    Expired,
    #[error("it was revoked")]
    Revoked,
    #[error("it was used before, and all tokens of its grant are revoked now")]
    Reused(u64),
    #[error("redirect_uri is not the one of the authorization request")]
    RedirectUri,
    #[error("code_verifier is missing, not wanted, or does not fit the challenge")]
    Verifier,
    #[error("the scope is wider than what was granted")]
    Scope,
}

/// An access token that is good.
#[derive(Clone, Debug)]
pub(crate) struct Bearer {
    pub(crate) user: String,
    pub(crate) scope: Vec<String>,
}

/// All grants, codes and tokens.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Grants {
    next_grant: u64,
    by_id: BTreeMap<u64, Grant>,
    codes: HashMap<String, Code>,
    access: HashMap<String, AccessToken>,
    refresh: HashMap<String, RefreshToken>,
    /// Access tokens are swept of expired ones when there are this many.
    sweep_at: usize,
    sweep_codes_at: usize,
}

/// What a client sends to exchange a code (RFC 6749, section 4.1.3; RFC 7636, section 4.5).
#[derive(Debug)]
pub(crate) struct CodeRequest<'a> {
    pub(crate) code: &'a str,
    pub(crate) client_id: &'a str,
    pub(crate) redirect_uri: Option<&'a str>,
    pub(crate) verifier: Option<&'a str>,
}

/// What a client sends to refresh (RFC 6749, section 6).
#[derive(Debug)]
pub(crate) struct RefreshRequest<'a> {
    pub(crate) refresh_token: &'a str,
    pub(crate) client_id: &'a str,
    pub(crate) scope: Option<Vec<String>>,
}

impl Grants {
    /// Issues a code. Codes of the last hour are remembered, so that exchanging one twice is noticed.
    pub(crate) fn issue_code(&mut self, code: Code) -> String {
        if self.codes.len() >= self.sweep_codes_at {
            let oldest = code.issued_ms - 3_600_000;
            self.codes.retain(|_, code| code.issued_ms > oldest);
            self.sweep_codes_at = 1024.max(self.codes.len() * 2);
        }
        let text = random::token("sim_ac_");
        self.codes.insert(text.clone(), code);
        text
    }

    /// Exchanges a code, once. A second time revokes what the first one gave.
    ///
    /// A code whose exchange was refused is spent as well: whoever guesses at the verifier has one guess.
    pub(crate) fn exchange(
        &mut self,
        provider: &ProviderConfig,
        request: &CodeRequest<'_>,
        now: i64,
    ) -> Result<Exchanged, GrantError> {
        let code = self
            .codes
            .get_mut(request.code)
            .filter(|code| code.provider == provider.slug)
            .ok_or(GrantError::Unknown)?;
        if code.client_id != request.client_id {
            return Err(GrantError::OtherClient);
        }
        match code.exchanged {
            Some(Exchange::Granted(grant)) => {
                self.revoke(grant, RevokeCause::CodeReuse);
                return Err(GrantError::Reused(grant));
            }
            Some(Exchange::Refused) => return Err(GrantError::Revoked),
            None => code.exchanged = Some(Exchange::Refused),
        }
        if now >= code.issued_ms + seconds(provider.code_lifetime_seconds) {
            return Err(GrantError::Expired);
        }
        if request.redirect_uri != Some(code.redirect_uri.as_str()) {
            return Err(GrantError::RedirectUri);
        }
        if !pkce::verifier_fits(code.challenge.as_deref(), request.verifier) {
            return Err(GrantError::Verifier);
        }
        self.next_grant += 1;
        let grant = self.next_grant;
        code.exchanged = Some(Exchange::Granted(grant));
        let nonce = code.nonce.clone();
        let (client_id, user, scope) = (
            code.client_id.clone(),
            code.user.clone(),
            code.scope.clone(),
        );
        self.by_id.insert(
            grant,
            Grant {
                provider: provider.slug.clone(),
                client_id,
                user,
                scope: scope.clone(),
                created_ms: now,
                generation: 0,
                revoked: None,
            },
        );
        let refreshable = match provider.refresh_tokens {
            RefreshTokens::Always => true,
            RefreshTokens::OfflineAccess => scope.iter().any(|scope| scope == "offline_access"),
            RefreshTokens::Never => false,
        };
        let refresh_token = refreshable.then(|| self.issue_refresh(provider, grant, now));
        let issued = self.issue_access(provider, grant, scope, refresh_token, now);
        Ok(Exchanged { issued, nonce })
    }

    /// Issues an access token for a client itself (RFC 6749, section 4.4).
    pub(crate) fn client_credentials(
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
        self.issue_access(provider, grant, scope, None, now)
    }

    /// A user's consent that nobody had to click for, with its tokens.
    pub(crate) fn grant_at_once(
        &mut self,
        provider: &ProviderConfig,
        client_id: &str,
        user: &str,
        now: i64,
    ) -> Issued {
        self.next_grant += 1;
        let grant = self.next_grant;
        let scope = provider.scopes.clone();
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
        let refresh_token = self.issue_refresh(provider, grant, now);
        self.issue_access(provider, grant, scope, Some(refresh_token), now)
    }

    /// Answers a refresh token as the provider's rotation has it.
    pub(crate) fn refresh(
        &mut self,
        provider: &ProviderConfig,
        request: &RefreshRequest<'_>,
        now: i64,
    ) -> Result<Refreshed, GrantError> {
        let token = self
            .refresh
            .get(request.refresh_token)
            .ok_or(GrantError::Unknown)?;
        let id = token.grant;
        let grant = self
            .by_id
            .get(&id)
            .filter(|grant| grant.provider == provider.slug)
            .ok_or(GrantError::Unknown)?;
        if grant.client_id != request.client_id {
            return Err(GrantError::OtherClient);
        }
        if grant.revoked.is_some() {
            return Err(GrantError::Revoked);
        }
        if token.expires_ms.is_some_and(|expires| now >= expires) {
            return Err(GrantError::Expired);
        }
        let scope = request.scope.clone().unwrap_or_else(|| grant.scope.clone());
        if !scope.iter().all(|scope| grant.scope.contains(scope)) {
            return Err(GrantError::Scope);
        }
        let previous = token.generation + 1 == grant.generation;
        match (provider.rotation, token.used.clone()) {
            (Rotation::Off, _) => {
                self.slide(provider, request.refresh_token, now);
                Ok(Refreshed::Fresh(
                    self.issue_access(provider, id, scope, None, now),
                ))
            }
            (Rotation::Overlapping, _) => {
                let refresh_token = self.issue_refresh(provider, id, now);
                Ok(Refreshed::Fresh(self.issue_access(
                    provider,
                    id,
                    scope,
                    Some(refresh_token),
                    now,
                )))
            }
            (_, None) => {
                let issued = self.rotate(provider, request.refresh_token, id, scope, now);
                Ok(Refreshed::Fresh(issued))
            }
            (
                Rotation::Grace {
                    window_seconds,
                    replay,
                },
                Some(used),
            ) if previous && now < used.first_ms + seconds(window_seconds) => {
                let issued = match replay {
                    Replay::Same => used.answer,
                    Replay::New => {
                        let refresh_token = self.issue_refresh(provider, id, now);
                        self.issue_access(provider, id, scope, Some(refresh_token), now)
                    }
                };
                Ok(Refreshed::Replayed(issued))
            }
            (_, Some(_)) => {
                self.revoke(id, RevokeCause::RefreshReuse);
                Err(GrantError::Reused(id))
            }
        }
    }

    fn rotate(
        &mut self,
        provider: &ProviderConfig,
        used: &str,
        id: u64,
        scope: Vec<String>,
        now: i64,
    ) -> Issued {
        let grant = self
            .by_id
            .get_mut(&id)
            .expect("the token's grant was just looked at");
        grant.generation += 1;
        let forget_below = grant.generation.saturating_sub(REMEMBERED_GENERATIONS);
        let refresh_token = self.issue_refresh(provider, id, now);
        let answer = self.issue_access(provider, id, scope, Some(refresh_token), now);
        let token = self.refresh.get_mut(used).expect("it was just looked at");
        token.used = Some(Use {
            first_ms: now,
            answer: answer.clone(),
        });
        if forget_below > 0 && forget_below.is_multiple_of(REMEMBERED_GENERATIONS) {
            self.refresh
                .retain(|_, token| token.grant != id || token.generation >= forget_below);
        }
        answer
    }

    fn issue_refresh(&mut self, provider: &ProviderConfig, id: u64, now: i64) -> String {
        let grant = self
            .by_id
            .get(&id)
            .expect("tokens are issued for grants that are there");
        let from = if provider.refresh_lifetime_slides {
            now
        } else {
            grant.created_ms
        };
        let token = RefreshToken {
            grant: id,
            generation: grant.generation,
            expires_ms: provider
                .refresh_lifetime_seconds
                .map(|lifetime| from + seconds(lifetime)),
            used: None,
        };
        let text = random::token("sim_rt_");
        self.refresh.insert(text.clone(), token);
        text
    }

    fn slide(&mut self, provider: &ProviderConfig, token: &str, now: i64) {
        if let (true, Some(lifetime), Some(token)) = (
            provider.refresh_lifetime_slides,
            provider.refresh_lifetime_seconds,
            self.refresh.get_mut(token),
        ) {
            token.expires_ms = Some(now + seconds(lifetime));
        }
    }

    fn issue_access(
        &mut self,
        provider: &ProviderConfig,
        grant: u64,
        scope: Vec<String>,
        refresh_token: Option<String>,
        now: i64,
    ) -> Issued {
        if self.access.len() >= self.sweep_at {
            self.access.retain(|_, token| token.expires_ms > now);
            self.sweep_at = 1024.max(self.access.len() * 2);
        }
        let access_token = random::token("sim_at_");
        let expires_ms = now + seconds(provider.access_lifetime_seconds);
        self.access.insert(
            access_token.clone(),
            AccessToken {
                grant,
                scope: scope.clone(),
                expires_ms,
                revoked: false,
            },
        );
        Issued {
            grant,
            access_token,
            refresh_token,
            scope,
            expires_ms,
        }
    }

    /// Whose access token it is, if it is good at this provider.
    pub(crate) fn bearer(&self, provider: &str, token: &str, now: i64) -> Option<Bearer> {
        let token = self
            .access
            .get(token)
            .filter(|token| !token.revoked && now < token.expires_ms)?;
        let grant = self
            .by_id
            .get(&token.grant)
            .filter(|grant| grant.revoked.is_none() && grant.provider == provider)?;
        Some(Bearer {
            user: grant.user.clone(),
            scope: token.scope.clone(),
        })
    }

    /// The grant that a token of either sort belongs to, good or not.
    pub(crate) fn grant_of(&self, token: &str) -> Option<(u64, &Grant)> {
        let access = self.access.get(token).map(|token| token.grant);
        let id = access.or_else(|| self.refresh.get(token).map(|token| token.grant))?;
        self.by_id.get(&id).map(|grant| (id, grant))
    }

    /// A grant by its number.
    pub(crate) fn grant(&self, id: u64) -> Option<&Grant> {
        self.by_id.get(&id)
    }

    /// Whether it is a refresh token.
    pub(crate) fn is_refresh_token(&self, token: &str) -> bool {
        self.refresh.contains_key(token)
    }

    /// Ends one access token.
    pub(crate) fn revoke_access_token(&mut self, token: &str) {
        if let Some(token) = self.access.get_mut(token) {
            token.revoked = true;
        }
    }

    /// Ends a grant with all its tokens. Says whether there is such a grant.
    pub(crate) fn revoke(&mut self, grant: u64, cause: RevokeCause) -> bool {
        let Some(grant) = self.by_id.get_mut(&grant) else {
            return false;
        };
        grant.revoked.get_or_insert(cause);
        true
    }

    /// Lets every access token of a grant expire now. Says whether there is such a grant.
    pub(crate) fn expire_access_tokens(&mut self, grant: u64, now: i64) -> bool {
        for token in self
            .access
            .values_mut()
            .filter(|token| token.grant == grant)
        {
            token.expires_ms = token.expires_ms.min(now);
        }
        self.by_id.contains_key(&grant)
    }

    /// Forgets all codes, grants and tokens; numbers of grants go on.
    pub(crate) fn reset(&mut self) {
        *self = Self {
            next_grant: self.next_grant,
            ..Self::default()
        };
    }

    /// All grants, oldest first.
    pub(crate) fn grants(&self) -> impl Iterator<Item = (u64, &Grant)> {
        self.by_id.iter().map(|(id, grant)| (*id, grant))
    }
}

fn seconds(seconds: u32) -> i64 {
    i64::from(seconds) * 1000
}

mod consents;
#[cfg(test)]
mod tests;
