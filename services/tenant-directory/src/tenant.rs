//! A tenant: a customer of the platform.

use common::TenantKey;
use time::OffsetDateTime;

use crate::name::{Name, NameKind};
use crate::subdomain::Subdomain;

/// A tenant, as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Tenant {
    /// Id and bucket.
    pub key: TenantKey,
    /// What it was given.
    pub profile: Profile,
    /// Where it is in its life.
    pub state: State,
    /// How far its deletion is; empty before.
    pub deletion: String,
    /// Goes up by one with every change.
    pub revision: i64,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it last changed.
    pub updated_at: OffsetDateTime,
}

/// What a tenant is given by whoever creates or updates it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// Its name for people.
    pub company_name: String,
    /// Its id in the system that calls Hawser.
    pub external_id: Option<String>,
    /// The first label of its host name.
    pub subdomain: Option<Subdomain>,
    /// What it has subscribed to.
    pub subscription: Subscription,
    /// What it may use.
    pub quotas: Quotas,
    /// Whom its users should ask: an address or a link.
    pub support_contact: String,
    /// Its logo.
    pub logo_url: String,
    /// Origins that its connect pages may return to and be embedded in.
    pub allowed_origins: Vec<String>,
}

/// What a tenant has subscribed to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subscription {
    /// How much.
    pub tier: Tier,
    /// Whether it is paid for.
    pub status: Status,
    /// When the trial ends; never, where it is not set.
    pub trial_ends_at: Option<OffsetDateTime>,
    /// The customer's id at the billing provider.
    pub billing_customer_id: Option<String>,
}

/// What a tenant may use; 0 stands for the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Documents that a user may bring in per day; 0 for no limit.
    pub documents_per_user_per_day: i64,
    /// Connections that it may hold; 0 for no limit.
    pub connections: i64,
    /// Days that an initial sync may reach back.
    pub max_backfill_days: i32,
    /// Its share when jobs of many tenants wait.
    pub sync_weight: i32,
}

/// How much a tenant has subscribed to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Tier {
    #[default]
    Starter,
    Professional,
    Enterprise,
}

/// Whether a subscription is paid for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Status {
    #[default]
    Trial,
    Active,
    PastDue,
    Cancelled,
}

/// Where a tenant is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// In use.
    Active,
    /// Reads go on; nothing new is connected, synced or delivered.
    Suspended,
    /// On its way out of every service.
    Deleting,
    /// Gone; what is left says that it was there.
    Deleted,
}

/// A tenant does not go from one state to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a tenant that is {} cannot become {}", from.as_str(), to.as_str())]
pub struct TransitionError {
    /// What it is.
    pub from: State,
    /// What it was to be.
    pub to: State,
}

/// What an update sets; `None` leaves a field as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TenantChanges {
    /// See [`Profile::company_name`].
    pub company_name: Option<String>,
    /// See [`Profile::external_id`].
    pub external_id: Option<Option<String>>,
    /// See [`Profile::subdomain`].
    pub subdomain: Option<Option<Subdomain>>,
    /// See [`Subscription::tier`].
    pub tier: Option<Tier>,
    /// See [`Subscription::status`].
    pub status: Option<Status>,
    /// See [`Subscription::trial_ends_at`].
    pub trial_ends_at: Option<Option<OffsetDateTime>>,
    /// See [`Subscription::billing_customer_id`].
    pub billing_customer_id: Option<Option<String>>,
    /// See [`Quotas::documents_per_user_per_day`].
    pub documents_per_user_per_day: Option<i64>,
    /// See [`Quotas::connections`].
    pub connections: Option<i64>,
    /// See [`Quotas::max_backfill_days`].
    pub max_backfill_days: Option<i32>,
    /// See [`Quotas::sync_weight`].
    pub sync_weight: Option<i32>,
    /// See [`Profile::support_contact`].
    pub support_contact: Option<String>,
    /// See [`Profile::logo_url`].
    pub logo_url: Option<String>,
    /// See [`Profile::allowed_origins`].
    pub allowed_origins: Option<Vec<String>>,
    /// Suspends, or resumes.
    pub state: Option<State>,
}

const DEFAULT_BACKFILL_DAYS: i32 = 365;
const DEFAULT_SYNC_WEIGHT: i32 = 1;

impl Tenant {
    /// A new one, active. One without a name is called by its external id.
    pub fn new(key: TenantKey, mut profile: Profile, now: OffsetDateTime) -> Self {
        if profile.company_name.is_empty() {
            profile.company_name = profile.external_id.clone().unwrap_or_default();
        }
        Self {
            key,
            profile,
            state: State::Active,
            deletion: String::new(),
            revision: 1,
            created_at: now,
            updated_at: now,
        }
    }

    /// The tenant after these changes; `None` where they change nothing.
    ///
    /// # Errors
    /// [`TransitionError`] where they ask for a state that cannot be had.
    pub fn changed(
        &self,
        changes: &TenantChanges,
        now: OffsetDateTime,
    ) -> Result<Option<Self>, TransitionError> {
        if self.is_ending() {
            return Err(TransitionError {
                from: self.state,
                to: changes.state.unwrap_or(self.state),
            });
        }
        let mut next = self.clone();
        changes.apply_to(&mut next.profile);
        if let Some(to) = changes.state {
            next.state = self.state.changed_to(to)?;
        }
        Ok((next != *self).then(|| next.revised(now)))
    }

