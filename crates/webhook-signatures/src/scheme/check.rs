//! What has to hold in a scheme beyond its form.

use std::time::Duration;

use super::{Scheme, SignatureVerifier, Source, Verifier};
use crate::template::Part;

/// The largest body that any scheme may allow.
const MAX_BODY: usize = 32 * 1024 * 1024;

impl Scheme {
    /// All that is wrong, at once.
    pub(super) fn problems(&self) -> Vec<&'static str> {
        let mut problems = Vec::new();
        let mut check = |good: bool, problem| {
            if !good {
                problems.push(problem);
            }
        };
        let mut letters = self.key.bytes();
        check(
            !self.key.is_empty()
                && letters.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
            "key is lower-case letters, digits and hyphens",
        );
        check(!self.display_name.is_empty(), "display_name is missing");
        check(
            self.docs_url.starts_with("https://"),
            "docs_url is no https address",
        );
        check(!self.setup.trim().is_empty(), "setup is missing");
        check(
            (1..=MAX_BODY).contains(&self.max_body),
            "max_body is 1 byte to 32 MiB",
        );
        check(
            !self.response_deadline.is_zero(),
            "response_deadline is zero",
        );
        check(
            self.response.status.is_success(),
            "response.status is no 2xx",
        );
        check(
            self.routing_keys
                .keys()
                .all(|name| is_routing_key_name(name)),
            "a routing key is named badly",
        );
        let Verifier::Signature(verifier) = &self.verifier;
        verifier.check(&mut check);
        let ids = self
            .event_id
            .iter()
            .chain(&self.event_type)
            .chain(self.routing_keys.values().flatten());
        check(
            verifier.headers.iter().all(|set| set.id.is_some())
                || !ids.into_iter().any(|s| *s == Source::Id),
            "a source is `id`, and a set of headers has none",
        );
        problems
    }
}

impl SignatureVerifier {
    fn check(&self, check: &mut impl FnMut(bool, &'static str)) {
        check(!self.headers.is_empty(), "verifier.headers is empty");
        check(!self.methods.is_empty(), "verifier.methods is empty");
        check(
            self.content.count(&Part::Body) == 1,
            "content does not have {body} once",
        );
        check(self.content.count(&Part::Id) <= 1, "content has {id} twice");
        check(
            self.content.count(&Part::Timestamp) <= 1,
            "content has {timestamp} twice",
        );
        check(
            self.content.count(&Part::Id) == 0 || self.headers.iter().all(|set| set.id.is_some()),
            "content has {id}, and a set of headers has none",
        );
        check(
            self.headers
                .iter()
                .all(|set| set.timestamp.is_some() == self.timestamp.is_some()),
            "a timestamp needs its format and its header in each set",
        );
        check(
            self.content.count(&Part::Timestamp) == 0 || self.timestamp.is_some(),
            "content has {timestamp}, and there is no timestamp",
        );
        check(
            self.timestamp
                .is_none_or(|timestamp| is_tolerance(timestamp.tolerance)),
            "timestamp.tolerance is 10 s to 1 h",
        );
        check(
            self.methods
                .iter()
                .all(|method| method.algorithm.takes_key_of(method.secret.min_bytes)),
            "secret.min_bytes does not fit the algorithm",
        );
        check(
            self.methods
                .iter()
                .all(|method| !method.secret.prefix_required || !method.secret.prefix.is_empty()),
            "secret.prefix_required needs a prefix",
        );
    }
}

/// A name that events and connections share, `account` or `channel`.
pub(crate) fn is_routing_key_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

pub(crate) fn is_tolerance(tolerance: Duration) -> bool {
    (Duration::from_secs(10)..=Duration::from_hours(1)).contains(&tolerance)
}
