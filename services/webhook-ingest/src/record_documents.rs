//! Writing documents into the ledger.
//!
//! The stream's row is locked first and until the commit. It says which lease epoch has written last, so an older holder
//! writes nothing once a newer one has; and it counts the changes, so their places become visible in their order, which is all
//! that a reader by cursor relies on. A stream has one writer by its lease, so nobody waits here but for the API and uploads.

use std::collections::{BTreeMap, HashMap};

use common::identity::Caller;
use common::pg::{Scope, Tx, audit};
use common::problem::Problem;
use common::{Code, Reason};
use contracts::common::v1::ItemError;
use contracts::ingest::v1::{FinishFullPassResponse, RecordDocumentsResponse};
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use crate::app::Ingest;
use crate::document::{Content, Held, Incoming, Judgement, StreamName, judge};
use crate::error::Error;
use crate::store::documents::{
    Written, documents_delete, documents_end, documents_known, documents_see, documents_write,
};
use crate::store::streams::{Locked, stream_advance, stream_ensure, stream_lock};
use crate::store::usage::{usage_lock, usage_set};

/// Documents that a full pass marks in one statement.
const ENDED_AT_ONCE: i64 = 5_000;

/// Documents for one stream, once each has been checked.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) stream: StreamName,
    pub(crate) job_id: String,
    pub(crate) epoch: i64,
    pub(crate) documents: Vec<Incoming>,
    /// Those that were not taken.
    pub(crate) rejected: Vec<ItemError>,
}

/// The end of a pass over all of a stream.
#[derive(Clone, Debug)]
pub(crate) struct FullPass {
    pub(crate) stream: StreamName,
    pub(crate) job_id: String,
    pub(crate) epoch: i64,
    pub(crate) started_at: OffsetDateTime,
}

/// Inserts, updates and deletes, and leaves alone what says the same or is older. A repeated call changes nothing.
///
/// # Errors
/// [`Error::LeaseLost`].
pub(crate) async fn record_documents(
    ingest: &Ingest,
    caller: &Caller,
    batch: Batch,
) -> Result<RecordDocumentsResponse, Error> {
    let tenant = batch.stream.tenant;
    let counted = batch
        .documents
        .iter()
        .any(|document| document.content.is_some() && !document.by.user_id.is_empty());
    let quota = if counted {
        ingest.quotas.documents_a_day(tenant).await?
    } else {
        None
    };
    let (caller, now) = (caller.clone(), ingest.now());
    ingest
        .database
        .run_tx(
            "documents_record",
            Scope::Tenant(tenant),
            async move |tx: &Tx| {
                let mut stream = stream_ensure(tx, &batch.stream).await?;
                check_epoch(&mut stream, batch.epoch)?;
                let mut ids: Vec<&str> = batch
                    .documents
                    .iter()
                    .map(|document| document.external_id.as_str())
                    .collect();
                ids.sort_unstable();
                ids.dedup();
                let known = documents_known(tx, tenant, &stream, &ids).await?;
                let mut ledger = Ledger::new(&stream, known, &batch.job_id, now);
                let mut allowance = Allowance::lock(tx, &batch, &ledger, quota, now.date()).await?;
                for document in &batch.documents {
                    ledger.take(document, &mut allowance, || tenant.new_id(tx.deps()));
                }
                ledger.write(tx, tenant, &stream).await?;
                stream.place = ledger.place;
                stream_advance(tx, tenant, &stream).await?;
                allowance.write(tx, tenant, now.date()).await?;
                let mut answer = ledger.answer;
                answer.rejected.splice(..0, batch.rejected.clone());
                if answer.inserted + answer.updated + answer.deleted > 0 {
                    let reason = format!(
                        "{} inserted, {} updated, {} deleted",
                        answer.inserted, answer.updated, answer.deleted
                    );
                    note(
                        tx,
                        &caller,
                        &batch.stream,
                        "RecordDocuments",
                        &batch.job_id,
                        &reason,
                    )
                    .await?;
                }
                Ok::<_, Error>(answer)
            },
        )
        .await
}

