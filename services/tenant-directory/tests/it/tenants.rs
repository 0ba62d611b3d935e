use std::time::Duration;

use common::rpc::CallError;
use common::{Code, Reason};
use contracts::directory::v1::*;
use prost_types::Timestamp;

use crate::world::{HOST, OPERATOR, World, mask, violated};

fn named(company_name: &str) -> Tenant {
    Tenant {
        company_name: company_name.into(),
        ..Tenant::default()
    }
}

fn full(now: i64) -> Tenant {
    Tenant {
        company_name: " Acme Construction ".into(),
        subdomain: "AcmeCo".into(),
        external_id: "cust-42".into(),
        subscription: Some(Subscription {
            tier: SubscriptionTier::Professional.into(),
            status: SubscriptionStatus::Trial.into(),
            trial_ends_at: Some(Timestamp {
                seconds: now + 3600,
                nanos: 123_456_789,
            }),
            billing_customer_id: "cus_9".into(),
            ..Subscription::default()
        }),
        quotas: Some(Quotas {
            connections: 5,
            ..Quotas::default()
        }),
        support_contact: "help@acme.example".into(),
        logo_url: "https://acme.example/logo.svg".into(),
        allowed_origins: vec![
            "https://App.acme.example/".into(),
            "https://app.acme.example".into(),
        ],
        ..Tenant::default()
    }
}

#[tokio::test]
async fn req_salesboard_01_a_tenant_has_a_subdomain_a_plan_and_a_trial() {
    let logs = testkit::logs::capture();
    let world = World::new().await;
    let now = common::Clock::now(&*world.clock).unix_timestamp();
    let tenant = world.create_tenant("", full(now)).await.unwrap();
    assert_eq!(tenant.company_name, "Acme Construction");
    assert_eq!(tenant.subdomain, "acmeco");
    assert_eq!(tenant.allowed_origins, ["https://app.acme.example"]);
    assert_eq!((tenant.state(), tenant.revision), (TenantState::Active, 1));
    let quotas = tenant.quotas.unwrap();
    assert_eq!(
        (
            quotas.connections,
            quotas.max_backfill_days,
            quotas.sync_weight
        ),
        (5, 365, 1)
    );
    let subscription = tenant.subscription.clone().unwrap();
    assert!(subscription.usable && !subscription.trial_ended);
    assert_eq!(subscription.trial_ends_at.unwrap().nanos, 123_456_000);

    assert_eq!(world.get(&tenant.tenant_id).await.unwrap(), tenant);
    assert_eq!(world.by_subdomain("acmeco").await.unwrap(), tenant);
    assert_eq!(world.by_subdomain("ACMECO").await.unwrap(), tenant);
    let mut directory = world.directory(HOST);
    let by_external_id = GetTenantByExternalIdRequest {
        external_id: "cust-42".into(),
    };
    assert_eq!(
        directory
            .get_tenant_by_external_id(by_external_id)
            .await
            .unwrap()
            .into_inner()
            .tenant
            .unwrap(),
        tenant
    );
    let by_billing = GetTenantByBillingCustomerIdRequest {
        billing_customer_id: "cus_9".into(),
    };
    assert_eq!(
        directory
            .get_tenant_by_billing_customer_id(by_billing)
            .await
            .unwrap()
            .into_inner()
            .tenant
            .unwrap(),
        tenant
    );
    for unknown in ["nobody", "www", "not a label"] {
        assert_eq!(
            world.by_subdomain(unknown).await.unwrap_err().code,
            Code::NotFound,
            "{unknown}"
        );
    }

    world.clock.advance(Duration::from_hours(2));
    let subscription = world
        .get(&tenant.tenant_id)
        .await
        .unwrap()
        .subscription
        .unwrap();
    assert!(!subscription.usable && subscription.trial_ended);
    // A billing webhook says that it was paid.
    let paid = Subscription {
        status: SubscriptionStatus::Active.into(),
        ..Subscription::default()
    };
    let change = Tenant {
        tenant_id: tenant.tenant_id,
        subscription: Some(paid),
        ..Tenant::default()
    };
    let subscription = world
        .update(change, &["subscription.status"])
        .await
        .unwrap()
        .subscription
        .unwrap();
    assert!(subscription.usable && !subscription.trial_ended);
    assert_eq!(
        (
            subscription.tier(),
            subscription.billing_customer_id.as_str()
        ),
        (SubscriptionTier::Professional, "cus_9")
    );
    drop(logs);
}

