//! How the directory knows its own callers: it asks itself.

use std::future::Future;
use std::pin::Pin;

use common::identity::{ApiKeyIdentity, Authenticate, Identity, TenantLookup, Tenants};
use common::{Problem, Secret, TenantKey};

use crate::directory::Directory;
use crate::error::Error;
use crate::name::{Name, NameKind};

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Problem>> + Send + 'a>>;

impl Authenticate for Directory {
    fn authenticate<'a>(&'a self, key: &'a Secret<String>) -> Answer<'a, Option<ApiKeyIdentity>> {
        Box::pin(async move {
            match self.find_good(key).await {
                Ok((key, _)) => {
                    let identity = Identity::ApiKey {
                        id: key.id.to_string(),
                        role: key.role,
                    };
                    let tenants = if key.tenants.is_empty() {
                        Tenants::Any
                    } else {
                        Tenants::Only(key.tenants)
                    };
                    Ok(Some(ApiKeyIdentity { identity, tenants }))
                }
                Err(Error::ApiKeyNotFound) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
    }
}

impl TenantLookup for Directory {
    fn by_external_id<'a>(&'a self, external_id: &'a str) -> Answer<'a, Option<TenantKey>> {
        Box::pin(async move {
            let name = Name::new(NameKind::ExternalId, external_id);
            Ok(self.tenant_by_name(&name).await?.map(|tenant| tenant.key))
        })
    }
}
