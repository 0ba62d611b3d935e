//! Time, randomness, and the meter, as objects that are handed in once, when a service is built.
//!
//! `clippy.toml` bans the ambient forms, so that tests can replace each of these.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use opentelemetry::metrics::Meter;
use time::OffsetDateTime;

use crate::Secret;

/// What a service is built with.
#[derive(Clone, Debug)]
pub struct Deps {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness fit for keys.
    pub rng: Arc<dyn Rng>,
    /// Where metrics are made.
    pub meter: Meter,
}

/// Tells the time.
pub trait Clock: Send + Sync + Debug {
    /// The wall clock, UTC.
    fn now(&self) -> OffsetDateTime;
    /// A clock that only moves forward, also while the machine is suspended (`CLOCK_BOOTTIME`), for judging leases.
    fn boottime(&self) -> Duration;
}

/// Makes random bytes.
pub trait Rng: Send + Sync + Debug {
    /// Fills `bytes` with randomness fit for keys.
    fn fill(&self, bytes: &mut [u8]);
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// The operating system's and aws-lc's generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRng;

impl Deps {
    /// The real ones; `name` is the meter's scope.
    pub fn system(name: &'static str) -> Self {
        Self {
            clock: Arc::new(SystemClock),
            rng: Arc::new(SystemRng),
            meter: opentelemetry::global::meter(name),
        }
    }

    /// The wall clock, UTC.
    pub fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }

    /// `N` random bytes.
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill(&mut bytes);
        bytes
    }

    /// `prefix` and 256 random bits in base64url.
    pub fn token(&self, prefix: &str) -> Secret<String> {
        let bytes: [u8; 32] = self.random();
        Secret::new(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is where the time comes from"
    )]
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }

    fn boottime(&self) -> Duration {
        nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
            .expect("Linux has had CLOCK_BOOTTIME since 2.6.39")
            .into()
    }
}

impl Rng for SystemRng {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is where randomness comes from"
    )]
    fn fill(&self, bytes: &mut [u8]) {
        aws_lc_rs::rand::fill(bytes)
            .expect("the operating system's generator does not fail once it is seeded");
    }
}
