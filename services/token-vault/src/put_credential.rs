//! A credential that was obtained elsewhere: an imported grant, an API key, a user name and password.

use std::collections::BTreeMap;

use common::Secret;
use common::identity::Actor;
use time::OffsetDateTime;

use crate::error::Error;
use crate::grant::{
    Answer, ClientKey, EventKind, Grant, GrantKey, Kind, Settled, State, Strategy, TIME_TO_CONFIRM,
};
use crate::providers::Resolved;
use crate::refresh_grant::new_tokens::{next_refresh_at, origin};
use crate::secrets::{self, Credential, RefreshToken};
use crate::store::{Attribution, Change};
use crate::vault::Vault;

/// What is put.
#[derive(Clone, Debug)]
pub(crate) struct Put {
    pub(crate) grant: GrantKey,
    pub(crate) client: Option<ClientKey>,
    pub(crate) content: Content,
    /// 0 for a new grant.
    pub(crate) expected_version: i64,
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) actor: Actor,
}

/// The credential.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    OAuth2 {
        access_token: Secret<String>,
        refresh_token: Option<Secret<String>>,
        token_type: String,
        expires_at: Option<OffsetDateTime>,
        scopes: Vec<String>,
        raw_json: String,
    },
    ApiKey(Secret<String>),
    Basic {
        username: String,
        password: Secret<String>,
    },
}

#[derive(Clone, Debug)]
enum Found {
    Written(Box<Grant>),
    Exists,
    Version { actual: i64 },
    Missing,
    Revoked,
}

impl Vault {
    /// The grant with the credential in it.
    pub(crate) async fn put_credential(&self, put: Put) -> Result<Grant, Error> {
        let resolved = match put.client {
            Some(key) => {
                let client = self
                    .store
                    .oauth_client_get(key)
                    .await?
                    .ok_or(Error::ClientNotFound)?;
                Some(
                    self.providers
                        .resolve(&client, &put.parameters, false)
                        .await?,
                )
            }
            None => None,
        };
        let strategy = put.content.strategy(resolved.as_ref());
        let resolved = resolved.map(|resolved| resolved.renewed_by(strategy));
        let (answer, tag) = self.sealed(&put, resolved.as_ref(), strategy).await?;
        let found = self.put_write(put, answer, tag, strategy).await?;
        match found {
            Found::Written(grant) => Ok(*grant),
            Found::Exists => Err(Error::GrantExists),
            Found::Version { actual } => Err(Error::VersionMismatch { actual }),
            Found::Missing => Err(Error::GrantNotFound),
            Found::Revoked => Err(Error::GrantRevoked),
        }
    }

    async fn put_write(
        &self,
        put: Put,
        answer: Answer,
        tag: Vec<u8>,
        strategy: Strategy,
    ) -> Result<Found, Error> {
        let (key, expected) = (put.grant, put.expected_version);
        let by = Attribution {
            actor: put.actor.clone(),
            action: "TokenVaultService/PutCredential",
            reason: String::new(),
        };
        let change = move |grant: &mut Grant, is_new: bool| {
            let is_same = grant.exchange_hash.as_deref() == Some(&tag);
            let found = match grant.state {
                _ if is_new => None,
                _ if is_same && grant.version == expected + 1 => {
                    Some(Found::Written(Box::new(grant.clone())))
                }
                State::Exchanging | State::ExchangeFailed if expected > 0 => Some(Found::Missing),
                _ if expected == 0 => Some(Found::Exists),
                State::Revoking | State::Revoked => Some(Found::Revoked),
                _ if grant.version != expected => Some(Found::Version {
                    actual: grant.version,
                }),
                _ => None,
            };
            if let Some(found) = found {
                return Change::none(found);
            }
            let event = take(grant, &put, &answer, &tag, strategy);
            Change::told(Found::Written(Box::new(grant.clone())), event).by(by.clone())
        };
        if expected > 0 {
            let found = self
                .store
                .grant_change("credential_replace", key, move |grant| change(grant, false));
            return Ok(found.await?.unwrap_or(Found::Missing));
        }
        let now = self.deps.now();
        let make = move || Grant::new(key, Kind::OAuth2, Strategy::None, None, now);
        Ok(self
            .store
            .grant_make_or_change("credential_put", key, make, change)
            .await?)
    }

