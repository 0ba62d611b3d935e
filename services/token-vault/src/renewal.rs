//! What renews a grant, where that is no refresh token.
//!
//! It stands in a refresh token's place: sealed with the row's version, and with the only origin that it is sent to. So
//! nobody who writes into the database can have a token minted for another subject, or another installation.

use std::collections::BTreeMap;
use std::time::Duration;

use common::Secret;
use egress::Url;
use oauth_client::{NamedToken, TokenGrant, TokenSet};
use provider_catalog::{ExchangeCall, JwtBearer, RefreshStrategy};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::grant::{Grant, Strategy};
use crate::providers::Resolved;

/// What stands in a refresh token's place.
#[derive(Debug, Serialize, Deserialize, Zeroize)]
#[zeroize(drop)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StandIn {
    /// Another token is asked for as the first one was.
    Mint {
        subject: String,
        scopes: Vec<String>,
        /// What fills the endpoint's template: a GitHub App's installation.
        #[zeroize(skip)]
        parameters: BTreeMap<String, String>,
    },
    /// The access token itself is traded, while it lives.
    AccessToken {
        value: String,
        /// It has not been traded yet.
        is_first: bool,
    },
}

/// A request for new tokens.
#[derive(Debug)]
pub(crate) struct Renewal<'a> {
    pub(crate) url: &'a Url,
    asked: Asked<'a>,
}

#[derive(Debug)]
enum Asked<'a> {
    RefreshToken {
        token: &'a Secret<String>,
        scopes: &'a [String],
    },
    ClientCredentials {
        scopes: Vec<String>,
    },
    JwtBearer {
        rules: &'a JwtBearer,
        audience: &'a str,
        subject: String,
        scopes: Vec<String>,
    },
    AccessToken {
        call: &'a ExchangeCall,
        token: Secret<String>,
    },
}

/// What is kept does not fit the client as it is now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    /// The sealed parameters are not the row's.
    #[error("the grant's parameters are not those that it was made with")]
    Parameters,
    /// The provider's entry has no such way any more, or what is kept is of another sort.
    #[error("the provider's entry does not say how the grant is renewed")]
    Strategy,
    /// The trade goes to another origin than the token came from.
    #[error("the access token would be traded at another origin than the one it is kept for")]
    Origin,
}

/// No refresh token is taken for a stand-in, nor the other way round, since the grant's strategy decides; this keeps
/// stand-ins from being sent to be revoked.
const MARK: &str = "hawser-renewal:";

impl StandIn {
    /// As it is kept.
    pub(crate) fn text(&self) -> Secret<String> {
        let json = serde_json::to_string(self).expect("a stand-in has only texts in it");
        Secret::new(format!("{MARK}{json}"))
    }

    fn read(text: &Secret<String>) -> Result<Self, Unfit> {
        let json = text.expose().strip_prefix(MARK).ok_or(Unfit::Strategy)?;
        serde_json::from_str(json).map_err(|_| Unfit::Strategy)
    }

    /// Whether a text that is kept in a refresh token's place is one of these.
    pub(crate) fn is_in(text: &str) -> bool {
        text.starts_with(MARK)
    }

    /// The subject and the scopes that are asked for anew.
    fn minted(
        kept: Option<&Secret<String>>,
        grant: &Grant,
    ) -> Result<(String, Vec<String>), Unfit> {
        let Some(text) = kept else {
            return Ok((String::new(), grant.scopes.clone()));
        };
        match &mut Self::read(text)? {
            Self::Mint { parameters, .. } if *parameters != grant.parameters => {
                Err(Unfit::Parameters)
            }
            Self::Mint {
                subject, scopes, ..
            } => Ok((std::mem::take(subject), std::mem::take(scopes))),
            Self::AccessToken { .. } => Err(Unfit::Strategy),
        }
    }
}

impl Resolved {
    /// How a grant is renewed that a person's consent brings.
    pub(crate) fn consent_strategy(&self, has_refresh_token: bool) -> Strategy {
        match self.refresh.strategy {
            RefreshStrategy::TokenExchange if self.trades.is_some() => Strategy::TokenExchange,
            RefreshStrategy::None => Strategy::None,
            _ if has_refresh_token => Strategy::RefreshToken,
            _ => Strategy::None,
        }
    }

    /// The access token, where it is what is traded.
    pub(crate) fn first_stand_in(access_token: &Secret<String>) -> StandIn {
        StandIn::AccessToken {
            value: access_token.expose().clone(),
            is_first: true,
        }
    }

