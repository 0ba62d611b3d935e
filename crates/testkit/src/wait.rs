//! Waiting for what comes true by itself, instead of sleeping.

use std::time::Duration;

const POLL: Duration = Duration::from_millis(10);

/// Waits until the condition holds.
///
/// # Panics
/// Where it does not within `timeout`.
pub async fn eventually(timeout: Duration, mut condition: impl AsyncFnMut() -> bool) {
    eventually_some(timeout, async || condition().await.then_some(())).await;
}

/// Waits until there is something, and gives it.
///
/// # Panics
/// Where there is nothing within `timeout`.
pub async fn eventually_some<T>(
    timeout: Duration,
    mut attempt: impl AsyncFnMut() -> Option<T>,
) -> T {
    let search = async {
        loop {
            if let Some(found) = attempt().await {
                return found;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    in_time(timeout, search).await
}

/// As [`eventually_some`], for a task of its own: each attempt owns what it needs.
///
/// # Panics
/// Where there is nothing within `timeout`.
pub async fn eventually_by<T, F: Future<Output = Option<T>>>(
    timeout: Duration,
    mut attempt: impl FnMut() -> F,
) -> T {
    let search = async {
        loop {
            if let Some(found) = attempt().await {
                return found;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    in_time(timeout, search).await
}

async fn in_time<T>(timeout: Duration, search: impl Future<Output = T>) -> T {
    let found = tokio::time::timeout(timeout, search).await;
    found.unwrap_or_else(|_| panic!("what the test waits for did not happen within {timeout:?}"))
}
