//! The layers of a configuration, and getting all mistakes out of a deserializer that stops at the first.
//!
//! [`Layers::extract`] deserializes the merged layers; on an error it reports it, takes the offending value out of the
//! layer that set it, and goes again. Every turn removes a value, so it ends.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, iter};

use figment::error::{Actual, Kind, OneOf};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::problems::{Problem, Problems};

/// From the weakest to the strongest.
pub(super) struct Layers(Vec<Layer>);

struct Layer {
    origin: Origin,
    values: Dict,
    /// What stood in the environment or a flag before it was taken for a number, a flag or a list.
    literal: BTreeMap<Vec<String>, String>,
}

enum Origin {
    Default,
    File(PathBuf),
    Environment { prefix: String },
    Flag,
}

impl Layers {
    pub(super) fn new(defaults: &impl Serialize, problems: &mut Problems) -> Self {
        let values = match Value::serialize(defaults) {
            Ok(Value::Dict(_, values)) => values,
            Ok(_) => Dict::new(),
            Err(error) => {
                problems.report("", format!("the defaults cannot be written down: {error}"));
                Dict::new()
            }
        };
        Self(vec![Layer::new(Origin::Default, values)])
    }

    pub(super) fn add_file(&mut self, file: &Path, problems: &mut Problems) {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) => {
                let file = file.display();
                problems.report(
                    "",
                    format!("the file {file} cannot be read ({error}); make it readable, or give another path"),
                );
                return;
            }
        };
        match toml::from_str::<Dict>(&text) {
            Ok(values) => self
                .0
                .push(Layer::new(Origin::File(file.to_owned()), values)),
            Err(error) => {
                let line = error
                    .span()
                    .and_then(|span| text.get(..span.start))
                    .map_or(1, |before| before.matches('\n').count() + 1);
                let message = error.message();
                problems.report(
                    "",
                    format!(
                        "correct line {line} of {}, which is not TOML: {message}",
                        file.display()
                    ),
                );
            }
        }
    }

    pub(super) fn add_environment(
        &mut self,
        service: &str,
        environment: impl IntoIterator<Item = (String, String)>,
        problems: &mut Problems,
    ) {
        let prefix = format!("HAWSER_{}__", service.to_uppercase().replace('-', "_"));
        let variables: BTreeMap<String, String> = environment
            .into_iter()
            .filter(|(name, _)| name.starts_with(&prefix))
            .collect();
        let mut layer = Layer::new(
            Origin::Environment {
                prefix: prefix.clone(),
            },
            Dict::new(),
        );
        for (name, value) in variables {
            let path: Vec<String> = name[prefix.len()..]
                .split("__")
                .map(str::to_lowercase)
                .collect();
            if path.iter().any(String::is_empty) {
                problems.report(
                    "",
                    format!(
                        "{name} names no setting; write {prefix}DATABASE__URL for database.url"
                    ),
                );
            } else {
                layer.insert(path, value);
            }
        }
        self.0.push(layer);
    }

    pub(super) fn add_overrides(
        &mut self,
        overrides: &[(String, String)],
        problems: &mut Problems,
    ) {
        let mut layer = Layer::new(Origin::Flag, Dict::new());
        for (name, value) in overrides {
            let path: Vec<String> = name.split('.').map(str::to_owned).collect();
            if path.iter().any(String::is_empty) {
                problems.report(
                    "",
                    format!("the flag `{name}=…` names no setting; write `database.url=…`"),
                );
            } else {
                layer.insert(path, value.clone());
            }
        }
        self.0.push(layer);
    }

    /// Merges the layers into a `T`; nothing if even the defaults do not make one.
    pub(super) fn extract<T: DeserializeOwned>(&mut self, problems: &mut Problems) -> Option<T> {
        loop {
            let merged = self.0.iter().fold(Figment::new(), Figment::merge);
            let error = match merged.extract::<T>() {
                Ok(config) => return Some(config),
                Err(error) => error,
            };
            let Some((index, path)) = self.culprit(&error.path) else {
                problems.push(Problem {
                    path: error.path.join("."),
                    message: describe(&error.kind),
                    origin: None,
                });
                return None;
            };
            let layer = &mut self.0[index];
            if mistaken_kind(&error.kind)
                && let Some(literal) = layer.literal.remove(&path)
            {
                set(&mut layer.values, &path, Value::from(literal));
                continue;
            }
            problems.push(Problem {
                path: error.path.join("."),
                message: describe(&error.kind),
                origin: layer.origin.describe(&path),
            });
            remove(&mut layer.values, &path);
        }
    }

    /// Where the value at `path` comes from.
    pub(super) fn origin_of(&self, path: &str) -> Option<String> {
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        let (layer, path) = self.culprit(&path)?;
        self.0[layer].origin.describe(&path)
    }

    /// The strongest layer that sets `path`, or else what is nearest above it, and the path that it sets.
    /// The defaults are nobody's mistake.
    fn culprit(&self, path: &[String]) -> Option<(usize, Vec<String>)> {
        (1..=path.len())
            .rev()
            .map(|length| &path[..length])
            .find_map(|path| {
                let layer = (1..self.0.len())
                    .rev()
                    .find(|&layer| contains(&self.0[layer].values, path))?;
                Some((layer, path.to_vec()))
            })
    }
}

