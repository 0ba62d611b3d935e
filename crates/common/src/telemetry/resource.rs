//! What this process is, by OpenTelemetry's semantic conventions.

use std::collections::BTreeMap;

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;

use crate::{Rng as _, SystemRng};

pub(super) fn resource(service: &str, more: &BTreeMap<String, String>) -> Resource {
    let mut attributes = vec![
        KeyValue::new("service.name", service.to_owned()),
        KeyValue::new("service.namespace", "hawser"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", instance_id()),
        KeyValue::new("process.pid", i64::from(std::process::id())),
    ];
    if let Some(host) = host_name() {
        attributes.push(KeyValue::new("host.name", host));
    }
    attributes.extend(
        more.iter()
            .map(|(name, value)| KeyValue::new(name.clone(), value.clone())),
    );
    Resource::builder().with_attributes(attributes).build()
}

/// A random UUID, as the conventions recommend where nothing else tells instances apart.
fn instance_id() -> String {
    let mut bytes = [0; 16];
    SystemRng.fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes)
        .into_uuid()
        .to_string()
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned())
}
