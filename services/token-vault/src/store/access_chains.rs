//! Chains of access records: read link by link, and cut off day by day.

use common::pg::{Row, Scope, ToSql, Tx};
use uuid::Uuid;

use super::{Store, StoreError, get};
use crate::access_records::{Anchor, Day, Linked, Record};

macro_rules! chain_columns {
    () => {
        "chain_id, kek_id, anchor_sequence, anchor_mac, anchor_seal"
    };
}

/// Of every log bucket: whoever verifies wants all of them.
const CHAINS_LIST: &str = concat!(
    "-- {schema}.access_chains_list
SELECT ",
    chain_columns!(),
    "
FROM {schema}.access_chains
WHERE (bucket, chain_id) > ($1, $2)
ORDER BY bucket, chain_id
LIMIT $3"
);

const CHAIN_GET: &str = concat!(
    "-- {schema}.access_chain_get
SELECT ",
    chain_columns!(),
    "
FROM {schema}.access_chains
WHERE bucket = $1
  AND chain_id = $2"
);

/// From chain to chain by the primary key, however many records each has.
const CHAIN_NEXT: &str = "-- {schema}.access_chain_next
SELECT bucket, chain_id
FROM {schema}.access_records
WHERE slot = $1
  AND (bucket, chain_id) > ($2, $3)
ORDER BY bucket, chain_id
LIMIT 1";

macro_rules! linked_columns {
    () => {
        "slot, sequence, occurred_at, tenant_id, grant_id, resource, caller, user_id, action, purpose, trace_id, mac"
    };
}

const LINKS_LIST: &str = concat!(
    "-- {schema}.access_links_list
SELECT ",
    linked_columns!(),
    "
FROM {schema}.access_records
WHERE slot = $1
  AND bucket = $2
  AND chain_id = $3
  AND sequence > $4
ORDER BY sequence
LIMIT $5"
);

/// On whichever of the days it is, or is made to be.
const LINKS_FIND: &str = concat!(
    "-- {schema}.access_links_find
SELECT ",
    linked_columns!(),
    "
FROM {schema}.access_records
WHERE slot = ANY($1::smallint[])
  AND bucket = $2
  AND chain_id = $3
  AND sequence = $4"
);

const RETENTION_GET: &str = "-- {schema}.access_retention_get
SELECT dropped_to
FROM {schema}.access_retention";

const RETENTION_LOCK: &str = "-- {schema}.access_retention_lock
SELECT dropped_to
FROM {schema}.access_retention
FOR UPDATE";

const RETENTION_ADVANCE: &str = "-- {schema}.access_retention_advance
UPDATE {schema}.access_retention
SET dropped_to = $1";

const CHAIN_ANCHOR: &str = "-- {schema}.access_chain_anchor
UPDATE {schema}.access_chains
SET anchor_sequence = $3, anchor_mac = $4, anchor_seal = $5
WHERE bucket = $1
  AND chain_id = $2
  AND anchor_sequence < $3";

const PAGE: i64 = 1000;

/// A chain, and where what is kept of it begins.
#[derive(Clone, Debug)]
pub(crate) struct ChainRow {
    pub(crate) chain_id: Uuid,
    pub(crate) kek_id: String,
    pub(crate) anchor: Anchor,
}

/// One page of a chain's records.
#[derive(Debug)]
pub(crate) struct LinkPage(Vec<Row>);

impl Store {
    /// Every chain there ever was.
    pub(crate) async fn chains_list(&self) -> Result<Vec<ChainRow>, StoreError> {
        let mut chains = Vec::new();
        let mut behind = (i16::MIN, Uuid::nil());
        loop {
            let params: &[&(dyn ToSql + Sync)] = &[&behind.0, &behind.1, &PAGE];
            let rows = self.db.query(Scope::System, CHAINS_LIST, params).await?;
            for row in &rows {
                let chain = chain_from(row)?;
                behind = (common::bucket_of(chain.chain_id), chain.chain_id);
                chains.push(chain);
            }
            if (rows.len() as i64) < PAGE {
                return Ok(chains);
            }
        }
    }