impl Layer {
    fn new(origin: Origin, values: Dict) -> Self {
        Self {
            origin,
            values,
            literal: BTreeMap::new(),
        }
    }

    fn insert(&mut self, path: Vec<String>, text: String) {
        // Numbers, booleans, and lists in TOML's notation; everything else is text.
        let value = text.parse().unwrap_or_else(|never| match never {});
        set(&mut self.values, &path, value);
        self.literal.insert(path, text);
    }
}

impl Provider for &Layer {
    fn metadata(&self) -> Metadata {
        Metadata::default()
    }

    fn data(&self) -> figment::error::Result<Map<Profile, Dict>> {
        Ok(iter::once((Profile::Default, self.values.clone())).collect())
    }
}

impl Origin {
    fn describe(&self, path: &[String]) -> Option<String> {
        match self {
            Self::Default => None,
            Self::File(file) => Some(format!("in {}", file.display())),
            Self::Environment { prefix } => {
                Some(format!("{prefix}{}", path.join("__").to_uppercase()))
            }
            Self::Flag => Some(format!("the flag {}=…", path.join("."))),
        }
    }
}

fn contains(values: &Dict, path: &[String]) -> bool {
    match path {
        [] => false,
        [last] => values.contains_key(last),
        [first, rest @ ..] => {
            matches!(values.get(first), Some(Value::Dict(_, inner)) if contains(inner, rest))
        }
    }
}

fn set(values: &mut Dict, path: &[String], value: Value) {
    match path {
        [] => {}
        [last] => {
            values.insert(last.clone(), value);
        }
        [first, rest @ ..] => {
            let inner = values
                .entry(first.clone())
                .or_insert_with(|| Value::from(Dict::new()));
            if !matches!(inner, Value::Dict(..)) {
                *inner = Value::from(Dict::new());
            }
            if let Value::Dict(_, inner) = inner {
                set(inner, rest, value);
            }
        }
    }
}

fn remove(values: &mut Dict, path: &[String]) {
    match path {
        [] => {}
        [last] => {
            values.remove(last);
        }
        [first, rest @ ..] => {
            if let Some(Value::Dict(_, inner)) = values.get_mut(first) {
                remove(inner, rest);
            }
        }
    }
}

/// Whether text could have been meant where something else was read.
fn mistaken_kind(kind: &Kind) -> bool {
    matches!(kind, Kind::InvalidType(actual, _) if !matches!(actual, Actual::Str(_)))
}

/// Says what to do, and never what the text was.
fn describe(kind: &Kind) -> String {
    let is = |actual: &Actual| match actual {
        Actual::Str(_) => "this text".to_owned(),
        Actual::Bytes(_) => "bytes".to_owned(),
        other => other.to_string(),
    };
    match kind {
        Kind::InvalidType(actual, expected) | Kind::InvalidValue(actual, expected) => {
            format!("must be {expected}, not {}", is(actual))
        }
        Kind::UnknownField(name, expected) => match nearest(name, expected) {
            Some(near) => format!("there is no such setting; did you mean `{near}`?"),
            None => format!(
                "there is no such setting; remove it, or use {}",
                OneOf(expected)
            ),
        },
        Kind::UnknownVariant(_, expected) => format!("must be {}", OneOf(expected)),
        Kind::MissingField(name) => format!("`{name}` is missing; set it"),
        Kind::InvalidLength(length, expected) => {
            format!("must have {expected}, not {length} elements")
        }
        other => format!("cannot be used: {other}"),
    }
}

/// The name that differs by two letters at most.
fn nearest<'a>(name: &str, names: &[&'a str]) -> Option<&'a str> {
    names
        .iter()
        .map(|&candidate| (edits(name, candidate), candidate))
        .filter(|&(edits, candidate)| edits <= 2 && edits < candidate.len())
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
