//! Reading one file, with errors that say where.

use std::fmt;

use super::{Connector, FieldProblem};

/// Something wrong in a connector's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileProblem {
    /// The file's name.
    pub file: String,
    /// What is wrong.
    pub problem: FieldProblem,
}

/// Reads one file. Its name without folder and extension is the provider's.
///
/// # Errors
/// Each problem with file and field. Values of a wrong type end the reading, so these come one at a time; what does not
/// fit together comes all at once.
pub fn parse(file: &str, text: &str) -> Result<Connector, Vec<FileProblem>> {
    let in_file = |problem| FileProblem {
        file: file.to_owned(),
        problem,
    };
    let deserializer = serde_yaml_ng::Deserializer::from_str(text);
    let connector: Connector = serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let field = error.path().to_string();
        let inner = error.into_inner().to_string();
        let description = match inner.split_once(": ") {
            Some((path, rest)) if field.starts_with(path) => rest,
            _ => &inner,
        };
        vec![in_file(FieldProblem::new(field, description))]
    })?;
    let mut problems = connector.problems();
    let stem = file
        .rsplit('/')
        .next()
        .and_then(|name| name.strip_suffix(".yaml"));
    if stem != Some(connector.provider.as_str()) {
        problems.push(FieldProblem::new("provider", "must be the file's name"));
    }
    if problems.is_empty() {
        Ok(connector)
    } else {
        Err(problems.into_iter().map(in_file).collect())
    }
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.problem)
    }
}

impl std::error::Error for FileProblem {}
