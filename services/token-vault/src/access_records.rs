//! The record of who was handed what: durable before the secret leaves.
//!
//! One task appends what has come together since its last flush, in one transaction, and only then answers. Each flush
//! ends with a link: an HMAC over its records and the link before it, in a chain of this run of this vault. Where it is not
//! known whether a flush was committed, a new chain begins.

use common::identity::Caller;
use common::problem::Chain;
use common::telemetry::context;
use common::{Deps, TenantKey};
use envelope::MacKey;
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::store::{AccessRow, LinkRow, Store, StoreError};

/// What is about to be handed out, and to whom.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) tenant: TenantKey,
    pub(crate) grant_id: Option<Uuid>,
    /// What it is where it is no grant: `service-key/ingest`.
    pub(crate) resource: String,
    pub(crate) recipient: Recipient,
    /// The method.
    pub(crate) action: &'static str,
    pub(crate) purpose: String,
}

/// Who is handed something.
#[derive(Clone, Debug)]
pub(crate) struct Recipient {
    /// The service that asked.
    pub(crate) caller: String,
    /// The person on whose behalf, where there is one.
    pub(crate) user_id: String,
    /// Of what began it.
    pub(crate) purpose: String,
    pub(crate) trace_id: String,
}

/// Appends records. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<Waiting>,
}

/// Nothing may be handed out: its record cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("the access record cannot be written")]
pub(crate) struct NotRecorded;

/// The task behind a [`Recorder`].
#[derive(Debug)]
pub(crate) struct Flusher {
    queue: mpsc::Receiver<Waiting>,
    store: Store,
    key: MacKey,
    kek_id: String,
    deps: Deps,
    chain: ChainEnd,
}

#[derive(Debug)]
struct Waiting {
    access: Access,
    durable: oneshot::Sender<bool>,
}

/// The last link of a chain.
#[derive(Clone, Debug)]
struct ChainEnd {
    id: Uuid,
    sequence: i64,
    mac: Vec<u8>,
}

const BATCH: usize = 256;
const QUEUE: usize = 4096;

impl Recipient {
    /// The caller of a method.
    pub(crate) fn of(caller: &Caller) -> Self {
        Self {
            caller: caller.identity.to_string(),
            user_id: caller.user_id().to_owned(),
            purpose: caller.actor().purpose.clone(),
            trace_id: context::current_trace_id().unwrap_or_default(),
        }
    }
}

impl Recorder {
    /// A recorder, and the task that has to run for it.
    pub(crate) fn new(store: Store, key: MacKey, kek_id: &str, deps: &Deps) -> (Self, Flusher) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let (chain, kek_id) = (ChainEnd::new(deps), kek_id.to_owned());
        (
            Self { queue },
            Flusher {
                queue: waiting,
                store,
                key,
                kek_id,
                deps: deps.clone(),
                chain,
            },
        )
    }

    /// Returns once the record is durable.
    pub(crate) async fn append(&self, access: Access) -> Result<(), NotRecorded> {
        let (durable, told) = oneshot::channel();
        self.queue
            .send(Waiting { access, durable })
            .await
            .map_err(|_| NotRecorded)?;
        if told.await.unwrap_or(false) {
            Ok(())
        } else {
            Err(NotRecorded)
        }
    }
}

impl Flusher {
    /// Runs until there is nobody left who could hand something out.
    pub(crate) async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.queue.recv_many(&mut batch, BATCH).await > 0 {
            let is_durable = match self.flush(&batch).await {
                Ok(()) => true,
                Err(error) => {
                    tracing::warn!(
                        event = "access_not_recorded",
                        error = %Chain(&error),
                        records = batch.len(),
                        "access records cannot be written, so no secret leaves"
                    );
                    // The records may be there or not; nothing is linked to what is not known.
                    self.chain = ChainEnd::new(&self.deps);
                    false
                }
            };
            for waiting in batch.drain(..) {
                // Who is not there any more is recorded all the same.
                let _ = waiting.durable.send(is_durable);
            }
        }
    }

    async fn flush(&mut self, batch: &[Waiting]) -> Result<(), StoreError> {
        let now = self.deps.now();
        let rows: Vec<AccessRow> = batch
            .iter()
            .zip(self.chain.sequence + 1..)
            .map(|(waiting, sequence)| row(&waiting.access, sequence, now))
            .collect();
        let sequence = self.chain.sequence + rows.len() as i64;
        let mac = link_mac(&self.key, self.chain.id, &self.chain.mac, &rows);
        let link = LinkRow {
            chain_id: self.chain.id,
            sequence,
            kek_id: self.kek_id.clone(),
            mac: mac.to_vec(),
            occurred_at: now,
        };
        self.store.records_append(&rows, &link).await?;
        self.chain.sequence = sequence;
        self.chain.mac = link.mac;
        Ok(())
    }
}

