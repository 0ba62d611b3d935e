//! Metrics by OpenTelemetry's semantic conventions for database clients.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Histogram, Meter};

use super::Error;

/// Seconds; from a tenth of a millisecond, as most statements take less than one.
const BOUNDARIES: [f64; 14] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];

/// What is measured of one database.
pub(super) struct Metrics {
    operation: Histogram<f64>,
    wait: Histogram<f64>,
    schema: &'static str,
}

impl Metrics {
    pub(super) fn new(meter: &Meter, schema: &'static str, pool: &deadpool_postgres::Pool) -> Self {
        observe(meter, schema, pool);
        Self {
            operation: meter
                .f64_histogram("db.client.operation.duration")
                .with_unit("s")
                .with_description("How long statements take, by name")
                .with_boundaries(BOUNDARIES.to_vec())
                .build(),
            wait: meter
                .f64_histogram("db.client.connection.wait_time")
                .with_unit("s")
                .with_description("How long calls wait for a connection")
                .with_boundaries(BOUNDARIES.to_vec())
                .build(),
            schema,
        }
    }

    pub(super) fn statement(&self, name: &str, took: Duration, error: Option<&Error>) {
        let mut attributes = vec![
            KeyValue::new("db.system.name", "postgresql"),
            KeyValue::new("db.namespace", self.schema),
            KeyValue::new("db.query.summary", name.to_owned()),
        ];
        if let Some(error) = error {
            let kind = error.sqlstate().map_or_else(
                || {
                    if error.is_unavailable() {
                        "unavailable"
                    } else {
                        "other"
                    }
                    .to_owned()
                },
                str::to_owned,
            );
            attributes.push(KeyValue::new("error.type", kind));
        }
        self.operation.record(took.as_secs_f64(), &attributes);
    }

    pub(super) fn waited(&self, took: Duration) {
        self.wait.record(
            took.as_secs_f64(),
            &[KeyValue::new("db.client.connection.pool.name", self.schema)],
        );
    }
}

/// The pool's gauges. They hold the pool weakly, so that a closed database can go.
fn observe(meter: &Meter, schema: &'static str, pool: &deadpool_postgres::Pool) {
    let name = KeyValue::new("db.client.connection.pool.name", schema);
    let (weak, attribute) = (pool.weak(), name.clone());
    meter
        .i64_observable_up_down_counter("db.client.connection.count")
        .with_unit("{connection}")
        .with_description("Connections by state")
        .with_callback(move |observer| {
            if let Some(status) = weak.upgrade().map(|pool| pool.status()) {
                let state = |value| {
                    [
                        attribute.clone(),
                        KeyValue::new("db.client.connection.state", value),
                    ]
                };
                observer.observe(status.available as i64, &state("idle"));
                observer.observe(
                    status.size.saturating_sub(status.available) as i64,
                    &state("used"),
                );
            }
        })
        .build();
    let (weak, attribute) = (pool.weak(), name.clone());
    meter
        .i64_observable_up_down_counter("db.client.connection.max")
        .with_unit("{connection}")
        .with_description("The most connections there may be")
        .with_callback(move |observer| {
            if let Some(pool) = weak.upgrade() {
                observer.observe(
                    pool.status().max_size as i64,
                    std::slice::from_ref(&attribute),
                );
            }
        })
        .build();
    let weak = pool.weak();
    meter
        .i64_observable_up_down_counter("db.client.connection.pending_requests")
        .with_unit("{request}")
        .with_description("Calls that wait for a connection")
        .with_callback(move |observer| {
            if let Some(pool) = weak.upgrade() {
                observer.observe(pool.status().waiting as i64, std::slice::from_ref(&name));
            }
        })
        .build();
}
