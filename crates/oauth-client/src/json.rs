//! Reading a provider's JSON with bounds, and leaving its secrets out.

use serde_json::{Map, Value};

/// Deeper documents are refused (checklist 55).
const DEPTH_LIMIT: usize = 32;

/// A JSON document of bounded depth.
pub(crate) fn parse(bytes: &[u8]) -> Option<Value> {
    if depth(bytes) > DEPTH_LIMIT {
        return None;
    }
    serde_json::from_slice(bytes).ok()
}

/// A JSON object; else the members of a form, as GitHub sends it to whoever does not ask for JSON.
pub(crate) fn object_or_form(bytes: &[u8]) -> Option<Map<String, Value>> {
    if let Some(value) = parse(bytes) {
        return match value {
            Value::Object(members) => Some(members),
            _ => None,
        };
    }
    let text = str::from_utf8(bytes).ok()?.trim();
    if text.starts_with(['{', '[', '<']) {
        return None;
    }
    let members: Map<_, _> = url::form_urlencoded::parse(text.as_bytes())
        .map(|(name, value)| (name.into_owned(), Value::String(value.into_owned())))
        .collect();
    // Any text is some form; only one with a member of the protocol is meant as one.
    (members.contains_key("access_token") || members.contains_key("error")).then_some(members)
}

/// The deepest nesting, without building anything.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The document without anything that is, or is named like, a secret.
pub(crate) fn without_secrets(members: Map<String, Value>, known: &[&str]) -> Map<String, Value> {
    members
        .into_iter()
        .filter(|(name, _)| !is_secret_name(name))
        .filter_map(|(name, value)| Some((name, strip(value, known)?)))
        .collect()
}

fn strip(value: Value, known: &[&str]) -> Option<Value> {
    match value {
        Value::String(text)
            if known
                .iter()
                .any(|secret| !secret.is_empty() && text.contains(secret)) =>
        {
            None
        }
        Value::Object(members) => Some(Value::Object(without_secrets(members, known))),
        Value::Array(items) => Some(
            items
                .into_iter()
                .filter_map(|item| strip(item, known))
                .collect(),
        ),
        other => Some(other),
    }
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let exact = [
        "token",
        "secret",
        "password",
        "code",
        "assertion",
        "api_key",
        "apikey",
        "code_verifier",
        "device_code",
    ];
    exact.contains(&name.as_str())
        || [
            "_token",
            "_secret",
            "_password",
            "accesstoken",
            "refreshtoken",
            "idtoken",
        ]
        .iter()
        .any(|end| name.ends_with(end))
}
