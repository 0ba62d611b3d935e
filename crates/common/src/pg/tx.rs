//! One transaction, in one scope.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use deadpool_postgres::{ClientWrapper, Object};
use futures::future::{join, join3};
use futures::{StreamExt as _, TryStreamExt as _};
use tokio_postgres::{Row, SimpleQueryStream};
use tracing::Instrument as _;

use super::connect::Connector;
use super::database::{Inner, Isolation, Scope};
use super::statement::{Known, Params, Ready};
use super::{Error, database};

/// A transaction that lets go of its locks by itself: the server ends one that has been idle for this long, which is what
/// becomes of the transaction of a process that was frozen.
const IDLE_LIMIT: Duration = Duration::from_secs(15);
/// The server ends a statement at its limit; we give it this much longer before we take the connection for lost.
const GRACE: Duration = Duration::from_secs(3);
/// How long the statement of an abandoned transaction may still run before it is cancelled.
const ABANDONED_LIMIT: Duration = Duration::from_secs(1);

/// An open transaction. Statements are named by their first line, `-- vault.grant_get`.
///
/// One that is dropped half-way, because its caller was cancelled, is rolled back; its connection is used again only
/// once the server has said so.
pub struct Tx {
    shared: Arc<Inner>,
    name: &'static str,
    scope: Scope,
    /// `None` once the transaction has ended.
    connection: Option<Object>,
    /// The answer to `BEGIN; SET LOCAL …`, until somebody has read it.
    begin: Mutex<Option<SimpleQueryStream>>,
    /// A statement has failed, so the server will not commit.
    failed: AtomicBool,
    /// The connection was lost, or its state is not known.
    lost: AtomicBool,
    /// Something was appended to the outbox.
    appended: AtomicBool,
    /// The server has answered COMMIT or ROLLBACK: the connection is as it was before.
    over: AtomicBool,
}

#[derive(Clone, Copy)]
enum Wanted {
    Rows,
    Count,
}

enum Answer {
    Rows(Vec<Row>),
    Count(u64),
}

impl Tx {
    /// Puts the beginning on the wire, and does not wait for the answer: that comes with the first statement's.
    pub(super) async fn begin(
        shared: &Arc<Inner>,
        name: &'static str,
        scope: Scope,
        isolation: Isolation,
    ) -> Result<Self, Error> {
        let connection = shared.acquire().await?;
        let sql = begin_sql(shared, scope, isolation);
        let begin = connection
            .simple_query_raw(&sql)
            .await
            .map_err(|error| Error::of_statement("BEGIN", error))?;
        Ok(Self {
            shared: Arc::clone(shared),
            name,
            scope,
            connection: Some(connection),
            begin: Mutex::new(Some(begin)),
            failed: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            appended: AtomicBool::new(false),
            over: AtomicBool::new(false),
        })
    }