#[tokio::test]
async fn a_request_with_every_field_wrong_is_told_of_each() {
    let world = World::new().await;
    let wrong = Tenant {
        company_name: " ".into(),
        external_id: "a\u{7}".into(),
        subdomain: "admin".into(),
        subscription: Some(Subscription {
            tier: 99,
            status: -1,
            trial_ends_at: Some(Timestamp {
                seconds: i64::MAX,
                nanos: 0,
            }),
            billing_customer_id: "x".repeat(300),
            ..Subscription::default()
        }),
        quotas: Some(Quotas {
            documents_per_user_per_day: -1,
            connections: i64::MAX,
            max_backfill_days: -5,
            sync_weight: i32::MAX,
        }),
        support_contact: "javascript:alert(1)".into(),
        logo_url: "ftp://acme.example/logo".into(),
        allowed_origins: vec!["https://acme.example/path".into()],
        ..Tenant::default()
    };
    let everything = [
        "tenant.allowed_origins[0]",
        "tenant.company_name",
        "tenant.external_id",
        "tenant.logo_url",
        "tenant.quotas.connections",
        "tenant.quotas.documents_per_user_per_day",
        "tenant.quotas.max_backfill_days",
        "tenant.quotas.sync_weight",
        "tenant.subdomain",
        "tenant.subscription.billing_customer_id",
        "tenant.subscription.status",
        "tenant.subscription.tier",
        "tenant.subscription.trial_ends_at",
        "tenant.support_contact",
    ];
    let mut expected = vec!["request_id"];
    expected.extend(everything);
    let request_id = "r".repeat(201);
    assert_eq!(
        violated(world.create_tenant(&request_id, wrong.clone()).await),
        expected
    );

    let change = Tenant {
        tenant_id: "acme".into(),
        state: TenantState::Deleted.into(),
        ..wrong.clone()
    };
    let mut expected = everything.to_vec();
    expected.extend([
        "tenant.state",
        "tenant.tenant_id",
        "update_mask",
        "update_mask",
        "update_mask",
    ]);
    expected.sort_unstable();
    let paths = ["*", "state", "revision", "subscription.usable", "a..b"];
    assert_eq!(violated(world.update(change, &paths).await), expected);

    let request = EnsureTenantRequest {
        tenant: Some(Tenant {
            external_id: String::new(),
            ..wrong
        }),
    };
    let outcome = world
        .directory(OPERATOR)
        .ensure_tenant(request)
        .await
        .map_err(CallError::from);
    assert!(violated(outcome).contains(&"tenant.external_id".to_owned()));
    let request = ListTenantsRequest {
        page_size: -1,
        page_token: "!".into(),
        search: "x".repeat(300),
    };
    let outcome = world
        .directory(OPERATOR)
        .list_tenants(request)
        .await
        .map_err(CallError::from);
    assert_eq!(violated(outcome), ["page_size", "page_token", "search"]);
    let request = DeleteTenantRequest::default();
    let outcome = world
        .directory(OPERATOR)
        .delete_tenant(request)
        .await
        .map_err(CallError::from);
    assert_eq!(violated(outcome), ["confirm_subdomain", "tenant_id"]);
}

#[tokio::test]
async fn a_repeated_creation_has_the_first_answer() {
    let world = World::new().await;
    let order = Tenant {
        subdomain: "first".into(),
        ..named("First")
    };
    let first = world
        .create_tenant("request-1", order.clone())
        .await
        .unwrap();
    let change = Tenant {
        tenant_id: first.tenant_id.clone(),
        subdomain: "renamed".into(),
        ..Tenant::default()
    };
    world.update(change, &["subdomain"]).await.unwrap();
    assert_eq!(
        world
            .create_tenant("request-1", order.clone())
            .await
            .unwrap(),
        first,
        "as it was then"
    );

    let other = Tenant {
        subdomain: "other".into(),
        ..order.clone()
    };
    let error = world.create_tenant("request-1", other).await.unwrap_err();
    assert_eq!(
        (error.code, error.reason),
        (Code::AlreadyExists, Some(Reason::RequestIdReused))
    );
    // Its name is free again, and another request may have it.
    let second = world.create_tenant("request-2", order).await.unwrap();
    assert_ne!(second.tenant_id, first.tenant_id);

    // A creation that was refused has made nothing: the same id may come with another name.
    let taken = Tenant {
        subdomain: "first".into(),
        ..named("Third")
    };
    assert_eq!(
        world
            .create_tenant("request-3", taken)
            .await
            .unwrap_err()
            .code,
        Code::AlreadyExists
    );
    let third = world
        .create_tenant(
            "request-3",
            Tenant {
                subdomain: "third".into(),
                ..named("Third")
            },
        )
        .await
        .unwrap();
    assert_eq!(third.subdomain, "third");
}

