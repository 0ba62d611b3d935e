//! Documents, on their way into the ledger.

use std::collections::HashMap;
use std::time::Duration;

use common::Code;
use common::Deps;
use common::rpc::{CallError, Channel};
use connectors::Record;
use contracts::ingest::v1::document_service_client::DocumentServiceClient;
use contracts::ingest::v1::{
    Document, FinishFullPassRequest, IngestionMethod, RecordDocumentsRequest,
    RecordDocumentsResponse,
};
use prost_types::Timestamp;
use time::OffsetDateTime;
use worker::{Backoff, Lease, TriggerSource};

use crate::broker::Owner;
use crate::failure::{self, Trouble};

/// Documents in one call.
const MOST_DOCUMENTS: usize = 1000;
/// Bytes of content in one call; the ledger takes 3 MiB, what goes around the content included.
const MOST_BYTES: usize = 2_500_000;
/// What is longer is not kept.
const LONGEST_CONTENT: usize = 256 * 1024;
/// What goes around a document's content, roughly.
const ENVELOPE: usize = 512;
const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A client of the ledger's.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    channel: Channel,
    deps: Deps,
}

impl Ledger {
    pub(crate) fn new(channel: Channel, deps: &Deps) -> Self {
        Self {
            channel,
            deps: deps.clone(),
        }
    }

    /// Records a page, in as many calls as it takes.
    pub(crate) async fn record(
        &self,
        lease: &Lease,
        owner: &Owner,
        records: Vec<Record>,
    ) -> Result<RecordDocumentsResponse, Trouble> {
        let mut all = RecordDocumentsResponse::default();
        for documents in batches(documents(lease, owner, records, self.deps.now())) {
            let answer = self.record_batch(lease, documents).await?;
            all.inserted += answer.inserted;
            all.updated += answer.updated;
            all.unchanged += answer.unchanged;
            all.deleted += answer.deleted;
            all.rejected.extend(answer.rejected);
        }
        for rejected in &all.rejected {
            tracing::warn!(
                event = "document_rejected",
                external.id = rejected.id,
                reason = rejected.reason,
                error = rejected.message,
                "a document was not taken"
            );
        }
        Ok(all)
    }

    async fn record_batch(
        &self,
        lease: &Lease,
        documents: Vec<Document>,
    ) -> Result<RecordDocumentsResponse, Trouble> {
        let job = lease.job();
        let request = RecordDocumentsRequest {
            tenant_id: job.tenant_id.clone(),
            connection_id: job.connection_id.clone(),
            external_account_id: job.external_account_id.clone(),
            stream: job.stream.clone(),
            job_id: job.job_id.clone(),
            stream_epoch: lease.stream_epoch(),
            documents,
        };
        self.repeat(|| {
            let (mut client, request) = (self.client(), request.clone());
            async move { Ok(client.record_documents(request).await?.into_inner()) }
        })
        .await
    }

    /// Marks as deleted what the pass has not seen; how many that were.
    pub(crate) async fn finish_full_pass(
        &self,
        lease: &Lease,
        started_at: OffsetDateTime,
    ) -> Result<i64, Trouble> {
        let job = lease.job();
        let request = FinishFullPassRequest {
            tenant_id: job.tenant_id.clone(),
            connection_id: job.connection_id.clone(),
            external_account_id: job.external_account_id.clone(),
            stream: job.stream.clone(),
            job_id: job.job_id.clone(),
            started_at: Some(timestamp(started_at)),
            stream_epoch: lease.stream_epoch(),
        };
        let finished = self
            .repeat_raw(|| {
                let (mut client, request) = (self.client(), request.clone());
                async move { Ok(client.finish_full_pass(request).await?.into_inner()) }
            })
            .await;
        match finished {
            Ok(answer) => Ok(answer.deleted),
            Err(error) if error.code == Code::Unimplemented => {
                tracing::info!(
                    event = "full_pass_not_finished",
                    "the ledger cannot finish a full pass yet; what the provider no longer has stays as it is"
                );
                Ok(0)
            }
            Err(error) => Err(failure::of_ledger(&error)),
        }
    }

