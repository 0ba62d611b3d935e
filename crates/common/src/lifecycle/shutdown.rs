//! The wish that the process ends.

use tokio_util::sync::CancellationToken;

/// Tells everything when to finish; clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    requested: CancellationToken,
    drained: CancellationToken,
}

impl Shutdown {
    /// Not requested.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everything to finish what it has, and to take up nothing new.
    pub fn request(&self) {
        self.requested.cancel();
    }

    /// Whether that has been asked.
    pub fn is_requested(&self) -> bool {
        self.requested.is_cancelled()
    }

    /// Ends when it is asked.
    pub async fn requested(&self) {
        self.requested.cancelled().await;
    }

    /// The request as a token, for what takes one.
    pub fn token(&self) -> CancellationToken {
        self.requested.clone()
    }

    /// Ends when everything has finished but what others lean on, which is to end now.
    pub async fn drained(&self) {
        self.drained.cancelled().await;
    }

    pub(super) fn set_drained(&self) {
        self.drained.cancel();
    }
}
