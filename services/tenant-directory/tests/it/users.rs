use common::rpc::CallError;
use common::{Code, Reason};
use contracts::directory::v1::*;

use crate::world::{HOST, OPERATOR, World, mask, user, violated};

async fn update(world: &World, user: User, paths: &[&str]) -> Result<User, CallError> {
    let request = UpdateUserRequest {
        user: Some(user),
        update_mask: mask(paths),
    };
    Ok(world
        .directory(HOST)
        .update_user(request)
        .await?
        .into_inner()
        .user
        .unwrap())
}

async fn get(world: &World, tenant_id: &str, user_id: &str) -> Result<User, CallError> {
    let request = GetUserRequest {
        tenant_id: tenant_id.into(),
        user_id: user_id.into(),
    };
    Ok(world
        .directory(HOST)
        .get_user(request)
        .await?
        .into_inner()
        .user
        .unwrap())
}

#[tokio::test]
async fn req_salesboard_02_a_user_has_roles_provider_ids_a_profile_and_a_last_sign_in() {
    let logs = testkit::logs::capture();
    let world = World::new().await;
    let tenant = world.create("Acme", "acmeco").await.tenant_id;
    let first = User {
        email: " Jo.Doe@ACME.example ".into(),
        first_name: "Jo".into(),
        last_name: "Doe".into(),
        roles: vec!["account_executive".into(), "admin".into(), "admin".into()],
        external_user_ids: [("salesforce".into(), "005A".into())].into(),
        profile_json: r#"{"Profile": "Sales User"}"#.into(),
        ..user(&tenant, "jo")
    };
    let (made, created) = world.ensure_user(first).await.unwrap();
    assert!(created);
    assert_eq!(
        (made.email.as_str(), made.roles.len(), made.revision),
        ("Jo.Doe@acme.example", 2, 1)
    );
    assert_eq!(made.profile_json, r#"{"Profile": "Sales User"}"#);
    assert_eq!(made.last_login_at, made.created_at);

    // The next sign-in says less, and what it does not say stays.
    world.clock.advance(std::time::Duration::from_hours(1));
    let (again, created) = world.ensure_user(user(&tenant, "jo")).await.unwrap();
    assert!(!created && again.last_login_at.unwrap().seconds > made.last_login_at.unwrap().seconds);
    assert_eq!(
        again,
        User {
            last_login_at: again.last_login_at,
            ..made.clone()
        }
    );
    // One that says something new is a change.
    let more = User {
        last_name: "Dow".into(),
        external_user_ids: [("procore".into(), "7".into())].into(),
        ..user(&tenant, "jo")
    };
    let (changed, _) = world.ensure_user(more).await.unwrap();
    assert_eq!(
        (
            changed.revision,
            changed.first_name.as_str(),
            changed.last_name.as_str()
        ),
        (2, "Jo", "Dow")
    );
    assert_eq!(changed.external_user_ids.len(), 2);
    assert_eq!(get(&world, &tenant, "jo").await.unwrap(), changed);
    drop(logs);
}

#[tokio::test]
async fn an_email_is_one_users_within_the_tenant_however_it_is_written() {
    let world = World::new().await;
    let (a, b) = (
        world.create("A", "aaa").await.tenant_id,
        world.create("B", "bbb").await.tenant_id,
    );
    let with = |tenant: &str, id: &str, email: &str| User {
        email: email.into(),
        ..user(tenant, id)
    };
    world
        .ensure_user(with(&a, "jo", "Jo@acme.example"))
        .await
        .unwrap();
    let error = world
        .ensure_user(with(&a, "joe", "JO@ACME.example"))
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::AlreadyExists);
    assert_eq!(
        get(&world, &a, "joe").await.unwrap_err().code,
        Code::NotFound
    );
    world
        .ensure_user(with(&b, "jo", "jo@acme.example"))
        .await
        .unwrap();
    // Nobody has to have one.
    world.ensure_user(user(&a, "x")).await.unwrap();
    world.ensure_user(user(&a, "y")).await.unwrap();
    assert_eq!(
        update(&world, with(&a, "x", "jo@Acme.Example"), &["email"])
            .await
            .unwrap_err()
            .code,
        Code::AlreadyExists
    );
    update(&world, user(&a, "jo"), &["email"]).await.unwrap();
    assert_eq!(
        update(&world, with(&a, "x", "jo@acme.example"), &["email"])
            .await
            .unwrap()
            .email,
        "jo@acme.example"
    );
}

#[tokio::test]
async fn an_update_reaches_down_to_one_id_at_a_provider() {
    let world = World::new().await;
    let tenant = world.create("Acme", "acmeco").await.tenant_id;
    let ids = [
        ("salesforce".into(), "005A".into()),
        ("we.ird `x`".into(), "1".into()),
    ];
    let first = User {
        external_user_ids: ids.into(),
        first_name: "Jo".into(),
        ..user(&tenant, "jo")
    };
    let (made, _) = world.ensure_user(first).await.unwrap();
    let change = User {
        etag: made.etag.clone(),
        external_user_ids: [("salesforce".into(), "005B".into())].into(),
        ..user(&tenant, "jo")
    };
    let paths = [
        "external_user_ids.salesforce",
        "external_user_ids.`we.ird ``x```",
    ];
    let changed = update(&world, change.clone(), &paths).await.unwrap();
    assert_eq!(
        changed.external_user_ids,
        [("salesforce".to_owned(), "005B".to_owned())].into()
    );
    assert_eq!(changed.first_name, "Jo");
    let error = update(&world, change, &paths).await.unwrap_err();
    assert_eq!(
        (error.code, error.reason),
        (Code::Aborted, Some(Reason::EtagMismatch))
    );
    let all = update(&world, user(&tenant, "jo"), &["external_user_ids"])
        .await
        .unwrap();
    assert!(all.external_user_ids.is_empty());
    assert_eq!(
        update(&world, user(&tenant, "nobody"), &["first_name"])
            .await
            .unwrap_err()
            .code,
        Code::NotFound
    );
}

