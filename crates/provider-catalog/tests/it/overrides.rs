use std::collections::BTreeMap;

use proptest::prelude::*;
use provider_catalog::{Catalog, FieldProblem, Placement, Provider};
use serde_json::{Value, json};

fn provider(key: &str) -> &'static Provider {
    Catalog::builtin()
        .get(key)
        .expect("an entry of the catalogue")
}

fn fields(problems: &[FieldProblem]) -> Vec<&str> {
    problems
        .iter()
        .map(|problem| problem.field.as_str())
        .collect()
}

#[test]
fn every_wrong_field_is_named_at_once() {
    let overrides = json!({
        "issuer": "http://as.example.com",
        "endpoints": {"token": 7, "tokn": "https://x.example"},
        "pkce": "maybe",
        "identity": {"email": ["/ok", "not a pointer"]},
        "api": {"base_url": "https://u@x.example", "headers": {"X-Ok": "fine"}},
        "display_name": "Mine",
        "nonsense": true,
    });
    let problems = provider("oidc")
        .with_overrides(&overrides)
        .expect_err("problems");
    assert_eq!(
        fields(&problems),
        [
            "overrides.api.base_url",
            "overrides.display_name",
            "overrides.endpoints.token",
            "overrides.endpoints.tokn",
            "overrides.identity.email[1]",
            "overrides.issuer",
            "overrides.nonsense",
            "overrides.pkce",
            "overrides.issuer",
        ],
    );
    assert!(problems[5].description.contains("https"), "{}", problems[5]);
    assert_eq!(
        fields(
            &provider("oidc")
                .with_overrides(&json!([1]))
                .expect_err("a list")
        ),
        ["overrides", "overrides.issuer"]
    );
}

#[test]
fn objects_are_merged_and_everything_else_is_replaced() {
    let overrides = json!({
        "endpoints": {"token": "http://127.0.0.1:9/token"},
        "api": {"headers": {"X-Extra": "1", "Procore-Company-Id": null}},
        "client_auth": ["client_secret_basic"],
        "authorization_params": {"prompt": "consent"},
        "refresh": {"replay_window": "10s"},
        "errors": {"rules": [{"status": 418.0, "means": "transient"}]},
    });
    let resolved = provider("procore")
        .with_overrides(&overrides)
        .expect("good overrides");
    let merged = resolved.provider();
    assert_eq!(
        merged.endpoints.token.as_ref().expect("set").as_str(),
        "http://127.0.0.1:9/token"
    );
    assert_eq!(
        merged.endpoints.authorization,
        provider("procore").endpoints.authorization
    );
    assert_eq!(merged.api.headers.keys().collect::<Vec<_>>(), ["X-Extra"]);
    assert_eq!(merged.client_auth.len(), 1);
    assert_eq!(merged.refresh.rotates, Some(true));
    assert_eq!(merged.errors.rules.len(), 1);
    assert_eq!(merged.errors.rules[0].status, [418]);
    assert!(resolved.hosts_replaced());
}

#[test]
fn values_that_do_not_fit_together_are_refused() {
    let cases = [
        (
            json!({"api": {"base_url": null}}),
            "overrides.identity.endpoint",
        ),
        (
            json!({"endpoints": {"token": "https://{where}.example.com/"}}),
            "overrides.endpoints.token",
        ),
        (
            json!({"api": {"headers": {"Host": "x"}}}),
            "overrides.api.headers.Host",
        ),
        (json!({"accounts": null}), "overrides.accounts"),
    ];
    for (overrides, field) in cases {
        let problems = provider("procore")
            .with_overrides(&overrides)
            .expect_err("a problem");
        assert_eq!(problems[0].field, field, "{problems:?}");
    }
}

#[test]
fn only_a_new_authority_counts_as_a_replaced_host() {
    let replaced = |overrides: Value| {
        provider("procore")
            .with_overrides(&overrides)
            .expect("good")
            .hosts_replaced()
    };
    assert!(!replaced(
        json!({"pkce": "required", "endpoints": {"token": "https://login.procore.com/other"}})
    ));
    assert!(replaced(
        json!({"endpoints": {"token": "https://login.procore.com.evil.example/oauth/token"}})
    ));
    assert!(replaced(
        json!({"endpoints": {"token": "https://login.procore.com:444/oauth/token"}})
    ));
    assert!(replaced(
        json!({"identity": {"endpoint": "https://evil.example/me"}})
    ));
    let outlook =
        provider("outlook").with_overrides(&json!({"parameters": {"tenant": {"pattern": "^.*$"}}}));
    assert!(outlook.expect("good").hosts_replaced());
}

#[test]
fn a_key_can_go_anywhere() {
    let overrides = json!({"api": {"credential": {"placement": "query", "name": "api_key", "format": "{secret}"}}});
    let resolved = provider("api-key")
        .with_overrides(&overrides)
        .expect("good overrides");
    assert_eq!(
        resolved.provider().api.credential.placement,
        Placement::Query
    );
    let without = json!({"api": {"credential": {"format": "fixed"}}});
    let problems = provider("api-key")
        .with_overrides(&without)
        .expect_err("no secret in it");
    assert_eq!(fields(&problems), ["overrides.api.credential.format"]);
}

#[test]
fn parameters_are_required_known_and_matched() {
    let overrides = json!({
        "parameters": {"site": {"pattern": "^[a-z]+$", "description": "The site's name"}},
        "api": {"base_url": "https://{site}.example.com"},
    });
    let resolved = provider("api-key")
        .with_overrides(&overrides)
        .expect("good overrides");
    let given = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
    assert!(resolved.parameters(&given("site", "acme")).is_ok());
    let problems = resolved
        .parameters(&given("sight", "acme"))
        .expect_err("two problems");
    assert_eq!(
        fields(&problems),
        ["connection_parameters.site", "connection_parameters.sight"]
    );
    assert!(resolved.parameters(&given("site", "ACME")).is_err());
    assert!(
        resolved
            .parameters(&given("site", &"a".repeat(300)))
            .is_err()
    );
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z/{}:.]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        let name = prop_oneof![
            Just("endpoints".to_owned()),
            Just("token".to_owned()),
            Just("api".to_owned()),
            Just("headers".to_owned()),
            Just("accounts".to_owned()),
            Just("parameters".to_owned()),
            "[a-z_.]{0,6}"
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(name, inner, 0..4)
                .prop_map(|members| members.into_iter().collect()),
        ]
    })
}

proptest! {
    /// Whatever is given: no panic, and what is accepted fits together.
    #[test]
    fn overrides_never_make_an_entry_that_does_not_fit(overrides in json_value()) {
        for provider in Catalog::builtin().iter() {
            if let Ok(resolved) = provider.with_overrides(&overrides) {
                prop_assert_eq!(resolved.provider().problems(), []);
            }
        }
    }
}