    /// The tenant once its deletion was asked for.
    #[must_use]
    pub fn deleting(&self, now: OffsetDateTime) -> Self {
        Self {
            state: State::Deleting,
            ..self.clone()
        }
        .revised(now)
    }

    /// What is left of it in the end: that it was there, under which name, and how it ended.
    #[must_use]
    pub fn deleted(&self, now: OffsetDateTime) -> Self {
        let profile = Profile {
            company_name: self.profile.company_name.clone(),
            ..Profile::default()
        };
        Self {
            state: State::Deleted,
            profile,
            ..self.clone()
        }
        .revised(now)
    }

    /// The same with the next revision.
    #[must_use]
    pub fn revised(self, now: OffsetDateTime) -> Self {
        Self {
            revision: self.revision + 1,
            updated_at: now,
            ..self
        }
    }

    /// Whether its deletion was asked for, or is over.
    pub fn is_ending(&self) -> bool {
        matches!(self.state, State::Deleting | State::Deleted)
    }

    /// What must be repeated to delete it: its subdomain, or its id where it has none.
    pub fn confirmation(&self) -> String {
        self.profile
            .subdomain
            .as_ref()
            .map_or_else(|| self.key.to_string(), ToString::to_string)
    }

    /// What a search looks at.
    pub fn search_text(&self) -> String {
        let subdomain = self
            .profile
            .subdomain
            .as_ref()
            .map_or("", Subdomain::as_str);
        let external_id = self.profile.external_id.as_deref().unwrap_or_default();
        format!("{}\n{subdomain}\n{external_id}", self.profile.company_name).to_lowercase()
    }
}

impl Profile {
    /// The names in it that are unique over all tenants.
    pub fn names(&self) -> Vec<Name> {
        let subdomain = self.subdomain.as_ref().map(ToString::to_string);
        [
            (NameKind::Subdomain, subdomain),
            (NameKind::ExternalId, self.external_id.clone()),
            (
                NameKind::BillingCustomerId,
                self.subscription.billing_customer_id.clone(),
            ),
        ]
        .into_iter()
        .filter_map(|(kind, name)| Some(Name::new(kind, name?)))
        .collect()
    }

    /// The name of this kind.
    pub fn name(&self, kind: NameKind) -> Option<Name> {
        self.names().into_iter().find(|name| name.kind == kind)
    }
}

impl Subscription {
    /// A trial whose end has passed.
    pub fn trial_ended(&self, now: OffsetDateTime) -> bool {
        self.status == Status::Trial && self.trial_ends_at.is_some_and(|end| end <= now)
    }

    /// Active, or in a trial that has not ended.
    pub fn usable(&self, now: OffsetDateTime) -> bool {
        match self.status {
            Status::Active => true,
            Status::Trial => !self.trial_ended(now),
            Status::PastDue | Status::Cancelled => false,
        }
    }
}

impl Quotas {
    /// With the defaults in place of what is not set.
    #[must_use]
    pub fn effective(&self) -> Self {
        let or = |value: i32, default: i32| if value == 0 { default } else { value };
        Self {
            max_backfill_days: or(self.max_backfill_days, DEFAULT_BACKFILL_DAYS),
            sync_weight: or(self.sync_weight, DEFAULT_SYNC_WEIGHT),
            ..self.clone()
        }
    }
}

impl TenantChanges {
    /// The names that would be had afterwards, of those that are changed.
    pub fn names(&self) -> Vec<Name> {
        let mut profile = Profile::default();
        self.apply_to(&mut profile);
        profile.names()
    }

    /// Whether only what a tenant's own administrators may change is changed.
    pub fn is_own_affair(&self) -> bool {
        let others = Self {
            company_name: None,
            support_contact: None,
            logo_url: None,
            allowed_origins: None,
            ..self.clone()
        };
        others == Self::default()
    }

    fn apply_to(&self, profile: &mut Profile) {
        set(&mut profile.company_name, self.company_name.as_ref());
        set(&mut profile.external_id, self.external_id.as_ref());
        set(&mut profile.subdomain, self.subdomain.as_ref());
        set(&mut profile.subscription.tier, self.tier.as_ref());
        set(&mut profile.subscription.status, self.status.as_ref());
        set(
            &mut profile.subscription.trial_ends_at,
            self.trial_ends_at.as_ref(),
        );
        set(
            &mut profile.subscription.billing_customer_id,
            self.billing_customer_id.as_ref(),
        );
        set(
            &mut profile.quotas.documents_per_user_per_day,
            self.documents_per_user_per_day.as_ref(),
        );
        set(&mut profile.quotas.connections, self.connections.as_ref());
        set(
            &mut profile.quotas.max_backfill_days,
            self.max_backfill_days.as_ref(),
        );
        set(&mut profile.quotas.sync_weight, self.sync_weight.as_ref());
        set(&mut profile.support_contact, self.support_contact.as_ref());
        set(&mut profile.logo_url, self.logo_url.as_ref());
        set(&mut profile.allowed_origins, self.allowed_origins.as_ref());
    }
}

