//! Background loops: each one idempotent step, and a loop around it.

pub(crate) mod connections;
pub(crate) mod schedules;
