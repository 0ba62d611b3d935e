//! Why a call failed, and how far it had come.

use std::io;

use http::StatusCode;
use thiserror::Error;

/// How far a failed request came. It decides what may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// No byte of the request left: the provider cannot have acted on it.
    NotSent,
    /// The request was handed to the connection and no whole answer came back: the provider may have acted on it.
    Ambiguous,
    /// The provider answered, and the answer is of no use.
    Answered,
}

/// A call without a usable answer.
///
/// Holds host names and sizes; never a path, a query, a header, or a body.
#[derive(Debug, Error)]
pub enum EgressError {
    /// The request breaks a rule of ours.
    #[error("the request is refused")]
    Refused(#[from] Refusal),
    /// The host's name was not resolved.
    #[error("the name {host} was not resolved")]
    Dns {
        /// The host called.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// No TCP connection.
    #[error("no connection to {host}")]
    Connect {
        /// The host called.
        host: String,
        /// What the network said.
        source: io::Error,
    },
    /// No connection in time.
    #[error("no connection to {host} in time")]
    ConnectTimeout {
        /// The host called.
        host: String,
    },
    /// No TLS session: an unknown authority, a wrong name, an old protocol.
    #[error("no TLS session with {host}")]
    Tls {
        /// The host called.
        host: String,
        /// What the handshake said.
        source: io::Error,
    },
    /// The connection was closed before the request was given to it.
    #[error("{host} closed the connection before the request was sent")]
    Closed {
        /// The host called.
        host: String,
    },
    /// The connection broke between the request and the end of the answer.
    #[error("the connection to {host} broke before the whole answer had come")]
    Interrupted {
        /// The host called.
        host: String,
        /// The answer's status, where that much had come.
        status: Option<StatusCode>,
        /// What the connection said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The whole answer did not come in time.
    #[error("{host} did not answer in time")]
    AnswerTimeout {
        /// The host called.
        host: String,
        /// The answer's status, where that much had come.
        status: Option<StatusCode>,
    },
    /// What came back is not HTTP, or its head is too large.
    #[error("the answer of {host} is not an HTTP response within the limits")]
    Malformed {
        /// The host called.
        host: String,
        /// What the parser said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The body is longer than the limit.
    #[error("the answer of {host} is longer than {limit} bytes")]
    TooLarge {
        /// The host called.
        host: String,
        /// The answer's status.
        status: StatusCode,
        /// The limit it broke.
        limit: usize,
    },
    /// The body is compressed although we asked for it as it is.
    #[error("the answer of {host} is in an encoding that was not asked for")]
    Encoded {
        /// The host called.
        host: String,
        /// The answer's status.
        status: StatusCode,
    },
}

/// A rule that a request breaks. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Neither https, nor http where that is allowed.
    #[error("only https URLs are called")]
    Scheme,
    /// No host to call.
    #[error("the URL names no host")]
    Host,
    /// A user name or password in the URL.
    #[error("the URL contains a user name or a password")]
    UserInfo,
    /// Every address of the host lies in a range that is not called.
    #[error("{host} has no address that may be called")]
    Address {
        /// The host named in the URL.
        host: String,
    },
    /// The header is the connection's own, or not a header.
    #[error("the header {name:?} cannot be set")]
    Header {
        /// The header's name.
        name: String,
    },
    /// The body could not be written as JSON.
    #[error("the body is not representable as JSON")]
    Body,
    /// The request goes to another origin than the open connection.
    #[error("the connection is open to another origin")]
    Origin,
}

impl EgressError {
    /// How far the request came.
    pub fn delivery(&self) -> Delivery {
        match self {
            Self::Refused(_)
            | Self::Dns { .. }
            | Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::Tls { .. }
            | Self::Closed { .. } => Delivery::NotSent,
            Self::Interrupted { .. } | Self::AnswerTimeout { .. } => Delivery::Ambiguous,
            Self::Malformed { .. } | Self::TooLarge { .. } | Self::Encoded { .. } => {
                Delivery::Answered
            }
        }
    }

    /// The status of the answer, where that much had come.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Interrupted { status, .. } | Self::AnswerTimeout { status, .. } => *status,
            Self::TooLarge { status, .. } | Self::Encoded { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// A stable word for metrics and spans (`error.type`).
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Dns { .. } => "dns",
            Self::Connect { .. } => "connect",
            Self::ConnectTimeout { .. } => "connect_timeout",
            Self::Tls { .. } => "tls",
            Self::Closed { .. } => "closed",
            Self::Interrupted { .. } => "interrupted",
            Self::AnswerTimeout { .. } => "answer_timeout",
            Self::Malformed { .. } => "malformed",
            Self::TooLarge { .. } => "too_large",
            Self::Encoded { .. } => "encoded",
        }
    }
}
