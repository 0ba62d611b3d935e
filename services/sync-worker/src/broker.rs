//! What the broker gives for a call to a provider.

use std::collections::BTreeMap;
use std::time::Duration;

use common::Secret;
use common::rpc::{CallError, Channel};
use contracts::broker::v1::connection_service_client::ConnectionServiceClient;
use contracts::broker::v1::{
    GetConnectionRequest, GetRequestContextRequest, GetRequestContextResponse,
};
use time::OffsetDateTime;
use url::Url;
use worker::{Failure, Job};

use crate::failure;

/// A credential that ends sooner is asked for again before it is used.
const MARGIN: Duration = Duration::from_secs(30);

/// A client of the broker's.
#[derive(Clone, Debug)]
pub(crate) struct Broker {
    channel: Channel,
}

/// How to call the provider for a connection.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) base_url: Url,
    pub(crate) headers: Vec<(String, Secret<String>)>,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) version: i64,
    /// From here on it is asked for again.
    stale_at: Option<OffsetDateTime>,
}

/// Whose connection it is: who brings the documents in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Owner {
    pub(crate) user_id: String,
    pub(crate) user_email: String,
}

impl Broker {
    pub(crate) fn new(channel: Channel) -> Self {
        Self { channel }
    }

    /// The context of the job's account; a newer one than `refused`, where that is not 0.
    pub(crate) async fn context(&self, job: &Job, refused: i64) -> Result<Context, Failure> {
        let request = GetRequestContextRequest {
            tenant_id: job.tenant_id.clone(),
            connection_id: job.connection_id.clone(),
            external_account_id: job.external_account_id.clone(),
            purpose: format!("sync job {}", job.job_id),
            refused_credential_version: refused,
            min_validity: None,
        };
        let answer = self
            .client()
            .get_request_context(request)
            .await
            .map_err(CallError::from);
        Context::read(
            answer
                .map_err(|error| failure::of_broker(&error))?
                .into_inner(),
        )
    }

    /// The owner of the job's connection.
    pub(crate) async fn owner(&self, job: &Job) -> Result<Owner, Failure> {
        let request = GetConnectionRequest {
            tenant_id: job.tenant_id.clone(),
            connection_id: job.connection_id.clone(),
        };
        let answer = self
            .client()
            .get_connection(request)
            .await
            .map_err(CallError::from);
        let connection = answer
            .map_err(|error| failure::of_broker(&error))?
            .into_inner()
            .connection
            .unwrap_or_default();
        Ok(if connection.user_id.is_empty() {
            Owner {
                user_id: job.user_id.clone(),
                user_email: String::new(),
            }
        } else {
            Owner {
                user_id: connection.user_id,
                user_email: connection.user_email,
            }
        })
    }

    fn client(&self) -> ConnectionServiceClient<Channel> {
        ConnectionServiceClient::new(self.channel.clone())
    }
}

impl Context {
    fn read(answer: GetRequestContextResponse) -> Result<Self, Failure> {
        let base_url = Url::parse(&answer.base_url)
            .map_err(|_| Failure::fatal("the connection's provider has no address of its API; its integration has to name one"))?;
        let ends = answer
            .expires_at
            .and_then(|at| OffsetDateTime::from_unix_timestamp(at.seconds).ok());
        Ok(Self {
            base_url,
            headers: answer
                .headers
                .into_iter()
                .map(|(name, value)| (name, Secret::new(value)))
                .collect(),
            query: answer.query_params.into_iter().collect(),
            version: answer.credential_version,
            stale_at: ends.map(|ends| ends - MARGIN),
        })
    }

    pub(crate) fn is_stale(&self, now: OffsetDateTime) -> bool {
        self.stale_at.is_some_and(|stale_at| now >= stale_at)
    }

    /// Nothing better is to be had before it ends.
    pub(crate) fn keep(&mut self) {
        self.stale_at = self.stale_at.map(|at| at + MARGIN);
    }
}