    pub(crate) async fn chain_get(&self, chain_id: Uuid) -> Result<Option<ChainRow>, StoreError> {
        let params: &[&(dyn ToSql + Sync)] = &[&common::bucket_of(chain_id), &chain_id];
        let row = self.db.query_opt(Scope::System, CHAIN_GET, params).await?;
        row.as_ref().map(chain_from).transpose()
    }

    /// The chain with records of that day that follows `behind`.
    pub(crate) async fn chain_next(
        &self,
        day: Day,
        behind: Option<(i16, Uuid)>,
    ) -> Result<Option<(i16, Uuid)>, StoreError> {
        let (bucket, chain_id) = behind.unwrap_or((i16::MIN, Uuid::nil()));
        let params: &[&(dyn ToSql + Sync)] = &[&day.slot(), &bucket, &chain_id];
        let row = self.db.query_opt(Scope::System, CHAIN_NEXT, params).await?;
        row.map(|row| Ok((get(&row, "bucket")?, get(&row, "chain_id")?)))
            .transpose()
    }

    /// A chain's records of that day, behind a sequence and in order.
    pub(crate) async fn links_list(
        &self,
        day: Day,
        (bucket, chain_id): (i16, Uuid),
        behind: i64,
    ) -> Result<LinkPage, StoreError> {
        let params: &[&(dyn ToSql + Sync)] = &[&day.slot(), &bucket, &chain_id, &behind, &PAGE];
        let rows = self.db.query(Scope::System, LINKS_LIST, params).await?;
        Ok(LinkPage(rows))
    }

    /// What says that it is this record of the chain; more than one where somebody has copied it.
    pub(crate) async fn links_find(
        &self,
        days: &[Day],
        (bucket, chain_id): (i16, Uuid),
        sequence: i64,
    ) -> Result<LinkPage, StoreError> {
        let slots: Vec<i16> = days.iter().map(|day| day.slot()).collect();
        let params: &[&(dyn ToSql + Sync)] = &[&slots, &bucket, &chain_id, &sequence];
        let rows = self.db.query(Scope::System, LINKS_FIND, params).await?;
        Ok(LinkPage(rows))
    }

    /// The newest day that is not kept any more.
    pub(crate) async fn retention_get(&self) -> Result<Day, StoreError> {
        let row = self.db.query_one(Scope::System, RETENTION_GET, &[]).await?;
        Ok(Day::from_number(get(&row, "dropped_to")?))
    }

    /// Ends a day: moves the anchors of its chains, and empties its partition. `false` where another vault has done so.
    pub(crate) async fn day_drop(
        &self,
        day: Day,
        has_records: bool,
        anchors: Vec<(Uuid, Anchor)>,
    ) -> Result<bool, StoreError> {
        self.db
            .run_tx("access_day_drop", Scope::System, async move |tx: &Tx| {
                let row = tx.query_one(RETENTION_LOCK, &[]).await?;
                if Day::from_number(get(&row, "dropped_to")?).next() != day {
                    return Ok(false);
                }
                for (chain_id, anchor) in &anchors {
                    let params: &[&(dyn ToSql + Sync)] = &[
                        &common::bucket_of(*chain_id),
                        chain_id,
                        &anchor.sequence,
                        &anchor.mac,
                        &anchor.seal,
                    ];
                    tx.execute(CHAIN_ANCHOR, params).await?;
                }
                let empty = format!(
                    "-- {{schema}}.access_day_empty\nTRUNCATE {{schema}}.access_records_{:03}",
                    day.slot()
                );
                if has_records {
                    tx.execute(&empty, &[]).await?;
                }
                tx.execute(RETENTION_ADVANCE, &[&day.number()]).await?;
                Ok(true)
            })
            .await
    }
}

