use oauth_client::{
    Class, ClientAuth, Dialect, Failure, RevocationCall, RevocationEndpoint, TokenTypeHint,
};

use provider_catalog::{CallMethod, Revocation, TokenCarrier};

use crate::world::{NOW, Provider, answer, client, deps, egress, secret, url};

fn call(target: &url::Url, hint: Option<TokenTypeHint>) -> RevocationCall {
    let (deps, _) = deps();
    RevocationEndpoint {
        url: target,
        client: &client(ClientAuth::SecretPost(secret("s"))),
        dialect: &Dialect::default(),
        habits: &Revocation::default(),
    }
    .call(&secret("the token"), hint, &deps)
    .expect("a call")
}

fn outcome(status: u16, body: &str) -> Result<(), Failure> {
    call(&url("https://as.example/revoke"), None)
        .read(Ok(answer(status, &[("retry-after", "7")], body)), NOW)
}

#[tokio::test]
async fn checklist_46_the_token_goes_with_a_hint_and_the_clients_proof() {
    let provider = Provider::start(|_| (200, vec![], String::new())).await;
    let (deps, _) = deps();
    let target = provider.url("/revoke");
    call(&target, Some(TokenTypeHint::RefreshToken))
        .send(&egress(), &deps)
        .await
        .expect("revoked");
    let seen = provider.only();
    assert_eq!(seen.field("token").as_deref(), Some("the token"));
    assert_eq!(
        seen.field("token_type_hint").as_deref(),
        Some("refresh_token")
    );
    assert_eq!(seen.field("client_secret").as_deref(), Some("s"));

    call(&target, None)
        .send(&egress(), &deps)
        .await
        .expect("revoked again");
    assert_eq!(provider.seen()[1].field("token_type_hint"), None);
}

#[tokio::test]
async fn checklist_46_a_token_may_end_itself() {
    let provider = Provider::start(|_| (200, vec![], r#"{"success":true}"#.to_owned())).await;
    let (deps, _) = deps();
    let target = provider.url("/me/permissions");
    let endpoint = RevocationEndpoint {
        url: &target,
        client: &client(ClientAuth::SecretPost(secret("s"))),
        dialect: &Dialect::default(),
        habits: &Revocation {
            method: CallMethod::Delete,
            carried: TokenCarrier::BearerToken,
            ..Revocation::default()
        },
    };
    let call = endpoint.call(&secret("the token"), None, &deps);
    call.expect("a call")
        .send(&egress(), &deps)
        .await
        .expect("revoked");
    let seen = provider.only();
    assert_eq!(seen.headers["authorization"], "Bearer the token");
    assert!(seen.body.is_empty() && seen.query.is_empty());
}

#[test]
fn checklist_46_what_is_gone_is_done_and_an_outage_is_tried_again() {
    for (status, body) in [
        (200, ""),
        (204, ""),
        (400, r#"{"error":"unsupported_token_type"}"#),
        (400, r#"{"error":"invalid_token"}"#),
        (400, r#"{"error":"invalid_grant"}"#),
    ] {
        assert!(outcome(status, body).is_ok(), "{status} {body}");
    }
    let cases = [
        (503, "", Class::Transient),
        (500, "", Class::Transient),
        (401, r#"{"error":"invalid_client"}"#, Class::Configuration),
        (404, "", Class::Configuration),
        (
            429,
            "",
            Class::RateLimited {
                until: NOW + time::Duration::seconds(7),
            },
        ),
    ];
    for (status, body, expected) in cases {
        assert_eq!(
            outcome(status, body).expect_err("not done").class,
            expected,
            "{status} {body}"
        );
    }
    assert!(
        outcome(503, "")
            .expect_err("not done")
            .retry_after
            .is_some()
    );
}
