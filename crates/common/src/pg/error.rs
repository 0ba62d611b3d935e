//! What can go wrong between us and the database, sorted by what a caller can do about it.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::PgConfigError;
use crate::Problem;

/// A statement, a transaction, or a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server refused a statement.
    #[error("the statement {statement} failed")]
    Statement {
        /// The statement's name.
        statement: String,
        /// What the server said.
        #[source]
        source: Box<ServerError>,
    },
    /// The connection was lost while a statement ran; whether it took effect is not known.
    #[error("the connection was lost during {statement}")]
    Lost {
        /// The statement's name.
        statement: String,
        /// What tokio-postgres said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// No answer within the statement's time; whether it took effect is not known.
    #[error("the database did not answer {statement} within {limit:?}")]
    Silent {
        /// The statement's name.
        statement: String,
        /// How long we waited.
        limit: Duration,
    },
    /// The server cannot be reached, or does not let us in.
    #[error("the database cannot be connected to")]
    Connect(#[source] tokio_postgres::Error),
    /// Every connection is busy, and stayed so.
    #[error("no free connection to the database within {0:?}")]
    PoolTimeout(Duration),
    /// The pool was closed: the process is on its way out.
    #[error("the connection pool is closed")]
    Closed,
    /// A statement that must give one row gave none, or several.
    #[error("the statement {statement} gave {rows} rows instead of one")]
    RowCount {
        /// The statement's name.
        statement: String,
        /// How many.
        rows: usize,
    },
    /// A parameter or a column is not of the type that the statement has it in.
    #[error("a parameter or column does not fit its type")]
    Type(#[source] tokio_postgres::Error),
    /// A transaction's body went on after a failed statement, and wanted to commit.
    #[error("the transaction {transaction} cannot commit: one of its statements failed")]
    Aborted {
        /// The transaction's name.
        transaction: String,
    },
    /// The configuration cannot be used.
    #[error("the database's configuration cannot be used")]
    Config(#[from] PgConfigError),
}

/// What the server said, without the values in question: those may be personal.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message} (SQLSTATE {code})")]
pub struct ServerError {
    /// The SQLSTATE.
    pub code: String,
    /// The primary message.
    pub message: String,
    /// The violated constraint.
    pub constraint: Option<String>,
    /// The table.
    pub table: Option<String>,
}

/// What a caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass<'a> {
    /// There is such a row already.
    UniqueViolation {
        /// Which constraint or index.
        constraint: &'a str,
    },
    /// The row referred to is not there, or is still referred to.
    ForeignKeyViolation {
        /// Which constraint.
        constraint: &'a str,
    },
    /// A value outside of what the schema allows.
    CheckViolation {
        /// Which constraint.
        constraint: &'a str,
    },
    /// Another transaction came first; run the transaction again.
    SerializationFailure,
    /// Two transactions waited for each other; run the transaction again.
    Deadlock,
    /// The database is away, starting, stopping, or full; try again later. A COMMIT may have taken effect.
    Unavailable,
    /// Every connection is busy; try again later.
    PoolTimeout,
    /// A mistake of ours.
    Other,
}

impl Error {
    /// What can be done about it.
    pub fn class(&self) -> ErrorClass<'_> {
        match self {
            Self::Statement { source, .. } => source.class(),
            Self::Connect(source)
                if source.code().is_none_or(|code| is_unavailable(code.code())) =>
            {
                ErrorClass::Unavailable
            }
            Self::Lost { .. } | Self::Silent { .. } | Self::Closed => ErrorClass::Unavailable,
            Self::PoolTimeout(_) => ErrorClass::PoolTimeout,
            Self::Connect(_)
            | Self::RowCount { .. }
            | Self::Type(_)
            | Self::Aborted { .. }
            | Self::Config(_) => ErrorClass::Other,
        }
    }

    /// The violated constraint's name.
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Statement { source, .. } => source.constraint.as_deref(),
            _ => None,
        }
    }

    /// The SQLSTATE, where the server gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Statement { source, .. } => Some(&source.code),
            Self::Connect(source) => source.code().map(SqlState::code),
            _ => None,
        }
    }

    /// Whether it will pass by itself: the database is away, or every connection is busy.
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self.class(),
            ErrorClass::Unavailable | ErrorClass::PoolTimeout
        )
    }

    /// Whether running the whole transaction again is the remedy.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.class(),
            ErrorClass::SerializationFailure | ErrorClass::Deadlock
        )
    }

    /// What a caller is told: UNAVAILABLE with a time to try again, or INTERNAL.
    pub fn problem(&self) -> Problem {
        if self.is_unavailable() || self.is_retryable() {
            tracing::warn!(
                event = "database_unavailable",
                error = %crate::problem::Chain(self),
                "a call was refused because the database was not available"
            );
            Problem::unavailable(
                "the database is not available at the moment",
                Duration::from_secs(1),
            )
        } else {
            Problem::internal(self)
        }
    }

    /// Sorts what tokio-postgres reports for a statement.
    pub(super) fn of_statement(statement: &str, source: tokio_postgres::Error) -> Self {
        let statement = statement.to_owned();
        if let Some(server) = source.as_db_error() {
            let source = Box::new(ServerError {
                code: server.code().code().to_owned(),
                message: server.message().to_owned(),
                constraint: server.constraint().map(str::to_owned),
                table: server.table().map(str::to_owned),
            });
            Self::Statement { statement, source }
        } else if source.is_closed() || is_io(&source) {
            Self::Lost { statement, source }
        } else {
            Self::Type(source)
        }
    }

    /// Whether the connection is of no further use, or its state not known.
    pub(super) fn is_fatal_to_connection(&self) -> bool {
        match self {
            Self::Statement { source, .. } => source.ends_session(),
            Self::RowCount { .. } | Self::Type(_) | Self::Aborted { .. } => false,
            _ => true,
        }
    }
}

