use std::time::Duration;

use common::Code;
use common::rpc::CallError;
use contracts::directory::v1::*;
use testkit::eventually;

use crate::world::{BROKER, HOST, INGEST, OPERATOR, SCHEDULER, World, code, user, violated};

const ORDER: [(DeletionStep, &str); 7] = [
    (DeletionStep::StopSyncs, SCHEDULER),
    (DeletionStep::EndSubscriptions, INGEST),
    (DeletionStep::RevokeGrants, BROKER),
    (DeletionStep::EraseData, BROKER),
    (DeletionStep::EraseData, SCHEDULER),
    (DeletionStep::EraseData, INGEST),
    (DeletionStep::ShredKeys, BROKER),
];

async fn delete(world: &World, tenant: &Tenant, confirm: &str) -> Result<(), CallError> {
    let request = DeleteTenantRequest {
        tenant_id: tenant.tenant_id.clone(),
        confirm_subdomain: confirm.into(),
    };
    world.directory(HOST).delete_tenant(request).await?;
    Ok(())
}

async fn open(world: &World, tenant_id: &str) -> Vec<Deletion> {
    let request = ListDeletionsRequest {
        tenant_id: tenant_id.into(),
        ..ListDeletionsRequest::default()
    };
    world
        .directory(SCHEDULER)
        .list_deletions(request)
        .await
        .unwrap()
        .into_inner()
        .deletions
}

async fn report(
    world: &World,
    by: &str,
    deletion: &Deletion,
    step: DeletionStep,
    done: bool,
    detail: &str,
) -> Result<Deletion, CallError> {
    let request = ReportDeletionRequest {
        tenant_id: deletion.tenant_id.clone(),
        deletion_id: deletion.deletion_id.clone(),
        step: step.into(),
        done,
        detail: detail.into(),
        service: String::new(),
    };
    Ok(world
        .directory(by)
        .report_deletion(request)
        .await?
        .into_inner()
        .deletion
        .unwrap())
}

#[tokio::test]
async fn a_tenant_ends_step_by_step_and_leaves_its_names_free() {
    let logs = testkit::logs::capture();
    let world = World::new().await;
    let tenant = Tenant {
        company_name: "Acme".into(),
        subdomain: "acmeco".into(),
        external_id: "org-1".into(),
        support_contact: "help@acme.example".into(),
        ..Tenant::default()
    };
    let tenant = world.create_tenant("", tenant).await.unwrap();
    let id = tenant.tenant_id.as_str();
    world.ensure_user(user(id, "jo")).await.unwrap();

    assert_eq!(
        violated(delete(&world, &tenant, "other").await),
        ["confirm_subdomain"]
    );
    assert_eq!(world.get(id).await.unwrap().state(), TenantState::Active);
    delete(&world, &tenant, "acmeco").await.unwrap();
    delete(&world, &tenant, "acmeco").await.unwrap();
    let deleting = world.get(id).await.unwrap();
    assert_eq!(
        (deleting.state(), deleting.revision),
        (TenantState::Deleting, 2)
    );
    assert_eq!(deleting.deletion, "sync-scheduler: waiting");
    // Reads go on, changes do not.
    assert_eq!(world.by_subdomain("acmeco").await.unwrap().tenant_id, id);
    assert_eq!(
        world.ensure_user(user(id, "late")).await.unwrap_err().code,
        Code::FailedPrecondition
    );
    let change = Tenant {
        tenant_id: id.into(),
        company_name: "B".into(),
        ..Tenant::default()
    };
    assert_eq!(
        world
            .update(change, &["company_name"])
            .await
            .unwrap_err()
            .code,
        Code::FailedPrecondition
    );

    let all = open(&world, "").await;
    assert_eq!(all.len(), 1);
    let deletion = all[0].clone();
    assert_eq!(
        (deletion.step(), deletion.waiting_for.as_slice()),
        (DeletionStep::StopSyncs, &["sync-scheduler".to_owned()][..])
    );
    let early = report(
        &world,
        BROKER,
        &deletion,
        DeletionStep::RevokeGrants,
        true,
        "",
    )
    .await
    .unwrap_err();
    assert_eq!(early.code, Code::FailedPrecondition);
    assert_eq!(
        violated(report(&world, INGEST, &deletion, DeletionStep::StopSyncs, true, "").await),
        ["step"]
    );
    report(
        &world,
        SCHEDULER,
        &deletion,
        DeletionStep::StopSyncs,
        false,
        "3 jobs left",
    )
    .await
    .unwrap();
    let waiting = world.get(id).await.unwrap();
    assert_eq!(
        (waiting.deletion.as_str(), waiting.revision),
        ("sync-scheduler: 3 jobs left", 2)
    );

    for (step, by) in ORDER {
        if step == DeletionStep::ShredKeys {
            // The directory has to do its own part first.
            eventually(Duration::from_secs(10), async || {
                open(&world, id)
                    .await
                    .first()
                    .is_some_and(|deletion| deletion.step() == DeletionStep::ShredKeys)
            })
            .await;
        }
        assert!(
            open(&world, id).await[0]
                .waiting_for
                .contains(&by.trim_start_matches("spiffe://hawser/").to_owned())
        );
        let after = report(&world, by, &deletion, step, true, "").await.unwrap();
        let again = report(&world, by, &deletion, step, true, "again")
            .await
            .unwrap();
        assert!(
            again.step() >= after.step(),
            "a repeated report is taken, and changes nothing"
        );
    }
    assert!(open(&world, id).await.is_empty());
    let gone = world.get(id).await.unwrap();
    assert_eq!(gone.state(), TenantState::Deleted);
    assert_eq!(
        (
            gone.company_name.as_str(),
            gone.subdomain.as_str(),
            gone.external_id.as_str(),
            gone.support_contact.as_str()
        ),
        ("Acme", "", "", "")
    );
    assert!(
        gone.deletion
            .split("; ")
            .all(|said| said.ends_with(": done")),
        "{}",
        gone.deletion
    );

    let request = GetUserRequest {
        tenant_id: id.into(),
        user_id: "jo".into(),
    };
    assert_eq!(
        code(world.directory(HOST).get_user(request).await),
        Code::NotFound
    );
    assert_eq!(
        code(
            world
                .directory(HOST)
                .get_tenant_config(GetTenantConfigRequest {
                    tenant_id: id.into()
                })
                .await
        ),
        Code::NotFound
    );
    assert_eq!(
        world.by_subdomain("acmeco").await.unwrap_err().code,
        Code::NotFound
    );
    let listed = world
        .directory(OPERATOR)
        .list_tenants(ListTenantsRequest::default())
        .await
        .unwrap()
        .into_inner()
        .tenants;
    assert!(listed.is_empty());
    let heir = Tenant {
        subdomain: "acmeco".into(),
        external_id: "org-1".into(),
        company_name: "Heir".into(),
        ..Tenant::default()
    };
    world.create_tenant("", heir).await.unwrap();
    let request = contracts::operations::v1::ListAuditEventsRequest {
        tenant_id: id.into(),
        ..Default::default()
    };
    let events = world
        .operations(OPERATOR)
        .list_audit_events(request)
        .await
        .unwrap()
        .into_inner()
        .audit_events;
    assert!(events.len() > 5, "audit events stay: {events:?}");
    drop(logs);
}