    /// Every row.
    pub async fn query(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Error> {
        Ok(self.run(sql, params, Wanted::Rows).await?.rows())
    }

    /// The row, or none. More than one is an error.
    pub async fn query_opt(&self, sql: &str, params: Params<'_>) -> Result<Option<Row>, Error> {
        at_most_one(&self.shared, sql, self.query(sql, params).await?)
    }

    /// The row. None, or more than one, is an error.
    pub async fn query_one(&self, sql: &str, params: Params<'_>) -> Result<Row, Error> {
        exactly_one(&self.shared, sql, self.query(sql, params).await?)
    }

    /// How many rows were affected.
    pub async fn execute(&self, sql: &str, params: Params<'_>) -> Result<u64, Error> {
        Ok(self.run(sql, params, Wanted::Count).await?.count())
    }

    /// Whose data it sees.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// Time and randomness of the database that it is a transaction of.
    pub fn deps(&self) -> &crate::Deps {
        &self.shared.deps
    }

    /// After the commit there is something to number.
    pub(super) fn note_append(&self) {
        self.appended.store(true, Ordering::Relaxed);
    }

    pub(super) async fn commit(mut self) -> Result<(), Error> {
        if self.failed.load(Ordering::Relaxed) {
            let transaction = self.name.to_owned();
            self.rollback().await;
            return Err(Error::Aborted { transaction });
        }
        let outcome = {
            let (begun, committed) =
                Box::pin(self.limited("COMMIT", join(self.begun(), self.send("COMMIT")))).await?;
            begun.and(committed)
        };
        self.finish(outcome.as_ref().err());
        outcome
    }

    pub(super) async fn rollback(mut self) {
        self.appended.store(false, Ordering::Relaxed);
        if self.lost.load(Ordering::Relaxed) {
            // Nobody is there to be told; the server does it by itself.
            self.finish(None);
            return;
        }
        let outcome =
            match Box::pin(self.limited("ROLLBACK", join(self.begun(), self.send("ROLLBACK"))))
                .await
            {
                Ok((_, rolled_back)) => rolled_back,
                Err(error) => Err(error),
            };
        self.finish(outcome.as_ref().err());
    }

    /// The only statement of its transaction: it travels together with BEGIN and COMMIT.
    pub(super) async fn query_and_commit(
        self,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, Error> {
        Ok(self.run_and_commit(sql, params, Wanted::Rows).await?.rows())
    }

    /// As [`Tx::query_and_commit`], for the number of affected rows.
    pub(super) async fn execute_and_commit(
        self,
        sql: &str,
        params: Params<'_>,
    ) -> Result<u64, Error> {
        Ok(self
            .run_and_commit(sql, params, Wanted::Count)
            .await?
            .count())
    }

    async fn run(&self, sql: &str, params: Params<'_>, wanted: Wanted) -> Result<Answer, Error> {
        let known = self.shared.catalogue.get(sql);
        let work = async {
            let statement = async {
                let ready = self.shared.catalogue.ready(self.client(), &known).await?;
                perform(&ready, self.client(), params, wanted).await
            };
            let (begun, answer) = self
                .limited(&known.name, join(self.begun(), statement))
                .await?;
            begun?;
            answer.map_err(|error| Error::of_statement(&known.name, error))
        };
        // On the heap: a transaction's future holds one of these for each of its statements.
        self.observed(&known, Box::pin(work)).await
    }

    async fn run_and_commit(
        mut self,
        sql: &str,
        params: Params<'_>,
        wanted: Wanted,
    ) -> Result<Answer, Error> {
        let known = self.shared.catalogue.get(sql);
        let outcome = self
            .observed(
                &known,
                Box::pin(self.limited_pipeline(&known, params, wanted)),
            )
            .await;
        if outcome.is_err() && !self.over.load(Ordering::Relaxed) {
            // It failed before the COMMIT was sent, when it was prepared.
            self.rollback().await;
        } else {
            self.finish(outcome.as_ref().err());
        }
        outcome
    }

    async fn limited_pipeline(
        &self,
        known: &Arc<Known>,
        params: Params<'_>,
        wanted: Wanted,
    ) -> Result<Answer, Error> {
        self.limited(&known.name, self.pipeline(known, params, wanted))
            .await?
    }

    async fn pipeline(
        &self,
        known: &Arc<Known>,
        params: Params<'_>,
        wanted: Wanted,
    ) -> Result<Answer, Error> {
        let named = |error| Error::of_statement(&known.name, error);
        let ready = {
            let mut preparing = std::pin::pin!(self.shared.catalogue.ready(self.client(), known));
            match futures::poll!(preparing.as_mut()) {
                Poll::Ready(ready) => ready.map_err(named)?,
                // Seen for the first time on this connection: this once it takes a round trip more.
                Poll::Pending => {
                    let (begun, ready) = join(self.begun(), preparing).await;
                    begun?;
                    ready.map_err(named)?
                }
            }
        };
        // `join3` polls in this order, and each puts its message on the wire when it is first polled. A COMMIT that
        // follows a failed statement rolls back.
        let (begun, answer, committed) = join3(
            self.begun(),
            perform(&ready, self.client(), params, wanted),
            self.send("COMMIT"),
        )
        .await;
        begun?;
        let answer = answer.map_err(named)?;
        committed?;
        Ok(answer)
    }

    /// Span, metric, and whether the transaction can still commit.
    async fn observed(
        &self,
        known: &Known,
        work: impl Future<Output = Result<Answer, Error>>,
    ) -> Result<Answer, Error> {
        let span = tracing::info_span!(
            "db",
            otel.name = known.span,
            otel.kind = "client",
            db.system.name = "postgresql",
            db.namespace = self.shared.schema,
            db.query.summary = known.name,
            error.type = tracing::field::Empty,
        );
        let started = self.shared.deps.clock.boottime();
        let outcome = work.instrument(span.clone()).await;
        let took = self.shared.deps.clock.boottime().saturating_sub(started);
        self.shared
            .metrics
            .statement(&known.name, took, outcome.as_ref().err());
        if let Err(error) = &outcome {
            span.record("error.type", error.sqlstate().unwrap_or("other"));
            if !matches!(error, Error::Type(_)) {
                self.failed.store(true, Ordering::Relaxed);
            }
            if error.is_fatal_to_connection() {
                self.lost.store(true, Ordering::Relaxed);
            }
        }
        outcome
    }

    async fn limited<T>(&self, statement: &str, work: impl Future<Output = T>) -> Result<T, Error> {
        let limit = self.shared.statement_timeout + GRACE;
        tokio::time::timeout(limit, work)
            .await
            .map_err(|_| Error::Silent {
                statement: statement.to_owned(),
                limit,
            })
    }

    /// Reads the answer to the beginning, once.
    async fn begun(&self) -> Result<(), Error> {
        let stream = self
            .begin
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match stream {
            None => Ok(()),
            Some(stream) => drain(stream)
                .await
                .map_err(|error| Error::of_statement("BEGIN", error)),
        }
    }

    /// COMMIT or ROLLBACK; whatever the server answers, the transaction is over then.
    async fn send(&self, sql: &'static str) -> Result<(), Error> {
        let named = |error| Error::of_statement(sql, error);
        let stream = self.client().simple_query_raw(sql).await.map_err(named)?;
        let outcome = drain(stream).await.map_err(named);
        if !outcome.as_ref().is_err_and(Error::is_fatal_to_connection) {
            self.over.store(true, Ordering::Relaxed);
        }
        outcome
    }

    /// Gives the connection back, or throws it away.
    fn finish(&mut self, error: Option<&Error>) {
        let usable =
            self.over.load(Ordering::Relaxed) && !error.is_some_and(Error::is_fatal_to_connection);
        if let Some(connection) = self.connection.take()
            && !usable
        {
            drop(Object::take(connection));
        }
        if error.is_none() && self.appended.load(Ordering::Relaxed) {
            self.shared.outbox.wake();
        }
    }

    fn client(&self) -> &ClientWrapper {
        self.connection
            .as_ref()
            .expect("the connection is there until the transaction ends, which consumes it")
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(abandon(connection, Arc::clone(&self.shared.connector)));
            }
            Err(_) => drop(Object::take(connection)),
        }
    }
}

