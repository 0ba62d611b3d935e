//! What is counted over all jobs.

use http::StatusCode;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter};

/// Counters, by provider and stream.
#[derive(Debug)]
pub(crate) struct Metrics {
    calls: Counter<u64>,
    bytes: Counter<u64>,
    records: Counter<u64>,
}

impl Metrics {
    pub(crate) fn new(meter: &Meter) -> Self {
        Self {
            calls: meter
                .u64_counter("hawser.sync.api_calls")
                .with_description("Calls to providers' APIs")
                .build(),
            bytes: meter
                .u64_counter("hawser.sync.bytes_read")
                .with_unit("By")
                .with_description("Bytes read from providers' APIs")
                .build(),
            records: meter
                .u64_counter("hawser.sync.records")
                .with_description("Records read from providers' APIs, by what became of them")
                .build(),
        }
    }

    /// A call, and its answer's status where there was one.
    pub(crate) fn called(
        &self,
        provider: &str,
        stream: &str,
        status: Option<StatusCode>,
        bytes: usize,
    ) {
        let status = status.map_or_else(|| "none".to_owned(), |status| status.as_u16().to_string());
        let stream = [
            KeyValue::new("provider", provider.to_owned()),
            KeyValue::new("stream", stream.to_owned()),
        ];
        self.bytes.add(bytes as u64, &stream);
        let [provider, stream] = stream;
        self.calls.add(
            1,
            &[
                provider,
                stream,
                KeyValue::new("http.response.status_code", status),
            ],
        );
    }

    /// What became of records.
    pub(crate) fn recorded(
        &self,
        provider: &str,
        stream: &str,
        outcome: &'static str,
        records: i64,
    ) {
        if records > 0 {
            let labels = [
                KeyValue::new("provider", provider.to_owned()),
                KeyValue::new("stream", stream.to_owned()),
                KeyValue::new("outcome", outcome),
            ];
            self.records.add(records.unsigned_abs(), &labels);
        }
    }
}
