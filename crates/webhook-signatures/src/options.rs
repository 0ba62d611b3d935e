//! What a source may say about its scheme.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use thiserror::Error;

use crate::{
    Scheme,
    scheme::{Source, is_routing_key_name, is_tolerance},
};

const MAX_ROUTING_KEYS: usize = 16;
const MAX_SOURCES: usize = 8;

/// A source's own additions to its scheme. None of them changes what is verified but the tolerance.
///
/// ```json
/// {"tolerance": "10m", "event_type": ["json:/kind"], "routing_keys": {"account": ["json:/data/shop_id"]}}
/// ```
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SchemeOptions {
    /// How old a signed request may be, instead of the scheme's own tolerance.
    #[serde(with = "humantime_serde")]
    pub(crate) tolerance: Option<Duration>,
    /// Where the event's type stands; the first that has one.
    pub(crate) event_type: Vec<Source>,
    /// Where the event names whom it is about, each instead of the scheme's sources of the same name.
    pub(crate) routing_keys: BTreeMap<String, Vec<Source>>,
}

/// Why a source's options cannot be used.
#[derive(Debug, Error)]
pub enum InvalidOptions {
    /// A field that does not exist, or is written wrongly.
    #[error("the options are not of the scheme's form")]
    Form(#[source] serde_json::Error),
    /// The scheme signs no time, so there is nothing to tolerate.
    #[error("`tolerance` is for schemes that sign a time, and this one does not")]
    NoTimestamp,
    /// Out of bounds.
    #[error("`tolerance` is 10s to 1h")]
    Tolerance,
    /// Too many, or named wrongly.
    #[error(
        "`routing_keys` are at most 16 names of lower-case letters, digits and underscores, with 1 to 8 sources each"
    )]
    RoutingKeys,
    /// Too many.
    #[error("`event_type` has at most 8 sources")]
    EventType,
}

impl SchemeOptions {
    /// Reads and checks the options of a source of this scheme. `null` is the same as none.
    pub fn parse(scheme: &Scheme, value: serde_json::Value) -> Result<Self, InvalidOptions> {
        if value.is_null() {
            return Ok(Self::default());
        }
        let options: Self = serde_json::from_value(value).map_err(InvalidOptions::Form)?;
        if let Some(tolerance) = options.tolerance {
            if scheme.tolerance().is_none() {
                return Err(InvalidOptions::NoTimestamp);
            }
            if !is_tolerance(tolerance) {
                return Err(InvalidOptions::Tolerance);
            }
        }
        if options.event_type.len() > MAX_SOURCES {
            return Err(InvalidOptions::EventType);
        }
        let names_fit = options.routing_keys.len() <= MAX_ROUTING_KEYS
            && options
                .routing_keys
                .keys()
                .all(|name| is_routing_key_name(name));
        let sources_fit = options
            .routing_keys
            .values()
            .all(|s| (1..=MAX_SOURCES).contains(&s.len()));
        if !names_fit || !sources_fit {
            return Err(InvalidOptions::RoutingKeys);
        }
        Ok(options)
    }
}
