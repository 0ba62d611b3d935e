//! `google.protobuf.Struct` as JSON, and back.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct};
use serde_json::Value;

/// The struct as a JSON object. Numbers without a fraction stay whole.
pub(crate) fn of_struct(fields: &Struct) -> Value {
    let fields = fields.fields.iter();
    Value::Object(
        fields
            .map(|(key, value)| (key.clone(), of_value(value)))
            .collect(),
    )
}

fn of_value(value: &prost_types::Value) -> Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(flag)) => Value::Bool(*flag),
        Some(Kind::StringValue(text)) => Value::String(text.clone()),
        Some(Kind::StructValue(fields)) => of_struct(fields),
        Some(Kind::ListValue(list)) => Value::Array(list.values.iter().map(of_value).collect()),
        #[expect(
            clippy::float_cmp,
            reason = "whether the number is whole is exactly what is asked"
        )]
        Some(Kind::NumberValue(number))
            if number.trunc() == *number && number.abs() < 9_007_199_254_740_992.0 =>
        {
            Value::from(*number as i64)
        }
        Some(Kind::NumberValue(number)) => Value::from(*number),
    }
}

/// The JSON object as a struct; nothing where it is no object.
pub(crate) fn to_struct(value: &Value) -> Option<Struct> {
    let Value::Object(fields) = value else {
        return None;
    };
    let fields = fields
        .iter()
        .map(|(key, value)| (key.clone(), to_value(value)))
        .collect();
    Some(Struct { fields })
}

fn to_value(value: &Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(flag) => Kind::BoolValue(*flag),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(values) => Kind::ListValue(ListValue {
            values: values.iter().map(to_value).collect(),
        }),
        Value::Object(_) => Kind::StructValue(to_struct(value).unwrap_or_default()),
    };
    prost_types::Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn there_and_back_again() {
        let value = json!({"tolerance": "10m", "n": 3, "f": 1.5, "on": true, "none": null, "keys": {"account": ["json:/a"]}});
        assert_eq!(
            of_struct(&to_struct(&value).expect("it is an object")),
            value
        );
        assert_eq!(to_struct(&json!([1])), None);
    }
}
