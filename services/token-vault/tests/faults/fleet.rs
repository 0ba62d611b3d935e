//! Grants in bulk, and what has become of them.

use std::time::Duration;

use common::Reason;
use common::rpc::CallError;
use contracts::vault::v1::*;
use futures::StreamExt as _;
use provider_sim::config::{Replay, Rotation};
use tonic::Request;
use uuid::Uuid;

use crate::world::{Instance, Vault, World, get_at, token_of};

/// A grant, here and at the provider.
#[derive(Clone, Debug)]
pub(crate) struct Both {
    pub(crate) id: Uuid,
    /// What the provider's control calls it.
    pub(crate) theirs: String,
}

/// Calls at a time.
const ABREAST: usize = 16;

/// The provider rotates, and takes a used token again for so many seconds.
pub(crate) async fn rotate(world: &World, window_seconds: u32) {
    let rotation = match window_seconds {
        0 => Rotation::Strict,
        window_seconds => Rotation::Grace {
            window_seconds,
            // With tokens of an age: what was issued before may have run out by then.
            replay: Replay::New,
        },
    };
    let control = world.sim.control();
    let set = control.configure("oidc", |provider| provider.rotation = rotation);
    set.await.unwrap();
}

/// How long the provider's access tokens are good from now on.
pub(crate) async fn lifetime(world: &World, seconds: u32) {
    let control = world.sim.control();
    let set = control.configure("oidc", |provider| {
        provider.access_lifetime_seconds = seconds;
    });
    set.await.unwrap();
}

/// So many grants that were obtained elsewhere, with tokens that have an hour to go.
pub(crate) async fn import(world: &World, vault: &Instance, count: usize) -> Vec<Both> {
    let made = futures::stream::iter(0..count).map(async |_| import_one(world, vault).await);
    made.buffer_unordered(ABREAST).collect().await
}

async fn import_one(world: &World, vault: &Instance) -> Both {
    let control = world.sim.control();
    let issued = control.issue_grant("oidc", "vault", "alice").await.unwrap();
    let id = world.tenant.new_id(&world.deps);
    let tokens = OAuth2Tokens {
        access_token: issued.access_token,
        refresh_token: issued.refresh_token,
        token_type: "Bearer".into(),
        expires_at: Some(prost_types::Timestamp {
            seconds: world.deps.now().unix_timestamp() + 3600,
            nanos: 0,
        }),
        scopes: issued.scope,
        ..OAuth2Tokens::default()
    };
    let request = PutCredentialRequest {
        tenant_id: world.tenant.to_string(),
        grant_id: id.to_string(),
        oauth_client_id: world.client.to_string(),
        credential: Some(put_credential_request::Credential::Oauth2(tokens)),
        ..PutCredentialRequest::default()
    };
    let mut client = world.vault(vault);
    client.put_credential(request).await.unwrap();
    let request = ConfirmGrantRequest {
        tenant_id: world.tenant.to_string(),
        grant_id: id.to_string(),
    };
    client.confirm_grant(request).await.unwrap();
    Both {
        id,
        theirs: issued.id,
    }
}

/// All tokens have expired at this moment, and no vault goes about them unless somebody asks.
pub(crate) async fn expire_all(world: &World) -> u64 {
    let sql = "UPDATE vault.grants
        SET issued_at = now() - interval '1 h', expires_at = now(), next_refresh_at = now() + interval '1 h'";
    let admin = world.database.admin().await;
    admin.execute(sql, &[]).await.unwrap()
}

/// Whatever vault looks first refreshes them.
pub(crate) async fn all_due(world: &World) {
    let sql = "UPDATE vault.grants SET next_refresh_at = now()";
    let admin = world.database.admin().await;
    admin.execute(sql, &[]).await.unwrap();
}

/// Waits until so many grants have been refreshed once.
pub(crate) async fn until_fresh(world: &World, count: u64) {
    let admin = world.database.admin().await;
    let limit = Duration::from_mins(1) + Duration::from_millis(100) * count as u32;
    testkit::eventually(limit, async || {
        let sql = "SELECT count(*) FROM vault.grants WHERE version = 2 AND expires_at > now() AND state = 'active'";
        let fresh: i64 = admin.query_one(sql, &[]).await.unwrap().get(0);
        fresh as u64 == count
    })
    .await;
}

/// A credential, from a caller who waits so long.
pub(crate) async fn ask(
    world: &World,
    vault: &mut Vault,
    grant: Uuid,
    patience: Duration,
) -> Result<Credential, CallError> {
    let mut request = Request::new(world.get_request(grant));
    request.set_timeout(patience);
    let answer = vault.get_credential(request).await?;
    Ok(answer.into_inner().credential.unwrap())
}

/// What a grant is worth in the end: `true` where the provider takes its token, `false` where its user has to come back.
pub(crate) async fn outcome(world: &World, vault: &Vault, grant: Uuid) -> bool {
    let mut vault = vault.clone();
    testkit::eventually_some(Duration::from_mins(3), async || {
        match get_at(&mut vault, world.get_request(grant)).await {
            // One that has just run out is followed by another.
            Ok(credential) => world.works(&token_of(&credential)).await.then_some(true),
            Err(error) if error.reason == Some(Reason::ReauthorizationRequired) => Some(false),
            Err(error) if error.is_transient() => None,
            Err(error) => panic!("{error}"),
        }
    })
    .await
}

/// Those whose users have to come back.
pub(crate) async fn lost(world: &World, vault: &Vault, grants: &[Both]) -> Vec<Both> {
    let judged = futures::stream::iter(grants).map(async |both| {
        let is_good = outcome(world, vault, both.id).await;
        (!is_good).then(|| both.clone())
    });
    judged
        .buffer_unordered(ABREAST)
        .filter_map(async |lost| lost)
        .collect()
        .await
}

/// Requests for new tokens that came to the provider, whatever it said.
pub(crate) fn asked(world: &World) -> u64 {
    world.sim.control().counters().count(|call| {
        call.endpoint == "token" && call.grant_type.as_deref() == Some("refresh_token")
    })
}

/// A number from the environment.
#[expect(
    clippy::disallowed_methods,
    reason = "how long a test goes on is said to the test alone"
)]
pub(crate) fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number")),
    )
}
