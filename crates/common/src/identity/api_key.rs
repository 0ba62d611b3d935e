//! API keys and tenants' external ids, looked up in the directory by the services that may ask it.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use contracts::directory::v1::api_key_service_client::ApiKeyServiceClient;
use contracts::directory::v1::directory_service_client::DirectoryServiceClient;
use contracts::directory::v1::{AuthenticateApiKeyRequest, GetTenantByExternalIdRequest};

use super::{Caller, Identity, Tenants, scope};
use crate::rpc::{CallError, Channel};
use crate::{Code, Deps, Problem, Secret, TenantKey};

/// A key that was found good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeyIdentity {
    /// The identity it proves.
    pub identity: Identity,
    /// The tenants it reaches.
    pub tenants: Tenants,
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Problem>> + Send + 'a>>;

/// Tells whose key this is.
pub trait Authenticate: Send + Sync + fmt::Debug {
    /// `None` where the key is unknown, revoked, or past its end.
    fn authenticate<'a>(&'a self, key: &'a Secret<String>) -> Answer<'a, Option<ApiKeyIdentity>>;
}

/// Finds the tenant behind the id by which the host application knows it.
pub trait TenantLookup: Send + Sync + fmt::Debug {
    /// `None` where there is none.
    fn by_external_id<'a>(&'a self, external_id: &'a str) -> Answer<'a, Option<TenantKey>>;
}

/// Both, asked of the tenant directory, with answers kept for as long as it allows.
pub struct Directory {
    service: &'static str,
    channel: Channel,
    deps: Deps,
    keys: Cache<[u8; 32], Option<ApiKeyIdentity>>,
    tenants: Cache<String, Option<TenantKey>>,
}

/// Entries at most; a caller that tries keys at random cannot make it grow.
const CACHE_LIMIT: usize = 10_000;
const TENANT_CACHED_FOR: Duration = Duration::from_mins(1);
const ABSENCE_CACHED_FOR: Duration = Duration::from_secs(5);

struct Cache<K, V>(Mutex<HashMap<K, (Duration, V)>>);

impl<K: std::hash::Hash + Eq, V: Clone> Cache<K, V> {
    fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    fn get(&self, key: &K, now: Duration) -> Option<V> {
        let entries = self.0.lock().expect("no holder of this lock can panic");
        entries
            .get(key)
            .filter(|(until, _)| *until > now)
            .map(|(_, value)| value.clone())
    }

    fn put(&self, key: K, value: V, until: Duration, now: Duration) {
        let mut entries = self.0.lock().expect("no holder of this lock can panic");
        if entries.len() >= CACHE_LIMIT {
            entries.retain(|_, (until, _)| *until > now);
        }
        if entries.len() < CACHE_LIMIT {
            entries.insert(key, (until, value));
        }
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory")
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

impl Directory {
    /// Asks the directory behind `channel`, as `service`.
    pub fn new(service: &'static str, channel: Channel, deps: Deps) -> Self {
        Self {
            service,
            channel,
            deps,
            keys: Cache::new(),
            tenants: Cache::new(),
        }
    }
}

impl Authenticate for Directory {
    fn authenticate<'a>(&'a self, key: &'a Secret<String>) -> Answer<'a, Option<ApiKeyIdentity>> {
        Box::pin(async move {
            let now = self.deps.clock.boottime();
            let hash: [u8; 32] = digest(&SHA256, key.expose().as_bytes())
                .as_ref()
                .try_into()
                .expect("SHA-256 has 32 bytes");
            if let Some(known) = self.keys.get(&hash, now) {
                return Ok(known);
            }
            let mut client = ApiKeyServiceClient::new(self.channel.clone());
            let request = AuthenticateApiKeyRequest {
                secret: key.expose().clone(),
            };
            let answer = scope(
                Caller::service(self.service),
                client.authenticate_api_key(request),
            )
            .await;
            let (found, cached_for) = match answer.map_err(CallError::from) {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    let cached_for = answer
                        .cache_for
                        .and_then(|span| span.try_into().ok())
                        .unwrap_or_default();
                    (answer.api_key.map(from_contract), cached_for)
                }
                Err(error) if matches!(error.code, Code::NotFound | Code::Unauthenticated) => {
                    (None, ABSENCE_CACHED_FOR)
                }
                Err(error) => return Err(error.into_problem("the tenant directory")),
            };
            self.keys.put(hash, found.clone(), now + cached_for, now);
            Ok(found)
        })
    }
}

fn from_contract(key: contracts::directory::v1::ApiKey) -> ApiKeyIdentity {
    let tenants = if key.tenant_ids.is_empty() {
        Tenants::Any
    } else {
        Tenants::Only(
            key.tenant_ids
                .iter()
                .filter_map(|id| TenantKey::parse(id).ok())
                .collect(),
        )
    };
    ApiKeyIdentity {
        identity: Identity::ApiKey {
            id: key.api_key_id,
            role: key.role,
        },
        tenants,
    }
}

impl TenantLookup for Directory {
    fn by_external_id<'a>(&'a self, external_id: &'a str) -> Answer<'a, Option<TenantKey>> {
        Box::pin(async move {
            let now = self.deps.clock.boottime();
            if let Some(known) = self.tenants.get(&external_id.to_owned(), now) {
                return Ok(known);
            }
            let mut client = DirectoryServiceClient::new(self.channel.clone());
            let request = GetTenantByExternalIdRequest {
                external_id: external_id.to_owned(),
            };
            let answer = scope(
                Caller::service(self.service),
                client.get_tenant_by_external_id(request),
            )
            .await;
            let (found, cached_for) = match answer.map_err(CallError::from) {
                Ok(answer) => {
                    let tenant = answer
                        .into_inner()
                        .tenant
                        .and_then(|tenant| TenantKey::parse(&tenant.tenant_id).ok());
                    (tenant, TENANT_CACHED_FOR)
                }
                Err(error) if error.code == Code::NotFound => (None, ABSENCE_CACHED_FOR),
                Err(error) => return Err(error.into_problem("the tenant directory")),
            };
            self.tenants
                .put(external_id.to_owned(), found, now + cached_for, now);
            Ok(found)
        })
    }
}