/// A row's column that does not fit what is asked of it: `row.try_get("x")?`.
impl From<tokio_postgres::Error> for Error {
    fn from(source: tokio_postgres::Error) -> Self {
        Self::of_statement("of a row", source)
    }
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        error.problem()
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        error.problem()
    }
}

impl ServerError {
    fn class(&self) -> ErrorClass<'_> {
        let constraint = self.constraint.as_deref().unwrap_or_default();
        match self.code.as_str() {
            "23505" | "23P01" => ErrorClass::UniqueViolation { constraint },
            "23503" => ErrorClass::ForeignKeyViolation { constraint },
            "23514" | "23502" => ErrorClass::CheckViolation { constraint },
            "40001" => ErrorClass::SerializationFailure,
            "40P01" => ErrorClass::Deadlock,
            code if is_unavailable(code) => ErrorClass::Unavailable,
            _ => ErrorClass::Other,
        }
    }

    fn ends_session(&self) -> bool {
        self.code.starts_with("08")
            || matches!(
                self.code.as_str(),
                "57P01" | "57P02" | "57P03" | "57P05" | "25P03"
            )
    }
}

/// Connection exceptions, no resources, the server going down or coming up, a statement cancelled for its time, a session
/// ended for its idleness, and a primary that has become a standby.
fn is_unavailable(code: &str) -> bool {
    code.starts_with("08")
        || code.starts_with("53")
        || matches!(
            code,
            "57014" | "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25006" | "55P03"
        )
}

fn is_io(error: &tokio_postgres::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause.is::<std::io::Error>() {
            return true;
        }
        source = cause.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: &str) -> Error {
        let source = Box::new(ServerError {
            code: code.to_owned(),
            message: "m".to_owned(),
            constraint: Some("tenants_pkey".to_owned()),
            table: None,
        });
        Error::Statement {
            statement: "directory.tenant_create".to_owned(),
            source,
        }
    }

    #[test]
    fn sqlstates_are_sorted() {
        assert_eq!(
            error("23505").class(),
            ErrorClass::UniqueViolation {
                constraint: "tenants_pkey"
            }
        );
        assert_eq!(error("40001").class(), ErrorClass::SerializationFailure);
        assert_eq!(error("40P01").class(), ErrorClass::Deadlock);
        for code in ["08006", "53300", "57P01", "57P03", "25P03", "57014"] {
            assert_eq!(error(code).class(), ErrorClass::Unavailable, "{code}");
            assert_eq!(
                error(code).problem().retry_after,
                Some(Duration::from_secs(1))
            );
        }
        assert_eq!(error("42601").class(), ErrorClass::Other);
        assert_eq!(error("42601").problem().code, crate::Code::Internal);
    }
}
