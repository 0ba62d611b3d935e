//! Another tenant's is not there.

use common::rpc::CallError;
use common::{Code, TenantKey};
use contracts::broker::v1::*;

use crate::world::{World, parameter};

#[tokio::test]
async fn req_teamsync_09_no_method_finds_another_tenants_connection() {
    let world = World::new().await;
    let integration = world.procore().await;
    let end = world
        .connect_as(&integration.integration_id, "u1", "alice")
        .await;
    let (connection_id, session_id) = (
        parameter(&end, "connection_id"),
        parameter(&end, "session_id"),
    );
    let other = TenantKey::new_tenant(&world.deps);
    world.directory.add(other, "Other", &[]);
    let tenant_id = other.to_string();
    let mut refused: Vec<(&str, Code)> = Vec::new();
    macro_rules! try_all {
        ($($client:ident.$method:ident($request:expr);)*) => {
            $(match world.$client().$method($request).await {
                Ok(_) => panic!("{} answered", stringify!($method)),
                Err(status) => refused.push((stringify!($method), CallError::from(status).code)),
            })*
        };
    }
    let (t, c) = (|| tenant_id.clone(), || connection_id.clone());
    try_all! {
        connections.get_connection(GetConnectionRequest { tenant_id: t(), connection_id: c() });
        connections.disconnect(DisconnectRequest { tenant_id: t(), connection_id: c(), delete_documents: true });
        connections.test_connection(TestConnectionRequest { tenant_id: t(), connection_id: c() });
        connections.list_accounts(ListAccountsRequest { tenant_id: t(), connection_id: c(), ..Default::default() });
        connections.refresh_accounts(RefreshAccountsRequest { tenant_id: t(), connection_id: c() });
        connections.select_account(SelectAccountRequest { tenant_id: t(), connection_id: c(), external_account_id: "562949953500002".into() });
        connections.disconnect_account(DisconnectAccountRequest { tenant_id: t(), connection_id: c(), external_account_id: "562949953500002".into() });
        connections.get_request_context(GetRequestContextRequest { tenant_id: t(), connection_id: c(), ..Default::default() });
        connections.add_routing_keys(AddRoutingKeysRequest { tenant_id: t(), connection_id: c(), routing_keys: vec![RoutingKey { name: "a".into(), value: "b".into() }] });
        connections.get_connection_status(GetConnectionStatusRequest { tenant_id: t(), user_id: "u1".into(), integration_id: integration.integration_id.clone() });
        connect.get_connect_session(GetConnectSessionRequest { tenant_id: t(), session_id: session_id.clone() });
        connect.complete_connect_session(CompleteConnectSessionRequest { tenant_id: t(), session_id: session_id.clone(), user_id: "u1".into(), confirmation_code: "x".into() });
        connect.create_connect_session(CreateConnectSessionRequest { tenant_id: t(), return_url: String::new(), ..world.session_request(&integration.integration_id, "u1") });
        connect.import_connection(ImportConnectionRequest { tenant_id: t(), integration_id: integration.integration_id.clone(), credential: Some(import_connection_request::Credential::ClientCredentials(true)), ..Default::default() });
        integrations.get_integration(GetIntegrationRequest { tenant_id: t(), integration_id: integration.integration_id.clone() });
        integrations.delete_integration(DeleteIntegrationRequest { tenant_id: t(), integration_id: integration.integration_id.clone(), disconnect_all: true });
        integrations.update_integration(UpdateIntegrationRequest {
            integration: Some(Integration { tenant_id: t(), integration_id: integration.integration_id.clone(), ..Default::default() }),
            update_mask: Some(prost_types::FieldMask { paths: vec!["display_name".into()] }),
        });
    }
    for (method, code) in &refused {
        assert_eq!(*code, Code::NotFound, "{method}");
    }
    let list = ListConnectionsRequest {
        tenant_id: t(),
        ..Default::default()
    };
    assert!(
        world
            .connections()
            .list_connections(list)
            .await
            .unwrap()
            .into_inner()
            .connections
            .is_empty()
    );
    let batch = BatchGetRequestContextsRequest {
        tenant_id: t(),
        connection_ids: vec![c()],
        purpose: String::new(),
    };
    let results = world
        .connections()
        .batch_get_request_contexts(batch)
        .await
        .unwrap()
        .into_inner()
        .results;
    assert!(
        matches!(&results[0].result, Some(request_context_result::Result::Error(error)) if error.code == 5)
    );
    assert_eq!(
        world.connection(&connection_id).await.state(),
        ConnectionState::Connected,
        "and nothing happened"
    );
}

#[tokio::test]
async fn a_query_that_forgets_the_tenant_sees_one_tenant_alone() {
    let world = World::new().await;
    let integration = world.procore().await;
    world
        .connect_as(&integration.integration_id, "u1", "alice")
        .await;
    let admin = world.database.admin().await;
    let other = TenantKey::new_tenant(&world.deps);
    let tables = [
        "integrations",
        "connect_sessions",
        "authorizations",
        "connections",
        "accounts",
        "connection_routing_keys",
    ];
    for (tenant, sees) in [(world.tenant, true), (other, false)] {
        for table in tables {
            let role = format!(
                "BEGIN; SET LOCAL ROLE hawser_broker_tenant; SET LOCAL hawser.tenant = '{tenant}'"
            );
            admin.batch_execute(&role).await.unwrap();
            let row = admin
                .query_one(&format!("SELECT count(*) FROM broker.{table}"), &[])
                .await
                .unwrap();
            admin.batch_execute("COMMIT").await.unwrap();
            assert_eq!(row.get::<_, i64>(0) > 0, sees, "{table}");
        }
    }
    for table in ["routing_keys", "exclusive_accounts"] {
        let sql = format!(
            "BEGIN; SET LOCAL ROLE hawser_broker_tenant; SELECT count(*) FROM broker.{table}; COMMIT"
        );
        assert!(
            admin.batch_execute(&sql).await.is_err(),
            "{table} is nobody's"
        );
        admin.batch_execute("ROLLBACK").await.unwrap();
    }
}
