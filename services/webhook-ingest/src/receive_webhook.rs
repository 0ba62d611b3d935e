//! Taking in a webhook: verified over its raw bytes, durable, and only then acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;

use common::Deps;
use common::telemetry::context;
use http::{HeaderMap, Method};
use webhook_signatures::{Refused, RequestParts, Scheme, Verified, verify};

use crate::error::Error;
use crate::event::{BodyForm, EventState, NewEvent};
use crate::group_commit::{GroupCommit, Taken};
use crate::keys::{Place, ServiceKeys};
use crate::source::OpenSource;
use crate::source_cache::SourceCache;
use crate::source_token::{TokenHash, token_hash};

/// A header's value that is longer is not kept.
const LONGEST_HEADER: usize = 2048;

/// Everything that is needed to take webhooks in.
#[derive(Clone, Debug)]
pub(crate) struct Intake {
    pub(crate) sources: Arc<SourceCache>,
    pub(crate) keys: Arc<ServiceKeys>,
    pub(crate) writer: GroupCommit,
    pub(crate) deps: Deps,
}

/// A request as it came in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Incoming<'a> {
    pub(crate) method: &'a Method,
    /// As the provider knows it.
    pub(crate) url: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
}

/// What the sender is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reception {
    /// It is durable.
    Taken(Taken),
    /// It is not the provider's.
    Refused(Refused),
}

impl Intake {
    /// The source whose address has this token.
    ///
    /// # Errors
    /// Where the database or the vault is away.
    pub(crate) async fn source(
        &self,
        token: &str,
    ) -> Result<Option<(TokenHash, Arc<OpenSource>)>, Error> {
        let Some(hash) = token_hash(token) else {
            return Ok(None);
        };
        Ok(self.sources.get(hash).await?.map(|source| (hash, source)))
    }

    /// Verifies the request, and makes it durable.
    ///
    /// # Errors
    /// Where it is not known to be durable; the provider has to send it again.
    pub(crate) async fn receive(
        &self,
        address: TokenHash,
        source: &Arc<OpenSource>,
        request: Incoming<'_>,
    ) -> Result<Reception, Error> {
        let mut source = Arc::clone(source);
        let mut verified = self.verify(&source, request);
        if verified.is_err()
            && let Some(newer) = self.sources.newer(address, &source).await?
        {
            source = newer;
            verified = self.verify(&source, request);
        }
        let source = &*source;
        match verified {
            Ok(verified) => {
                let event = self.event(source, request, verified).await?;
                let (event_id, event_type) = (event.event_id, event.event_type.clone());
                let taken = self.writer.take(event).await?;
                tracing::info!(
                    event = "webhook_verified",
                    tenant.id = %source.source.tenant,
                    source_id = source.source.source_id,
                    scheme = source.scheme.key,
                    event_type,
                    webhook.event_id = (taken == Taken::New).then(|| tracing::field::display(event_id)),
                    repeat = taken == Taken::Repeat,
                    "a webhook was verified and is durable"
                );
                Ok(Reception::Taken(taken))
            }
            Err(refused) => {
                log_refusal(source, &refused);
                Ok(Reception::Refused(refused))
            }
        }
    }

    fn verify(&self, source: &OpenSource, request: Incoming<'_>) -> Result<Verified, Refused> {
        let now = self.deps.now();
        let parts = RequestParts {
            method: request.method,
            url: request.url,
            headers: request.headers,
            body: request.body,
        };
        verify(
            source.scheme,
            &source.options,
            &source.secrets(now),
            &parts,
            now,
        )
    }

    async fn event(
        &self,
        open: &OpenSource,
        request: Incoming<'_>,
        verified: Verified,
    ) -> Result<NewEvent, Error> {
        let source = &open.source;
        let event_id = source.tenant.new_id(&self.deps);
        let (body, body_form) = if source.sealed_bodies {
            let place = Place::EventBody { event_id };
            let sealed = self.keys.seal(source.tenant, place, request.body).await?;
            (sealed, BodyForm::Sealed)
        } else {
            (request.body.to_vec(), BodyForm::Plain)
        };
        if let Some(unread) = verified.unread {
            tracing::warn!(
                event = "webhook_unread",
                tenant.id = %source.tenant,
                source_id = source.source_id,
                reason = unread.name(),
                "a genuine webhook's body cannot be read; it is kept, and routed by what its headers say"
            );
        }
        Ok(NewEvent {
            tenant: source.tenant,
            event_id,
            source_tenant: source.tenant,
            source_id: source.source_id.clone(),
            source_key: source.source_key,
            inbound_event_id: None,
            external_event_id: verified.external_event_id,
            event_type: verified.event_type.unwrap_or_default(),
            routing_keys: verified
                .routing_keys
                .into_iter()
                .map(|key| (key.name, key.value))
                .collect(),
            headers: kept_headers(open.scheme, request.headers),
            body,
            body_form,
            state: if verified.is_ping {
                EventState::Processed
            } else {
                EventState::Received
            },
            traceparent: context::current_traceparent().unwrap_or_default(),
            occurred_at: verified.occurred_at,
            received_at: self.deps.now(),
        })
    }
}

/// Those that the scheme lists, and nothing else: no signature, no authorization, no cookie.
fn kept_headers(scheme: &Scheme, headers: &HeaderMap) -> BTreeMap<String, String> {
    scheme
        .kept_headers()
        .filter_map(|name| {
            let value = headers.get(name)?.to_str().ok()?;
            (value.len() <= LONGEST_HEADER).then(|| (name.to_string(), value.to_owned()))
        })
        .collect()
}

fn log_refusal(source: &OpenSource, refused: &Refused) {
    if *refused == Refused::UnusableSecret {
        tracing::warn!(
            event = "webhook_refused",
            tenant.id = %source.source.tenant,
            source_id = source.source.source_id,
            scheme = source.scheme.key,
            reason = refused.name(),
            "a webhook was refused: {refused}; rotate the source's secret"
        );
    } else {
        tracing::info!(
            event = "webhook_refused",
            tenant.id = %source.source.tenant,
            source_id = source.source.source_id,
            scheme = source.scheme.key,
            reason = refused.name(),
            "a webhook was refused: {refused}"
        );
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_listed_headers_are_kept() {
        let scheme = Scheme::find("github").expect("it is there");
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-github-event", "push"),
            ("x-hub-signature-256", "sha256=00"),
            ("authorization", "Bearer canary"),
            ("cookie", "canary"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let long = "x".repeat(LONGEST_HEADER + 1);
        headers.insert(
            "user-agent",
            HeaderValue::try_from(long).expect("it is a value"),
        );
        let kept = kept_headers(scheme, &headers);
        assert_eq!(
            kept,
            BTreeMap::from([("x-github-event".to_owned(), "push".to_owned())])
        );
    }
}
