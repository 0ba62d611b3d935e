//! One path of a field mask, down to a key of a map.
//!
//! As AIP-161 has it, names are joined by dots, and a key with anything but letters, digits, `_` and `-` in it stands in
//! backquotes: ``field_mappings.`Deal.Size` ``. A backquote within is doubled.

use std::fmt;

/// A path, taken apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldPath(Vec<String>);

/// The text is no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a path: names joined by dots, other keys in backquotes")]
pub struct FieldPathError;

impl FieldPath {
    /// Takes a path apart.
    ///
    /// # Errors
    /// [`FieldPathError`] where it is none.
    pub fn parse(text: &str) -> Result<Self, FieldPathError> {
        let mut segments = Vec::new();
        let mut rest = text;
        loop {
            let (segment, after) = match rest.strip_prefix('`') {
                Some(quoted) => take_quoted(quoted)?,
                None => take_bare(rest)?,
            };
            segments.push(segment);
            match after.strip_prefix('.') {
                Some(next) => rest = next,
                None if after.is_empty() => return Ok(Self(segments)),
                None => return Err(FieldPathError),
            }
        }
    }

    /// The path of a key in the map `field`.
    pub(crate) fn key_of(field: &str, key: &str) -> Self {
        Self(vec![field.to_owned(), key.to_owned()])
    }

    /// The names and keys, outermost first; at least one.
    pub fn segments(&self) -> &[String] {
        &self.0
    }
}

fn take_bare(text: &str) -> Result<(String, &str), FieldPathError> {
    let end = text.find(|c| !is_bare(c)).unwrap_or(text.len());
    let (name, after) = text.split_at(end);
    if name.is_empty() {
        Err(FieldPathError)
    } else {
        Ok((name.to_owned(), after))
    }
}

/// Reads up to the closing backquote; the opening one is gone already.
fn take_quoted(text: &str) -> Result<(String, &str), FieldPathError> {
    let mut key = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('`').ok_or(FieldPathError)?;
        key.push_str(before);
        match after.strip_prefix('`') {
            Some(next) => {
                key.push('`');
                rest = next;
            }
            None => return Ok((key, after)),
        }
    }
}

fn is_bare(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            if !segment.is_empty() && segment.chars().all(is_bare) {
                f.write_str(segment)?;
            } else {
                write!(f, "`{}`", segment.replace('`', "``"))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segments(text: &str) -> Option<Vec<String>> {
        FieldPath::parse(text)
            .ok()
            .map(|path| path.segments().to_vec())
    }

    #[test]
    fn keys_with_odd_characters_stand_in_backquotes() {
        let cases: [(&str, &[&str]); 5] = [
            ("company_name", &["company_name"]),
            (
                "field_mappings.customField",
                &["field_mappings", "customField"],
            ),
            (
                "field_mappings.`Deal.Size`",
                &["field_mappings", "Deal.Size"],
            ),
            ("a.`b``c`.d", &["a", "b`c", "d"]),
            ("a.``", &["a", ""]),
        ];
        for (text, expected) in cases {
            assert_eq!(
                segments(text).as_deref(),
                Some(&expected.iter().map(ToString::to_string).collect::<Vec<_>>()[..]),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in [
            "", ".", "a.", ".a", "a..b", "a b", "a.`b", "`a`b", "a.é", "a*", "*",
        ] {
            assert_eq!(segments(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn writing_and_reading_are_inverse(segments in prop::collection::vec("\\PC{0,12}|[a-z`.]{0,6}", 1..5)) {
            let path = FieldPath(segments);
            prop_assert_eq!(FieldPath::parse(&path.to_string()), Ok(path));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[a-c`.\\PC]{0,20}") {
            let _ = FieldPath::parse(&text);
        }
    }
}
