//! `google.protobuf.Struct` and JSON.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use serde_json::{Map, Number, Value as Json};

use crate::tenant_config::Object;

/// A value that JSON cannot say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JsonError {
    #[error("must not hold NaN or an infinite number")]
    NotFinite,
    #[error("must not be nested deeper than 16 levels")]
    TooDeep,
}

const DEEPEST: usize = 16;
/// Up to here every whole number is a double of its own (2⁵³).
const EXACT: f64 = 9_007_199_254_740_992.0;

/// An object as a Struct, whose numbers are doubles.
pub(crate) fn to_struct(object: Object) -> Struct {
    Struct {
        fields: object
            .into_iter()
            .map(|(key, value)| (key, to_value(value)))
            .collect(),
    }
}

/// A value of a Struct; whole numbers become whole numbers.
pub(crate) fn from_value(from: Value) -> Result<Json, JsonError> {
    value(from, DEEPEST)
}

fn to_value(json: Json) -> Value {
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(value),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        Json::String(text) => Kind::StringValue(text),
        Json::Array(values) => Kind::ListValue(ListValue {
            values: values.into_iter().map(to_value).collect(),
        }),
        Json::Object(object) => Kind::StructValue(to_struct(object)),
    };
    Value { kind: Some(kind) }
}

fn object(from: Struct, levels: usize) -> Result<Object, JsonError> {
    from.fields
        .into_iter()
        .map(|(key, from)| Ok((key, value(from, levels)?)))
        .collect::<Result<Map<_, _>, _>>()
}

fn value(from: Value, levels: usize) -> Result<Json, JsonError> {
    let inner = levels.checked_sub(1).ok_or(JsonError::TooDeep)?;
    Ok(match from.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(value)) => Json::Bool(value),
        Some(Kind::NumberValue(number)) => number_of(number)?,
        Some(Kind::StringValue(text)) => Json::String(text),
        Some(Kind::StructValue(from)) => Json::Object(object(from, inner)?),
        Some(Kind::ListValue(list)) => Json::Array(
            list.values
                .into_iter()
                .map(|from| value(from, inner))
                .collect::<Result<_, _>>()?,
        ),
    })
}

fn number_of(number: f64) -> Result<Json, JsonError> {
    if number.fract() == 0.0 && number.abs() <= EXACT {
        return Ok(Json::from(number as i64));
    }
    Number::from_f64(number)
        .map(Json::Number)
        .ok_or(JsonError::NotFinite)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn any_json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            (-1_000_000_000_000_i64..1_000_000_000_000).prop_map(Json::from),
            (-1e6..1e6)
                .prop_filter("whole numbers are integers", |n: &f64| n.fract() != 0.0)
                .prop_map(Json::from),
            "\\PC{0,8}".prop_map(Json::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
                prop::collection::btree_map("\\PC{0,4}", inner, 0..4)
                    .prop_map(|map| Json::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn there_and_back(json in any_json()) {
            prop_assert_eq!(from_value(to_value(json.clone())), Ok(json));
        }
    }

    #[test]
    fn what_json_cannot_say_is_refused() {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(
                from_value(Value {
                    kind: Some(Kind::NumberValue(number))
                }),
                Err(JsonError::NotFinite)
            );
        }
        let deep = (0..17).fold(json!(1), |inner, _| json!([inner]));
        assert_eq!(from_value(to_value(deep)), Err(JsonError::TooDeep));
    }
}
