//! A tenant's fields, as they come with a request.

use common::validate::Fields;
use contracts::directory::v1 as contract;
use prost_types::FieldMask;
use time::OffsetDateTime;

use super::{decode, mask};
use crate::field_path::FieldPath;
use crate::subdomain::Subdomain;
use crate::tenant::{Profile, Quotas, State, Status, Subscription, TenantChanges, Tier};

/// What a request must bring with a new tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    CompanyName,
    ExternalId,
}

const LONGEST_NAME: usize = 200;
const MOST_ORIGINS: usize = 50;
/// Far beyond what anybody has, and far from overflowing anything.
const MOST: i64 = 1_000_000_000_000;
const MOST_DAYS: i32 = 36_500;
const MOST_WEIGHT: i32 = 1_000;

const SUBSCRIPTION: [&str; 4] = [
    "subscription.tier",
    "subscription.status",
    "subscription.trial_ends_at",
    "subscription.billing_customer_id",
];
const QUOTAS: [&str; 4] = [
    "quotas.documents_per_user_per_day",
    "quotas.connections",
    "quotas.max_backfill_days",
    "quotas.sync_weight",
];
const PLAIN: [&str; 6] = [
    "external_id",
    "company_name",
    "subdomain",
    "support_contact",
    "allowed_origins",
    "logo_url",
];

/// Reads fields one by one, and notes what is wrong with each.
struct Reader<'a> {
    fields: &'a mut Fields,
    tenant: &'a contract::Tenant,
    subscription: contract::Subscription,
    quotas: contract::Quotas,
}

/// A new tenant's profile. What the directory itself decides is not looked at.
pub(crate) fn profile(fields: &mut Fields, tenant: &contract::Tenant, needs: Needs) -> Profile {
    match needs {
        Needs::CompanyName => fields.require("tenant.company_name", &tenant.company_name),
        Needs::ExternalId => fields.require("tenant.external_id", &tenant.external_id),
    };
    let mut reader = Reader::new(fields, tenant);
    Profile {
        company_name: reader.company_name().unwrap_or_default(),
        external_id: reader.external_id().flatten(),
        subdomain: reader.subdomain().flatten(),
        subscription: Subscription {
            tier: reader.tier().unwrap_or_default(),
            status: reader.status().unwrap_or_default(),
            trial_ends_at: reader.trial_ends_at().flatten(),
            billing_customer_id: reader.billing_customer_id().flatten(),
        },
        quotas: Quotas {
            documents_per_user_per_day: reader.documents_per_user_per_day().unwrap_or_default(),
            connections: reader.connections().unwrap_or_default(),
            max_backfill_days: reader.max_backfill_days().unwrap_or_default(),
            sync_weight: reader.sync_weight().unwrap_or_default(),
        },
        support_contact: reader.support_contact().unwrap_or_default(),
        logo_url: reader.logo_url().unwrap_or_default(),
        allowed_origins: reader.allowed_origins().unwrap_or_default(),
    }
}

/// What an update is to change.
pub(crate) fn changes(
    fields: &mut Fields,
    tenant: &contract::Tenant,
    given: Option<&FieldMask>,
) -> TenantChanges {
    let all: Vec<&str> = PLAIN
        .iter()
        .chain(&SUBSCRIPTION)
        .chain(&QUOTAS)
        .copied()
        .collect();
    let paths = mask::paths(fields, given, || populated(tenant, &all), &all, is_known);
    let mut changes = TenantChanges::default();
    let mut reader = Reader::new(fields, tenant);
    for path in paths {
        match path.to_string().as_str() {
            "subscription" => SUBSCRIPTION
                .iter()
                .for_each(|path| reader.set(path, &mut changes)),
            "quotas" => QUOTAS
                .iter()
                .for_each(|path| reader.set(path, &mut changes)),
            path => reader.set(path, &mut changes),
        }
    }
    changes
}

fn is_known(path: &FieldPath) -> bool {
    let path = path.to_string();
    let path = path.as_str();
    matches!(path, "subscription" | "quotas" | "state")
        || [&PLAIN[..], &SUBSCRIPTION, &QUOTAS]
            .concat()
            .contains(&path)
}

