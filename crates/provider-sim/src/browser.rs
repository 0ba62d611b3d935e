//! A browser without a window: keeps cookies, follows redirects when told to, fills in forms.
//!
//! Tests and the demo use it to be the user of a consent page. It reads the first form of a page with a scanner that is good for pages like the simulator's,
//! not with an HTML parser.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode, header};
use url::{Url, form_urlencoded};

use crate::http_client::{self, Answer, HttpError};

const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_REDIRECTS: usize = 10;

/// A person's browser.
#[derive(Clone, Debug, Default)]
pub struct Browser {
    /// By host, as browsers keep them: ports share.
    cookies: BTreeMap<(String, String), String>,
}

/// What a browser shows.
#[derive(Clone, Debug)]
pub struct Page {
    /// Where it came from.
    pub url: Url,
    /// The answer.
    pub answer: Answer,
}

/// The first form of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// Where it is sent to.
    pub action: Url,
    /// Whether it is sent by POST.
    pub post: bool,
    /// Names and values that it has before anybody touches it: hidden fields, ticked boxes, chosen radio buttons, texts.
    pub fields: Vec<(String, String)>,
}

/// Something a browser could not do.
#[derive(Debug, thiserror::Error)]
pub enum BrowseError {
    /// The address is no URL.
    #[error("{url:?} is no address")]
    Address {
        /// What was given.
        url: String,
    },
    /// No answer came.
    #[error("no answer came from {url}")]
    Http {
        /// Where it was sought.
        url: Url,
        /// Why.
        #[source]
        source: HttpError,
    },
    /// There was no form where one was expected.
    #[error("there is no form on the page at {url}, which has status {status}")]
    NoForm {
        /// The page.
        url: Url,
        /// Its status.
        status: StatusCode,
    },
    /// Redirects did not end.
    #[error("{url} redirects again and again")]
    Redirects {
        /// The last one.
        url: Url,
    },
}

impl Browser {
    /// A browser without cookies.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens an address; a redirect is not followed.
    pub async fn get(&mut self, url: &str) -> Result<Page, BrowseError> {
        self.request(Method::GET, parse(url)?, Bytes::new()).await
    }

    /// Opens an address and follows redirects to the page they end at.
    pub async fn open(&mut self, url: &str) -> Result<Page, BrowseError> {
        let page = self.get(url).await?;
        self.follow(page).await
    }

    /// Follows a page's redirects, if it is one, to where they end.
    pub async fn follow(&mut self, mut page: Page) -> Result<Page, BrowseError> {
        for _ in 0..MAX_REDIRECTS {
            let Some(target) = page.redirect() else {
                return Ok(page);
            };
            page = self.request(Method::GET, target, Bytes::new()).await?;
        }
        Err(BrowseError::Redirects { url: page.url })
    }

    /// Sends a form with `fields` set, each in place of what the form had under its name. A redirect is not followed.
    pub async fn submit(
        &mut self,
        form: &Form,
        fields: &[(&str, &str)],
    ) -> Result<Page, BrowseError> {
        let kept = form
            .fields
            .iter()
            .filter(|(name, _)| !fields.iter().any(|(set, _)| set == name));
        let pairs = kept
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .chain(fields.iter().copied());
        let encoded = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(pairs)
            .finish();
        if form.post {
            self.request(Method::POST, form.action.clone(), Bytes::from(encoded))
                .await
        } else {
            let mut url = form.action.clone();
            url.set_query(Some(&encoded));
            self.request(Method::GET, url, Bytes::new()).await
        }
    }

    /// Goes to a simulated provider's authorization endpoint and allows the access as `user`.
    ///
    /// The result is the redirect back to the client, not yet followed; consent that is automatic gives the same.
    pub async fn consent(&mut self, authorize_url: &str, user: &str) -> Result<Page, BrowseError> {
        let page = self.get(authorize_url).await?;
        if page.redirect().is_some() {
            return Ok(page);
        }
        let form = page.form()?;
        self.submit(&form, &[("user", user), ("decision", "allow")])
            .await
    }

    async fn request(
        &mut self,
        method: Method,
        url: Url,
        body: Bytes,
    ) -> Result<Page, BrowseError> {
        let host = url.host_str().unwrap_or_default().to_owned();
        let jar = self.cookies.iter().filter(|((of, _), _)| *of == host);
        let cookies: Vec<String> = jar
            .map(|((_, name), value)| format!("{name}={value}"))
            .collect();
        let cookies = cookies.join("; ");
        let mut headers = vec![("accept", "text/html")];
        if !cookies.is_empty() {
            headers.push(("cookie", &cookies));
        }
        let origin = url.origin().ascii_serialization();
        if method == Method::POST {
            headers.push(("content-type", "application/x-www-form-urlencoded"));
            headers.push(("origin", &origin));
        }
        let answer = http_client::send(method, url.as_str(), &headers, body, TIMEOUT).await;
        let answer = answer.map_err(|source| BrowseError::Http {
            url: url.clone(),
            source,
        })?;
        for cookie in answer.headers.get_all(header::SET_COOKIE) {
            self.keep_cookie(&host, cookie.to_str().unwrap_or_default());
        }
        Ok(Page { url, answer })
    }

