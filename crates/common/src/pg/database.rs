//! A service's own schema on its server: the pool, and how to run something on it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType,
};
use tokio_postgres::Row;

use super::connect::{Connector, PoolConnector};
use super::metrics::Metrics;
use super::statement::{Catalogue, Params};
use super::tx::{at_most_one, exactly_one};
use super::{Error, PgConfig, Schema, Tx, outbox};
use crate::{Deps, TenantKey};

/// A transaction is tried this often.
const TRIES: u32 = 10;

/// Whose data a transaction sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One tenant's, by row-level security.
    Tenant(TenantKey),
    /// Every tenant's: for background work, and for tables that are nobody's.
    System,
}

/// A transaction's isolation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Each statement sees what is committed when it starts.
    #[default]
    ReadCommitted,
    /// All statements see the same.
    RepeatableRead,
    /// As if transactions ran one after the other.
    Serializable,
}

/// The pool, and the schema that is ours.
#[derive(Clone)]
pub struct Database(Arc<Inner>);

pub(super) struct Inner {
    pool: Pool,
    pub(super) connector: Arc<Connector>,
    pub(super) catalogue: Catalogue,
    pub(super) metrics: Metrics,
    pub(super) deps: Deps,
    pub(super) schema: &'static str,
    pub(super) statement_timeout: Duration,
    pub(super) outbox: outbox::Shared,
    pub(super) event_poll_interval: Duration,
    acquire_timeout: Duration,
}

