//! Who may do what, beyond what the policy says of the method.
//!
//! The policy lets a caller call; here it is decided what it reaches. Another tenant's things are not found; what a
//! caller may see and not change is denied.

use common::TenantKey;
use common::identity::{Acting, Caller, Identity, Tenants};

use crate::error::Error;

/// The tenants that a list is narrowed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    All,
    Only(Vec<TenantKey>),
}

/// Tenants are made, and lists over all of them watched, by whoever reaches all of them: operators, and backends of the
/// host application that no user stands behind.
pub(crate) fn every_tenant(caller: &Caller) -> Result<(), Error> {
    match reach(caller) {
        Reach::All => Ok(()),
        Reach::Only(_) => Err(Error::Denied(
            "only operators, and the host application where no user is behind the call, may do this",
        )),
    }
}

/// What a list over tenants is narrowed to.
pub(crate) fn reach(caller: &Caller) -> Reach {
    match (&caller.user, &caller.tenants) {
        (Some(user), _) if caller.acting < Acting::Service => Reach::Only(vec![user.tenant]),
        (_, Tenants::Any) => Reach::All,
        (_, Tenants::Only(tenants)) => Reach::Only(tenants.clone()),
    }
}

/// A tenant that was found by a name, if the caller reaches it.
pub(crate) fn found(caller: &Caller, tenant: TenantKey) -> Result<TenantKey, Error> {
    if caller.reaches(tenant) {
        Ok(tenant)
    } else {
        Err(Error::TenantNotFound)
    }
}

/// A user who is no administrator changes nothing of its tenant.
pub(crate) fn administers(caller: &Caller) -> Result<(), Error> {
    if caller.acting == Acting::Own {
        Err(Error::Denied(
            "only an administrator of the tenant may do this",
        ))
    } else {
        Ok(())
    }
}

/// What is the platform's affair, a tenant's administrators do not decide: plan, quotas, names, its end.
pub(crate) fn decides_for_platform(caller: &Caller) -> Result<(), Error> {
    if caller.user.is_some() && caller.acting < Acting::Service {
        return Err(Error::Denied(
            "no user may do this, only operators and the host application itself",
        ));
    }
    Ok(())
}

/// API keys are the operators'.
pub(crate) fn operator(caller: &Caller) -> Result<(), Error> {
    if caller.is_operator() {
        Ok(())
    } else {
        Err(Error::Denied("only operators may do this"))
    }
}

/// Whose key it is, is told to those who have to know.
pub(crate) fn service(caller: &Caller) -> Result<(), Error> {
    if caller.acting >= Acting::Service {
        Ok(())
    } else {
        Err(Error::Denied("only Hawser's services may do this"))
    }
}

/// The service that a report comes from: the caller itself, or the one that an operator speaks for.
pub(crate) fn reporter(caller: &Caller, named: &str) -> Result<String, Error> {
    match &caller.identity {
        Identity::Service(name)
            if caller.acting == Acting::Service && (named.is_empty() || named == name) =>
        {
            Ok(name.clone())
        }
        _ if caller.is_operator() => Ok(named.to_owned()),
        _ => Err(Error::Denied("each service reports for itself")),
    }
}
