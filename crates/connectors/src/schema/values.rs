//! Values that check themselves while they are read.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A field that is wrong, and what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldProblem {
    /// The field's path: `streams[0].record.id`.
    pub field: String,
    /// A sentence about it, without the field's name.
    pub description: String,
}

/// A place in a JSON document (RFC 6901).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pointer {
    text: String,
    names: Vec<String>,
}

impl Pointer {
    /// The names on the way, unescaped, from the outside in.
    pub fn names(&self) -> &[String] {
        &self.names
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
        let names = text
            .split('/')
            .skip(1)
            .map(|name| name.replace("~1", "/").replace("~0", "~"));
        Ok(Self {
            names: names.collect(),
            text,
        })
    }
}

impl From<Pointer> for String {
    fn from(pointer: Pointer) -> Self {
        pointer.text
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
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
