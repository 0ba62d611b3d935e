//! The trace of a webhook, exported over OTLP and read back: whole from the hook to the provider, across the job.

use std::collections::{BTreeMap, BTreeSet};

use e2e::Home;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;

use crate::path;
use crate::sink::Sink;
use crate::system::System;
use crate::webhooks;

/// A span's place: its trace, and its own id.
type Place = (Vec<u8>, Vec<u8>);

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_of_a_webhook_is_whole() {
    let sink = Sink::default();
    let endpoint = format!("http://{}", sink.serve().await);
    let home = Home::new().expect("a folder");
    let up = home.up().set("telemetry.otlp.endpoint", &endpoint);
    let system = System::of(up.start().await.expect("hawser up becomes ready"));
    let connected = path::connected(&system, "trace").await;
    path::initial_sync(&system, &connected).await;
    let source = path::source(
        &system,
        &connected,
        "standard-webhooks",
        webhooks::SECRET,
        &["projects"],
    )
    .await;
    let account = connected
        .connection
        .active_account
        .as_ref()
        .expect("it has one");
    let body = webhooks::body(&account.external_account_id, 1);
    let sent = webhooks::send(&system, &source, "msg_traced", &body).await;
    assert!(sent.is_success(), "{sent}");
    let job = path::synced(&system, &source, "msg_traced").await;

    let hook = source
        .url
        .rsplit('/')
        .next()
        .expect("a URL has a path")
        .to_owned();

    // What was not sent yet is sent before it ends.
    system.hawser.finish().await;
    let spans = sink.spans();
    let chain = chain(&spans, &job.job_id).unwrap_or_else(|missing| panic!("{missing}"));
    let root = spans
        .iter()
        .find(|span| place(span) == chain[0])
        .expect("it is in the chain");
    assert!(root.parent_span_id.is_empty(), "{} has a parent", root.name);
    orphans(&spans, &chain);
    // The token in the hook's address lets its holder send events.
    for span in &spans {
        assert!(
            !format!("{span:?}").contains(&hook),
            "{} tells a source's token",
            span.name
        );
    }
}

/// The stations of a webhook, from the provider's call back to the hook: each leads to the next by its parents and links.
const STATIONS: [&str; 5] = [
    "webhook.received",
    "rpc.SyncService/TriggerSync",
    "job.",
    "rpc.ConnectionService/GetRequestContext",
    "rpc.TokenVaultService/GetCredential",
];

/// The places of the stations of the job's webhook, the hook first, the provider's call last.
fn chain(spans: &[Span], job_id: &str) -> Result<Vec<Place>, String> {
    let by_place: BTreeMap<_, _> = spans.iter().map(|span| (place(span), span)).collect();
    let of_job = spans
        .iter()
        .find(|span| span.name.starts_with("job.") && tells(span, job_id))
        .ok_or_else(|| "no span of the job".to_owned())?;
    let before = behind(&by_place, of_job);
    let mut stations = Vec::new();
    for station in &STATIONS[..2] {
        let found = before.iter().find(|place| names(by_place[*place], station));
        let found = found.ok_or_else(|| format!("`{station}` does not lead to the job"))?;
        stations.push(found.clone());
    }
    stations.push(place(of_job));
    for station in &STATIONS[3..] {
        stations.push(after(
            &by_place,
            spans,
            of_job,
            |span| names(span, station),
            station,
        )?);
    }
    stations.push(after(
        &by_place,
        spans,
        of_job,
        is_provider_call,
        "a call to the provider",
    )?);
    Ok(stations)
}

/// A span behind which the job is.
fn after(
    by_place: &BTreeMap<Place, &Span>,
    spans: &[Span],
    of_job: &Span,
    is_station: impl Fn(&Span) -> bool,
    station: &str,
) -> Result<Place, String> {
    let job = place(of_job);
    let found = spans
        .iter()
        .filter(|span| is_station(span))
        .find(|span| behind(by_place, span).contains(&job));
    found
        .map(place)
        .ok_or_else(|| format!("the job does not lead to {station}"))
}

/// Everything that led to a span: its parents, what they are linked with, and so on.
fn behind(by_place: &BTreeMap<Place, &Span>, span: &Span) -> BTreeSet<Place> {
    let mut found = BTreeSet::new();
    let mut open = vec![place(span)];
    while let Some(next) = open.pop() {
        let Some(span) = by_place.get(&next) else {
            continue;
        };
        if !found.insert(next) {
            continue;
        }
        if !span.parent_span_id.is_empty() {
            open.push((span.trace_id.clone(), span.parent_span_id.clone()));
        }
        let links = span.links.iter();
        open.extend(links.map(|link| (link.trace_id.clone(), link.span_id.clone())));
    }
    found
}

/// Each span of the chain's traces has its parent there.
fn orphans(spans: &[Span], chain: &[Place]) {
    let places: BTreeSet<_> = spans.iter().map(place).collect();
    let traces: BTreeSet<_> = chain.iter().map(|(trace, _)| trace).collect();
    let orphans: Vec<_> = spans
        .iter()
        .filter(|span| traces.contains(&span.trace_id) && !span.parent_span_id.is_empty())
        .filter(|span| !places.contains(&(span.trace_id.clone(), span.parent_span_id.clone())))
        .map(|span| span.name.as_str())
        .collect();
    assert!(
        orphans.is_empty(),
        "their parents were not sent: {orphans:?}"
    );
}

fn place(span: &Span) -> Place {
    (span.trace_id.clone(), span.span_id.clone())
}

fn names(span: &Span, station: &str) -> bool {
    span.name.starts_with(station)
}

fn is_provider_call(span: &Span) -> bool {
    span.attributes.iter().any(|attribute| {
        let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
        attribute.key.starts_with("url.")
            && matches!(value, Some(Value::StringValue(text)) if text.contains("/rest/v1.0/projects"))
    })
}

fn tells(span: &Span, text: &str) -> bool {
    span.attributes.iter().any(|attribute| {
        let value = attribute
            .value
            .as_ref()
            .and_then(|value| value.value.as_ref());
        matches!(value, Some(Value::StringValue(told)) if told == text)
    })
}
