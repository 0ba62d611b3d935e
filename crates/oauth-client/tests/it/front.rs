//! What comes before the tokens: pushed requests, and authorizations on another device.

use std::collections::BTreeMap;
use std::time::Duration;

use oauth_client::{
    Class, Client, ClientAuth, DeviceCall, DeviceEndpoint, Dialect, Failure, Poll, PushCall,
    PushEndpoint,
};
use serde_json::json;

use crate::world::{NOW, Provider, answer, client, deps, egress, secret, url};

fn push(target: &url::Url, client: &Client, parameters: &[(&str, &str)]) -> PushCall {
    let (deps, _) = deps();
    let parameters: BTreeMap<_, _> = parameters
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let endpoint = PushEndpoint {
        url: target,
        client,
        dialect: &Dialect::default(),
    };
    endpoint.call(&parameters, &deps).expect("a call")
}

fn device(target: &url::Url, client: &Client) -> DeviceCall {
    let (deps, _) = deps();
    let endpoint = DeviceEndpoint {
        url: target,
        client,
        dialect: &Dialect::default(),
    };
    let scopes = ["a".to_owned(), "b".to_owned()];
    endpoint.call(&scopes, &deps).expect("a call")
}

#[tokio::test]
async fn checklist_11_a_request_is_pushed_with_the_clients_proof_and_its_id_once() {
    let body = json!({"request_uri": "urn:x", "expires_in": "90"}).to_string();
    for auth in [
        ClientAuth::SecretBasic(secret("s")),
        ClientAuth::SecretPost(secret("s")),
        ClientAuth::None,
    ] {
        let body = body.clone();
        let provider = Provider::start(move |_| (201, vec![], body.clone())).await;
        let (deps, _) = deps();
        let parameters = [
            ("client_id", "somebody else"),
            ("client_secret", "not this"),
            ("request_uri", "nor this"),
            ("state", "s&t"),
        ];
        let call = push(&provider.url("/par"), &client(auth), &parameters);
        let pushed = call.send(&egress(), &deps).await.expect("pushed");
        assert_eq!(pushed.request_uri, "urn:x");
        assert_eq!(pushed.expires_at, NOW + Duration::from_secs(90));
        let seen = provider.only();
        assert_eq!(seen.field("client_id").as_deref(), Some("our client"));
        assert_eq!(seen.field("state").as_deref(), Some("s&t"));
        assert_eq!(seen.field("request_uri"), None);
        assert_ne!(seen.field("client_secret").as_deref(), Some("not this"));
    }
}

#[test]
fn an_answer_without_a_reference_is_the_providers_bug() {
    let target = url("https://as.example/par");
    let call = push(&target, &client(ClientAuth::None), &[]);
    let read = |status, body: &str| call.read(Ok(answer(status, &[], body)), NOW, NOW);
    for body in ["{}", "", "<html>", r#"{"request_uri":""}"#] {
        let failure = read(201, body).expect_err("nothing to send a browser with");
        assert_eq!(failure.class, Class::ProviderBug, "{body:?}");
    }
    let failure = read(400, r#"{"error":"invalid_request"}"#).expect_err("refused");
    assert_eq!(failure.class, Class::Configuration);
    // What is not told, is a minute.
    let pushed = read(200, r#"{"request_uri":"urn:x"}"#).expect("pushed");
    assert_eq!(pushed.expires_at, NOW + Duration::from_mins(1));
}

#[tokio::test]
async fn checklist_28_a_device_authorization_says_where_to_go_and_how_often_to_ask() {
    let body = json!({
        "device_code": "d", "user_code": "WDJB-MJHT", "verification_url": "https://as.example/device",
        "expires_in": 1800,
    });
    let body = body.to_string();
    let provider = Provider::start(move |_| (200, vec![], body.clone())).await;
    let (deps, _) = deps();
    let ours = client(ClientAuth::SecretBasic(secret("s")));
    let call = device(&provider.url("/device"), &ours);
    let started = call.send(&egress(), &deps).await.expect("started");
    assert_eq!(started.device_code.expose(), "d");
    assert_eq!(started.user_code, "WDJB-MJHT");
    assert_eq!(started.verification_uri, url("https://as.example/device"));
    assert_eq!(started.expires_at, NOW + Duration::from_mins(30));
    assert_eq!(started.interval, Duration::from_secs(5));
    let seen = provider.only();
    assert_eq!(seen.field("client_id").as_deref(), Some("our client"));
    assert_eq!(seen.field("scope").as_deref(), Some("a b"));
}

#[test]
fn checklist_28_an_address_that_is_no_page_is_refused() {
    let target = url("https://as.example/device");
    let call = device(&target, &client(ClientAuth::None));
    for uri in ["javascript:alert(1)", "data:text/html,x", "/device", ""] {
        let body = json!({"device_code": "d", "user_code": "u", "verification_uri": uri});
        let failure = call
            .read(Ok(answer(200, &[], &body.to_string())), NOW, NOW)
            .expect_err("nobody is sent there");
        assert_eq!(failure.class, Class::ProviderBug, "{uri}");
    }
}

#[test]
fn checklist_28_each_refusal_of_a_poll_has_its_meaning() {
    let refused = |code: &str| Failure {
        code: Some(code.to_owned()),
        ..Failure::new(Class::Configuration)
    };
    for (code, poll) in [
        ("authorization_pending", Some(Poll::Pending)),
        ("slow_down", Some(Poll::SlowDown)),
        ("expired_token", Some(Poll::Expired)),
        ("access_denied", Some(Poll::Denied)),
        ("authorization_declined", Some(Poll::Denied)),
        ("invalid_grant", None),
    ] {
        assert_eq!(Poll::of(&refused(code)), poll, "{code}");
    }
    assert_eq!(Poll::of(&Failure::new(Class::Transient)), None);
}
