//! A simulator whose clock stands still, and a reader that keeps what it is given.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use connectors::{Answer, JobKind, PageRequest, Run, Stream, Task};
use http::Method;
use provider_sim::config::{ClientConfig, CollectionKind};
use provider_sim::http_client::{self, Answer as HttpAnswer};
use provider_sim::{Clock, CollectionName, Control, SimConfig, Simulator};
use time::OffsetDateTime;
use time::macros::datetime;
use tokio::net::TcpListener;
use url::Url;

pub(crate) const NOW: OffsetDateTime = datetime!(2026-06-01 12:00 UTC);
pub(crate) const COMPANY: &str = "562949953500001";
const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct World {
    simulator: Simulator,
    provider: &'static str,
    token: String,
    account: &'static str,
    clock: Clock,
}

/// What the host would have: the last that was said of each record.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// By id: when it was changed last, as the provider writes it.
    pub(crate) live: BTreeMap<String, OffsetDateTime>,
    /// Records that were given, repeats and all.
    pub(crate) given: usize,
    pub(crate) calls: usize,
}

impl World {
    pub(crate) async fn procore(records: u32) -> Self {
        Self::start("procore", COMPANY, records, "").await
    }

    pub(crate) async fn graph(records: u32) -> Self {
        Self::start("microsoft", "", records, "&scope=Mail.Read").await
    }

    async fn start(
        provider: &'static str,
        account: &'static str,
        records: u32,
        scope: &str,
    ) -> Self {
        let clock = Clock::frozen(NOW);
        let mut config = SimConfig {
            clock: clock.clone(),
            records,
            ..SimConfig::default()
        };
        for known in &mut config.providers {
            known.access_lifetime_seconds = 365 * 24 * 3600;
            known.clients.push(ClientConfig {
                service_user: Some("alice".to_owned()),
                ..ClientConfig::confidential("reader", "secret", &[])
            });
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let simulator = Simulator::start(config, listener).await.unwrap();
        let url = format!(
            "{}/oauth/token",
            simulator.control().issuer(provider).unwrap()
        );
        let form =
            format!("grant_type=client_credentials&client_id=reader&client_secret=secret{scope}");
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let answer = http_client::send(Method::POST, &url, &headers, Bytes::from(form), TIMEOUT)
            .await
            .unwrap();
        let token = answer.json().unwrap()["access_token"]
            .as_str()
            .expect("a token")
            .to_owned();
        Self {
            simulator,
            provider,
            token,
            account,
            clock,
        }
    }

    pub(crate) fn control(&self) -> &Control {
        self.simulator.control()
    }

    pub(crate) fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }

    pub(crate) async fn advance(&self, seconds: u64) {
        self.control()
            .advance_clock(Duration::from_secs(seconds))
            .await
            .unwrap();
    }

    pub(crate) fn collection(&self) -> CollectionName {
        let (collection, owner) = match self.provider {
            "procore" => (CollectionKind::Projects, COMPANY),
            _ => (CollectionKind::Messages, "alice"),
        };
        CollectionName {
            provider: self.provider.to_owned(),
            collection,
            owner: owner.to_owned(),
        }
    }

    /// What the provider has.
    pub(crate) fn ids(&self) -> BTreeSet<String> {
        self.control()
            .records(&self.collection())
            .unwrap()
            .into_iter()
            .map(|record| record.id)
            .collect()
    }

    pub(crate) fn task<'a>(&self, kind: JobKind, cursor: &'a [u8]) -> Task<'a> {
        let now = self.now();
        Task {
            kind,
            window_start: (kind == JobKind::Initial).then(|| now - time::Duration::days(366)),
            window_end: (kind == JobKind::Initial).then_some(now),
            cursor,
            account: self.account,
            external_ids: &[],
            now,
        }
    }

    pub(crate) async fn fetch(&self, request: &PageRequest) -> HttpAnswer {
        let base = Url::parse(&self.control().issuer(self.provider).unwrap()).unwrap();
        let url = request.url(&base, &BTreeMap::new()).unwrap();
        let bearer = format!("Bearer {}", self.token);
        let mut headers = vec![("authorization", bearer.as_str())];
        if !self.account.is_empty() {
            headers.push(("procore-company-id", self.account));
        }
        headers.extend(
            request
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        );
        http_client::send(Method::GET, url.as_str(), &headers, Bytes::new(), TIMEOUT)
            .await
            .unwrap()
    }

    /// Reads one page, if there is one.
    pub(crate) async fn step(&self, run: &mut Run<'_>, ledger: &mut Ledger) -> bool {
        let Some(request) = run.request().unwrap() else {
            return false;
        };
        let answer = self.fetch(&request).await;
        assert_eq!(answer.status, 200, "{request}: {}", answer.text());
        let page = run
            .apply(&Answer {
                status: answer.status,
                headers: &answer.headers,
                body: &answer.body,
            })
            .unwrap();
        ledger.calls += 1;
        for record in page.records {
            ledger.given += 1;
            if record.deleted {
                ledger.live.remove(&record.external_id);
            } else {
                let at = record.updated_at.unwrap_or(OffsetDateTime::UNIX_EPOCH);
                ledger.live.insert(record.external_id, at);
            }
        }
        true
    }

    /// Reads to the end, and gives the cursor that the next job begins at.
    pub(crate) async fn read(
        &self,
        stream: &Stream,
        task: Task<'_>,
        ledger: &mut Ledger,
    ) -> Vec<u8> {
        let mut run = Run::start(stream, task).unwrap();
        while self.step(&mut run, ledger).await {}
        run.rest()
    }
}

impl Ledger {
    pub(crate) fn ids(&self) -> BTreeSet<String> {
        self.live.keys().cloned().collect()
    }
}