impl LinkPage {
    /// Whether there may be more behind it.
    pub(crate) fn is_full(&self) -> bool {
        self.0.len() as i64 == PAGE
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Result<Linked<'_>, StoreError>> {
        self.0.iter().map(linked_from)
    }
}

fn chain_from(row: &Row) -> Result<ChainRow, StoreError> {
    Ok(ChainRow {
        chain_id: get(row, "chain_id")?,
        kek_id: get(row, "kek_id")?,
        anchor: Anchor {
            sequence: get(row, "anchor_sequence")?,
            mac: get(row, "anchor_mac")?,
            seal: get(row, "anchor_seal")?,
        },
    })
}

/// By place, since there are many.
fn linked_from(row: &Row) -> Result<Linked<'_>, StoreError> {
    fn at<'a, T: common::pg::FromSql<'a>>(row: &'a Row, place: usize) -> Result<T, StoreError> {
        Ok(row.try_get(place).map_err(common::pg::Error::from)?)
    }
    Ok(Linked {
        slot: at(row, 0)?,
        sequence: at(row, 1)?,
        occurred_at: at(row, 2)?,
        record: Record {
            tenant_id: at(row, 3)?,
            grant_id: at(row, 4)?,
            resource: at(row, 5)?,
            caller: at(row, 6)?,
            user_id: at(row, 7)?,
            action: at(row, 8)?,
            purpose: at(row, 9)?,
            trace_id: at(row, 10)?,
        },
        mac: at(row, 11)?,
    })
}

#[cfg(test)]
mod tests {
    use testkit::TestDatabase;

    use super::super::access_records::{RECORDS_LIST, RECORDS_LIST_OF_GRANT};
    use super::*;

    const ID: &str = "'01a1fd04-13df-7273-bec5-117f8608001c'";

    /// Of 416 partitions those of the days in question are looked at, each by an index.
    #[tokio::test]
    async fn statements_look_at_the_days_in_question_by_an_index() {
        let database = TestDatabase::create(&[&crate::SCHEMA]).await;
        let admin = database.admin().await;
        // Of empty tables every plan is as good as another; so it is asked whether there is one without a scan.
        let ask = format!(
            "SET enable_seqscan = off; SET plan_cache_mode = force_custom_plan; SET hawser.tenant = {ID}"
        );
        admin.batch_execute(&ask).await.expect("settings");
        let days = "ARRAY[7, 8]::smallint[]";
        let list = format!("{days}, {ID}, 'c', now() - interval '1 d', now(), now(), {ID}, 9, 50");
        let statements = [
            ("tenant", RECORDS_LIST, list.clone(), 2),
            ("tenant", RECORDS_LIST_OF_GRANT, format!("{list}, {ID}"), 2),
            ("system", CHAIN_NEXT, format!("7, 1, {ID}"), 1),
            ("system", LINKS_LIST, format!("7, 1, {ID}, 9, 50"), 1),
            ("system", LINKS_FIND, format!("{days}, 1, {ID}, 9"), 2),
            ("system", CHAINS_LIST, format!("1, {ID}, 50"), 1),
            ("system", CHAIN_GET, format!("1, {ID}"), 1),
        ];
        for (role, sql, values, partitions) in statements {
            let sql = sql.replace("{schema}", "vault");
            admin
                .batch_execute(&format!(
                    "SET ROLE hawser_vault_{role}; PREPARE asked AS {sql}"
                ))
                .await
                .expect(&sql);
            let plan = admin
                .query(&format!("EXPLAIN EXECUTE asked({values})"), &[])
                .await
                .expect(&sql);
            admin
                .batch_execute("DEALLOCATE asked; RESET ROLE")
                .await
                .expect("it is there");
            let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
            let scans = plan
                .iter()
                .filter(|line| line.contains("Index") && line.contains("Scan"));
            assert!(
                scans.count() == partitions && !plan.iter().any(|line| line.contains("Seq Scan")),
                "{sql}\n{}",
                plan.join("\n")
            );
        }
    }
}
