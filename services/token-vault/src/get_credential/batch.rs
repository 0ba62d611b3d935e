//! Several credentials at once: one statement reads their grants, and one records all that is handed out.

use std::sync::Arc;

use futures::future::join_all;

use super::{Handed, Handout, Request};
use crate::access_records::NotRecorded;
use crate::error::Error;

impl Handout {
    /// What came of each request, in their order. One that has to wait for its provider makes the others wait, until the
    /// caller's deadline.
    pub(crate) async fn get_all(&self, requests: &[Request]) -> Vec<Result<Handed, Error>> {
        let keys: Vec<_> = requests.iter().map(|request| request.grant).collect();
        let grants = match self.teller.vault.store.grants_read(&keys).await {
            Ok(grants) => grants,
            Err(error) => {
                let error = Arc::new(error);
                let told = |_| Err(Error::SharedStore(Arc::clone(&error)));
                return requests.iter().map(told).collect();
            }
        };
        let opened = requests.iter().zip(grants).map(async |(request, grant)| {
            let grant = grant?.ok_or(Error::GrantNotFound)?;
            request.in_time(self.teller.open(request, grant)).await
        });
        let mut opened = join_all(opened).await;

        let accesses: Vec<_> = requests
            .iter()
            .zip(&opened)
            .filter(|(_, outcome)| outcome.is_ok())
            .map(|(request, _)| request.access())
            .collect();
        if self.teller.recorder.append_all(accesses).await.is_err() {
            for outcome in opened.iter_mut().filter(|outcome| outcome.is_ok()) {
                *outcome = Err(NotRecorded.into());
            }
        }
        for (request, _) in requests
            .iter()
            .zip(&opened)
            .filter(|(_, outcome)| outcome.is_ok())
        {
            self.teller.count(request);
        }
        opened
    }
}
