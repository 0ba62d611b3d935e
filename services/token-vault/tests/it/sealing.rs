//! Sealed values open where they were sealed for, and nowhere else.

use std::time::Duration;

use common::TenantKey;
use contracts::vault::v1::*;
use testkit::eventually;
use uuid::Uuid;

use crate::world::{Instance, Vault, World};

/// Grants of a tenant's, each with two versions of its tokens behind it.
const GRANTS: usize = 100;
const SWAPS: usize = 10_000;

/// A sealed value, and where it lies, or lay.
struct Sealed {
    grant: Uuid,
    column: &'static str,
    version: i64,
    value: Vec<u8>,
}

/// An OAuth client of the tenant's.
async fn put_client(world: &World, vault: &Instance, tenant: TenantKey) -> Uuid {
    let id = tenant.new_id(&world.deps);
    let client = OAuthClient {
        tenant_id: tenant.to_string(),
        oauth_client_id: id.to_string(),
        ..world.oauth_client("secret")
    };
    let request = PutOAuthClientRequest {
        oauth_client: Some(client),
    };
    world.vault(vault).put_o_auth_client(request).await.unwrap();
    id
}

async fn put_tokens(vault: &Vault, client: (TenantKey, Uuid), grant: Uuid, version: i64) {
    let request = PutCredentialRequest {
        tenant_id: client.0.to_string(),
        grant_id: grant.to_string(),
        oauth_client_id: client.1.to_string(),
        expected_version: version,
        credential: Some(put_credential_request::Credential::Oauth2(OAuth2Tokens {
            access_token: format!("access {grant} {version}"),
            refresh_token: format!("refresh {grant} {version}"),
            ..OAuth2Tokens::default()
        })),
        ..PutCredentialRequest::default()
    };
    vault.clone().put_credential(request).await.unwrap();
}

/// Everything that lies sealed in the tenant's grants.
async fn sealed(world: &World, tenant: TenantKey) -> Vec<Sealed> {
    let sql = "SELECT grant_id, version, credential, refresh_token FROM vault.grants WHERE tenant_id = $1";
    let rows = world
        .database
        .admin()
        .await
        .query(sql, &[&tenant.id()])
        .await
        .unwrap();
    rows.iter()
        .flat_map(|row| {
            ["credential", "refresh_token"].map(|column| Sealed {
                grant: row.get(0),
                column,
                version: row.get(1),
                value: row.get(column),
            })
        })
        .collect()
}

/// How many of the tenant's grants hand something out; every other one answers with an error of its own.
async fn readable(vault: &mut Vault, tenant: TenantKey, grants: &[Uuid]) -> usize {
    let request = BatchGetCredentialsRequest {
        tenant_id: tenant.to_string(),
        grant_ids: grants.iter().map(Uuid::to_string).collect(),
        purpose: "test".into(),
        ..BatchGetCredentialsRequest::default()
    };
    let answer = vault
        .batch_get_credentials(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.results.len(), grants.len());
    let is_readable = |result: &&CredentialResult| {
        matches!(
            result.result,
            Some(credential_result::Result::Credential(_))
        )
    };
    answer.results.iter().filter(is_readable).count()
}

