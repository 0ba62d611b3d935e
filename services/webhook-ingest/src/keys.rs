//! The keys that this service seals under: one a tenant, from the vault, kept in memory for five minutes at most.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::identity::{Caller, scope};
use common::rpc::{CallError, Channel};
use common::{Deps, Secret, TenantKey};
use contracts::vault::v1::GetServiceKeyRequest;
use contracts::vault::v1::service_key_service_client::ServiceKeyServiceClient;
use envelope::{AssociatedData, DataKey};
use tokio::time::Instant;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::error::Error;

/// A key is asked for again after this long, whatever the vault allows.
const LONGEST_KEPT: Duration = Duration::from_mins(5);
const PATIENCE: Duration = Duration::from_secs(5);
/// Keys at most; beyond, those whose time is over are dropped, and new ones are not kept.
const MOST: usize = 20_000;
/// The version that asks for the current key.
const CURRENT: u32 = 0;

/// Seals and opens.
pub(crate) struct ServiceKeys {
    vault: Channel,
    deps: Deps,
    kept: Mutex<HashMap<(TenantKey, u32), (Duration, DataKey)>>,
}

/// Where a sealed value lies. The tenant comes from whoever asks, never from the row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// What the provider signs with.
    SourceSecret {
        /// The source.
        source_key: Uuid,
        /// The secret's version.
        version: i64,
    },
    /// The token in the source's address.
    SourceToken {
        /// The source.
        source_key: Uuid,
    },
    /// A webhook's body.
    EventBody {
        /// The event.
        event_id: Uuid,
    },
}

impl ServiceKeys {
    /// Keys of the vault behind `vault`.
    pub(crate) fn new(vault: Channel, deps: &Deps) -> Self {
        Self {
            vault,
            deps: deps.clone(),
            kept: Mutex::default(),
        }
    }

    /// Seals under the tenant's current key.
    pub(crate) async fn seal(
        &self,
        tenant: TenantKey,
        place: Place,
        plaintext: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let key = self.key(tenant, CURRENT).await?;
        let fill = |bytes: &mut [u8]| self.deps.rng.fill(bytes);
        Ok(place.with(tenant, |place| envelope::seal(&key, place, plaintext, fill)))
    }

    /// What was sealed at this place.
    pub(crate) async fn open(
        &self,
        tenant: TenantKey,
        place: Place,
        sealed: &[u8],
    ) -> Result<Secret<Vec<u8>>, Error> {
        let version = envelope::data_key_version(sealed)?;
        let key = self.key(tenant, version).await?;
        let mut opened = place.with(tenant, |place| envelope::open(&key, place, sealed))?;
        Ok(Secret::new(std::mem::take(&mut *opened)))
    }

    /// What was sealed at this place, under the tenant's current key; `None` where it is under it already.
    pub(crate) async fn reseal(
        &self,
        tenant: TenantKey,
        place: Place,
        sealed: &[u8],
    ) -> Result<Option<Vec<u8>>, Error> {
        let current = self.key(tenant, CURRENT).await?;
        if envelope::data_key_version(sealed)? >= current.version() {
            return Ok(None);
        }
        let opened = self.open(tenant, place, sealed).await?;
        self.seal(tenant, place, opened.expose()).await.map(Some)
    }

    async fn key(&self, tenant: TenantKey, version: u32) -> Result<DataKey, Error> {
        let now = self.deps.clock.boottime();
        if let Some((until, key)) = self.kept().get(&(tenant, version))
            && *until > now
        {
            return Ok(key.clone());
        }
        let request = GetServiceKeyRequest {
            tenant_id: tenant.to_string(),
            key_version: i32::try_from(version).map_err(|_| Error::Key)?,
        };
        // The key is for everybody's requests, so it is asked for in our own name.
        let ourselves = Caller {
            deadline: Some(Instant::now() + PATIENCE),
            ..Caller::service("webhook-ingest")
        };
        let mut client = ServiceKeyServiceClient::new(self.vault.clone());
        let answer = scope(ourselves, client.get_service_key(request))
            .await
            .map_err(|status| Error::Vault(CallError::from(status)))?
            .into_inner();
        let bytes = Zeroizing::new(answer.key);
        let bytes: [u8; envelope::KEY_LEN] = bytes.as_slice().try_into().map_err(|_| Error::Key)?;
        let found = u32::try_from(answer.key_version).map_err(|_| Error::Key)?;
        let key = DataKey::new(found, Zeroizing::new(bytes));
        let allowed = answer
            .cache_for
            .and_then(|span| Duration::try_from(span).ok())
            .unwrap_or_default();
        let until = now + allowed.min(LONGEST_KEPT);
        let mut kept = self.kept();
        if kept.len() >= MOST {
            kept.retain(|_, (until, _)| *until > now);
        }
        if kept.len() < MOST {
            kept.insert((tenant, version), (until, key.clone()));
            kept.insert((tenant, found), (until, key.clone()));
        }
        Ok(key)
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<(TenantKey, u32), (Duration, DataKey)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn with<T>(self, tenant: TenantKey, act: impl FnOnce(&AssociatedData<'_>) -> T) -> T {
        let (table, column, row, row_version) = match self {
            Self::SourceSecret {
                source_key,
                version,
            } => ("sources", "secret_sealed", source_key, version),
            Self::SourceToken { source_key } => ("sources", "token_sealed", source_key, 1),
            Self::EventBody { event_id } => ("events", "body", event_id, 1),
        };
        act(&AssociatedData {
            service: "ingest",
            table,
            column,
            tenant: tenant.id(),
            row: row.as_bytes(),
            row_version,
        })
    }
}

impl fmt::Debug for ServiceKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceKeys").finish_non_exhaustive()
    }
}
