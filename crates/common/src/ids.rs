//! Tenants' ids, and the bucket that every id carries.
//!
//! A tenant's id is a UUIDv7 (RFC 9562, section 5.7) whose last two bytes are its bucket. Every id that is made for the
//! tenant ends with them too, so the bucket, by which all tables are sharded, never has to be looked up.

use std::fmt;
use std::str::FromStr;

use uuid::{Builder, Uuid};

use crate::Deps;

/// Tenants are dealt over this many buckets; higher ones are for tenants with a shard of their own.
pub const SHARED_BUCKETS: u16 = 256;

/// A tenant's id together with its bucket, the key that every statement on tenant data begins with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantKey(Uuid);

/// The text is not an id of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id that Hawser made: a UUID of version 7 is expected")]
pub struct InvalidId;

impl TenantKey {
    /// The platform itself, owner of the integrations, sources, and destinations that serve every tenant.
    pub const PLATFORM: Self = Self(Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_7fff));

    /// The key of a tenant whose id is known to be one.
    ///
    /// # Errors
    /// [`InvalidId`] where it is no UUIDv7, or its bucket is out of range.
    pub fn from_id(id: Uuid) -> Result<Self, InvalidId> {
        let bucket = u16::from_be_bytes([id.as_bytes()[14], id.as_bytes()[15]]);
        if id.get_version_num() == 7 && i16::try_from(bucket).is_ok() {
            Ok(Self(id))
        } else {
            Err(InvalidId)
        }
    }

    /// Reads the id from its text form.
    ///
    /// # Errors
    /// [`InvalidId`] where it is none.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        text.parse().map_err(|_| InvalidId).and_then(Self::from_id)
    }

    /// A new tenant in a bucket that is shared with others.
    pub fn new_tenant(deps: &Deps) -> Self {
        let bucket = u16::from_be_bytes(deps.random()) % SHARED_BUCKETS;
        Self(new_uuid(deps, bucket))
    }

    /// The tenant's id.
    pub fn id(&self) -> Uuid {
        self.0
    }

    /// The tenant's bucket.
    pub fn bucket(&self) -> i16 {
        bucket_of(self.0)
    }

    /// A new id for something of this tenant's.
    pub fn new_id(&self, deps: &Deps) -> Uuid {
        new_uuid(deps, self.bucket() as u16)
    }

    /// Whether `id` was made for a tenant of this one's bucket.
    pub fn shares_bucket_with(&self, id: Uuid) -> bool {
        bucket_of(id) == self.bucket()
    }

    /// Whether this is [`TenantKey::PLATFORM`].
    pub fn is_platform(&self) -> bool {
        *self == Self::PLATFORM
    }
}

/// The bucket that an id ends with.
pub fn bucket_of(id: Uuid) -> i16 {
    i16::from_be_bytes([id.as_bytes()[14], id.as_bytes()[15]])
}

fn new_uuid(deps: &Deps, bucket: u16) -> Uuid {
    let millis = (deps.now().unix_timestamp_nanos() / 1_000_000) as u64;
    let mut random: [u8; 10] = deps.random();
    random[8..].copy_from_slice(&bucket.to_be_bytes());
    Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

impl fmt::Display for TenantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TenantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TenantKey({})", self.0)
    }
}

impl FromStr for TenantKey {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_carry_the_bucket_of_their_tenant() {
        let deps = Deps::system("test");
        for _ in 0..1_000 {
            let tenant = TenantKey::new_tenant(&deps);
            let id = tenant.new_id(&deps);
            assert!((0..256).contains(&tenant.bucket()));
            assert_eq!(bucket_of(id), tenant.bucket());
            assert_eq!(id.get_version_num(), 7);
            assert_eq!(TenantKey::parse(&tenant.to_string()), Ok(tenant));
        }
    }

    #[test]
    fn the_platform_has_a_bucket_of_its_own() {
        assert_eq!(
            TenantKey::from_id(TenantKey::PLATFORM.id()),
            Ok(TenantKey::PLATFORM)
        );
        assert_eq!(TenantKey::PLATFORM.bucket(), i16::MAX);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "acme",
            "00000000-0000-4000-8000-000000000000",
            "0190a000-0000-7000-8000-00000000ffff",
        ] {
            assert_eq!(TenantKey::parse(text), Err(InvalidId), "{text}");
        }
    }
}
