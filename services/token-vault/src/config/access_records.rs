//! How long access records are kept.

use common::config::{Duration, Problems, Validate};
use serde::{Deserialize, Serialize};

use crate::access_records::Day;

const DAY: u64 = 24 * 60 * 60;

/// How access records are kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessRecordsConfig {
    /// For how long at least: whole days, at most 412.
    pub retention: Duration,
}

impl Default for AccessRecordsConfig {
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(400 * DAY),
        }
    }
}

impl Validate for AccessRecordsConfig {
    fn validate(&self, problems: &mut Problems) {
        let most = u64::from(Day::MOST_KEPT) * DAY;
        problems.check(
            (DAY..=most).contains(&self.retention.get().as_secs()),
            "retention",
            format!("must be \"1d\" to \"{}d\"", Day::MOST_KEPT),
        );
    }
}
