//! The handle that tests hold: everything that can be asked of a running simulator. The control API offers the same over HTTP.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::iso_seconds;
use crate::config::{ClientConfig, ProviderConfig};
use crate::counters::{Counters, grant_name};
use crate::data::{Changed, Changes, CollectionName, NoSuchRecord, RecordSummary};
use crate::faults::{ActiveFault, FaultRule};
use crate::oauth::grants::RevokeCause;
use crate::persist::StateError;
use crate::webhook::{self, WebhookError, WebhookOutcome, WebhookRequest};
use crate::world::World;

/// A handle on a running simulator. Clones are handles on the same one.
#[derive(Clone, Debug)]
pub struct Control {
    world: Arc<World>,
}

/// A grant as the control API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantView {
    /// Its name: `g1`.
    pub id: String,
    /// The provider's slug.
    pub provider: String,
    /// The client.
    pub client_id: String,
    /// The user's key.
    pub user: String,
    /// What was granted.
    pub scope: Vec<String>,
    /// When, RFC 3339.
    pub created_at: String,
    /// How often its refresh token was rotated.
    pub generation: u64,
    /// Why it ended, if it has.
    pub revoked: Option<RevokeCause>,
}

/// A grant with its first tokens, as a client has them that imports what it got elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedGrant {
    /// Its name: `g1`.
    pub id: String,
    /// Its access token.
    pub access_token: String,
    /// Its refresh token.
    pub refresh_token: String,
    /// What was granted: all that the provider has.
    pub scope: Vec<String>,
}

/// A part of the state that can be reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// All counters and rate-limit windows.
    Counters,
    /// All faults.
    Faults,
    /// All codes, grants and tokens.
    Grants,
    /// All records, back to new seeded ones.
    Records,
    /// The clock, back to real time.
    Clock,
}

