//! Users.

use common::Problem;
use common::identity::Caller;
use common::validate::{Fields, page_size};
use contracts::directory::v1 as contract;
use time::OffsetDateTime;

use super::{decode, user_fields};
use crate::directory::Directory;
use crate::encode;
use crate::etag::Etag;
use crate::keep_users::BEGINNING;
use crate::page_token::{PageTokenError, Query};

pub(super) async fn ensure(
    directory: &Directory,
    caller: &Caller,
    request: contract::EnsureUserRequest,
) -> Result<contract::EnsureUserResponse, Problem> {
    let mut fields = Fields::new();
    let user = request.user.unwrap_or_default();
    let tenant = fields.tenant("user.tenant_id", &user.tenant_id);
    let user_id =
        decode::required_id(&mut fields, "user.user_id", &user.user_id).unwrap_or_default();
    let changes = user_fields::given(&mut fields, &user);
    fields.finish()?;
    let tenant = decode::reached(caller, tenant)?;
    let (user, created) = directory
        .ensure_user(caller, tenant, &user_id, changes)
        .await?;
    Ok(contract::EnsureUserResponse {
        user: Some(encode::user(&user)),
        created,
    })
}

pub(super) async fn get(
    directory: &Directory,
    caller: &Caller,
    request: contract::GetUserRequest,
) -> Result<contract::GetUserResponse, Problem> {
    let mut fields = Fields::new();
    let tenant = fields.tenant("tenant_id", &request.tenant_id);
    let user_id = decode::required_id(&mut fields, "user_id", &request.user_id).unwrap_or_default();
    fields.finish()?;
    let user = directory
        .get_user(caller, decode::reached(caller, tenant)?, &user_id)
        .await?;
    Ok(contract::GetUserResponse {
        user: Some(encode::user(&user)),
    })
}

pub(super) async fn list(
    directory: &Directory,
    caller: &Caller,
    request: contract::ListUsersRequest,
) -> Result<contract::ListUsersResponse, Problem> {
    let mut fields = Fields::new();
    let tenant = fields.tenant("tenant_id", &request.tenant_id);
    let size = page_size(&mut fields, request.page_size);
    let query = Query::new("ListUsers", &[&request.tenant_id]);
    let after = fields.value("page_token", after(&query, &request.page_token));
    fields.finish()?;
    let (created_at, user_id) = after.unwrap_or((BEGINNING, String::new()));
    let tenant = decode::reached(caller, tenant)?;
    let page = directory
        .list_users(caller, tenant, (created_at, &user_id), size)
        .await?;
    let next_page_token = match page.items.last() {
        Some(last) if page.more => {
            query.token(&[&micros(last.created_at).to_string(), &last.user_id])
        }
        _ => String::new(),
    };
    Ok(contract::ListUsersResponse {
        users: page.items.iter().map(encode::user).collect(),
        next_page_token,
    })
}

pub(super) async fn update(
    directory: &Directory,
    caller: &Caller,
    request: contract::UpdateUserRequest,
) -> Result<contract::UpdateUserResponse, Problem> {
    let mut fields = Fields::new();
    let user = request.user.unwrap_or_default();
    let tenant = fields.tenant("user.tenant_id", &user.tenant_id);
    let user_id =
        decode::required_id(&mut fields, "user.user_id", &user.user_id).unwrap_or_default();
    let changes = user_fields::changes(&mut fields, &user, request.update_mask.as_ref());
    fields.finish()?;
    let tenant = decode::reached(caller, tenant)?;
    let updated = directory
        .update_user(caller, tenant, &user_id, changes, Etag::given(&user.etag))
        .await?;
    Ok(contract::UpdateUserResponse {
        user: Some(encode::user(&updated)),
    })
}

pub(super) async fn delete(
    directory: &Directory,
    caller: &Caller,
    request: contract::DeleteUserRequest,
) -> Result<contract::DeleteUserResponse, Problem> {
    let mut fields = Fields::new();
    let tenant = fields.tenant("tenant_id", &request.tenant_id);
    let user_id = decode::required_id(&mut fields, "user_id", &request.user_id).unwrap_or_default();
    fields.finish()?;
    let tenant = decode::reached(caller, tenant)?;
    directory
        .delete_user(caller, tenant, &user_id, request.delete_documents)
        .await?;
    Ok(contract::DeleteUserResponse {})
}

fn after(query: &Query, token: &str) -> Result<(OffsetDateTime, String), PageTokenError> {
    let Some([created_at, user_id]) = query.key::<2>(token)? else {
        return Ok((BEGINNING, String::new()));
    };
    let micros: i64 = created_at.parse().map_err(|_| PageTokenError)?;
    let nanos = i128::from(micros) * 1_000;
    let created_at =
        OffsetDateTime::from_unix_timestamp_nanos(nanos).map_err(|_| PageTokenError)?;
    // Nobody was made before we were.
    if created_at < BEGINNING || user_id.contains('\0') {
        Err(PageTokenError)
    } else {
        Ok((created_at, user_id))
    }
}

fn micros(moment: OffsetDateTime) -> i128 {
    moment.unix_timestamp_nanos() / 1_000
}