/// The paths of the fields that have a value.
fn populated(tenant: &contract::Tenant, all: &[&str]) -> Vec<FieldPath> {
    let subscription = tenant.subscription.clone().unwrap_or_default();
    let quotas = tenant.quotas.unwrap_or_default();
    let is_set = |path: &str| match path {
        "external_id" => !tenant.external_id.is_empty(),
        "company_name" => !tenant.company_name.is_empty(),
        "subdomain" => !tenant.subdomain.is_empty(),
        "support_contact" => !tenant.support_contact.is_empty(),
        "allowed_origins" => !tenant.allowed_origins.is_empty(),
        "logo_url" => !tenant.logo_url.is_empty(),
        "subscription.tier" => subscription.tier != 0,
        "subscription.status" => subscription.status != 0,
        "subscription.trial_ends_at" => subscription.trial_ends_at.is_some(),
        "subscription.billing_customer_id" => !subscription.billing_customer_id.is_empty(),
        "quotas.documents_per_user_per_day" => quotas.documents_per_user_per_day != 0,
        "quotas.connections" => quotas.connections != 0,
        "quotas.max_backfill_days" => quotas.max_backfill_days != 0,
        "quotas.sync_weight" => quotas.sync_weight != 0,
        "state" => tenant.state != 0,
        _ => false,
    };
    all.iter()
        .chain(&["state"])
        .filter(|path| is_set(path))
        .map(|path| mask::of(path))
        .collect()
}

impl<'a> Reader<'a> {
    fn new(fields: &'a mut Fields, tenant: &'a contract::Tenant) -> Self {
        Self {
            fields,
            tenant,
            subscription: tenant.subscription.clone().unwrap_or_default(),
            quotas: tenant.quotas.unwrap_or_default(),
        }
    }

    fn set(&mut self, path: &str, changes: &mut TenantChanges) {
        match path {
            "company_name" => {
                self.fields
                    .require("tenant.company_name", &self.tenant.company_name);
                changes.company_name = self.company_name();
            }
            "external_id" => changes.external_id = self.external_id(),
            "subdomain" => changes.subdomain = self.subdomain(),
            "subscription.tier" => changes.tier = self.tier(),
            "subscription.status" => changes.status = self.status(),
            "subscription.trial_ends_at" => changes.trial_ends_at = self.trial_ends_at(),
            "subscription.billing_customer_id" => {
                changes.billing_customer_id = self.billing_customer_id();
            }
            "quotas.documents_per_user_per_day" => {
                changes.documents_per_user_per_day = self.documents_per_user_per_day();
            }
            "quotas.connections" => changes.connections = self.connections(),
            "quotas.max_backfill_days" => changes.max_backfill_days = self.max_backfill_days(),
            "quotas.sync_weight" => changes.sync_weight = self.sync_weight(),
            "support_contact" => changes.support_contact = self.support_contact(),
            "allowed_origins" => changes.allowed_origins = self.allowed_origins(),
            "logo_url" => changes.logo_url = self.logo_url(),
            "state" => changes.state = self.state(),
            other => unreachable!("the mask lets nothing else pass: {other}"),
        }
    }

    fn company_name(&mut self) -> Option<String> {
        decode::text(
            self.fields,
            "tenant.company_name",
            &self.tenant.company_name,
            LONGEST_NAME,
        )
    }

