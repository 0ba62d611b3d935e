//! From an issuer's identifier to its metadata.

use egress::EgressError;
use thiserror::Error;
use url::Url;

use crate::documents::{DocumentError, Documents};
use crate::metadata::Metadata;
use crate::text;

/// Why an issuer's metadata cannot be had.
#[derive(Debug, Error)]
pub enum DiscoveryError {
    /// The identifier is no URL, or has a query or a fragment (RFC 8414, 2).
    #[error("the issuer is not a URL without query and fragment")]
    BadIssuer,
    /// The issuer's server was not reached; it may be later.
    #[error("the issuer's metadata was not fetched")]
    Unreachable(#[source] EgressError),
    /// The server is in trouble; it may be well later.
    #[error("the issuer's server answers with HTTP {status}")]
    Unavailable {
        /// The answer's status.
        status: u16,
    },
    /// None of the usual places has a document.
    #[error("there is no metadata at any of the usual places below the issuer")]
    NotFound,
    /// The document speaks for another issuer (RFC 8414, 3.3).
    #[error("the metadata is that of {found:?}, which is another issuer to the letter")]
    OtherIssuer {
        /// The issuer in the document, cut and cleaned.
        found: String,
    },
}

impl DiscoveryError {
    /// Whether it may pass by itself.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(error) => !matches!(error, EgressError::Refused(_)),
            Self::Unavailable { .. } => true,
            Self::BadIssuer | Self::NotFound | Self::OtherIssuer { .. } => false,
        }
    }
}

/// Fetches the metadata of `issuer`, from `explicit` where that is given, else from the usual places.
///
/// # Errors
///
/// See [`DiscoveryError`]. A document whose `issuer` is not the same string is refused, since whoever answers for another
/// issuer could send our codes and secrets elsewhere.
pub async fn discover(
    documents: &Documents,
    issuer: &str,
    explicit: Option<&Url>,
) -> Result<Metadata, DiscoveryError> {
    let places = match explicit {
        Some(url) => vec![url.clone()],
        None => places(issuer).ok_or(DiscoveryError::BadIssuer)?,
    };
    for place in &places {
        let document = match documents.get(place).await {
            Ok(document) => document,
            Err(DocumentError::Unreachable(error)) => {
                return Err(DiscoveryError::Unreachable(error));
            }
            Err(DocumentError::Status(status))
                if status.is_server_error() || status.as_u16() == 429 =>
            {
                return Err(DiscoveryError::Unavailable {
                    status: status.as_u16(),
                });
            }
            Err(DocumentError::Status(_) | DocumentError::NotJson) => continue,
        };
        let Some(metadata) = Metadata::read(&document) else {
            continue;
        };
        if metadata.issuer != issuer {
            let found = text::description(&metadata.issuer, &[]).unwrap_or_default();
            return Err(DiscoveryError::OtherIssuer { found });
        }
        return Ok(metadata);
    }
    Err(DiscoveryError::NotFound)
}

/// OpenID appends to the issuer's path; RFC 8414, 3 puts the well-known part before it.
fn places(issuer: &str) -> Option<Vec<Url>> {
    let base = Url::parse(issuer).ok()?;
    if base.query().is_some() || base.fragment().is_some() || base.cannot_be_a_base() {
        return None;
    }
    let path = base.path().trim_end_matches('/').to_owned();
    let at = |path: String| {
        let mut url = base.clone();
        url.set_path(&path);
        url
    };
    let mut places = vec![
        at(format!("{path}/.well-known/openid-configuration")),
        at(format!("/.well-known/oauth-authorization-server{path}")),
    ];
    if !path.is_empty() {
        places.push(at(format!("/.well-known/openid-configuration{path}")));
    }
    Some(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checklist_30_the_well_known_part_is_appended_and_inserted() {
        let texts = |issuer| -> Vec<String> {
            places(issuer)
                .expect("good")
                .iter()
                .map(Url::to_string)
                .collect()
        };
        assert_eq!(
            texts("https://as.example/tenant/"),
            [
                "https://as.example/tenant/.well-known/openid-configuration",
                "https://as.example/.well-known/oauth-authorization-server/tenant",
                "https://as.example/.well-known/openid-configuration/tenant",
            ],
        );
        assert_eq!(
            texts("https://as.example"),
            [
                "https://as.example/.well-known/openid-configuration",
                "https://as.example/.well-known/oauth-authorization-server",
            ],
        );
        for bad in [
            "",
            "as.example",
            "https://as.example?x",
            "https://as.example/#f",
            "mailto:a@b.c",
        ] {
            assert!(places(bad).is_none(), "{bad}");
        }
    }
}
