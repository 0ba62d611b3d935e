//! Sealing anew what a service has sealed under older keys of its tenants', a little at a time.
//!
//! The vault hands out a key's older versions for as long as the tenant lives, so nothing hurries: what is still sealed
//! under one is as readable as before. Where a tenant's key was rotated, this brings the rows of other services along.
//! What ends by itself within weeks needs none of it.

use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use crate::Deps;
use crate::lifecycle::Shutdown;
use crate::problem::Chain;

/// Rows of a service's with sealed values in them.
pub trait SealedRows: Sync {
    /// One of them, with its values.
    type Row: Send + Sync;
    /// Why they cannot be read or written.
    type Error: Error + Send + Sync + 'static;

    /// Some rows of every tenant's behind `after`, in an order that does not change; none at the end.
    fn list(
        &self,
        after: Option<&Self::Row>,
    ) -> impl Future<Output = Result<Vec<Self::Row>, Self::Error>> + Send;

    /// Seals under the tenant's newest key what an older one has sealed, and replaces it if it still is as it was read.
    /// `false` where there was nothing to do.
    fn reseal(&self, row: &Self::Row) -> impl Future<Output = Result<bool, Self::Error>> + Send;
}

/// What became of the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resealed {
    /// Sealed anew.
    pub rows: u64,
    /// Left as they are: they cannot be opened, or their tenant has no key any more.
    pub failed: u64,
}

/// Goes through all rows once every `every`, until shutdown is requested. Each replica does; two that meet do no harm, and
/// they begin at different times.
///
/// # Errors
/// None; it is what tasks return.
pub async fn run<R: SealedRows>(
    rows: R,
    every: Duration,
    deps: Deps,
    shutdown: Shutdown,
) -> Result<(), Infallible> {
    let mut pause =
        every.mul_f64(f64::from(u32::from_be_bytes(deps.random())) / f64::from(u32::MAX));
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.requested() => return Ok(()),
        }
        match pass(&rows, &shutdown).await {
            Ok(Resealed { rows: 0, failed: 0 }) => {}
            Ok(done) => {
                tracing::info!(
                    event = "values_resealed",
                    rows = done.rows,
                    failed = done.failed,
                    "what older keys had sealed is sealed under the newest"
                );
            }
            Err(error) => {
                tracing::warn!(event = "reseal_failed", error = %Chain(&error), "what older keys have sealed cannot be looked for; it stays readable");
            }
        }
        pause = every;
    }
}

/// Goes through all rows once.
///
/// # Errors
/// Where they cannot be read. One that cannot be sealed anew is counted, and the others follow.
pub async fn pass<R: SealedRows>(rows: &R, shutdown: &Shutdown) -> Result<Resealed, R::Error> {
    let mut done = Resealed::default();
    let mut found = rows.list(None).await?;
    while let Some(last) = found.last() {
        for row in &found {
            if shutdown.is_requested() {
                return Ok(done);
            }
            match rows.reseal(row).await {
                Ok(true) => done.rows += 1,
                Ok(false) => {}
                Err(error) => {
                    done.failed += 1;
                    tracing::debug!(event = "value_not_resealed", error = %Chain(&error), "a row could not be sealed anew, and stays as it is");
                }
            }
        }
        found = rows.list(Some(last)).await?;
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use super::*;

    /// Rows by number, each with the version that it is sealed under; an odd one under 7 does not open.
    struct Numbers(Mutex<BTreeMap<u32, u32>>);

    #[derive(Debug, thiserror::Error)]
    #[error("it does not open")]
    struct Stuck;

    impl SealedRows for Numbers {
        type Row = (u32, u32);
        type Error = Stuck;

        async fn list(&self, after: Option<&(u32, u32)>) -> Result<Vec<(u32, u32)>, Stuck> {
            let from = after.map_or(0, |(number, _)| number + 1);
            let rows = self.0.lock().expect("no test panics in it");
            Ok(rows.range(from..).take(3).map(|(k, v)| (*k, *v)).collect())
        }

        async fn reseal(&self, row: &(u32, u32)) -> Result<bool, Stuck> {
            match row.1 {
                7 => Err(Stuck),
                2 => Ok(false),
                _ => {
                    self.0
                        .lock()
                        .expect("no test panics in it")
                        .insert(row.0, 2);
                    Ok(true)
                }
            }
        }
    }

    #[tokio::test]
    async fn every_row_is_seen_once_and_a_stuck_one_stops_nothing() {
        let rows: BTreeMap<u32, u32> = (0..20).map(|number| (number, 1 + number % 2)).collect();
        let numbers = Numbers(Mutex::new(rows));
        numbers.0.lock().expect("no test panics in it").insert(5, 7);
        let done = pass(&numbers, &Shutdown::new()).await.expect("it lists");
        assert_eq!(
            done,
            Resealed {
                rows: 10,
                failed: 1
            }
        );
        let again = pass(&numbers, &Shutdown::new()).await.expect("it lists");
        assert_eq!(again, Resealed { rows: 0, failed: 1 });
    }
}
