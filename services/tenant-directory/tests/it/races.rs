//! Two instances on one database, and callers that come at once.

use std::collections::HashSet;

use common::Code;
use common::rpc::CallError;
use contracts::directory::v1::*;
use futures::future::join_all;

use crate::world::{Directory, OPERATOR, World, create_at, mask, user};

/// `count` clients, by turns of either instance.
async fn clients(world: &World, count: usize) -> Vec<Directory> {
    let other = world.start(world.database.config("directory")).await;
    let addresses = [world.address(), other];
    (0..count)
        .map(|n| world.directory_at(addresses[n % 2], OPERATOR))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_want_a_subdomain_at_once_one_gets_it() {
    let world = World::new().await;
    let mut clients = clients(&world, 12).await;
    for round in 0..5 {
        let creations = clients.iter_mut().enumerate().map(|(n, client)| {
            let tenant = Tenant {
                company_name: format!("Company {n}"),
                subdomain: format!("wanted-{round}"),
                external_id: format!("{round}-{n}"),
                ..Tenant::default()
            };
            create_at(client, "", tenant)
        });
        let outcomes = join_all(creations).await;
        let won: Vec<_> = outcomes
            .iter()
            .filter_map(|outcome| outcome.as_ref().ok())
            .collect();
        assert_eq!(won.len(), 1, "{outcomes:?}");
        assert!(
            outcomes
                .iter()
                .filter_map(|outcome| outcome.as_ref().err())
                .all(|error| error.code == Code::AlreadyExists)
        );
        let found = world
            .by_subdomain(&format!("wanted-{round}"))
            .await
            .unwrap();
        assert_eq!(found.tenant_id, won[0].tenant_id);
        // The losers keep nothing: not even their external ids.
        let loser = (0..12)
            .find(|n| won[0].external_id != format!("{round}-{n}"))
            .unwrap();
        let heir = Tenant {
            company_name: "Heir".into(),
            external_id: format!("{round}-{loser}"),
            ..Tenant::default()
        };
        world.create_tenant("", heir).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_at_once_makes_one_tenant_and_has_one_answer() {
    let world = World::new().await;
    let mut clients = clients(&world, 10).await;
    for round in 0..5 {
        let request_id = format!("request-{round}");
        let tenant = Tenant {
            company_name: "Acme".into(),
            subdomain: format!("acme-{round}"),
            ..Tenant::default()
        };
        let creations = clients
            .iter_mut()
            .map(|client| create_at(client, &request_id, tenant.clone()));
        let answers: Vec<_> = join_all(creations)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
        assert!(
            answers.iter().all(|answer| *answer == answers[0]),
            "{answers:?}"
        );
    }
    let request = ListTenantsRequest::default();
    let tenants = world
        .directory(OPERATOR)
        .list_tenants(request)
        .await
        .unwrap()
        .into_inner()
        .tenants;
    assert_eq!(tenants.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn ensuring_at_once_makes_one() {
    let world = World::new().await;
    let mut clients = clients(&world, 10).await;
    let tenants = join_all(clients.iter_mut().map(|client| {
        let tenant = Tenant {
            external_id: "org-1".into(),
            ..Tenant::default()
        };
        client.ensure_tenant(EnsureTenantRequest {
            tenant: Some(tenant),
        })
    }));
    let tenants: Vec<_> = tenants
        .await
        .into_iter()
        .map(|answer| answer.unwrap().into_inner())
        .collect();
    assert_eq!(tenants.iter().filter(|answer| answer.created).count(), 1);
    let ids: HashSet<_> = tenants
        .iter()
        .map(|answer| answer.tenant.clone().unwrap().tenant_id)
        .collect();
    assert_eq!(ids.len(), 1);

    let id = ids.into_iter().next().unwrap();
    let users = join_all(clients.iter_mut().map(|client| {
        let user = User {
            email: "jo@acme.example".into(),
            ..user(&id, "jo")
        };
        client.ensure_user(EnsureUserRequest { user: Some(user) })
    }));
    let users: Vec<_> = users
        .await
        .into_iter()
        .map(|answer| answer.unwrap().into_inner())
        .collect();
    assert_eq!(users.iter().filter(|answer| answer.created).count(), 1);
    assert!(
        users
            .iter()
            .all(|answer| answer.user.as_ref().unwrap().revision == 1),
        "a sign-in is no change"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_updates_with_one_etag_one_is_made() {
    let world = World::new().await;
    let tenant = world.create("Acme", "acmeco").await;
    let mut clients = clients(&world, 8).await;
    let updates = clients.iter_mut().enumerate().map(|(n, client)| {
        let change = Tenant {
            company_name: format!("Acme {n}"),
            ..tenant.clone()
        };
        client.update_tenant(UpdateTenantRequest {
            tenant: Some(change),
            update_mask: mask(&["company_name"]),
        })
    });
    let outcomes = join_all(updates).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert!(
        outcomes
            .into_iter()
            .filter_map(Result::err)
            .all(|error| CallError::from(error).code == Code::Aborted)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_that_swap_names_end_with_what_their_rows_say() {
    let world = World::new().await;
    let (a, b) = (
        world.create("A", "left").await,
        world.create("B", "right").await,
    );
    let mut clients = clients(&world, 8).await;
    for _ in 0..6 {
        let renames = clients.iter_mut().enumerate().map(|(n, client)| {
            let tenant_id = if n % 2 == 0 {
                &a.tenant_id
            } else {
                &b.tenant_id
            };
            let subdomain = ["left", "right", "middle"][n % 3];
            let change = Tenant {
                tenant_id: tenant_id.clone(),
                subdomain: subdomain.into(),
                ..Tenant::default()
            };
            client.update_tenant(UpdateTenantRequest {
                tenant: Some(change),
                update_mask: mask(&["subdomain"]),
            })
        });
        for error in join_all(renames).await.into_iter().filter_map(Result::err) {
            let error = CallError::from(error);
            assert!(
                matches!(error.code, Code::AlreadyExists | Code::Unavailable),
                "{error:?}"
            );
        }
        let now = [
            world.get(&a.tenant_id).await.unwrap(),
            world.get(&b.tenant_id).await.unwrap(),
        ];
        assert_ne!(now[0].subdomain, now[1].subdomain);
        for tenant in now {
            assert_eq!(
                world
                    .by_subdomain(&tenant.subdomain)
                    .await
                    .unwrap()
                    .tenant_id,
                tenant.tenant_id
            );
        }
    }
    // Nothing is left behind: each name is held for whoever has it, and no other name is held.
    let admin = world.database.admin().await;
    let held = "SELECT count(*) FROM directory.names WHERE kind = 'subdomain'";
    assert_eq!(
        admin.query_one(held, &[]).await.unwrap().get::<_, i64>(0),
        2
    );
}
