//! JSON that is taken apart without being converted: records stay the bytes that they were, and so do numbers, whatever
//! their size.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::schema::Pointer;

/// A value that is not the JSON that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotJson;

/// An object, its values as they were written.
#[derive(Debug)]
pub(crate) struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Object<'a> {
    pub(crate) fn read(raw: &'a RawValue) -> Result<Self, NotJson> {
        serde_json::from_str(raw.get()).map_err(|_| NotJson)
    }

    fn get(&self, name: &str) -> Option<&'a RawValue> {
        // Of names that come twice the last counts, as it does for most readers.
        let found = self.0.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, value)| *value)
    }

    /// What stands at the pointer, which does not name the object itself.
    pub(crate) fn find(&self, pointer: &Pointer) -> Option<&'a RawValue> {
        let (first, rest) = pointer.names().split_first()?;
        descend(self.get(first)?, rest)
    }
}

/// The whole document.
pub(crate) fn document(body: &[u8]) -> Result<&RawValue, NotJson> {
    serde_json::from_slice(body).map_err(|_| NotJson)
}

/// What stands at the pointer.
pub(crate) fn find<'a>(raw: &'a RawValue, pointer: &Pointer) -> Option<&'a RawValue> {
    descend(raw, pointer.names())
}

fn descend<'a>(raw: &'a RawValue, names: &[String]) -> Option<&'a RawValue> {
    let mut found = raw;
    for name in names {
        found = match found.get().as_bytes().first()? {
            b'{' => Object::read(found).ok()?.get(name)?,
            b'[' => *list(found).ok()?.get(name.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    Some(found)
}

/// The values of a list.
pub(crate) fn list(raw: &RawValue) -> Result<Vec<&RawValue>, NotJson> {
    serde_json::from_str(raw.get()).map_err(|_| NotJson)
}

/// A string as it is, a number as it was written; nothing else, and nothing empty.
pub(crate) fn text(raw: &RawValue) -> Option<String> {
    let written = raw.get();
    match written.as_bytes().first()? {
        b'"' => serde_json::from_str(written)
            .ok()
            .filter(|text: &String| !text.is_empty()),
        b'-' | b'0'..=b'9' => Some(written.to_owned()),
        _ => None,
    }
}

/// Whether the value says yes by being there.
pub(crate) fn is_set(raw: &RawValue) -> bool {
    !matches!(raw.get(), "false" | "null")
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    fields.push((name, value));
                }
                Ok(Object(fields))
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// A name, borrowed where it has no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer(text: &str) -> Pointer {
        Pointer::try_from(text.to_owned()).expect("a pointer")
    }

    fn at(body: &str, path: &str) -> Option<String> {
        let raw = document(body.as_bytes()).expect("JSON");
        find(raw, &pointer(path)).map(|found| found.get().to_owned())
    }

    #[test]
    fn pointers_lead_through_objects_and_lists() {
        let body = r#"{"a": {"b~/c": [10, {"d": "x"}]}, "@odata.nextLink": "y"}"#;
        assert_eq!(at(body, "/a/b~0~1c/1/d").as_deref(), Some("\"x\""));
        assert_eq!(at(body, "/@odata.nextLink").as_deref(), Some("\"y\""));
        assert_eq!(at(body, "").as_deref(), Some(body));
        assert_eq!(at(body, "/a/b~0~1c/7"), None);
        assert_eq!(at(body, "/a/x/y"), None);
    }

    #[test]
    fn ids_of_any_size_survive() {
        let raw = document(b"{\"id\": 9223372036854775807123, \"f\": 1.50, \"s\": \"a\\u00e9\", \"e\": \"\", \"o\": {}}").expect("JSON");
        let text_at = |path| find(raw, &pointer(path)).and_then(text);
        assert_eq!(text_at("/id").as_deref(), Some("9223372036854775807123"));
        assert_eq!(text_at("/f").as_deref(), Some("1.50"));
        assert_eq!(text_at("/s").as_deref(), Some("aé"));
        assert_eq!(text_at("/e"), None);
        assert_eq!(text_at("/o"), None);
    }

    #[test]
    fn what_is_cut_off_is_no_document() {
        assert!(document(b"{\"value\": [1,").is_err());
        assert!(document(b"[1] [2]").is_err());
        assert!(document(b"").is_err());
    }
}
