//! A user's fields, as they come with a request.

use std::collections::BTreeMap;

use common::validate::Fields;
use contracts::directory::v1 as contract;
use prost_types::FieldMask;
use serde::de::IgnoredAny;

use super::{decode, mask};
use crate::email::Email;
use crate::field_path::FieldPath;
use crate::user::{ExternalIdsChange, UserChanges};

const LONGEST_NAME: usize = 200;
const LONGEST_ROLE: usize = 64;
const LONGEST_KEY: usize = 64;
const MOST_ROLES: usize = 50;
const MOST_EXTERNAL_IDS: usize = 50;
const LONGEST_PROFILE: usize = 16 * 1024;

const FIELDS: [&str; 6] = [
    "email",
    "first_name",
    "last_name",
    "roles",
    "external_user_ids",
    "profile_json",
];

struct Reader<'a> {
    fields: &'a mut Fields,
    user: &'a contract::User,
}

/// What is set, of a user that is brought up to date: a field without a value stays as it is, and so does an id at a
/// provider that is not named.
pub(crate) fn given(fields: &mut Fields, user: &contract::User) -> UserChanges {
    let mut reader = Reader { fields, user };
    let set = |given: bool| given.then_some(());
    UserChanges {
        email: set(!user.email.is_empty()).and_then(|()| reader.email()),
        first_name: set(!user.first_name.is_empty())
            .and_then(|()| reader.name("user.first_name", &user.first_name)),
        last_name: set(!user.last_name.is_empty())
            .and_then(|()| reader.name("user.last_name", &user.last_name)),
        roles: set(!user.roles.is_empty()).and_then(|()| reader.roles()),
        external_user_ids: set(!user.external_user_ids.is_empty()).and_then(|()| {
            let ids = reader
                .external_user_ids()?
                .into_iter()
                .map(|(provider, id)| (provider, Some(id)));
            Some(ExternalIdsChange::Each(ids.collect()))
        }),
        profile_json: set(!user.profile_json.is_empty()).and_then(|()| reader.profile_json()),
    }
}

/// What an update is to change.
pub(crate) fn changes(
    fields: &mut Fields,
    user: &contract::User,
    given: Option<&FieldMask>,
) -> UserChanges {
    let paths = mask::paths(fields, given, || populated(user), &FIELDS, is_known);
    let mut changes = UserChanges::default();
    let mut each = BTreeMap::new();
    let mut reader = Reader { fields, user };
    for path in &paths {
        match path.segments() {
            [_, provider] => {
                each.insert(provider.clone(), reader.external_user_id(provider));
            }
            [field, ..] => reader.set(field, &mut changes),
            [] => {}
        }
    }
    if changes.external_user_ids.is_none() && !each.is_empty() {
        changes.external_user_ids = Some(ExternalIdsChange::Each(each));
    }
    changes
}

fn is_known(path: &FieldPath) -> bool {
    match path.segments() {
        [field] => FIELDS.contains(&field.as_str()),
        [field, _] => field == "external_user_ids",
        _ => false,
    }
}

fn populated(user: &contract::User) -> Vec<FieldPath> {
    let is_set = |field: &&str| match *field {
        "email" => !user.email.is_empty(),
        "first_name" => !user.first_name.is_empty(),
        "last_name" => !user.last_name.is_empty(),
        "roles" => !user.roles.is_empty(),
        "external_user_ids" => !user.external_user_ids.is_empty(),
        "profile_json" => !user.profile_json.is_empty(),
        _ => false,
    };
    FIELDS
        .iter()
        .copied()
        .filter(is_set)
        .map(mask::of)
        .collect()
}

fn role(fields: &mut Fields, field: &str, role: &str) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte);
    let holds = (1..=LONGEST_ROLE).contains(&role.len()) && role.bytes().all(is_plain);
    fields
        .check(
            holds,
            field,
            "must be 1 to 64 letters, digits, and any of _ - . :",
        )
        .then(|| role.to_owned())
}

impl Reader<'_> {
    fn set(&mut self, field: &str, changes: &mut UserChanges) {
        match field {
            "email" => changes.email = self.email(),
            "first_name" => {
                changes.first_name = self.name("user.first_name", &self.user.first_name);
            }
            "last_name" => changes.last_name = self.name("user.last_name", &self.user.last_name),
            "roles" => changes.roles = self.roles(),
            "external_user_ids" => {
                changes.external_user_ids =
                    self.external_user_ids().map(ExternalIdsChange::Replace);
            }
            "profile_json" => changes.profile_json = self.profile_json(),
            other => unreachable!("the mask lets nothing else pass: {other}"),
        }
    }

    #[expect(
        clippy::option_option,
        reason = "outside: whether it can be taken; inside: whether it is given"
    )]
    fn email(&mut self) -> Option<Option<Email>> {
        if self.user.email.is_empty() {
            return Some(None);
        }
        self.fields
            .value("user.email", Email::parse(&self.user.email))
            .map(Some)
    }

    fn name(&mut self, field: &str, value: &str) -> Option<String> {
        decode::text(self.fields, field, value, LONGEST_NAME)
    }

    fn roles(&mut self) -> Option<Vec<String>> {
        decode::each(
            self.fields,
            "user.roles",
            &self.user.roles,
            MOST_ROLES,
            role,
        )
        .map(decode::distinct)
    }

    fn external_user_ids(&mut self) -> Option<BTreeMap<String, String>> {
        let ids = &self.user.external_user_ids;
        let fits = ids.len() <= MOST_EXTERNAL_IDS;
        if !self.fields.check(
            fits,
            "user.external_user_ids",
            format_args!("must be at most {MOST_EXTERNAL_IDS}"),
        ) {
            return None;
        }
        let providers: Vec<_> = ids.keys().cloned().collect();
        let taken = providers.into_iter().filter_map(|provider| {
            let id = self.external_user_id(&provider)?;
            Some((provider, id))
        });
        Some(taken.collect())
    }

    /// `None` where none is given, and it is to be removed.
    fn external_user_id(&mut self, provider: &str) -> Option<String> {
        if provider.is_empty()
            || provider.len() > LONGEST_KEY
            || provider.contains(char::is_control)
        {
            let description =
                "must have keys of 1 to 64 bytes without control characters: the providers' keys";
            self.fields.violate("user.external_user_ids", description);
            return None;
        }
        let field = FieldPath::key_of("external_user_ids", provider).to_string();
        let id = self
            .user
            .external_user_ids
            .get(provider)
            .filter(|id| !id.is_empty())?;
        decode::foreign_id(self.fields, &format!("user.{field}"), id)
    }

    fn profile_json(&mut self) -> Option<String> {
        let profile = &self.user.profile_json;
        let fits = self
            .fields
            .at_most("user.profile_json", profile, LONGEST_PROFILE);
        let is_json = profile.is_empty() || serde_json::from_str::<IgnoredAny>(profile).is_ok();
        let storable = !profile.contains('\0');
        let is_json = self
            .fields
            .check(is_json && storable, "user.profile_json", "must be JSON");
        (fits && is_json).then(|| profile.clone())
    }
}
