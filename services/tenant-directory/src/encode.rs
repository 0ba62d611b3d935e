//! What the contracts say of the directory's types.

use std::collections::HashMap;

use contracts::directory::v1 as contract;
use prost_types::Timestamp;
use time::OffsetDateTime;

use crate::api_key::ApiKey;
use crate::deletion::{Deletion, Step};
use crate::etag::Etag;
use crate::json;
use crate::tenant::{Quotas, State, Status, Subscription, Tenant, Tier};
use crate::tenant_config::{Section, TenantConfig};
use crate::user::User;

/// The tenant, with what the time makes of its subscription.
pub(crate) fn tenant(tenant: &Tenant, now: OffsetDateTime) -> contract::Tenant {
    let profile = &tenant.profile;
    contract::Tenant {
        tenant_id: tenant.key.to_string(),
        external_id: profile.external_id.clone().unwrap_or_default(),
        company_name: profile.company_name.clone(),
        subdomain: profile
            .subdomain
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        subscription: Some(subscription(&profile.subscription, now)),
        quotas: Some(quotas(&profile.quotas)),
        etag: Etag::of(tenant.revision).to_string(),
        created_at: Some(timestamp(tenant.created_at)),
        updated_at: Some(timestamp(tenant.updated_at)),
        support_contact: profile.support_contact.clone(),
        deletion: tenant.deletion.clone(),
        allowed_origins: profile.allowed_origins.clone(),
        logo_url: profile.logo_url.clone(),
        state: state(tenant.state).into(),
        revision: tenant.revision,
    }
}

/// The user.
pub(crate) fn user(user: &User) -> contract::User {
    contract::User {
        tenant_id: user.tenant.to_string(),
        user_id: user.user_id.clone(),
        email: user
            .email
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        first_name: user.first_name.clone(),
        last_name: user.last_name.clone(),
        roles: user.roles.clone(),
        external_user_ids: HashMap::from_iter(user.external_user_ids.clone()),
        profile_json: user.profile_json.clone(),
        last_login_at: user.last_login_at.map(timestamp),
        etag: Etag::of(user.revision).to_string(),
        created_at: Some(timestamp(user.created_at)),
        updated_at: Some(timestamp(user.updated_at)),
        revision: user.revision,
    }
}

/// The configuration that holds, defaults included.
pub(crate) fn tenant_config(config: &TenantConfig) -> contract::TenantConfig {
    let section = |section| Some(json::to_struct(config.effective(section)));
    contract::TenantConfig {
        tenant_id: config.tenant.to_string(),
        field_mappings: section(Section::FieldMappings),
        risk_rules: section(Section::RiskRules),
        priority_weights: section(Section::PriorityWeights),
        etag: Etag::of(config.revision).to_string(),
    }
}

/// The deletion, over all services.
pub(crate) fn deletion(deletion: &Deletion) -> contract::Deletion {
    contract::Deletion {
        deletion_id: deletion.id.to_string(),
        tenant_id: deletion.tenant.to_string(),
        user_id: deletion.user_id.clone().unwrap_or_default(),
        delete_documents: deletion.delete_documents,
        step: step(deletion.step).into(),
        waiting_for: deletion
            .waiting_for()
            .into_iter()
            .map(str::to_owned)
            .collect(),
        progress: deletion.progress(),
        created_at: Some(timestamp(deletion.created_at)),
        updated_at: Some(timestamp(deletion.updated_at)),
        revision: deletion.revision,
    }
}

/// The key, without its secret.
pub(crate) fn api_key(key: &ApiKey) -> contract::ApiKey {
    contract::ApiKey {
        api_key_id: key.id.to_string(),
        display_name: key.display_name.clone(),
        tenant_ids: key.tenants.iter().map(ToString::to_string).collect(),
        role: key.role.clone(),
        prefix: key.prefix.clone(),
        expires_at: Some(timestamp(key.expires_at)),
        last_used_at: key.last_used_at.map(timestamp),
        revoked_at: key.revoked_at.map(timestamp),
        created_at: Some(timestamp(key.created_at)),
    }
}

pub(crate) fn timestamp(moment: OffsetDateTime) -> Timestamp {
    Timestamp {
        seconds: moment.unix_timestamp(),
        nanos: moment.nanosecond() as i32,
    }
}

fn subscription(subscription: &Subscription, now: OffsetDateTime) -> contract::Subscription {
    contract::Subscription {
        tier: match subscription.tier {
            Tier::Starter => contract::SubscriptionTier::Starter,
            Tier::Professional => contract::SubscriptionTier::Professional,
            Tier::Enterprise => contract::SubscriptionTier::Enterprise,
        }
        .into(),
        status: match subscription.status {
            Status::Trial => contract::SubscriptionStatus::Trial,
            Status::Active => contract::SubscriptionStatus::Active,
            Status::PastDue => contract::SubscriptionStatus::PastDue,
            Status::Cancelled => contract::SubscriptionStatus::Cancelled,
        }
        .into(),
        trial_ends_at: subscription.trial_ends_at.map(timestamp),
        usable: subscription.usable(now),
        billing_customer_id: subscription.billing_customer_id.clone().unwrap_or_default(),
        trial_ended: subscription.trial_ended(now),
    }
}

fn quotas(quotas: &Quotas) -> contract::Quotas {
    let quotas = quotas.effective();
    contract::Quotas {
        documents_per_user_per_day: quotas.documents_per_user_per_day,
        connections: quotas.connections,
        max_backfill_days: quotas.max_backfill_days,
        sync_weight: quotas.sync_weight,
    }
}

fn state(state: State) -> contract::TenantState {
    match state {
        State::Active => contract::TenantState::Active,
        State::Suspended => contract::TenantState::Suspended,
        State::Deleting => contract::TenantState::Deleting,
        State::Deleted => contract::TenantState::Deleted,
    }
}

fn step(step: Step) -> contract::DeletionStep {
    match step {
        Step::StopSyncs => contract::DeletionStep::StopSyncs,
        Step::EndSubscriptions => contract::DeletionStep::EndSubscriptions,
        Step::RevokeGrants => contract::DeletionStep::RevokeGrants,
        Step::EraseData => contract::DeletionStep::EraseData,
        Step::ShredKeys => contract::DeletionStep::ShredKeys,
        Step::Done => contract::DeletionStep::Done,
    }
}
