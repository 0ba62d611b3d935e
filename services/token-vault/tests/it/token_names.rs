//! Several tokens in one grant: a bot's and a user's, as Slack gives them in one answer.

use std::collections::BTreeMap;

use common::{Code, Reason};
use contracts::vault::v1::*;
use provider_sim::{Fault, FaultRule};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{Instance, World, get_at, token_of};

/// A vault with a client at Slack, which the simulator is.
async fn world() -> (World, Instance) {
    let (world, vault) = World::new().await;
    let client = OAuthClient {
        provider: "slack".into(),
        auth_method: ClientAuthMethod::SecretPost as i32,
        ..world.oauth_client("slack's secret")
    };
    let request = PutOAuthClientRequest {
        oauth_client: Some(client),
    };
    world
        .vault(&vault)
        .put_o_auth_client(request)
        .await
        .unwrap();
    (world, vault)
}

/// What the provider answers from now on.
fn answers(world: &World, endpoint: &str, body: &Value) {
    let answer = Fault::Answer {
        status: 200,
        headers: BTreeMap::from([("content-type".into(), "application/json".into())]),
        body: body.to_string(),
    };
    world.sim.control().clear_faults();
    world
        .sim
        .control()
        .inject(FaultRule::every(endpoint, answer));
}

fn installed(user: &Value) -> Value {
    json!({
        "ok": true, "app_id": "A1", "access_token": "xoxb-1", "token_type": "bot", "scope": "chat:write,channels:read",
        "bot_user_id": "U0", "refresh_token": "xoxe-1", "expires_in": 43_200,
        "team": {"id": "T1", "name": "Acme"}, "enterprise": null, "authed_user": user,
    })
}

fn user_token() -> Value {
    json!({"id": "U1", "scope": "search:read", "access_token": "xoxp-1", "token_type": "user"})
}

async fn connect(world: &World, vault: &Instance, body: &Value) -> Grant {
    answers(world, "token", body);
    let id = world.tenant.new_id(&world.deps);
    let request = world.exchange_request(id, world.code("n").await);
    let answer = world.vault(vault).exchange_authorization(request).await;
    let confirmed = ConfirmGrantRequest {
        tenant_id: world.tenant.to_string(),
        grant_id: id.to_string(),
    };
    world.vault(vault).confirm_grant(confirmed).await.unwrap();
    answer.unwrap().into_inner().grant.unwrap()
}

async fn get(
    world: &World,
    vault: &Instance,
    grant: &Grant,
    name: &str,
) -> Result<Credential, common::rpc::CallError> {
    let id: Uuid = grant.grant_id.parse().unwrap();
    let request = GetCredentialRequest {
        token_name: name.into(),
        ..world.get_request(id)
    };
    get_at(&mut world.vault(vault), request).await
}

