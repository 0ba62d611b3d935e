//! One job: pages read, documents recorded, the cursor moved, in this order.

use std::sync::Arc;
use std::time::Duration;

use common::Deps;
use connectors::{Connector, CursorError, Run, Stream, Task};
use egress::Egress;
use futures::future::try_join;
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::Instrument as _;
use worker::{Completion, Failure, FailureKind, Handler, Job, JobKind, Lease, Outcome};

use crate::app::Connectors;
use crate::broker::{Broker, Owner};
use crate::config::PageConfig;
use crate::failure::Trouble;
use crate::fetch_pages::{Fetched, Fetcher};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::progress::{Counted, PageCount};

/// A position that stays the same is stored again after so long, for its counts.
const LONGEST_SILENCE: Duration = Duration::from_secs(5);

/// What works on jobs.
#[derive(Debug)]
pub(crate) struct SyncJobs {
    pub(crate) broker: Broker,
    pub(crate) ledger: Ledger,
    pub(crate) egress: Egress,
    pub(crate) pages: PageConfig,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) connectors: Connectors,
    pub(crate) deps: Deps,
}

impl Handler for SyncJobs {
    async fn work(&self, lease: Lease) -> Outcome {
        tracing::info!(event = "sync_started", "a sync begins");
        match Box::pin(self.sync(&lease)).await {
            Ok(completion) => {
                let progress = completion.progress;
                tracing::info!(
                    event = "sync_completed",
                    records = progress.records_read,
                    written = progress.records_written,
                    unchanged = progress.records_unchanged,
                    deleted = progress.records_deleted,
                    calls = progress.api_calls,
                    "a sync is through"
                );
                Outcome::Completed(completion)
            }
            Err(Trouble::Failed(failure)) => Outcome::Failed(failure),
            Err(Trouble::Stopped) => {
                // Either the lease knows why, or the ledger was the first to find out that it is another's.
                if lease.stop().is_none() {
                    lease.declare_lost();
                }
                Outcome::Stopped
            }
        }
    }
}

impl SyncJobs {
    async fn sync(&self, lease: &Lease) -> Result<Completion, Trouble> {
        let job = lease.job();
        let stream = self.stream(job)?;
        let run = Run::start(stream, task(job, self.deps.now()))
            .map_err(|error| unstartable(error, job))?;
        let owner = self.broker.owner(job).await?;
        let context = self.broker.context(job, 0).await?;
        let mut recorder = Recorder::new(self, lease, owner, &run);
        recorder.begin(&run).await?;
        let mut fetcher = Fetcher {
            run,
            stream,
            lease,
            broker: &self.broker,
            egress: &self.egress,
            config: &self.pages,
            metrics: &self.metrics,
            deps: &self.deps,
            context,
            refused: false,
            spent: PageCount::default(),
        };
        let mut page = fetcher.next().await?;
        while let Some(fetched) = page {
            // The next page is on its way while this one is written; what has been read is written also where the next
            // page fails.
            let (next, ()) =
                try_join(async { Ok(fetcher.next().await) }, recorder.write(fetched)).await?;
            page = next?;
        }
        recorder.finish(&fetcher.run).await
    }

    fn stream(&self, job: &Job) -> Result<&'static Stream, Failure> {
        let connector: &Connector = (self.connectors)(&job.provider).ok_or_else(|| {
            Failure::fatal(format!("there is no connector for `{}`", job.provider))
        })?;
        connector.stream(&job.stream).ok_or_else(|| {
            Failure::fatal(format!(
                "the connector of `{}` has no stream `{}`",
                job.provider, job.stream
            ))
        })
    }
}

/// Writes pages and says where the job is.
struct Recorder<'a> {
    jobs: &'a SyncJobs,
    lease: &'a Lease,
    owner: Owner,
    counted: Counted,
    started: Instant,
    told: (Vec<u8>, Instant),
}

impl<'a> Recorder<'a> {
    fn new(jobs: &'a SyncJobs, lease: &'a Lease, owner: Owner, run: &Run<'_>) -> Self {
        let started = Instant::now();
        Self {
            jobs,
            lease,
            owner,
            counted: Counted::new(lease.job().progress, run.fraction()),
            started,
            told: (lease.job().cursor_json.clone(), started),
        }
    }

