//! One collection: records in the order they were made, each with the number of its last change.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Changed, Changes, NoSuchRecord, RecordSummary};
use crate::clock::iso_seconds;
use crate::config::CollectionKind;
use crate::random::Sequence;

const YEAR_MS: i64 = 365 * 24 * 3600 * 1000;

/// Project ids start above 32 bits and stay below 2^53, where JavaScript's integers end.
const PROJECT_ID_BASE: u64 = 1 << 49;
const ORDINAL_BITS: u32 = 24;

/// The records of one owner.
#[derive(Debug)]
pub(crate) struct Collection {
    kind: CollectionKind,
    /// Sets this collection's made-up content and ids apart from every other's.
    salt: u64,
    records: BTreeMap<u64, Record>,
    last_change: u64,
}

/// What is known of a record; the rest of its fields are made up from its number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) created_ms: i64,
    pub(crate) updated_ms: i64,
    /// The number of its last change; 0 as seeded.
    pub(crate) change: u64,
    pub(crate) deleted: bool,
    /// Fields that were set through the control API.
    pub(crate) fields: Map<String, Value>,
}

impl Collection {
    /// `size` records whose dates are spread evenly over the year before `now_ms`, oldest first.
    pub(super) fn seeded(kind: CollectionKind, salt: u64, size: u32, now_ms: i64) -> Self {
        let records = (0..u64::from(size))
            .map(|ordinal| {
                let step = YEAR_MS / i64::from(size.max(1));
                let mut dice = Sequence::new(salt ^ ordinal.wrapping_mul(0x0100_0000_01B3));
                let jitter = dice.below(step.max(1) as u64) as i64;
                let created_ms = now_ms - YEAR_MS + step * ordinal as i64 + jitter;
                let age = (now_ms - created_ms).max(1) as u64;
                // Most records are never touched again; the rest change at some time since.
                let updated_ms = if dice.below(4) == 0 {
                    created_ms + dice.below(age) as i64
                } else {
                    created_ms
                };
                (
                    ordinal,
                    Record {
                        created_ms,
                        updated_ms,
                        change: 0,
                        deleted: false,
                        fields: Map::new(),
                    },
                )
            })
            .collect();
        Self {
            kind,
            salt,
            records,
            last_change: 0,
        }
    }

    /// Everything that is there, oldest first.
    pub(crate) fn live(&self) -> impl DoubleEndedIterator<Item = (u64, &Record)> {
        self.records
            .iter()
            .filter(|(_, record)| !record.deleted)
            .map(|(ordinal, record)| (*ordinal, record))
    }

    /// Records, deleted ones among them, whose last change lies in `(after, up_to]`, in the order of these changes.
    pub(crate) fn changed_between(&self, after: u64, up_to: u64) -> Vec<(u64, &Record)> {
        let mut changed: Vec<_> = self
            .records
            .iter()
            .filter(|(_, record)| record.change > after && record.change <= up_to)
            .map(|(ordinal, record)| (*ordinal, record))
            .collect();
        changed.sort_unstable_by_key(|(_, record)| record.change);
        changed
    }

    /// The number of the last change to any record.
    pub(crate) fn last_change(&self) -> u64 {
        self.last_change
    }

    /// Made-up content of one record.
    pub(crate) fn dice(&self, ordinal: u64) -> Sequence {
        Sequence::new(self.salt.wrapping_add(ordinal.wrapping_mul(0x9E37_79B9)))
    }

    /// The id that the provider's API shows.
    pub(crate) fn external_id(&self, ordinal: u64) -> String {
        match self.kind {
            CollectionKind::Projects => self.project_id(ordinal).to_string(),
            CollectionKind::Messages => {
                let mut bytes = [0_u8; 24];
                bytes[..8].copy_from_slice(&self.salt.to_be_bytes());
                bytes[8..16].copy_from_slice(&ordinal.to_be_bytes());
                bytes[16..].copy_from_slice(&self.dice(ordinal).draw().to_be_bytes());
                format!("AAMkAG{}AAA=", URL_SAFE_NO_PAD.encode(bytes))
            }
        }
    }