fn access_token(credential: &Credential) -> &AccessToken {
    match credential.secret.as_ref().unwrap() {
        credential::Secret::AccessToken(token) => token,
        other => panic!("an access token is expected, and not {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_token_of_an_answer_is_handed_out_by_its_name() {
    let _logs = testkit::logs::capture();
    let (world, vault) = world().await;
    let grant = connect(&world, &vault, &installed(&user_token())).await;
    assert_eq!(grant.token_names, ["user"]);
    assert_eq!(grant.scopes, ["chat:write", "channels:read"]);
    assert!(!grant.raw_json.contains("xox"), "{}", grant.raw_json);
    assert!(grant.raw_json.contains("T1"));

    let bot = get(&world, &vault, &grant, "").await.unwrap();
    assert_eq!(token_of(&bot), "xoxb-1");
    assert!(access_token(&bot).expires_at.is_some());
    let user = get(&world, &vault, &grant, "user").await.unwrap();
    assert_eq!(token_of(&user), "xoxp-1");
    assert_eq!(access_token(&user).scopes, ["search:read"]);
    assert_eq!(
        access_token(&user).expires_at,
        None,
        "the user's does not end"
    );
    let error = get(&world, &vault, &grant, "admin")
        .await
        .expect_err("there is none");
    assert_eq!(error.code, Code::NotFound);
    assert_eq!(
        world.access_records().await,
        2,
        "each that was handed out is recorded"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_keeps_the_tokens_that_its_answer_does_not_have() {
    let _logs = testkit::logs::capture();
    let (world, vault) = world().await;
    let grant = connect(&world, &vault, &installed(&user_token())).await;
    let id: Uuid = grant.grant_id.parse().unwrap();
    for round in 2..=3 {
        let body = json!({"ok": true, "access_token": format!("xoxb-{round}"), "token_type": "bot",
                          "refresh_token": format!("xoxe-{round}"), "expires_in": 43_200});
        answers(&world, "token", &body);
        world.expire(id).await;
        let bot = get(&world, &vault, &grant, "").await.unwrap();
        assert_eq!(token_of(&bot), format!("xoxb-{round}"));
        let user = get(&world, &vault, &grant, "user").await.unwrap();
        assert_eq!(token_of(&user), "xoxp-1");
        assert_eq!(access_token(&user).scopes, ["search:read"]);
        assert_eq!(world.describe(&vault, id).await.token_names, ["user"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_has_ended_by_itself_is_not_handed_out() {
    let _logs = testkit::logs::capture();
    let (world, vault) = world().await;
    let mut user = user_token();
    user["expires_at"] = json!(1_700_000_000);
    let grant = connect(&world, &vault, &installed(&user)).await;
    let error = get(&world, &vault, &grant, "user")
        .await
        .expect_err("it ended in 2023");
    assert_eq!(
        (error.code, error.reason),
        (
            Code::FailedPrecondition,
            Some(Reason::ReauthorizationRequired)
        )
    );
    assert_eq!(error.metadata["cause"], "EXPIRED");
    let bot = get(&world, &vault, &grant, "").await.unwrap();
    assert_eq!(token_of(&bot), "xoxb-1", "the bot's is as good as before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_inside_200_mean_what_the_catalogue_says() {
    let logs = testkit::logs::capture();
    logs.expect("a refresh failed");
    logs.expect("the provider refuses a grant for good");
    let (world, vault) = world().await;
    let grant = connect(&world, &vault, &installed(&user_token())).await;
    let id: Uuid = grant.grant_id.parse().unwrap();
    world.expire(id).await;
    for (code, state) in [
        ("internal_error", GrantState::RefreshFailing),
        ("bad_client_secret", GrantState::RefreshFailing),
        ("invalid_refresh_token", GrantState::ReauthorizationRequired),
    ] {
        answers(&world, "token", &json!({"ok": false, "error": code}));
        let error = get(&world, &vault, &grant, "")
            .await
            .expect_err("there is no token");
        let described = world.describe(&vault, id).await;
        assert_eq!(described.state(), state, "{code}: {error:?}");
        world.forget_waits().await;
    }
    let described = world.describe(&vault, id).await;
    assert_eq!(
        described.reauthorization_cause(),
        ReauthorizationCause::Revoked
    );
    assert!(described.last_error.starts_with("invalid_refresh_token"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_tokens_are_revoked_with_the_grant() {
    let _logs = testkit::logs::capture();
    let (world, vault) = world().await;
    let grant = connect(&world, &vault, &installed(&user_token())).await;
    answers(&world, "revoke", &json!({"ok": true, "revoked": true}));
    let request = RevokeGrantRequest {
        tenant_id: world.tenant.to_string(),
        grant_id: grant.grant_id.clone(),
        mode: 0,
    };
    let answer = world.vault(&vault).revoke_grant(request).await.unwrap();
    assert!(answer.into_inner().revoked_at_provider);
    let told = world
        .sim
        .control()
        .counters()
        .count(|call| call.endpoint == "revoke");
    assert_eq!(told, 2, "the bot's token, and the user's");
}