    fn keep_cookie(&mut self, host: &str, cookie: &str) {
        let mut parts = cookie.split(';').map(str::trim);
        let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else {
            return;
        };
        let key = (host.to_owned(), name.to_owned());
        if parts.any(|attribute| attribute.eq_ignore_ascii_case("max-age=0")) {
            self.cookies.remove(&key);
        } else {
            self.cookies.insert(key, value.to_owned());
        }
    }
}

impl Page {
    /// Where the page redirects to.
    pub fn redirect(&self) -> Option<Url> {
        let location = self
            .answer
            .status
            .is_redirection()
            .then(|| self.answer.header("location"))
            .flatten()?;
        self.url.join(location).ok()
    }

    /// A parameter of the address that the page redirects to: `code`, `state`, `error`, ….
    pub fn redirect_parameter(&self, name: &str) -> Option<String> {
        let target = self.redirect()?;
        target
            .query_pairs()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }

    /// The page's first form.
    pub fn form(&self) -> Result<Form, BrowseError> {
        parse_form(&self.url, &self.answer.text()).ok_or_else(|| BrowseError::NoForm {
            url: self.url.clone(),
            status: self.answer.status,
        })
    }
}

fn parse(url: &str) -> Result<Url, BrowseError> {
    Url::parse(url).map_err(|_| BrowseError::Address {
        url: url.to_owned(),
    })
}

fn parse_form(page: &Url, html: &str) -> Option<Form> {
    let start = html.find("<form")?;
    let end = html[start..]
        .find("</form>")
        .map_or(html.len(), |end| start + end);
    let mut tags = html[start..end].split('<').skip(1).map(attributes);
    let form = tags.next()?;
    let get = |tag: &BTreeMap<String, String>, name: &str| tag.get(name).cloned();
    let action = get(&form, "action").filter(|action| !action.is_empty());
    let mut fields = Vec::new();
    for tag in tags.filter(|tag| tag.contains_key("<input")) {
        let kind = get(&tag, "type").unwrap_or_default();
        let sent = match kind.as_str() {
            "radio" | "checkbox" => tag.contains_key("checked"),
            "submit" | "button" | "reset" | "image" | "file" => false,
            _ => true,
        };
        if let (true, Some(name)) = (sent, get(&tag, "name")) {
            fields.push((name, get(&tag, "value").unwrap_or_default()));
        }
    }
    Some(Form {
        action: page.join(action.as_deref().unwrap_or("")).ok()?,
        post: get(&form, "method").is_some_and(|method| method.eq_ignore_ascii_case("post")),
        fields,
    })
}

/// A tag's attributes, and its name under `<name`.
fn attributes(tag: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let name_end = tag
        .find(|character: char| character.is_whitespace() || character == '>')
        .unwrap_or(tag.len());
    found.insert(
        format!("<{}", tag[..name_end].to_ascii_lowercase()),
        String::new(),
    );
    let mut rest = tag[name_end..].trim_start();
    while !rest.is_empty() && !rest.starts_with('>') && !rest.starts_with('/') {
        let end = rest
            .find(|character: char| {
                character.is_whitespace() || character == '=' || character == '>'
            })
            .unwrap_or(rest.len());
        let name = rest[..end].to_ascii_lowercase();
        rest = rest[end..].trim_start();
        let mut value = String::new();
        if let Some(after) = rest.strip_prefix('=') {
            let after = after.trim_start();
            let quote = after
                .chars()
                .next()
                .filter(|character| matches!(character, '"' | '\''));
            let (text, tail) = if let Some(quote) = quote {
                after[1..].split_once(quote).unwrap_or((&after[1..], ""))
            } else {
                let end = after
                    .find(|character: char| character.is_whitespace() || character == '>')
                    .unwrap_or(after.len());
                after.split_at(end)
            };
            value = unescape(text);
            rest = tail.trim_start();
        }
        found.insert(name, value);
    }
    found
}

fn unescape(text: &str) -> String {
    let plain = text
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&#39;", "'")
        .replace("&#x27;", "'");
    plain.replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_of_a_page_is_read() {
        let html = r#"<p>a < b</p><form method="post" action="/go?x=1&amp;y=2">
            <input type=hidden name=csrf value="a&quot;b"><label><input type="radio" name="user" value="alice" checked required> Alice</label>
            <input type="radio" name="user" value="bob"><input type='checkbox' name='scope' value='x' checked>
            <button type="submit" name="decision" value="allow">Allow</button></form><form action="/other"></form>"#;
        let form = parse_form(&Url::parse("http://h:1/page").expect("a URL"), html)
            .expect("there is a form");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(form.action.as_str(), "http://h:1/go?x=1&y=2");
        assert!(form.post);
        assert_eq!(
            form.fields,
            [
                pair("csrf", "a\"b"),
                pair("user", "alice"),
                pair("scope", "x")
            ]
        );
    }
}
