//! The second line: what the database shows to whom, also where a query forgets to ask.

use common::TenantKey;
use common::pg::Scope;
use contracts::directory::v1::User;
use tenant_directory::SCHEMA;

use crate::world::{World, user};

#[tokio::test]
async fn req_teamsync_09_a_query_that_forgets_the_tenant_sees_one_tenant_alone() {
    let world = World::new().await;
    let (a, b) = (
        world.create("A", "aaa").await,
        world.create("B", "bbb").await,
    );
    for tenant in [&a, &b] {
        let jo = User {
            email: "jo@example.com".into(),
            ..user(&tenant.tenant_id, "jo")
        };
        world.ensure_user(jo).await.unwrap();
        let request = contracts::directory::v1::DeleteUserRequest {
            tenant_id: tenant.tenant_id.clone(),
            user_id: "jo".into(),
            delete_documents: false,
        };
        world
            .directory(crate::world::HOST)
            .delete_user(request)
            .await
            .unwrap();
        world
            .ensure_user(user(&tenant.tenant_id, "jo"))
            .await
            .unwrap();
    }
    let db = world.database.database(&SCHEMA);
    let key = TenantKey::parse(&a.tenant_id).unwrap();
    let tables = [
        "tenants",
        "tenant_configs",
        "users",
        "name_claims",
        "deletions",
        "deletion_parts",
        "audit_events",
    ];
    for table in tables {
        let forgetful = format!(
            "-- test.{table}_count\nSELECT count(DISTINCT tenant_id), count(*) FROM directory.{table}"
        );
        let row = db
            .query_one(Scope::Tenant(key), &forgetful, &[])
            .await
            .unwrap();
        assert_eq!(
            row.get::<_, i64>(0),
            1,
            "{table} shows another tenant's rows"
        );
        let all = db.query_one(Scope::System, &forgetful, &[]).await.unwrap();
        assert!(
            all.get::<_, i64>(0) > 1 && all.get::<_, i64>(1) > row.get(1),
            "{table} has rows of both"
        );
        let foreign = format!(
            "-- test.{table}_update\nUPDATE directory.{table} SET bucket = bucket WHERE tenant_id = $1"
        );
        if table != "audit_events" {
            let other = TenantKey::parse(&b.tenant_id).unwrap().id();
            assert_eq!(
                db.execute(Scope::Tenant(key), &foreign, &[&other])
                    .await
                    .unwrap(),
                0,
                "{table}"
            );
        }
    }
    for table in ["names", "creations", "api_key_hashes"] {
        let forgetful = format!("-- test.{table}_count\nSELECT count(*) FROM directory.{table}");
        let row = db
            .query_one(Scope::Tenant(key), &forgetful, &[])
            .await
            .unwrap();
        assert_eq!(row.get::<_, i64>(0), 0, "{table} is no tenant's");
    }
}

#[tokio::test]
async fn every_table_is_protected_and_begins_with_the_bucket() {
    let world = World::new().await;
    let admin = world.database.admin().await;
    let own = "
        SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity
        FROM pg_class c
        WHERE c.relnamespace = 'directory'::regnamespace AND c.relkind = 'r'
          AND c.relname IN ('tenants', 'tenant_configs', 'names', 'name_claims', 'creations', 'users', 'deletions',
                            'deletion_parts', 'api_keys', 'api_key_secrets', 'api_key_hashes')";
    let rows = admin.query(own, &[]).await.unwrap();
    assert_eq!(rows.len(), 11);
    assert!(rows.iter().all(|row| row.get::<_, bool>(1)));
    let unique = "
        SELECT i.indexrelid::regclass::text, a.attname::text
        FROM pg_index i
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
        JOIN pg_class c ON c.oid = i.indrelid
        WHERE i.indisunique AND c.relnamespace = 'directory'::regnamespace
          AND c.relname IN ('tenants', 'tenant_configs', 'names', 'name_claims', 'creations', 'users', 'deletions',
                            'deletion_parts', 'api_keys', 'api_key_secrets', 'api_key_hashes')";
    for row in admin.query(unique, &[]).await.unwrap() {
        assert_eq!(
            row.get::<_, String>(1),
            "bucket",
            "{}",
            row.get::<_, String>(0)
        );
    }
}