#[tokio::test]
async fn names_are_unique_over_all_tenants_and_free_once_they_are_given_up() {
    let world = World::new().await;
    let now = common::Clock::now(&*world.clock).unix_timestamp();
    let first = world.create_tenant("", full(now)).await.unwrap();
    let other = |tenant: Tenant| world.create_tenant("", tenant);
    let billing = Subscription {
        billing_customer_id: "cus_9".into(),
        ..Subscription::default()
    };
    for (field, taken) in [
        (
            "subdomain",
            Tenant {
                subdomain: "acmeco".into(),
                ..named("B")
            },
        ),
        (
            "external_id",
            Tenant {
                external_id: "cust-42".into(),
                ..named("B")
            },
        ),
        (
            "billing_customer_id",
            Tenant {
                subscription: Some(billing.clone()),
                ..named("B")
            },
        ),
    ] {
        let error = other(taken).await.unwrap_err();
        assert_eq!(error.code, Code::AlreadyExists);
        assert!(error.message.contains(field), "{}", error.message);
    }
    // A creation that fails on its second name does not keep the first.
    let half = Tenant {
        subdomain: "half".into(),
        external_id: "cust-42".into(),
        ..named("B")
    };
    assert_eq!(other(half).await.unwrap_err().code, Code::AlreadyExists);
    assert_eq!(
        other(Tenant {
            subdomain: "half".into(),
            ..named("B")
        })
        .await
        .unwrap()
        .subdomain,
        "half"
    );

    let id = first.tenant_id.clone();
    let change = Tenant {
        tenant_id: id.clone(),
        subdomain: "half".into(),
        ..Tenant::default()
    };
    assert_eq!(
        world.update(change, &["subdomain"]).await.unwrap_err().code,
        Code::AlreadyExists
    );
    let change = Tenant {
        tenant_id: id.clone(),
        subdomain: "moved".into(),
        ..Tenant::default()
    };
    world
        .update(change, &["subdomain", "external_id"])
        .await
        .unwrap();
    assert_eq!(
        world.by_subdomain("acmeco").await.unwrap_err().code,
        Code::NotFound
    );
    assert_eq!(world.by_subdomain("moved").await.unwrap().tenant_id, id);
    let heir = Tenant {
        subdomain: "acmeco".into(),
        external_id: "cust-42".into(),
        ..named("Heir")
    };
    let heir = other(heir).await.unwrap();
    assert_eq!(
        world.by_subdomain("acmeco").await.unwrap().tenant_id,
        heir.tenant_id
    );
    // And back, once the heir has let go.
    world
        .update(
            Tenant {
                tenant_id: heir.tenant_id,
                ..Tenant::default()
            },
            &["subdomain"],
        )
        .await
        .unwrap();
    let change = Tenant {
        tenant_id: id.clone(),
        subdomain: "acmeco".into(),
        ..Tenant::default()
    };
    assert_eq!(
        world
            .update(change, &["subdomain"])
            .await
            .unwrap()
            .subdomain,
        "acmeco"
    );
    assert_eq!(
        world.by_subdomain("moved").await.unwrap_err().code,
        Code::NotFound
    );
}

