//! A running simulator with a client of its own, and what a client does.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Method;
use provider_sim::browser::{Browser, Page};
use provider_sim::config::{ClientConfig, ProviderConfig};
use provider_sim::http_client::{self, Answer, HttpError};
use provider_sim::{Clock, Control, SimConfig, Simulator};
use serde_json::Value;
use time::macros::datetime;
use tokio::net::TcpListener;
use url::form_urlencoded;

pub(crate) const CLIENT: &str = "app";
pub(crate) const SECRET: &str = "app-secret";
pub(crate) const REDIRECT: &str = "http://127.0.0.1:9/callback?kept=1";
pub(crate) const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// A simulator whose clock stands still.
pub(crate) struct Sim {
    pub(crate) simulator: Simulator,
}

impl Sim {
    /// The default simulator, with `change` made to the provider that the test is about.
    pub(crate) async fn start(slug: &str, change: impl FnOnce(&mut ProviderConfig)) -> Self {
        let mut config = config();
        change(config.provider_mut(slug).unwrap());
        Self::start_with(config).await
    }

    pub(crate) async fn start_with(config: SimConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let simulator = Simulator::start(config, listener).await.unwrap();
        Self { simulator }
    }

    pub(crate) fn control(&self) -> &Control {
        self.simulator.control()
    }

    pub(crate) fn issuer(&self, slug: &str) -> String {
        self.control().issuer(slug).unwrap()
    }

    pub(crate) async fn advance(&self, seconds: u64) {
        self.control()
            .advance_clock(Duration::from_secs(seconds))
            .await
            .unwrap();
    }

    /// An authorization request with everything a careful client sends; `change` sets parameters, or removes them with an empty value.
    pub(crate) fn authorize_url(&self, slug: &str, change: &[(&str, &str)]) -> String {
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, VERIFIER.as_bytes()));
        let mut parameters = BTreeMap::from([
            ("response_type", "code"),
            ("client_id", CLIENT),
            ("redirect_uri", REDIRECT),
            ("state", "s t/a&te"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ]);
        parameters.extend(change.iter().copied());
        parameters.retain(|_, value| !value.is_empty());
        format!(
            "{}/oauth/authorize?{}",
            self.issuer(slug),
            encode(&parameters.into_iter().collect::<Vec<_>>())
        )
    }

    /// The redirect back to the client after `user` has allowed the access.
    pub(crate) async fn consent(&self, slug: &str, user: &str, change: &[(&str, &str)]) -> Page {
        Browser::new()
            .consent(&self.authorize_url(slug, change), user)
            .await
            .unwrap()
    }

    pub(crate) async fn code(&self, slug: &str, user: &str, change: &[(&str, &str)]) -> String {
        let page = self.consent(slug, user, change).await;
        page.redirect_parameter("code")
            .unwrap_or_else(|| panic!("no code: {:?}", page.redirect()))
    }

    /// The whole flow, to the token response.
    pub(crate) async fn connect(&self, slug: &str, user: &str, scope: &str) -> Value {
        let code = self.code(slug, user, &[("scope", scope)]).await;
        let answer = self.exchange(slug, &code, VERIFIER).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json().unwrap()
    }

    pub(crate) async fn exchange(&self, slug: &str, code: &str, verifier: &str) -> Answer {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", REDIRECT),
            ("code_verifier", verifier),
        ];
        self.token(slug, &form).await.unwrap()
    }

    pub(crate) async fn refresh(&self, slug: &str, refresh_token: &str) -> Answer {
        self.try_refresh(slug, refresh_token).await.unwrap()
    }

    pub(crate) async fn try_refresh(
        &self,
        slug: &str,
        refresh_token: &str,
    ) -> Result<Answer, HttpError> {
        self.token(
            slug,
            &[
                ("grant_type", "refresh_token"),
                ("refresh_token", refresh_token),
            ],
        )
        .await
    }

    /// A token request with the client's credentials in the body.
    pub(crate) async fn token(
        &self,
        slug: &str,
        form: &[(&str, &str)],
    ) -> Result<Answer, HttpError> {
        let form: Vec<_> = [("client_id", CLIENT), ("client_secret", SECRET)]
            .into_iter()
            .chain(form.iter().copied())
            .collect();
        self.post_form(&format!("{}/oauth/token", self.issuer(slug)), &[], &form)
            .await
    }

    pub(crate) async fn post_form(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        form: &[(&str, &str)],
    ) -> Result<Answer, HttpError> {
        let headers: Vec<_> = [("content-type", "application/x-www-form-urlencoded")]
            .into_iter()
            .chain(headers.iter().copied())
            .collect();
        http_client::send(
            Method::POST,
            url,
            &headers,
            Bytes::from(encode(form)),
            TIMEOUT,
        )
        .await
    }

    /// A call to a provider's API with an access token.
    pub(crate) async fn api(
        &self,
        slug: &str,
        path: &str,
        token: &str,
        headers: &[(&str, &str)],
    ) -> Answer {
        self.api_url(&format!("{}{path}", self.issuer(slug)), token, headers)
            .await
            .unwrap()
    }

    pub(crate) async fn api_url(
        &self,
        url: &str,
        token: &str,
        headers: &[(&str, &str)],
    ) -> Result<Answer, HttpError> {
        let bearer = format!("Bearer {token}");
        let headers: Vec<_> = [("authorization", bearer.as_str())]
            .into_iter()
            .chain(headers.iter().copied())
            .collect();
        http_client::send(Method::GET, url, &headers, Bytes::new(), TIMEOUT).await
    }

    /// A call to the control API.
    pub(crate) async fn sim(&self, method: Method, path: &str, body: &Value) -> Answer {
        let url = format!("{}/_sim{path}", self.simulator.base_url());
        let body = if body.is_null() {
            Bytes::new()
        } else {
            Bytes::from(body.to_string())
        };
        http_client::send(
            method,
            &url,
            &[("content-type", "application/json")],
            body,
            TIMEOUT,
        )
        .await
        .unwrap()
    }
}

/// The default configuration with a client for the tests at each provider, and a clock that stands still.
pub(crate) fn config() -> SimConfig {
    let mut config = SimConfig {
        clock: Clock::frozen(datetime!(2026-06-01 12:00 UTC)),
        ..SimConfig::default()
    };
    for provider in &mut config.providers {
        provider
            .clients
            .push(ClientConfig::confidential(CLIENT, SECRET, &[REDIRECT]));
    }
    config
}

pub(crate) async fn get(url: &str) -> Answer {
    http_client::send(Method::GET, url, &[], Bytes::new(), TIMEOUT)
        .await
        .unwrap()
}

pub(crate) fn encode(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

/// A text field of a JSON answer.
pub(crate) fn text(json: &Value, name: &str) -> String {
    json[name]
        .as_str()
        .unwrap_or_else(|| panic!("no {name} in {json}"))
        .to_owned()
}

/// The OAuth error of an answer.
pub(crate) fn oauth_error(answer: &Answer) -> String {
    text(&answer.json().unwrap(), "error")
}
