//! One text for each JSON value: no space, keys in order, strings escaped in one way, numbers as they were written.
//!
//! Two documents that say the same have the same hash, however their provider orders keys. Numbers keep their digits:
//! parsing them would make two large ones that differ the same.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::value::RawValue;

/// Deeper ones are refused: providers' records are shallow, and each level is read once more.
const MOST_LEVELS: usize = 32;

/// Why a text has no canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotCanonical {
    /// It is not JSON in UTF-8.
    #[error("must be JSON in UTF-8")]
    NotJson,
    /// It is nested too deeply.
    #[error("must not be nested deeper than {MOST_LEVELS} levels")]
    TooDeep,
}

/// SHA-256 over the canonical form.
pub(crate) fn hash(json: &[u8]) -> Result<[u8; 32], NotCanonical> {
    let text = canonical(json)?;
    Ok(digest(&SHA256, text.as_bytes())
        .as_ref()
        .try_into()
        .expect("SHA-256 has 32 bytes"))
}

fn canonical(json: &[u8]) -> Result<String, NotCanonical> {
    let text = std::str::from_utf8(json).map_err(|_| NotCanonical::NotJson)?;
    let mut out = String::with_capacity(text.len());
    let value = read::<&RawValue>(text)?;
    write(value, MOST_LEVELS, &mut out)?;
    Ok(out)
}

fn write(value: &RawValue, levels: usize, out: &mut String) -> Result<(), NotCanonical> {
    let text = value.get();
    match text.as_bytes().first() {
        Some(b'{') => {
            let levels = levels.checked_sub(1).ok_or(NotCanonical::TooDeep)?;
            // Of two values under one key the last one counts, as almost every reader has it.
            let fields: BTreeMap<String, &RawValue> = read(text)?;
            out.push('{');
            for (index, (key, value)) in fields.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                push_string(&key, out);
                out.push(':');
                write(value, levels, out)?;
            }
            out.push('}');
        }
        Some(b'[') => {
            let levels = levels.checked_sub(1).ok_or(NotCanonical::TooDeep)?;
            let values: Vec<&RawValue> = read(text)?;
            out.push('[');
            for (index, value) in values.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(value, levels, out)?;
            }
            out.push(']');
        }
        Some(b'"') => push_string(&read::<String>(text)?, out),
        _ => out.push_str(text),
    }
    Ok(())
}

fn read<'a, T: serde::Deserialize<'a>>(text: &'a str) -> Result<T, NotCanonical> {
    serde_json::from_str(text).map_err(|error| {
        if error.to_string().starts_with("recursion limit") {
            NotCanonical::TooDeep
        } else {
            NotCanonical::NotJson
        }
    })
}

fn push_string(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn what_says_the_same_is_the_same_text() {
        let one = canonical(br#" {"b": [1, 2.50, {"y":1,"x":"\u00e9\/"}], "a" : null } "#);
        assert_eq!(
            one.as_deref(),
            Ok(r#"{"a":null,"b":[1,2.50,{"x":"é/","y":1}]}"#)
        );
        assert_eq!(
            canonical(one.expect("it has one").as_bytes()).as_deref(),
            Ok(r#"{"a":null,"b":[1,2.50,{"x":"é/","y":1}]}"#)
        );
    }

    #[test]
    fn large_numbers_stay_apart() {
        assert_ne!(hash(b"9007199254740993"), hash(b"9007199254740992"));
        assert_ne!(hash(b"[1]"), hash(b"[1,1]"));
    }

    #[test]
    fn what_is_no_json_or_too_deep_is_refused() {
        for text in ["", "{", "[1,]", "{\"a\":1,}", "nul", "1 2", "\u{feff}1"] {
            assert_eq!(hash(text.as_bytes()), Err(NotCanonical::NotJson), "{text}");
        }
        assert_eq!(hash(b"\"\xff\""), Err(NotCanonical::NotJson));
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(hash(nested(MOST_LEVELS).as_bytes()).is_ok());
        for depth in [MOST_LEVELS + 1, 127, 100_000] {
            assert_eq!(
                hash(nested(depth).as_bytes()),
                Err(NotCanonical::TooDeep),
                "{depth}"
            );
        }
    }

    proptest! {
        #[test]
        fn the_form_says_what_the_text_says(keys in prop::collection::btree_map("\\PC{0,6}", any::<i64>(), 0..8)) {
            let text = serde_json::to_string(&keys).expect("a map is JSON");
            let canonical = canonical(text.as_bytes()).expect("it is JSON");
            let (there, back): (Value, Value) = (
                serde_json::from_str(&text).expect("JSON"),
                serde_json::from_str(&canonical).expect("JSON"),
            );
            prop_assert_eq!(there, back);
        }
    }
}