    async fn repeat<T, F: Future<Output = Result<T, CallError>>>(
        &self,
        call: impl FnMut() -> F,
    ) -> Result<T, Trouble> {
        self.repeat_raw(call)
            .await
            .map_err(|error| failure::of_ledger(&error))
    }

    /// What is recorded twice has the effect of once.
    async fn repeat_raw<T, F: Future<Output = Result<T, CallError>>>(
        &self,
        mut call: impl FnMut() -> F,
    ) -> Result<T, CallError> {
        let mut backoff = Backoff::new(&self.deps, FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            match call().await {
                Err(error) if passes(&error) && backoff.attempts() + 1 < ATTEMPTS => {
                    backoff.pause().await;
                }
                outcome => return outcome,
            }
        }
    }

    fn client(&self) -> DocumentServiceClient<Channel> {
        DocumentServiceClient::new(self.channel.clone())
    }
}

/// Refusals have a reason, and stay.
fn passes(error: &CallError) -> bool {
    error.is_transient() && error.reason.is_none()
}

/// The documents of a page. Where a record comes twice, the later one counts.
fn documents(
    lease: &Lease,
    owner: &Owner,
    records: Vec<Record>,
    now: OffsetDateTime,
) -> Vec<Document> {
    let method = match lease.job().triggered_by() {
        TriggerSource::Webhook => IngestionMethod::Webhook,
        _ => IngestionMethod::OauthSync,
    };
    let mut places: HashMap<String, usize> = HashMap::with_capacity(records.len());
    let mut documents: Vec<Document> = Vec::with_capacity(records.len());
    for record in records {
        if record.content_json.len() > LONGEST_CONTENT {
            tracing::warn!(
                event = "document_rejected",
                external.id = record.external_id,
                bytes = record.content_json.len(),
                "a record is longer than the ledger keeps, and is passed over"
            );
            continue;
        }
        let document = document(record, owner, method, now);
        if let Some(place) = places.get(&document.external_id) {
            documents[*place] = document;
        } else {
            places.insert(document.external_id.clone(), documents.len());
            documents.push(document);
        }
    }
    documents
}

fn document(
    record: Record,
    owner: &Owner,
    method: IngestionMethod,
    now: OffsetDateTime,
) -> Document {
    Document {
        external_id: record.external_id,
        title: record.title,
        content_json: record.content_json.into_bytes(),
        source_updated_at: record.updated_at.map(timestamp),
        ingested_by_user_id: owner.user_id.clone(),
        ingested_by_user_email: owner.user_email.clone(),
        ingestion_method: method.into(),
        deleted_at: record.deleted.then(|| timestamp(now)),
        content_url: record.content_url,
        ..Document::default()
    }
}

fn batches(documents: Vec<Document>) -> Vec<Vec<Document>> {
    let mut batches: Vec<Vec<Document>> = Vec::new();
    let mut bytes = 0;
    for document in documents {
        let size = document.content_json.len()
            + document.title.len()
            + document.content_url.len()
            + ENVELOPE;
        match batches.last_mut() {
            Some(batch) if batch.len() < MOST_DOCUMENTS && bytes + size <= MOST_BYTES => {
                bytes += size;
                batch.push(document);
            }
            _ => {
                bytes = size;
                batches.push(vec![document]);
            }
        }
    }
    batches
}

fn timestamp(at: OffsetDateTime) -> Timestamp {
    Timestamp {
        seconds: at.unix_timestamp(),
        nanos: at.nanosecond().cast_signed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(bytes: usize) -> Document {
        Document {
            content_json: vec![b'x'; bytes],
            ..Document::default()
        }
    }

    #[test]
    fn a_batch_keeps_within_both_limits() {
        let many = batches((0..2500).map(|_| document(10)).collect());
        assert_eq!(
            many.iter().map(Vec::len).collect::<Vec<_>>(),
            [1000, 1000, 500]
        );
        let large = batches((0..20).map(|_| document(LONGEST_CONTENT)).collect());
        let bytes = |batch: &Vec<Document>| {
            batch
                .iter()
                .map(|document| document.content_json.len())
                .sum::<usize>()
        };
        assert!(large.iter().all(|batch| bytes(batch) <= MOST_BYTES));
        assert_eq!(large.iter().map(Vec::len).sum::<usize>(), 20);
        assert!(batches(Vec::new()).is_empty());
    }
}
