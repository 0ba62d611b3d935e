//! Verifying access records: every chain is recomputed, day by day, a page at a time.
//!
//! What is kept of a chain begins at its anchor and ends at its last record. In between nothing may be missing, be there
//! twice, or read differently. That something is missing at the end shows only beside a head that was noted elsewhere.

use std::collections::{BTreeMap, HashMap};

use common::problem::Chain;
use envelope::MacKey;
use uuid::Uuid;

use crate::access_records::{Anchor, Check, Day, Head, Linked, Misfit};
use crate::keys::{Keys, KeysError};
use crate::store::{ChainRow, Store, StoreError};

/// Verifies. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Verifier {
    store: Store,
    keys: Keys,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verified {
    pub(crate) records: i64,
    /// Chains that are not whole, and in each the first record that does not fit.
    pub(crate) broken: BTreeMap<Uuid, i64>,
    /// Of whole chains with records.
    pub(crate) heads: Vec<Head>,
}

/// Why nothing was found out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerifyError {
    #[error("there is no such chain")]
    NoSuchChain,
    #[error("the access records cannot be read")]
    Store(#[from] StoreError),
    #[error("the key that authenticates access records cannot be had")]
    Keys(#[source] KeysError),
}

/// What a day leaves behind when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct DayVerified {
    pub(crate) has_records: bool,
    pub(crate) anchors: Vec<(Uuid, Anchor)>,
    pub(crate) broken: BTreeMap<Uuid, i64>,
    /// There are records that are of a later day.
    pub(crate) has_later_records: bool,
}

/// Where a chain is found among records: in its log bucket.
type Place = (i16, Uuid);

struct Walk<'a> {
    verifier: &'a Verifier,
    keys: HashMap<String, Option<MacKey>>,
    chains: HashMap<Uuid, Known>,
    /// With records.
    days: Vec<Day>,
    records: i64,
    broken: BTreeMap<Uuid, i64>,
    has_later_records: bool,
}

struct Known {
    check: Check,
    anchor: Anchor,
    /// Heads that were noted elsewhere.
    expected: BTreeMap<i64, Vec<u8>>,
    has_records: bool,
}

impl Verifier {
    pub(crate) fn new(store: Store, keys: Keys) -> Self {
        Self { store, keys }
    }

    /// Verifies one chain, or all of them, beside heads that were noted elsewhere.
    pub(crate) async fn verify(
        &self,
        only: Option<Uuid>,
        expected: &[Head],
    ) -> Result<Verified, VerifyError> {
        loop {
            let dropped_to = self.store.retention_get().await?;
            let verified = self.verify_behind(dropped_to, only, expected).await;
            // What is dropped while it is looked at does not fit.
            if self.store.retention_get().await? == dropped_to {
                return verified;
            }
        }
    }

    async fn verify_behind(
        &self,
        dropped_to: Day,
        only: Option<Uuid>,
        expected: &[Head],
    ) -> Result<Verified, VerifyError> {
        let mut walk = Walk::new(self);
        match only {
            None => {
                for row in self.store.chains_list().await? {
                    walk.add(row).await?;
                }
            }
            Some(chain_id) => {
                if let Some(row) = self.store.chain_get(chain_id).await? {
                    walk.add(row).await?;
                }
            }
        }
        for head in expected {
            match walk.chains.get_mut(&head.chain_id) {
                // Two heads at one place of a chain cannot both be right.
                Some(known) => {
                    let noted = known.expected.insert(head.sequence, head.mac.clone());
                    if noted.is_some_and(|noted| noted != head.mac) {
                        walk.broken.insert(head.chain_id, head.sequence);
                    }
                }
                None => drop(walk.broken.insert(head.chain_id, 1)),
            }
        }
        for day in dropped_to.behind() {
            if self.store.chain_next(day, None).await?.is_some() {
                walk.days.push(day);
            }
        }
        for day in walk.days.clone() {
            match only {
                Some(chain_id) => walk.day_of(day, place_of(chain_id)).await?,
                None => walk.day(day).await?,
            }
        }
        if let Some(chain_id) = only
            && !walk.chains.contains_key(&chain_id)
            && !walk.broken.contains_key(&chain_id)
        {
            return Err(VerifyError::NoSuchChain);
        }
        Ok(walk.finish())
    }

