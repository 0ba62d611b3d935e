//! A tenant's user.

use std::collections::BTreeMap;

use common::TenantKey;
use time::OffsetDateTime;

use crate::email::Email;

/// A user, as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    /// Whose user it is.
    pub tenant: TenantKey,
    /// Its id in the system that calls Hawser; unique within the tenant.
    pub user_id: String,
    /// Unique within the tenant, where set.
    pub email: Option<Email>,
    /// Its first name.
    pub first_name: String,
    /// Its last name.
    pub last_name: String,
    /// `admin` administers the tenant; others are the host application's own.
    pub roles: Vec<String>,
    /// Its ids at providers, by provider key.
    pub external_user_ids: BTreeMap<String, String>,
    /// Its profile at the provider and the like, as JSON; empty where there is none.
    pub profile_json: String,
    /// When it last signed in.
    pub last_login_at: Option<OffsetDateTime>,
    /// Goes up by one with every change other than a sign-in.
    pub revision: i64,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it last changed.
    pub updated_at: OffsetDateTime,
}

/// What an update sets; `None` leaves a field as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserChanges {
    /// See [`User::email`].
    pub email: Option<Option<Email>>,
    /// See [`User::first_name`].
    pub first_name: Option<String>,
    /// See [`User::last_name`].
    pub last_name: Option<String>,
    /// See [`User::roles`].
    pub roles: Option<Vec<String>>,
    /// See [`User::external_user_ids`].
    pub external_user_ids: Option<ExternalIdsChange>,
    /// See [`User::profile_json`].
    pub profile_json: Option<String>,
}

/// What becomes of a user's ids at providers.
#[derive(Clone, Debug, PartialEq)]
pub enum ExternalIdsChange {
    /// These and no others.
    Replace(BTreeMap<String, String>),
    /// Those that are named are set, or removed where nothing is given; others stay.
    Each(BTreeMap<String, Option<String>>),
}

impl User {
    /// A new one, with nothing but its id.
    pub fn new(tenant: TenantKey, user_id: &str, now: OffsetDateTime) -> Self {
        Self {
            tenant,
            user_id: user_id.to_owned(),
            email: None,
            first_name: String::new(),
            last_name: String::new(),
            roles: Vec::new(),
            external_user_ids: BTreeMap::new(),
            profile_json: String::new(),
            last_login_at: None,
            revision: 1,
            created_at: now,
            updated_at: now,
        }
    }

    /// The user after these changes, at the same revision.
    #[must_use]
    pub fn with(mut self, changes: &UserChanges) -> Self {
        if let Some(email) = &changes.email {
            self.email.clone_from(email);
        }
        if let Some(first_name) = &changes.first_name {
            self.first_name.clone_from(first_name);
        }
        if let Some(last_name) = &changes.last_name {
            self.last_name.clone_from(last_name);
        }
        if let Some(roles) = &changes.roles {
            self.roles.clone_from(roles);
        }
        if let Some(profile_json) = &changes.profile_json {
            self.profile_json.clone_from(profile_json);
        }
        match &changes.external_user_ids {
            None => {}
            Some(ExternalIdsChange::Replace(ids)) => self.external_user_ids.clone_from(ids),
            Some(ExternalIdsChange::Each(ids)) => {
                for (provider, id) in ids {
                    match id {
                        Some(id) => self.external_user_ids.insert(provider.clone(), id.clone()),
                        None => self.external_user_ids.remove(provider),
                    };
                }
            }
        }
        self
    }

    /// The user after these changes; `None` where they change nothing.
    pub fn changed(&self, changes: &UserChanges, now: OffsetDateTime) -> Option<Self> {
        let next = self.clone().with(changes);
        (next != *self).then(|| Self {
            revision: self.revision + 1,
            updated_at: now,
            ..next
        })
    }

    /// Its resource name, as audit events and the outbox have it.
    pub fn resource(&self) -> String {
        resource(&self.user_id)
    }
}

/// The resource name of a user.
pub fn resource(user_id: &str) -> String {
    format!("users/{user_id}")
}

#[cfg(test)]
mod tests {
    use common::Deps;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);

    #[test]
    fn ids_at_providers_change_one_by_one_or_all_at_once() {
        let ids = |pairs: &[(&str, &str)]| -> BTreeMap<_, _> {
            pairs
                .iter()
                .map(|(provider, id)| ((*provider).to_owned(), (*id).to_owned()))
                .collect()
        };
        let mut user = User::new(TenantKey::new_tenant(&Deps::system("test")), "u1", NOW);
        user.external_user_ids = ids(&[("salesforce", "005"), ("procore", "7")]);
        let each = [
            ("salesforce".to_owned(), Some("006".to_owned())),
            ("procore".to_owned(), None),
        ]
        .into();
        let changes = UserChanges {
            external_user_ids: Some(ExternalIdsChange::Each(each)),
            ..UserChanges::default()
        };
        let user = user
            .changed(&changes, NOW)
            .expect("one is set and one removed");
        assert_eq!(
            (user.external_user_ids.clone(), user.revision),
            (ids(&[("salesforce", "006")]), 2)
        );
        assert_eq!(user.changed(&changes, NOW), None);
        let all = ExternalIdsChange::Replace(ids(&[("outlook", "x")]));
        let changes = UserChanges {
            external_user_ids: Some(all),
            ..UserChanges::default()
        };
        assert_eq!(
            user.with(&changes).external_user_ids,
            ids(&[("outlook", "x")])
        );
    }
}
