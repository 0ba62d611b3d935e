//! What requests have in common.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use common::identity::Caller;
use common::validate::Fields;
use common::{Problem, TenantKey};
use uuid::Uuid;

use crate::grant::{ClientKey, GrantKey};

/// Of names, URLs, and the like.
pub(super) const LONGEST_TEXT: usize = 2048;
/// Of secrets and tokens.
pub(super) const LONGEST_SECRET: usize = 16 * 1024;
const MOST_PARAMETERS: usize = 50;
const LONGEST_VALUE: usize = 4096;
/// Longer than any token lives.
const LONGEST_DEMAND: Duration = Duration::from_hours(400 * 24);

/// The tenant and the grant that a request names.
pub(super) fn grant_key(
    caller: &Caller,
    tenant_id: &str,
    grant_id: &str,
) -> Result<GrantKey, Problem> {
    let mut fields = Fields::new();
    let tenant = fields.absorb(caller.tenant(tenant_id))?;
    let id = fields.id("grant_id", grant_id);
    fields.finish()?;
    match (tenant, id) {
        (Some(tenant), Some(id)) => Ok(GrantKey { tenant, id }),
        _ => Err(Problem::not_found("grant")),
    }
}

/// The OAuth client that a grant of `tenant` uses: its own, or the platform's.
pub(super) fn client_key(
    fields: &mut Fields,
    tenant: Option<TenantKey>,
    owner: &str,
    oauth_client_id: &str,
) -> Option<ClientKey> {
    let id = fields.id("oauth_client_id", oauth_client_id)?;
    let owner = if owner.is_empty() {
        tenant?
    } else {
        fields.tenant("oauth_client_tenant_id", owner)?
    };
    let may_use = owner.is_platform() || Some(owner) == tenant;
    if !fields.check(
        may_use,
        "oauth_client_tenant_id",
        "must be the tenant itself or the platform",
    ) {
        return None;
    }
    Some(ClientKey { tenant: owner, id })
}

/// A span of time that is not negative.
pub(super) fn duration(
    fields: &mut Fields,
    field: &str,
    value: Option<prost_types::Duration>,
) -> Option<Duration> {
    let duration = Duration::try_from(value?)
        .ok()
        .filter(|duration| *duration <= LONGEST_DEMAND);
    fields.check(
        duration.is_some(),
        field,
        "must be a span of time from 0 to 400 days",
    );
    duration
}

/// Names and values in order, so many and so long.
pub(super) fn texts(
    fields: &mut Fields,
    field: &str,
    map: HashMap<String, String>,
) -> BTreeMap<String, String> {
    fields.check(
        map.len() <= MOST_PARAMETERS,
        field,
        format_args!("must have at most {MOST_PARAMETERS} entries"),
    );
    let are_fine = map
        .iter()
        .all(|(name, value)| !name.is_empty() && name.len() <= 255 && value.len() <= LONGEST_VALUE);
    fields.check(
        are_fine,
        field,
        "must have names of 1 to 255 and values of at most 4096 bytes",
    );
    map.into_iter().collect()
}

/// A text that may be empty.
pub(super) fn opt(text: String) -> Option<String> {
    if text.is_empty() { None } else { Some(text) }
}

/// An id that may be missing.
pub(super) fn opt_id(fields: &mut Fields, field: &str, text: &str) -> Option<Uuid> {
    if text.is_empty() {
        None
    } else {
        fields.id(field, text)
    }
}
