#![doc = include_str!("../README.md")]

mod backoff;
mod config;
mod heartbeat;
mod job;
mod lease;
mod outcome;
mod scheduler;
mod span;
mod worker;

pub use backoff::Backoff;
pub use config::WorkerConfig;
pub use lease::{Lease, Stop};
pub use outcome::{Completion, Failure, Outcome};
pub use worker::{Handler, Worker};

pub use contracts::scheduler::v1::{FailureKind, Job, JobKind, Progress, TriggerSource};
