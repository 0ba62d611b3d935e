//! Entries that share a table of errors.

use std::collections::BTreeMap;

use super::{Errors, FieldProblem, Provider};

/// Puts the shared tables behind each entry's own. To be called once, with all entries.
///
/// # Errors
///
/// The key of each entry whose `errors.from` names none that has a table of its own.
pub fn link(providers: &mut [Provider]) -> Result<(), Vec<(String, FieldProblem)>> {
    let tables: BTreeMap<String, Errors> = providers
        .iter()
        .filter(|provider| provider.errors.from.is_none())
        .map(|provider| (provider.key.as_str().to_owned(), provider.errors.clone()))
        .collect();
    let mut problems = Vec::new();
    for provider in providers {
        let Some(from) = &provider.errors.from else {
            continue;
        };
        match tables.get(from.as_str()) {
            Some(shared) if !shared.rules.is_empty() => {
                let own = &mut provider.errors;
                own.code.extend(shared.code.iter().cloned());
                own.description.extend(shared.description.iter().cloned());
                own.rules.extend(shared.rules.iter().cloned());
            }
            _ => problems.push((
                provider.key.as_str().to_owned(),
                FieldProblem::new("errors.from", "must be an entry with rules of its own"),
            )),
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}
