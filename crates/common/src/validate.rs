//! Collects everything that is wrong with a request, so that one answer names it all.

use std::fmt;

use uuid::Uuid;

use crate::problem::{FieldViolation, Problem};
use crate::{Code, Reason, TenantKey};

/// The violations found so far.
///
/// ```
/// # use common::validate::Fields;
/// let mut fields = Fields::new();
/// fields.require("tenant.company_name", "");
/// fields.check(false, "page_size", "must not be negative");
/// assert_eq!(fields.finish().unwrap_err().fields.len(), 2);
/// ```
#[derive(Debug, Default)]
pub struct Fields {
    violations: Vec<FieldViolation>,
}

impl Fields {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a violation unless `holds`; returns `holds`.
    pub fn check(
        &mut self,
        holds: bool,
        field: impl Into<String>,
        description: impl fmt::Display,
    ) -> bool {
        if !holds {
            self.violations.push(FieldViolation {
                field: field.into(),
                description: description.to_string(),
            });
        }
        holds
    }

    /// Notes a violation.
    pub fn violate(&mut self, field: impl Into<String>, description: impl fmt::Display) {
        self.check(false, field, description);
    }

    /// The text must not be empty.
    pub fn require(&mut self, field: &str, text: &str) -> bool {
        self.check(!text.trim().is_empty(), field, "is required")
    }

    /// The text has at most `limit` bytes.
    pub fn at_most(&mut self, field: &str, text: &str, limit: usize) -> bool {
        self.check(
            text.len() <= limit,
            field,
            format_args!("must have at most {limit} bytes, and has {}", text.len()),
        )
    }

    /// The text must be the id of something that Hawser made.
    pub fn id(&mut self, field: &str, text: &str) -> Option<Uuid> {
        if !self.require(field, text) {
            return None;
        }
        let id = text
            .parse::<Uuid>()
            .ok()
            .filter(|id| id.get_version_num() == 7);
        self.check(
            id.is_some(),
            field,
            "must be an id that Hawser made: a UUID of version 7",
        );
        id
    }

    /// The text must be a tenant's id.
    pub fn tenant(&mut self, field: &str, text: &str) -> Option<TenantKey> {
        if !self.require(field, text) {
            return None;
        }
        let key = TenantKey::parse(text).ok();
        self.check(
            key.is_some(),
            field,
            "must be a tenant's id: a UUID of version 7",
        );
        key
    }

    /// Keeps the value, or notes what is wrong with the field.
    pub fn value<T, E: fmt::Display>(&mut self, field: &str, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.violate(field, error);
                None
            }
        }
    }

    /// Takes over the violations of another problem where it is about fields.
    ///
    /// # Errors
    /// Any other problem, which has nothing to do with the request's form.
    pub fn absorb<T>(&mut self, result: Result<T, Problem>) -> Result<Option<T>, Problem> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(problem)
                if problem.code == Code::InvalidArgument
                    && problem.reason == Some(Reason::InvalidField) =>
            {
                self.violations.extend(problem.fields);
                Ok(None)
            }
            Err(problem) => Err(problem),
        }
    }

    /// Whether nothing is wrong so far.
    pub fn is_empty(&self) -> bool {
        self.violations.is_empty()
    }

    /// # Errors
    /// INVALID_ARGUMENT with every violation, where there is one.
    pub fn finish(self) -> Result<(), Problem> {
        if self.violations.is_empty() {
            Ok(())
        } else {
            Err(Problem::invalid(self.violations))
        }
    }
}

/// Page sizes as the contracts have them: 0 means 50, more than 1000 counts as 1000.
pub fn page_size(fields: &mut Fields, requested: i32) -> i64 {
    fields.check(requested >= 0, "page_size", "must not be negative");
    match requested {
        0 => 50,
        size => i64::from(size.min(1000)),
    }
}
