//! What is measured of refreshes.

use std::time::Duration;

use common::Deps;
use opentelemetry::KeyValue;
use opentelemetry::metrics::Histogram;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct RefreshMetrics {
    duration: Histogram<f64>,
}

impl RefreshMetrics {
    pub(crate) fn new(deps: &Deps) -> Self {
        Self {
            duration: deps
                .meter
                .f64_histogram("hawser.vault.refresh.duration")
                .with_unit("s")
                .with_description("From the lease to the stored answer, by provider and outcome")
                .build(),
        }
    }

    /// A request was made under the lease. `error` is the failure's class.
    pub(crate) fn refreshed(&self, provider: &str, took: Duration, error: Option<&'static str>) {
        let mut attributes = vec![KeyValue::new("provider", provider.to_owned())];
        attributes.extend(error.map(|class| KeyValue::new("error.type", class)));
        self.duration.record(took.as_secs_f64(), &attributes);
    }
}
