//! What is wrong with a configuration, all of it.

use std::fmt;

use super::{SecretFile, Validate};

/// Collects what is wrong; the paths are relative to where [`Problems::within`] has gone.
#[derive(Debug, Default)]
pub struct Problems {
    within: Vec<String>,
    found: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The setting, as `database.url`.
    pub path: String,
    /// What to do about it.
    pub message: String,
    /// Where the value came from; nothing for a default.
    pub origin: Option<String>,
}

/// A configuration that cannot be used; prints each problem on a line of its own.
#[derive(Debug)]
pub struct ConfigError {
    service: String,
    problems: Problems,
}

impl Problems {
    /// Reports that the setting `field` has to change; `message` says to what.
    pub fn report(&mut self, field: &str, message: impl Into<String>) {
        let path = self.path_of(field);
        self.push(Problem {
            path,
            message: message.into(),
            origin: None,
        });
    }

    /// Reports `message` about `field` unless `ok`.
    pub fn check(&mut self, ok: bool, field: &str, message: impl Into<String>) {
        if !ok {
            self.report(field, message);
        }
    }

    /// Validates a nested part, under the name that it has here.
    pub fn nested(&mut self, field: &str, part: &impl Validate) {
        self.within(field, |problems| part.validate(problems));
    }

    /// Reports about what is inside `field`.
    pub fn within(&mut self, field: &str, look: impl FnOnce(&mut Self)) {
        self.within.push(field.to_owned());
        look(self);
        self.within.pop();
    }

    /// Reports a secret's file that cannot be read or is empty.
    pub fn secret_file(&mut self, field: &str, file: &SecretFile) {
        if let Err(error) = file.read() {
            self.report(field, error.advice());
        }
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// What has been found so far.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.found.iter()
    }

    pub(super) fn push(&mut self, problem: Problem) {
        self.found.push(problem);
    }

    /// Whether something at `path`, or above or below it, has been reported.
    pub(super) fn covers(&self, path: &str) -> bool {
        let under = |inner: &str, outer: &str| {
            inner
                .strip_prefix(outer)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.found
            .iter()
            .any(|found| under(path, &found.path) || under(&found.path, path))
    }

    fn path_of(&self, field: &str) -> String {
        let mut path = self.within.join(".");
        if !path.is_empty() && !field.is_empty() {
            path.push('.');
        }
        path.push_str(field);
        path
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.found.into_iter()
    }
}

impl ConfigError {
    pub(super) fn new(service: &str, problems: Problems) -> Self {
        Self {
            service: service.to_owned(),
            problems,
        }
    }

    /// Every problem.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter()
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration of {} cannot be used:", self.service)?;
        for problem in self.problems.iter() {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.origin {
            Some(origin) => write!(f, " ({origin})"),
            None => Ok(()),
        }
    }
}
