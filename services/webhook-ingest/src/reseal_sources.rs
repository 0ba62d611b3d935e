//! Sealing sources' secrets anew where their tenant's key was rotated. Events' bodies end with their retention, under the key
//! that they were sealed with.

use std::sync::Arc;

use common::pg::Database;
use common::reseal::SealedRows;

use crate::error::Error;
use crate::keys::{Place, ServiceKeys};
use crate::source::Source;
use crate::store::sources::{source_list_all, source_reseal};

/// Sources that are read together.
const BATCH: i64 = 100;

/// What is sealed in sources.
#[derive(Debug)]
pub(crate) struct SealedSources {
    pub(crate) database: Database,
    pub(crate) keys: Arc<ServiceKeys>,
}

impl SealedRows for SealedSources {
    type Row = Source;
    type Error = Error;

    async fn list(&self, after: Option<&Source>) -> Result<Vec<Source>, Error> {
        Ok(source_list_all(&self.database, after, BATCH).await?)
    }

    async fn reseal(&self, source: &Source) -> Result<bool, Error> {
        let (secrets, source_key) = (&source.secrets, source.source_key);
        let secret_of = |version| Place::SourceSecret {
            source_key,
            version,
        };
        let anew = |place, sealed| self.keys.reseal(source.tenant, place, sealed);
        let token = anew(Place::SourceToken { source_key }, &source.token.sealed).await?;
        let secret = anew(secret_of(secrets.version), &secrets.current).await?;
        let before = secrets.previous.as_ref().map(|previous| &previous.sealed);
        let previous = match before {
            Some(sealed) => anew(secret_of(secrets.version - 1), sealed).await?,
            None => None,
        };
        if token.is_none() && secret.is_none() && previous.is_none() {
            return Ok(false);
        }
        Ok(source_reseal(
            &self.database,
            source,
            token.as_ref().unwrap_or(&source.token.sealed),
            secret.as_ref().unwrap_or(&secrets.current),
            previous.as_ref().or(before).map(Vec::as_slice),
        )
        .await?)
    }
}
