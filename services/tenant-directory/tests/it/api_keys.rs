use std::time::Duration;

use common::rpc::CallError;
use common::{Clock as _, Code, Reason};
use contracts::directory::v1::*;
use prost_types::Timestamp;

use crate::world::{BROKER, HOST, OPERATOR, SCHEDULER, World, code, violated};

fn order(role: &str) -> ApiKey {
    ApiKey {
        display_name: "The app".into(),
        role: role.into(),
        ..ApiKey::default()
    }
}

async fn create(
    world: &World,
    request_id: &str,
    key: ApiKey,
) -> Result<CreateApiKeyResponse, CallError> {
    let request = CreateApiKeyRequest {
        request_id: request_id.into(),
        api_key: Some(key),
    };
    Ok(world
        .api_keys(OPERATOR)
        .create_api_key(request)
        .await?
        .into_inner())
}

async fn authenticate(
    world: &World,
    secret: &str,
) -> Result<AuthenticateApiKeyResponse, CallError> {
    let request = AuthenticateApiKeyRequest {
        secret: secret.into(),
    };
    Ok(world
        .api_keys(BROKER)
        .authenticate_api_key(request)
        .await?
        .into_inner())
}

fn cache_seconds(answer: &AuthenticateApiKeyResponse) -> i64 {
    answer.cache_for.unwrap().seconds
}

#[tokio::test]
async fn a_key_opens_until_it_ends_and_only_its_hash_is_kept() {
    let logs = testkit::logs::capture();
    let world = World::new().await;
    let tenant = world.create("Acme", "acmeco").await.tenant_id;
    let end = world.clock.now() + Duration::from_hours(1);
    let expires_at = Some(Timestamp {
        seconds: end.unix_timestamp(),
        nanos: 0,
    });
    let made = create(
        &world,
        "",
        ApiKey {
            tenant_ids: vec![tenant.clone()],
            expires_at,
            ..order("host")
        },
    )
    .await
    .unwrap();
    let key = made.api_key.unwrap();
    assert!(
        made.secret.starts_with("hk_")
            && made.secret.len() == 46
            && made.secret.starts_with(&key.prefix)
    );
    assert_eq!(
        (key.tenant_ids.as_slice(), key.role.as_str(), key.expires_at),
        (&[tenant][..], "host", expires_at)
    );

    let known = authenticate(&world, &made.secret).await.unwrap();
    assert_eq!(cache_seconds(&known), 30);
    assert_eq!(known.api_key.as_ref().unwrap().api_key_id, key.api_key_id);
    let used_at = known.api_key.unwrap().last_used_at.unwrap();
    world.clock.advance(Duration::from_secs(59));
    assert_eq!(
        authenticate(&world, &made.secret)
            .await
            .unwrap()
            .api_key
            .unwrap()
            .last_used_at,
        Some(used_at)
    );
    world.clock.advance(Duration::from_secs(1));
    let later = authenticate(&world, &made.secret)
        .await
        .unwrap()
        .api_key
        .unwrap()
        .last_used_at
        .unwrap();
    assert_eq!(later.seconds - used_at.seconds, 60, "noted once a minute");

    world.clock.set(end - Duration::from_secs(7));
    assert!(cache_seconds(&authenticate(&world, &made.secret).await.unwrap()) < 8);
    world.clock.set(end);
    assert_eq!(
        authenticate(&world, &made.secret).await.unwrap_err().code,
        Code::NotFound
    );
    for wrong in ["hk_", "hk_wrong", "sk_other", &made.secret[..45]] {
        assert_eq!(
            authenticate(&world, wrong).await.unwrap_err().code,
            Code::NotFound,
            "{wrong}"
        );
    }
    assert_eq!(violated(authenticate(&world, "").await), ["secret"]);

    // Nothing that opens is in the database: not the secret, not the part that is random.
    let admin = world.database.admin().await;
    let tables = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'directory'";
    for row in admin.query(tables, &[]).await.unwrap() {
        let table: String = row.get(0);
        let holding =
            format!("SELECT count(*) FROM {table} AS t WHERE position($1 IN t::text) > 0");
        let count: i64 = admin
            .query_one(&holding, &[&&made.secret[12..]])
            .await
            .unwrap()
            .get(0);
        assert_eq!(count, 0, "{table}");
    }
    drop(logs);
}

#[tokio::test]
async fn a_secret_is_shown_once() {
    let world = World::new().await;
    let first = create(&world, "request-1", order("worker")).await.unwrap();
    let again = create(&world, "request-1", order("worker")).await.unwrap();
    assert_eq!(
        again,
        CreateApiKeyResponse {
            secret: String::new(),
            ..first.clone()
        }
    );
    let error = create(&world, "request-1", order("host"))
        .await
        .unwrap_err();
    assert_eq!(
        (error.code, error.reason),
        (Code::AlreadyExists, Some(Reason::RequestIdReused))
    );
    let request = ListApiKeysRequest::default();
    let keys = world
        .api_keys(OPERATOR)
        .list_api_keys(request)
        .await
        .unwrap()
        .into_inner()
        .api_keys;
    assert_eq!(keys, [first.api_key.unwrap()]);
    let admin = world.database.admin().await;
    let hashes = "SELECT count(*) FROM directory.api_key_hashes";
    assert_eq!(
        admin.query_one(hashes, &[]).await.unwrap().get::<_, i64>(0),
        1,
        "those of refused calls are gone"
    );
}

