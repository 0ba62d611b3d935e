//! What is traded for a grant's first tokens, and what a refusal of it means.

use std::time::Duration;

use common::Secret;
use common::problem::FieldViolation;
use oauth_client::{Class, Failure, Poll, TokenGrant, TokenSet, Verifier};
use provider_catalog::AssertionSubject;
use time::OffsetDateTime;

use super::Exchange;
use crate::error::Error;
use crate::grant::Strategy;
use crate::oauth_client::{AuthMethod, OAuthClient};
use crate::providers::Resolved;
use crate::refresh_grant::described;
use crate::renewal::StandIn;

/// What is traded for tokens.
#[derive(Clone, Debug)]
pub(crate) enum Authorization {
    Code {
        code: Secret<String>,
        redirect_uri: String,
        verifier: Option<Verifier>,
        nonce: Option<String>,
    },
    ClientCredentials {
        scopes: Vec<String>,
    },
    DeviceCode {
        device_code: Secret<String>,
    },
    JwtBearer {
        subject: String,
        scopes: Vec<String>,
    },
}

/// Between two polls of a device code, where the provider's own interval is not known here (RFC 8628, 3.2).
const INTERVAL: Duration = Duration::from_secs(5);
/// What is added to it where the provider was asked too often (RFC 8628, 3.5).
const SLOWER: Duration = Duration::from_secs(5);

impl Authorization {
    pub(super) fn traded<'a>(&'a self, resolved: &'a Resolved) -> TokenGrant<'a> {
        match self {
            Self::Code {
                code,
                redirect_uri,
                verifier,
                ..
            } => TokenGrant::AuthorizationCode {
                code,
                redirect_uri,
                verifier: verifier.as_ref(),
            },
            Self::ClientCredentials { scopes } => TokenGrant::ClientCredentials { scopes },
            Self::DeviceCode { device_code } => TokenGrant::DeviceCode { device_code },
            Self::JwtBearer { subject, scopes } => TokenGrant::JwtBearer {
                rules: &resolved.assertion,
                audience: &resolved.audience,
                subject,
                scopes,
            },
        }
    }

    pub(super) fn nonce(&self) -> Option<&str> {
        match self {
            Self::Code { nonce, .. } => nonce.as_deref(),
            _ => None,
        }
    }

    /// What was asked for here; a provider that grants just that need not say so.
    pub(super) fn scopes(&self) -> Vec<String> {
        match self {
            Self::Code { .. } | Self::DeviceCode { .. } => Vec::new(),
            Self::ClientCredentials { scopes } | Self::JwtBearer { scopes, .. } => scopes.clone(),
        }
    }

    /// Whether it may be sent again when nobody knows what came of it: all but a code, which a provider that sees it
    /// twice takes for stolen.
    pub(super) fn is_repeatable(&self) -> bool {
        !matches!(self, Self::Code { .. })
    }

