use contracts::directory::v1::*;
use tenant_directory::{Development, NotDevelopment, SCHEMA, seed};

use crate::world::{OPERATOR, World};

#[tokio::test]
async fn req_salesboard_06_seeding_makes_the_development_tenant_once() {
    let world = World::new().await;
    let db = world.database.database(&SCHEMA);
    let deps = testkit::deps();
    assert_eq!(Development::confirmed(false).unwrap_err(), NotDevelopment);
    let first = seed(&db, &deps, Development::confirmed(true).unwrap())
        .await
        .unwrap();
    let again = seed(&db, &deps, Development::confirmed(true).unwrap())
        .await
        .unwrap();
    assert_eq!(first, again);

    let tenant = world.by_subdomain("acme").await.unwrap();
    assert_eq!(
        (tenant.tenant_id.as_str(), tenant.revision),
        (first.tenant_id.as_str(), 1)
    );
    let subscription = tenant.subscription.unwrap();
    assert_eq!(
        (subscription.tier(), subscription.usable),
        (SubscriptionTier::Enterprise, true)
    );
    let request = ListUsersRequest {
        tenant_id: first.tenant_id.clone(),
        ..ListUsersRequest::default()
    };
    let users = world
        .directory(OPERATOR)
        .list_users(request)
        .await
        .unwrap()
        .into_inner()
        .users;
    let admins: Vec<_> = users
        .iter()
        .filter(|user| user.roles == ["admin"])
        .map(|user| user.user_id.clone())
        .collect();
    assert_eq!((users.len(), admins), (3, vec![first.admin]));
    assert_eq!(first.users.len(), 2);
}
