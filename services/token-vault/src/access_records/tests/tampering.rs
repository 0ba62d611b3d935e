//! Whatever a writer in the database does to a record is found, and at which.

use std::collections::BTreeMap;

use testkit::SeededRng;

use super::*;

const CHAINS: usize = 100;
const TAMPERINGS: usize = 1000;
/// Flushes of each chain: how many days ago, and how many records.
const FLUSHES: [(u32, i64); 6] = [(4, 3), (4, 1), (3, 4), (2, 1), (2, 5), (1, 2)];
const LENGTH: i64 = 16;
const KINDS: usize = 14;

const KEEP: &str = "CREATE TABLE kept_records AS SELECT * FROM vault.access_records; CREATE TABLE kept_chains AS SELECT * FROM vault.access_chains";
const RESTORE: &str = "DELETE FROM vault.access_records WHERE slot IN (NEAR); DELETE FROM vault.access_chains; INSERT INTO vault.access_records SELECT * FROM kept_records; INSERT INTO vault.access_chains SELECT * FROM kept_chains";
const COLUMNS: &str =
    "occurred_at, tenant_id, grant_id, resource, caller, user_id, action, purpose, trace_id, mac";

struct Dice(Arc<SeededRng>);

impl Dice {
    /// From `low` to `high`.
    fn roll(&self, low: i64, high: i64) -> i64 {
        let mut bytes = [0; 4];
        common::Rng::fill(&*self.0, &mut bytes);
        low + i64::from(u32::from_be_bytes(bytes)) % (high - low + 1)
    }
}

