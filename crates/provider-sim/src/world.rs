//! What all parts of one simulator share: configuration, grants, records, faults, counters, and the clock they live by.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::clock::Clock;
use crate::config::{CompanyConfig, ProviderConfig, RateLimit, SimConfig, UserConfig};
use crate::counters::Counters;
use crate::data::{CollectionName, Records};
use crate::faults::Faults;
use crate::oauth::authorize::Pending;
use crate::oauth::device::Devices;
use crate::oauth::grants::Grants;
use crate::oauth::keys::Keys;
use crate::oauth::par::Pushed;
use crate::persist::StateFile;

/// One simulator's state.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) base_url: String,
    pub(crate) clock: Clock,
    pub(crate) users: Vec<UserConfig>,
    pub(crate) companies: Vec<CompanyConfig>,
    pub(crate) keys: Keys,
    pub(crate) state_file: Option<StateFile>,
    providers: RwLock<BTreeMap<String, Arc<ProviderConfig>>>,
    grants: Mutex<Grants>,
    pending: Mutex<HashMap<String, Pending>>,
    pushed: Mutex<Pushed>,
    devices: Mutex<Devices>,
    records: Mutex<Records>,
    faults: Mutex<Faults>,
    counters: Mutex<Counters>,
    windows: Mutex<HashMap<u64, Window>>,
}

/// A provider as a request handler sees it.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) world: Arc<World>,
    pub(crate) slug: Arc<str>,
}

/// A grant's calls in the current window.
#[derive(Clone, Copy, Debug)]
struct Window {
    began: i64,
    calls: u32,
}

/// What is left of a rate limit after a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quota {
    pub(crate) limit: RateLimit,
    pub(crate) remaining: u32,
    pub(crate) exceeded: bool,
    /// Unix time of the next window.
    pub(crate) resets_at: i64,
}

impl World {
    pub(crate) fn new(
        config: SimConfig,
        base_url: String,
        keys: Keys,
        state_file: Option<StateFile>,
    ) -> Self {
        let records = Records::new(
            config.seed,
            config.clock.now_ms(),
            config.records,
            config.records_of,
        );
        let providers = config
            .providers
            .into_iter()
            .map(|provider| (provider.slug.clone(), Arc::new(provider)))
            .collect();
        Self {
            base_url,
            users: config.users,
            companies: config.companies,
            keys,
            state_file,
            providers: RwLock::new(providers),
            grants: Mutex::default(),
            pending: Mutex::default(),
            pushed: Mutex::default(),
            devices: Mutex::default(),
            records: Mutex::new(records),
            faults: Mutex::new(Faults::new(config.seed)),
            counters: Mutex::default(),
            windows: Mutex::default(),
            clock: config.clock,
        }
    }

    pub(crate) fn grants(&self) -> MutexGuard<'_, Grants> {
        lock(&self.grants)
    }

    pub(crate) fn pending(&self) -> MutexGuard<'_, HashMap<String, Pending>> {
        lock(&self.pending)
    }

    pub(crate) fn pushed(&self) -> MutexGuard<'_, Pushed> {
        lock(&self.pushed)
    }

    pub(crate) fn devices(&self) -> MutexGuard<'_, Devices> {
        lock(&self.devices)
    }

    pub(crate) fn records(&self) -> MutexGuard<'_, Records> {
        lock(&self.records)
    }

    pub(crate) fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    pub(crate) fn counters(&self) -> MutexGuard<'_, Counters> {
        lock(&self.counters)
    }

    pub(crate) fn forget_windows(&self) {
        lock(&self.windows).clear();
    }

    pub(crate) fn user(&self, key: &str) -> Option<&UserConfig> {
        self.users.iter().find(|user| user.key == key)
    }

    pub(crate) fn company(&self, id: u64) -> Option<&CompanyConfig> {
        self.companies.iter().find(|company| company.id == id)
    }

    pub(crate) fn provider(&self, slug: &str) -> Option<Arc<ProviderConfig>> {
        self.providers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(slug)
            .cloned()
    }

    pub(crate) fn providers(&self) -> Vec<Arc<ProviderConfig>> {
        self.providers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    pub(crate) fn replace_provider(&self, provider: ProviderConfig) {
        let mut providers = self
            .providers
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        providers.insert(provider.slug.clone(), Arc::new(provider));
    }

    pub(crate) fn issuer(&self, provider: &ProviderConfig) -> String {
        format!("{}{}", self.base_url, provider.path)
    }

    /// Whether there can be such a collection.
    pub(crate) fn has_collection(&self, name: &CollectionName) -> bool {
        use crate::config::CollectionKind::{Messages, Projects};
        let owner = match name.collection {
            Projects => name
                .owner
                .parse()
                .is_ok_and(|id| self.company(id).is_some()),
            Messages => self.user(&name.owner).is_some(),
        };
        owner && self.provider(&name.provider).is_some()
    }

    /// Counts a call against its grant's limit. Windows begin at multiples of their length, as Procore's do.
    pub(crate) fn charge(&self, limit: RateLimit, grant: u64) -> Quota {
        let length = i64::from(limit.window_seconds);
        let now = self.clock.now_ms() / 1000;
        let began = now - now.rem_euclid(length);
        let mut windows = lock(&self.windows);
        let window = windows.entry(grant).or_insert(Window { began, calls: 0 });
        if window.began != began {
            *window = Window { began, calls: 0 };
        }
        let exceeded = window.calls >= limit.calls;
        if !exceeded {
            window.calls += 1;
        }
        Quota {
            limit,
            remaining: limit.calls - window.calls,
            exceeded,
            resets_at: began + length,
        }
    }
}

impl Site {
    pub(crate) fn provider(&self) -> Arc<ProviderConfig> {
        self.world
            .provider(&self.slug)
            .expect("providers are replaced, never removed, and routes are made from them")
    }

    pub(crate) fn issuer(&self) -> String {
        self.world.issuer(&self.provider())
    }
}

/// State stays usable after a panic elsewhere: each change under a lock is whole before it can panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
