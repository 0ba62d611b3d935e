//! A form that the client sends as itself to one of the provider's endpoints.

use std::time::Duration;

use common::{Deps, Secret};
use egress::{Egress, EgressError, Request, Response};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use url::Url;

use crate::classify::{self, Refused};
use crate::client::{BadKey, Client, Field};
use crate::dialect::Dialect;
use crate::failure::{Class, Failure};
use crate::json;

/// A request, ready to be sent, and sent again.
#[derive(Clone, Debug)]
pub(crate) struct FormCall {
    request: Request,
    secrets: Vec<Secret<String>>,
    dialect: Dialect,
}

impl FormCall {
    /// `traded` is what must not come back in a log, besides the client's own secrets.
    pub(crate) fn new(
        url: &Url,
        client: &Client,
        dialect: &Dialect,
        fields: Vec<Field<'_>>,
        traded: Vec<Secret<String>>,
        deps: &Deps,
    ) -> Result<Self, BadKey> {
        let request = client.request(url, fields, deps)?;
        Ok(Self::of(request, client, dialect, traded))
    }

    /// With a request that was built elsewhere.
    pub(crate) fn of(
        request: Request,
        client: &Client,
        dialect: &Dialect,
        traded: Vec<Secret<String>>,
    ) -> Self {
        let mut secrets = client.secrets();
        secrets.extend(traded);
        Self {
            request,
            secrets,
            dialect: dialect.clone(),
        }
    }

    pub(crate) fn timeout(mut self, timeout: Duration) -> Self {
        self.request = self.request.timeout(timeout);
        self
    }

    pub(crate) async fn send(&self, egress: &Egress) -> Result<Response, EgressError> {
        egress.send(self.request.clone()).await
    }

    /// The members of a good answer.
    pub(crate) fn read(
        &self,
        outcome: Result<Response, EgressError>,
        now: OffsetDateTime,
    ) -> Result<Map<String, Value>, Failure> {
        let response = outcome.map_err(classify::undelivered)?;
        let body = json::object_or_form(&response.body);
        match body {
            Some(body) if response.status.is_success() && !body.contains_key("error") => Ok(body),
            None if response.status.is_success() => Err(Failure {
                status: Some(response.status.as_u16()),
                ..Failure::new(Class::ProviderBug)
            }),
            body => Err(self.refused(&response, body.as_ref(), now)),
        }
    }

    /// What a refusal means.
    pub(crate) fn refused(
        &self,
        response: &Response,
        body: Option<&Map<String, Value>>,
        now: OffsetDateTime,
    ) -> Failure {
        let refused = Refused {
            status: response.status,
            headers: &response.headers,
            body,
            secrets: &self.secrets,
            single_use: false,
            now,
        };
        classify::refused(&refused, &self.dialect)
    }
}

/// A good answer without what it must have.
pub(crate) fn incomplete(what: &str) -> Failure {
    Failure {
        code: Some(format!("missing_{what}")),
        ..Failure::new(Class::ProviderBug)
    }
}

/// A member that is a non-empty string.
pub(crate) fn text<'a>(body: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    body.get(name)?.as_str().filter(|text| !text.is_empty())
}

/// A number of seconds, as a number or as text; a day at most is believed.
pub(crate) fn seconds(body: &Map<String, Value>, name: &str) -> Option<Duration> {
    const LONGEST: u64 = 24 * 60 * 60;
    let seconds = match body.get(name)? {
        Value::Number(number) => number.as_u64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    (seconds > 0).then(|| Duration::from_secs(seconds.min(LONGEST)))
}
