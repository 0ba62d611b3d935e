//! Background loops; each is one idempotent step and a loop around it.

mod grant_events;
mod reaper;

pub(crate) use grant_events::follow_grants;
pub(crate) use reaper::reap;
