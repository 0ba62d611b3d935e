//! What can go wrong in the vault, and what a caller is told of it.

use std::sync::Arc;
use std::time::Duration;

use common::problem::FieldViolation;
use common::{Code, Problem, Reason};
use provider_catalog::ReauthorizationCause;

use crate::access_records::NotRecorded;
use crate::grant::FailureKind;
use crate::keys::KeysError;
use crate::providers::ResolveError;
use crate::refresh_grant::RefreshError;
use crate::settle_answer::SettleError;
use crate::spool::SpoolError;
use crate::store::{StoreError, shredded};

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No such grant for this tenant.
    #[error("there is no such grant")]
    GrantNotFound,
    /// No such token in the grant.
    #[error("the grant has no token of that name")]
    TokenNotFound,
    /// No such OAuth client for this tenant.
    #[error("there is no such OAuth client")]
    ClientNotFound,
    /// The request does not fit.
    #[error("the request does not fit")]
    Invalid(Vec<FieldViolation>),
    /// The grant's id is taken by another exchange.
    #[error("the grant exists already")]
    GrantExists,
    /// The grant has another version.
    #[error("the grant is at version {actual}")]
    VersionMismatch { actual: i64 },
    /// The user has to connect again.
    #[error("the user has to connect again")]
    ReauthorizationRequired { cause: Option<ReauthorizationCause> },
    /// It was revoked.
    #[error("the grant was revoked")]
    GrantRevoked,
    /// The grant cannot be refreshed.
    #[error("the grant cannot be refreshed")]
    NotRefreshable,
    /// The provider refuses the client, or it cannot be used as it is.
    #[error("the OAuth client cannot be used: {error}")]
    Misconfigured { error: String },
    /// The provider does not answer as it should.
    #[error("the provider is not available")]
    ProviderUnavailable { wait: Duration },
    /// The provider limits the rate.
    #[error("the provider limits the rate")]
    RateLimited { wait: Duration },
    /// The code was used, or is too old.
    #[error("the provider does not take the authorization: {error}")]
    AuthorizationExpired { error: String },
    /// Nobody has consented on the other device yet.
    #[error("nobody has consented on the other device yet")]
    AuthorizationPending {
        wait: Duration,
        /// Whether the provider was asked too often.
        slow_down: bool,
    },
    /// No token is ever good for that long.
    #[error("a token lives {lifetime:?}")]
    DemandTooLong { lifetime: Duration },
    /// Another call changed it meanwhile.
    #[error("another call changed the OAuth client meanwhile")]
    Conflict,
    /// The database.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// The same, told to several callers.
    #[error("the store failed")]
    SharedStore(#[source] Arc<StoreError>),
    /// The keys.
    #[error("the keys failed")]
    Keys(#[from] KeysError),
    /// The same, told to several callers.
    #[error("the keys failed")]
    SharedKeys(#[source] Arc<KeysError>),
    /// The disk.
    #[error("the spool failed")]
    Spool(#[from] SpoolError),
    /// The same, told to several callers.
    #[error("the spool failed")]
    SharedSpool(#[source] Arc<SpoolError>),
    /// An answer could not be stored.
    #[error("the provider's answer was not stored")]
    Settle(#[from] SettleError),
    /// The vault is stopping.
    #[error("the vault is stopping")]
    Stopping,
    /// The record cannot be written.
    #[error(transparent)]
    NotRecorded(#[from] NotRecorded),
}

const COME_AGAIN: Duration = Duration::from_secs(1);

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::GrantNotFound => Self::not_found("grant"),
            Error::TokenNotFound => Self::not_found("token"),
            Error::ClientNotFound => Self::not_found("OAuth client"),
            Error::Invalid(fields) => Self::invalid(fields),
            Error::GrantExists => Self::already_exists(
                "a grant with this id exists already; to put new tokens into it, name its version",
            ),
            Error::VersionMismatch { actual } => Self::aborted(
                Reason::EtagMismatch,
                "the grant has changed: read it, then try again",
            )
            .with_metadata("version", actual),
            Error::ReauthorizationRequired { cause } => reauthorization(cause),
            Error::GrantRevoked => {
                Self::failed_precondition(Reason::GrantRevoked, "the grant was revoked")
            }
            Error::NotRefreshable => Self::failed_precondition(
                Reason::ReauthorizationRequired,
                "the grant has no refresh token: its user has to connect again for new tokens",
            ),
            Error::Misconfigured { error } => Self::failed_precondition(
                Reason::IntegrationMisconfigured,
                format!("the integration's owner has to look at its OAuth client: {error}"),
            ),
            Error::ProviderUnavailable { wait } => Self::new(
                Code::Unavailable,
                Reason::ProviderUnavailable,
                "the provider gave no new tokens; try again later",
            )
            .with_retry_after(wait),
            Error::RateLimited { wait } => Self::new(
                Code::Unavailable,
                Reason::ProviderRateLimited,
                "the provider limits the rate; try again later",
            )
            .with_retry_after(wait),
            Error::AuthorizationExpired { error } => Self::failed_precondition(
                Reason::AuthorizationExpired,
                format!("the provider does not take the authorization, so begin again: {error}"),
            ),
            Error::AuthorizationPending { wait, slow_down } => Self::failed_precondition(
                Reason::AuthorizationPending,
                "nobody has consented on the other device yet: ask again",
            )
            .with_retry_after(wait)
            .with_metadata("slow_down", slow_down),
            Error::DemandTooLong { lifetime } => Self::out_of_range(format!(
                "min_validity must be at most four fifths of the token's life, which is {} seconds",
                lifetime.as_secs()
            )),
            Error::Conflict => Self::aborted(
                Reason::EtagMismatch,
                "another call changed the OAuth client meanwhile: try again",
            ),
            Error::Store(error) | Error::Settle(SettleError::Store(error)) => error.problem(),
            Error::SharedStore(error) => error.problem(),
            Error::Keys(error) | Error::Settle(SettleError::Keys(error)) => keys(&error),
            Error::SharedKeys(error) => keys(&error),
            Error::Spool(error) | Error::Settle(SettleError::Spool(error)) => {
                Self::internal(&error)
            }
            Error::SharedSpool(error) => Self::internal(&*error),
            Error::Stopping => Self::unavailable("the vault is stopping", COME_AGAIN),
            Error::NotRecorded(_) => Self::unavailable(
                "the access record cannot be written at the moment, so nothing is handed out",
                COME_AGAIN,
            ),
        }
    }
}

impl From<RefreshError> for Error {
    fn from(error: RefreshError) -> Self {
        match error {
            RefreshError::NotFound => Self::GrantNotFound,
            RefreshError::Ended => Self::ReauthorizationRequired { cause: None },
            RefreshError::NotRefreshable => Self::NotRefreshable,
            RefreshError::Provider {
                kind: FailureKind::RateLimited,
                wait,
            } => Self::RateLimited { wait },
            RefreshError::Provider { wait, .. } => Self::ProviderUnavailable { wait },
            RefreshError::Misconfigured { error } => Self::Misconfigured { error },
            RefreshError::Pending => Self::ProviderUnavailable { wait: COME_AGAIN },
            RefreshError::Store(error) => Self::SharedStore(error),
            RefreshError::Keys(error) => Self::SharedKeys(error),
            RefreshError::Spool(error) => Self::SharedSpool(error),
        }
    }
}

impl From<ResolveError> for Error {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::Parameters(violations) => Self::Invalid(violations),
            ResolveError::Keys(error) => Self::Keys(error),
            error if error.is_transient() => Self::ProviderUnavailable { wait: COME_AGAIN },
            error => Self::Misconfigured {
                error: common::problem::Chain(&error).to_string(),
            },
        }
    }
}

fn reauthorization(cause: Option<ReauthorizationCause>) -> Problem {
    let problem = Problem::failed_precondition(
        Reason::ReauthorizationRequired,
        "the provider refused the grant: its user has to connect again",
    );
    match cause {
        Some(cause) => problem.with_metadata("cause", cause_name(cause)),
        None => problem,
    }
}

/// As the contract names it, without the enum's prefix.
fn cause_name(cause: ReauthorizationCause) -> &'static str {
    match cause {
        ReauthorizationCause::Revoked => "REVOKED",
        ReauthorizationCause::Expired => "EXPIRED",
        ReauthorizationCause::LostRotation => "LOST_ROTATION",
        ReauthorizationCause::AccountDisabled => "ACCOUNT_DISABLED",
        ReauthorizationCause::AdminAction => "ADMIN_ACTION",
        ReauthorizationCause::InteractionRequired => "INTERACTION_REQUIRED",
    }
}

fn keys(error: &KeysError) -> Problem {
    match error {
        KeysError::Store(error) => error.problem(),
        KeysError::Shredded => shredded(),
        error if error.is_unavailable() => {
            Problem::unavailable("the key service is not available at the moment", COME_AGAIN)
        }
        error => Problem::internal(error),
    }
}
