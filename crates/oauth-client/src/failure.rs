//! What went wrong, sorted by what has to be done about it.

use std::time::Duration;

use egress::EgressError;
use provider_catalog::ReauthorizationCause;
use thiserror::Error;
use time::OffsetDateTime;

/// What has to be done about a failure. Only [`Class::Reauthorization`] ends a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It passes by itself, and the provider has not acted: to be tried again.
    Transient,
    /// The provider may have acted, and we do not know how: a token that can be used once may be used up.
    Ambiguous,
    /// Not before then.
    RateLimited {
        /// When the provider may be asked again.
        until: OffsetDateTime,
    },
    /// The user has to connect again.
    Reauthorization(ReauthorizationCause),
    /// The integration's owner has to change something; the grant is untouched.
    Configuration,
    /// The provider breaks its own protocol.
    ProviderBug,
}

/// A token request that gave no token. Holds nothing secret: what the provider wrote is cut and cleaned.
#[derive(Debug, Error)]
#[error("{}", self.sentence())]
pub struct Failure {
    /// What has to be done.
    pub class: Class,
    /// The answer's status, where there was one.
    pub status: Option<u16>,
    /// The provider's error code.
    pub code: Option<String>,
    /// The provider's description, at most 256 characters.
    pub description: Option<String>,
    /// How long the provider asks us to wait, whatever the class.
    pub retry_after: Option<Duration>,
    /// What the network said, where that was it.
    #[source]
    pub source: Option<Box<EgressError>>,
}

impl Class {
    /// A stable word for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Ambiguous => "ambiguous",
            Self::RateLimited { .. } => "rate_limited",
            Self::Reauthorization(_) => "reauthorization",
            Self::Configuration => "configuration",
            Self::ProviderBug => "provider_bug",
        }
    }
}

impl Failure {
    /// A failure of a class, about which nothing more is known.
    pub fn new(class: Class) -> Self {
        Self {
            class,
            status: None,
            code: None,
            description: None,
            retry_after: None,
            source: None,
        }
    }

    fn sentence(&self) -> String {
        let outcome = match self.class {
            Class::Transient => "the provider is not available",
            Class::Ambiguous => "the provider may or may not have acted",
            Class::RateLimited { .. } => "the provider limits our requests",
            Class::Reauthorization(_) => "the provider wants the user to connect again",
            Class::Configuration => "the provider refuses our client or our request",
            Class::ProviderBug => "the provider's answer makes no sense",
        };
        match (&self.code, self.status) {
            (Some(code), _) => format!("{outcome} ({code})"),
            (None, Some(status)) => format!("{outcome} (HTTP {status})"),
            (None, None) => outcome.to_owned(),
        }
    }
}
