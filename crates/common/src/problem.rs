//! What a caller is told when a call fails, before it becomes a gRPC status or an HTTP answer.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::time::Duration;

pub use contracts::common::v1::ErrorReason as Reason;

/// A failed call: few codes, a reason that programs can tell apart, and a sentence that says what to do.
///
/// Each reason has its page in `docs/errors/`.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// One of the codes of google.rpc.
    pub code: Code,
    /// `None` where the code says all there is.
    pub reason: Option<Reason>,
    /// For people; never holds a secret or an internal detail.
    pub message: String,
    /// When to try again, where that is of use.
    pub retry_after: Option<Duration>,
    /// Every field that was violated, with [`Reason::InvalidField`].
    pub fields: Vec<FieldViolation>,
    /// Further values for programs: `locked_at`, `etag`.
    pub metadata: BTreeMap<String, String>,
}

/// One field of a request that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldViolation {
    /// The field's path: `tenant.subdomain`.
    pub field: String,
    /// What it should be.
    pub description: String,
}

/// The codes of google.rpc.Code, with their numbers.
#[expect(
    missing_docs,
    reason = "named and numbered as in google/rpc/code.proto"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Code {
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

/// A status travels in headers, which HTTP/2 peers bound to 16 KiB.
const MOST_VIOLATIONS: usize = 40;

impl Problem {
    /// A problem with a reason.
    pub fn new(code: Code, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason: Some(reason),
            ..Self::bare(code, message)
        }
    }

    /// A problem whose code says all that a program needs to know.
    pub fn bare(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: None,
            message: message.into(),
            retry_after: None,
            fields: Vec::new(),
            metadata: BTreeMap::new(),
        }
    }

    /// INVALID_ARGUMENT that names every violated field, up to a number that fits into an answer's headers.
    pub fn invalid(mut fields: Vec<FieldViolation>) -> Self {
        let unnamed = fields.len().saturating_sub(MOST_VIOLATIONS);
        fields.truncate(MOST_VIOLATIONS);
        let mut listed: Vec<_> = fields
            .iter()
            .map(|violation| format!("{}: {}", violation.field, violation.description))
            .collect();
        if unnamed > 0 {
            listed.push(format!("and {unnamed} more"));
        }
        Self {
            fields,
            ..Self::new(
                Code::InvalidArgument,
                Reason::InvalidField,
                listed.join("; "),
            )
        }
    }

    /// INVALID_ARGUMENT for one field.
    pub fn invalid_field(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::invalid(vec![FieldViolation {
            field: field.into(),
            description: description.into(),
        }])
    }

    /// NOT_FOUND; also what another tenant's resource answers, so that it gives no hint.
    pub fn not_found(what: impl fmt::Display) -> Self {
        Self::bare(Code::NotFound, format!("{what} not found"))
    }

    /// ALREADY_EXISTS.
    pub fn already_exists(message: impl Into<String>) -> Self {
        Self::bare(Code::AlreadyExists, message)
    }

    /// FAILED_PRECONDITION: the call is right, the state is not.
    pub fn failed_precondition(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(Code::FailedPrecondition, reason, message)
    }

    /// ABORTED: read again, then try again.
    pub fn aborted(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(Code::Aborted, reason, message)
    }

    /// PERMISSION_DENIED: known, and not allowed.
    pub fn permission_denied(message: impl Into<String>) -> Self {
        Self::new(Code::PermissionDenied, Reason::NotAuthorized, message)
    }

    /// UNAUTHENTICATED: who calls is not known, or tenant or user is missing.
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(Code::Unauthenticated, Reason::IdentityMissing, message)
    }

    /// UNAVAILABLE: the same call may succeed after `retry_after`.
    pub fn unavailable(message: impl Into<String>, retry_after: Duration) -> Self {
        Self {
            retry_after: Some(retry_after),
            ..Self::bare(Code::Unavailable, message)
        }
    }

    /// OUT_OF_RANGE: a cursor or a span that is not kept.
    pub fn out_of_range(message: impl Into<String>) -> Self {
        Self::bare(Code::OutOfRange, message)
    }

    /// UNIMPLEMENTED: the method stands in the contract and is not built yet.
    pub fn unimplemented(method: &str) -> Self {
        Self::bare(
            Code::Unimplemented,
            format!("{method} is not available in this version"),
        )
    }

    /// INTERNAL: logs `cause` once, as an error that a person must look at, and tells the caller nothing of it.
    ///
    /// The request id that operators search for is added where the answer is encoded.
    pub fn internal(cause: &(dyn Error + 'static)) -> Self {
        tracing::error!(event = "internal_error", error = %Chain(cause), "a call failed for a reason that is not the caller's");
        Self::bare(
            Code::Internal,
            "an internal error occurred; give the operator the request id",
        )
    }

    /// The same problem, to be tried again after `retry_after`.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    /// The same problem, with a value for programs.
    #[must_use]
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl fmt::Display) -> Self {
        self.metadata.insert(key.into(), value.to_string());
        self
    }

    /// The reason as it travels: the enum value without its prefix, `SYNC_LOCKED`; empty where there is none.
    pub fn reason_name(&self) -> &'static str {
        self.reason.map_or("", reason_name)
    }

    /// The same problem as the outcome of one item of a batch.
    pub fn into_item_error(self, id: impl Into<String>) -> contracts::common::v1::ItemError {
        contracts::common::v1::ItemError {
            id: id.into(),
            code: self.code as i32,
            reason: self.reason_name().to_owned(),
            message: self.message,
            retry_after: self
                .retry_after
                .and_then(|duration| duration.try_into().ok()),
        }
    }
}

/// A reason as it travels: without the enum's prefix.
pub fn reason_name(reason: Reason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("ERROR_REASON_").unwrap_or(name)
}

/// The reason that travels under this name.
pub fn reason_from_name(name: &str) -> Option<Reason> {
    Reason::from_str_name(&format!("ERROR_REASON_{name}"))
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Problem {}

/// Prints an error with each of its sources: "the grant cannot be read: the database is gone: connection refused".
#[derive(Debug)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
