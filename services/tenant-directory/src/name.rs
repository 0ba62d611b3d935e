//! Names that are unique over all tenants.
//!
//! Such a name lives in a bucket of its own, by its hash; the tenant that has it lives in another, and no transaction
//! spans the two. So a name is *reserved* under a claim, then *used* by the transaction that writes it into the tenant's
//! row, then *confirmed*. What becomes of a claim is decided once, by an insert into the tenant's bucket: `used` by the
//! tenant's transaction, or `refused` by whoever finds the reservation left alone. Whichever comes first stands. A decided
//! claim is remembered for 30 days after its end, so that nobody who has slept meanwhile uses it again.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use common::TenantKey;
use uuid::Uuid;

/// What a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NameKind {
    /// The first label of the tenant's host name.
    Subdomain,
    /// The tenant's id in the system that calls Hawser.
    ExternalId,
    /// The customer's id at the billing provider.
    BillingCustomerId,
}

/// A name of some kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    /// What it is.
    pub kind: NameKind,
    /// The name.
    pub name: String,
}

/// A tenant's hold on a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// On which name.
    pub name: Name,
    /// Whose.
    pub tenant: TenantKey,
    /// Tells it from earlier and later holds on the same name.
    pub claim_id: Uuid,
}

/// What has become of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The tenant has the name.
    Used,
    /// It had it, and gave it up; the name is to be freed.
    Released,
    /// It had it, and the name is free again.
    Freed,
    /// It never got it.
    Refused,
}

impl NameKind {
    /// As it is stored, and as the field is called.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Subdomain => "subdomain",
            Self::ExternalId => "external_id",
            Self::BillingCustomerId => "billing_customer_id",
        }
    }

    pub(crate) fn from_stored(text: &str) -> Option<Self> {
        [Self::Subdomain, Self::ExternalId, Self::BillingCustomerId]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

impl Name {
    /// A name of this kind.
    pub fn new(kind: NameKind, name: impl Into<String>) -> Self {
        Self {
            kind,
            name: name.into(),
        }
    }

    /// The bucket that it lives in.
    pub fn bucket(&self) -> i16 {
        hash_bucket(&[self.kind.as_str(), &self.name])
    }
}

impl Verdict {
    /// As it is stored.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Used => "used",
            Self::Released => "released",
            Self::Freed => "freed",
            Self::Refused => "refused",
        }
    }

    pub(crate) fn from_stored(text: &str) -> Option<Self> {
        [Self::Used, Self::Released, Self::Freed, Self::Refused]
            .into_iter()
            .find(|verdict| verdict.as_str() == text)
    }
}

impl fmt::Display for NameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One of the shared buckets, by the hash of `parts`.
pub(crate) fn hash_bucket(parts: &[&str]) -> i16 {
    let bytes = parts.join("\0");
    i16::from(digest(&SHA256, bytes.as_bytes()).as_ref()[0])
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_spread_over_the_shared_buckets() {
        let buckets: HashSet<_> = (0..2_000)
            .map(|n| Name::new(NameKind::Subdomain, format!("tenant{n}")).bucket())
            .collect();
        assert!(buckets.len() > 250);
        assert!(buckets.iter().all(|bucket| (0..256).contains(bucket)));
    }

    #[test]
    fn a_name_keeps_its_bucket() {
        // Rows lie where these numbers say; they cannot change.
        assert_eq!(Name::new(NameKind::Subdomain, "acme").bucket(), 149);
        assert_eq!(Name::new(NameKind::ExternalId, "acme").bucket(), 68);
    }
}