    /// The numeric id of a project.
    pub(crate) fn project_id(&self, ordinal: u64) -> u64 {
        let block = self.salt % (1 << 20);
        PROJECT_ID_BASE + (block << ORDINAL_BITS) + ordinal
    }

    fn ordinal(&self, id: &str) -> Option<u64> {
        let ordinal = match self.kind {
            CollectionKind::Projects => id.parse::<u64>().ok()? & ((1 << ORDINAL_BITS) - 1),
            CollectionKind::Messages => {
                let encoded = id.strip_prefix("AAMkAG")?.strip_suffix("AAA=")?;
                let bytes = URL_SAFE_NO_PAD.decode(encoded).ok()?;
                u64::from_be_bytes(bytes.get(8..16)?.try_into().ok()?)
            }
        };
        (self.external_id(ordinal) == id).then_some(ordinal)
    }

    /// Applies all of `changes`, or none if one names a record that is not there.
    pub(crate) fn apply(&mut self, changes: Changes, now_ms: i64) -> Result<Changed, NoSuchRecord> {
        let find = |id: &String| {
            self.ordinal(id)
                .filter(|ordinal| {
                    self.records
                        .get(ordinal)
                        .is_some_and(|record| !record.deleted)
                })
                .ok_or_else(|| NoSuchRecord { id: id.clone() })
        };
        let updates = changes
            .update
            .iter()
            .map(|update| find(&update.id))
            .collect::<Result<Vec<_>, _>>()?;
        let deletes = changes
            .delete
            .iter()
            .map(find)
            .collect::<Result<Vec<_>, _>>()?;
        let mut done = Changed::default();
        for fields in changes.insert {
            let ordinal = self.insert(fields, now_ms);
            done.inserted.push(self.external_id(ordinal));
        }
        for (ordinal, update) in updates.into_iter().zip(changes.update) {
            self.touch(ordinal, now_ms, |record| {
                record.fields.extend(update.fields);
            });
            done.updated.push(update.id);
        }
        for (ordinal, id) in deletes.into_iter().zip(changes.delete) {
            self.touch(ordinal, now_ms, |record| record.deleted = true);
            done.deleted.push(id);
        }
        Ok(done)
    }

    /// `count` random changes, a third of each sort, that depend on `seed` and the collection alone.
    pub(crate) fn churn(&mut self, count: u32, seed: u64, now_ms: i64) -> Changed {
        let mut dice = Sequence::new(self.salt ^ seed);
        let mut changed = Changed::default();
        let mut live: Vec<u64> = self.live().map(|(ordinal, _)| ordinal).collect();
        for _ in 0..count {
            let sort = dice.below(3);
            if sort == 0 || live.is_empty() {
                let ordinal = self.insert(Map::new(), now_ms);
                live.push(ordinal);
                changed.inserted.push(self.external_id(ordinal));
                continue;
            }
            let index = dice.below(live.len() as u64) as usize;
            let ordinal = live[index];
            if sort == 1 {
                self.touch(ordinal, now_ms, |_| {});
                changed.updated.push(self.external_id(ordinal));
            } else {
                live.swap_remove(index);
                self.touch(ordinal, now_ms, |record| record.deleted = true);
                changed.deleted.push(self.external_id(ordinal));
            }
        }
        changed
    }

    /// Every record that is there, for comparison.
    pub(crate) fn summaries(&self) -> Vec<RecordSummary> {
        self.live()
            .map(|(ordinal, record)| RecordSummary {
                id: self.external_id(ordinal),
                created_at: iso_seconds(record.created_ms),
                updated_at: iso_seconds(record.updated_ms),
            })
            .collect()
    }