async fn overwrite(world: &World, column: &str, grants: &[Uuid], values: &[&[u8]]) {
    let sql = format!(
        "UPDATE vault.grants SET {column} = new.value FROM unnest($1::uuid[], $2::bytea[]) AS new (id, value) WHERE grant_id = new.id"
    );
    let changed = world
        .database
        .admin()
        .await
        .execute(&sql, &[&grants, &values])
        .await
        .unwrap();
    assert_eq!(changed, grants.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_swapped_values_are_refused() {
    let (world, vault) = World::new().await;
    let caller = world.vault(&vault);
    let tenants = [world.tenant, TenantKey::new_tenant(&world.deps)];
    let (mut pool, mut grants) = (Vec::new(), Vec::new());
    for tenant in tenants {
        let client = (tenant, put_client(&world, &vault, tenant).await);
        let ids: Vec<Uuid> = (0..GRANTS).map(|_| tenant.new_id(&world.deps)).collect();
        for version in 0..2 {
            let puts = ids
                .iter()
                .map(|grant| put_tokens(&caller, client, *grant, version));
            futures::future::join_all(puts).await;
            // The first version's values are what a writer in the database may have kept.
            pool.extend(sealed(&world, tenant).await);
        }
        grants.push(ids);
    }
    // A key of another version, for half of what there is from now on.
    let rotation = RotateDataKeysRequest {
        tenant_id: tenants[0].to_string(),
    };
    world
        .admin(&vault)
        .rotate_data_keys(rotation)
        .await
        .unwrap();
    let passed = async || {
        let sql = "SELECT count(*) FROM vault.key_jobs WHERE passes = 1";
        world
            .database
            .admin()
            .await
            .query_one(sql, &[])
            .await
            .unwrap()
            .get::<_, i64>(0)
            == 1
    };
    eventually(Duration::from_mins(1), passed).await;
    pool.extend(sealed(&world, tenants[0]).await);
    assert_eq!(pool.len(), 2 * 2 * 2 * GRANTS + 2 * GRANTS);

    let mut client = caller.clone();
    for (tenant, ids) in tenants.iter().zip(&grants) {
        let present = sealed(&world, *tenant).await;
        let value_of = |grant: &Uuid| {
            let found = present
                .iter()
                .find(|value| value.grant == *grant && value.column == "credential");
            found.unwrap().value.as_slice()
        };
        let own: Vec<&[u8]> = ids.iter().map(value_of).collect();
        assert_eq!(readable(&mut client, *tenant, ids).await, ids.len());
        for swaps in (0..SWAPS / 2).step_by(GRANTS) {
            let foreign: Vec<&[u8]> = ids
                .iter()
                .map(|grant| foreign(&world, &pool, *grant))
                .collect();
            overwrite(&world, "credential", ids, &foreign).await;
            let readable = readable(&mut client, *tenant, ids).await;
            assert_eq!(readable, 0, "after {swaps} swaps");
        }
        overwrite(&world, "credential", ids, &own).await;
        assert_eq!(readable(&mut client, *tenant, ids).await, ids.len());
    }
}

/// A value that was sealed for another place than the grant's present credential. One that an older key sealed for that
/// place belongs there.
fn foreign<'a>(world: &World, pool: &'a [Sealed], grant: Uuid) -> &'a [u8] {
    loop {
        let random = u64::from_be_bytes(world.deps.random()) as usize;
        let value = &pool[random % pool.len()];
        let belongs = value.grant == grant && value.column == "credential" && value.version == 2;
        if !belongs {
            return &value.value;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_leaves_what_was_moved_as_it_is() {
    let (world, vault) = World::new().await;
    let caller = world.vault(&vault);
    let grants: Vec<Uuid> = (0..20).map(|_| world.tenant.new_id(&world.deps)).collect();
    for grant in &grants {
        put_tokens(&caller, (world.tenant, world.client), *grant, 0).await;
    }
    // Ten refresh tokens go one row on; the other rows stay.
    let refresh_tokens: Vec<_> = sealed(&world, world.tenant)
        .await
        .into_iter()
        .filter(|value| value.column == "refresh_token")
        .collect();
    let moved: Vec<Uuid> = refresh_tokens[..10]
        .iter()
        .map(|value| value.grant)
        .collect();
    let values: Vec<&[u8]> = (0..10)
        .map(|number| refresh_tokens[(number + 1) % 10].value.as_slice())
        .collect();
    overwrite(&world, "refresh_token", &moved, &values).await;
    world
        .admin(&vault)
        .rotate_data_keys(RotateDataKeysRequest::default())
        .await
        .unwrap();
    let job = async || {
        let sql = "SELECT done, failed FROM vault.key_jobs WHERE passes = 1";
        let row = world
            .database
            .admin()
            .await
            .query_opt(sql, &[])
            .await
            .unwrap();
        row.map(|row| (row.get::<_, i64>(0), row.get::<_, i64>(1)))
    };
    let counted = testkit::eventually_some(Duration::from_mins(1), job).await;
    // Ten grants and the client's secret.
    assert_eq!(counted, (11, 10));
    let after = sealed(&world, world.tenant).await;
    for (grant, value) in moved.iter().zip(values) {
        let lies = after
            .iter()
            .find(|sealed| sealed.grant == *grant && sealed.column == "refresh_token");
        assert_eq!(lies.unwrap().value, value);
    }
    let status = world
        .admin(&vault)
        .get_key_status(GetKeyStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(status.values_under_older_data_keys, 10);
}
