//! The records that the APIs list: seeded, the same in every run, and changed through the control API.

mod collection;
pub(crate) mod words;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(crate) use collection::{Collection, Record};

use crate::config::CollectionKind;
use crate::random::Sequence;

/// Which collection: a provider's, of a kind, of an owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectionName {
    /// The provider's slug.
    pub provider: String,
    /// What is in it.
    pub collection: CollectionKind,
    /// Whose: a company's id for projects, a user's key for messages.
    pub owner: String,
}

/// Changes to one collection, applied in the order insert, update, delete.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Changes {
    /// New records: fields that differ from what would be made up.
    pub insert: Vec<Map<String, Value>>,
    /// Changed records, by id.
    pub update: Vec<Update>,
    /// Ids of records to delete.
    pub delete: Vec<String>,
}

/// A change to one record.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Update {
    /// Which record.
    pub id: String,
    /// Fields to set.
    #[serde(default)]
    pub fields: Map<String, Value>,
}

/// Ids of what was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Changed {
    /// Of records that are new.
    pub inserted: Vec<String>,
    /// Of records that were updated.
    pub updated: Vec<String>,
    /// Of records that are gone.
    pub deleted: Vec<String>,
}

/// One record as the control API shows it, for comparing with what a sync has stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordSummary {
    /// The id that the provider's API gives it.
    pub id: String,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// When it was last changed, RFC 3339.
    pub updated_at: String,
}

/// A change that named a record which is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no record {id:?} in this collection")]
pub struct NoSuchRecord {
    /// The id that was given.
    pub id: String,
}

/// All collections; each is made when it is first looked at.
#[derive(Debug)]
pub(crate) struct Records {
    seed: u64,
    seeded_at_ms: i64,
    sizes: BTreeMap<CollectionKind, u32>,
    size: u32,
    collections: BTreeMap<CollectionName, Collection>,
    /// Delta tokens of earlier epochs are refused as expired.
    delta_epoch: u64,
}

/// What has to be kept to have the same records again.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedRecords {
    seeded_at_ms: i64,
    delta_epoch: u64,
    changed: Vec<(CollectionName, BTreeMap<u64, Record>)>,
}

impl Records {
    pub(crate) fn new(
        seed: u64,
        seeded_at_ms: i64,
        size: u32,
        sizes: BTreeMap<CollectionKind, u32>,
    ) -> Self {
        Self {
            seed,
            seeded_at_ms,
            sizes,
            size,
            collections: BTreeMap::new(),
            delta_epoch: 1,
        }
    }

    pub(crate) fn collection(&mut self, name: &CollectionName) -> &mut Collection {
        let size = self
            .sizes
            .get(&name.collection)
            .copied()
            .unwrap_or(self.size);
        let (seed, seeded_at_ms) = (self.seed, self.seeded_at_ms);
        self.collections.entry(name.clone()).or_insert_with(|| {
            let kind = format!("{:?}", name.collection);
            let salt = Sequence::named(seed, &[&name.provider, &kind, &name.owner]).draw();
            Collection::seeded(name.collection, salt, size, seeded_at_ms)
        })
    }

    pub(crate) fn delta_epoch(&self) -> u64 {
        self.delta_epoch
    }

    pub(crate) fn expire_delta_tokens(&mut self) {
        self.delta_epoch += 1;
    }

    /// Back to what was seeded; delta tokens given out so far point nowhere.
    pub(crate) fn reset(&mut self, now_ms: i64) {
        self.seeded_at_ms = now_ms;
        self.collections.clear();
        self.delta_epoch += 1;
    }

    pub(crate) fn save(&self) -> SavedRecords {
        let changed = self
            .collections
            .iter()
            .map(|(name, collection)| (name.clone(), collection.changed()))
            .filter(|(_, records)| !records.is_empty())
            .collect();
        SavedRecords {
            seeded_at_ms: self.seeded_at_ms,
            delta_epoch: self.delta_epoch,
            changed,
        }
    }

    pub(crate) fn restore(&mut self, saved: SavedRecords) {
        self.seeded_at_ms = saved.seeded_at_ms;
        self.delta_epoch = saved.delta_epoch;
        self.collections.clear();
        for (name, records) in saved.changed {
            self.collection(&name).overlay(records);
        }
    }
}
