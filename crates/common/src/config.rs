//! Configuration: plain structs, filled from defaults, then a TOML file, then the environment, then flags.
//!
//! A setting `database.url` of the service `vault` is `url` under `[database]` in the file, `HAWSER_VAULT__DATABASE__URL`
//! in the environment, and `database.url=…` as a flag. [`load`] does not stop at the first mistake: unknown settings,
//! values of the wrong kind and whatever [`Validate`] objects to are reported together, each with its path and where
//! it came from. A problem never repeats a text value, since it may be a secret in the wrong place.
//!
//! Only names with the double underscore are ours: Kubernetes puts `HAWSER_VAULT_SERVICE_HOST` and the like into every
//! pod beside a Service called `hawser-vault`.

mod layers;
mod problems;
mod values;

use std::ffi::OsString;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use problems::{ConfigError, Problem, Problems};
pub use values::{Duration, SecretFile, SecretFileError};

use layers::Layers;

/// A service's configuration: its `Default` is the bottom layer, and has to work.
///
/// Derive `Serialize` and `Deserialize` with `#[serde(default, deny_unknown_fields)]` on every struct. A setting that
/// may be absent is an `Option`; an enum has no content, or stands in an `Option`, because layers are merged key by key.
pub trait Config: Serialize + DeserializeOwned + Default + Validate {}

impl<T: Serialize + DeserializeOwned + Default + Validate> Config for T {}

/// Looks at values that parsed, and reports every one that cannot be right.
pub trait Validate {
    /// Reports into `problems`; says nothing if all is well.
    fn validate(&self, problems: &mut Problems);
}

/// Reads the configuration of `service`: defaults, then `file`, then `environment`, then `overrides` (`a.b`, value).
pub fn load<T: Config>(
    service: &str,
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    overrides: &[(String, String)],
) -> Result<T, ConfigError> {
    let mut problems = Problems::default();
    let mut layers = Layers::new(&T::default(), &mut problems);
    if let Some(file) = file {
        layers.add_file(file, &mut problems);
        if !problems.is_empty() {
            // Without the file, all that follows would be about settings that are in it.
            return Err(ConfigError::new(service, problems));
        }
    }
    layers.add_environment(service, environment, &mut problems);
    layers.add_overrides(overrides, &mut problems);
    if let Some(config) = layers.extract::<T>(&mut problems) {
        let mut found = Problems::default();
        config.validate(&mut found);
        for mut problem in found {
            // What was replaced by its default to get here has been reported already.
            if !problems.covers(&problem.path) {
                problem.origin = layers.origin_of(&problem.path);
                problems.push(problem);
            }
        }
        if problems.is_empty() {
            return Ok(config);
        }
    }
    Err(ConfigError::new(service, problems))
}

/// The `check-config` subcommand: writes "ok" or every problem, one a line, and says whether it was ok.
pub fn check_config<T: Config>(
    service: &str,
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    overrides: &[(String, String)],
    out: &mut dyn io::Write,
) -> io::Result<bool> {
    match load::<T>(service, file, environment, overrides) {
        Ok(_) => writeln!(out, "ok").map(|()| true),
        Err(error) => writeln!(out, "{error}").map(|()| false),
    }
}

/// The process's environment, without what is not UTF-8 (no setting of ours is).
pub fn environment() -> impl Iterator<Item = (String, String)> {
    let utf8 = |text: OsString| text.into_string().ok();
    std::env::vars_os().filter_map(move |(name, value)| Some((utf8(name)?, utf8(value)?)))
}

/// Takes `a.b=c` apart, for a flag such as `--set database.url=…`.
pub fn parse_override(text: &str) -> Result<(String, String), OverrideError> {
    match text.split_once('=') {
        Some((path, value)) if !path.is_empty() => Ok((path.trim().to_owned(), value.to_owned())),
        _ => Err(OverrideError),
    }
}

/// A flag that is not `setting=value`.
#[derive(Debug, thiserror::Error)]
#[error("write the setting and its value as in `database.url=…`")]
pub struct OverrideError;
