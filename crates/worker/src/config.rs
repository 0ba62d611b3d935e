//! How much a worker takes on.

use common::config::{Duration, Problems, Validate};
use serde::{Deserialize, Serialize};

/// How much a worker takes on, and of what.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerConfig {
    /// Jobs at a time.
    pub concurrency: usize,
    /// A job that has not been heard of for so long is given to another worker.
    pub lease: Duration,
    /// How long one call waits for work.
    pub wait: Duration,
    /// Only jobs of these providers; of any where empty.
    pub providers: Vec<String>,
    /// Only jobs from these queues; from `connectors` where empty.
    pub queues: Vec<String>,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            concurrency: 8,
            lease: Duration::from_secs(30),
            wait: Duration::from_secs(20),
            providers: Vec::new(),
            queues: Vec::new(),
        }
    }
}

impl Validate for WorkerConfig {
    fn validate(&self, problems: &mut Problems) {
        problems.check(
            (1..=1024).contains(&self.concurrency),
            "concurrency",
            "must be from 1 to 1024",
        );
        let lease = self.lease.get().as_secs_f64();
        problems.check(
            (3.0..=600.0).contains(&lease),
            "lease",
            "must be from 3s to 10m",
        );
        problems.check(
            self.wait.get().as_secs() <= 60,
            "wait",
            "must be 60s or less",
        );
    }
}
