//! A signature scheme as data: the typed form of a file in `schemes/`.

mod check;
mod source;

use std::{collections::BTreeMap, time::Duration};

use http::{HeaderName, StatusCode};
use serde::Deserialize;
use thiserror::Error;

pub(crate) use check::{is_routing_key_name, is_tolerance};
pub(crate) use source::Header;
pub use source::{InvalidSource, Source};

pub use crate::json::Path;

use crate::{
    InvalidSecret,
    algorithm::{Algorithm, SignatureEncoding},
    secret::SecretForm,
    template::Template,
};

/// How one provider signs its webhooks, and what is known of how it sends them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scheme {
    /// The name by which a source asks for it.
    pub key: String,
    /// The name for people.
    pub display_name: String,
    /// How sure we are that this is what the provider does.
    pub confidence: Confidence,
    /// The provider's own page about it.
    pub docs_url: String,
    /// What the person has to do at the provider.
    pub setup: String,
    pub(crate) verifier: Verifier,
    /// The provider's id of the event, the same when it is sent again. Empty: repeats cannot be told.
    #[serde(default)]
    pub(crate) event_id: Vec<Source>,
    #[serde(default)]
    pub(crate) event_type: Vec<Source>,
    #[serde(default)]
    pub(crate) occurred_at: Vec<Source>,
    /// The field that holds the JSON where the body is a form.
    #[serde(default)]
    pub(crate) form_field: Option<String>,
    #[serde(default)]
    pub(crate) routing_keys: BTreeMap<String, Vec<Source>>,
    /// What the provider sends to see whether somebody listens.
    pub handshake: Handshake,
    /// The answer to an event that was taken.
    pub response: Response,
    /// After how long the provider gives up waiting for the answer.
    #[serde(with = "humantime_serde")]
    pub response_deadline: Duration,
    /// Longer bodies are refused, in bytes.
    pub max_body: usize,
    /// For how long the provider may send the same event again; dedup keys are kept at least this long.
    #[serde(with = "humantime_serde")]
    pub retry_span: Duration,
    /// The headers that are worth keeping with the event. None of them is a secret or a signature.
    pub(crate) kept_headers: Vec<Header>,
}

/// How sure we are of a scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confidence {
    /// Seen to verify what the provider sent.
    Verified,
    /// From the provider's documentation, with a test vector or its own library.
    Documented,
    /// Several independent implementations agree.
    CrossChecked,
    /// From one source that is not the provider's. A source has to accept this knowingly.
    Unverified,
}

impl Confidence {
    /// As it stands in the contract and in the scheme's file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Documented => "documented",
            Self::CrossChecked => "cross-checked",
            Self::Unverified => "unverified",
        }
    }
}

/// What a provider sends that is no event.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Handshake {
    /// Nothing.
    None,
    /// A signed event of this type when the webhook is set up, answered like any other.
    Ping {
        /// The type that says so.
        event_type: String,
    },
}

/// The answer to an event that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Response {
    /// A 2xx status.
    #[serde(deserialize_with = "status")]
    pub status: StatusCode,
    /// The body's type, where the provider looks at it.
    #[serde(default)]
    pub content_type: Option<String>,
    /// The body, where the provider looks at it.
    #[serde(default)]
    pub body: String,
}

/// The code that verifies, and its data.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Verifier {
    Signature(SignatureVerifier),
}

/// A signature in a header, over a content made from the request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignatureVerifier {
    /// Names under which the provider sends the same things. The first set whose signature is there counts, whole.
    pub(crate) headers: Vec<HeaderSet>,
    /// What stands between several signatures in the header. None: there is one.
    #[serde(default)]
    pub(crate) separator: Option<char>,
    pub(crate) content: Template,
    #[serde(default)]
    pub(crate) timestamp: Option<Timestamp>,
    pub(crate) methods: Vec<SignatureMethod>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeaderSet {
    pub(crate) signature: Header,
    #[serde(default)]
    pub(crate) timestamp: Option<Header>,
    #[serde(default)]
    pub(crate) id: Option<Header>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Timestamp {
    pub(crate) format: TimestampFormat,
    #[serde(with = "humantime_serde")]
    pub(crate) tolerance: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TimestampFormat {
    UnixSeconds,
    UnixMillis,
    Rfc3339,
}

/// One kind of signature: what it begins with, and the secret that it goes with.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignatureMethod {
    #[serde(default)]
    pub(crate) prefix: String,
    pub(crate) algorithm: Algorithm,
    pub(crate) encoding: SignatureEncoding,
    pub(crate) secret: SecretForm,
}

/// Why a scheme's file cannot be used.
#[derive(Debug, Error)]
pub enum InvalidScheme {
    /// It does not have the form of a scheme.
    #[error("the file is no scheme")]
    Form(#[source] serde_yaml_ng::Error),
    /// It has the form, and does not make sense.
    #[error("the scheme `{key}` is wrong: {}", problems.join("; "))]
    Content {
        /// The scheme's key.
        key: String,
        /// All that is wrong.
        problems: Vec<&'static str>,
    },
}

impl Scheme {
    /// The scheme of this key, if there is one.
    pub fn find(key: &str) -> Option<&'static Self> {
        crate::schemes().iter().find(|scheme| scheme.key == key)
    }

    /// Reads and checks a scheme's file.
    pub fn parse(yaml: &str) -> Result<Self, InvalidScheme> {
        let scheme: Self = serde_yaml_ng::from_str(yaml).map_err(InvalidScheme::Form)?;
        let problems = scheme.problems();
        if problems.is_empty() {
            Ok(scheme)
        } else {
            Err(InvalidScheme::Content {
                key: scheme.key,
                problems,
            })
        }
    }

    /// Whether a source may be made with this secret. Said before the first webhook comes, not by refusing it.
    pub fn check_secret(&self, secret: &[u8]) -> Result<(), InvalidSecret> {
        let Verifier::Signature(verifier) = &self.verifier;
        let checks = verifier
            .methods
            .iter()
            .map(|method| method.secret.check(method.algorithm, secret));
        // One method that takes it is enough; of the refusals, the one that came furthest says most.
        checks
            .max_by_key(|check| match check {
                Err(InvalidSecret::Space) => 0,
                Err(InvalidSecret::Form) => 1,
                Err(InvalidSecret::TooShort { .. }) => 2,
                Ok(()) => 3,
            })
            .unwrap_or(Err(InvalidSecret::Form))
    }

    /// The headers that are worth keeping with the event.
    pub fn kept_headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.kept_headers.iter().map(|header| &header.0)
    }

    /// How old a signed request may be, where the scheme signs a time.
    pub fn tolerance(&self) -> Option<Duration> {
        let Verifier::Signature(verifier) = &self.verifier;
        verifier.timestamp.map(|timestamp| timestamp.tolerance)
    }
}

fn status<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<StatusCode, D::Error> {
    let code = u16::deserialize(deserializer)?;
    StatusCode::from_u16(code).map_err(serde::de::Error::custom)
}
