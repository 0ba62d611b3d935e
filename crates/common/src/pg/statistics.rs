//! Counts by the minute, kept in memory and written once a minute; for overview pages that need no other store.
//!
//! Each process writes the totals of its own rows, never sums, so a write that is repeated counts once. What a process has counted
//! since its last write is lost when it is killed: these are for looking at, not for billing.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use contracts::operations::v1::{GetStatisticsRequest, GetStatisticsResponse, Series};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Database, Error, Scope};
use crate::lifecycle::Shutdown;
use crate::problem::Chain;
use crate::validate::Fields;
use crate::{Problem, TenantKey};

const MINUTE: i64 = 60;
/// Beyond that, new series are dropped until the next write.
const MOST: usize = 100_000;
/// At most this many values a series in an answer.
const MOST_STEPS: i64 = 10_000;
const KEPT: time::Duration = time::Duration::days(90);

const STATISTICS_WRITE: &str = "\
-- {schema}.statistics_write
INSERT INTO {schema}.statistics (bucket, tenant_id, series, labels, minute, writer, value)
SELECT $1::smallint, w.tenant_id, w.series, w.labels, w.minute, $2::uuid, w.value
FROM unnest($3::uuid[], $4::text[], $5::text[], $6::timestamptz[], $7::double precision[])
    AS w (tenant_id, series, labels, minute, value)
ON CONFLICT (bucket, tenant_id, series, minute, labels, writer) DO UPDATE
SET value = EXCLUDED.value";

const STATISTICS_GET: &str = "\
-- {schema}.statistics_get
SELECT series, labels, floor(extract(epoch FROM minute - $4)::double precision / $6)::integer AS step, sum(value) AS value
FROM {schema}.statistics
WHERE bucket = $1 AND tenant_id = $2 AND series = ANY($3) AND minute >= $4 AND minute < $5
GROUP BY 1, 2, 3";

/// Over every tenant, for operators.
const STATISTICS_GET_ALL: &str = "\
-- {schema}.statistics_get_all
SELECT series, labels, floor(extract(epoch FROM minute - $2)::double precision / $4)::integer AS step, sum(value) AS value
FROM {schema}.statistics
WHERE series = ANY($1) AND minute >= $2 AND minute < $3
GROUP BY 1, 2, 3";

const BUCKETS_WITH_OLD: &str = "\
-- {schema}.statistics_buckets_list
SELECT DISTINCT bucket
FROM {schema}.statistics
WHERE minute < $1";

const OLD_DELETE: &str = "\
-- {schema}.statistics_delete
DELETE FROM {schema}.statistics
WHERE bucket = $1 AND minute < $2";

/// The counters of a process; clones are the same ones.
#[derive(Clone, Debug)]
pub struct Statistics {
    db: Database,
    writer: Uuid,
    counts: Arc<Mutex<HashMap<Key, Count>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    tenant: TenantKey,
    series: &'static str,
    /// A JSON object with its keys in order.
    labels: String,
    /// Since 1970.
    minute: i64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    total: f64,
    /// What of it has been written.
    written: f64,
}

impl Statistics {
    /// Counters that are kept in this database.
    pub fn new(db: &Database) -> Self {
        Self {
            db: db.clone(),
            writer: TenantKey::PLATFORM.new_id(db.deps()),
            counts: Arc::default(),
        }
    }

    /// Counts one. `series` and its labels are listed in the service's README: "grant_refreshes", [("outcome", "refreshed")].
    pub fn count(&self, tenant: TenantKey, series: &'static str, labels: &[(&str, &str)]) {
        self.add(tenant, series, labels, 1.0);
    }

    /// Counts several, or an amount. What is about no tenant is the platform's.
    pub fn add(
        &self,
        tenant: TenantKey,
        series: &'static str,
        labels: &[(&str, &str)],
        amount: f64,
    ) {
        let labels: BTreeMap<_, _> = labels.iter().copied().collect();
        let labels = serde_json::to_string(&labels).expect("a map of strings is JSON");
        let minute = self.db.deps().now().unix_timestamp().div_euclid(MINUTE);
        let mut counts = self.counts();
        let full = counts.len() >= MOST;
        let key = Key {
            tenant,
            series,
            labels,
            minute,
        };
        if full && !counts.contains_key(&key) {
            return;
        }
        counts.entry(key).or_default().total += amount;
    }