#[tokio::test]
async fn an_update_changes_what_the_mask_names_and_needs_the_present_etag() {
    let world = World::new().await;
    let now = common::Clock::now(&*world.clock).unix_timestamp();
    let before = world.create_tenant("", full(now)).await.unwrap();
    let id = before.tenant_id.clone();
    let change = Tenant {
        tenant_id: id.clone(),
        etag: before.etag.clone(),
        company_name: "Renamed".into(),
        support_contact: "ignored@acme.example".into(),
        ..Tenant::default()
    };
    let after = world
        .update(change.clone(), &["company_name"])
        .await
        .unwrap();
    let expected = Tenant {
        company_name: "Renamed".into(),
        etag: after.etag.clone(),
        revision: 2,
        updated_at: after.updated_at,
        ..before.clone()
    };
    assert_eq!(after, expected);
    assert_ne!(after.etag, before.etag);

    let error = world.update(change, &["company_name"]).await.unwrap_err();
    assert_eq!(
        (error.code, error.reason),
        (Code::Aborted, Some(Reason::EtagMismatch))
    );
    assert_eq!(error.metadata["etag"], after.etag);
    // What is the same already is no change.
    let same = Tenant {
        tenant_id: id.clone(),
        company_name: "Renamed".into(),
        ..Tenant::default()
    };
    assert_eq!(world.update(same, &["company_name"]).await.unwrap(), after);
    // Without a mask, what has a value; with one, an empty value clears.
    let part = Tenant {
        tenant_id: id.clone(),
        logo_url: "https://acme.example/new.svg".into(),
        ..Tenant::default()
    };
    let request = UpdateTenantRequest {
        tenant: Some(part),
        update_mask: None,
    };
    let after = world
        .directory(OPERATOR)
        .update_tenant(request)
        .await
        .unwrap()
        .into_inner()
        .tenant
        .unwrap();
    assert_eq!(
        (after.logo_url.as_str(), after.company_name.as_str()),
        ("https://acme.example/new.svg", "Renamed")
    );
    let empty = Tenant {
        tenant_id: id.clone(),
        ..Tenant::default()
    };
    let after = world
        .update(
            empty.clone(),
            &["logo_url", "quotas", "subscription.trial_ends_at"],
        )
        .await
        .unwrap();
    assert_eq!(
        (after.logo_url.as_str(), after.quotas.unwrap().connections),
        ("", 0)
    );
    assert_eq!(after.subscription.unwrap().trial_ends_at, None);
    let error = world
        .update(empty, &["nonsense", "company_name.x"])
        .await
        .unwrap_err();
    assert!(
        error.message.contains("`nonsense`") && error.message.contains("`company_name.x`"),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn a_tenant_is_suspended_and_resumed() {
    let world = World::new().await;
    let tenant = world.create("Acme", "acmeco").await;
    let to = |state: TenantState| Tenant {
        tenant_id: tenant.tenant_id.clone(),
        state: state.into(),
        ..Tenant::default()
    };
    assert_eq!(
        world
            .update(to(TenantState::Suspended), &["state"])
            .await
            .unwrap()
            .state(),
        TenantState::Suspended
    );
    assert_eq!(
        world.get(&tenant.tenant_id).await.unwrap().state(),
        TenantState::Suspended
    );
    assert_eq!(
        world
            .update(to(TenantState::Active), &["state"])
            .await
            .unwrap()
            .revision,
        3
    );
    assert_eq!(
        violated(world.update(to(TenantState::Deleting), &["state"]).await),
        ["tenant.state"]
    );
}

#[tokio::test]
async fn ensure_tenant_makes_one_and_then_leaves_it_as_it_is() {
    let world = World::new().await;
    let ensure = async |tenant: Tenant| {
        let request = EnsureTenantRequest {
            tenant: Some(tenant),
        };
        world
            .directory(HOST)
            .ensure_tenant(request)
            .await
            .unwrap()
            .into_inner()
    };
    let first = ensure(Tenant {
        external_id: "org-1".into(),
        ..Tenant::default()
    })
    .await;
    assert!(first.created);
    assert_eq!(first.tenant.as_ref().unwrap().company_name, "org-1");
    let again = ensure(Tenant {
        external_id: "org-1".into(),
        ..named("Other")
    })
    .await;
    assert!(!again.created);
    assert_eq!(again.tenant, first.tenant);
}

#[tokio::test]
async fn a_list_shows_each_tenant_once_while_more_are_added() {
    let world = World::new().await;
    let mut before = Vec::new();
    for n in 0..7 {
        before.push(
            world
                .create(&format!("Company {n}"), &format!("company-{n}"))
                .await
                .tenant_id,
        );
    }
    let mut directory = world.directory(OPERATOR);
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let request = ListTenantsRequest {
            page_size: 2,
            page_token: token,
            search: String::new(),
        };
        let page = directory.list_tenants(request).await.unwrap().into_inner();
        assert!(page.tenants.len() <= 2);
        seen.extend(page.tenants.into_iter().map(|tenant| tenant.tenant_id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
        if seen.len() < 6 {
            world.create("Late", &format!("late-{}", seen.len())).await;
        }
    }
    before.sort();
    let mut once = seen.clone();
    once.dedup();
    assert_eq!(once, seen, "none twice");
    assert!(before.iter().all(|id| seen.contains(id)), "none left out");

    let search = async |search: &str| {
        let request = ListTenantsRequest {
            search: search.into(),
            ..ListTenantsRequest::default()
        };
        world
            .directory(OPERATOR)
            .list_tenants(request)
            .await
            .unwrap()
            .into_inner()
            .tenants
            .len()
    };
    assert_eq!(
        (
            search("COMPANY 3").await,
            search("company-").await,
            search("100%").await,
            search("").await
        ),
        (1, 7, 0, seen.len().max(9))
    );

    let request = ListTenantsRequest {
        page_size: 1,
        ..ListTenantsRequest::default()
    };
    let token = directory
        .list_tenants(request)
        .await
        .unwrap()
        .into_inner()
        .next_page_token;
    let other = ListTenantsRequest {
        page_token: token.clone(),
        search: "company".into(),
        page_size: 1,
    };
    assert_eq!(
        violated(directory.list_tenants(other).await.map_err(CallError::from)),
        ["page_token"]
    );
    let users = ListUsersRequest {
        tenant_id: before[0].clone(),
        page_token: token,
        page_size: 1,
    };
    assert_eq!(
        violated(directory.list_users(users).await.map_err(CallError::from)),
        ["page_token"]
    );
}

#[tokio::test]
async fn a_batch_answers_in_the_order_asked_with_places_for_what_is_unknown() {
    let world = World::new().await;
    let (a, b) = (
        world.create("A", "aaa").await,
        world.create("B", "bbb").await,
    );
    let unknown = common::TenantKey::new_tenant(&testkit::deps()).to_string();
    let ids = vec![
        b.tenant_id.clone(),
        unknown,
        a.tenant_id.clone(),
        b.tenant_id.clone(),
    ];
    let request = BatchGetTenantsRequest { tenant_ids: ids };
    let answer = world
        .directory(OPERATOR)
        .batch_get_tenants(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.tenants, [b.clone(), Tenant::default(), a, b]);
    let request = BatchGetTenantsRequest {
        tenant_ids: vec!["x".into(); 1001],
    };
    let outcome = world
        .directory(OPERATOR)
        .batch_get_tenants(request)
        .await
        .map_err(CallError::from);
    assert_eq!(violated(outcome), ["tenant_ids"]);
    // Of very many wrong ones the first are named: the answer has to arrive.
    let request = BatchGetTenantsRequest {
        tenant_ids: vec!["x".into(); 1000],
    };
    let outcome = world
        .directory(OPERATOR)
        .batch_get_tenants(request)
        .await
        .map_err(CallError::from);
    let fields = violated(outcome);
    assert_eq!((fields.len(), fields[0].as_str()), (10, "tenant_ids[0]"));
    let long = "x".repeat(5_000);
    let paths = [long.as_str(); 150];
    assert_eq!(
        violated(world.update(Tenant::default(), &paths).await).len(),
        11
    );
}

#[tokio::test]
async fn changes_are_audited_with_who_made_them() {
    let world = World::new().await;
    let tenant = world.create("Acme", "acmeco").await;
    // Events of one moment have no order.
    world.clock.advance(Duration::from_secs(1));
    let change = Tenant {
        tenant_id: tenant.tenant_id.clone(),
        company_name: "B".into(),
        ..Tenant::default()
    };
    let request = UpdateTenantRequest {
        tenant: Some(change),
        update_mask: mask(&["company_name"]),
    };
    world
        .directory(HOST)
        .update_tenant(world.signed(request, &tenant.tenant_id, "u1", &["admin"]))
        .await
        .unwrap();
    let request = contracts::operations::v1::ListAuditEventsRequest {
        tenant_id: tenant.tenant_id.clone(),
        ..Default::default()
    };
    let events = world
        .operations(OPERATOR)
        .list_audit_events(request)
        .await
        .unwrap()
        .into_inner()
        .audit_events;
    let lines: Vec<_> = events
        .iter()
        .map(|e| {
            (
                e.action.as_str(),
                e.actor.as_str(),
                e.actor_user_id.as_str(),
                e.resource.as_str(),
            )
        })
        .collect();
    let resource = format!("tenants/{}", tenant.tenant_id);
    assert_eq!(
        lines,
        [
            (
                "DirectoryService/UpdateTenant",
                HOST,
                "u1",
                resource.as_str()
            ),
            (
                "DirectoryService/CreateTenant",
                OPERATOR,
                "",
                resource.as_str()
            ),
        ]
    );
}
