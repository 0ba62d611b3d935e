//! Telling the vault what became of grants, and the table of routing keys what became of connections: right after the
//! change, and again until it is done.

use common::TenantKey;
use common::problem::Chain;
use contracts::vault::v1::{GrantEventKind, RevocationMode, WatchGrantEventsResponse};
use time::Duration;
use uuid::Uuid;

use crate::broker::Broker;
use crate::connection::Connection;
use crate::error::Error;
use crate::store::accounts::account_list_now;
use crate::store::exclusive_accounts::Claim;
use crate::store::grant_duties::{Duty, GrantDuty, duty_done, duty_put_off};
use crate::store::routing_keys::{routing_key_settle, routing_key_unpublished};

const FIRST_WAIT: Duration = Duration::seconds(5);
const LONGEST_WAIT: Duration = Duration::minutes(5);

impl Broker {
    /// Does a duty at once; what fails is left for the task that does it later.
    pub(crate) async fn settle_now(&self, tenant: TenantKey, grant_id: Uuid, duty: Duty) -> bool {
        self.settle(&GrantDuty {
            tenant,
            grant_id,
            duty,
            attempts: 0,
        })
        .await
    }

    /// Does a duty, or puts it off; says whether the provider has confirmed a revocation.
    pub(crate) async fn settle(&self, duty: &GrantDuty) -> bool {
        match self.tell_vault(duty).await {
            Ok(confirmed) => confirmed,
            Err(error) => {
                let wait = (FIRST_WAIT
                    * 2_i32.saturating_pow(duty.attempts.clamp(0, 10).unsigned_abs()))
                .min(LONGEST_WAIT);
                tracing::info!(
                    event = "grant_duty_put_off", tenant.id = %duty.tenant, grant.id = %duty.grant_id, duty = ?duty.duty,
                    attempts = duty.attempts, error = %Chain(&error), "the vault could not be told of a grant; later again"
                );
                if let Err(error) = duty_put_off(&self.db, duty, self.deps.now() + wait).await {
                    tracing::info!(event = "grant_duty_put_off", error = %Chain(&error), "nor could that be noted");
                }
                false
            }
        }
    }

    async fn tell_vault(&self, duty: &GrantDuty) -> Result<bool, Error> {
        let GrantDuty {
            tenant, grant_id, ..
        } = *duty;
        let confirmed = match duty.duty {
            Duty::Confirm => {
                if let Some(grant) = self.vault.confirm(tenant, grant_id).await? {
                    // Its events may have come before there was a connection to apply them to.
                    let kind = GrantEventKind::Unspecified.into();
                    self.follow_grant(WatchGrantEventsResponse {
                        grant: Some(grant),
                        kind,
                        ..Default::default()
                    })
                    .await?;
                } else {
                    tracing::warn!(
                        event = "grant_lost", tenant.id = %tenant, grant.id = %grant_id,
                        "the vault has no such grant to confirm any more; its user has to connect again"
                    );
                    self.grant_lost(tenant, grant_id).await?;
                }
                false
            }
            Duty::Revoke => {
                self.vault
                    .revoke(tenant, grant_id, RevocationMode::Provider)
                    .await?
            }
            Duty::RevokeHere => {
                self.vault
                    .revoke(tenant, grant_id, RevocationMode::Local)
                    .await?
            }
        };
        duty_done(&self.db, duty).await?;
        Ok(confirmed)
    }

    /// Brings the table of routing keys up to date for a connection; what fails is left for the task.
    pub(crate) async fn publish_now(&self, tenant: TenantKey, connection_id: Uuid) {
        if let Err(error) = self.publish(tenant.bucket(), Some(connection_id)).await {
            tracing::info!(
                event = "routing_keys_put_off", tenant.id = %tenant, connection.id = %connection_id, error = %Chain(&error),
                "routing keys could not be published; later again"
            );
        }
    }

    /// Brings the table of routing keys up to date for a bucket, or for one connection of it.
    pub(crate) async fn publish(
        &self,
        bucket: i16,
        connection_id: Option<Uuid>,
    ) -> Result<(), Error> {
        for key in routing_key_unpublished(&self.db, bucket, connection_id).await? {
            routing_key_settle(&self.db, &key).await?;
        }
        Ok(())
    }

    /// The exclusive account that a connection holds, if its integration has such.
    pub(crate) async fn exclusive_claim_of(
        &self,
        connection: &Connection,
    ) -> Result<Option<Claim>, Error> {
        let accounts =
            account_list_now(&self.db, connection.tenant, connection.connection_id).await?;
        let active = accounts.into_iter().find(|account| account.active);
        let external_account_id = active.map_or_else(
            || connection.external_user_id.clone(),
            |account| account.external_account_id,
        );
        Ok((!external_account_id.is_empty()).then(|| Claim {
            integration_tenant: connection.integration_tenant,
            integration_id: connection.integration_id.clone(),
            external_account_id,
            connection_id: connection.connection_id,
            tenant: connection.tenant,
        }))
    }
}
