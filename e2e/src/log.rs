//! The log of a process, a JSON object a line.

use serde_json::{Map, Value};

/// A log that was read.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Its lines, in the order in which they were written.
    pub lines: Vec<LogLine>,
}

/// A line of it.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// As it was written.
    pub text: String,
    fields: Map<String, Value>,
}

impl Log {
    /// Reads what a process wrote; a line that is no object is kept without fields.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().map(|line| LogLine {
            text: line.to_owned(),
            fields: serde_json::from_str(line).unwrap_or_default(),
        });
        Self {
            lines: lines.collect(),
        }
    }

    /// The lines of an event.
    pub fn of(&self, event: &str) -> impl Iterator<Item = &LogLine> {
        self.lines
            .iter()
            .filter(move |line| line.field("event") == event)
    }

    /// Warnings, errors, and whatever is no line of a log (a panic of another thread), less what is expected: the name
    /// of an event, or a part of a line.
    pub fn unexpected(&self, expected: &[String]) -> Vec<&LogLine> {
        let is_expected = |line: &LogLine| {
            expected
                .iter()
                .any(|what| line.field("event") == *what || line.text.contains(what.as_str()))
        };
        self.lines
            .iter()
            .filter(|line| !matches!(line.field("level"), "INFO" | "DEBUG" | "TRACE"))
            .filter(|line| !line.text.is_empty() && !is_expected(line))
            .collect()
    }
}

impl LogLine {
    /// A field that is a text; empty where there is none.
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).and_then(Value::as_str).unwrap_or("")
    }
}