/// Something that cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is no such provider.
    #[error("there is no provider {slug:?}")]
    NoProvider {
        /// The slug that was given.
        slug: String,
    },
    /// There is no such collection.
    #[error(
        "there is no such collection; owners are company ids for projects and user keys for messages"
    )]
    NoCollection,
    /// There is no such record.
    #[error("the records could not be changed")]
    NoRecord(#[from] NoSuchRecord),
    /// There is no such grant.
    #[error("there is no grant {id:?}")]
    NoGrant {
        /// The name that was given.
        id: String,
    },
    /// Nobody waits with such a code.
    #[error("no device waits with the code {user_code:?}")]
    NoDevice {
        /// The code that was given.
        user_code: String,
    },
    /// There is no such fault.
    #[error("there is no fault {id}")]
    NoFault {
        /// The number that was given.
        id: u64,
    },
    /// What was given is wrong.
    #[error("{}", problems.join("; "))]
    Invalid {
        /// Every problem.
        problems: Vec<String>,
    },
    /// The webhook cannot be sent.
    #[error("the webhook could not be sent")]
    Webhook(#[from] WebhookError),
    /// The change could not be kept.
    #[error("the change could not be kept")]
    State(#[from] StateError),
}

impl Control {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    /// Where the simulator is reached, without a slash at the end.
    pub fn base_url(&self) -> &str {
        &self.world.base_url
    }

    /// A provider's issuer, which its endpoints' addresses begin with.
    pub fn issuer(&self, slug: &str) -> Result<String, ControlError> {
        Ok(self.world.issuer(&self.provider(slug)?))
    }

    /// All providers as they are now.
    pub fn providers(&self) -> Vec<ProviderConfig> {
        self.world
            .providers()
            .iter()
            .map(|provider| (**provider).clone())
            .collect()
    }

    /// A provider as it is now.
    pub fn provider(&self, slug: &str) -> Result<ProviderConfig, ControlError> {
        let provider = self
            .world
            .provider(slug)
            .ok_or_else(|| ControlError::NoProvider {
                slug: slug.to_owned(),
            })?;
        Ok((*provider).clone())
    }

    /// Changes a provider's behaviour while it runs. Its slug, path, APIs and endpoints stay. Only clients are kept over a restart.
    pub async fn configure(
        &self,
        slug: &str,
        change: impl FnOnce(&mut ProviderConfig),
    ) -> Result<(), ControlError> {
        let old = self.provider(slug)?;
        let mut provider = old.clone();
        change(&mut provider);
        let mut problems = provider.problems(&self.world.users);
        let endpoint = |provider: &ProviderConfig| {
            provider.revocation == crate::config::Revocation::Unsupported
        };
        if provider.slug != old.slug
            || provider.path != old.path
            || provider.apis != old.apis
            || endpoint(&provider) != endpoint(&old)
        {
            problems.push("slug, path, apis, and whether there is a revocation endpoint cannot change while the simulator runs".to_owned());
        }
        if !problems.is_empty() {
            return Err(ControlError::Invalid { problems });
        }
        self.world.replace_provider(provider);
        Ok(self.world.keep().await?)
    }

    /// The same with a JSON merge patch (RFC 7396) on the provider's configuration.
    pub async fn patch_provider(&self, slug: &str, patch: &Value) -> Result<(), ControlError> {
        let invalid = |error: serde_json::Error| ControlError::Invalid {
            problems: vec![error.to_string()],
        };
        let mut json = serde_json::to_value(self.provider(slug)?).map_err(invalid)?;
        merge(&mut json, patch);
        let patched: ProviderConfig = serde_json::from_value(json).map_err(invalid)?;
        self.configure(slug, |provider| *provider = patched).await
    }

    /// Adds a client, or replaces the one with its id.
    pub async fn register_client(
        &self,
        slug: &str,
        client: ClientConfig,
    ) -> Result<(), ControlError> {
        self.configure(slug, |provider| {
            provider
                .clients
                .retain(|known| known.client_id != client.client_id);
            provider.clients.push(client);
        })
        .await
    }

    /// Lets a fault strike; the number is for removing it.
    pub fn inject(&self, rule: FaultRule) -> u64 {
        self.world.faults().inject(rule)
    }

    /// Removes one fault.
    pub fn remove_fault(&self, id: u64) -> Result<(), ControlError> {
        if self.world.faults().remove(id) {
            Ok(())
        } else {
            Err(ControlError::NoFault { id })
        }
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.world.faults().clear();
    }

    /// All faults, and how many calls each has met.
    pub fn faults(&self) -> Vec<ActiveFault> {
        self.world.faults().active()
    }

    /// What was called how often.
    pub fn counters(&self) -> Counters {
        self.world.counters().clone()
    }

    /// All grants, oldest first.
    pub fn grants(&self) -> Vec<GrantView> {
        let grants = self.world.grants();
        let view = |(id, grant): (u64, &crate::oauth::grants::Grant)| GrantView {
            id: grant_name(id),
            provider: grant.provider.clone(),
            client_id: grant.client_id.clone(),
            user: grant.user.clone(),
            scope: grant.scope.clone(),
            created_at: iso_seconds(grant.created_ms),
            generation: grant.generation,
            revoked: grant.revoked,
        };
        grants.grants().map(view).collect()
    }

    /// A user's consent to everything, without a page: for tests that want many grants.
    pub async fn issue_grant(
        &self,
        slug: &str,
        client_id: &str,
        user: &str,
    ) -> Result<IssuedGrant, ControlError> {
        let provider = self.provider(slug)?;
        if provider.client(client_id).is_none() || self.world.user(user).is_none() {
            return Err(ControlError::Invalid {
                problems: vec![format!(
                    "there is no client {client_id:?} or no user {user:?}"
                )],
            });
        }
        let now = self.world.clock.now_ms();
        let issued = self
            .world
            .grants()
            .grant_at_once(&provider, client_id, user, now);
        self.world.keep().await?;
        Ok(IssuedGrant {
            id: grant_name(issued.grant),
            access_token: issued.access_token,
            refresh_token: issued.refresh_token.unwrap_or_default(),
            scope: issued.scope,
        })
    }

    /// Ends a grant, as a user does who takes consent back at the provider.
    pub async fn revoke_grant(&self, id: &str) -> Result<(), ControlError> {
        let found = grant_number(id)
            .is_some_and(|grant| self.world.grants().revoke(grant, RevokeCause::Control));
        self.found_grant(id, found).await
    }

    /// Lets a grant's access tokens expire now, whatever the client was told.
    pub async fn expire_access_tokens(&self, id: &str) -> Result<(), ControlError> {
        let now = self.world.clock.now_ms();
        let found = grant_number(id)
            .is_some_and(|grant| self.world.grants().expire_access_tokens(grant, now));
        self.found_grant(id, found).await
    }

    /// What a person says who has typed in the code that another device shows; `None` is a no.
    pub fn decide_device(
        &self,
        slug: &str,
        user_code: &str,
        user: Option<&str>,
    ) -> Result<(), ControlError> {
        if self.world.devices().decide(slug, user_code, user) {
            Ok(())
        } else {
            Err(ControlError::NoDevice {
                user_code: user_code.to_owned(),
            })
        }
    }

    async fn found_grant(&self, id: &str, found: bool) -> Result<(), ControlError> {
        if !found {
            return Err(ControlError::NoGrant { id: id.to_owned() });
        }
        Ok(self.world.keep().await?)
    }

    /// Every record that a collection has.
    pub fn records(&self, name: &CollectionName) -> Result<Vec<RecordSummary>, ControlError> {
        self.check(name)?;
        Ok(self.world.records().collection(name).summaries())
    }

    /// Changes records: all of `changes`, or none if one names a record that is not there.
    pub async fn change_records(
        &self,
        name: &CollectionName,
        changes: Changes,
    ) -> Result<Changed, ControlError> {
        self.check(name)?;
        let now = self.world.clock.now_ms();
        let done = self.world.records().collection(name).apply(changes, now)?;
        self.world.keep().await?;
        Ok(done)
    }

    /// Makes `count` random changes, which depend on `seed` alone.
    pub async fn churn_records(
        &self,
        name: &CollectionName,
        count: u32,
        seed: u64,
    ) -> Result<Changed, ControlError> {
        self.check(name)?;
        let now = self.world.clock.now_ms();
        let done = self
            .world
            .records()
            .collection(name)
            .churn(count, seed, now);
        self.world.keep().await?;
        Ok(done)
    }

    fn check(&self, name: &CollectionName) -> Result<(), ControlError> {
        if self.world.has_collection(name) {
            Ok(())
        } else {
            Err(ControlError::NoCollection)
        }
    }

    /// Makes all delta tokens given out so far too old.
    pub async fn expire_delta_tokens(&self) -> Result<(), ControlError> {
        self.world.records().expire_delta_tokens();
        Ok(self.world.keep().await?)
    }

    /// The simulator's time, RFC 3339.
    pub fn now(&self) -> String {
        iso_seconds(self.world.clock.now_ms())
    }

    /// Moves the simulator's time forward.
    pub async fn advance_clock(&self, by: Duration) -> Result<(), ControlError> {
        self.world.clock.advance(by);
        Ok(self.world.keep().await?)
    }

    /// Resets some parts of the state, or all of them if none is named. Clients and configuration stay.
    pub async fn reset(&self, parts: &[Part]) -> Result<(), ControlError> {
        let wanted = |part| parts.is_empty() || parts.contains(&part);
        if wanted(Part::Counters) {
            *self.world.counters() = Counters::default();
            self.world.forget_windows();
        }
        if wanted(Part::Faults) {
            self.world.faults().clear();
        }
        if wanted(Part::Clock) {
            self.world.clock.set_advanced_ms(0);
        }
        if wanted(Part::Grants) {
            self.world.grants().reset();
            self.world.pending().clear();
        }
        if wanted(Part::Records) {
            self.world.records().reset(self.world.clock.now_ms());
        }
        Ok(self.world.keep().await?)
    }

    /// Sends a webhook and waits for what comes of it.
    pub async fn send_webhook(
        &self,
        request: &WebhookRequest,
    ) -> Result<Vec<WebhookOutcome>, ControlError> {
        Ok(webhook::deliver(request, self.world.clock.now()).await?)
    }
}

fn grant_number(id: &str) -> Option<u64> {
    id.strip_prefix('g')?.parse().ok()
}

/// RFC 7396, section 2.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    if let Value::Object(target) = target {
        for (name, value) in patch {
            if value.is_null() {
                target.remove(name);
            } else {
                merge(target.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
    }
}