#[tokio::test]
async fn a_user_with_every_field_wrong_is_told_of_each() {
    let world = World::new().await;
    let wrong = User {
        tenant_id: "acme".into(),
        user_id: " jo".into(),
        email: "jo".into(),
        first_name: "a\u{0}".into(),
        last_name: "x".repeat(201),
        roles: vec!["ok".into(), "not ok".into()],
        external_user_ids: [("salesforce".into(), "a\n".into())].into(),
        profile_json: "{".into(),
        ..User::default()
    };
    let mut expected = vec![
        "user.email",
        "user.external_user_ids.salesforce",
        "user.first_name",
        "user.last_name",
        "user.profile_json",
        "user.roles[1]",
        "user.tenant_id",
        "user.user_id",
    ];
    assert_eq!(violated(world.ensure_user(wrong.clone()).await), expected);
    expected.insert(0, "update_mask");
    assert_eq!(
        violated(update(&world, wrong, &["*", "last_login_at"]).await),
        expected
    );
    let request = ListUsersRequest {
        tenant_id: String::new(),
        page_size: -1,
        page_token: "x".into(),
    };
    let outcome = world
        .directory(OPERATOR)
        .list_users(request)
        .await
        .map_err(CallError::from);
    assert_eq!(violated(outcome), ["page_size", "page_token", "tenant_id"]);
    for request in [
        GetUserRequest::default(),
        GetUserRequest {
            tenant_id: "x".into(),
            user_id: "\n".into(),
        },
    ] {
        let outcome = world
            .directory(OPERATOR)
            .get_user(request)
            .await
            .map_err(CallError::from);
        assert_eq!(violated(outcome), ["tenant_id", "user_id"]);
    }
}

#[tokio::test]
async fn a_list_shows_each_user_once_while_more_are_added() {
    let world = World::new().await;
    let tenant = world.create("Acme", "acmeco").await.tenant_id;
    // All at the same moment, so that the id decides.
    for n in [3, 1, 4, 0, 2] {
        world
            .ensure_user(user(&tenant, &format!("user-{n}")))
            .await
            .unwrap();
    }
    let mut directory = world.directory(HOST);
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let request = ListUsersRequest {
            tenant_id: tenant.clone(),
            page_size: 2,
            page_token: token,
        };
        let page = directory.list_users(request).await.unwrap().into_inner();
        seen.extend(page.users.into_iter().map(|user| user.user_id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
        world.clock.advance(std::time::Duration::from_secs(1));
        if seen.len() < 4 {
            world
                .ensure_user(user(&tenant, &format!("a-late-{}", seen.len())))
                .await
                .unwrap();
        }
    }
    assert_eq!(
        seen,
        ["user-0", "user-1", "user-2", "user-3", "user-4", "a-late-2"]
    );
    let unknown = common::TenantKey::new_tenant(&testkit::deps()).to_string();
    let request = ListUsersRequest {
        tenant_id: unknown,
        ..ListUsersRequest::default()
    };
    assert_eq!(
        CallError::from(directory.list_users(request).await.unwrap_err()).code,
        Code::NotFound
    );
}

#[tokio::test]
async fn a_deleted_user_is_gone_and_may_come_back() {
    let world = World::new().await;
    let tenant = world.create("Acme", "acmeco").await.tenant_id;
    let jo = User {
        email: "jo@acme.example".into(),
        ..user(&tenant, "jo")
    };
    world.ensure_user(jo.clone()).await.unwrap();
    let request = DeleteUserRequest {
        tenant_id: tenant.clone(),
        user_id: "jo".into(),
        delete_documents: true,
    };
    world
        .directory(HOST)
        .delete_user(request.clone())
        .await
        .unwrap();
    assert_eq!(
        get(&world, &tenant, "jo").await.unwrap_err().code,
        Code::NotFound
    );
    assert_eq!(
        CallError::from(
            world
                .directory(HOST)
                .delete_user(request)
                .await
                .unwrap_err()
        )
        .code,
        Code::NotFound
    );
    world.clock.advance(std::time::Duration::from_secs(1));
    let (back, created) = world.ensure_user(jo).await.unwrap();
    assert!(created && back.revision == 1);
    let request = ListDeletionsRequest {
        tenant_id: tenant,
        ..ListDeletionsRequest::default()
    };
    let open = world
        .directory(OPERATOR)
        .list_deletions(request)
        .await
        .unwrap()
        .into_inner()
        .deletions;
    assert_eq!(
        (
            open.len(),
            open[0].user_id.as_str(),
            open[0].delete_documents
        ),
        (1, "jo", true)
    );
    assert!(open[0].created_at.unwrap().seconds < back.created_at.unwrap().seconds);
}
