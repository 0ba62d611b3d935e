//! Pauses between attempts: doubling, with full jitter.

use std::time::Duration;

use common::Deps;

/// Pauses that grow.
#[derive(Clone, Debug)]
pub struct Backoff {
    deps: Deps,
    first: Duration,
    longest: Duration,
    attempts: u32,
}

impl Backoff {
    /// The first pause is up to `first`, each further one up to twice as long, none longer than `longest`.
    pub fn new(deps: &Deps, first: Duration, longest: Duration) -> Self {
        Self {
            deps: deps.clone(),
            first,
            longest,
            attempts: 0,
        }
    }

    /// How many pauses there were since the last success.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// It worked: the next pause is a first one.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// Waits.
    pub async fn pause(&mut self) {
        let span = self
            .first
            .saturating_mul(2_u32.saturating_pow(self.attempts))
            .min(self.longest);
        self.attempts += 1;
        let part = f64::from(u32::from_be_bytes(self.deps.random())) / f64::from(u32::MAX);
        tokio::time::sleep(span.mul_f64(part)).await;
    }
}
