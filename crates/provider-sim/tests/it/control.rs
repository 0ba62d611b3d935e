//! The control API, and what survives a restart.

use std::os::unix::fs::PermissionsExt as _;

use http::Method;
use provider_sim::config::{ClientConfig, CollectionKind};
use provider_sim::{CollectionName, RevokeCause, SimConfig, Simulator, StartError};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::{CLIENT, Sim, config, get, oauth_error, text};

#[tokio::test]
async fn calls_are_counted_by_what_they_have_in_common() {
    let sim = Sim::start("procore", |_| {}).await;
    let tokens = sim.connect("procore", "alice", "").await;
    for _ in 0..3 {
        sim.api(
            "procore",
            "/rest/v1.0/companies",
            &text(&tokens, "access_token"),
            &[],
        )
        .await;
    }
    sim.api("procore", "/rest/v1.0/companies", "nonsense", &[])
        .await;
    sim.refresh("procore", &text(&tokens, "refresh_token"))
        .await;
    sim.refresh("procore", "unknown").await;
    let view = sim
        .sim(Method::GET, "/counters", &Value::Null)
        .await
        .json()
        .unwrap();
    let count = |endpoint: &str, outcome: &str, grant_type: Value, user: Value| {
        let calls = view["calls"].as_array().unwrap().iter();
        let same = calls.filter(|call| {
            call["endpoint"] == endpoint
                && call["outcome"] == outcome
                && call["grant_type"] == grant_type
                && call["user"] == user
        });
        same.map(|call| call["count"].as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!(
        count("api.procore.companies", "ok", Value::Null, json!("alice")),
        3
    );
    assert_eq!(
        count(
            "api.procore.companies",
            "http_401",
            Value::Null,
            Value::Null
        ),
        1
    );
    assert_eq!(
        count("token", "ok", json!("authorization_code"), Value::Null),
        1
    );
    assert_eq!(
        count("token", "ok", json!("refresh_token"), json!("alice")),
        1
    );
    assert_eq!(
        count(
            "token",
            "invalid_grant",
            json!("refresh_token"),
            Value::Null
        ),
        1
    );
    assert_eq!(count("authorize", "ok", Value::Null, Value::Null), 1);
    assert_eq!(
        view["grants"]["g1"],
        json!({"refreshes": 1, "replays": 0, "reuse_refused": 0, "api_calls": 3, "refreshed_ms": 1_780_315_200_000_i64})
    );
    assert_eq!((&view["total"], &view["refreshes"]), (&json!(9), &json!(1)));
    assert!(
        view["calls"]
            .as_array()
            .unwrap()
            .iter()
            .all(|call| call["endpoint"] != "token" || call["client_id"] == CLIENT)
    );

    assert_eq!(
        sim.sim(Method::POST, "/reset", &json!({"parts": ["counters"]}))
            .await
            .status,
        204
    );
    let view = sim
        .sim(Method::GET, "/counters", &Value::Null)
        .await
        .json()
        .unwrap();
    assert_eq!(view["total"], 0);
    assert_eq!(
        sim.control().grants().len(),
        1,
        "only the counters were reset"
    );
}

#[tokio::test]
async fn faults_are_added_listed_and_removed_over_http() {
    let sim = Sim::start("oidc", |_| {}).await;
    let rule = json!({"endpoint": "jwks", "fault": {"kind": "status", "status": 500}});
    let id = sim
        .sim(Method::POST, "/faults", &rule)
        .await
        .json()
        .unwrap()["id"]
        .as_u64()
        .unwrap();
    let jwks = format!("{}/jwks", sim.issuer("oidc"));
    assert_eq!(get(&jwks).await.status, 500);
    let listed = sim
        .sim(Method::GET, "/faults", &Value::Null)
        .await
        .json()
        .unwrap();
    assert_eq!(
        (&listed[0]["id"], &listed[0]["met"]),
        (&json!(id), &json!(1))
    );
    assert_eq!(
        sim.sim(Method::DELETE, &format!("/faults/{id}"), &Value::Null)
            .await
            .status,
        204
    );
    assert_eq!(
        sim.sim(Method::DELETE, &format!("/faults/{id}"), &Value::Null)
            .await
            .status,
        404
    );
    assert_eq!(get(&jwks).await.status, 200);
    for nonsense in [
        json!({"endpoint": "jwks", "fault": {"kind": "earthquake"}}),
        json!({"endpoint": "jwks", "tiems": 3, "fault": {"kind": "drop"}}),
        json!({"endpoint": "jwks", "probability": 2, "fault": {"kind": "drop"}}),
    ] {
        let refused = sim.sim(Method::POST, "/faults", &nonsense).await;
        assert!(refused.status.is_client_error(), "{nonsense}");
        assert!(!text(&refused.json().unwrap(), "error").is_empty());
    }
}

#[tokio::test]
async fn grants_are_listed_revoked_and_their_tokens_expired() {
    let sim = Sim::start("oidc", |_| {}).await;
    let tokens = sim.connect("oidc", "bob", "records.read").await;
    let access = text(&tokens, "access_token");
    assert_eq!(
        sim.sim(Method::POST, "/grants/g1/expire", &Value::Null)
            .await
            .status,
        204
    );
    assert_eq!(sim.api("oidc", "/me", &access, &[]).await.status, 401);
    let next = sim
        .refresh("oidc", &text(&tokens, "refresh_token"))
        .await
        .json()
        .unwrap();
    assert_eq!(
        sim.sim(Method::POST, "/grants/g1/revoke", &Value::Null)
            .await
            .status,
        204
    );
    assert_eq!(
        oauth_error(&sim.refresh("oidc", &text(&next, "refresh_token")).await),
        "invalid_grant"
    );
    let grants = sim
        .sim(Method::GET, "/grants", &Value::Null)
        .await
        .json()
        .unwrap();
    assert_eq!(
        (&grants[0]["user"], &grants[0]["revoked"]),
        (&json!("bob"), &json!("control"))
    );
    assert_eq!(
        sim.control().grants()[0].revoked,
        Some(RevokeCause::Control)
    );
    assert_eq!(
        sim.sim(Method::POST, "/grants/g2/revoke", &Value::Null)
            .await
            .status,
        404
    );
    assert_eq!(
        sim.sim(Method::POST, "/grants/x/revoke", &Value::Null)
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn records_are_changed_and_listed_over_http() {
    let sim = Sim::start("procore", |_| {}).await;
    let query = "/records?provider=procore&collection=projects&owner=562949953500003";
    let before = sim
        .sim(Method::GET, query, &Value::Null)
        .await
        .json()
        .unwrap();
    let name = json!({"provider": "procore", "collection": "projects", "owner": "562949953500003"});
    let with = |more: Value| {
        let mut body = name.as_object().unwrap().clone();
        body.extend(more.as_object().unwrap().clone());
        Value::Object(body)
    };
    let changed = sim
        .sim(
            Method::POST,
            "/records",
            &with(json!({"insert": [{}, {}], "delete": [before[0]["id"]]})),
        )
        .await;
    assert_eq!(
        changed.json().unwrap()["inserted"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let after = sim
        .sim(Method::GET, query, &Value::Null)
        .await
        .json()
        .unwrap();
    assert_eq!(after.as_array().unwrap().len(), 201);
    let churned = sim
        .sim(
            Method::POST,
            "/records/churn",
            &with(json!({"count": 30, "seed": 1})),
        )
        .await
        .json()
        .unwrap();
    let total: usize = ["inserted", "updated", "deleted"]
        .iter()
        .map(|sort| churned[sort].as_array().unwrap().len())
        .sum();
    assert_eq!(total, 30);
    assert_eq!(
        sim.sim(Method::POST, "/records", &with(json!({"delete": ["1"]})))
            .await
            .status,
        400
    );
    let elsewhere = "/records?provider=procore&collection=projects&owner=1";
    assert_eq!(
        sim.sim(Method::GET, elsewhere, &Value::Null).await.status,
        404
    );
}

#[tokio::test]
async fn a_provider_is_reconfigured_while_it_runs() {
    let sim = Sim::start("oidc", |_| {}).await;
    let patch = json!({"access_lifetime_seconds": 5, "rotation": {"mode": "off", "window_seconds": null, "replay": null}});
    let patched = sim.sim(Method::PATCH, "/providers/oidc", &patch).await;
    assert_eq!(patched.status, 204, "{}", patched.text());
    assert_eq!(
        sim.connect("oidc", "alice", "records.read").await["expires_in"],
        5
    );
    let refused = sim
        .sim(
            Method::PATCH,
            "/providers/oidc",
            &json!({"path": "/elsewhere"}),
        )
        .await;
    assert_eq!(refused.status, 400);
    assert_eq!(
        sim.sim(Method::PATCH, "/providers/nobody", &json!({}))
            .await
            .status,
        404
    );
    let client = json!({"client_id": "new", "client_secrets": ["n"], "redirect_uris": ["http://127.0.0.1:9/new"]});
    assert_eq!(
        sim.sim(Method::PUT, "/providers/oidc/clients", &client)
            .await
            .status,
        204
    );
    let change = [
        ("client_id", "new"),
        ("redirect_uri", "http://127.0.0.1:9/new"),
    ];
    assert!(
        sim.consent("oidc", "alice", &change)
            .await
            .redirect_parameter("code")
            .is_some()
    );
    let bad = json!({"client_id": "bad", "redirect_uris": ["nowhere"]});
    let bad = sim.sim(Method::PUT, "/providers/oidc/clients", &bad).await;
    assert_eq!(bad.status, 400);
    assert!(
        text(&bad.json().unwrap(), "error").contains("client_secrets")
            && bad.text().contains("nowhere"),
        "{}",
        bad.text()
    );
}

#[tokio::test]
async fn the_clock_is_read_and_advanced() {
    let sim = Sim::start("oidc", |_| {}).await;
    assert_eq!(
        sim.sim(Method::GET, "/clock", &Value::Null)
            .await
            .json()
            .unwrap()["now"],
        "2026-06-01T12:00:00Z"
    );
    let advanced = sim
        .sim(Method::POST, "/clock", &json!({"advance_seconds": 90}))
        .await;
    assert_eq!(advanced.json().unwrap()["now"], "2026-06-01T12:01:30Z");
    assert_eq!(
        sim.sim(Method::POST, "/reset", &Value::Null).await.status,
        204
    );
    assert_eq!(sim.control().now(), "2026-06-01T12:00:00Z");
}

#[tokio::test]
async fn a_restarted_simulator_knows_its_tokens_keys_clients_and_records() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/sim.json");
    let start = async || {
        Sim::start_with(SimConfig {
            state_file: Some(path.clone()),
            ..config()
        })
        .await
    };
    let keys = async |sim: &Sim| get(&format!("{}/jwks", sim.issuer("oidc"))).await.body;
    let owner = CollectionName {
        provider: "procore".to_owned(),
        collection: CollectionKind::Projects,
        owner: "562949953500001".to_owned(),
    };
    let sim = start().await;
    let tokens = sim.connect("procore", "alice", "").await;
    let (access, refresh) = (
        text(&tokens, "access_token"),
        text(&tokens, "refresh_token"),
    );
    sim.control().churn_records(&owner, 50, 3).await.unwrap();
    sim.advance(120).await;
    let client = ClientConfig::confidential("late", "l", &[]);
    sim.control().register_client("oidc", client).await.unwrap();
    let (records, published) = (sim.control().records(&owner).unwrap(), keys(&sim).await);
    sim.simulator.stop().await;

    let sim = start().await;
    assert_eq!(sim.control().now(), "2026-06-01T12:02:00Z");
    assert_eq!(keys(&sim).await, published);
    assert_eq!(sim.control().records(&owner).unwrap(), records);
    let clients = sim.control().provider("oidc").unwrap().clients;
    assert!(clients.iter().any(|client| client.client_id == "late"));
    assert_eq!(sim.api("procore", "/me", &access, &[]).await.status, 200);
    assert_eq!(sim.refresh("procore", &refresh).await.status, 200);
    sim.simulator.stop().await;

    let sim = start().await;
    let reused = sim.refresh("procore", &refresh).await;
    assert_eq!(
        oauth_error(&reused),
        "invalid_grant",
        "it was used before the restart"
    );
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_public_address_is_what_callers_are_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = SimConfig {
        public_url: Some("https://sim.example".to_owned()),
        ..config()
    };
    let simulator = Simulator::start(config, listener).await.unwrap();
    assert_eq!(simulator.base_url(), "https://sim.example");
    let url = format!("http://{address}/microsoft/.well-known/openid-configuration");
    let document = get(&url).await.json().unwrap();
    assert_eq!(document["issuer"], "https://sim.example/microsoft");
    assert_eq!(
        document["token_endpoint"],
        "https://sim.example/microsoft/oauth/token"
    );
}

#[tokio::test]
async fn a_state_file_that_is_none_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sim.json");
    for (content, wanted) in [
        ("not JSON", "could not be understood"),
        (r#"{"version": 99}"#, "version 99"),
    ] {
        std::fs::write(&path, content).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = SimConfig {
            state_file: Some(path.clone()),
            ..config()
        };
        let error = Simulator::start(config, listener).await.unwrap_err();
        let StartError::State(error) = error else {
            panic!("{error}")
        };
        assert!(error.to_string().contains(wanted), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
    }
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_with_every_problem() {
    let mut config = config();
    config.users.clear();
    config.provider_mut("oidc").unwrap().path = "/procore".to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let StartError::Config { problems } = Simulator::start(config, listener).await.unwrap_err()
    else {
        panic!("another error")
    };
    assert_eq!(problems.len(), 2, "{problems:?}");
}
