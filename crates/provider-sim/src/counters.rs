//! What was called how often, for tests to compare with what they expect.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Calls that are alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// The provider's slug.
    pub provider: String,
    /// The endpoint: `token`, `authorize`, `api.procore.projects`, ….
    pub endpoint: String,
    /// The client, where it is known.
    pub client_id: Option<String>,
    /// The user, where one is known.
    pub user: Option<String>,
    /// The grant type of a token request.
    pub grant_type: Option<String>,
    /// `ok`, the OAuth error, or `http_404`. Of the work, where a fault lost the answer; `none` where nothing was done.
    pub outcome: String,
    /// The fault that met it.
    pub fault: Option<String>,
}

/// What a grant went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrantCounters {
    /// Refreshes that were committed.
    pub refreshes: u64,
    /// Used refresh tokens that were answered again, within the window.
    pub replays: u64,
    /// Used refresh tokens or codes that were refused, and the grant with them.
    pub reuse_refused: u64,
    /// Calls to the API with its access tokens.
    pub api_calls: u64,
    /// When the last refresh was committed: milliseconds since 1970 by the simulator's clock; 0 for never.
    pub refreshed_ms: i64,
}

/// All counters.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Calls by what they have in common.
    pub calls: BTreeMap<Call, u64>,
    /// By grant, in the form the control API calls them (`g1`).
    pub grants: BTreeMap<String, GrantCounters>,
}

/// Counters as the control API writes them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CountersView {
    /// Calls by what they have in common.
    pub calls: Vec<CallCount>,
    /// By grant.
    pub grants: BTreeMap<String, GrantCounters>,
    /// All calls.
    pub total: u64,
    /// Refreshes that were committed, of all grants.
    pub refreshes: u64,
    /// Used refresh tokens or codes that were refused, of all grants.
    pub reuse_refused: u64,
}

/// Calls that are alike, and their number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallCount {
    /// What they have in common.
    #[serde(flatten)]
    pub call: Call,
    /// How many.
    pub count: u64,
}

impl Counters {
    /// How many calls `matches` holds for.
    pub fn count(&self, matches: impl Fn(&Call) -> bool) -> u64 {
        self.calls
            .iter()
            .filter(|(call, _)| matches(call))
            .map(|(_, count)| count)
            .sum()
    }

    /// How many calls came to an endpoint.
    pub fn calls_to(&self, endpoint: &str) -> u64 {
        self.count(|call| call.endpoint == endpoint)
    }

    /// How many refreshes were committed, of all grants.
    pub fn refreshes(&self) -> u64 {
        self.grants.values().map(|grant| grant.refreshes).sum()
    }

    /// How many used refresh tokens or codes were refused, of all grants.
    pub fn reuse_refused(&self) -> u64 {
        self.grants.values().map(|grant| grant.reuse_refused).sum()
    }

    /// As the control API writes it.
    pub fn view(&self) -> CountersView {
        CountersView {
            calls: self
                .calls
                .iter()
                .map(|(call, count)| CallCount {
                    call: call.clone(),
                    count: *count,
                })
                .collect(),
            grants: self.grants.clone(),
            total: self.count(|_| true),
            refreshes: self.refreshes(),
            reuse_refused: self.reuse_refused(),
        }
    }

    pub(crate) fn grant(&mut self, grant: u64) -> &mut GrantCounters {
        self.grants.entry(grant_name(grant)).or_default()
    }
}

/// What the control API calls a grant.
pub(crate) fn grant_name(grant: u64) -> String {
    format!("g{grant}")
}