    /// Verifies the oldest day that is kept, before it is dropped.
    pub(crate) async fn verify_oldest_day(&self, day: Day) -> Result<DayVerified, VerifyError> {
        let mut walk = Walk::new(self);
        walk.days.push(day);
        walk.day(day).await?;
        let anchors = walk.chains.iter().filter_map(|(chain_id, known)| {
            // Of a broken chain too: up to its last record that fits, so that it stays broken there.
            let anchor = known.check.anchor()?;
            (anchor.sequence > known.anchor.sequence).then_some((*chain_id, anchor))
        });
        Ok(DayVerified {
            has_records: walk.records > 0 || !walk.broken.is_empty(),
            anchors: anchors.collect(),
            has_later_records: walk.has_later_records,
            broken: walk.broken,
        })
    }
}

impl<'a> Walk<'a> {
    fn new(verifier: &'a Verifier) -> Self {
        Self {
            verifier,
            keys: HashMap::new(),
            chains: HashMap::new(),
            days: Vec::new(),
            records: 0,
            broken: BTreeMap::new(),
            has_later_records: false,
        }
    }

    async fn add(&mut self, row: ChainRow) -> Result<(), VerifyError> {
        let key = self.key(&row.kek_id).await?;
        let known = Known {
            check: Check::new(row.chain_id, key, &row.anchor),
            anchor: row.anchor,
            expected: BTreeMap::new(),
            has_records: false,
        };
        self.chains.insert(row.chain_id, known);
        Ok(())
    }

    /// The key of chains under that key-encryption key; `None` where that is not among ours.
    async fn key(&mut self, kek_id: &str) -> Result<Option<MacKey>, VerifyError> {
        if let Some(key) = self.keys.get(kek_id) {
            return Ok(key.clone());
        }
        let key = match self.verifier.keys.records_key_of(kek_id).await {
            Ok(key) => Some(key),
            Err(error) if error.is_unavailable() => return Err(VerifyError::Keys(error)),
            Err(error) => {
                tracing::warn!(
                    event = "access_chain_key_missing",
                    kek.id = kek_id,
                    error = %Chain(&error),
                    "chains of access records under a key-encryption key that is not configured cannot be verified"
                );
                None
            }
        };
        self.keys.insert(kek_id.to_owned(), key.clone());
        Ok(key)
    }

    /// Goes on with every chain that has records of that day.
    async fn day(&mut self, day: Day) -> Result<(), VerifyError> {
        let mut behind = None;
        while let Some(place) = self.verifier.store.chain_next(day, behind).await? {
            self.day_of(day, place).await?;
            behind = Some(place);
        }
        Ok(())
    }

    /// Goes on with one chain.
    async fn day_of(&mut self, day: Day, place: Place) -> Result<(), VerifyError> {
        let mut behind = i64::MIN;
        loop {
            let page = self.verifier.store.links_list(day, place, behind).await?;
            for linked in page.iter() {
                let linked = linked?;
                behind = linked.sequence;
                self.has_later_records |= Day::of(linked.occurred_at) > day;
                self.take(day, place, &linked).await?;
            }
            if !page.is_full() {
                return Ok(());
            }
        }
    }

    async fn take(
        &mut self,
        day: Day,
        place: Place,
        linked: &Linked<'_>,
    ) -> Result<(), VerifyError> {
        let (bucket, chain_id) = place;
        if self.broken.contains_key(&chain_id) {
            return Ok(());
        }
        if !self.chains.contains_key(&chain_id) {
            // It has begun since we looked, or somebody has made it up.
            match self.verifier.store.chain_get(chain_id).await? {
                Some(row) if bucket == common::bucket_of(chain_id) => self.add(row).await?,
                _ => {
                    self.broken.insert(chain_id, linked.sequence);
                    return Ok(());
                }
            }
        }
        let Some(known) = self.chains.get_mut(&chain_id) else {
            return Ok(());
        };
        known.has_records = true;
        let misfit = match known.take(linked) {
            Ok(()) => {
                self.records += 1;
                return Ok(());
            }
            Err(Misfit::Altered { first }) => Some(first),
            Err(Misfit::Order) => self.out_of_order(day, place, linked).await?,
        };
        if let Some(first) = misfit {
            self.broken.insert(chain_id, first);
        }
        Ok(())
    }