fn set<T: Clone>(field: &mut T, value: Option<&T>) {
    if let Some(value) = value {
        field.clone_from(value);
    }
}

impl State {
    const ALL: [Self; 4] = [Self::Active, Self::Suspended, Self::Deleting, Self::Deleted];

    /// By an update: to and fro between active and suspended.
    fn changed_to(self, to: Self) -> Result<Self, TransitionError> {
        match (self, to) {
            (Self::Active | Self::Suspended, Self::Active | Self::Suspended) => Ok(to),
            (from, to) => Err(TransitionError { from, to }),
        }
    }

    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
        }
    }

    pub(crate) fn from_stored(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

impl Tier {
    const ALL: [Self; 3] = [Self::Starter, Self::Professional, Self::Enterprise];

    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starter => "starter",
            Self::Professional => "professional",
            Self::Enterprise => "enterprise",
        }
    }

    pub(crate) fn from_stored(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.as_str() == text)
    }
}

impl Status {
    const ALL: [Self; 4] = [Self::Trial, Self::Active, Self::PastDue, Self::Cancelled];

    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trial => "trial",
            Self::Active => "active",
            Self::PastDue => "past_due",
            Self::Cancelled => "cancelled",
        }
    }

    pub(crate) fn from_stored(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    use common::Deps;
    use time::Duration;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);

    fn tenant() -> Tenant {
        let profile = Profile {
            company_name: "Acme".into(),
            ..Profile::default()
        };
        Tenant::new(TenantKey::new_tenant(&Deps::system("test")), profile, NOW)
    }

    #[test]
    fn req_salesboard_01_a_trial_is_usable_until_its_end() {
        let subscription = |status, trial_ends_at| Subscription {
            status,
            trial_ends_at,
            ..Subscription::default()
        };
        let (before, after) = (NOW - Duration::seconds(1), NOW + Duration::seconds(1));
        let cases = [
            (Status::Trial, None, true, false),
            (Status::Trial, Some(after), true, false),
            (Status::Trial, Some(NOW), false, true),
            (Status::Trial, Some(before), false, true),
            (Status::Active, Some(before), true, false),
            (Status::PastDue, Some(after), false, false),
            (Status::Cancelled, None, false, false),
        ];
        for (status, end, usable, ended) in cases {
            let subscription = subscription(status, end);
            assert_eq!(
                (subscription.usable(NOW), subscription.trial_ended(NOW)),
                (usable, ended),
                "{subscription:?}"
            );
        }
    }

    #[test]
    fn an_update_that_changes_nothing_keeps_the_revision() {
        let tenant = tenant();
        let same = TenantChanges {
            company_name: Some("Acme".into()),
            ..TenantChanges::default()
        };
        assert_eq!(tenant.changed(&same, NOW), Ok(None));
        let other = TenantChanges {
            company_name: Some("Emca".into()),
            ..TenantChanges::default()
        };
        let changed = tenant
            .changed(&other, NOW + Duration::DAY)
            .expect("it may be renamed")
            .expect("it is another name");
        assert_eq!(
            (changed.revision, changed.updated_at),
            (2, NOW + Duration::DAY)
        );
        assert_eq!(changed.profile.company_name, "Emca");
    }

    #[test]
    fn an_update_suspends_and_resumes_and_never_deletes() {
        let to = |state| TenantChanges {
            state: Some(state),
            ..TenantChanges::default()
        };
        let suspended = tenant()
            .changed(&to(State::Suspended), NOW)
            .expect("it may be")
            .expect("it was active");
        assert_eq!(suspended.state, State::Suspended);
        assert!(suspended.changed(&to(State::Active), NOW).is_ok());
        for state in [State::Deleting, State::Deleted] {
            assert_eq!(
                suspended.changed(&to(state), NOW),
                Err(TransitionError {
                    from: State::Suspended,
                    to: state
                })
            );
        }
        let deleting = suspended.deleting(NOW);
        assert!(deleting.changed(&to(State::Active), NOW).is_err());
        assert!(deleting.changed(&TenantChanges::default(), NOW).is_err());
    }

    #[test]
    fn nothing_but_the_name_is_left_of_a_deleted_tenant() {
        let mut tenant = tenant();
        tenant.profile.support_contact = "help@acme.test".into();
        tenant.profile.external_id = Some("42".into());
        let deleted = tenant.deleting(NOW).deleted(NOW);
        assert_eq!(
            deleted.profile,
            Profile {
                company_name: "Acme".into(),
                ..Profile::default()
            }
        );
        assert_eq!((deleted.state, deleted.revision), (State::Deleted, 3));
    }

    #[test]
    fn quotas_have_defaults() {
        let effective = Quotas::default().effective();
        assert_eq!(
            (effective.max_backfill_days, effective.sync_weight),
            (365, 1)
        );
        assert_eq!(
            (effective.connections, effective.documents_per_user_per_day),
            (0, 0)
        );
    }
}
