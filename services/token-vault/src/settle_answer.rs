//! Brings a good answer home: from the spool into the database, whatever stands in the way.

use std::time::Duration;

use common::problem::Chain;

use crate::failpoint;
use crate::grant::{Alternate, Answer, GrantKey, Settled};
use crate::keys::KeysError;
use crate::secrets::{self, Credential, RefreshToken, RevocableTokens};
use crate::spool::{Slot, SpoolError};
use crate::store::{Change, Revocation, StoreError};
use crate::vault::Vault;

/// Why an answer was not brought home; it stays in the spool.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettleError {
    /// The database does not take it.
    #[error("the answer cannot be stored")]
    Store(#[from] StoreError),
    /// The keys cannot be had.
    #[error("the answer cannot be sealed for another place")]
    Keys(#[from] KeysError),
    /// The spool cannot be read.
    #[error("the spool cannot be read")]
    Spool(#[from] SpoolError),
}

impl SettleError {
    fn is_unavailable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_unavailable(),
            Self::Keys(error) => error.is_unavailable(),
            Self::Spool(_) => false,
        }
    }

    /// Whether it can be another time. What the database refuses today (its disk broken, a table locked by an operator) it
    /// may take tomorrow; what does not open never will.
    fn is_passing(&self) -> bool {
        matches!(self, Self::Store(StoreError::Database(_))) || self.is_unavailable()
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Between two attempts that fail for a reason that does not pass by itself.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);

impl Vault {
    /// Writes the answer to the disk, then into the database, tried again until it takes it, then off the disk.
    pub(crate) async fn settle(&self, slot: Slot, answer: Answer) -> Result<Settled, SettleError> {
        failpoint::reach("sealed", answer.grant_id);
        let slot = match slot.write(&answer).await {
            Ok(slot) => Some(slot),
            Err(error) => {
                // The database is the better place anyway.
                tracing::error!(event = "spool_failed", error = %Chain(&error), "an answer could not be written to the spool");
                None
            }
        };
        failpoint::reach("spooled", answer.grant_id);
        let settled = self.settle_patiently(&answer).await?;
        failpoint::reach("committed", answer.grant_id);
        if let Some(slot) = slot {
            slot.remove().await;
        }
        failpoint::reach("removed", answer.grant_id);
        Ok(settled)
    }

    /// Brings home what lay in the spool when the instance started, and closes the intents that it had open.
    pub(crate) async fn recover(&self) -> Result<(), SettleError> {
        for (slot, answer) in self.spool.recover().await? {
            let settled = match self.settle_once(&answer).await {
                Ok(settled) => settled,
                Err(error) if error.is_passing() => return Err(error),
                Err(error) => {
                    // It stays where it is, and keeps nobody else from being served.
                    not_stored(&answer, &error);
                    continue;
                }
            };
            failpoint::reach("recovered", answer.grant_id);
            slot.remove().await;
            tracing::info!(
                event = "answer_recovered",
                tenant.id = %answer.tenant_id,
                grant.id = %answer.grant_id,
                outcome = ?settled,
                "brought home an answer that the last run of this vault had left in the spool"
            );
        }
        let instance = self.instance.id();
        for key in self.store.intent_list(instance).await? {
            let closed = self.store.grant_change("intent_close", key, move |grant| {
                let mine = grant
                    .intent
                    .is_some_and(|intent| intent.instance == instance);
                if mine {
                    grant.close_lost_intent();
                }
                Change {
                    save: mine,
                    ..Change::saved(mine)
                }
            });
            if closed.await? == Some(true) {
                failpoint::reach("intent_closed", key.id);
                tracing::info!(
                    event = "intent_closed",
                    tenant.id = %key.tenant,
                    grant.id = %key.id,
                    "closed an intent that the last run of this vault had left open"
                );
            }
        }
        Ok(())
    }

    async fn settle_patiently(&self, answer: &Answer) -> Result<Settled, SettleError> {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.settle_once(answer).await {
                Err(error) if error.is_passing() && !error.is_unavailable() => {
                    not_stored(answer, &error);
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
                Err(error) if error.is_unavailable() => {
                    tracing::warn!(
                        event = "answer_not_stored",
                        tenant.id = %answer.tenant_id,
                        grant.id = %answer.grant_id,
                        error = %Chain(&error),
                        "new tokens cannot be stored yet; they are safe in the spool"
                    );
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                outcome => return outcome,
            }
        }
    }

    async fn settle_once(&self, answer: &Answer) -> Result<Settled, SettleError> {
        let Some(key) = answer.grant() else {
            return Ok(Settled::TooLate);
        };
        let stored = answer.clone();
        let settled = self.store.grant_change("answer_settle", key, move |grant| {
            match grant.settle(&stored) {
                Settled::Committed(event) => Change::told(Settled::Committed(event), Some(event)),
                settled => Change::none(settled),
            }
        });
        // Without a row there is nobody whose tokens they could be.
        let settled = settled.await?.unwrap_or(Settled::TooLate);
        match settled {
            Settled::Committed(_) | Settled::AlreadyCommitted => {}
            Settled::Superseded => self.keep_alternate(key, answer).await?,
            Settled::TooLate => match self.revoke_answer(key, answer).await {
                // Nobody can read what came, so nobody can revoke it either.
                Err(SettleError::Keys(KeysError::Shredded)) => {}
                outcome => outcome?,
            },
        }
        Ok(settled)
    }

    async fn keep_alternate(&self, key: GrantKey, answer: &Answer) -> Result<(), SettleError> {
        let Some(sealed) = &answer.refresh_token else {
            return Ok(());
        };
        let version = answer.version();
        let token: RefreshToken = secrets::open(
            &self.keys,
            &secrets::refresh_token_place(key, version),
            sealed,
        )
        .await?;
        let data_key = self.keys.newest(key.tenant).await?;
        let sealed = secrets::seal(
            &self.keys,
            &data_key,
            &secrets::alternate_place(key, version),
            &token,
        );
        let alternate = Alternate { sealed, version };
        let kept = self
            .store
            .grant_change("alternate_keep", key, move |grant| {
                let event = grant.keep_alternate(alternate.clone());
                Change::told((), event)
            });
        kept.await?;
        Ok(())
    }

    /// Tokens of a grant that is revoked already go the same way.
    pub(crate) async fn revoke_answer(
        &self,
        key: GrantKey,
        answer: &Answer,
    ) -> Result<(), SettleError> {
        let version = answer.version();
        let credential: Credential = secrets::open(
            &self.keys,
            &secrets::credential_place(key, version),
            &answer.credential,
        )
        .await?;
        let refresh_token: Option<RefreshToken> = match &answer.refresh_token {
            Some(sealed) => Some(
                secrets::open(
                    &self.keys,
                    &secrets::refresh_token_place(key, version),
                    sealed,
                )
                .await?,
            ),
            None => None,
        };
        let (client, parameters) = match (&answer.exchange, self.store.grant_get(key).await?) {
            (Some(exchange), _) => (exchange.client(), exchange.parameters.clone()),
            (None, Some(grant)) => (grant.client, grant.parameters),
            (None, None) => return Ok(()),
        };
        let Some(client) = client else { return Ok(()) };
        let tokens = RevocableTokens::of(refresh_token.as_ref(), Some(&credential));
        let revocation = self.revocation(key, client, parameters, &tokens).await?;
        self.store.revocation_add(&revocation).await?;
        Ok(())
    }

    /// A row for the list of tokens to be revoked.
    pub(crate) async fn revocation(
        &self,
        key: GrantKey,
        client: crate::grant::ClientKey,
        parameters: std::collections::BTreeMap<String, String>,
        tokens: &RevocableTokens,
    ) -> Result<Revocation, KeysError> {
        let id = key.tenant.new_id(&self.deps);
        let data_key = self.keys.newest(key.tenant).await?;
        let sealed = secrets::seal(
            &self.keys,
            &data_key,
            &secrets::revocation_place(key.tenant, id),
            tokens,
        );
        Ok(Revocation {
            tenant: key.tenant,
            id,
            grant_id: key.id,
            client,
            parameters,
            tokens: sealed,
            key_version: data_key.version().cast_signed(),
            attempts: 0,
            is_last: false,
        })
    }
}

/// Only a person can help here.
fn not_stored(answer: &Answer, error: &SettleError) {
    tracing::error!(
        event = "answer_not_stored",
        tenant.id = %answer.tenant_id,
        grant.id = %answer.grant_id,
        error = %Chain(error),
        "new tokens cannot be stored; they stay in the spool"
    );
}
