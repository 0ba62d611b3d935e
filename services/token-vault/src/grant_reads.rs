//! Reads of grants that come together are made together: one statement for all that have waited for the one before.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::grant::{Grant, GrantKey};
use crate::store::{Store, StoreError};

/// Reads grants. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct GrantReads {
    queue: mpsc::Sender<Waiting>,
}

/// The task behind [`GrantReads`].
#[derive(Debug)]
pub(crate) struct ReadLoop {
    queue: mpsc::Receiver<Waiting>,
    store: Store,
}

#[derive(Debug)]
struct Waiting {
    key: GrantKey,
    found: oneshot::Sender<Result<Option<Grant>, Arc<StoreError>>>,
}

/// Why a grant was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The database failed.
    #[error("the grants cannot be read")]
    Store(#[source] Arc<StoreError>),
    /// The vault is on its way out.
    #[error("the vault is stopping")]
    Stopping,
}

const BATCH: usize = 256;
const QUEUE: usize = 4096;

impl GrantReads {
    /// A reader, and the task that has to run for it.
    pub(crate) fn new(store: Store) -> (Self, ReadLoop) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        (
            Self { queue },
            ReadLoop {
                queue: waiting,
                store,
            },
        )
    }

    /// The grant as it is in the database now.
    pub(crate) async fn get(&self, key: GrantKey) -> Result<Option<Grant>, ReadError> {
        let (found, told) = oneshot::channel();
        self.queue
            .send(Waiting { key, found })
            .await
            .map_err(|_| ReadError::Stopping)?;
        told.await
            .map_err(|_| ReadError::Stopping)?
            .map_err(ReadError::Store)
    }
}

impl ReadLoop {
    /// Runs until there is nobody left who could ask.
    pub(crate) async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.queue.recv_many(&mut batch, BATCH).await > 0 {
            let keys: Vec<GrantKey> = batch.iter().map(|waiting| waiting.key).collect();
            match self.store.grants_read(&keys).await {
                Ok(found) => {
                    for (waiting, grant) in batch.drain(..).zip(found) {
                        let _ = waiting.found.send(Ok(grant));
                    }
                }
                Err(error) => {
                    let error = Arc::new(error);
                    for waiting in batch.drain(..) {
                        let _ = waiting.found.send(Err(Arc::clone(&error)));
                    }
                }
            }
        }
    }
}
