//! A tenant's configuration, as it comes with a request.

use common::validate::Fields;
use contracts::directory::v1 as contract;
use prost_types::value::Kind;
use prost_types::{FieldMask, Struct, Value};
use serde_json::Value as Json;

use super::mask;
use crate::field_path::FieldPath;
use crate::json;
use crate::tenant_config::{ConfigChange, Section};

/// What an update is to change.
pub(crate) fn changes(
    fields: &mut Fields,
    config: &contract::TenantConfig,
    given: Option<&FieldMask>,
) -> Vec<ConfigChange> {
    let all = Section::ALL.map(Section::as_str);
    let populated = || {
        let set = Section::ALL
            .into_iter()
            .filter(|section| object(config, *section).is_some());
        set.map(|section| mask::of(section.as_str())).collect()
    };
    let paths = mask::paths(fields, given, populated, &all, |path| {
        section_of(path).is_some()
    });
    let mut changes = Vec::new();
    for path in paths {
        let Some(section) = section_of(&path) else {
            continue;
        };
        let keys = &path.segments()[1..];
        let value = find(object(config, section), keys);
        match value.map(json::from_value).transpose() {
            Ok(value) => changes.push(ConfigChange {
                section,
                path: keys.to_vec(),
                value: storable(fields, &path, value),
            }),
            Err(error) => fields.violate(format!("config.{path}"), error),
        }
    }
    changes
}

fn section_of(path: &FieldPath) -> Option<Section> {
    Section::ALL
        .into_iter()
        .find(|section| Some(section.as_str()) == path.segments().first().map(String::as_str))
}

fn object(config: &contract::TenantConfig, section: Section) -> Option<&Struct> {
    match section {
        Section::FieldMappings => config.field_mappings.as_ref(),
        Section::RiskRules => config.risk_rules.as_ref(),
        Section::PriorityWeights => config.priority_weights.as_ref(),
    }
}

/// The value at these keys; `None` where there is none, and it is to be cleared.
fn find(object: Option<&Struct>, keys: &[String]) -> Option<Value> {
    let whole = Value {
        kind: Some(Kind::StructValue(object?.clone())),
    };
    keys.iter().try_fold(whole, |at, key| match at.kind {
        Some(Kind::StructValue(mut inner)) => inner.fields.remove(key),
        _ => None,
    })
}

/// Postgres keeps every text but those with a NUL in them.
fn storable(fields: &mut Fields, path: &FieldPath, value: Option<Json>) -> Option<Json> {
    let has_nul =
        path.segments().iter().any(|key| key.contains('\0')) || value.as_ref().is_some_and(has_nul);
    fields.check(
        !has_nul,
        format!("config.{path}"),
        "must not have NUL characters in it",
    );
    value
}

fn has_nul(value: &Json) -> bool {
    match value {
        Json::String(text) => text.contains('\0'),
        Json::Array(values) => values.iter().any(has_nul),
        Json::Object(object) => object
            .iter()
            .any(|(key, value)| key.contains('\0') || has_nul(value)),
        Json::Null | Json::Bool(_) | Json::Number(_) => false,
    }
}
