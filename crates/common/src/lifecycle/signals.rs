//! The signals that end a process, as a stream, so that tests can send their own.

use std::io;

use futures::Stream;
use futures::stream::unfold;
use tokio::signal::unix::{SignalKind, signal};

/// A signal that asks the process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: somebody at a terminal.
    Interrupt,
    /// SIGTERM: whoever started the process.
    Terminate,
}

impl Signal {
    /// What a shell reports for a process that the signal ended.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 128 + 2,
            Self::Terminate => 128 + 15,
        }
    }

    /// `SIGINT` or `SIGTERM`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }
}

/// The process's own signals from now on; they no longer end it by themselves.
pub fn signals() -> io::Result<impl Stream<Item = Signal>> {
    let listeners = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    Ok(unfold(listeners, async |(mut interrupt, mut terminate)| {
        let signal = tokio::select! {
            Some(()) = interrupt.recv() => Signal::Interrupt,
            Some(()) = terminate.recv() => Signal::Terminate,
            else => return None,
        };
        Some((signal, (interrupt, terminate)))
    }))
}
