//! Reading a stream from the provider, page by page.

use std::time::Duration;

use common::Deps;
use connectors::{Answer, Method, Page, PageRequest, Record, Refused, RequestError, Run, Stream};
use egress::{Egress, Request, Response};
use http::StatusCode;
use tracing::Instrument as _;
use worker::{Backoff, Failure, FailureKind, Job, Lease};

use crate::broker::{Broker, Context};
use crate::config::PageConfig;
use crate::failure;
use crate::limits;
use crate::metrics::Metrics;
use crate::progress::PageCount;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A longer word is none.
const LONGEST_WORD: usize = 64;

/// A page, and where the stream is behind it.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) records: Vec<Record>,
    pub(crate) count: PageCount,
    /// Where a later attempt goes on.
    pub(crate) position: Vec<u8>,
    /// Where the incremental jobs begin, once that is known.
    pub(crate) mark: Option<Vec<u8>>,
}

/// Reads pages one after the other.
pub(crate) struct Fetcher<'a> {
    pub(crate) run: Run<'a>,
    pub(crate) stream: &'a Stream,
    pub(crate) lease: &'a Lease,
    pub(crate) broker: &'a Broker,
    pub(crate) egress: &'a Egress,
    pub(crate) config: &'a PageConfig,
    pub(crate) metrics: &'a Metrics,
    pub(crate) deps: &'a Deps,
    pub(crate) context: Context,
    /// The provider has refused a credential, and taken none since.
    pub(crate) refused: bool,
    /// Calls and bytes since the last page.
    pub(crate) spent: PageCount,
}

/// Why an attempt at a page was in vain.
enum Vain {
    /// It may go better in a moment.
    Again(Failure),
    /// It will not.
    End(Failure),
    /// The credential is refused.
    Credential(Failure),
    /// The provider has forgotten its own cursor or address.
    Cursor(Failure),
}

