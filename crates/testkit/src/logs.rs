//! A log that is looked into: a warning or an error that the test does not expect makes it fail.
//!
//! nextest runs each test in a process of its own, so the log of the process is the test's. Under `cargo test`, where
//! tests share one, what others log is found too: run one at a time there.

use std::fmt::{self, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

static CAPTURED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The log since [`capture`]. When it is dropped, everything in it must have been expected.
#[derive(Debug)]
#[must_use = "it looks into the log when it is dropped"]
pub struct Logs {
    expected: Mutex<Vec<String>>,
}

/// Begins to look at warnings and errors; also prints the log, for tests that fail.
pub fn capture() -> Logs {
    let printed = tracing_subscriber::fmt::layer()
        .with_test_writer()
        .with_filter(tracing_subscriber::filter::LevelFilter::INFO);
    let _ = tracing_subscriber::registry()
        .with(Capture)
        .with(printed)
        .try_init();
    captured().clear();
    Logs {
        expected: Mutex::default(),
    }
}

impl Logs {
    /// Warnings and errors with this text in them are as they should be.
    pub fn expect(&self, text: impl Into<String>) {
        self.expected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(text.into());
    }

    /// The warnings and errors so far: `WARN common::pg: message field=value`.
    pub fn lines(&self) -> Vec<String> {
        captured().clone()
    }

    /// Those that nobody expects.
    pub fn unexpected(&self) -> Vec<String> {
        let expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        self.lines()
            .into_iter()
            .filter(|line| !expected.iter().any(|text| line.contains(text.as_str())))
            .collect()
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        let unexpected = self.unexpected();
        // A test that fails anyway says why by itself.
        assert!(
            unexpected.is_empty() || thread::panicking(),
            "unexpected in the log:\n{}",
            unexpected.join("\n")
        );
    }
}

fn captured() -> MutexGuard<'static, Vec<String>> {
    CAPTURED.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Capture;

impl<S: Subscriber> Layer<S> for Capture {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN {
            return;
        }
        let mut line = Line {
            message: String::new(),
            fields: String::new(),
        };
        event.record(&mut line);
        captured().push(format!(
            "{} {}: {}{}",
            metadata.level(),
            metadata.target(),
            line.message,
            line.fields
        ));
    }
}

struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}
