//! Text with places to fill in, and URLs that keep their shape when they are filled.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use url::{Host, Url};

/// Text with places to fill in: "Bearer {secret}".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TextTemplate(String);

/// An absolute URL with places to fill in: `https://{subdomain}.example.com/oauth/token`.
///
/// https, or http to this machine (for development; whether such a call is made is `egress`'s to say).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UrlTemplate(String);

/// An absolute URL, or a path below the API's base URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Location {
    /// An absolute URL.
    Absolute(UrlTemplate),
    /// A path below `api.base_url`.
    BelowBase(TextTemplate),
}

/// A template that cannot be filled with the values given.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FillError {
    /// There is no value for a place.
    #[error("there is no value for {{{name}}}")]
    Missing {
        /// The place's name.
        name: String,
    },
    /// The values change more of the URL than the places they stand in: another host, another path.
    #[error("the values do not fit into the URL")]
    Shape,
    /// The location is a path, and the API has no base URL.
    #[error("there is no base URL")]
    NoBase,
}

impl TextTemplate {
    /// The template itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names of the places.
    pub fn places(&self) -> BTreeSet<&str> {
        pieces(&self.0)
            .into_iter()
            .flatten()
            .filter_map(Piece::place)
            .collect()
    }

    /// The text, filled.
    ///
    /// # Errors
    ///
    /// Where a place has no value.
    pub fn fill(&self, values: &BTreeMap<String, String>) -> Result<String, FillError> {
        fill(&self.0, |name| values.get(name).map(String::as_str))
    }
}

impl UrlTemplate {
    /// The template itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names of the places.
    pub fn places(&self) -> BTreeSet<&str> {
        pieces(&self.0)
            .into_iter()
            .flatten()
            .filter_map(Piece::place)
            .collect()
    }

    /// Scheme, host and port, with the places in it: what decides where secrets are sent.
    pub fn authority(&self) -> &str {
        let after_scheme = self.0.find("://").map_or(0, |at| at + 3);
        let end = self.0[after_scheme..]
            .find(['/', '?', '#'])
            .map_or(self.0.len(), |at| after_scheme + at);
        &self.0[..end]
    }

    /// The URL, filled, parsed again, and compared with the template: a value never changes scheme, port, the fixed part
    /// of the host, or the number of path segments and query parameters.
    ///
    /// # Errors
    ///
    /// Where a place has no value, or a value breaks out of its place.
    pub fn fill(&self, values: &BTreeMap<String, String>) -> Result<Url, FillError> {
        if self
            .places()
            .iter()
            .filter_map(|name| values.get(*name))
            .any(|value| breaks_out(value))
        {
            return Err(FillError::Shape);
        }
        let filled = fill(&self.0, |name| values.get(name).map(String::as_str))?;
        let url = Url::parse(&filled).map_err(|_| FillError::Shape)?;
        let shape = self.shape().ok_or(FillError::Shape)?;
        if self.keeps_shape(&shape, &url) {
            Ok(url)
        } else {
            Err(FillError::Shape)
        }
    }

    /// [`Self::fill`], as it is written: an issuer's identifier is compared letter by letter, and a parsed URL has a slash
    /// more.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn fill_text(&self, values: &BTreeMap<String, String>) -> Result<String, FillError> {
        self.fill(values)?;
        fill(&self.0, |name| values.get(name).map(String::as_str))
    }

    /// The URL with a harmless word in each place.
    fn shape(&self) -> Option<Url> {
        Url::parse(&fill(&self.0, |_| Some("x")).ok()?).ok()
    }

    fn keeps_shape(&self, shape: &Url, url: &Url) -> bool {
        let segments = |url: &Url| url.path_segments().map_or(0, Iterator::count);
        url.scheme() == shape.scheme()
            && url.username().is_empty()
            && url.password().is_none()
            && url.port() == shape.port()
            && url.fragment().is_none()
            && segments(url) == segments(shape)
            && url.query_pairs().count() == shape.query_pairs().count()
            && self.keeps_host(shape, url)
    }

    fn keeps_host(&self, shape: &Url, url: &Url) -> bool {
        let authority = self.authority();
        let fixed = authority
            .rsplit_once('}')
            .map(|(_, rest)| rest.split(':').next().unwrap_or_default());
        match fixed {
            // No place in the host: the host is the template's.
            None => url.host() == shape.host(),
            // The whole host is a place: the parameter's pattern alone decides.
            Some("") => url.host().is_some(),
            Some(suffix) => {
                let Some(Host::Domain(host)) = url.host() else {
                    return false;
                };
                let labels = |host: &str| host.split('.').count();
                host.ends_with(&suffix.to_ascii_lowercase())
                    && shape
                        .host_str()
                        .is_some_and(|shape| labels(shape) == labels(host))
            }
        }
    }
}

