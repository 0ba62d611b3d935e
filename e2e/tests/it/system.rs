//! A running system, and everybody who may call it.

use std::ops::Deref;
use std::time::Duration;

use bytes::Bytes;
use common::Deps;
use common::identity::Identity;
use common::identity::authority::Authority;
use common::identity::tls::TlsConfig;
use e2e::{Hawser, Home};
use http::Method;
use provider_sim::http_client::{self, Answer};
use serde_json::Value;

use crate::calls::{Caller, Connection};

/// A `hawser up`, seen from outside.
pub(crate) struct System {
    pub(crate) hawser: Hawser,
    pub(crate) deps: Deps,
    operator: Caller,
}

const HTTP_TIMEOUT: Duration = Duration::from_secs(20);

impl System {
    pub(crate) async fn start(home: &Home) -> Self {
        Self::of(home.start().await.expect("hawser up becomes ready"))
    }

    pub(crate) fn of(hawser: Hawser) -> Self {
        let tls = &hawser.instance.tls;
        let operator = TlsConfig {
            ca_file: tls.ca.clone(),
            cert_file: tls.client_cert.clone(),
            key_file: tls.client_key.clone(),
        };
        let identity = Identity::Operator("local".to_owned());
        Self {
            operator: Caller::new("the operator of hawser.json", Some(identity), &operator),
            deps: Deps::system("e2e"),
            hawser,
        }
    }

    /// Whoever has the certificate that `hawser.json` names.
    pub(crate) fn operator(&self) -> &Caller {
        &self.operator
    }

    /// Whoever has a certificate of this identity.
    pub(crate) fn certified(&self, identity: Identity) -> Caller {
        let authority = Authority::open(&self.hawser.data_dir().join("certificates"), &self.deps)
            .expect("hawser up has made one");
        let tls = authority
            .issue(&identity, &[])
            .expect("it issues certificates");
        Caller::new(&identity.to_string(), Some(identity), &tls)
    }

    /// A backend of the host application.
    pub(crate) fn host(&self) -> Caller {
        self.certified(Identity::Host("app".to_owned()))
    }

    /// Nobody in particular.
    pub(crate) fn anonymous(&self) -> Caller {
        let tls = TlsConfig {
            ca_file: self.hawser.instance.tls.ca.clone(),
            ..TlsConfig::default()
        };
        Caller::new("anonymous", None, &tls)
    }

    /// A backend of the host application that speaks for a user.
    pub(crate) fn host_for(&self, tenant: &str, user: &str, roles: &[&str]) -> Caller {
        let token = self
            .hawser
            .user_token(tenant, user, roles)
            .expect("a token is minted");
        self.host()
            .with_token(&format!("the host application for {user}"), &token)
    }

    /// The operator's connection to a service: `broker`.
    pub(crate) fn to(&self, service: &str) -> Connection {
        self.connect(&self.operator, service)
    }

    /// Somebody's connection to a service.
    pub(crate) fn connect(&self, caller: &Caller, service: &str) -> Connection {
        caller.connect(self.hawser.instance.grpc(service))
    }

    /// The base URL of an HTTP listener.
    pub(crate) fn http(&self, listener: &str) -> &str {
        self.hawser.instance.http(listener)
    }

    /// The simulated provider's control API.
    pub(crate) async fn sim(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let answer = self.try_sim(method, path, body).await;
        answer.unwrap_or_else(|error| panic!("the simulated provider: {error:#}"))
    }

    /// As [`Self::sim`], of a simulator that may not be there any more.
    pub(crate) async fn try_sim(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<Value> {
        let url = format!("{}/_sim{path}", self.http("provider_sim"));
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let headers = [("content-type", "application/json")];
        let answer = http_client::send(method, &url, &headers, body, HTTP_TIMEOUT).await?;
        anyhow::ensure!(
            answer.status.is_success(),
            "{path} is refused: {}",
            answer.text()
        );
        Ok(answer.json().unwrap_or(Value::Null))
    }

    /// The address of the admin listener, from the log.
    pub(crate) fn admin_url(&self) -> String {
        let log = self.hawser.log();
        let line = log
            .of("process_starting")
            .next()
            .expect("it says where its admin listener is");
        format!("http://{}", line.field("admin"))
    }

    /// A number that was not had before.
    pub(crate) fn unique(&self) -> String {
        hex::encode(self.deps.random::<6>())
    }
}

impl Deref for System {
    type Target = Hawser;

    fn deref(&self) -> &Hawser {
        &self.hawser
    }
}

/// A request over HTTP that gets an answer.
pub(crate) async fn request(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Answer {
    http_client::send(method, url, headers, body, HTTP_TIMEOUT)
        .await
        .unwrap_or_else(|error| panic!("no answer from {url}: {error}"))
}