    #[expect(
        clippy::option_option,
        reason = "outside: whether it can be taken; inside: whether it is given"
    )]
    fn external_id(&mut self) -> Option<Option<String>> {
        optional_id(self.fields, "tenant.external_id", &self.tenant.external_id)
    }

    #[expect(
        clippy::option_option,
        reason = "outside: whether it can be taken; inside: whether it is given"
    )]
    fn subdomain(&mut self) -> Option<Option<Subdomain>> {
        if self.tenant.subdomain.is_empty() {
            return Some(None);
        }
        self.fields
            .value("tenant.subdomain", Subdomain::parse(&self.tenant.subdomain))
            .map(Some)
    }

    fn tier(&mut self) -> Option<Tier> {
        let tier = match contract::SubscriptionTier::try_from(self.subscription.tier) {
            Ok(contract::SubscriptionTier::Unspecified) => Ok(Tier::default()),
            Ok(contract::SubscriptionTier::Starter) => Ok(Tier::Starter),
            Ok(contract::SubscriptionTier::Professional) => Ok(Tier::Professional),
            Ok(contract::SubscriptionTier::Enterprise) => Ok(Tier::Enterprise),
            Err(_) => Err("is not a tier that this version knows"),
        };
        self.fields.value("tenant.subscription.tier", tier)
    }

    fn status(&mut self) -> Option<Status> {
        let status = match contract::SubscriptionStatus::try_from(self.subscription.status) {
            Ok(contract::SubscriptionStatus::Unspecified) => Ok(Status::default()),
            Ok(contract::SubscriptionStatus::Trial) => Ok(Status::Trial),
            Ok(contract::SubscriptionStatus::Active) => Ok(Status::Active),
            Ok(contract::SubscriptionStatus::PastDue) => Ok(Status::PastDue),
            Ok(contract::SubscriptionStatus::Cancelled) => Ok(Status::Cancelled),
            Err(_) => Err("is not a status that this version knows"),
        };
        self.fields.value("tenant.subscription.status", status)
    }

    #[expect(
        clippy::option_option,
        reason = "outside: whether it can be taken; inside: whether it is given"
    )]
    fn trial_ends_at(&mut self) -> Option<Option<OffsetDateTime>> {
        decode::moment(
            self.fields,
            "tenant.subscription.trial_ends_at",
            self.subscription.trial_ends_at.as_ref(),
        )
    }

    #[expect(
        clippy::option_option,
        reason = "outside: whether it can be taken; inside: whether it is given"
    )]
    fn billing_customer_id(&mut self) -> Option<Option<String>> {
        optional_id(
            self.fields,
            "tenant.subscription.billing_customer_id",
            &self.subscription.billing_customer_id,
        )
    }

    fn documents_per_user_per_day(&mut self) -> Option<i64> {
        within(
            self.fields,
            "tenant.quotas.documents_per_user_per_day",
            self.quotas.documents_per_user_per_day,
            MOST,
        )
    }

    fn connections(&mut self) -> Option<i64> {
        within(
            self.fields,
            "tenant.quotas.connections",
            self.quotas.connections,
            MOST,
        )
    }

    fn max_backfill_days(&mut self) -> Option<i32> {
        within(
            self.fields,
            "tenant.quotas.max_backfill_days",
            self.quotas.max_backfill_days,
            MOST_DAYS,
        )
    }

    fn sync_weight(&mut self) -> Option<i32> {
        within(
            self.fields,
            "tenant.quotas.sync_weight",
            self.quotas.sync_weight,
            MOST_WEIGHT,
        )
    }

    fn support_contact(&mut self) -> Option<String> {
        decode::contact(
            self.fields,
            "tenant.support_contact",
            &self.tenant.support_contact,
        )
    }

    fn logo_url(&mut self) -> Option<String> {
        decode::image_url(self.fields, "tenant.logo_url", &self.tenant.logo_url)
    }

    fn allowed_origins(&mut self) -> Option<Vec<String>> {
        let given = &self.tenant.allowed_origins;
        let origins = decode::each(
            self.fields,
            "tenant.allowed_origins",
            given,
            MOST_ORIGINS,
            decode::origin,
        )?;
        Some(decode::distinct(origins))
    }

    fn state(&mut self) -> Option<State> {
        let state = match contract::TenantState::try_from(self.tenant.state) {
            Ok(contract::TenantState::Active) => Ok(State::Active),
            Ok(contract::TenantState::Suspended) => Ok(State::Suspended),
            _ => Err("can be set to ACTIVE or SUSPENDED; to delete a tenant, call DeleteTenant"),
        };
        self.fields.value("tenant.state", state)
    }
}

#[expect(
    clippy::option_option,
    reason = "outside: whether it can be taken; inside: whether it is given"
)]
fn optional_id(fields: &mut Fields, field: &str, value: &str) -> Option<Option<String>> {
    if value.is_empty() {
        Some(None)
    } else {
        decode::foreign_id(fields, field, value).map(Some)
    }
}

fn within<T: PartialOrd + Default + Copy + std::fmt::Display>(
    fields: &mut Fields,
    field: &str,
    value: T,
    most: T,
) -> Option<T> {
    let holds = value >= T::default() && value <= most;
    fields
        .check(holds, field, format_args!("must be from 0 to {most}"))
        .then_some(value)
}
