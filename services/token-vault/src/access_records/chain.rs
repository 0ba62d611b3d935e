//! The chain: each record's MAC is over the record and the MAC before it.

use envelope::MacKey;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Day;

pub(crate) type Mac = [u8; 32];

/// Who was handed what, as it is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) tenant_id: Uuid,
    pub(crate) grant_id: Option<Uuid>,
    pub(crate) resource: &'a str,
    pub(crate) caller: &'a str,
    pub(crate) user_id: &'a str,
    pub(crate) action: &'a str,
    pub(crate) purpose: &'a str,
    pub(crate) trace_id: &'a str,
}

/// A record as it stands in its chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linked<'a> {
    pub(crate) slot: i16,
    pub(crate) sequence: i64,
    pub(crate) occurred_at: OffsetDateTime,
    pub(crate) record: Record<'a>,
    /// `None` where the record shares the MAC of a later one, as the first ones that were ever written did.
    pub(crate) mac: Option<&'a [u8]>,
}

/// The end of a chain, or a place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) chain_id: Uuid,
    pub(crate) sequence: i64,
    pub(crate) mac: Vec<u8>,
}

/// Where what is kept of a chain begins: the last record that is not, sealed so that nobody else moves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Anchor {
    /// 0 where all is kept.
    pub(crate) sequence: i64,
    pub(crate) mac: Vec<u8>,
    pub(crate) seal: Vec<u8>,
}

/// A chain while it is checked.
#[derive(Debug)]
pub(crate) struct Check {
    chain_id: Uuid,
    /// `None` where the key-encryption key is not known: nothing fits then.
    key: Option<MacKey>,
    anchor_was_moved: bool,
    sequence: i64,
    mac: Vec<u8>,
    /// Records that have no MAC of their own.
    open: usize,
    message: Message,
}

/// Why a record does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// There is one missing before it, or the sequence has been there already.
    Order,
    /// It was altered, from this one on.
    Altered { first: i64 },
}

/// What is authenticated: every field behind its length, in one buffer that is used again.
#[derive(Clone, Debug, Default)]
pub(super) struct Message(Vec<u8>);

/// So many records shared a MAC at most.
const LONGEST_OPEN: usize = 256;
const ANCHOR: &[u8] = b"anchor of access records";

impl Message {
    /// Begins with the chain and what came before.
    pub(super) fn begin(&mut self, chain_id: Uuid, mac_before: &[u8]) {
        self.0.clear();
        self.field(chain_id.as_bytes());
        self.field(mac_before);
    }

    pub(super) fn record(&mut self, sequence: i64, at: OffsetDateTime, record: &Record<'_>) {
        self.field(&sequence.to_be_bytes());
        self.field(&(at.unix_timestamp_nanos() / 1000).to_be_bytes());
        self.field(record.tenant_id.as_bytes());
        self.field(record.grant_id.as_ref().map_or(&[][..], |id| id.as_bytes()));
        for text in [
            record.resource,
            record.caller,
            record.user_id,
            record.action,
            record.purpose,
            record.trace_id,
        ] {
            self.field(text.as_bytes());
        }
    }

    pub(super) fn mac(&self, key: &MacKey) -> Mac {
        key.sign(&[&self.0])
    }

    fn fits(&self, key: &MacKey, mac: &[u8]) -> bool {
        key.verify(&[&self.0], mac)
    }

    fn field(&mut self, bytes: &[u8]) {
        self.0
            .extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        self.0.extend_from_slice(bytes);
    }
}

impl Anchor {
    fn message(chain_id: Uuid, sequence: i64, mac: &[u8]) -> Message {
        let mut message = Message::default();
        message.field(ANCHOR);
        message.field(chain_id.as_bytes());
        message.field(&sequence.to_be_bytes());
        message.field(mac);
        message
    }

    /// Whether it was us who put it there.
    fn is_ours(&self, chain_id: Uuid, key: &MacKey) -> bool {
        match self.sequence {
            0 => self.mac.is_empty(),
            sequence => Self::message(chain_id, sequence, &self.mac).fits(key, &self.seal),
        }
    }
}

impl Check {
    /// From the anchor on. With one that somebody has moved, nothing fits any more.
    pub(crate) fn new(chain_id: Uuid, key: Option<MacKey>, anchor: &Anchor) -> Self {
        let anchor_was_moved = key
            .as_ref()
            .is_some_and(|key| !anchor.is_ours(chain_id, key));
        let key = key.filter(|_| !anchor_was_moved);
        let (sequence, mac) = match key {
            Some(_) => (anchor.sequence, anchor.mac.clone()),
            None => (0, Vec::new()),
        };
        let mut message = Message::default();
        message.begin(chain_id, &mac);
        Self {
            chain_id,
            key,
            anchor_was_moved,
            sequence,
            mac,
            open: 0,
            message,
        }
    }

    /// Takes the next record. After one that does not fit, nothing is as it was before.
    pub(crate) fn take(&mut self, linked: &Linked<'_>) -> Result<(), Misfit> {
        let altered = Misfit::Altered {
            first: linked.sequence.min(self.next()),
        };
        let Some(key) = &self.key else {
            return Err(Misfit::Altered {
                first: linked.sequence,
            });
        };
        if Day::of(linked.occurred_at).slot() != linked.slot {
            return Err(Misfit::Altered {
                first: linked.sequence,
            });
        }
        if linked.sequence != self.sequence + self.open as i64 + 1 {
            return Err(Misfit::Order);
        }
        self.message
            .record(linked.sequence, linked.occurred_at, &linked.record);
        self.open += 1;
        match linked.mac {
            None if self.open < LONGEST_OPEN => return Ok(()),
            Some(mac) if self.message.fits(key, mac) => {
                self.mac.clear();
                self.mac.extend_from_slice(mac);
            }
            _ => return Err(altered),
        }
        self.sequence = linked.sequence;
        self.open = 0;
        self.message.begin(self.chain_id, &self.mac);
        Ok(())
    }

    /// The first record that is not proved to be there as it was.
    pub(crate) fn next(&self) -> i64 {
        self.sequence + 1
    }

    /// The last record that was taken.
    pub(crate) fn taken_to(&self) -> i64 {
        self.sequence + self.open as i64
    }

    /// Whether the anchor is not where we put it.
    pub(crate) fn anchor_was_moved(&self) -> bool {
        self.anchor_was_moved
    }

    /// Whether a record without a MAC waits for one.
    pub(crate) fn is_open(&self) -> bool {
        self.open > 0
    }

    /// The last record that fits.
    pub(crate) fn head(&self) -> Head {
        Head {
            chain_id: self.chain_id,
            sequence: self.sequence,
            mac: self.mac.clone(),
        }
    }

    /// An anchor at the last record that fits; `None` before the first one, or without a key to seal it with.
    pub(crate) fn anchor(&self) -> Option<Anchor> {
        let key = self.key.as_ref().filter(|_| self.sequence > 0)?;
        Some(Anchor {
            sequence: self.sequence,
            mac: self.mac.clone(),
            seal: Anchor::message(self.chain_id, self.sequence, &self.mac)
                .mac(key)
                .to_vec(),
        })
    }

    /// The check of a record that is not its turn yet, without a change.
    pub(crate) fn would_take(&self, linked: &Linked<'_>) -> bool {
        let mut check = Self {
            chain_id: self.chain_id,
            key: self.key.clone(),
            anchor_was_moved: self.anchor_was_moved,
            sequence: self.sequence,
            mac: self.mac.clone(),
            open: self.open,
            message: self.message.clone(),
        };
        check.take(linked).is_ok()
    }
}

#[cfg(test)]
mod tests;
