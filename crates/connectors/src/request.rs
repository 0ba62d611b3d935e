//! What to ask the provider, relative to the base URL that the connection brings.

use std::collections::BTreeMap;
use std::fmt;

use http::{HeaderMap, header};
use url::Url;

use crate::schema::{Escape, Method, RequestShape, Values, Variable};

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// Its method.
    pub method: Method,
    /// Where it goes.
    pub target: Target,
    /// Headers besides those that the connection brings.
    pub headers: Vec<(String, String)>,
    /// It rests on an address or a cursor that the provider gave before: a 404 or 410 says that it is too old, and not
    /// that there is nothing.
    pub resumes: bool,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A path below the base URL.
    Path {
        /// Percent-encoded, beginning with a slash.
        path: String,
        /// As they are meant, not encoded.
        query: Vec<(String, String)>,
    },
    /// An address that the provider gave.
    Url(String),
}

/// An address that the provider gave leads somewhere else than its API; the credential does not go there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the next page's address is not one of the provider's API")]
pub struct ForeignUrl;

impl PageRequest {
    pub(crate) fn of(shape: &RequestShape, values: &Values) -> Result<Self, Variable> {
        let path = shape.path.fill(values, Escape::Segment)?;
        let mut query = Vec::with_capacity(shape.query.len());
        for (name, template) in &shape.query {
            match template.fill(values, Escape::Nothing) {
                Ok(value) => query.push((name.clone(), value)),
                // The first page has no cursor yet; without an account there is nothing to ask.
                Err(Variable::Account) => return Err(Variable::Account),
                Err(_) => {}
            }
        }
        Ok(Self {
            method: shape.method,
            target: Target::Path { path, query },
            headers: headers(shape, values),
            resumes: values.cursor.is_some(),
        })
    }

    pub(crate) fn follow(shape: &RequestShape, values: &Values, url: &str) -> Self {
        Self {
            method: shape.method,
            target: Target::Url(url.to_owned()),
            headers: headers(shape, values),
            resumes: true,
        }
    }

    /// The whole address. `extra` are the query parameters that the connection brings.
    ///
    /// # Errors
    /// [`ForeignUrl`] where the provider sends us to another origin.
    pub fn url(&self, base: &Url, extra: &BTreeMap<String, String>) -> Result<Url, ForeignUrl> {
        let mut url = match &self.target {
            Target::Path { path, query } => {
                let mut url = base.clone();
                let below = base.path().trim_end_matches('/');
                url.set_path(&format!("{below}{path}"));
                if !query.is_empty() {
                    url.query_pairs_mut().extend_pairs(query);
                }
                url
            }
            Target::Url(text) => {
                let url = base.join(text).map_err(|_| ForeignUrl)?;
                let same = url.origin() == base.origin()
                    && url.username().is_empty()
                    && url.password().is_none();
                if !same {
                    return Err(ForeignUrl);
                }
                url
            }
        };
        let missing: Vec<_> = extra
            .iter()
            .filter(|(name, _)| !url.query_pairs().any(|(known, _)| known == name.as_str()))
            .collect();
        if !missing.is_empty() {
            url.query_pairs_mut().extend_pairs(missing);
        }
        Ok(url)
    }
}

fn headers(shape: &RequestShape, values: &Values) -> Vec<(String, String)> {
    let filled = |(name, template): (&String, &crate::schema::Template)| {
        Some((name.clone(), template.fill(values, Escape::Nothing).ok()?))
    };
    shape.headers.iter().filter_map(filled).collect()
}

impl fmt::Display for PageRequest {
    /// For people who look for what went wrong. What the connection brings is not in it, and of an address that the
    /// provider gave, only the path is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = match self.method {
            Method::Get => "GET",
            Method::Post => "POST",
        };
        match &self.target {
            Target::Path { path, query } => {
                write!(f, "{method} {path}")?;
                for (index, (name, value)) in query.iter().enumerate() {
                    let sign = if index == 0 { '?' } else { '&' };
                    write!(f, "{sign}{name}={value}")?;
                }
                Ok(())
            }
            Target::Url(text) => {
                let path = Url::parse(text).map(|url| url.path().to_owned());
                let path = path.unwrap_or_else(|_| "the next page".to_owned());
                write!(f, "{method} {path}?…")
            }
        }
    }
}

/// The `Link` header's target with `rel="next"` (RFC 8288).
pub(crate) fn next_link(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(header::LINK).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(", ")).find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = parameters.split(';').any(|parameter| {
            let relation = parameter.trim().strip_prefix("rel=");
            relation.is_some_and(|relation| {
                relation
                    .trim_matches('"')
                    .split(' ')
                    .any(|word| word.eq_ignore_ascii_case("next"))
            })
        });
        is_next.then(|| target.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn path(path: &str, query: &[(&str, &str)]) -> PageRequest {
        let query = query
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        PageRequest {
            method: Method::Get,
            target: Target::Path {
                path: path.to_owned(),
                query: query.collect(),
            },
            headers: Vec::new(),
            resumes: false,
        }
    }

    fn url(text: &str) -> PageRequest {
        PageRequest {
            target: Target::Url(text.to_owned()),
            ..path("/", &[])
        }
    }

    #[test]
    fn paths_go_below_the_base() {
        let base = Url::parse("http://127.0.0.1:8090/procore").expect("a URL");
        let request = path("/rest/v1.0/projects", &[("filters[updated_at]", "a b&c")]);
        let extra = BTreeMap::from([("key".to_owned(), "k".to_owned())]);
        assert_eq!(
            request.url(&base, &extra).map(String::from).as_deref(),
            Ok(
                "http://127.0.0.1:8090/procore/rest/v1.0/projects?filters%5Bupdated_at%5D=a+b%26c&key=k"
            ),
        );
    }

    #[test]
    fn the_next_page_stays_at_the_provider() {
        let base = Url::parse("https://graph.microsoft.com").expect("a URL");
        let none = BTreeMap::new();
        let good = url("https://graph.microsoft.com/v1.0/me/messages?$skip=10");
        assert!(good.url(&base, &none).is_ok());
        assert!(url("/v1.0/me/messages?$skip=10").url(&base, &none).is_ok());
        for bad in [
            "https://graph.microsoft.com.evil.example/v1.0",
            "http://graph.microsoft.com/v1.0",
            "https://graph.microsoft.com:8443/",
            "https://user@graph.microsoft.com/",
            "//evil.example/",
        ] {
            assert_eq!(url(bad).url(&base, &none), Err(ForeignUrl), "{bad}");
        }
    }

    #[test]
    fn a_request_in_an_error_has_no_opaque_parameters() {
        assert_eq!(
            path("/a", &[("page", "2"), ("x", "y")]).to_string(),
            "GET /a?page=2&x=y"
        );
        assert_eq!(
            url("https://p.example/delta?$deltatoken=secret").to_string(),
            "GET /delta?…"
        );
    }

    #[test]
    fn the_next_link_is_found_among_others() {
        let mut headers = HeaderMap::new();
        let links =
            "<https://p/x?page=1>; rel=\"first\", <https://p/x?ids=1,2&page=3>; rel=\"next\"";
        headers.insert(header::LINK, HeaderValue::from_static(links));
        assert_eq!(
            next_link(&headers).as_deref(),
            Some("https://p/x?ids=1,2&page=3")
        );
        headers.insert(
            header::LINK,
            HeaderValue::from_static("<https://p/x>; rel=\"last\""),
        );
        assert_eq!(next_link(&headers), None);
    }
}