impl Fetcher<'_> {
    /// The next page; `None` where everything has been read.
    pub(crate) async fn next(&mut self) -> Result<Option<Fetched>, Failure> {
        let span = tracing::info_span!("sync.page", records = tracing::field::Empty);
        let fetched = Box::pin(self.fetch()).instrument(span.clone()).await?;
        if let Some(fetched) = &fetched {
            span.record("records", fetched.records.len());
        }
        Ok(fetched)
    }

    async fn fetch(&mut self) -> Result<Option<Fetched>, Failure> {
        let mut backoff = Backoff::new(self.deps, FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            let Some(request) = self.run.request().map_err(|error| unaskable(&error))? else {
                return Ok(None);
            };
            match self.attempt(&request).await {
                Ok(page) => return Ok(Some(self.fetched(page))),
                Err(Vain::Again(failure)) if backoff.attempts() + 1 >= self.config.attempts => {
                    return Err(failure);
                }
                Err(Vain::Again(failure)) => {
                    tracing::debug!(
                        event = "page_repeated",
                        error = failure.error,
                        "a page is asked for again"
                    );
                    backoff.pause().await;
                }
                Err(Vain::End(failure)) => return Err(failure),
                Err(Vain::Credential(failure)) => self.renew(failure).await?,
                Err(Vain::Cursor(failure)) => match self.run.refuse_cursor() {
                    Refused::Restarted => tracing::info!(
                        event = "pass_restarted",
                        "the provider has forgotten the address of the next page; the pass begins anew"
                    ),
                    Refused::Lost => return Err(failure),
                },
            }
        }
    }

    fn fetched(&mut self, page: Page) -> Fetched {
        let spent = std::mem::take(&mut self.spent);
        Fetched {
            count: PageCount {
                records: page.records.len() as i64,
                total: page.total,
                fraction: self.run.fraction(),
                ..spent
            },
            records: page.records,
            position: self.run.position(),
            mark: self.run.mark(),
        }
    }

    async fn attempt(&mut self, request: &PageRequest) -> Result<Page, Vain> {
        let now = self.deps.now();
        if self.context.is_stale(now) {
            let before = self.context.version;
            self.context = self
                .broker
                .context(self.job(), 0)
                .await
                .map_err(Vain::End)?;
            if self.context.version == before {
                self.context.keep();
            }
        }
        let response = self.send(request).await?;
        if self.run.accepts(response.status) {
            self.refused = false;
            let answer = Answer {
                status: response.status,
                headers: &response.headers,
                body: &response.body,
            };
            return self
                .run
                .apply(&answer)
                .map_err(|error| Vain::Again(Failure::retry(format!("{request}: {error}"))));
        }
        Err(self.refusal(request, &response).await)
    }

    async fn send(&mut self, request: &PageRequest) -> Result<Response, Vain> {
        let url = request.url(&self.context.base_url, &self.context.query);
        let url = url.map_err(|error| Vain::End(Failure::fatal(format!("{request}: {error}"))))?;
        let method = match request.method {
            Method::Get => egress::Method::GET,
            Method::Post => egress::Method::POST,
        };
        let mut call = Request::new(method, url)
            .accept_json()
            .timeout(self.config.timeout.get())
            .body_limit(self.config.max_bytes)
            .repeatable();
        for (name, value) in &self.context.headers {
            call = call.secret_header(name, value);
        }
        for (name, value) in &request.headers {
            call = call.header(name, value);
        }
        let answered = self.egress.send(call).await;
        let (status, bytes) = match &answered {
            Ok(response) => (Some(response.status), response.body.len()),
            Err(error) => (error.status(), 0),
        };
        self.metrics
            .called(&self.job().provider, &self.stream.name, status, bytes);
        self.spent.calls += 1;
        self.spent.bytes += bytes as i64;
        answered.map_err(|error| match failure::of_egress(&error, request) {
            (failure, true) => Vain::Again(failure),
            (failure, false) => Vain::End(failure),
        })
    }

    async fn refusal(&self, request: &PageRequest, response: &Response) -> Vain {
        let status = response.status;
        let said = format!(
            "{request}: the provider answers {}{}",
            status.as_u16(),
            word(&response.body)
        );
        if let Some(wait) = limits::wait(status, &response.headers, self.deps.now()) {
            self.lease.report_rate_limit(wait).await;
            return Vain::End(Failure::retry(said).after(Some(wait)));
        }
        match status {
            StatusCode::UNAUTHORIZED => Vain::Credential(Failure::park(said)),
            StatusCode::FORBIDDEN => Vain::End(Failure {
                missing_scopes: self.stream.required_scopes.clone(),
                ..Failure::park(said)
            }),
            StatusCode::NOT_FOUND | StatusCode::GONE if request.resumes => {
                Vain::Cursor(Failure::new(FailureKind::CursorLost, said))
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT | StatusCode::TOO_EARLY => {
                Vain::Again(Failure::retry(said))
            }
            _ if status.is_server_error() => Vain::Again(Failure::retry(said)),
            _ => Vain::End(Failure::fatal(said)),
        }
    }

    /// Asks for a newer credential, once for each that is refused; where the newer one is refused too, the user is needed.
    async fn renew(&mut self, failure: Failure) -> Result<(), Failure> {
        if self.refused {
            return Err(failure);
        }
        let refused = self.context.version;
        self.context = self.broker.context(self.job(), refused).await?;
        if self.context.version == refused {
            return Err(failure);
        }
        self.refused = true;
        tracing::info!(
            event = "credential_renewed",
            "the provider refused the credential, and gets a newer one"
        );
        Ok(())
    }

    fn job(&self) -> &Job {
        self.lease.job()
    }
}

fn unaskable(error: &RequestError) -> Failure {
    match error {
        RequestError::NoAccount => Failure::park(format!("{error}; select one")),
        RequestError::NoValue(_) => Failure::fatal(error.to_string()),
    }
}

/// The provider's own word for the error, where it has one: a code, and never a text that may hold what it was told.
fn word(body: &[u8]) -> String {
    const PLACES: [&str; 4] = ["/error/code", "/error", "/code", "/errors/0/code"];
    let document: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let codes = PLACES
        .iter()
        .filter_map(|place| document.pointer(place)?.as_str());
    let is_code = |code: &&str| {
        !code.is_empty()
            && code.len() <= LONGEST_WORD
            && code
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
    };
    codes
        .filter(|code| is_code(code))
        .map(|code| format!(" ({code})"))
        .next()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_kept_and_a_sentence_is_not() {
        assert_eq!(
            word(br#"{"error": {"code": "ErrorAccessDenied", "message": "x"}}"#),
            " (ErrorAccessDenied)"
        );
        assert_eq!(word(br#"{"error": "invalid_token"}"#), " (invalid_token)");
        assert_eq!(word(br#"{"error": "The token abc is not valid"}"#), "");
        assert_eq!(word(b"<html>"), "");
        assert_eq!(word(b""), "");
    }
}
