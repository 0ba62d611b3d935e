//! What is told about a call, and what is not.
//!
//! A binary of its own with one test: whether a span is made at all is decided once per process.

#[expect(
    dead_code,
    reason = "the other tests' server, of which a part is needed here"
)]
#[path = "../it/server.rs"]
mod server;

use std::io;
use std::sync::{Arc, Mutex};

use common::Secret;
use egress::Request;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt as _;

use server::{Act, Server, client, ok};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .expect("one writer at a time")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn checklist_57_no_query_header_or_body_is_told_and_the_trace_goes_on() {
    let log = Log::default();
    let writer = log.clone();
    let text = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_span_events(FmtSpan::FULL)
        .with_writer(move || writer.clone());
    let provider = SdkTracerProvider::builder().build();
    let traces = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(text).with(traces))
        .expect("the only one");

    let acts = vec![
        Act::Write(ok("canary")),
        Act::WriteAndClose(b"canary".to_vec()),
    ];
    let mut server = Server::start(acts).await;
    for _ in 0..2 {
        let request = Request::post(server.url("/oauth/token?code=canary"))
            .bearer(&Secret::from("canary"))
            .form([("refresh_token", "canary")]);
        let outcome = client().send(request).await;
        tracing::info!(?outcome, "the call is over");
        if let Err(error) = outcome {
            tracing::info!(%error, "the call failed");
        }
        let seen = server.request().await;
        assert!(seen.contains("\r\ntraceparent: 00-"), "{seen}");
    }
    let text = String::from_utf8(log.0.lock().expect("nobody writes").clone()).expect("text");
    let told = [
        "http.client",
        "url.path=\"/oauth/token\"",
        "http.response.status_code=200",
        "error.type=\"malformed\"",
        "the call failed",
    ];
    for expected in told {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    assert!(!text.contains("canary"), "{text}");
}
