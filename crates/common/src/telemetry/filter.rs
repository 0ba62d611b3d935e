//! What is logged, what is traced, and what never is.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{FilterFn, LevelFilter, filter_fn};

/// Crates whose debugging output shows headers, statements' parameters or frames, and so secrets: of these, nothing
/// below INFO is ever logged, whatever the filter says.
const INDISCREET: [&str; 10] = [
    "aws_sigv4",
    "h2",
    "hyper",
    "hyper_util",
    "postgres",
    "reqwest",
    "rustls",
    "tokio_postgres",
    "tonic",
    "tower",
];

/// The directives that decide what is logged; clones are the same one.
#[derive(Clone)]
pub struct LogFilter(Arc<Shared>);

struct Shared {
    apply: Box<dyn Fn(EnvFilter) -> bool + Send + Sync>,
    state: Mutex<State>,
}

struct State {
    current: String,
    /// What is returned to when a temporary filter ends.
    lasting: String,
    /// Raised by every change, so that the end of an overtaken temporary filter does nothing.
    changes: u64,
}

/// The filter in force.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LogFilterState {
    /// The directives now.
    pub filter: String,
    /// The directives that will be returned to, if these are for a time only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub then: Option<String>,
}

/// Directives that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// Nothing at all.
    #[error("must not be empty; write a level such as `info`, or `info,token_vault=debug`")]
    Empty,
    /// A misspelt level would be taken for a crate, and switch everything else off.
    #[error(
        "`{0}` is no level (error, warn, info, debug, trace, off); for a crate of that name write `{0}=trace`"
    )]
    BareWord(String),
    /// Not the grammar of directives.
    #[error("must be directives such as `info,token_vault=debug`: {0}")]
    Syntax(tracing_subscriber::filter::ParseError),
    /// The subscriber has gone, which happens when the process ends.
    #[error("the log has ended")]
    Gone,
}

/// Reads directives.
pub(super) fn parse(directives: &str) -> Result<EnvFilter, FilterError> {
    if directives.trim().is_empty() {
        return Err(FilterError::Empty);
    }
    for directive in directives
        .split(',')
        .map(str::trim)
        .filter(|text| !text.is_empty())
    {
        let word = directive
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_:-".contains(c));
        if word && directive.parse::<LevelFilter>().is_err() {
            return Err(FilterError::BareWord(directive.to_owned()));
        }
    }
    EnvFilter::builder()
        .parse(directives)
        .map_err(FilterError::Syntax)
}

/// Keeps the debugging output of [`INDISCREET`] crates out of every log.
pub(super) fn discreet() -> FilterFn {
    filter_fn(|metadata| *metadata.level() <= Level::INFO || !is_indiscreet(metadata))
}

/// Spans are traced from INFO up, whatever is logged; of events, only WARN and ERROR are put into spans.
pub(super) fn traced() -> FilterFn {
    filter_fn(|metadata| {
        let least = if metadata.is_span() {
            Level::INFO
        } else {
            Level::WARN
        };
        *metadata.level() <= least && !is_indiscreet(metadata) && !is_about_telemetry(metadata)
    })
}

/// What telemetry has to say about itself is written to standard error, never exported.
pub(super) fn exported() -> FilterFn {
    filter_fn(|metadata| !is_about_telemetry(metadata))
}

fn is_indiscreet(metadata: &Metadata<'_>) -> bool {
    INDISCREET.contains(&crate_of(metadata))
}

fn is_about_telemetry(metadata: &Metadata<'_>) -> bool {
    let about = crate_of(metadata);
    about.starts_with("opentelemetry") || metadata.target().starts_with(super::export::TARGET)
}

fn crate_of<'a>(metadata: &Metadata<'a>) -> &'a str {
    let target = metadata.target();
    target.split_once("::").map_or(target, |(name, _)| name)
}

impl LogFilter {
    pub(super) fn new(
        directives: &str,
        apply: impl Fn(EnvFilter) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Shared {
            apply: Box::new(apply),
            state: Mutex::new(State {
                current: directives.to_owned(),
                lasting: directives.to_owned(),
                changes: 0,
            }),
        }))
    }

    /// The directives in force.
    pub fn current(&self) -> LogFilterState {
        let state = self.state();
        LogFilterState {
            filter: state.current.clone(),
            then: (state.current != state.lasting).then(|| state.lasting.clone()),
        }
    }

    /// Logs by `directives` from now on.
    pub fn set(&self, directives: &str) -> Result<(), FilterError> {
        self.change(directives, true).map(|_| ())
    }

    /// Logs by `directives` for `time`, and then by the last ones that were set to stay. Needs a Tokio runtime.
    pub fn set_for(&self, directives: &str, time: Duration) -> Result<(), FilterError> {
        let change = self.change(directives, false)?;
        let filter = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            filter.return_from(change);
        });
        Ok(())
    }

    fn change(&self, directives: &str, lasting: bool) -> Result<u64, FilterError> {
        let directives = directives.trim();
        let filter = parse(directives)?;
        let mut state = self.state();
        if !(self.0.apply)(filter) {
            return Err(FilterError::Gone);
        }
        directives.clone_into(&mut state.current);
        if lasting {
            directives.clone_into(&mut state.lasting);
        }
        state.changes += 1;
        Ok(state.changes)
    }

    fn return_from(&self, change: u64) {
        let mut state = self.state();
        if state.changes != change {
            return;
        }
        // What was in force once parses again; a log that has ended needs no filter.
        if let Ok(filter) = parse(&state.lasting)
            && (self.0.apply)(filter)
        {
            let lasting = state.lasting.clone();
            state.current.clone_from(&lasting);
            state.changes += 1;
            drop(state);
            tracing::info!(
                event = "log_filter_changed",
                filter = lasting,
                "the log filter's time is over"
            );
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogFilter").field(&self.current()).finish()
    }
}
