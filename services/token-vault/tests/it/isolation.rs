//! Tenants apart, and sealed values where they belong.

use common::rpc::CallError;
use common::{Code, TenantKey};
use contracts::vault::v1::*;
use uuid::Uuid;

use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_tenants_grant_is_not_found() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let grant = world.connect(&vault).await;
    let (tenant_id, grant_id) = (
        TenantKey::new_tenant(&world.deps).to_string(),
        grant.to_string(),
    );
    let mut client = world.vault(&vault);
    let outcomes = [
        client
            .get_credential(GetCredentialRequest {
                tenant_id: tenant_id.clone(),
                ..world.get_request(grant)
            })
            .await
            .map(drop),
        client
            .describe_grant(DescribeGrantRequest {
                tenant_id: tenant_id.clone(),
                grant_id: grant_id.clone(),
            })
            .await
            .map(drop),
        client
            .refresh_grant(RefreshGrantRequest {
                tenant_id: tenant_id.clone(),
                grant_id: grant_id.clone(),
                refused_version: 1,
            })
            .await
            .map(drop),
        client
            .confirm_grant(ConfirmGrantRequest {
                tenant_id: tenant_id.clone(),
                grant_id: grant_id.clone(),
            })
            .await
            .map(drop),
        client
            .revoke_grant(RevokeGrantRequest {
                tenant_id: tenant_id.clone(),
                grant_id: grant_id.clone(),
                mode: 0,
            })
            .await
            .map(drop),
        client
            .delete_o_auth_client(DeleteOAuthClientRequest {
                tenant_id: tenant_id.clone(),
                oauth_client_id: world.client.to_string(),
            })
            .await
            .map(drop),
        client
            .exchange_authorization(ExchangeAuthorizationRequest {
                tenant_id: tenant_id.clone(),
                ..world.exchange_request(world.tenant.new_id(&world.deps), world.code("n").await)
            })
            .await
            .map(drop),
    ];
    for (number, outcome) in outcomes.into_iter().enumerate() {
        let error = CallError::from(outcome.expect_err("it is another tenant's"));
        assert_eq!(error.code, Code::NotFound, "call {number}");
    }
    let request = ListGrantsRequest {
        tenant_id,
        ..ListGrantsRequest::default()
    };
    assert!(
        client
            .list_grants(request)
            .await
            .unwrap()
            .into_inner()
            .grants
            .is_empty()
    );
    assert_eq!(world.get(&vault, grant).await.unwrap().version, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grants_are_listed_page_by_page() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(world.connect(&vault).await.to_string());
    }
    made.sort_unstable();
    for tenant_id in [world.tenant.to_string(), String::new()] {
        let (mut found, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListGrantsRequest {
                tenant_id: tenant_id.clone(),
                page_size: 2,
                page_token,
                ..ListGrantsRequest::default()
            };
            let page = world
                .vault(&vault)
                .list_grants(request)
                .await
                .unwrap()
                .into_inner();
            found.extend(page.grants.into_iter().map(|grant| grant.grant_id));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(found, made);
    }
    let request = ListGrantsRequest {
        state: GrantState::Revoked as i32,
        ..ListGrantsRequest::default()
    };
    assert!(
        world
            .vault(&vault)
            .list_grants(request)
            .await
            .unwrap()
            .into_inner()
            .grants
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_value_opens_in_its_place_alone() {
    let logs = testkit::logs::capture();
    logs.expect("a call failed for a reason that is not the caller's");
    let (world, vault) = World::new().await;
    let (one, other) = (world.connect(&vault).await, world.connect(&vault).await);
    let admin = world.database.admin().await;
    let sealed = async |column: &str, grant: Uuid| -> Vec<u8> {
        let sql = format!("SELECT {column} FROM vault.grants WHERE grant_id = $1");
        admin.query_one(&sql, &[&grant]).await.unwrap().get(0)
    };
    let put = async |column: &str, grant: Uuid, value: &[u8]| {
        let sql = format!("UPDATE vault.grants SET {column} = $2 WHERE grant_id = $1");
        assert_eq!(admin.execute(&sql, &[&grant, &value]).await.unwrap(), 1);
    };
    let mine = sealed("credential", one).await;

    // Another row's.
    put("credential", one, &sealed("credential", other).await).await;
    assert_eq!(
        world.get(&vault, one).await.expect_err("it was moved").code,
        Code::Internal
    );
    // Another column's.
    put("credential", one, &sealed("refresh_token", one).await).await;
    assert_eq!(
        world.get(&vault, one).await.expect_err("it was moved").code,
        Code::Internal
    );
    // Its own, and bent.
    let mut bent = mine.clone();
    *bent.last_mut().unwrap() ^= 1;
    put("credential", one, &bent).await;
    assert_eq!(
        world
            .get(&vault, one)
            .await
            .expect_err("it was altered")
            .code,
        Code::Internal
    );
    // An older one, under a newer version.
    put("credential", one, &mine).await;
    world.expire(one).await;
    assert_eq!(world.get(&vault, one).await.unwrap().version, 2);
    put("credential", one, &mine).await;
    assert_eq!(
        world
            .get(&vault, one)
            .await
            .expect_err("it is an old one")
            .code,
        Code::Internal
    );
    // A row that says it is another tenant's.
    let stranger = TenantKey::new_tenant(&world.deps);
    let sql = "UPDATE vault.grants SET tenant_id = $2, bucket = $3 WHERE grant_id = $1";
    admin
        .execute(sql, &[&other, &stranger.id(), &stranger.bucket()])
        .await
        .unwrap();
    let request = GetCredentialRequest {
        tenant_id: stranger.to_string(),
        ..world.get_request(other)
    };
    let error = CallError::from(
        world
            .vault(&vault)
            .get_credential(request)
            .await
            .expect_err("it was moved"),
    );
    assert_eq!(error.code, Code::Internal);
    assert_eq!(
        world.access_records().await,
        1,
        "what does not open is not handed out"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_level_security_holds_where_a_statement_forgets_the_tenant() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let grant = world.connect(&vault).await;
    world.get(&vault, grant).await.unwrap();
    let admin = world.database.admin().await;
    let seen = async |tenant: &str, table: &str| -> i64 {
        let begin = format!(
            "BEGIN; SET LOCAL ROLE hawser_vault_tenant; SET LOCAL hawser.tenant = '{tenant}'"
        );
        admin.batch_execute(&begin).await.unwrap();
        let count = admin
            .query_one(&format!("SELECT count(*) FROM vault.{table}"), &[])
            .await
            .unwrap()
            .get(0);
        admin.batch_execute("ROLLBACK").await.unwrap();
        count
    };
    for table in ["data_keys", "oauth_clients", "grants", "access_records"] {
        assert!(
            seen(&world.tenant.to_string(), table).await > 0,
            "{table} has something to hide"
        );
        assert_eq!(
            seen(&TenantKey::new_tenant(&world.deps).to_string(), table).await,
            0,
            "{table}"
        );
        assert_eq!(seen("", table).await, 0, "{table}");
    }
    for table in [
        "key_checks",
        "kek_checks",
        "mac_keys",
        "instances",
        "access_chains",
        "access_retention",
        "access_records_000",
    ] {
        admin
            .batch_execute("BEGIN; SET LOCAL ROLE hawser_vault_tenant")
            .await
            .unwrap();
        let refused = admin
            .query(&format!("SELECT * FROM vault.{table}"), &[])
            .await;
        assert_eq!(
            refused
                .expect_err("it is no tenant's")
                .code()
                .unwrap()
                .code(),
            "42501",
            "{table}"
        );
        admin.batch_execute("ROLLBACK").await.unwrap();
    }
}
