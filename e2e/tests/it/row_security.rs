//! Row-level security, shown by SQL that a service would never write: each schema's roles, asked without the tenant.

use std::fs;

use tokio_postgres::{Client, NoTls};

use crate::system::System;

/// The schemas of the services that keep tenants' data.
const SCHEMAS: [&str; 5] = ["directory", "vault", "broker", "scheduler", "ingest"];

/// Queries that forget the tenant, as each schema's tenant role.
pub(crate) async fn violations(system: &System, one: &str, other: &str) -> Vec<String> {
    let mut violations = Vec::new();
    let mut with_both = 0;
    let mut own_rows = 0;
    for schema in SCHEMAS {
        let mut login = login(system, schema).await;
        for table in tenant_tables(&login, schema).await {
            let both = tenants_seen(&mut login, schema, &table, "system", None).await;
            with_both +=
                usize::from(both.contains(&one.to_owned()) && both.contains(&other.to_owned()));
            let seen = tenants_seen(&mut login, schema, &table, "tenant", Some(one)).await;
            if seen.iter().any(|tenant| tenant != one) {
                violations.push(format!("{schema}.{table} shows {one} the rows of {seen:?}"));
            }
            // Some are the services' own, and closed to every tenant.
            own_rows += usize::from(!seen.is_empty());
            let seen = tenants_seen(&mut login, schema, &table, "tenant", None).await;
            if !seen.is_empty() {
                violations.push(format!("{schema}.{table} shows rows without a tenant"));
            }
            violations.extend(writes(&mut login, schema, &table, one, other).await);
        }
        for foreign in SCHEMAS.iter().filter(|foreign| **foreign != schema) {
            violations.extend(reaches(&mut login, schema, foreign).await);
        }
    }
    assert!(
        with_both >= 10,
        "only {with_both} tables have rows of both tenants"
    );
    assert!(
        own_rows >= 10,
        "only {own_rows} tables show a tenant its own rows"
    );
    violations
}

/// The service's own login, with the password that it has.
async fn login(system: &System, schema: &str) -> Client {
    let file = system.data_dir().join(format!("keys/{schema}.password"));
    let password = fs::read_to_string(file).expect("hawser up wrote it");
    let mut config: tokio_postgres::Config = system.instance.database_url.parse().expect("a URL");
    config
        .user(format!("hawser_{schema}"))
        .password(password.trim());
    let (client, connection) = config.connect(NoTls).await.expect("the login is taken");
    tokio::spawn(connection);
    client
}

async fn tenant_tables(client: &Client, schema: &str) -> Vec<String> {
    let sql = "SELECT c.relname FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
        WHERE c.relnamespace = $1::text::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
        ORDER BY c.relname";
    let rows = client.query(sql, &[&schema]).await.expect("a list");
    let tables: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(!tables.is_empty(), "{schema} has no tables of tenants");
    tables
}

/// Whose rows a role sees when the query does not ask.
async fn tenants_seen(
    client: &mut Client,
    schema: &str,
    table: &str,
    role: &str,
    tenant: Option<&str>,
) -> Vec<String> {
    let transaction = client.transaction().await.expect("a transaction");
    become_role(&transaction, schema, role, tenant).await;
    let sql = format!(
        "SELECT DISTINCT tenant_id::text FROM {schema}.{table} WHERE tenant_id IS NOT NULL"
    );
    let rows = match transaction.query(&sql, &[]).await {
        Ok(rows) => rows,
        // What the role may not read at all it does not see.
        Err(error) if error.code().is_some_and(|code| code.code() == "42501") => Vec::new(),
        Err(error) => panic!("{schema}.{table} as {role}: {error:?}"),
    };
    rows.iter().map(|row| row.get(0)).collect()
}

/// Whether one tenant's role can change or take over the rows of the other.
async fn writes(
    client: &mut Client,
    schema: &str,
    table: &str,
    one: &str,
    other: &str,
) -> Vec<String> {
    let statements = [
        format!("UPDATE {schema}.{table} SET tenant_id = tenant_id WHERE tenant_id = '{other}'"),
        format!("UPDATE {schema}.{table} SET tenant_id = '{one}' WHERE tenant_id = '{other}'"),
        format!("DELETE FROM {schema}.{table} WHERE tenant_id = '{other}'"),
        format!("UPDATE {schema}.{table} SET tenant_id = '{other}' WHERE tenant_id = '{one}'"),
    ];
    let mut violations = Vec::new();
    for statement in statements {
        let transaction = client.transaction().await.expect("a transaction");
        become_role(&transaction, schema, "tenant", Some(one)).await;
        if let Ok(changed @ 1..) = transaction.execute(&statement, &[]).await {
            violations.push(format!("as {one}: `{statement}` changes {changed} rows"));
        }
    }
    violations
}

/// Whether any of a service's roles reaches a table of another.
async fn reaches(client: &mut Client, schema: &str, foreign: &str) -> Vec<String> {
    let tables = tenant_tables(client, foreign).await;
    let mut violations = Vec::new();
    for role in ["tenant", "system"] {
        for table in &tables {
            let transaction = client.transaction().await.expect("a transaction");
            become_role(&transaction, schema, role, None).await;
            let sql = format!("SELECT 1 FROM {foreign}.{table} LIMIT 1");
            if transaction.query(&sql, &[]).await.is_ok() {
                violations.push(format!("hawser_{schema}_{role} reads {foreign}.{table}"));
            }
        }
    }
    violations
}

async fn become_role(
    transaction: &tokio_postgres::Transaction<'_>,
    schema: &str,
    role: &str,
    tenant: Option<&str>,
) {
    let tenant = tenant.map_or_else(String::new, |tenant| {
        format!("SET LOCAL hawser.tenant = '{tenant}';")
    });
    let sql = format!("SET LOCAL ROLE hawser_{schema}_{role}; {tenant}");
    transaction
        .batch_execute(&sql)
        .await
        .expect("the role is taken");
}
