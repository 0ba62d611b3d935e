//! Something to develop against: a tenant with people in it.

use common::Deps;
use common::identity::{Actor, Caller};
use common::pg::Database;
use common::pg::statistics::Statistics;

use crate::app::TenantDirectory;
use crate::config::ApiKeysConfig;
use crate::directory::Directory;
use crate::email::{Email, EmailError};
use crate::error::Error;
use crate::subdomain::{Subdomain, SubdomainError};
use crate::tenant::{Profile, Status, Subscription, Tier};
use crate::user::UserChanges;

/// That the database is there to develop against. Seeding and resetting ask for it, so that nobody comes to either by
/// accident.
#[derive(Clone, Copy, Debug)]
pub struct Development(());

/// The database may be somebody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is done to development databases only, and this one is not said to be one")]
pub struct NotDevelopment;

/// What is there after seeding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeded {
    /// The id of the tenant `acme`.
    pub tenant_id: String,
    /// The id of its administrator.
    pub admin: String,
    /// The ids of its other users.
    pub users: Vec<String>,
}

/// Seeding failed.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// The directory did not take it.
    #[error("the development tenant cannot be made")]
    Directory(#[from] Error),
    /// The tenant is not what it should be.
    #[error("the development data is not valid")]
    Subdomain(#[from] SubdomainError),
    /// As above.
    #[error("the development data is not valid")]
    Email(#[from] EmailError),
}

impl Development {
    /// `is_development` is what the configuration or a flag says of the database.
    ///
    /// # Errors
    /// [`NotDevelopment`] where it says otherwise.
    pub fn confirmed(is_development: bool) -> Result<Self, NotDevelopment> {
        if is_development {
            Ok(Self(()))
        } else {
            Err(NotDevelopment)
        }
    }
}

const TENANT: &str = "acme";
/// Id, first name, last name, role.
const USERS: [(&str, &str, &str, &str); 3] = [
    ("admin", "Alex", "Admin", "admin"),
    ("ada", "Ada", "Jensen", "account_executive"),
    ("ben", "Ben", "Okafor", "customer_success_manager"),
];

/// Makes the tenant `acme`, an enterprise with an active subscription, an administrator and two users, where they are not
/// there; what is there stays as it is. The schema must be migrated.
///
/// # Errors
/// [`SeedError`] where the directory does not take it.
pub async fn seed(db: &Database, deps: &Deps, _: Development) -> Result<Seeded, SeedError> {
    let directory = Directory::new(
        db.clone(),
        deps,
        Statistics::new(db),
        ApiKeysConfig::default(),
    );
    let service = Caller::service(<TenantDirectory as common::service::Service>::NAME);
    let caller = Caller {
        actor: Actor {
            purpose: "development seed".into(),
            ..service.actor
        },
        ..service
    };
    let profile = Profile {
        company_name: "Acme".into(),
        external_id: Some(TENANT.into()),
        subdomain: Some(Subdomain::parse(TENANT)?),
        subscription: Subscription {
            tier: Tier::Enterprise,
            status: Status::Active,
            ..Subscription::default()
        },
        support_contact: "support@acme.example".into(),
        ..Profile::default()
    };
    let (tenant, _) = directory.ensure_tenant(&caller, profile).await?;
    let key = common::TenantKey::parse(&tenant.tenant_id).map_err(|_| Error::TenantNotFound)?;
    for (user_id, first_name, last_name, role) in USERS {
        match directory.get_user(&caller, key, user_id).await {
            Ok(_) => continue,
            Err(Error::UserNotFound) => {}
            Err(error) => return Err(error.into()),
        }
        let changes = UserChanges {
            email: Some(Some(Email::parse(&format!("{user_id}@acme.example"))?)),
            first_name: Some(first_name.into()),
            last_name: Some(last_name.into()),
            roles: Some(vec![role.into()]),
            ..UserChanges::default()
        };
        directory
            .ensure_user(&caller, key, user_id, changes)
            .await?;
    }
    let [admin, users @ ..] = USERS.map(|(user_id, ..)| user_id.to_owned());
    Ok(Seeded {
        tenant_id: tenant.tenant_id,
        admin,
        users: users.to_vec(),
    })
}
