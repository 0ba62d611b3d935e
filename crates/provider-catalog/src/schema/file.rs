//! Reading one file, with errors that say where.

use std::fmt;

use super::{FieldProblem, Provider};

/// Something wrong in a file of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileProblem {
    /// The file's name.
    pub file: String,
    /// The line of the field, or of the closest one around it, from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: FieldProblem,
}

impl FileProblem {
    /// A problem of a field, with the line on which the field stands.
    pub fn at(file: &str, text: &str, problem: FieldProblem) -> Self {
        Self {
            file: file.to_owned(),
            line: line_of(text, &problem.field),
            problem,
        }
    }
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.problem)
    }
}

/// Reads one file. Its name without folder and extension is the provider's key.
///
/// # Errors
///
/// Each problem with file, line and field. Values of a wrong type end the reading, so these come one at a time; what does
/// not fit together comes all at once.
pub fn parse(file: &str, text: &str) -> Result<Provider, Vec<FileProblem>> {
    let provider = read(file, text).map_err(|problem| vec![problem])?;
    let mut problems = provider.problems();
    let stem = file
        .rsplit('/')
        .next()
        .and_then(|name| name.strip_suffix(".yaml"));
    if stem != Some(provider.key.as_str()) {
        problems.push(FieldProblem::new("key", "must be the file's name"));
    }
    if problems.is_empty() {
        return Ok(provider);
    }
    let located = problems
        .into_iter()
        .map(|problem| FileProblem::at(file, text, problem));
    Err(located.collect())
}

fn read(file: &str, text: &str) -> Result<Provider, FileProblem> {
    let deserializer = serde_yaml_ng::Deserializer::from_str(text);
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let field = error.path().to_string();
        let inner = error.into_inner();
        let description = description(&inner, &field);
        // The parser knows the line of what it cannot read, but only the beginning of what holds a bad value.
        let line = inner.location().map_or(1, |location| location.line());
        FileProblem {
            file: file.to_owned(),
            line: line.max(line_of(text, &field)),
            problem: FieldProblem::new(field, description),
        }
    })
}

/// The parser's sentence without the path before it and the place behind it, which are told apart.
fn description(error: &serde_yaml_ng::Error, field: &str) -> String {
    let text = error.to_string();
    let text = match text.split_once(": ") {
        Some((path, rest)) if field.starts_with(path) => rest,
        _ => &text,
    };
    match text.rfind(" at line ") {
        Some(at) => text[..at].to_owned(),
        None => text.to_owned(),
    }
}

/// The line on which a field stands in block style: each part of its path below, and further right than, the one before.
fn line_of(text: &str, field: &str) -> usize {
    let mut found = 1;
    let mut indent = None;
    for part in field
        .split(['.', '['])
        .map(|part| part.trim_end_matches(']'))
    {
        let below = || text.lines().enumerate().skip(found - 1);
        let place = match part.parse::<usize>() {
            Ok(index) => below()
                .map(|(at, line)| (at, line, line.trim_start()))
                .filter(|(_, _, item)| item.starts_with("- "))
                .map(|(at, line, item)| (at, line.len() - item.len()))
                .nth(index),
            Err(_) => below()
                .map(|(at, line)| (at, line, line.trim_start().trim_start_matches("- ")))
                .filter(|(_, line, key)| indent.is_none_or(|outer| line.len() - key.len() > outer))
                .find(|(_, _, key)| is_key(key, part))
                .map(|(at, line, key)| (at, line.len() - key.len())),
        };
        let Some((at, depth)) = place else { break };
        found = at + 1;
        indent = Some(depth);
    }
    found
}

/// Whether a line begins with a member of this name.
fn is_key(line: &str, name: &str) -> bool {
    line.split_once(':')
        .is_some_and(|(key, _)| key.trim_matches(['"', '\'']) == name)
}