impl Location {
    /// The URL template, where it is one.
    pub fn absolute(&self) -> Option<&UrlTemplate> {
        match self {
            Self::Absolute(url) => Some(url),
            Self::BelowBase(_) => None,
        }
    }

    /// The names of the places.
    pub fn places(&self) -> BTreeSet<&str> {
        match self {
            Self::Absolute(url) => url.places(),
            Self::BelowBase(path) => path.places(),
        }
    }

    /// The whole URL template, below `base` where it is a path.
    ///
    /// # Errors
    ///
    /// Where there is no base.
    pub fn below(&self, base: Option<&UrlTemplate>) -> Result<UrlTemplate, FillError> {
        match self {
            Self::Absolute(url) => Ok(url.clone()),
            Self::BelowBase(path) => {
                let base = base.ok_or(FillError::NoBase)?;
                let joined = format!("{}{}", base.0.trim_end_matches('/'), path.0);
                UrlTemplate::try_from(joined).map_err(|_| FillError::Shape)
            }
        }
    }
}

impl TryFrom<String> for TextTemplate {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        pieces(&text)
            .ok_or("must have a {name} of small letters and underscores in each pair of braces")?;
        if text.chars().any(char::is_control) {
            return Err("must not contain control characters");
        }
        Ok(Self(text))
    }
}

impl TryFrom<String> for UrlTemplate {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let template = Self(TextTemplate::try_from(text)?.0);
        let url = template.shape().ok_or("must be an absolute URL")?;
        let at_home = match url.host() {
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        if url.scheme() != "https" && !(url.scheme() == "http" && at_home) {
            return Err("must be an https URL");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not contain a user name or a password");
        }
        if url.fragment().is_some() {
            return Err("must not contain a fragment");
        }
        Ok(template)
    }
}

impl TryFrom<String> for Location {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.starts_with('/') {
            let path = TextTemplate::try_from(text)?;
            // The path alone has to be one already, so that it cannot add to the host of its base.
            UrlTemplate::try_from(format!("https://base.invalid{}", path.0))?;
            return Ok(Self::BelowBase(path));
        }
        UrlTemplate::try_from(text).map(Self::Absolute)
    }
}

impl From<TextTemplate> for String {
    fn from(template: TextTemplate) -> Self {
        template.0
    }
}

impl From<UrlTemplate> for String {
    fn from(template: UrlTemplate) -> Self {
        template.0
    }
}

impl From<Location> for String {
    fn from(location: Location) -> Self {
        match location {
            Location::Absolute(url) => url.0,
            Location::BelowBase(path) => path.0,
        }
    }
}

/// Whether a value holds what divides a URL, or is empty or a dot segment and so would leave its place out.
fn breaks_out(value: &str) -> bool {
    matches!(value, "" | "." | "..")
        || value.contains(|c: char| c.is_control() || "/\\?#&%@ ".contains(c))
}

#[derive(Clone, Copy)]
enum Piece<'a> {
    Text(&'a str),
    Place(&'a str),
}

impl<'a> Piece<'a> {
    fn place(self) -> Option<&'a str> {
        match self {
            Self::Text(_) => None,
            Self::Place(name) => Some(name),
        }
    }
}

/// `None` where the braces do not pair up around names.
fn pieces(template: &str) -> Option<Vec<Piece<'_>>> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some(open) = rest.find(['{', '}']) {
        let (text, at) = rest.split_at(open);
        let (name, after) = at.strip_prefix('{')?.split_once('}')?;
        let is_name = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if !is_name {
            return None;
        }
        pieces.extend([Piece::Text(text), Piece::Place(name)]);
        rest = after;
    }
    pieces.push(Piece::Text(rest));
    Some(pieces)
}

fn fill<'a>(template: &str, value: impl Fn(&str) -> Option<&'a str>) -> Result<String, FillError> {
    let mut filled = String::new();
    for piece in pieces(template).into_iter().flatten() {
        filled += match piece {
            Piece::Text(text) => text,
            Piece::Place(name) => value(name).ok_or_else(|| FillError::Missing {
                name: name.to_owned(),
            })?,
        };
    }
    Ok(filled)
}