    /// Which record is to blame where one does not follow the one before; `None` where it does after all.
    async fn out_of_order(
        &mut self,
        day: Day,
        place: Place,
        linked: &Linked<'_>,
    ) -> Result<Option<i64>, VerifyError> {
        let Some(known) = self.chains.get_mut(&place.1) else {
            return Ok(Some(linked.sequence));
        };
        let missing = known.check.taken_to() + 1;
        if linked.sequence < missing {
            return Ok(Some(linked.sequence));
        }
        let found = self
            .verifier
            .store
            .links_find(&self.days, place, missing)
            .await?;
        let mut found_on = None;
        for candidate in found.iter() {
            let candidate = candidate?;
            if known.check.would_take(&candidate) {
                found_on = Some(Day::of(candidate.occurred_at));
            }
        }
        match found_on {
            None => Ok(Some(missing)),
            Some(found_on) if found_on >= day => Ok(Some(linked.sequence)),
            // It was appended to the day before, after we had been there.
            Some(found_on) => self.catch_up(found_on, place, linked).await,
        }
    }

    async fn catch_up(
        &mut self,
        day: Day,
        place: Place,
        until: &Linked<'_>,
    ) -> Result<Option<i64>, VerifyError> {
        let Some(known) = self.chains.get_mut(&place.1) else {
            return Ok(Some(until.sequence));
        };
        loop {
            let behind = known.check.taken_to();
            let page = self.verifier.store.links_list(day, place, behind).await?;
            for linked in page.iter() {
                let linked = linked?;
                if let Err(misfit) = known.take(&linked) {
                    return Ok(Some(match misfit {
                        Misfit::Altered { first } => first,
                        Misfit::Order => known.check.taken_to() + 1,
                    }));
                }
                self.records += 1;
            }
            if !page.is_full() {
                break;
            }
        }
        match known.take(until) {
            Ok(()) => {
                self.records += 1;
                Ok(None)
            }
            Err(Misfit::Altered { first }) => Ok(Some(first)),
            Err(Misfit::Order) => Ok(Some(known.check.taken_to() + 1)),
        }
    }

    fn finish(mut self) -> Verified {
        let mut heads = Vec::new();
        for (chain_id, known) in self.chains {
            if self.broken.contains_key(&chain_id) {
                continue;
            }
            match known.misfit_at_the_end() {
                Some(first) => drop(self.broken.insert(chain_id, first)),
                None if known.has_records => heads.push(known.check.head()),
                None => {}
            }
        }
        heads.sort_by_key(|head| head.chain_id);
        Verified {
            records: self.records,
            broken: self.broken,
            heads,
        }
    }
}

impl Known {
    fn take(&mut self, linked: &Linked<'_>) -> Result<(), Misfit> {
        self.check.take(linked)?;
        match self.expected.get(&linked.sequence) {
            Some(noted) if linked.mac != Some(noted) => Err(Misfit::Altered {
                first: linked.sequence,
            }),
            _ => Ok(()),
        }
    }

    /// What is wrong with a chain whose records all fit.
    fn misfit_at_the_end(&self) -> Option<i64> {
        let next = self.check.next();
        let newest = self.expected.keys().next_back();
        let noted = self.expected.get(&self.anchor.sequence);
        if self.check.is_open() || newest.is_some_and(|newest| *newest >= next) {
            return Some(next);
        }
        if self.check.anchor_was_moved() {
            return Some(1);
        }
        noted
            .is_some_and(|noted| *noted != self.anchor.mac)
            .then_some(self.anchor.sequence)
    }
}

fn place_of(chain_id: Uuid) -> Place {
    (common::bucket_of(chain_id), chain_id)
}