impl std::fmt::Debug for Tx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tx")
            .field("name", &self.name)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

impl Answer {
    fn rows(self) -> Vec<Row> {
        match self {
            Self::Rows(rows) => rows,
            Self::Count(_) => unreachable!("rows were asked for"),
        }
    }

    fn count(self) -> u64 {
        match self {
            Self::Count(count) => count,
            Self::Rows(_) => unreachable!("a count was asked for"),
        }
    }
}

async fn perform(
    ready: &Ready,
    client: &ClientWrapper,
    params: Params<'_>,
    wanted: Wanted,
) -> Result<Answer, tokio_postgres::Error> {
    match wanted {
        Wanted::Rows => ready.query(client, params).await.map(Answer::Rows),
        Wanted::Count => ready.execute(client, params).await.map(Answer::Count),
    }
}

async fn drain(stream: SimpleQueryStream) -> Result<(), tokio_postgres::Error> {
    let mut stream = std::pin::pin!(stream);
    while let Some(message) = stream.next().await {
        if let Err(error) = message {
            // Read to its end, so that nothing is left over for who comes next.
            while stream.try_next().await.is_ok_and(|more| more.is_some()) {}
            return Err(error);
        }
    }
    Ok(())
}

/// The caller is gone. What runs may end, for a moment; what runs longer is cancelled, and its connection closed.
async fn abandon(connection: Object, connector: Arc<Connector>) {
    let rolled_back =
        tokio::time::timeout(ABANDONED_LIMIT, connection.batch_execute("ROLLBACK")).await;
    if !matches!(rolled_back, Ok(Ok(()))) {
        let _ = tokio::time::timeout(ABANDONED_LIMIT, connector.cancel(&connection)).await;
        drop(Object::take(connection));
    }
}

fn begin_sql(shared: &Inner, scope: Scope, isolation: Isolation) -> String {
    let level = isolation.sql();
    let schema = shared.schema;
    let (timeout, idle) = (shared.statement_timeout.as_millis(), IDLE_LIMIT.as_millis());
    let limits = format!(
        "SET LOCAL statement_timeout = {timeout}; SET LOCAL idle_in_transaction_session_timeout = {idle}"
    );
    match scope {
        Scope::Tenant(tenant) => format!(
            "BEGIN ISOLATION LEVEL {level}; SET LOCAL ROLE hawser_{schema}_tenant; SET LOCAL hawser.tenant = '{}'; {limits}",
            tenant.id()
        ),
        Scope::System => format!(
            "BEGIN ISOLATION LEVEL {level}; SET LOCAL ROLE hawser_{schema}_system; {limits}"
        ),
    }
}

pub(super) fn at_most_one(
    shared: &database::Inner,
    sql: &str,
    mut rows: Vec<Row>,
) -> Result<Option<Row>, Error> {
    match rows.len() {
        0 | 1 => Ok(rows.pop()),
        count => Err(Error::RowCount {
            statement: shared.catalogue.get(sql).name.clone(),
            rows: count,
        }),
    }
}

pub(super) fn exactly_one(
    shared: &database::Inner,
    sql: &str,
    rows: Vec<Row>,
) -> Result<Row, Error> {
    at_most_one(shared, sql, rows)?.ok_or_else(|| Error::RowCount {
        statement: shared.catalogue.get(sql).name.clone(),
        rows: 0,
    })
}
