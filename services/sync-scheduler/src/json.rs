//! `google.protobuf.Struct` as JSON.

use prost_types::value::Kind;
use serde_json::{Map, Value};

/// The struct as a JSON object. Numbers without a fraction stay whole.
pub(crate) fn of_struct(fields: &prost_types::Struct) -> Value {
    Value::Object(
        fields
            .fields
            .iter()
            .map(|(key, value)| (key.clone(), of_value(value)))
            .collect::<Map<_, _>>(),
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