/// Marks as deleted what neither the pass has seen, nor anybody since it began.
///
/// # Errors
/// [`Error::LeaseLost`].
pub(crate) async fn finish_full_pass(
    ingest: &Ingest,
    caller: &Caller,
    pass: FullPass,
) -> Result<FinishFullPassResponse, Error> {
    let tenant = pass.stream.tenant;
    let (caller, now) = (caller.clone(), ingest.now());
    let deleted = ingest
        .database
        .run_tx(
            "full_pass_finish",
            Scope::Tenant(tenant),
            async move |tx: &Tx| {
                let Some(mut stream) = stream_lock(tx, &pass.stream).await? else {
                    return Ok(0);
                };
                check_epoch(&mut stream, pass.epoch)?;
                let before = stream.place;
                loop {
                    let ended = documents_end(
                        tx,
                        tenant,
                        &stream,
                        &pass.job_id,
                        pass.started_at,
                        now,
                        ENDED_AT_ONCE,
                    )
                    .await?;
                    stream.place += ended;
                    if ended < ENDED_AT_ONCE {
                        break;
                    }
                }
                stream_advance(tx, tenant, &stream).await?;
                let deleted = stream.place - before;
                if deleted > 0 {
                    let reason = format!("{deleted} deleted");
                    note(
                        tx,
                        &caller,
                        &pass.stream,
                        "FinishFullPass",
                        &pass.job_id,
                        &reason,
                    )
                    .await?;
                }
                Ok::<_, Error>(deleted)
            },
        )
        .await?;
    Ok(FinishFullPassResponse { deleted })
}

fn check_epoch(stream: &mut Locked, epoch: i64) -> Result<(), Error> {
    if epoch < stream.epoch {
        return Err(Error::LeaseLost);
    }
    stream.epoch = epoch;
    Ok(())
}

async fn note(
    tx: &Tx,
    caller: &Caller,
    stream: &StreamName,
    method: &str,
    job_id: &str,
    reason: &str,
) -> Result<(), Error> {
    let action = format!("DocumentService/{method}");
    let resource = if stream.connection_id.is_nil() {
        format!("streams/{}", stream.stream)
    } else {
        format!(
            "connections/{}/streams/{}",
            stream.connection_id, stream.stream
        )
    };
    let reason = if job_id.is_empty() {
        reason.to_owned()
    } else {
        format!("{reason}; jobs/{job_id}")
    };
    audit::append(
        tx,
        stream.tenant,
        caller.actor(),
        &action,
        &resource,
        &reason,
    )
    .await?;
    Ok(())
}

/// What each user may still bring in today, locked until the commit.
#[derive(Debug, Default)]
struct Allowance {
    quota: Option<i64>,
    /// Today's documents by user, those of this batch among them.
    used: BTreeMap<String, (i64, i64)>,
}

impl Allowance {
    /// Of those who bring in something new; in the order of their names, so that no two wait for each other.
    async fn lock(
        tx: &Tx,
        batch: &Batch,
        ledger: &Ledger<'_>,
        quota: Option<i64>,
        today: Date,
    ) -> Result<Self, Error> {
        let mut used = BTreeMap::new();
        for document in &batch.documents {
            let new =
                document.content.is_some() && !ledger.entries.contains_key(&document.external_id);
            if new && !document.by.user_id.is_empty() {
                used.insert(document.by.user_id.clone(), (0, 0));
            }
        }
        for (user_id, (before, now)) in &mut used {
            *before = usage_lock(tx, batch.stream.tenant, user_id, today).await?;
            *now = *before;
        }
        Ok(Self { quota, used })
    }

    /// Counts one more, if the quota allows it.
    fn take(&mut self, user_id: &str) -> bool {
        let Some((_, used)) = self.used.get_mut(user_id) else {
            return true;
        };
        if self.quota.is_some_and(|quota| *used >= quota) {
            return false;
        }
        *used += 1;
        true
    }

    async fn write(&self, tx: &Tx, tenant: common::TenantKey, today: Date) -> Result<(), Error> {
        for (user_id, (before, now)) in &self.used {
            if before != now {
                usage_set(tx, tenant, user_id, today, *now).await?;
            }
        }
        Ok(())
    }
}

/// The ledger's part that a batch is about, changed in memory and then written at once.
#[derive(Debug)]
struct Ledger<'a> {
    entries: HashMap<String, Entry>,
    job_id: &'a str,
    now: OffsetDateTime,
    place: i64,
    answer: RecordDocumentsResponse,
}

#[derive(Debug)]
struct Entry {
    held: Held,
    /// Of its change in this batch.
    place: Option<i64>,
    /// Whether `held` has what the document says, and not only its hash.
    whole: bool,
    seen: bool,
}