    /// The content, sealed as the grant's next version, and what tells a repetition of the call from another one: a MAC
    /// under the tenant's key, since a password may be one that can be guessed.
    async fn sealed(
        &self,
        put: &Put,
        resolved: Option<&Resolved>,
        strategy: Strategy,
    ) -> Result<(Answer, Vec<u8>), Error> {
        let (key, version) = (put.grant, put.expected_version + 1);
        let data_key = self.keys.newest(key.tenant).await?;
        let now = self
            .deps
            .now()
            .replace_nanosecond(0)
            .unwrap_or_else(|_| self.deps.now());
        let revocation_origin = resolved
            .and_then(|resolved| resolved.revocation_url.as_ref())
            .map(origin);
        let credential = put.content.credential(revocation_origin);
        let tag_key = data_key.mac_key("vault: repeated calls");
        let plaintext = zeroize::Zeroizing::new(put.content.text());
        let tag = tag_key
            .sign(&[key.id.as_bytes(), plaintext.as_bytes()])
            .to_vec();
        let seal = |token: &Secret<String>, url| {
            let token = RefreshToken::new(token, origin(url));
            secrets::seal(
                &self.keys,
                &data_key,
                &secrets::refresh_token_place(key, version),
                &token,
            )
        };
        let refresh_token = match (put.content.renewed_with(strategy), resolved) {
            (Some(token), Some(resolved)) => Some(seal(&token, &resolved.refresh_url)),
            // Without a client there is nobody to refresh it.
            _ => None,
        };
        let (token_type, expires_at, scopes, raw_json) = put.content.facts();
        let next_refresh_at = match resolved {
            Some(resolved) => next_refresh_at(
                &resolved.rules,
                refresh_token.is_some(),
                now,
                expires_at,
                None,
                self.random(),
            ),
            None => expires_at,
        };
        let answer = Answer {
            tenant_id: key.tenant.id(),
            grant_id: key.id,
            fence: 0,
            read_version: put.expected_version,
            exchange: None,
            credential: secrets::seal(
                &self.keys,
                &data_key,
                &secrets::credential_place(key, version),
                &credential,
            ),
            refresh_token,
            previous: None,
            previous_until: None,
            key_version: data_key.version().cast_signed(),
            token_type,
            scope_raw: scopes.join(" "),
            scopes,
            token_names: Vec::new(),
            issued_at: now,
            expires_at,
            refresh_token_expires_at: None,
            consent_ends_at: None,
            next_refresh_at,
            raw_json,
        };
        Ok((answer, tag))
    }
}

/// Puts the content into the row.
fn take(
    grant: &mut Grant,
    put: &Put,
    answer: &Answer,
    tag: &[u8],
    strategy: Strategy,
) -> Option<EventKind> {
    let is_new = !grant.is_visible();
    let event = match grant.settle(answer) {
        Settled::Committed(event) => event,
        Settled::AlreadyCommitted | Settled::Superseded | Settled::TooLate => return None,
    };
    if is_new {
        grant.confirm_until = Some(grant.read_at + TIME_TO_CONFIRM);
        grant.state = State::Unconfirmed;
    }
    // Everything else in the row goes by the database's clock.
    grant.issued_at = Some(grant.read_at);
    grant.refreshed_at = Some(grant.read_at);
    grant.kind = put.content.kind();
    grant.strategy = strategy;
    grant.client = put.client;
    grant.parameters.clone_from(&put.parameters);
    grant.exchange_hash = Some(tag.to_vec());
    Some(event)
}

impl Content {
    fn kind(&self) -> Kind {
        match self {
            Self::OAuth2 { .. } => Kind::OAuth2,
            Self::ApiKey(_) => Kind::ApiKey,
            Self::Basic { .. } => Kind::Basic,
        }
    }

    fn credential(&self, revocation_origin: Option<String>) -> Credential {
        match self {
            Self::OAuth2 { access_token, .. } => Credential::AccessToken {
                value: access_token.expose().clone(),
                others: Vec::new(),
                revocation_origin,
            },
            Self::ApiKey(key) => Credential::ApiKey {
                value: key.expose().clone(),
            },
            Self::Basic { username, password } => Credential::Basic {
                username: username.clone(),
                password: password.expose().clone(),
            },
        }
    }

    /// How it is renewed, which needs a client.
    fn strategy(&self, resolved: Option<&Resolved>) -> Strategy {
        match (self, resolved) {
            (Self::OAuth2 { refresh_token, .. }, Some(resolved)) => {
                resolved.consent_strategy(refresh_token.is_some())
            }
            _ => Strategy::None,
        }
    }

    fn renewed_with(&self, strategy: Strategy) -> Option<Secret<String>> {
        match (self, strategy) {
            (Self::OAuth2 { refresh_token, .. }, Strategy::RefreshToken) => refresh_token.clone(),
            (Self::OAuth2 { access_token, .. }, Strategy::TokenExchange) => {
                Some(Resolved::first_stand_in(access_token).text())
            }
            _ => None,
        }
    }

    /// Token type, end, scopes, and the rest.
    fn facts(&self) -> (String, Option<OffsetDateTime>, Vec<String>, String) {
        match self {
            Self::OAuth2 {
                token_type,
                expires_at,
                scopes,
                raw_json,
                ..
            } => {
                let token_type = if token_type.is_empty() {
                    "Bearer"
                } else {
                    token_type.as_str()
                };
                (
                    token_type.to_owned(),
                    *expires_at,
                    scopes.clone(),
                    raw_json.clone(),
                )
            }
            Self::ApiKey(_) | Self::Basic { .. } => {
                (String::new(), None, Vec::new(), String::new())
            }
        }
    }

    fn text(&self) -> String {
        match self {
            Self::OAuth2 {
                access_token,
                refresh_token,
                ..
            } => {
                let refresh_token = refresh_token.as_ref().map_or("", |token| token.expose());
                format!("oauth2\n{}\n{refresh_token}", access_token.expose())
            }
            Self::ApiKey(key) => format!("api_key\n{}", key.expose()),
            Self::Basic { username, password } => {
                format!("basic\n{username}\n{}", password.expose())
            }
        }
    }
}
