//! The process killed at each step of a first exchange, and of a revocation.

use std::os::unix::process::ExitStatusExt as _;

use common::Reason;
use common::rpc::CallError;
use contracts::vault::v1::*;
use futures::StreamExt as _;
use provider_sim::RevokeCause;
use testkit::{eventually, eventually_some};
use uuid::Uuid;

use crate::replica::{PATIENCE, Replica};
use crate::world::{Vault, World, token_of};

/// Processes at a time.
const ABREAST: usize = 4;
/// Nothing was sent, so the code is still good.
const UNSENT: [&str; 2] = ["exchange_claimed", "exchange_in_hand"];
/// The code was, or may have been, used up, and what came of it is nowhere: the user has to be asked once more.
const SPENT: [&str; 4] = [
    "exchange_before_send",
    "exchange_answered",
    "exchange_identified",
    "sealed",
];
const ON_DISK: [&str; 4] = ["written", "spooled", "committed", "removed"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_that_was_cut_short_is_finished_or_said_to_have_failed() {
    let world = World::new().await.0;
    let points = [&UNSENT[..], &SPENT, &ON_DISK].concat();
    let outcomes = futures::stream::iter(&points).map(async |point| {
        let replica = Replica::new(&world, point, |_| {});
        let id = world.tenant.new_id(&world.deps);
        let request = world.exchange_request(id, world.code("n").await);
        let process = replica.start(point);
        let mut vault = replica.client(&world);
        let status = eventually_some(PATIENCE, async || {
            // Until it is up; then it dies of the first one.
            let _ = vault.exchange_authorization(request.clone()).await;
            process.status()
        });
        assert_eq!(status.await.signal(), Some(9), "{point}");
        let _again = replica.start("");
        let outcome = repeat(&mut vault, &request).await;
        match outcome {
            Ok(grant) => {
                assert_eq!(grant.grant_id, id.to_string(), "{point}");
                let credential = vault.get_credential(world.get_request(id)).await.unwrap();
                let credential = credential.into_inner().credential.unwrap();
                assert!(world.works(&token_of(&credential)).await, "{point}");
                None
            }
            Err(error) => {
                assert_eq!(
                    error.reason,
                    Some(Reason::AuthorizationExpired),
                    "{point}: {error}"
                );
                Some(*point)
            }
        }
    });
    let outcomes: Vec<_> = outcomes.buffered(ABREAST).collect().await;
    let failed: Vec<_> = outcomes.into_iter().flatten().collect();
    assert_eq!(failed, SPENT);
    let codes = world.sim.control().counters().count(|call| {
        call.endpoint == "token" && call.grant_type.as_deref() == Some("authorization_code")
    });
    // The one before the first byte was never sent, and no code was sent twice.
    assert_eq!(codes, points.len() as u64 - 1);
}

/// The same call again, until there is an answer that stays.
async fn repeat(
    vault: &mut Vault,
    request: &ExchangeAuthorizationRequest,
) -> Result<Grant, CallError> {
    eventually_some(PATIENCE, async || {
        let answer = vault.exchange_authorization(request.clone()).await;
        match answer.map_err(CallError::from) {
            Err(error) if error.is_transient() => None,
            outcome => Some(outcome.map(|answer| answer.into_inner().grant.unwrap())),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_that_was_cut_short_reaches_the_provider() {
    let (world, maker) = World::new().await;
    for point in ["revoke_recorded", "revoke_told", "revoke_ended"] {
        let both = crate::fleet::import(&world, &maker, 1).await.remove(0);
        let replica = Replica::new(&world, point, |_| {});
        let process = replica.start(point);
        let mut vault = replica.client(&world);
        let request = RevokeGrantRequest {
            tenant_id: world.tenant.to_string(),
            grant_id: both.id.to_string(),
            mode: 0,
        };
        let status = eventually_some(PATIENCE, async || {
            let _ = vault.revoke_grant(request.clone()).await;
            process.status()
        });
        assert_eq!(status.await.signal(), Some(9), "{point}");
        let _again = replica.start("");
        hurry(&world).await;
        eventually(PATIENCE, async || is_gone(&world, both.id).await).await;
        let theirs = world.sim.control().grants();
        let theirs = theirs.into_iter().find(|grant| grant.id == both.theirs);
        assert_eq!(
            theirs.unwrap().revoked,
            Some(RevokeCause::Client),
            "{point}"
        );
    }
}

/// Revocations that were begun are due at once, and not only when whoever began them had time enough.
async fn hurry(world: &World) {
    let admin = world.database.admin().await;
    let sql = "UPDATE vault.revocations SET next_attempt_at = now()";
    admin.execute(sql, &[]).await.unwrap();
}

/// Nothing of the grant is left but its row.
async fn is_gone(world: &World, grant: Uuid) -> bool {
    let sql = "SELECT state = 'revoked' AND credential IS NULL AND refresh_token IS NULL
            AND NOT EXISTS (SELECT FROM vault.revocations r WHERE r.grant_id = g.grant_id)
        FROM vault.grants g
        WHERE grant_id = $1";
    let admin = world.database.admin().await;
    admin.query_one(sql, &[&grant]).await.unwrap().get(0)
}
