//! The tasks that a process consists of, by name.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::watch;

use super::Shutdown;
use crate::telemetry::chain;

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Spawns tasks and knows which of them still run; clones are the same one, and [`Tasks::scoped`] ones are too.
#[derive(Clone)]
pub struct Tasks {
    shared: Arc<Shared>,
    scope: String,
}

struct Shared {
    shutdown: Shutdown,
    running: Mutex<Running>,
    /// How many run that are drained first, and how many in all.
    counts: watch::Sender<(usize, usize)>,
    failed: AtomicBool,
}

#[derive(Default)]
struct Running {
    next: u64,
    tasks: BTreeMap<u64, (String, Role)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The process is nothing without it; ends when shutdown is requested.
    Essential,
    /// As essential, and others lean on it while they finish; ends when they have.
    Support,
    /// Work that ends when it is done.
    Work,
}

/// Takes the task off the list however it ends, by the runtime's end too.
struct Entry {
    shared: Arc<Shared>,
    id: u64,
}

impl Tasks {
    pub(super) fn new(shutdown: Shutdown) -> Self {
        let shared = Shared {
            shutdown,
            running: Mutex::default(),
            counts: watch::Sender::new((0, 0)),
            failed: AtomicBool::new(false),
        };
        Self {
            shared: Arc::new(shared),
            scope: String::new(),
        }
    }

    /// The same tasks; what is spawned through it is called `<scope>.<name>`.
    #[must_use]
    pub fn scoped(&self, scope: &str) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            scope: format!("{}{scope}.", self.scope),
        }
    }

    /// Spawns a task that the process cannot do without: it ends, with `Ok`, once shutdown is requested. If it fails,
    /// panics, or ends before, that is logged and the process ends with code 1.
    pub fn spawn<F, E>(&self, name: &str, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.start(name, Role::Essential, async {
            task.await.map_err(Into::into)
        });
    }

    /// Spawns such a task that others lean on while they finish: it ends once [`Shutdown::drained`] does.
    pub fn spawn_until_drained<F, E>(&self, name: &str, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.start(name, Role::Support, async {
            task.await.map_err(Into::into)
        });
    }

    /// Spawns work that is finished before the process ends, and whose end means nothing; a panic is logged. It has no
    /// span but what the caller gives it, since it would keep the request's span open.
    pub fn spawn_work(&self, name: &str, work: impl Future<Output = ()> + Send + 'static) {
        self.start(name, Role::Work, async {
            work.await;
            Ok(())
        });
    }

    /// Waits until every task has ended, those that others lean on last. Answers with the names of those that had not
    /// after `patience`.
    pub async fn drained(&self, patience: Duration) -> Vec<String> {
        let mut counts = self.shared.counts.subscribe();
        let all = async {
            // The sender is in `shared`, so waiting does not fail.
            let _ = counts.wait_for(|(first, _)| *first == 0).await;
            self.shared.shutdown.set_drained();
            let _ = counts.wait_for(|(_, all)| *all == 0).await;
        };
        if tokio::time::timeout(patience, all).await.is_ok() {
            return Vec::new();
        }
        let running = self.shared.running();
        // Support only waits for the others, if there are any.
        let role = |wanted: fn(Role) -> bool| -> Vec<String> {
            let named = running.tasks.values().filter(|(_, role)| wanted(*role));
            named.map(|(name, _)| name.clone()).collect()
        };
        let first = role(|role| role != Role::Support);
        if first.is_empty() {
            role(|_| true)
        } else {
            first
        }
    }

    /// Whether an essential task failed, panicked or ended early.
    pub fn any_failed(&self) -> bool {
        self.shared.failed.load(Ordering::SeqCst)
    }

    fn start(
        &self,
        name: &str,
        role: Role,
        task: impl Future<Output = Result<(), BoxError>> + Send + 'static,
    ) {
        let name = format!("{}{name}", self.scope);
        let shared = Arc::clone(&self.shared);
        let entry = shared.enter(name.clone(), role);
        let task = async move {
            let outcome = AssertUnwindSafe(task).catch_unwind().await;
            shared.judge(&name, role, outcome);
            drop(entry);
        };
        tokio::spawn(task);
    }
}

impl Shared {
    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(self: &Arc<Self>, name: String, role: Role) -> Entry {
        let mut running = self.running();
        let id = running.next;
        running.next += 1;
        running.tasks.insert(id, (name, role));
        self.count(&running);
        Entry {
            shared: Arc::clone(self),
            id,
        }
    }

    fn count(&self, running: &Running) {
        let support = running
            .tasks
            .values()
            .filter(|(_, role)| *role == Role::Support)
            .count();
        let all = running.tasks.len();
        self.counts.send_replace((all - support, all));
    }

    fn judge(
        &self,
        name: &str,
        role: Role,
        outcome: Result<Result<(), BoxError>, Box<dyn Any + Send>>,
    ) {
        let finishing = self.shutdown.is_requested();
        let cause = match outcome {
            Ok(Ok(())) if finishing || role == Role::Work => return,
            Ok(Ok(())) => "it ended although nobody asked it to".to_owned(),
            Ok(Err(error)) => chain(error.as_ref()),
            Err(panic) => format!("it panicked: {}", panic_message(panic.as_ref())),
        };
        if role == Role::Work {
            tracing::error!(
                event = "work_died",
                task = name,
                cause,
                "{name} was not finished: {cause}"
            );
            return;
        }
        self.failed.store(true, Ordering::SeqCst);
        if finishing {
            tracing::warn!(
                event = "task_died",
                task = name,
                cause,
                "{name} failed while it finished: {cause}"
            );
        } else {
            tracing::error!(
                event = "task_died",
                task = name,
                cause,
                "{name} died, and the process with it: {cause}"
            );
            self.shutdown.request();
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut running = self.shared.running();
        running.tasks.remove(&self.id);
        self.shared.count(&running);
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = self.shared.running();
        f.debug_set()
            .entries(running.tasks.values().map(|(name, _)| name))
            .finish()
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
