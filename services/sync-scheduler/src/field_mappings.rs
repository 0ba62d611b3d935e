//! Tenants' field mappings, as they go with each lease; kept for a minute.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use common::problem::Chain;
use common::{Deps, TenantKey};

use crate::clients::Clients;

const KEPT: Duration = Duration::from_mins(1);
const MOST: usize = 10_000;
/// A lease that is handed out runs already: the directory is not waited for longer.
const PATIENCE: Duration = Duration::from_secs(3);

/// The mappings that were asked for lately.
#[derive(Debug)]
pub(crate) struct FieldMappings {
    deps: Deps,
    known: Mutex<HashMap<TenantKey, (Duration, String)>>,
}

impl FieldMappings {
    /// Nothing is known yet.
    pub(crate) fn new(deps: &Deps) -> Self {
        Self {
            deps: deps.clone(),
            known: Mutex::default(),
        }
    }

    /// The tenant's mappings as a JSON object. While the directory cannot be asked, the last ones are good enough.
    pub(crate) async fn get(&self, clients: &Clients, tenant: TenantKey) -> String {
        let now = self.deps.clock.boottime();
        let none = || "{}".to_owned();
        let known = self
            .known
            .lock()
            .expect("no holder of this lock can panic")
            .get(&tenant)
            .cloned();
        if let Some((at, mappings)) = &known
            && now < *at + KEPT
        {
            return mappings.clone();
        }
        match tokio::time::timeout(PATIENCE, clients.field_mappings(tenant)).await {
            Ok(Ok(mappings)) => {
                let mut all = self.known.lock().expect("no holder of this lock can panic");
                if all.len() >= MOST {
                    all.retain(|_, (at, _)| now < *at + KEPT);
                }
                all.insert(tenant, (now, mappings.clone()));
                mappings
            }
            Ok(Err(error)) => {
                tracing::warn!(event = "field_mappings_unknown", tenant.id = %tenant, error = %Chain(&error), "the tenant's field mappings cannot be had");
                known.map_or_else(none, |(_, mappings)| mappings)
            }
            Err(_) => {
                tracing::warn!(event = "field_mappings_unknown", tenant.id = %tenant, "the tenant's field mappings are not to be had in time");
                known.map_or_else(none, |(_, mappings)| mappings)
            }
        }
    }
}