    /// How long the provider does not take the grant's token to be renewed yet, because it is too young. One that was never
    /// traded is not.
    pub(crate) fn wait_to_renew(&self, grant: &Grant) -> Option<Duration> {
        let minimum = self.refresh.token_exchange.as_ref()?.minimum_age?;
        let age = grant.read_at - grant.issued_at?;
        let is_renewed = grant.strategy == Strategy::TokenExchange && grant.version > 1;
        let wait = Duration::try_from(minimum - age).ok()?;
        (is_renewed && !wait.is_zero()).then_some(wait)
    }

    /// The endpoint and the rules of one strategy: what is asked for anew goes to the token endpoint, uses nothing up,
    /// and does not end because nobody asked.
    #[must_use]
    pub(crate) fn renewed_by(mut self, strategy: Strategy) -> Self {
        match strategy {
            Strategy::RefreshToken | Strategy::None => return self,
            Strategy::ClientCredentials | Strategy::JwtBearer => {
                self.refresh_url = self.token_url.clone();
                self.rules.idle = None;
                self.rules.absolute = None;
            }
            Strategy::TokenExchange => {
                if let Some(trades) = &self.trades {
                    self.refresh_url = trades.renew.url.clone();
                }
                self.rules.margin = self.rules.margin.max(TRADE_MARGIN);
            }
        }
        self.rules.rotates = false;
        self.dialect.rotates = false;
        self
    }

    /// What is sent for new tokens. `kept` is the refresh token, or what stands in its place.
    pub(crate) fn renewal<'a>(
        &'a self,
        grant: &'a Grant,
        kept: Option<&'a Secret<String>>,
    ) -> Result<Renewal<'a>, Unfit> {
        let mut url = &self.refresh_url;
        let asked = match (grant.strategy, kept) {
            (Strategy::RefreshToken, Some(token)) => Asked::RefreshToken {
                token,
                scopes: if self.refresh.resend_scopes {
                    &grant.scopes
                } else {
                    &[]
                },
            },
            (Strategy::ClientCredentials, kept) => {
                let (_, scopes) = StandIn::minted(kept, grant)?;
                Asked::ClientCredentials { scopes }
            }
            (Strategy::JwtBearer, Some(kept)) => {
                let (subject, scopes) = StandIn::minted(Some(kept), grant)?;
                Asked::JwtBearer {
                    rules: &self.assertion,
                    audience: &self.audience,
                    subject,
                    scopes,
                }
            }
            (Strategy::TokenExchange, Some(kept)) => {
                let trades = self.trades.as_ref().ok_or(Unfit::Strategy)?;
                let mut stand_in = StandIn::read(kept)?;
                let StandIn::AccessToken { value, is_first } = &mut stand_in else {
                    return Err(Unfit::Strategy);
                };
                let first = trades.first.as_ref().filter(|_| *is_first);
                let trade = first.unwrap_or(&trades.renew);
                if trade.url.origin() != url.origin() {
                    return Err(Unfit::Origin);
                }
                url = &trade.url;
                Asked::AccessToken {
                    call: &trade.call,
                    token: Secret::new(std::mem::take(value)),
                }
            }
            (Strategy::RefreshToken | Strategy::JwtBearer | Strategy::TokenExchange, None)
            | (Strategy::None, _) => return Err(Unfit::Strategy),
        };
        Ok(Renewal { url, asked })
    }
}

/// What a token is traded for lives for months, and cannot be had any more once it has ended: nobody waits for the last
/// five minutes.
const TRADE_MARGIN: Duration = Duration::from_hours(10 * 24);

impl Renewal<'_> {
    pub(crate) fn traded(&self) -> TokenGrant<'_> {
        match &self.asked {
            Asked::RefreshToken { token, scopes } => TokenGrant::RefreshToken {
                refresh_token: token,
                scopes,
            },
            Asked::ClientCredentials { scopes } => TokenGrant::ClientCredentials { scopes },
            Asked::JwtBearer {
                rules,
                audience,
                subject,
                scopes,
            } => TokenGrant::JwtBearer {
                rules,
                audience,
                subject,
                scopes,
            },
            Asked::AccessToken { call, token } => TokenGrant::AccessToken { call, token },
        }
    }

    /// Sees to it that the next renewal has what it needs: what stays as it is, is kept as a refresh token is that the
    /// provider does not replace. Tokens beside the main one stay, too.
    pub(crate) fn keep(&self, tokens: &mut TokenSet, others: &[NamedToken]) {
        match &self.asked {
            Asked::RefreshToken { .. } => {}
            Asked::ClientCredentials { .. } | Asked::JwtBearer { .. } => {
                tokens.refresh_token = None;
            }
            Asked::AccessToken { .. } => {
                let next = StandIn::AccessToken {
                    value: tokens.access_token.expose().clone(),
                    is_first: false,
                };
                tokens.refresh_token = Some(next.text());
            }
        }
        for other in others {
            if tokens.others.iter().all(|new| new.name != other.name) {
                tokens.others.push(other.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests;