    /// Where the incremental jobs will begin is stored before the first page is read: a later attempt must not take a later
    /// mark, or what changed between the two would be missed.
    async fn begin(&mut self, run: &Run<'_>) -> Result<(), Trouble> {
        match run.mark() {
            Some(mark) if self.lease.job().cursor_json.is_empty() => {
                self.tell(run.position(), Some(mark)).await
            }
            _ => Ok(()),
        }
    }

    /// Documents before the cursor: a crash in between repeats the page, and the ledger makes the repeat harmless.
    async fn write(&mut self, page: Fetched) -> Result<(), Trouble> {
        let span = tracing::info_span!("sync.record", records = page.records.len());
        self.record(page).instrument(span).await
    }

    async fn record(&mut self, page: Fetched) -> Result<(), Trouble> {
        let Fetched {
            records,
            count,
            position,
            mark,
        } = page;
        self.counted.add_page(&count, self.started.elapsed());
        if !records.is_empty() {
            let answer = self
                .jobs
                .ledger
                .record(self.lease, &self.owner, records)
                .await?;
            self.counted.add_written(&answer);
            let (provider, stream) = (&self.lease.job().provider, &self.lease.job().stream);
            for (outcome, records) in [
                ("inserted", answer.inserted),
                ("updated", answer.updated),
                ("unchanged", answer.unchanged),
                ("deleted", answer.deleted),
                ("rejected", answer.rejected.len() as i64),
            ] {
                self.jobs
                    .metrics
                    .recorded(provider, stream, outcome, records);
            }
        }
        if position != self.told.0 || self.told.1.elapsed() >= LONGEST_SILENCE {
            self.tell(position, mark).await?;
        }
        let progress = self.counted.so_far();
        tracing::debug!(
            event = "sync_progressed",
            records = progress.records_read,
            expected = progress.records_expected,
            calls = progress.api_calls,
            "a page of a sync is recorded"
        );
        Ok(())
    }

    async fn tell(&mut self, position: Vec<u8>, mark: Option<Vec<u8>>) -> Result<(), Trouble> {
        self.told = (position.clone(), Instant::now());
        let told = self
            .lease
            .checkpoint(position, mark.unwrap_or_default(), self.counted.so_far())
            .await;
        told.map_err(|_| Trouble::Stopped)
    }

    async fn finish(mut self, run: &Run<'_>) -> Result<Completion, Trouble> {
        if let Some(started_at) = run.full_pass() {
            let deleted = self
                .jobs
                .ledger
                .finish_full_pass(self.lease, started_at)
                .await?;
            self.counted.add_deleted(deleted);
        }
        Ok(Completion {
            cursor_json: run.rest(),
            incremental_cursor_json: run.mark().unwrap_or_default(),
            progress: self.counted.at_the_end(),
        })
    }
}

fn task(job: &Job, now: OffsetDateTime) -> Task<'_> {
    let time = |at: Option<prost_types::Timestamp>| {
        let at = at?;
        let nanos = i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos);
        OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()
    };
    Task {
        kind: match job.kind() {
            JobKind::Initial => connectors::JobKind::Initial,
            JobKind::Full => connectors::JobKind::Full,
            JobKind::Incremental | JobKind::Unspecified => connectors::JobKind::Incremental,
        },
        window_start: time(job.window_start),
        window_end: time(job.window_end),
        cursor: &job.cursor_json,
        account: &job.external_account_id,
        external_ids: &job.external_ids,
        now,
    }
}

/// An incremental job whose cursor means nothing here can only begin anew, as after the provider has forgotten it.
fn unstartable(error: CursorError, job: &Job) -> Failure {
    match error {
        CursorError::Unreadable | CursorError::Foreign if job.kind() == JobKind::Incremental => {
            Failure::new(FailureKind::CursorLost, error.to_string())
        }
        _ => Failure::fatal(error.to_string()),
    }
}