    fn insert(&mut self, fields: Map<String, Value>, now_ms: i64) -> u64 {
        let (ordinal, created_ms) = match self.records.last_key_value() {
            // Never before the newest one, so that the order of numbers stays the order of dates.
            Some((last, record)) => (last + 1, now_ms.max(record.created_ms)),
            None => (0, now_ms),
        };
        self.last_change += 1;
        let record = Record {
            created_ms,
            updated_ms: created_ms,
            change: self.last_change,
            deleted: false,
            fields,
        };
        self.records.insert(ordinal, record);
        ordinal
    }

    fn touch(&mut self, ordinal: u64, now_ms: i64, change: impl FnOnce(&mut Record)) {
        self.last_change += 1;
        let record = self
            .records
            .get_mut(&ordinal)
            .expect("the caller has looked it up");
        record.change = self.last_change;
        record.updated_ms = now_ms.max(record.updated_ms);
        change(record);
    }

    pub(super) fn changed(&self) -> BTreeMap<u64, Record> {
        self.records
            .iter()
            .filter(|(_, record)| record.change > 0)
            .map(|(ordinal, record)| (*ordinal, record.clone()))
            .collect()
    }

    pub(super) fn overlay(&mut self, changed: BTreeMap<u64, Record>) {
        let last = changed.values().map(|record| record.change).max();
        self.last_change = self.last_change.max(last.unwrap_or(0));
        self.records.extend(changed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const NOW: i64 = 1_790_000_000_000;

    fn collection(kind: CollectionKind) -> Collection {
        Collection::seeded(kind, 77, 1000, NOW)
    }

    #[test]
    fn seeded_records_are_spread_over_the_year_in_order() {
        let collection = collection(CollectionKind::Messages);
        let dates: Vec<i64> = collection
            .live()
            .map(|(_, record)| record.created_ms)
            .collect();
        assert!(dates.is_sorted());
        assert!(dates[0] >= NOW - YEAR_MS && dates[0] < NOW - YEAR_MS + YEAR_MS / 1000);
        assert!(dates[999] <= NOW && dates[999] >= NOW - YEAR_MS / 1000);
    }

    #[test]
    fn ids_are_unique_and_lead_back_to_their_record() {
        for kind in [CollectionKind::Projects, CollectionKind::Messages] {
            let collection = collection(kind);
            let ids: BTreeSet<String> = collection
                .live()
                .map(|(ordinal, _)| collection.external_id(ordinal))
                .collect();
            assert_eq!(ids.len(), 1000);
            for (ordinal, _) in collection.live() {
                assert_eq!(
                    collection.ordinal(&collection.external_id(ordinal)),
                    Some(ordinal)
                );
            }
            let other = Collection::seeded(kind, 78, 1, NOW);
            assert_eq!(
                collection.ordinal(&other.external_id(0)),
                None,
                "another collection's id"
            );
        }
    }

    #[test]
    fn project_ids_need_more_than_32_bits_and_fit_into_a_double() {
        let collection = collection(CollectionKind::Projects);
        for (ordinal, _) in collection.live() {
            let id = collection.project_id(ordinal);
            assert!(id > u64::from(u32::MAX) && id < 1 << 53, "{id}");
        }
    }

    #[test]
    fn a_change_to_an_absent_record_changes_nothing() {
        let mut collection = collection(CollectionKind::Projects);
        let changes = Changes {
            insert: vec![Map::new()],
            delete: vec!["12".to_owned()],
            ..Changes::default()
        };
        let error = collection.apply(changes, NOW).expect_err("12 is no id");
        assert_eq!(error.id, "12");
        assert_eq!(collection.live().count(), 1000);
        assert_eq!(collection.last_change(), 0);
    }

    #[test]
    fn an_overlay_of_the_changes_gives_the_same_collection() {
        let mut one = collection(CollectionKind::Messages);
        one.churn(300, 5, NOW + 1000);
        let mut two = collection(CollectionKind::Messages);
        two.overlay(one.changed());
        assert_eq!(one.summaries(), two.summaries());
        assert_eq!(one.last_change(), two.last_change());
        assert_ne!(
            one.summaries(),
            collection(CollectionKind::Messages).summaries()
        );
    }
}
