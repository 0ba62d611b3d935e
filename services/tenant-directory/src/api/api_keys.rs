//! API keys.

use common::identity::Caller;
use common::validate::{Fields, page_size};
use common::{Problem, Secret};
use contracts::directory::v1 as contract;
use time::Duration;

use super::{decode, tenants};
use crate::directory::Directory;
use crate::issue_api_key::ApiKeyOrder;
use crate::page_token::Query;
use crate::{access, encode};

const LONGEST_NAME: usize = 200;
const MOST_TENANTS: usize = 1000;

pub(super) async fn create(
    directory: &Directory,
    caller: &Caller,
    request: contract::CreateApiKeyRequest,
) -> Result<contract::CreateApiKeyResponse, Problem> {
    access::operator(caller)?;
    let mut fields = Fields::new();
    tenants::request_id(&mut fields, &request.request_id);
    let key = request.api_key.clone().unwrap_or_default();
    fields.require("api_key.display_name", &key.display_name);
    let display_name = decode::text(
        &mut fields,
        "api_key.display_name",
        &key.display_name,
        LONGEST_NAME,
    );
    let roles = &directory.api_keys.roles;
    let known = roles.contains(&key.role);
    fields.check(
        known,
        "api_key.role",
        format_args!("must be one of {}", roles.join(", ")),
    );
    let tenants = decode::each(
        &mut fields,
        "api_key.tenant_ids",
        &key.tenant_ids,
        MOST_TENANTS,
        Fields::tenant,
    );
    let expires_at =
        decode::moment(&mut fields, "api_key.expires_at", key.expires_at.as_ref()).flatten();
    if let Some(end) = expires_at {
        let now = directory.now();
        fields.check(end > now, "api_key.expires_at", "must be in the future");
        let soon = end - now <= directory.api_keys.max_lifetime.get();
        fields.check(
            soon,
            "api_key.expires_at",
            "must be nearer: keys have an end",
        );
    }
    fields.finish()?;
    let order = ApiKeyOrder {
        display_name: display_name.unwrap_or_default(),
        tenants: tenants.unwrap_or_default(),
        role: key.role,
        expires_at,
    };
    Ok(directory.create_api_key(caller, request, order).await?)
}

pub(super) async fn list(
    directory: &Directory,
    caller: &Caller,
    request: contract::ListApiKeysRequest,
) -> Result<contract::ListApiKeysResponse, Problem> {
    let mut fields = Fields::new();
    let size = page_size(&mut fields, request.page_size);
    let query = Query::new("ListApiKeys", &[]);
    let after = decode::after_id(&mut fields, &query, &request.page_token);
    fields.finish()?;
    let page = directory.list_api_keys(caller, after, size).await?;
    let next_page_token = match page.items.last() {
        Some(last) if page.more => query.token(&[&last.id.to_string()]),
        _ => String::new(),
    };
    Ok(contract::ListApiKeysResponse {
        api_keys: page.items.iter().map(encode::api_key).collect(),
        next_page_token,
    })
}

pub(super) async fn rotate(
    directory: &Directory,
    caller: &Caller,
    request: contract::RotateApiKeyRequest,
) -> Result<contract::RotateApiKeyResponse, Problem> {
    let mut fields = Fields::new();
    let id = fields.id("api_key_id", &request.api_key_id);
    let most = Duration::try_from(directory.api_keys.max_overlap.get()).unwrap_or(Duration::MAX);
    let overlap = request.overlap.unwrap_or_default();
    let overlap = Duration::seconds(overlap.seconds)
        .saturating_add(Duration::nanoseconds(i64::from(overlap.nanos)));
    let holds = (Duration::ZERO..=most).contains(&overlap);
    fields.check(
        holds,
        "overlap",
        format_args!("must be from 0 to {} days", most.whole_days()),
    );
    fields.finish()?;
    let id = id.ok_or_else(|| Problem::not_found("API key"))?;
    Ok(directory.rotate_api_key(caller, id, overlap).await?)
}

pub(super) async fn revoke(
    directory: &Directory,
    caller: &Caller,
    request: contract::RevokeApiKeyRequest,
) -> Result<contract::RevokeApiKeyResponse, Problem> {
    let mut fields = Fields::new();
    let id = fields.id("api_key_id", &request.api_key_id);
    fields.finish()?;
    let id = id.ok_or_else(|| Problem::not_found("API key"))?;
    directory.revoke_api_key(caller, id).await?;
    Ok(contract::RevokeApiKeyResponse {})
}

pub(super) async fn authenticate(
    directory: &Directory,
    caller: &Caller,
    request: contract::AuthenticateApiKeyRequest,
) -> Result<contract::AuthenticateApiKeyResponse, Problem> {
    let secret = Secret::new(request.secret);
    let mut fields = Fields::new();
    fields.require("secret", secret.expose());
    fields.finish()?;
    let (key, cache_for) = directory.authenticate_api_key(caller, &secret).await?;
    Ok(contract::AuthenticateApiKeyResponse {
        api_key: Some(encode::api_key(&key)),
        cache_for: cache_for.try_into().ok(),
    })
}
