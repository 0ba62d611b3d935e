//! An API key: for callers that come without a client certificate.
//!
//! A key is known by its secret, `hk_` and 256 random bits, of which only the SHA-256 is kept; so much randomness needs
//! no slow hash. A rotation gives it another secret and leaves the one before good for a while.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use common::{Deps, Secret, TenantKey};
use time::OffsetDateTime;
use uuid::Uuid;

/// What every key's secret begins with.
pub const SECRET_PREFIX: &str = "hk_";
/// As many of its first characters are kept, to tell keys apart.
const SHOWN: usize = 11;
/// An answer about a key may be kept no longer than this.
const LONGEST_CACHE: Duration = Duration::from_secs(30);
/// How exact [`ApiKey::last_used_at`] is.
const USE_NOTED_EVERY: time::Duration = time::Duration::MINUTE;

/// A key, as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Its id.
    pub id: Uuid,
    /// What people call it.
    pub display_name: String,
    /// The tenants that it reaches; empty for every one.
    pub tenants: Vec<TenantKey>,
    /// The policy's name of what it may call.
    pub role: String,
    /// The first characters of its present secret.
    pub prefix: String,
    /// When it ends.
    pub expires_at: OffsetDateTime,
    /// To the minute.
    pub last_used_at: Option<OffsetDateTime>,
    /// Since when it is refused.
    pub revoked_at: Option<OffsetDateTime>,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// A secret, and what is kept of it.
#[derive(Debug)]
pub struct NewSecret {
    /// Shown once.
    pub secret: Secret<String>,
    /// Kept.
    pub hash: SecretHash,
    /// Kept, and shown with the key.
    pub prefix: String,
}

/// The SHA-256 of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretHash([u8; 32]);

impl NewSecret {
    /// A new one.
    pub fn generate(deps: &Deps) -> Self {
        let secret = deps.token(SECRET_PREFIX);
        let prefix = secret.expose().chars().take(SHOWN).collect();
        Self {
            hash: SecretHash::of(&secret),
            prefix,
            secret,
        }
    }
}

impl SecretHash {
    /// Of this secret.
    pub fn of(secret: &Secret<String>) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, secret.expose().as_bytes()).as_ref());
        Self(hash)
    }

    pub(crate) fn from_stored(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bucket in which it is looked up.
    pub fn bucket(&self) -> i16 {
        i16::from(self.0[0])
    }

    /// As it is stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl ApiKey {
    /// Whether it opens anything; `good_until` is the end of the secret that was shown, where a rotation has set one.
    pub fn is_good(&self, good_until: Option<OffsetDateTime>, now: OffsetDateTime) -> bool {
        self.revoked_at.is_none() && self.end(good_until) > now
    }

    /// How long an answer about it may be kept: never past its end.
    pub fn cache_for(&self, good_until: Option<OffsetDateTime>, now: OffsetDateTime) -> Duration {
        let left = Duration::try_from(self.end(good_until) - now).unwrap_or_default();
        left.min(LONGEST_CACHE)
    }

    /// Whether a use now is to be written down: once a minute at most.
    pub fn use_is_news(&self, now: OffsetDateTime) -> bool {
        self.last_used_at
            .is_none_or(|noted| now - noted >= USE_NOTED_EVERY)
    }

    /// Its resource name, as audit events have it.
    pub fn resource(&self) -> String {
        format!("api_keys/{}", self.id)
    }

    fn end(&self, good_until: Option<OffsetDateTime>) -> OffsetDateTime {
        good_until.map_or(self.expires_at, |until| until.min(self.expires_at))
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);

    fn key() -> ApiKey {
        ApiKey {
            id: TenantKey::PLATFORM.new_id(&Deps::system("test")),
            display_name: "app".into(),
            tenants: Vec::new(),
            role: "host".into(),
            prefix: "hk_abcdefgh".into(),
            expires_at: NOW + time::Duration::HOUR,
            last_used_at: None,
            revoked_at: None,
            created_at: NOW,
        }
    }

    #[test]
    fn a_secret_has_256_bits_and_is_known_by_its_hash() {
        let new = NewSecret::generate(&Deps::system("test"));
        let text = new.secret.expose();
        assert_eq!(text.len(), 3 + 43);
        assert!(text.starts_with(&new.prefix) && new.prefix.len() == SHOWN);
        assert_eq!(SecretHash::of(&Secret::from(text.as_str())), new.hash);
    }

    #[test]
    fn no_answer_outlives_the_key_or_the_secret() {
        let key = key();
        assert_eq!(key.cache_for(None, NOW), LONGEST_CACHE);
        assert_eq!(
            key.cache_for(None, key.expires_at - time::Duration::seconds(7)),
            Duration::from_secs(7)
        );
        assert_eq!(
            key.cache_for(None, key.expires_at + time::Duration::DAY),
            Duration::ZERO
        );
        let rotated = Some(NOW + time::Duration::seconds(3));
        assert_eq!(key.cache_for(rotated, NOW), Duration::from_secs(3));
        assert!(
            key.is_good(rotated, NOW) && !key.is_good(rotated, NOW + time::Duration::seconds(3))
        );
        assert!(key.is_good(None, NOW) && !key.is_good(None, key.expires_at));
        assert!(
            !ApiKey {
                revoked_at: Some(NOW),
                ..key
            }
            .is_good(None, NOW)
        );
    }

    #[test]
    fn a_use_is_noted_once_a_minute() {
        let key = key();
        assert!(key.use_is_news(NOW));
        let used = ApiKey {
            last_used_at: Some(NOW),
            ..key
        };
        assert!(!used.use_is_news(NOW + time::Duration::seconds(59)));
        assert!(used.use_is_news(NOW + time::Duration::MINUTE));
    }
}
