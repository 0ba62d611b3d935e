//! Whose turn it is among the buckets; among the tenants of one, `store::turns` knows.

use std::sync::Arc;
use std::sync::atomic::{AtomicI16, Ordering};

/// The bucket that was served last by this process; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Turns(Arc<AtomicI16>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(AtomicI16::new(-1)))
    }
}

impl Turns {
    /// Turns the ordered buckets so that those behind the last one come first.
    pub(crate) fn begin_behind_last(&self, buckets: &mut [i16]) {
        let last = self.0.load(Ordering::Relaxed);
        let behind = buckets.partition_point(|bucket| *bucket <= last);
        buckets.rotate_left(behind);
    }

    /// This one has been served.
    pub(crate) fn served(&self, bucket: i16) {
        self.0.store(bucket, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bucket_has_its_turn() {
        let turns = Turns::default();
        let next = || {
            let mut buckets = [3, 7, 200];
            turns.begin_behind_last(&mut buckets);
            turns.served(buckets[0]);
            buckets[0]
        };
        assert_eq!([next(), next(), next(), next()], [3, 7, 200, 3]);
    }
}
