//! A clock that stands still, and a provider that answers as it is told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::{Clock, Deps, Secret};
use egress::{Egress, EgressConfig, HeaderMap, StatusCode};
use http::{HeaderName, HeaderValue};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use oauth_client::{
    Client, ClientAuth, Dialect, Failure, TokenCall, TokenEndpoint, TokenGrant, TokenSet,
};
use rcgen::KeyPair;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::datetime;
use tokio::net::TcpListener;
use url::Url;

/// When every test happens.
pub(crate) const NOW: OffsetDateTime = datetime!(2026-01-01 12:00:00 UTC);

/// Moves when it is told to.
#[derive(Debug, Default)]
pub(crate) struct TestClock(Mutex<Duration>);

impl TestClock {
    pub(crate) fn advance(&self, by: Duration) {
        *self.0.lock().expect("one test") += by;
    }
}

impl Clock for TestClock {
    fn now(&self) -> OffsetDateTime {
        NOW + self.boottime()
    }

    fn boottime(&self) -> Duration {
        *self.0.lock().expect("one test")
    }
}

pub(crate) fn deps() -> (Deps, Arc<TestClock>) {
    let clock = Arc::new(TestClock::default());
    let system = Deps::system("test");
    (
        Deps {
            clock: clock.clone(),
            ..system
        },
        clock,
    )
}

pub(crate) fn egress() -> Egress {
    let config = EgressConfig {
        allow_loopback_http: true,
        ..EgressConfig::default()
    };
    Egress::new(config, &Deps::system("test")).expect("a client")
}

pub(crate) fn url(text: &str) -> Url {
    Url::parse(text).expect("a URL in a test")
}

pub(crate) fn secret(text: &str) -> Secret<String> {
    Secret::from(text)
}

pub(crate) fn client(auth: ClientAuth) -> Client {
    Client {
        id: "our client".to_owned(),
        auth,
    }
}

/// An answer as `egress` would give it.
pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> egress::Response {
    let headers = headers.iter().map(|(name, value)| {
        (
            HeaderName::try_from(*name).expect("a name"),
            HeaderValue::from_str(value).expect("a value"),
        )
    });
    egress::Response {
        status: StatusCode::from_u16(status).expect("a status"),
        headers: headers.collect::<HeaderMap>(),
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

/// The public part of a key, as an issuer publishes it.
pub(crate) fn public_jwk(pair: &KeyPair, algorithm: Algorithm) -> Value {
    if algorithm == Algorithm::EdDSA {
        let x = URL_SAFE_NO_PAD.encode(pair.public_key_raw());
        return json!({"kty": "OKP", "crv": "Ed25519", "x": x});
    }
    let pem = pair.serialize_pem();
    let private = match algorithm {
        Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(pem.as_bytes()),
        _ => EncodingKey::from_rsa_pem(pem.as_bytes()),
    };
    let public = Jwk::from_encoding_key(&private.expect("a key that signs"), algorithm)
        .expect("its public part");
    serde_json::to_value(public).expect("JSON")
}

/// A refresh, not sent.
pub(crate) fn refresh_call(dialect: &Dialect) -> TokenCall {
    let (deps, _) = deps();
    TokenEndpoint {
        url: &url("https://as.example/token"),
        client: &client(ClientAuth::SecretPost(secret("client-secret-canary"))),
        dialect,
    }
    .call(
        &TokenGrant::RefreshToken {
            refresh_token: &secret("refresh-canary"),
            scopes: &[],
        },
        &deps,
    )
    .expect("a call")
}

/// What a refresh makes of an answer.
pub(crate) fn read(status: u16, headers: &[(&str, &str)], body: &str) -> Result<TokenSet, Failure> {
    refresh_call(&Dialect::default()).read(Ok(answer(status, headers, body)), NOW, NOW)
}

/// A request as the provider saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Seen {
    /// The fields of a form.
    pub(crate) fn form(&self) -> Vec<(String, String)> {
        url::form_urlencoded::parse(self.body.as_bytes())
            .into_owned()
            .collect()
    }

    /// One field of a form, which must occur once.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        let mut values = self.form().into_iter().filter(|(field, _)| field == name);
        let value = values.next();
        assert!(values.next().is_none(), "{name} occurs once");
        value.map(|(_, value)| value)
    }
}

type Answer = Arc<Mutex<dyn FnMut(&Seen) -> (u16, Vec<(&'static str, String)>, String) + Send>>;

/// A provider on a free port.
#[derive(Clone)]
pub(crate) struct Provider {
    pub(crate) origin: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Provider {
    /// Answers each request with what `answer` says.
    pub(crate) async fn start(
        answer: impl FnMut(&Seen) -> (u16, Vec<(&'static str, String)>, String) + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let origin = format!("http://{}", listener.local_addr().expect("an address"));
        let provider = Self {
            origin,
            seen: Arc::default(),
        };
        let answer: Answer = Arc::new(Mutex::new(answer));
        let router = Router::new()
            .fallback(serve)
            .with_state((provider.clone(), answer));
        tokio::spawn(async move { axum::serve(listener, router).await });
        provider
    }

    pub(crate) fn url(&self, path: &str) -> Url {
        url(&format!("{}{path}", self.origin))
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("one test").clone()
    }

    /// The only request there was.
    pub(crate) fn only(&self) -> Seen {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1);
        seen.remove(0)
    }
}

async fn serve(State((provider, answer)): State<(Provider, Answer)>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
    let seen = Seen {
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).expect("text"),
    };
    let (status, headers, body) = (answer.lock().expect("one test"))(&seen);
    provider.seen.lock().expect("one test").push(seen);
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response.body(body.into()).expect("a response")
}