    /// Writes once a minute until everything has drained, and then once more; spawn it with
    /// [`Tasks::spawn_until_drained`](crate::lifecycle::Tasks::spawn_until_drained).
    ///
    /// # Errors
    /// None; it is what tasks return.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), std::convert::Infallible> {
        loop {
            let last = tokio::select! {
                () = tokio::time::sleep(Duration::from_mins(1)) => false,
                () = shutdown.drained() => true,
            };
            if let Err(error) = self.write().await {
                tracing::warn!(event = "statistics_unwritten", error = %Chain(&error), "statistics cannot be written; they are kept for the next minute");
            }
            if last {
                return Ok(());
            }
        }
    }

    /// Writes what has changed, a statement a bucket, and forgets minutes that are over.
    ///
    /// # Errors
    /// Where the database does not take it; it is kept then.
    pub async fn write(&self) -> Result<(), Error> {
        let mut buckets: BTreeMap<i16, Vec<(Key, f64)>> = BTreeMap::new();
        for (key, count) in self.counts().iter() {
            // Totals only grow by what was added, so equal ones are the same.
            if (count.total - count.written).abs() > 0.0 {
                buckets
                    .entry(key.tenant.bucket())
                    .or_default()
                    .push((key.clone(), count.total));
            }
        }
        for (bucket, entries) in buckets {
            self.write_bucket(bucket, &entries).await?;
            let mut counts = self.counts();
            for (key, total) in entries {
                if let Some(count) = counts.get_mut(&key) {
                    count.written = total;
                }
            }
        }
        let minute = self.db.deps().now().unix_timestamp().div_euclid(MINUTE);
        self.counts()
            .retain(|key, count| key.minute >= minute || (count.total - count.written).abs() > 0.0);
        Ok(())
    }

    async fn write_bucket(&self, bucket: i16, entries: &[(Key, f64)]) -> Result<(), Error> {
        let tenants: Vec<_> = entries.iter().map(|(key, _)| key.tenant.id()).collect();
        let series: Vec<_> = entries.iter().map(|(key, _)| key.series).collect();
        let labels: Vec<_> = entries.iter().map(|(key, _)| key.labels.as_str()).collect();
        let minutes: Vec<_> = entries
            .iter()
            .map(|(key, _)| OffsetDateTime::UNIX_EPOCH + time::Duration::minutes(key.minute))
            .collect();
        let values: Vec<_> = entries.iter().map(|(_, total)| *total).collect();
        self.db
            .execute(
                Scope::System,
                STATISTICS_WRITE,
                &[
                    &bucket,
                    &self.writer,
                    &tenants,
                    &series,
                    &labels,
                    &minutes,
                    &values,
                ],
            )
            .await
            .map(drop)
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Key, Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The series that were asked for, of `tenant`, as it was allowed, or of all; a value for each step.
///
/// # Errors
/// Fields that cannot be taken; database trouble.
pub async fn get(
    db: &Database,
    tenant: Option<TenantKey>,
    request: &GetStatisticsRequest,
    mut fields: Fields,
) -> Result<GetStatisticsResponse, Problem> {
    let seconds = |time: Option<&prost_types::Timestamp>| {
        time.map(|time| time.seconds)
            .filter(|seconds| (0..253_402_300_800).contains(seconds))
    };
    let (start, end) = (
        seconds(request.start_time.as_ref()),
        seconds(request.end_time.as_ref()),
    );
    let step = request.step.as_ref().map_or(MINUTE, |step| step.seconds);
    fields.check(
        !request.series.is_empty(),
        "series",
        "must name at least one series",
    );
    fields.check(
        request.series.len() <= 100,
        "series",
        "must name at most 100 series",
    );
    fields.check(
        start.is_some(),
        "start_time",
        "must be a time between 1970 and 9999",
    );
    fields.check(
        end.is_some(),
        "end_time",
        "must be a time between 1970 and 9999",
    );
    fields.check(step >= MINUTE, "step", "must be at least a minute");
    let (start, end, step) = (
        start.unwrap_or_default(),
        end.unwrap_or_default(),
        step.max(MINUTE),
    );
    // Counts are by the minute, so a span begins with one.
    let start = start - start.rem_euclid(MINUTE);
    let steps = (end - start + step - 1).div_euclid(step);
    fields.check(steps > 0, "end_time", "must be after start_time");
    fields.check(
        steps <= MOST_STEPS,
        "step",
        "must be longer: an answer holds at most 10000 values a series",
    );
    fields.finish()?;

    let moment = |seconds| OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(seconds);
    let (from, to, width) = (moment(start), moment(end), step as f64);
    let rows = match tenant {
        Some(tenant) => {
            let (bucket, id) = (tenant.bucket(), tenant.id());
            db.query(
                Scope::Tenant(tenant),
                STATISTICS_GET,
                &[&bucket, &id, &request.series, &from, &to, &width],
            )
            .await
        }
        None => {
            db.query(
                Scope::System,
                STATISTICS_GET_ALL,
                &[&request.series, &from, &to, &width],
            )
            .await
        }
    }
    .map_err(|error| error.problem())?;

    let mut series: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
    for row in rows {
        let values = series
            .entry((row.get("series"), row.get("labels")))
            .or_insert_with(|| vec![0.0; steps as usize]);
        values[row.get::<_, i32>("step") as usize] += row.get::<_, f64>("value");
    }
    let series = series.into_iter().map(|((name, labels), values)| {
        let labels = serde_json::from_str(&labels).expect("labels are written as a map of strings");
        Series {
            name,
            labels,
            values,
        }
    });
    Ok(GetStatisticsResponse {
        series: series.collect(),
    })
}

/// Forgets what is too old to be looked at.
pub(super) async fn purge(db: &Database) -> Result<(), Error> {
    let old = db.deps().now() - KEPT;
    for row in db.query(Scope::System, BUCKETS_WITH_OLD, &[&old]).await? {
        let bucket: i16 = row.get("bucket");
        db.execute(Scope::System, OLD_DELETE, &[&bucket, &old])
            .await?;
    }
    Ok(())
}