/// One tampering of a chain: the SQL, and the first record that does not fit afterwards.
fn tampering(kind: usize, chain: Uuid, dice: &Dice) -> (String, i64) {
    let k = dice.roll(1, LENGTH);
    // A plan for all days takes its time.
    let whole = format!("slot IN (NEAR) AND chain_id = '{chain}'");
    let one = format!("{whole} AND sequence = {k}");
    let update = |set: &str| format!("UPDATE vault.access_records SET {set} WHERE {one}");
    let day = ["+", "-"][dice.roll(0, 1) as usize];
    let copy = |slot: &str, sequence: i64, occurred_at: &str| {
        format!(
            "INSERT INTO vault.access_records (bucket, slot, chain_id, sequence, {COLUMNS})
             SELECT bucket, {slot}, chain_id, {sequence}, {occurred_at}, {} FROM vault.access_records WHERE {one}",
            COLUMNS.trim_start_matches("occurred_at, ")
        )
    };
    match kind {
        0 => {
            let columns = [
                "resource", "caller", "user_id", "action", "purpose", "trace_id",
            ];
            let column = columns[dice.roll(0, 5) as usize];
            (update(&format!("{column} = {column} || 'x'")), k)
        }
        1 => (update("tenant_id = gen_random_uuid()"), k),
        2 => (update("grant_id = NULL"), k),
        3 => (
            update(&format!(
                "occurred_at = occurred_at {day} interval '1 microsecond'"
            )),
            k,
        ),
        4 => {
            let macs = [
                "NULL",
                "''",
                "set_byte(mac, 7, get_byte(mac, 7) # 1)",
                "substring(mac FROM 1 FOR 31)",
            ];
            (
                update(&format!("mac = {}", macs[dice.roll(0, 3) as usize])),
                k,
            )
        }
        5 => (format!("DELETE FROM vault.access_records WHERE {one}"), k),
        // Two change places.
        6 => {
            let other = (k + dice.roll(1, LENGTH - 1) - 1) % LENGTH + 1;
            let swap = format!(
                "UPDATE vault.access_records SET sequence = 1000 WHERE {whole} AND sequence = {k};
                 UPDATE vault.access_records SET sequence = {k} WHERE {whole} AND sequence = {other};
                 UPDATE vault.access_records SET sequence = {other} WHERE {whole} AND sequence = 1000"
            );
            (swap, k.min(other))
        }
        // Two change their contents, and not their places.
        7 => {
            let other = (k + dice.roll(1, LENGTH - 1) - 1) % LENGTH + 1;
            let swap = format!(
                "UPDATE vault.access_records AS a SET purpose = b.purpose, grant_id = b.grant_id
                 FROM (SELECT chain_id, CASE sequence WHEN {k} THEN {other} ELSE {k} END AS place, purpose, grant_id
                       FROM vault.access_records WHERE {whole} AND sequence IN ({k}, {other})) AS b
                 WHERE a.slot IN (NEAR) AND a.chain_id = b.chain_id AND a.sequence = b.place"
            );
            (swap, k.min(other))
        }
        // One more at the end, as it may be or without a MAC.
        8 => (copy("slot", LENGTH + 1, "occurred_at"), LENGTH + 1),
        // One twice: on another day, or as if it were of another day.
        9 => (
            copy(&format!("mod(slot {day} 1 + 416, 416)"), k, "occurred_at"),
            k,
        ),
        10 => (
            copy(
                &format!("mod(slot {day} 1 + 416, 416)"),
                k,
                &format!("occurred_at {day} interval '1 day'"),
            ),
            k,
        ),
        // One moved: to another day's partition, or to another day.
        11 => (update(&format!("slot = mod(slot {day} 1 + 416, 416)")), k),
        12 => (
            update(&format!(
                "slot = mod(slot {day} 1 + 416, 416), occurred_at = occurred_at {day} interval '1 day'"
            )),
            k,
        ),
        // One put in between, and the later ones numbered anew.
        _ => {
            let shift = format!(
                "UPDATE vault.access_records SET sequence = sequence + 1000 WHERE {whole} AND sequence >= {k};
                 UPDATE vault.access_records SET sequence = sequence - 999 WHERE {whole} AND sequence > 1000;
                 INSERT INTO vault.access_records (bucket, slot, chain_id, sequence, {COLUMNS})
                 SELECT bucket, slot, chain_id, {k}, occurred_at, tenant_id, grant_id, resource, caller, 'eve', action, purpose, trace_id, mac
                 FROM vault.access_records WHERE {whole} AND sequence = {k} + 1"
            );
            (shift, k)
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_tamperings_are_found_each_at_its_record() {
    let _logs = testkit::logs::capture();
    let records = Records::over(10).await;
    let mut heads = Vec::new();
    for _ in 0..CHAINS {
        let mut chain = records.chain().await;
        for (days, count) in FLUSHES {
            records
                .append(&mut chain, records.days_ago(days), count)
                .await;
        }
        assert_eq!(chain.head().sequence, LENGTH);
        heads.push(chain.head().clone());
    }
    records.sql(KEEP).await;
    let whole = records.verify(&heads).await;
    assert_eq!(
        (whole.records, broken(&whole)),
        (CHAINS as i64 * LENGTH, vec![])
    );

    let near: Vec<_> = (0..=5)
        .map(|days| Day::of(records.days_ago(days)).slot().to_string())
        .collect();
    let near = near.join(", ");
    let dice = Dice(SeededRng::new(20_260_115));
    let (mut made, mut found) = (0, 0);
    while made < TAMPERINGS {
        let mut sql = String::new();
        let mut expected = BTreeMap::new();
        for head in &heads {
            let (statement, first) = tampering(made % KINDS, head.chain_id, &dice);
            sql.push_str(&statement);
            sql.push_str(";\n");
            expected.insert(head.chain_id, first);
            made += 1;
        }
        records.sql(&sql.replace("NEAR", &near)).await;
        let verified = records.verify(&heads).await;
        for head in &heads {
            let at = verified.broken.get(&head.chain_id);
            assert_eq!(at, expected.get(&head.chain_id), "{sql}");
            found += usize::from(at.is_some());
        }
        records.sql(&RESTORE.replace("NEAR", &near)).await;
    }
    assert_eq!((found, made), (TAMPERINGS, TAMPERINGS));
    assert_eq!(records.verify(&heads).await, whole);
}

#[tokio::test]
async fn records_that_change_places_with_another_chains_are_found_in_both() {
    let _logs = testkit::logs::capture();
    let records = Records::over(3).await;
    let (mut one, mut other) = (records.chain().await, records.chain().await);
    records.append(&mut one, records.days_ago(0), 5).await;
    records.append(&mut other, records.days_ago(0), 5).await;
    let (a, b) = (one.head().clone(), other.head().clone());
    let set = |from: Uuid, to: Uuid, at: i64, sequence: i64| {
        format!(
            "UPDATE vault.access_records SET bucket = {}, chain_id = '{to}', sequence = {sequence} WHERE chain_id = '{from}' AND sequence = {at}",
            common::bucket_of(to)
        )
    };
    let aside = TenantKey::new_tenant(&records.deps).id();
    for sql in [
        set(a.chain_id, aside, 2, 2),
        set(b.chain_id, a.chain_id, 4, 2),
        set(aside, b.chain_id, 2, 4),
    ] {
        records.sql(&sql).await;
    }
    let mut expected = vec![(a.chain_id, 2), (b.chain_id, 4)];
    expected.sort_unstable();
    assert_eq!(broken(&records.verify(&[a, b]).await), expected);
}

#[tokio::test]
async fn a_tail_that_was_cut_shows_beside_a_head_that_was_noted() {
    let _logs = testkit::logs::capture();
    let records = Records::over(3).await;
    let mut chain = records.chain().await;
    records.append(&mut chain, records.days_ago(1), 5).await;
    let noted = chain.head().clone();
    records.append(&mut chain, records.days_ago(0), 5).await;
    records
        .sql("DELETE FROM vault.access_records WHERE sequence > 4")
        .await;
    assert_eq!(broken(&records.verify(&[]).await), [], "nobody can know");
    let expected = [(noted.chain_id, 5)];
    assert_eq!(
        broken(&records.verify(std::slice::from_ref(&noted)).await),
        expected
    );
    let alone = records
        .verifier()
        .verify(Some(noted.chain_id), std::slice::from_ref(&noted))
        .await;
    assert_eq!(broken(&alone.unwrap()), expected);

    records
        .sql("DELETE FROM vault.access_records; DELETE FROM vault.access_chains")
        .await;
    assert_eq!(broken(&records.verify(&[]).await), [], "nobody can know");
    assert_eq!(
        broken(&records.verify(std::slice::from_ref(&noted)).await),
        [(noted.chain_id, 1)]
    );
}

#[tokio::test]
async fn chains_that_nobody_began_or_whose_key_is_another_do_not_fit() {
    let logs = testkit::logs::capture();
    logs.expect("under a key-encryption key that is not configured");
    let records = Records::over(3).await;
    let mut chain = records.chain().await;
    records.append(&mut chain, records.days_ago(0), 3).await;
    let id = chain.head().chain_id;
    // Made up, with a chain's row and without.
    let forged = TenantKey::new_tenant(&records.deps).id();
    let bucket = common::bucket_of(forged);
    records
        .sql(&format!(
            "INSERT INTO vault.access_records (bucket, slot, chain_id, sequence, {COLUMNS})
         SELECT {bucket}, slot, '{forged}', sequence, {COLUMNS} FROM vault.access_records"
        ))
        .await;
    assert_eq!(broken(&records.verify(&[]).await), [(forged, 1)]);
    records.sql(&format!("INSERT INTO vault.access_chains SELECT {bucket}, '{forged}', kek_id, started_at FROM vault.access_chains")).await;
    assert_eq!(broken(&records.verify(&[]).await), [(forged, 1)]);
    records.sql(&format!("DELETE FROM vault.access_records WHERE chain_id = '{forged}'; DELETE FROM vault.access_chains WHERE chain_id = '{forged}'")).await;
    // Another key-encryption key, by its name and by itself.
    let stranger = keys("0bad", &records.store, &records.deps);
    let verified = Verifier::new(records.store.clone(), stranger)
        .verify(None, &[])
        .await;
    assert_eq!(broken(&verified.unwrap()), [(id, 1)]);
    assert_eq!(broken(&records.verify(&[]).await), []);
    records
        .sql("UPDATE vault.access_chains SET kek_id = 'another'")
        .await;
    assert_eq!(broken(&records.verify(&[]).await), [(id, 1)]);
}

#[tokio::test]
async fn a_chain_goes_on_over_midnight_while_it_is_verified() {
    let _logs = testkit::logs::capture();
    let records = Records::over(3).await;
    let mut chain = records.chain().await;
    records.append(&mut chain, records.days_ago(2), 2500).await;
    records.append(&mut chain, records.days_ago(1), 3).await;
    // Verifies again and again while records come on both sides of midnight.
    let other = records.verifier();
    let verifying = async {
        for _ in 0..10 {
            let verified = other.verify(None, &[]).await.unwrap();
            assert_eq!(broken(&verified), []);
        }
    };
    let appending = async {
        let mut at = records.days_ago(1);
        for flush in 0..60 {
            if flush == 30 {
                at = records.days_ago(0);
            }
            records.append(&mut chain, at, 20).await;
        }
    };
    tokio::join!(verifying, appending);
    let verified = records.verify(&[chain.head().clone()]).await;
    assert_eq!((verified.records, broken(&verified)), (3703, vec![]));
}
