//! Faults that are asked for: which calls they meet, and what they do to them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::RateHeaders;
use crate::random::Sequence;

/// Which calls a fault meets.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// The endpoint: `token`, `api.procore.projects`, a group of them like `api`, or `*`.
    pub endpoint: String,
    /// Only calls to this provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Only calls by this client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Only token requests of this grant type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant_type: Option<String>,
    /// Only calls on behalf of this user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Lets this many matching calls pass first.
    #[serde(default)]
    pub skip: u64,
    /// Ends after this many calls; absent, it stays until it is removed.
    #[serde(default)]
    pub times: Option<u64>,
    /// With what probability a matching call is met.
    #[serde(default = "always")]
    pub probability: f64,
    /// Does the work first: the rotation is committed, and then the answer is lost, late or wrong.
    #[serde(default)]
    pub after_work: bool,
    /// What happens.
    pub fault: Fault,
}

/// What happens to a call.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// The call, or with `after_work` its answer, waits. By real time, whatever the simulator's clock says.
    Delay {
        /// How long.
        millis: u64,
    },
    /// The connection is closed without an answer.
    Drop,
    /// The real answer's headers and the beginning of its body are sent, then the connection is closed. The work is always done.
    CutBody {
        /// How much of the body is sent; absent, half of it.
        #[serde(default)]
        bytes: Option<usize>,
    },
    /// 429.
    RateLimited {
        /// How the wait is told.
        #[serde(default)]
        headers: RateHeaders,
        /// How long a wait is told.
        #[serde(default = "one_second")]
        seconds: u32,
    },
    /// An HTTP error in the API's own form: 500, 502, 503, ….
    Status {
        /// The status code.
        status: u16,
        /// `Retry-After` in seconds.
        #[serde(default)]
        retry_after_seconds: Option<u32>,
    },
    /// An error of RFC 6749, section 5.2: `invalid_grant`, `invalid_client`, ….
    OauthError {
        /// The error.
        error: String,
        /// Another status than the error usually has: 403 for Atlassian's `invalid_grant`, say.
        #[serde(default)]
        status: Option<u16>,
    },
    /// An error with status 200, as one of these providers says it.
    #[serde(rename = "error_in_200")]
    ErrorIn200 {
        /// Whose.
        shape: ErrorShape,
    },
    /// Status 200 and a body that cannot be read as what it should be.
    Malformed {
        /// How.
        #[serde(default)]
        body: MalformedBody,
    },
    /// Exactly this answer.
    Answer {
        /// The status code.
        status: u16,
        /// Headers.
        #[serde(default)]
        headers: BTreeMap<String, String>,
        /// The body.
        #[serde(default)]
        body: String,
    },
}

/// Providers that say errors with status 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorShape {
    /// `{"ok": false, "error": …}`.
    Slack,
    /// `{"error": "bad_refresh_token", …}`.
    Github,
    /// `{"code": 40105, …}`.
    Tiktok,
    /// `{"error": "invalid_code"}`.
    Zoho,
}

/// Bodies that are not what they should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MalformedBody {
    /// JSON that ends too early, with the right length.
    #[default]
    TruncatedJson,
    /// A page for people.
    Html,
    /// Nothing.
    Empty,
    /// A JSON list where an object should be, or the other way round: `["unexpected"]`.
    WrongType,
}

/// What is known of a call before it is answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallFacts {
    pub(crate) provider: String,
    pub(crate) endpoint: &'static str,
    pub(crate) client_id: Option<String>,
    pub(crate) grant_type: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) grant: Option<u64>,
}

/// A rule with its number and what it has done.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActiveFault {
    /// Its number, to remove it by.
    pub id: u64,
    /// Calls that it met.
    pub met: u64,
    /// The rule.
    pub rule: FaultRule,
}

/// A fault that meets a call.
#[derive(Clone, Debug)]
pub(crate) struct Struck {
    pub(crate) fault: Fault,
    pub(crate) after_work: bool,
}

/// The rules in force.
#[derive(Debug)]
pub(crate) struct Faults {
    next_id: u64,
    active: Vec<ActiveFault>,
    skipped: BTreeMap<u64, u64>,
    dice: Sequence,
}

fn always() -> f64 {
    1.0
}

fn one_second() -> u32 {
    1
}

impl FaultRule {
    /// The next call to `endpoint`, and only that one.
    pub fn once(endpoint: &str, fault: Fault) -> Self {
        Self {
            times: Some(1),
            ..Self::every(endpoint, fault)
        }
    }