impl ChainEnd {
    /// A chain without links, in a log bucket of its own.
    fn new(deps: &Deps) -> Self {
        Self {
            id: TenantKey::new_tenant(deps).id(),
            sequence: 0,
            mac: Vec::new(),
        }
    }
}

/// The MAC of a flush: of its chain, the link before it, and each field of each record behind its length.
fn link_mac(key: &MacKey, chain: Uuid, before: &[u8], rows: &[AccessRow]) -> [u8; 32] {
    let mut message = Vec::new();
    let mut field = |bytes: &[u8]| {
        message.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        message.extend_from_slice(bytes);
    };
    field(chain.as_bytes());
    field(before);
    for row in rows {
        field(&row.sequence.to_be_bytes());
        field(&(row.occurred_at.unix_timestamp_nanos() / 1000).to_be_bytes());
        field(row.tenant_id.as_bytes());
        field(row.grant_id.as_ref().map_or(&[][..], |id| id.as_bytes()));
        for text in [
            &row.resource,
            &row.caller,
            &row.user_id,
            &row.action,
            &row.purpose,
            &row.trace_id,
        ] {
            field(text.as_bytes());
        }
    }
    key.sign(&[&message])
}

fn row(access: &Access, sequence: i64, now: OffsetDateTime) -> AccessRow {
    let recipient = &access.recipient;
    let purpose = if access.purpose.is_empty() {
        &recipient.purpose
    } else {
        &access.purpose
    };
    AccessRow {
        sequence,
        occurred_at: now,
        tenant_id: access.tenant.id(),
        grant_id: access.grant_id,
        resource: access.resource.clone(),
        caller: recipient.caller.clone(),
        user_id: recipient.user_id.clone(),
        action: access.action.to_owned(),
        purpose: purpose.clone(),
        trace_id: recipient.trace_id.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<AccessRow> {
        let deps = Deps::system("test");
        let recipient = Recipient {
            caller: "spiffe://hawser/oauth-broker".to_owned(),
            user_id: "ada".to_owned(),
            purpose: String::new(),
            trace_id: "t".to_owned(),
        };
        let tenant = TenantKey::new_tenant(&deps);
        let access = |purpose: &str| Access {
            tenant,
            grant_id: Some(tenant.new_id(&deps)),
            resource: String::new(),
            recipient: recipient.clone(),
            action: "GetCredential",
            purpose: purpose.to_owned(),
        };
        let now = deps.now();
        vec![row(&access("a"), 1, now), row(&access("b"), 2, now)]
    }

    #[test]
    fn every_change_of_a_record_changes_the_link() {
        let key = MacKey::new(&[7; 32]);
        let chain = TenantKey::new_tenant(&Deps::system("test")).id();
        let rows = records();
        let whole = link_mac(&key, chain, b"before", &rows);
        assert_eq!(link_mac(&key, chain, b"before", &rows), whole);
        assert_ne!(link_mac(&key, chain, b"", &rows), whole);
        assert_ne!(link_mac(&key, chain, b"before", &rows[..1]), whole);
        let edits: [fn(&mut AccessRow); 8] = [
            |row| row.sequence += 1,
            |row| row.occurred_at += std::time::Duration::from_micros(1),
            |row| row.grant_id = None,
            |row| row.caller.push('x'),
            |row| row.user_id.clear(),
            |row| row.purpose = "c".to_owned(),
            |row| row.action.clear(),
            |row| row.trace_id.push('t'),
        ];
        for (number, edit) in edits.iter().enumerate() {
            let mut edited = rows.clone();
            edit(&mut edited[1]);
            assert_ne!(
                link_mac(&key, chain, b"before", &edited),
                whole,
                "edit {number}"
            );
        }
        let swapped: Vec<_> = rows.iter().rev().cloned().collect();
        assert_ne!(link_mac(&key, chain, b"before", &swapped), whole);
    }

    #[test]
    fn a_letter_that_moves_to_the_next_field_changes_the_link() {
        let key = MacKey::new(&[7; 32]);
        let chain = TenantKey::new_tenant(&Deps::system("test")).id();
        let mut one = records();
        let mut other = one.clone();
        one[0].resource = "ab".to_owned();
        one[0].caller = "c".to_owned();
        other[0].resource = "a".to_owned();
        other[0].caller = "bc".to_owned();
        assert_ne!(
            link_mac(&key, chain, b"", &one),
            link_mac(&key, chain, b"", &other)
        );
    }
}
