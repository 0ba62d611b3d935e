//! Points at which a crash test can end or stop the process. Without the feature `failpoints` they are not there.
//!
//! `HAWSER_VAULT_FAILPOINT` says at which, and how:
//!
//! - `answered`: SIGKILL, at this point;
//! - `answered=stop`: SIGSTOP, the first time;
//! - `random:17:400`: SIGKILL at one of the next 400 points, whichever that is; 17 is the seed.
//!
//! `HAWSER_VAULT_FAILPOINT_LOG` names a file to which each point is added when it is reached.
//! `HAWSER_VAULT_REPLAY_WINDOW` is a number of seconds that stands in for what the catalogue says of a provider, so that a
//! simulated one can have a window of its own.

#[cfg(feature = "failpoints")]
mod armed;

#[cfg(feature = "failpoints")]
pub(crate) use armed::{reach, replay_window};

/// Nothing happens.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub(crate) fn reach(_point: &'static str, _grant: uuid::Uuid) {}

/// What the catalogue says.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub(crate) fn replay_window(
    catalogue: provider_catalog::ReplayWindow,
) -> provider_catalog::ReplayWindow {
    catalogue
}
