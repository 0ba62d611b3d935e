//! Getting, keeping and letting go of names that are unique over all tenants; see [`crate::name`] for the protocol.

use common::TenantKey;
use common::problem::Chain;

use crate::directory::Directory;
use crate::error::Error;
use crate::name::{Claim, Name, Verdict};
use crate::store::{self, Scope, StoreError, Tx};

/// A name that keeps changing hands is given up on.
const TRIES: u32 = 5;

impl Directory {
    /// Reserves all of these names for the tenant, or none.
    pub(crate) async fn claim_names(
        &self,
        tenant: TenantKey,
        names: Vec<Name>,
    ) -> Result<Vec<Claim>, Error> {
        let mut claims = Vec::new();
        for name in names {
            match self.claim_name(tenant, name).await {
                Ok(claim) => claims.push(claim),
                Err(error) => {
                    self.settle_names(&claims).await;
                    return Err(error);
                }
            }
        }
        Ok(claims)
    }

    async fn claim_name(&self, tenant: TenantKey, name: Name) -> Result<Claim, Error> {
        for _ in 0..TRIES {
            let claim = Claim {
                name: name.clone(),
                tenant,
                claim_id: tenant.new_id(&self.deps),
            };
            if store::name::name_reserve(&self.db, &claim).await? {
                return Ok(claim);
            }
            let Some(found) = store::name::name_get(&self.db, &name).await? else {
                continue;
            };
            if found.claim.tenant == tenant {
                return Ok(found.claim);
            }
            if found.confirmed || !found.stale {
                return Err(Error::NameTaken(name.kind));
            }
            // Whoever reserved it may be gone.
            self.settle_name(&found.claim).await?;
        }
        Err(Error::Busy)
    }

    /// Brings names to where their claims are: confirms those that were used, frees the others. What fails here, the
    /// reaper does later.
    pub(crate) async fn settle_names(&self, claims: &[Claim]) {
        for claim in claims {
            if let Err(error) = self.settle_name(claim).await {
                tracing::warn!(
                    event = "name_unsettled",
                    tenant.id = %claim.tenant,
                    kind = claim.name.kind.as_str(),
                    error = %Chain(&error),
                    "a claim on a name could not be settled; it is tried again later",
                );
            }
        }
    }

    /// Refuses the claim unless it was used, and acts on what holds.
    pub(crate) async fn settle_name(&self, claim: &Claim) -> Result<(), Error> {
        let (decided, now) = (claim.clone(), self.now());
        let verdict = self
            .db
            .run_tx(
                "name_settle",
                Scope::Tenant(claim.tenant),
                async move |tx| -> Result<Verdict, StoreError> {
                    store::name::name_claim_decide(tx, &decided, Verdict::Refused, now).await
                },
            )
            .await?;
        match verdict {
            Verdict::Used => store::name::name_confirm(&self.db, claim).await?,
            Verdict::Refused | Verdict::Freed => store::name::name_free(&self.db, claim).await?,
            Verdict::Released => {
                store::name::name_free(&self.db, claim).await?;
                store::name::name_claim_end(&self.db, claim, now).await?;
            }
        }
        Ok(())
    }
}

/// Uses the claims, in the transaction that writes the names into the tenant's row.
pub(crate) async fn use_claims(
    tx: &Tx,
    claims: &[Claim],
    now: time::OffsetDateTime,
) -> Result<(), Error> {
    for claim in claims {
        match store::name::name_claim_decide(tx, claim, Verdict::Used, now).await? {
            Verdict::Used => {}
            Verdict::Released | Verdict::Freed | Verdict::Refused => return Err(Error::ClaimLost),
        }
    }
    Ok(())
}
