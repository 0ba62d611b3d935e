//! Reading a few values out of a JSON body without building the whole of it in memory.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Deeper bodies are not read.
pub(crate) const MAX_DEPTH: usize = 32;

/// Longer values are no ids.
const MAX_VALUE: usize = 512;

/// A JSON Pointer (RFC 6901), in which `*` stands for each element of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Each,
    Named(String),
}

impl Path {
    pub(crate) fn parse(pointer: &str) -> Option<Self> {
        let segments = pointer
            .strip_prefix('/')?
            .split('/')
            .map(|segment| match segment {
                "*" => Segment::Each,
                _ => Segment::Named(segment.replace("~1", "/").replace("~0", "~")),
            });
        let segments: Vec<_> = segments.collect();
        (segments.len() < MAX_DEPTH).then_some(Self(segments))
    }
}

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    NotJson,
    TooDeep,
}

/// The strings, whole numbers and booleans at each path, in the order of the body; numbers as digits.
pub(crate) fn find(json: &[u8], paths: &[&Path]) -> Result<Vec<Vec<String>>, Unreadable> {
    if is_deeper_than(json, MAX_DEPTH) {
        return Err(Unreadable::TooDeep);
    }
    let mut found = vec![Vec::new(); paths.len()];
    let wanted = paths
        .iter()
        .enumerate()
        .map(|(slot, path)| Wanted {
            slot,
            rest: &path.0,
        })
        .collect();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    Collect {
        wanted,
        found: &mut found,
    }
    .deserialize(&mut deserializer)
    .and_then(|()| deserializer.end())
    .map_err(|_| Unreadable::NotJson)?;
    Ok(found)
}

/// Counts brackets outside of strings; whether it is JSON at all is for the parser to say.
fn is_deeper_than(json: &[u8], max: usize) -> bool {
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    for byte in json {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > max {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// What remains of a path at the place where the parser is.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    slot: usize,
    rest: &'a [Segment],
}

/// Takes one value, and goes on into it where a path does; everything else is skipped.
struct Collect<'a, 'f> {
    wanted: Vec<Wanted<'a>>,
    found: &'f mut [Vec<String>],
}

impl<'a> Collect<'a, '_> {
    /// What is wanted below a member or an element.
    fn below(&self, matches: impl Fn(&Segment) -> bool) -> Vec<Wanted<'a>> {
        let steps = self.wanted.iter().filter_map(|wanted| {
            let (first, rest) = wanted.rest.split_first()?;
            matches(first).then_some(Wanted {
                slot: wanted.slot,
                rest,
            })
        });
        steps.collect()
    }

    fn take(&mut self, value: &str) {
        if value.is_empty() || value.len() > MAX_VALUE {
            return;
        }
        for wanted in self.wanted.iter().filter(|wanted| wanted.rest.is_empty()) {
            self.found[wanted.slot].push(value.to_owned());
        }
    }
}

impl<'de> DeserializeSeed<'de> for Collect<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.wanted.is_empty() {
            return deserializer.deserialize_ignored_any(IgnoredAny).map(|_| ());
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Collect<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            let wanted =
                self.below(|segment| matches!(segment, Segment::Named(other) if *other == name));
            map.next_value_seed(Collect {
                wanted,
                found: &mut *self.found,
            })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        for index in 0_usize.. {
            let wanted = self.below(|segment| match segment {
                Segment::Each => true,
                Segment::Named(name) => name.parse() == Ok(index),
            });
            if seq
                .next_element_seed(Collect {
                    wanted,
                    found: &mut *self.found,
                })?
                .is_none()
            {
                break;
            }
        }
        Ok(())
    }

    fn visit_str<E>(mut self, value: &str) -> Result<(), E> {
        self.take(value);
        Ok(())
    }

    fn visit_u64<E>(mut self, value: u64) -> Result<(), E> {
        self.take(&value.to_string());
        Ok(())
    }

    fn visit_i64<E>(mut self, value: i64) -> Result<(), E> {
        self.take(&value.to_string());
        Ok(())
    }

    fn visit_bool<E>(mut self, value: bool) -> Result<(), E> {
        self.take(if value { "true" } else { "false" });
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(json: &str, pointers: &[&str]) -> Result<Vec<Vec<String>>, Unreadable> {
        let paths: Vec<_> = pointers
            .iter()
            .map(|pointer| Path::parse(pointer).expect("valid"))
            .collect();
        find(json.as_bytes(), &paths.iter().collect::<Vec<_>>())
    }

    #[test]
    fn values_are_found_by_pointer() {
        let json = r#"{"a": {"b": 7, "c/d": "x", "~": true}, "list": [{"id": "one"}, {"id": -2}, {"no": 1}], "f": 1.5, "n": null}"#;
        let pointers = [
            "/a/b",
            "/a/c~1d",
            "/a/~0",
            "/list/*/id",
            "/list/1/id",
            "/f",
            "/n",
            "/a",
            "/gone",
        ];
        let expected: [&[&str]; 9] = [
            &["7"],
            &["x"],
            &["true"],
            &["one", "-2"],
            &["-2"],
            &[],
            &[],
            &[],
            &[],
        ];
        assert_eq!(found(json, &pointers).expect("readable"), expected);
    }

    #[test]
    fn overlapping_paths_are_both_found() {
        let json = r#"{"a": [{"b": 1}, {"b": 2}]}"#;
        let found = found(json, &["/a/*/b", "/a/0/b", "/a/*/b"]).expect("readable");
        assert_eq!(found, [vec!["1", "2"], vec!["1"], vec!["1", "2"]]);
    }

    #[test]
    fn what_is_no_json_gives_nothing() {
        for json in ["", "{", r#"{"a": 1} x"#, r#"{"a": 1"#, "a=1", "\u{feff}{}"] {
            assert_eq!(found(json, &["/a"]), Err(Unreadable::NotJson), "{json}");
        }
    }

    #[test]
    fn depth_is_bounded_and_brackets_in_strings_do_not_count() {
        let nested = |depth: usize| {
            format!(
                r#"{{"a": 1, "b": {}{}}}"#,
                "[".repeat(depth - 1),
                "]".repeat(depth - 1)
            )
        };
        assert_eq!(found(&nested(32), &["/a"]), Ok(vec![vec!["1".to_owned()]]));
        assert_eq!(found(&nested(33), &["/a"]), Err(Unreadable::TooDeep));
        assert_eq!(
            found(&"[".repeat(1_000_000), &["/a"]),
            Err(Unreadable::TooDeep)
        );

        let brackets = format!(r#"{{"b": "\\\"{}", "a": 1}}"#, "[{".repeat(40));
        assert_eq!(found(&brackets, &["/a"]), Ok(vec![vec!["1".to_owned()]]));
    }

    #[test]
    fn long_and_empty_values_are_left_out() {
        let json = format!(
            r#"{{"a": ["", "{}", "{}"]}}"#,
            "x".repeat(512),
            "x".repeat(513)
        );
        assert_eq!(found(&json, &["/a/*"]), Ok(vec![vec!["x".repeat(512)]]));
    }

    #[test]
    fn a_pointer_begins_with_a_slash() {
        assert_eq!(Path::parse("a"), None);
        assert_eq!(Path::parse(""), None);
        assert_eq!(Path::parse(&"/a".repeat(32)), None);
        assert!(Path::parse(&"/a".repeat(31)).is_some());
    }
}