#[tokio::test]
async fn a_tenant_without_a_subdomain_is_confirmed_by_its_id() {
    let world = World::new().await;
    let tenant = world
        .create_tenant(
            "",
            Tenant {
                company_name: "Acme".into(),
                ..Tenant::default()
            },
        )
        .await
        .unwrap();
    assert_eq!(
        violated(delete(&world, &tenant, "Acme").await),
        ["confirm_subdomain"]
    );
    delete(&world, &tenant, &tenant.tenant_id).await.unwrap();
    assert_eq!(
        world.get(&tenant.tenant_id).await.unwrap().state(),
        TenantState::Deleting
    );
}

#[tokio::test]
async fn a_users_end_is_followed_through_every_service() {
    let world = World::new().await;
    let tenant = world.create("Acme", "acmeco").await.tenant_id;
    world.ensure_user(user(&tenant, "jo")).await.unwrap();
    let request = DeleteUserRequest {
        tenant_id: tenant.clone(),
        user_id: "jo".into(),
        delete_documents: false,
    };
    world.directory(HOST).delete_user(request).await.unwrap();
    let deletion = open(&world, &tenant).await.remove(0);
    assert_eq!(
        (deletion.user_id.as_str(), deletion.delete_documents),
        ("jo", false)
    );
    for (step, by) in ORDER
        .into_iter()
        .filter(|(step, _)| *step != DeletionStep::ShredKeys)
    {
        report(&world, by, &deletion, step, true, "").await.unwrap();
    }
    assert!(open(&world, &tenant).await.is_empty());
    assert_eq!(
        world.get(&tenant).await.unwrap().revision,
        1,
        "the tenant has not changed"
    );
}

#[tokio::test]
async fn each_service_reports_for_itself_and_an_operator_for_one_that_is_gone() {
    let world = World::new().await;
    let tenant = world.create("Acme", "acmeco").await;
    delete(&world, &tenant, "acmeco").await.unwrap();
    let deletion = open(&world, &tenant.tenant_id).await.remove(0);
    let request = |service: &str| ReportDeletionRequest {
        tenant_id: deletion.tenant_id.clone(),
        deletion_id: deletion.deletion_id.clone(),
        step: DeletionStep::StopSyncs.into(),
        done: true,
        detail: "not deployed".into(),
        service: service.into(),
    };
    assert_eq!(
        code(
            world
                .directory(BROKER)
                .report_deletion(request("sync-scheduler"))
                .await
        ),
        Code::PermissionDenied
    );
    assert_eq!(
        code(
            world
                .directory(HOST)
                .report_deletion(request("sync-scheduler"))
                .await
        ),
        Code::PermissionDenied
    );
    assert_eq!(
        code(world.directory(OPERATOR).report_deletion(request("")).await),
        Code::InvalidArgument
    );
    let after = world
        .directory(OPERATOR)
        .report_deletion(request("sync-scheduler"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        after.deletion.unwrap().step(),
        DeletionStep::EndSubscriptions
    );
    let wrong = ReportDeletionRequest {
        tenant_id: "x".into(),
        deletion_id: "y".into(),
        step: 6,
        detail: "x".repeat(501),
        ..request("x")
    };
    let outcome = world
        .directory(OPERATOR)
        .report_deletion(wrong)
        .await
        .map_err(CallError::from);
    assert_eq!(
        violated(outcome),
        ["deletion_id", "detail", "step", "tenant_id"]
    );
    // The hosts' backends see how far it is; all of them, those see who run the platform.
    let request = ListDeletionsRequest {
        tenant_id: tenant.tenant_id.clone(),
        ..ListDeletionsRequest::default()
    };
    assert_eq!(
        world
            .directory(HOST)
            .list_deletions(request)
            .await
            .unwrap()
            .into_inner()
            .deletions
            .len(),
        1
    );
    assert_eq!(
        code(
            world
                .directory(HOST)
                .list_deletions(ListDeletionsRequest::default())
                .await
        ),
        Code::PermissionDenied
    );
}
