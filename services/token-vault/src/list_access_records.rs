//! Listing a tenant's access records, the newest first, from day to day backwards.

use crate::access_records::Day;
use crate::store::{AccessRow, RecordFilter, StoreError};
use crate::vault::Vault;

/// So many days are looked through in one statement at most; one at first, since most pages end there.
const MOST_DAYS: usize = 64;

impl Vault {
    /// A page of them.
    pub(crate) async fn list_access_records(
        &self,
        mut filter: RecordFilter,
    ) -> Result<Vec<AccessRow>, StoreError> {
        let oldest_kept = self.store.retention_get().await?.next();
        // Nothing is of a later day than tomorrow, by whatever clock.
        let tomorrow = Day::of(self.store.server_time().await?).next();
        let first = Day::of(filter.after).max(oldest_kept);
        let last = Day::of(filter.before.min(filter.behind.occurred_at)).min(tomorrow);
        let days: Vec<Day> = last.back_to(first).collect();

        let (mut found, mut looked_through, mut at_a_time) = (Vec::new(), 0, 1);
        while looked_through < days.len() && filter.limit > 0 {
            let until = days.len().min(looked_through + at_a_time);
            let page = self
                .store
                .records_list(&filter, &days[looked_through..until])
                .await?;
            filter.limit -= page.len() as i64;
            found.extend(page);
            looked_through = until;
            at_a_time = MOST_DAYS.min(at_a_time * 2);
        }
        Ok(found)
    }
}