impl<'a> Ledger<'a> {
    fn new(
        stream: &Locked,
        known: Vec<(String, Held)>,
        job_id: &'a str,
        now: OffsetDateTime,
    ) -> Self {
        let entries = known.into_iter().map(|(external_id, held)| {
            let entry = Entry {
                held,
                place: None,
                whole: false,
                seen: false,
            };
            (external_id, entry)
        });
        Self {
            entries: entries.collect(),
            job_id,
            now,
            place: stream.place,
            answer: RecordDocumentsResponse::default(),
        }
    }

    fn take(
        &mut self,
        incoming: &Incoming,
        allowance: &mut Allowance,
        new_id: impl FnOnce() -> Uuid,
    ) {
        let entry = self.entries.get_mut(&incoming.external_id);
        let judgement = judge(entry.as_deref().map(|entry| &entry.held), incoming);
        if judgement == Judgement::Insert && !allowance.take(&incoming.by.user_id) {
            self.answer.rejected.push(over_quota(incoming, allowance));
            return;
        }
        match judgement {
            Judgement::Older => self.answer.unchanged += 1,
            Judgement::Same => {
                self.answer.unchanged += 1;
                if let Some(entry) = entry {
                    entry.seen = true;
                    entry.held.source_updated_at =
                        incoming.source_updated_at.or(entry.held.source_updated_at);
                }
            }
            Judgement::Insert => self.answer.inserted += 1,
            Judgement::Update => self.answer.updated += 1,
            Judgement::Delete => self.answer.deleted += 1,
        }
        if matches!(judgement, Judgement::Older | Judgement::Same) {
            return;
        }
        self.place += 1;
        let entry = self
            .entries
            .entry(incoming.external_id.clone())
            .or_insert_with(|| Entry {
                held: blank(new_id(), incoming, self.now),
                place: None,
                whole: true,
                seen: false,
            });
        entry.place = Some(self.place);
        entry.held.revision += 1;
        entry.held.source_updated_at = incoming.source_updated_at.or(entry.held.source_updated_at);
        self.job_id.clone_into(&mut entry.held.job_id);
        entry.held.updated_at = self.now;
        match &incoming.content {
            Some(content) => {
                entry.held.content = content.clone();
                entry.held.deleted_at = None;
                entry.whole = true;
            }
            None => entry.held.deleted_at = Some(self.now),
        }
    }

    async fn write(
        &mut self,
        tx: &Tx,
        tenant: common::TenantKey,
        stream: &Locked,
    ) -> Result<(), Error> {
        let (mut whole, mut gone, mut seen) = (Vec::new(), Vec::new(), Vec::new());
        for (external_id, entry) in self.entries.drain() {
            match entry.place {
                Some(place) => {
                    let written = Written {
                        external_id,
                        held: entry.held,
                        place,
                    };
                    if entry.whole { &mut whole } else { &mut gone }.push(written);
                }
                None if entry.seen => {
                    seen.push((entry.held.document_id, entry.held.source_updated_at));
                }
                None => {}
            }
        }
        whole.sort_unstable_by_key(|written| written.place);
        documents_write(tx, tenant, stream, self.job_id, self.now, &whole).await?;
        documents_delete(tx, tenant, self.job_id, self.now, &gone).await?;
        documents_see(tx, tenant, self.job_id, self.now, &seen).await?;
        Ok(())
    }
}

/// A document that the ledger does not have, before what comes in is written over it.
fn blank(document_id: Uuid, incoming: &Incoming, now: OffsetDateTime) -> Held {
    Held {
        document_id,
        content: Content {
            title: String::new(),
            json: Vec::new(),
            hash: Vec::new(),
            url: String::new(),
        },
        source_updated_at: None,
        by: incoming.by.clone(),
        job_id: String::new(),
        first_ingested_at: now,
        updated_at: now,
        deleted_at: None,
        revision: 0,
    }
}

fn over_quota(incoming: &Incoming, allowance: &Allowance) -> ItemError {
    let quota = allowance.quota.unwrap_or_default();
    let message = format!(
        "the user has brought in {quota} documents today, which is all that the tenant's quota allows"
    );
    Problem::new(Code::ResourceExhausted, Reason::QuotaExceeded, message)
        .into_item_error(incoming.external_id.as_str())
}
