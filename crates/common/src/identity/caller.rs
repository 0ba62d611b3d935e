//! A verified caller, as handlers see it, and as it is passed on to the next service.

use std::future::Future;

use tokio::time::Instant;

use super::{Actor, Identity};
use crate::validate::Fields;
use crate::{Problem, TenantKey};

/// Who calls, for whom, and in which capacity.
#[derive(Clone, Debug)]
pub struct Caller {
    /// What the call itself proved.
    pub identity: Identity,
    /// The person behind it, where there is one.
    pub user: Option<UserContext>,
    /// In which capacity it acts.
    pub acting: Acting,
    /// Which tenants it reaches where no user context narrows it.
    pub tenants: Tenants,
    /// Who began it all: the forwarded actor where the identity may forward one, else the identity itself.
    pub actor: Actor,
    /// Names the call in logs and in what the caller is told.
    pub request_id: String,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
}

/// The person behind a call, from a verified token or a forwarded actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserContext {
    /// The person's tenant.
    pub tenant: TenantKey,
    /// The user's id in the host application.
    pub user_id: String,
    /// As the host application names them; `admin` administers its tenant.
    pub roles: Vec<String>,
}

/// In which capacity a call is made. No customer's administrator is an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Acting {
    /// A user, for itself alone.
    Own,
    /// For everyone of its tenant: an administrator, or a backend of the host application.
    TenantAdmin,
    /// One of Hawser's services, for its own work.
    Service,
    /// Whoever runs the platform.
    Operator,
}

/// Which tenants a caller reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tenants {
    /// Every one, the platform's among them.
    Any,
    /// These.
    Only(Vec<TenantKey>),
}

impl UserContext {
    /// Whether the person administers its tenant.
    pub fn is_admin(&self) -> bool {
        self.roles.iter().any(|role| role == "admin")
    }
}

impl Caller {
    /// One of Hawser's services doing its own work: background tasks, tests.
    pub fn service(name: &str) -> Self {
        let identity = Identity::service(name);
        Self {
            actor: Actor {
                identity: identity.to_string(),
                ..Actor::default()
            },
            identity,
            user: None,
            acting: Acting::Service,
            tenants: Tenants::Any,
            request_id: String::new(),
            deadline: None,
        }
    }

    /// The tenant that a request names, if the caller reaches it.
    ///
    /// # Errors
    /// INVALID_ARGUMENT where the text is no tenant's id; NOT_FOUND where the tenant is another's, so that nothing is
    /// told of it.
    pub fn tenant(&self, tenant_id: &str) -> Result<TenantKey, Problem> {
        self.tenant_in("tenant_id", tenant_id)
    }

    /// As [`Caller::tenant`], for a tenant that stands in another field: `integration.tenant_id`.
    ///
    /// # Errors
    /// As [`Caller::tenant`].
    pub fn tenant_in(&self, field: &str, tenant_id: &str) -> Result<TenantKey, Problem> {
        let mut fields = Fields::new();
        let tenant = fields.tenant(field, tenant_id);
        fields.finish()?;
        match tenant {
            Some(tenant) if self.reaches(tenant) => Ok(tenant),
            _ => Err(Problem::not_found("tenant")),
        }
    }

    /// The tenant that a request names, or `None` for all of them where the request names none.
    ///
    /// # Errors
    /// As [`Caller::tenant`]; PERMISSION_DENIED where all are asked for by anybody but operators and services.
    pub fn tenant_or_all(&self, tenant_id: &str) -> Result<Option<TenantKey>, Problem> {
        if !tenant_id.is_empty() {
            return self.tenant(tenant_id).map(Some);
        }
        if self.acting >= Acting::Service && self.tenants == Tenants::Any {
            Ok(None)
        } else {
            Err(Problem::permission_denied(
                "name a tenant: only operators and services see all of them",
            ))
        }
    }

    /// Whether the caller reaches the tenant.
    pub fn reaches(&self, tenant: TenantKey) -> bool {
        match (&self.user, &self.tenants) {
            (Some(user), _) if self.acting < Acting::Service => user.tenant == tenant,
            (_, Tenants::Any) => true,
            (_, Tenants::Only(tenants)) => tenants.contains(&tenant),
        }
    }

    /// A user who is no administrator of its tenant acts for itself alone.
    ///
    /// # Errors
    /// NOT_FOUND where the user is another.
    pub fn user(&self, user_id: &str) -> Result<(), Problem> {
        match &self.user {
            Some(user) if self.acting == Acting::Own && user.user_id != user_id => {
                Err(Problem::not_found("user"))
            }
            _ => Ok(()),
        }
    }

    /// The user to whom what the caller sees is narrowed; `None` where it sees the whole tenant.
    pub fn own_user(&self) -> Option<&str> {
        self.user
            .as_ref()
            .filter(|_| self.acting == Acting::Own)
            .map(|user| user.user_id.as_str())
    }

    /// Whether it acts as an operator of the platform.
    pub fn is_operator(&self) -> bool {
        self.acting == Acting::Operator
    }

    /// The user's id, empty where no person is behind the call.
    pub fn user_id(&self) -> &str {
        self.user.as_ref().map_or("", |user| &user.user_id)
    }

    /// "By whom", as it is recorded: the one who began it.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }
}

tokio::task_local! {
    static CURRENT: Caller;
}

/// Runs `future` on behalf of `caller`: what it calls is told of the actor and the deadline.
///
/// `rpc` wraps each handler in it; a background job does so itself.
pub async fn scope<F: Future>(caller: Caller, future: F) -> F::Output {
    CURRENT.scope(caller, future).await
}

/// The caller on whose behalf this task runs, where there is one.
pub fn current() -> Option<Caller> {
    CURRENT.try_with(Clone::clone).ok()
}
