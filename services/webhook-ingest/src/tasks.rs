//! Background loops, each one idempotent step and a loop around it.

pub(crate) mod calendar;
pub(crate) mod processing;
