//! Values that check themselves while they are read.

use std::fmt;
use std::time::Duration;

use regex::Regex;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

/// A field that is wrong, and what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldProblem {
    /// The field's path: "endpoints.token".
    pub field: String,
    /// A sentence about it, without the field's name.
    pub description: String,
}

impl FieldProblem {
    /// Both, as given.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            description: description.into(),
        }
    }
}

impl fmt::Display for FieldProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.description)
    }
}

/// A provider's name in the API: small letters, digits, single hyphens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(String);

impl Key {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Key {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let parts_are_fine = text.split('-').all(|part| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        });
        if text.len() > 64 || !parts_are_fine {
            return Err(
                "must be small letters and digits, with single hyphens between them, at most 64",
            );
        }
        Ok(Self(text))
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.0
    }
}

/// A place in a JSON document (RFC 6901).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pointer(String);

impl Pointer {
    /// What stands there.
    pub fn find<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        document.pointer(&self.0)
    }

    /// What stands there as text: strings as they are, numbers in full; nothing else, and nothing empty.
    pub fn text(&self, document: &Value) -> Option<String> {
        match self.find(document)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }
}

impl TryFrom<String> for Pointer {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let escapes_are_fine = text
            .split('~')
            .skip(1)
            .all(|rest| rest.starts_with(['0', '1']));
        if !escapes_are_fine || !(text.is_empty() || text.starts_with('/')) {
            return Err("must be a JSON pointer: empty, or beginning with a slash");
        }
        Ok(Self(text))
    }
}

impl From<Pointer> for String {
    fn from(pointer: Pointer) -> Self {
        pointer.0
    }
}

/// A regular expression that spans the whole text.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(Regex);

impl Pattern {
    /// Whether all of `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// The expression.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let inner = text
            .strip_prefix('^')
            .and_then(|text| text.strip_suffix('$'));
        let inner = inner.ok_or("must begin with ^ and end with $")?;
        let backslashes = inner.len() - inner.trim_end_matches('\\').len();
        if backslashes % 2 == 1 {
            return Err("must end with an anchor, not with an escaped $".to_owned());
        }
        if has_top_level_alternative(inner) {
            return Err(
                "must put alternatives in parentheses, so that both anchors hold for each"
                    .to_owned(),
            );
        }
        Regex::new(&text)
            .map(Self)
            .map_err(|_| "must be a regular expression".to_owned())
    }
}

fn has_top_level_alternative(pattern: &str) -> bool {
    let (mut depth, mut in_class, mut escaped) = (0_usize, false, false);
    for character in pattern.chars() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ']' => in_class = false,
            _ if in_class => {}
            '[' => in_class = true,
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '|' if depth == 0 => return true,
            _ => {}
        }
    }
    false
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0.as_str().to_owned()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

/// How long a refresh token that was used already may be used again with the same effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplayWindow {
    /// Not at all, as far as anybody knows.
    #[default]
    None,
    /// For this long after its first use.
    For(Duration),
    /// Until a token that came in its place is used.
    UntilSuccessorIsUsed,
    /// As long as it lives.
    Unlimited,
}

impl Serialize for ReplayWindow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_str("none"),
            Self::For(duration) => humantime_serde::serialize(duration, serializer),
            Self::UntilSuccessorIsUsed => serializer.serialize_str("until_successor_is_used"),
            Self::Unlimited => serializer.serialize_str("unlimited"),
        }
    }
}

impl<'de> Deserialize<'de> for ReplayWindow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "none" => Ok(Self::None),
            "until_successor_is_used" => Ok(Self::UntilSuccessorIsUsed),
            "unlimited" => Ok(Self::Unlimited),
            _ => {
                let duration = de::value::StrDeserializer::<D::Error>::new(&text);
                humantime_serde::deserialize(duration).map(Self::For).map_err(|_: D::Error| {
                    de::Error::custom("must be none, unlimited, until_successor_is_used, or a duration as in \"30m\"")
                })
            }
        }
    }
}
