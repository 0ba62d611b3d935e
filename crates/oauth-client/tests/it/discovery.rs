use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use oauth_client::{DiscoveryError, Documents, Metadata, discover};
use serde_json::json;

use crate::world::{Provider, deps, egress};

/// Serves metadata at one path, for the issuer at `issuer_path`, and 404 elsewhere.
async fn issuer(path: &'static str, issuer_path: &'static str) -> Provider {
    Provider::start(move |seen| {
        let host = seen.headers["host"].to_str().expect("a host");
        if seen.path != path {
            return (404, vec![], "<html>".to_owned());
        }
        let document = json!({
            "issuer": format!("http://{host}{issuer_path}"),
            "authorization_endpoint": format!("http://{host}/authorize"),
            "token_endpoint": format!("http://{host}/token"),
            "jwks_uri": "http://plain.example/jwks",
            "scopes_supported": ["openid", "email"],
            "code_challenge_methods_supported": ["plain"],
            "unknown_member": {"x": [1]},
        });
        (200, vec![], document.to_string())
    })
    .await
}

async fn found(provider: &Provider, path: &str) -> Result<Metadata, DiscoveryError> {
    let (deps, _) = deps();
    discover(
        &Documents::new(egress(), &deps),
        &format!("{}{path}", provider.origin),
        None,
    )
    .await
}

#[tokio::test]
async fn checklist_30_metadata_is_found_at_each_usual_place() {
    let places = [
        ("/.well-known/openid-configuration", ""),
        ("/.well-known/oauth-authorization-server", ""),
        ("/a/b/.well-known/openid-configuration", "/a/b"),
        ("/.well-known/oauth-authorization-server/a/b", "/a/b"),
        ("/.well-known/openid-configuration/a/b", "/a/b"),
    ];
    for (place, path) in places {
        let provider = issuer(place, path).await;
        let metadata = found(&provider, path).await.expect("metadata");
        let endpoints = metadata.endpoints();
        let token = endpoints.token.expect("a token endpoint");
        assert_eq!(
            token.as_str(),
            format!("{}/token", provider.origin),
            "{place}"
        );
        assert_eq!(
            endpoints.jwks, None,
            "plain http to another host is no endpoint"
        );
    }
}

#[tokio::test]
async fn checklist_30_another_issuers_metadata_is_refused() {
    let provider = issuer("/.well-known/openid-configuration", "/").await;
    let error = found(&provider, "").await.expect_err("a slash too many");
    assert!(
        matches!(&error, DiscoveryError::OtherIssuer { found } if *found == format!("{}/", provider.origin))
    );
    assert!(!error.is_transient());
    assert!(found(&provider, "/").await.is_ok());
}

#[tokio::test]
async fn checklist_30_an_explicit_place_is_the_only_one_asked() {
    let provider = issuer("/odd/openid_configuration", "").await;
    let (deps, _) = deps();
    let documents = Documents::new(egress(), &deps);
    let place = provider.url("/odd/openid_configuration");
    assert!(
        discover(&documents, &provider.origin, Some(&place))
            .await
            .is_ok()
    );
    provider.only();
    let error = discover(&documents, &provider.origin, None)
        .await
        .expect_err("not at the usual places");
    assert!(matches!(error, DiscoveryError::NotFound), "{error:?}");
}

#[tokio::test]
async fn an_outage_is_not_taken_for_an_absence() {
    let provider = Provider::start(|_| (503, vec![], String::new())).await;
    let error = found(&provider, "").await.expect_err("an outage");
    assert!(matches!(error, DiscoveryError::Unavailable { status: 503 }) && error.is_transient());
    let (deps, _) = deps();
    let documents = Documents::new(egress(), &deps);
    let inside = discover(&documents, "https://169.254.169.254", None)
        .await
        .expect_err("refused");
    assert!(matches!(inside, DiscoveryError::Unreachable(_)) && !inside.is_transient());
    for bad in ["not a url", "https://as.example/?x=1"] {
        let error = discover(&documents, bad, None)
            .await
            .expect_err("no issuer");
        assert!(matches!(error, DiscoveryError::BadIssuer));
    }
}

#[tokio::test]
async fn checklist_31_metadata_is_kept_and_served_stale_on_failure() {
    let status = Arc::new(AtomicU16::new(200));
    let answered = Arc::clone(&status);
    let provider = Provider::start(move |seen| {
        let host = seen.headers["host"].to_str().expect("a host");
        let control = vec![("cache-control", "public, max-age=600".to_owned())];
        (
            answered.load(Ordering::SeqCst),
            control,
            json!({"issuer": format!("http://{host}")}).to_string(),
        )
    })
    .await;
    let (deps, clock) = deps();
    let documents = Documents::new(egress(), &deps);
    let ask = async || discover(&documents, &provider.origin, None).await;

    ask().await.expect("metadata");
    clock.advance(Duration::from_secs(599));
    ask().await.expect("kept");
    assert_eq!(provider.seen().len(), 1);
    clock.advance(Duration::from_secs(1));
    ask().await.expect("renewed");
    assert_eq!(provider.seen().len(), 2);

    status.store(500, Ordering::SeqCst);
    clock.advance(Duration::from_mins(10));
    for _ in 0..3 {
        ask().await.expect("stale");
    }
    assert_eq!(provider.seen().len(), 3, "an outage is not hammered");
    clock.advance(Duration::from_hours(25));
    assert!(ask().await.expect_err("too old").is_transient());
    status.store(200, Ordering::SeqCst);
    ask().await.expect("it recovers by itself");
}

#[tokio::test]
async fn checklist_05_an_issuer_without_s256_is_noticed() {
    let provider = issuer("/.well-known/openid-configuration", "").await;
    let metadata = found(&provider, "").await.expect("metadata");
    assert!(metadata.lacks_s256());
    let wanted = ["openid", "offline_access"].map(str::to_owned);
    assert_eq!(metadata.offered_scopes(&wanted), ["openid"]);
}
