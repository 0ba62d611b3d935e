//! Calls that come together are answered together: one statement reads their grants, one records what is handed out.
//!
//! Lanes take turns. Where nothing is under way, a lane sets out with whoever is there; else it gathers until it has as
//! many as are under way, until those have their answers, or for a moment at most. So nobody waits on an idle vault, and
//! under load the calls fall into as few statements as they can.
//!
//! A lane waits for nobody but the database: a grant that has to be refreshed first, or whose data key has to be fetched,
//! goes back to the call that wants it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Notify, mpsc, oneshot};
use tokio::time::Instant;

use super::{Handed, Handout, Request, Teller};
use crate::access_records::NotRecorded;
use crate::error::Error;
use crate::grant::Readable;

/// A call that waits for a lane.
pub(super) struct Waiting {
    request: Arc<Request>,
    answer: oneshot::Sender<Result<Served, Error>>,
}

/// What a lane did for a call.
pub(super) enum Served {
    /// It is recorded, and can leave.
    Handed(Handed),
    /// It was read, and has to be waited for: nothing was opened.
    Read(Readable),
}

/// One of the tasks behind a [`Handout`].
pub(crate) struct Lane {
    teller: Teller,
    queue: Arc<Mutex<mpsc::Receiver<Waiting>>>,
    under_way: Arc<UnderWay>,
}

/// Calls that lanes have taken on and not answered yet.
#[derive(Default)]
struct UnderWay {
    calls: AtomicUsize,
    fewer: Notify,
}

/// While one waits for the database, another one gathers.
const LANES: usize = 2;
const BATCH: usize = 256;
const QUEUE: usize = 4096;
/// The longest that a lane gathers.
const MOMENT: Duration = Duration::from_millis(1);

/// The queue to the lanes, and the lanes, each of which has to run.
pub(super) fn lanes(teller: &Teller) -> (mpsc::Sender<Waiting>, Vec<Lane>) {
    let (sender, queue) = mpsc::channel(QUEUE);
    let (queue, under_way) = (Arc::new(Mutex::new(queue)), Arc::default());
    let lane = |_| Lane {
        teller: teller.clone(),
        queue: Arc::clone(&queue),
        under_way: Arc::clone(&under_way),
    };
    (sender, (0..LANES).map(lane).collect())
}

impl Handout {
    /// Has a lane serve the call.
    pub(super) async fn serve(&self, request: &Arc<Request>) -> Result<Served, Error> {
        let (answer, told) = oneshot::channel();
        let waiting = Waiting {
            request: Arc::clone(request),
            answer,
        };
        self.queue
            .send(waiting)
            .await
            .map_err(|_| Error::Stopping)?;
        told.await.map_err(|_| Error::Stopping)?
    }
}

impl Lane {
    /// Runs until there is nobody left who could ask.
    pub(crate) async fn run(self) {
        loop {
            let batch = self.gather().await;
            if batch.is_empty() {
                return;
            }
            let count = batch.len();
            self.serve(batch).await;
            self.under_way.calls.fetch_sub(count, Ordering::SeqCst);
            self.under_way.fewer.notify_one();
        }
    }

    /// Those whose turn it is; nobody once there can be nobody any more.
    async fn gather(&self) -> Vec<Waiting> {
        let mut queue = self.queue.lock().await;
        let mut batch = Vec::with_capacity(BATCH);
        queue.recv_many(&mut batch, BATCH).await;
        let until = Instant::now() + MOMENT;
        while (1..BATCH).contains(&batch.len())
            && batch.len() < self.under_way.calls.load(Ordering::SeqCst)
        {
            let room = BATCH - batch.len();
            tokio::select! {
                come = queue.recv_many(&mut batch, room) => if come == 0 { break },
                () = self.under_way.fewer.notified() => {}
                () = tokio::time::sleep_until(until) => break,
            }
        }
        self.under_way
            .calls
            .fetch_add(batch.len(), Ordering::SeqCst);
        batch
    }

    async fn serve(&self, mut batch: Vec<Waiting>) {
        // Who has gone already is handed nothing, and needs no record.
        batch.retain(|waiting| !waiting.answer.is_closed());
        if batch.is_empty() {
            return;
        }
        let keys: Vec<_> = batch.iter().map(|waiting| waiting.request.grant).collect();
        let grants = match self.teller.vault.store.grants_read(&keys).await {
            Ok(grants) => grants,
            Err(error) => {
                let error = Arc::new(error);
                for waiting in batch {
                    waiting.tell(Err(Error::SharedStore(Arc::clone(&error))));
                }
                return;
            }
        };
        let (mut opened, mut accesses) = (Vec::new(), Vec::new());
        for (waiting, grant) in batch.into_iter().zip(grants) {
            match self.teller.open_at_once(&waiting.request, grant) {
                Ok(Served::Handed(handed)) => {
                    accesses.push(waiting.request.access());
                    opened.push((waiting, handed));
                }
                otherwise => waiting.tell(otherwise),
            }
        }
        let is_recorded = self.teller.recorder.append_all(accesses).await.is_ok();
        for (waiting, handed) in opened {
            if is_recorded {
                self.teller.count(&waiting.request);
                waiting.tell(Ok(Served::Handed(handed)));
            } else {
                waiting.tell(Err(NotRecorded.into()));
            }
        }
    }
}

impl Waiting {
    fn tell(self, served: Result<Served, Error>) {
        // Nobody may be waiting any more.
        let _ = self.answer.send(served);
    }
}
