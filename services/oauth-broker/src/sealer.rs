//! Sealing what is the broker's own, under keys that the vault derives for it, a tenant at a time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use common::{Deps, Secret, TenantKey};
use envelope::{AssociatedData, DataKey};
use zeroize::Zeroizing;

use crate::clients::Vault;
use crate::error::Error;

/// No key is kept longer, whatever the vault allows.
const LONGEST: Duration = Duration::from_mins(5);
const MOST_KEYS: usize = 10_000;

/// The keys of the last minutes.
#[derive(Debug)]
pub(crate) struct Sealer {
    vault: Vault,
    deps: Deps,
    /// By tenant and version; version 0 is whichever is current.
    keys: Mutex<HashMap<(TenantKey, i32), (Duration, DataKey)>>,
}

/// Where a value lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) tenant: TenantKey,
    pub(crate) table: &'a str,
    pub(crate) column: &'a str,
    pub(crate) row: &'a [u8],
}

impl Sealer {
    pub(crate) fn new(vault: Vault, deps: &Deps) -> Self {
        Self {
            vault,
            deps: deps.clone(),
            keys: Mutex::default(),
        }
    }

    /// Seals a text for its place.
    pub(crate) async fn seal(
        &self,
        place: Place<'_>,
        text: &Secret<String>,
    ) -> Result<Vec<u8>, Error> {
        let key = self.key(place.tenant, 0).await?;
        let random = |bytes: &mut [u8]| self.deps.rng.fill(bytes);
        Ok(envelope::seal(
            &key,
            &place.associated_data(),
            text.expose().as_bytes(),
            random,
        ))
    }

    /// Opens what was sealed for that place.
    pub(crate) async fn open(
        &self,
        place: Place<'_>,
        sealed: &[u8],
    ) -> Result<Secret<String>, Error> {
        let version = i32::try_from(envelope::data_key_version(sealed)?).unwrap_or_default();
        let key = self.key(place.tenant, version).await?;
        let opened = envelope::open(&key, &place.associated_data(), sealed)?;
        let text =
            String::from_utf8(opened.to_vec()).map_err(|_| envelope::OpenError::NotSealed)?;
        Ok(Secret::new(text))
    }

    /// Stands for a secret where two of them have to be compared later and none may be kept, nor guessed from what is kept.
    pub(crate) async fn fingerprint(
        &self,
        tenant: TenantKey,
        secret: &str,
    ) -> Result<String, Error> {
        if secret.is_empty() {
            return Ok(String::new());
        }
        let key = self.key(tenant, 0).await?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
        Ok(hex::encode(hmac::sign(&key, secret.as_bytes())))
    }

    async fn key(&self, tenant: TenantKey, version: i32) -> Result<DataKey, Error> {
        let now = self.deps.clock.boottime();
        if let Some((until, key)) = self
            .keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&(tenant, version))
            && *until > now
        {
            return Ok(key.clone());
        }
        let answer = self.vault.service_key(tenant, version).await?;
        let bytes: [u8; envelope::KEY_LEN] = answer
            .key
            .as_slice()
            .try_into()
            .map_err(|_| envelope::OpenError::WrongKey)?;
        let key = DataKey::new(answer.key_version.unsigned_abs(), Zeroizing::new(bytes));
        let allowed = answer
            .cache_for
            .and_then(|span| Duration::try_from(span).ok())
            .unwrap_or_default();
        let until = now + allowed.min(LONGEST);
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= MOST_KEYS {
            keys.retain(|_, (until, _)| *until > now);
        }
        if keys.len() < MOST_KEYS {
            keys.insert((tenant, version), (until, key.clone()));
            keys.insert((tenant, answer.key_version), (until, key.clone()));
        }
        Ok(key)
    }
}

impl Place<'_> {
    fn associated_data(&self) -> AssociatedData<'_> {
        AssociatedData {
            service: "broker",
            table: self.table,
            column: self.column,
            tenant: self.tenant.id(),
            row: self.row,
            row_version: 1,
        }
    }
}