    /// Every call to `endpoint` until the fault is removed.
    pub fn every(endpoint: &str, fault: Fault) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            provider: None,
            client_id: None,
            grant_type: None,
            user: None,
            skip: 0,
            times: None,
            probability: always(),
            after_work: false,
            fault,
        }
    }

    /// The same, with the work done first.
    #[must_use]
    pub fn after_work(self) -> Self {
        Self {
            after_work: true,
            ..self
        }
    }

    fn meets(&self, call: &CallFacts) -> bool {
        let endpoint = self.endpoint == "*"
            || call
                .endpoint
                .strip_prefix(&self.endpoint)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let same = |wanted: &Option<String>, is: Option<&String>| {
            wanted.is_none() || wanted.as_ref() == is
        };
        endpoint
            && same(&self.provider, Some(&call.provider))
            && same(&self.client_id, call.client_id.as_ref())
            && same(&self.grant_type, call.grant_type.as_ref())
            && same(&self.user, call.user.as_ref())
    }
}

impl Fault {
    /// What counters call it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Delay { .. } => "delay",
            Self::Drop => "drop",
            Self::CutBody { .. } => "cut_body",
            Self::RateLimited { .. } => "rate_limited",
            Self::Status { .. } => "status",
            Self::OauthError { .. } => "oauth_error",
            Self::ErrorIn200 { .. } => "error_in_200",
            Self::Malformed { .. } => "malformed",
            Self::Answer { .. } => "answer",
        }
    }
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            next_id: 1,
            active: Vec::new(),
            skipped: BTreeMap::new(),
            dice: Sequence::named(seed, &["faults"]),
        }
    }

    pub(crate) fn inject(&mut self, rule: FaultRule) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.active.push(ActiveFault { id, met: 0, rule });
        id
    }

    pub(crate) fn remove(&mut self, id: u64) -> bool {
        let before = self.active.len();
        self.active.retain(|active| active.id != id);
        self.active.len() < before
    }

    pub(crate) fn clear(&mut self) {
        self.active.clear();
        self.skipped.clear();
    }

    pub(crate) fn active(&self) -> Vec<ActiveFault> {
        self.active.clone()
    }

    /// The first rule that meets this call, counted.
    pub(crate) fn strike(&mut self, call: &CallFacts) -> Option<Struck> {
        for active in &mut self.active {
            let rule = &active.rule;
            if !rule.meets(call) || rule.times.is_some_and(|times| active.met >= times) {
                continue;
            }
            let skipped = self.skipped.entry(active.id).or_default();
            if *skipped < rule.skip {
                *skipped += 1;
                continue;
            }
            if !self.dice.happens(rule.probability) {
                continue;
            }
            active.met += 1;
            return Some(Struck {
                fault: rule.fault.clone(),
                after_work: rule.after_work,
            });
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(endpoint: &'static str) -> CallFacts {
        CallFacts {
            endpoint,
            provider: "procore".to_owned(),
            ..CallFacts::default()
        }
    }

    #[test]
    fn a_group_meets_its_members_and_nothing_that_begins_alike() {
        let rule = FaultRule::every("api.procore", Fault::Drop);
        assert!(rule.meets(&call("api.procore.projects")));
        assert!(rule.meets(&call("api.procore")));
        assert!(!rule.meets(&call("api.procorex")));
        assert!(!rule.meets(&call("api")));
        assert!(FaultRule::every("*", Fault::Drop).meets(&call("token")));
    }

    #[test]
    fn a_rule_skips_strikes_and_ends() {
        let mut faults = Faults::new(1);
        faults.inject(FaultRule {
            skip: 2,
            times: Some(2),
            ..FaultRule::every("token", Fault::Drop)
        });
        let struck: Vec<bool> = (0..6)
            .map(|_| faults.strike(&call("token")).is_some())
            .collect();
        assert_eq!(struck, [false, false, true, true, false, false]);
        assert_eq!(faults.active()[0].met, 2);
    }

    #[test]
    fn a_probability_is_kept_and_the_same_in_every_run() {
        let run = || {
            let mut faults = Faults::new(7);
            faults.inject(FaultRule {
                probability: 0.05,
                ..FaultRule::every("api", Fault::Drop)
            });
            (0..10_000)
                .filter(|_| faults.strike(&call("api.me")).is_some())
                .count()
        };
        let struck = run();
        assert!((400..600).contains(&struck), "{struck} of 10000 at 5 %");
        assert_eq!(struck, run());
    }

    #[test]
    fn every_kind_has_its_json() {
        for json in [
            r#"{"kind":"delay","millis":50}"#,
            r#"{"kind":"drop"}"#,
            r#"{"kind":"cut_body"}"#,
            r#"{"kind":"rate_limited","headers":"procore","seconds":30}"#,
            r#"{"kind":"status","status":503,"retry_after_seconds":2}"#,
            r#"{"kind":"oauth_error","error":"invalid_grant"}"#,
            r#"{"kind":"error_in_200","shape":"slack"}"#,
            r#"{"kind":"malformed","body":"html"}"#,
            r#"{"kind":"answer","status":418,"body":"short and stout"}"#,
        ] {
            let fault: Fault =
                serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"));
            let _ = fault.name();
        }
    }
}
