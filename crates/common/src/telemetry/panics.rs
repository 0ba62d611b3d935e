//! Panics are logged like everything else, with their place, and sent at once, in case the process does not live on.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;
use std::sync::{Mutex, Weak};
use std::time::Duration;

use super::Inner;
use crate::{Clock as _, SystemClock};

/// A panic holds its thread up for so long at most.
const PATIENCE: Duration = Duration::from_millis(500);

/// Requests that panic one after the other do not wait for the collector each time.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) fn install(telemetry: Weak<Inner>) {
    let last_flush = Mutex::new(None);
    std::panic::set_hook(Box::new(move |panic| {
        log(panic);
        let now = SystemClock.boottime();
        let due = last_flush.lock().is_ok_and(|mut last| {
            let due = last.is_none_or(|last| now.saturating_sub(last) > PAUSE);
            if due {
                *last = Some(now);
            }
            due
        });
        if due && let Some(telemetry) = telemetry.upgrade() {
            // If it cannot be sent, standard error has it.
            let _ = telemetry.flush(PATIENCE);
        }
    }));
}

fn log(panic: &PanicHookInfo<'_>) {
    let message = panic
        .payload_as_str()
        .unwrap_or("a panic without a message");
    let location = panic.location().map(ToString::to_string);
    let thread = std::thread::current();
    let backtrace = Backtrace::capture();
    let backtrace =
        (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(
        event = "panic",
        location,
        thread = thread.name(),
        backtrace,
        "panicked: {message}",
    );
}