#[tokio::test]
async fn a_rotation_leaves_the_old_secret_good_for_a_while() {
    let world = World::new().await;
    let made = create(&world, "", order("host")).await.unwrap();
    let id = made.api_key.unwrap().api_key_id;
    let rotate = async |overlap: i64| {
        let overlap = Some(prost_types::Duration {
            seconds: overlap,
            nanos: 0,
        });
        let request = RotateApiKeyRequest {
            api_key_id: id.clone(),
            overlap,
        };
        world
            .api_keys(OPERATOR)
            .rotate_api_key(request)
            .await
            .map(tonic::Response::into_inner)
            .map_err(CallError::from)
    };
    let second = rotate(60).await.unwrap();
    assert_eq!(second.api_key.as_ref().unwrap().api_key_id, id);
    // The answer was lost, so it is rotated again: whoever still has the first secret is not cut off.
    let third = rotate(60).await.unwrap();
    assert_ne!(second.secret, third.secret);
    assert!(
        third
            .secret
            .starts_with(&third.api_key.as_ref().unwrap().prefix)
    );
    world.clock.advance(Duration::from_secs(50));
    assert_eq!(
        cache_seconds(&authenticate(&world, &made.secret).await.unwrap()),
        10
    );
    authenticate(&world, &second.secret).await.unwrap();
    world.clock.advance(Duration::from_secs(10));
    for ended in [&made.secret, &second.secret] {
        assert_eq!(
            authenticate(&world, ended).await.unwrap_err().code,
            Code::NotFound
        );
    }
    assert_eq!(
        cache_seconds(&authenticate(&world, &third.secret).await.unwrap()),
        30
    );
    let fourth = rotate(0).await.unwrap();
    assert_eq!(
        authenticate(&world, &third.secret).await.unwrap_err().code,
        Code::NotFound
    );

    let revoke = RevokeApiKeyRequest {
        api_key_id: id.clone(),
    };
    world
        .api_keys(OPERATOR)
        .revoke_api_key(revoke.clone())
        .await
        .unwrap();
    world
        .api_keys(OPERATOR)
        .revoke_api_key(revoke)
        .await
        .unwrap();
    assert_eq!(
        authenticate(&world, &fourth.secret).await.unwrap_err().code,
        Code::NotFound
    );
    assert_eq!(rotate(0).await.unwrap_err().code, Code::FailedPrecondition);
    let keys = world
        .api_keys(OPERATOR)
        .list_api_keys(ListApiKeysRequest::default())
        .await
        .unwrap()
        .into_inner()
        .api_keys;
    assert!(keys[0].revoked_at.is_some());
    let request = contracts::operations::v1::ListAuditEventsRequest {
        resource: format!("api_keys/{id}"),
        ..Default::default()
    };
    let events = world
        .operations(OPERATOR)
        .list_audit_events(request)
        .await
        .unwrap()
        .into_inner()
        .audit_events;
    assert_eq!(
        events.len(),
        5,
        "one creation, three rotations, one revocation: {events:?}"
    );
}

#[tokio::test]
async fn a_key_with_every_field_wrong_is_told_of_each() {
    let world = World::new().await;
    let unknown = common::TenantKey::new_tenant(&testkit::deps()).to_string();
    let wrong = ApiKey {
        display_name: String::new(),
        tenant_ids: vec!["acme".into()],
        role: "operator".into(),
        expires_at: Some(Timestamp {
            seconds: 1,
            nanos: 0,
        }),
        ..ApiKey::default()
    };
    let expected = [
        "api_key.display_name",
        "api_key.expires_at",
        "api_key.role",
        "api_key.tenant_ids[0]",
        "request_id",
    ];
    assert_eq!(
        violated(create(&world, &"r".repeat(201), wrong).await),
        expected
    );
    let missing = ApiKey {
        tenant_ids: vec![unknown.clone()],
        ..order("host")
    };
    assert_eq!(
        violated(create(&world, "", missing).await),
        ["api_key.tenant_ids[0]"]
    );
    let overlap = Some(prost_types::Duration {
        seconds: -1,
        nanos: 0,
    });
    let request = RotateApiKeyRequest {
        api_key_id: "x".into(),
        overlap,
    };
    let outcome = world
        .api_keys(OPERATOR)
        .rotate_api_key(request)
        .await
        .map_err(CallError::from);
    assert_eq!(violated(outcome), ["api_key_id", "overlap"]);
    for id in [
        unknown,
        common::TenantKey::PLATFORM
            .new_id(&testkit::deps())
            .to_string(),
    ] {
        let request = RotateApiKeyRequest {
            api_key_id: id.clone(),
            overlap: None,
        };
        assert_eq!(
            code(world.api_keys(OPERATOR).rotate_api_key(request).await),
            Code::NotFound
        );
        assert_eq!(
            code(
                world
                    .api_keys(OPERATOR)
                    .revoke_api_key(RevokeApiKeyRequest { api_key_id: id })
                    .await
            ),
            Code::NotFound
        );
    }
}

#[tokio::test]
async fn keys_are_the_operators_affair() {
    let world = World::new().await;
    for uri in [HOST, BROKER, SCHEDULER] {
        let request = CreateApiKeyRequest {
            api_key: Some(order("host")),
            ..CreateApiKeyRequest::default()
        };
        assert_eq!(
            code(world.api_keys(uri).create_api_key(request).await),
            Code::PermissionDenied,
            "{uri}"
        );
    }
    let request = AuthenticateApiKeyRequest {
        secret: "hk_x".into(),
    };
    assert_eq!(
        code(world.api_keys(HOST).authenticate_api_key(request).await),
        Code::PermissionDenied
    );
}