impl Database {
    /// Makes the pool; connects when first used, so a service may start before its database does.
    ///
    /// # Errors
    /// Where the configuration cannot be used.
    pub fn open(config: &PgConfig, schema: &Schema, deps: &Deps) -> Result<Self, Error> {
        let connector = Arc::new(Connector::new(config)?);
        let manager = Manager::from_connect(
            config.parse()?,
            PoolConnector(Arc::clone(&connector)),
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let pool = Pool::builder(manager)
            .max_size(config.max_size)
            .wait_timeout(Some(config.acquire_timeout))
            .create_timeout(Some(config.connect_timeout))
            .runtime(Runtime::Tokio1)
            .build()
            .expect("a runtime is set, which is all that could be missing");
        Ok(Self(Arc::new(Inner {
            metrics: Metrics::new(&deps.meter, schema.name, &pool),
            pool,
            connector,
            catalogue: Catalogue::new(schema.name, config.prepared_statements),
            deps: deps.clone(),
            schema: schema.name,
            statement_timeout: config.statement_timeout,
            outbox: outbox::Shared::new(),
            event_poll_interval: config.event_poll_interval,
            acquire_timeout: config.acquire_timeout,
        })))
    }

    /// Runs `body` in a READ COMMITTED transaction, and commits if it says `Ok`.
    ///
    /// After a serialization failure or a deadlock, found anywhere in the error's chain of sources, all of it runs again,
    /// at most ten times. So `body` has no effects but those on the database, and does not speak to the network. It is
    /// `async move` and owns what it captures:
    ///
    /// ```text
    /// db.run_tx("grant_create", Scope::Tenant(tenant), async move |tx| store::grant_create(tx, &grant).await).await
    /// ```
    pub async fn run_tx<T, E, F>(&self, name: &'static str, scope: Scope, body: F) -> Result<T, E>
    where
        F: AsyncFn(&Tx) -> Result<T, E>,
        E: std::error::Error + From<Error> + 'static,
    {
        self.run_tx_with(name, scope, Isolation::ReadCommitted, body)
            .await
    }

    /// As [`Database::run_tx`], with another isolation.
    pub async fn run_tx_with<T, E, F>(
        &self,
        name: &'static str,
        scope: Scope,
        isolation: Isolation,
        body: F,
    ) -> Result<T, E>
    where
        F: AsyncFn(&Tx) -> Result<T, E>,
        E: std::error::Error + From<Error> + 'static,
    {
        let mut tries = 1;
        loop {
            let tx = Tx::begin(&self.0, name, scope, isolation).await?;
            let outcome = body(&tx).await;
            let error = match outcome {
                Ok(value) => match tx.commit().await {
                    Ok(()) => return Ok(value),
                    Err(error) => error.into(),
                },
                Err(error) => {
                    tx.rollback().await;
                    error
                }
            };
            if tries == TRIES || !is_retryable(&error) {
                return Err(error);
            }
            tracing::debug!(
                event = "transaction_retried",
                transaction = name,
                tries,
                "a transaction met another one and runs again"
            );
            tokio::time::sleep(self.jitter(tries)).await;
            tries += 1;
        }
    }

    /// One statement in a transaction of its own, in one round trip; every row.
    pub async fn query(
        &self,
        scope: Scope,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, Error> {
        Tx::begin(&self.0, "statement", scope, Isolation::ReadCommitted)
            .await?
            .query_and_commit(sql, params)
            .await
    }

    /// As [`Database::query`]: the row, or none. More than one is an error.
    pub async fn query_opt(
        &self,
        scope: Scope,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Option<Row>, Error> {
        at_most_one(&self.0, sql, self.query(scope, sql, params).await?)
    }

    /// As [`Database::query`]: the row. None, or more than one, is an error.
    pub async fn query_one(
        &self,
        scope: Scope,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Row, Error> {
        exactly_one(&self.0, sql, self.query(scope, sql, params).await?)
    }

    /// As [`Database::query`]: how many rows were affected.
    pub async fn execute(&self, scope: Scope, sql: &str, params: Params<'_>) -> Result<u64, Error> {
        Tx::begin(&self.0, "statement", scope, Isolation::ReadCommitted)
            .await?
            .execute_and_commit(sql, params)
            .await
    }

    /// Whether the database answers, as readiness asks.
    pub async fn ping(&self) -> Result<(), Error> {
        self.query(Scope::System, "-- {schema}.connection_check\nSELECT 1", &[])
            .await
            .map(drop)
    }

    /// The server's time.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn server_time(&self) -> Result<time::OffsetDateTime, Error> {
        let row = self
            .query_one(
                Scope::System,
                "-- {schema}.clock_read\nSELECT clock_timestamp() AS now",
                &[],
            )
            .await?;
        Ok(row.get("now"))
    }

    /// The schema's name.
    pub fn schema(&self) -> &'static str {
        self.0.schema
    }

    /// What it was opened with.
    pub fn deps(&self) -> &Deps {
        &self.0.deps
    }

    /// Closes the pool; who waits for a connection is refused, who has one keeps it to the end.
    pub fn close(&self) {
        self.0.pool.close();
    }

    pub(super) fn event_poll_interval(&self) -> Duration {
        self.0.event_poll_interval
    }

    pub(super) fn outbox(&self) -> &outbox::Shared {
        &self.0.outbox
    }

    /// Full jitter over 5 ms · 2ⁿ, at most half a second.
    fn jitter(&self, tries: u32) -> Duration {
        let most = Duration::from_millis(5 << tries).min(Duration::from_millis(500));
        let random = u32::from_be_bytes(self.0.deps.random());
        most.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

impl Inner {
    pub(super) async fn acquire(&self) -> Result<Object, Error> {
        let started = self.deps.clock.boottime();
        let connection = Box::pin(self.pool.get()).await;
        self.metrics
            .waited(self.deps.clock.boottime().saturating_sub(started));
        connection.map_err(|error| match error {
            PoolError::Backend(source) => Error::Connect(source),
            PoolError::Timeout(TimeoutType::Wait) => Error::PoolTimeout(self.acquire_timeout),
            PoolError::Timeout(_) => Error::Silent {
                statement: "connect".to_owned(),
                limit: self.acquire_timeout,
            },
            PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                Error::Closed
            }
        })
    }
}

impl Isolation {
    pub(super) fn sql(self) -> &'static str {
        match self {
            Self::ReadCommitted => "READ COMMITTED",
            Self::RepeatableRead => "REPEATABLE READ",
            Self::Serializable => "SERIALIZABLE",
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("schema", &self.0.schema)
            .field("pool", &self.0.pool.status())
            .finish_non_exhaustive()
    }
}

/// Looks for ours in the chain of sources.
fn is_retryable(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<Error>())
        .any(Error::is_retryable)
}
