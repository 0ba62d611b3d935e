//! Where in a request something stands.

use http::HeaderName;
use serde::Deserialize;
use thiserror::Error;

use crate::json::Path;

/// Where a value is found, once the request is known to be genuine: `id`, `header:NAME`, or `json:/pointer`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Source {
    /// The id that is part of the signed content.
    Id,
    /// A header.
    Header(HeaderName),
    /// A JSON Pointer (RFC 6901) into the body, in which `*` stands for each element of an array.
    Json(Path),
}

/// The text names no place in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a source is `id`, `header:NAME` or `json:/pointer`")]
pub struct InvalidSource;

impl TryFrom<String> for Source {
    type Error = InvalidSource;

    fn try_from(text: String) -> Result<Self, InvalidSource> {
        match text.split_once(':') {
            None if text == "id" => Ok(Self::Id),
            Some(("header", name)) => name.parse().map(Self::Header).map_err(|_| InvalidSource),
            Some(("json", pointer)) => Path::parse(pointer).map(Self::Json).ok_or(InvalidSource),
            _ => Err(InvalidSource),
        }
    }
}

/// A header's name in a file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Header(pub(crate) HeaderName);

impl TryFrom<String> for Header {
    type Error = http::header::InvalidHeaderName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}
