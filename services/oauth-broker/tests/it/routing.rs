//! From what a webhook says to the connections it is about.

use common::rpc::CallError;
use common::{Code, TenantKey};
use contracts::broker::v1::*;

use crate::world::{INGEST, World, parameter};

fn key(name: &str, value: &str) -> RoutingKey {
    RoutingKey {
        name: name.into(),
        value: value.into(),
    }
}

async fn find(world: &World, tenant_id: &str, keys: &[RoutingKey]) -> Vec<String> {
    let mut request = FindConnectionsByRoutingKeyRequest {
        integration_tenant_id: TenantKey::PLATFORM.to_string(),
        integration_id: "my-procore".into(),
        tenant_id: tenant_id.into(),
        routing_keys: keys.to_vec(),
        page_size: 1,
        page_token: String::new(),
    };
    let mut found = Vec::new();
    loop {
        let mut client = world.connections_as(INGEST);
        let page = client
            .find_connections_by_routing_key(request.clone())
            .await
            .unwrap()
            .into_inner();
        found.extend(
            page.connections
                .into_iter()
                .map(|connection| connection.user_id),
        );
        if page.next_page_token.is_empty() {
            found.sort();
            return found;
        }
        request.page_token = page.next_page_token;
    }
}

#[tokio::test]
async fn a_webhook_finds_the_connections_of_every_tenant_or_of_one() {
    let world = World::new().await;
    // The platform's client is the catalogue's own, so the hosts are bent for a tenant first and then made the platform's.
    world.procore().await;
    let admin = world.database.admin().await;
    let platform = TenantKey::PLATFORM;
    let (bucket, id) = (platform.bucket(), platform.id());
    admin
        .execute(
            "UPDATE broker.integrations SET bucket = $1, tenant_id = $2",
            &[&bucket, &id],
        )
        .await
        .unwrap();
    world.vault.with(|state| {
        state
            .clients
            .values_mut()
            .for_each(|client| client.tenant_id = platform.to_string());
    });
    let other = TenantKey::new_tenant(&world.deps);
    world.directory.add(other, "Other", &[crate::world::APP]);
    let alice = world.connect_as("my-procore", "a", "alice").await;
    let mut request = world.session_request("my-procore", "b");
    request.tenant_id = other.to_string();
    world.walk(request, "bob").await;

    let shared = [key("account", "562949953500002")];
    assert_eq!(find(&world, "", &shared).await, ["a", "b"]);
    assert_eq!(find(&world, &other.to_string(), &shared).await, ["b"]);
    assert_eq!(
        find(&world, "", &[key("email", " ALICE@example.com ")]).await,
        ["a"]
    );
    assert_eq!(
        find(
            &world,
            "",
            &[
                key("user", "562949953421002"),
                key("account", "562949953500001")
            ]
        )
        .await,
        ["a", "b"]
    );
    assert!(find(&world, "", &[key("account", "1")]).await.is_empty());

    let connection_id = parameter(&alice, "connection_id");
    let add = AddRoutingKeysRequest {
        tenant_id: world.tenant.to_string(),
        connection_id: connection_id.clone(),
        routing_keys: vec![key("subscription", "sub-1")],
    };
    world
        .connections_as(INGEST)
        .add_routing_keys(add.clone())
        .await
        .unwrap();
    world
        .connections_as(INGEST)
        .add_routing_keys(add)
        .await
        .unwrap();
    assert_eq!(
        find(&world, "", &[key("subscription", "sub-1")]).await,
        ["a"]
    );
    let keys = world.connection(&connection_id).await.routing_keys;
    assert!(
        keys.contains(&key("subscription", "sub-1"))
            && keys.contains(&key("email", "alice@example.com")),
        "{keys:?}"
    );

    // What the table still says of a connection that has lost the key is not believed.
    admin
        .execute(
            "DELETE FROM broker.connection_routing_keys WHERE name = 'subscription'",
            &[],
        )
        .await
        .unwrap();
    assert!(
        find(&world, "", &[key("subscription", "sub-1")])
            .await
            .is_empty()
    );
    world.disconnect(&connection_id).await.unwrap();
    assert_eq!(find(&world, "", &shared).await, ["b"]);
    let sql =
        "SELECT count(*) FROM broker.routing_keys WHERE name <> 'subscription' AND tenant_id = $1";
    let left = admin.query_one(sql, &[&world.tenant.id()]).await.unwrap();
    assert_eq!(
        left.get::<_, i64>(0),
        0,
        "the table forgets with the connection"
    );
}

#[tokio::test]
async fn who_may_ask_and_what_for() {
    let world = World::new().await;
    let request = FindConnectionsByRoutingKeyRequest {
        integration_tenant_id: "x".into(),
        routing_keys: vec![key("", "")],
        page_size: -1,
        ..Default::default()
    };
    let error = world
        .connections_as(INGEST)
        .find_connections_by_routing_key(request.clone())
        .await
        .unwrap_err();
    let named: Vec<_> = CallError::from(error)
        .fields
        .into_iter()
        .map(|field| field.field)
        .collect();
    assert_eq!(
        named,
        [
            "integration_tenant_id",
            "integration_id",
            "routing_keys[0].name",
            "routing_keys[0].value",
            "page_size"
        ]
    );
    let error = world
        .connections()
        .find_connections_by_routing_key(request)
        .await
        .unwrap_err();
    assert_eq!(
        CallError::from(error).code,
        Code::PermissionDenied,
        "over all tenants only services look"
    );
}