    /// What the request does not say, and the provider or the client would have to.
    pub(super) fn check(&self, client: &OAuthClient, resolved: &Resolved) -> Result<(), Error> {
        let Self::JwtBearer { subject, .. } = self else {
            return Ok(());
        };
        let violation = |field: &str, description: &str| FieldViolation {
            field: field.to_owned(),
            description: description.to_owned(),
        };
        let mut violations = Vec::new();
        if client.settings.auth_method != AuthMethod::PrivateKeyJwt {
            violations.push(violation(
                "jwt_bearer",
                "needs an OAuth client with a private key: its auth_method must be PRIVATE_KEY_JWT",
            ));
        }
        match resolved.assertion.subject {
            AssertionSubject::Required if subject.is_empty() => violations.push(violation(
                "jwt_bearer.subject",
                "is required by this provider",
            )),
            AssertionSubject::None if !subject.is_empty() => violations.push(violation(
                "jwt_bearer.subject",
                "must be empty: this provider knows no subjects",
            )),
            _ => {}
        }
        if violations.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid(violations))
        }
    }

    /// Whether a failure has used it up, or may have.
    pub(super) fn is_spent(&self, failure: &Failure) -> bool {
        let is_refused = matches!(failure.class, Class::Reauthorization(_));
        match self {
            Self::Code { .. } => {
                is_refused || matches!(failure.class, Class::Ambiguous | Class::ProviderBug)
            }
            Self::DeviceCode { .. } => match Poll::of(failure) {
                Some(Poll::Expired | Poll::Denied) => true,
                Some(Poll::Pending | Poll::SlowDown) => false,
                None => is_refused,
            },
            Self::ClientCredentials { .. } | Self::JwtBearer { .. } => false,
        }
    }

    /// Whether a failure is what is expected while a person makes up their mind.
    pub(super) fn is_pending(&self, failure: &Failure) -> bool {
        matches!(self, Self::DeviceCode { .. })
            && matches!(Poll::of(failure), Some(Poll::Pending | Poll::SlowDown))
    }

    /// What a caller is told of a failure.
    pub(super) fn error_of(&self, failure: &Failure, now: OffsetDateTime) -> Error {
        let wait = failure.retry_after.unwrap_or(Duration::from_secs(1));
        if let (Self::DeviceCode { .. }, Some(poll)) = (self, Poll::of(failure)) {
            let pending = |wait: Duration, slow_down| Error::AuthorizationPending {
                wait: failure.retry_after.unwrap_or(wait),
                slow_down,
            };
            return match poll {
                Poll::Pending => pending(INTERVAL, false),
                Poll::SlowDown => pending(INTERVAL + SLOWER, true),
                Poll::Expired | Poll::Denied => Error::AuthorizationExpired {
                    error: described(failure),
                },
            };
        }
        match failure.class {
            Class::Transient => Error::ProviderUnavailable { wait },
            Class::RateLimited { until } => Error::RateLimited {
                wait: Duration::try_from(until - now).unwrap_or(wait),
            },
            Class::Reauthorization(_) => Error::AuthorizationExpired {
                error: described(failure),
            },
            Class::Configuration => Error::Misconfigured {
                error: described(failure),
            },
            Class::Ambiguous | Class::ProviderBug if self.is_repeatable() => {
                Error::ProviderUnavailable { wait }
            }
            Class::Ambiguous | Class::ProviderBug => Error::AuthorizationExpired {
                error: failure.to_string(),
            },
        }
    }
}

impl Exchange {
    /// How the grant will be renewed, once its first tokens are there.
    pub(super) fn strategy(&self, resolved: &Resolved, tokens: &TokenSet) -> Strategy {
        match &self.authorization {
            Authorization::Code { .. } | Authorization::DeviceCode { .. } => {
                resolved.consent_strategy(tokens.refresh_token.is_some())
            }
            Authorization::ClientCredentials { .. } => Strategy::ClientCredentials,
            Authorization::JwtBearer { .. } => Strategy::JwtBearer,
        }
    }

    /// What is kept for it: the refresh token, or what stands in its place.
    pub(super) fn renewed_with(
        &self,
        strategy: Strategy,
        tokens: &TokenSet,
    ) -> Option<Secret<String>> {
        let mint = |subject: &str, scopes: &[String]| {
            let stand_in = StandIn::Mint {
                subject: subject.to_owned(),
                scopes: scopes.to_vec(),
                parameters: self.parameters.clone(),
            };
            Some(stand_in.text())
        };
        match (&self.authorization, strategy) {
            (Authorization::ClientCredentials { scopes }, _) => mint("", scopes),
            (Authorization::JwtBearer { subject, scopes }, _) => mint(subject, scopes),
            (_, Strategy::TokenExchange) => {
                Some(Resolved::first_stand_in(&tokens.access_token).text())
            }
            _ => tokens.refresh_token.clone(),
        }
    }
}
