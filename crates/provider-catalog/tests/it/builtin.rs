use std::collections::BTreeMap;

use provider_catalog::{
    Account, AuthMode, Catalog, ClientAuthMethod, Confidence, Pkce, Provider, ReplayWindow,
};
use serde_json::json;

fn provider(key: &str) -> &'static Provider {
    Catalog::builtin()
        .get(key)
        .expect("an entry of the catalogue")
}

#[test]
fn every_entry_is_there_and_fits_together() {
    let keys: Vec<_> = Catalog::builtin()
        .iter()
        .map(|provider| provider.key.as_str())
        .collect();
    assert_eq!(
        keys,
        [
            "api-key",
            "atlassian",
            "auth0",
            "basecamp",
            "basic",
            "box",
            "dropbox",
            "facebook",
            "github-app",
            "github-app-user",
            "google",
            "google-service-account",
            "hubspot",
            "instagram",
            "keycloak",
            "linear",
            "linkedin",
            "mailchimp",
            "microsoft",
            "oauth2",
            "oidc",
            "okta",
            "outlook",
            "procore",
            "quickbooks",
            "salesforce",
            "salesforce-jwt",
            "slack",
            "xero",
            "zendesk",
            "zoho",
            "zoom",
        ]
    );
    for provider in Catalog::builtin().iter() {
        assert_eq!(provider.problems(), [], "{}", provider.key.as_str());
    }
}

#[test]
fn the_catalogue_is_searched_by_key_name_and_category() {
    let found = |text: &str| -> Vec<_> {
        Catalog::builtin()
            .search(text)
            .map(|found| found.key.as_str())
            .collect()
    };
    assert_eq!(found("PROCORE"), ["procore"]);
    assert_eq!(found("openid c"), ["oidc"]);
    assert_eq!(found("email"), ["google", "microsoft", "outlook"]);
    assert_eq!(found("").len(), Catalog::builtin().iter().count());
    assert!(found("nothing of the kind").is_empty());
}

#[test]
fn procore_chooses_the_company_by_header_and_lists_companies() {
    let procore = provider("procore");
    assert_eq!(procore.confidence, Confidence::Documented);
    assert_eq!(procore.client_auth, [ClientAuthMethod::ClientSecretPost]);
    assert_eq!(procore.pkce, Pkce::Tolerated);
    assert_eq!(
        (procore.refresh.rotates, procore.refresh.replay_window),
        (Some(true), ReplayWindow::None)
    );

    let resolved = procore
        .with_overrides(&json!({}))
        .expect("complete as it is");
    assert!(!resolved.hosts_replaced());
    assert!(!resolved.needs_discovery(AuthMode::OAuth2Code));
    let none = BTreeMap::new();
    assert_eq!(
        resolved
            .identity_url(&none)
            .expect("a URL")
            .expect("an endpoint")
            .as_str(),
        "https://api.procore.com/rest/v1.0/me",
    );
    assert!(
        resolved
            .api_headers(None, &none)
            .expect("headers")
            .is_empty()
    );
    assert_eq!(
        resolved.api_headers(Some("42"), &none).expect("headers")["Procore-Company-Id"],
        "42"
    );
    assert!(resolved.api_headers(Some("4\r\nx: y"), &none).is_err());

    let accounts = procore.accounts.as_ref().expect("a listing");
    let listing = json!([
        {"id": 562_949_953_425_262_i64, "name": "Lone Star", "is_active": true},
        {"id": 2, "name": "Closed", "is_active": false},
        {"id": 3},
        {"name": "no id"},
    ]);
    let expected = [
        ("562949953425262", "Lone Star", true),
        ("2", "Closed", false),
        ("3", "3", true),
    ];
    let expected = expected.map(|(id, name, active)| Account {
        id: id.to_owned(),
        name: name.to_owned(),
        active,
    });
    assert_eq!(accounts.read(&listing).expect("a list"), expected);
    assert_eq!(accounts.read(&json!({"error": "no"})), None);

    let person = procore
        .identity
        .read([&json!({"id": 7, "login": "a@example.com", "name": "A"})]);
    assert_eq!(person.user_id.as_deref(), Some("7"));
    assert_eq!(person.email.as_deref(), Some("a@example.com"));
}

#[test]
fn outlook_signs_in_at_one_directory_or_at_any() {
    let resolved = provider("outlook")
        .with_overrides(&json!({}))
        .expect("complete as it is");
    let token = resolved
        .provider()
        .endpoints
        .token
        .clone()
        .expect("an endpoint");
    let url = |tenant: Option<&str>| {
        let given = tenant
            .map(|tenant| ("tenant".to_owned(), tenant.to_owned()))
            .into_iter()
            .collect();
        let parameters = resolved.parameters(&given)?;
        Ok::<_, Vec<_>>(
            resolved
                .url(&token, &parameters)
                .expect("a URL")
                .to_string(),
        )
    };
    assert_eq!(
        url(None).expect("default"),
        "https://login.microsoftonline.com/common/oauth2/v2.0/token"
    );
    for tenant in [
        "consumers",
        "contoso.onmicrosoft.com",
        "72f988bf-86f1-41af-91ab-2d7cd011db47",
    ] {
        assert!(url(Some(tenant)).expect("a directory").contains(tenant));
    }
    for tenant in ["", "..", "a/b", "common/../x", "com mon", "x@y", "commons"] {
        assert!(url(Some(tenant)).is_err(), "{tenant:?}");
    }
    let person = resolved
        .provider()
        .identity
        .read([&json!({"id": "1", "mail": null, "userPrincipalName": "a@contoso.com"})]);
    assert_eq!(person.email.as_deref(), Some("a@contoso.com"));
}

#[test]
fn an_openid_provider_needs_its_issuer_alone() {
    let oidc = provider("oidc");
    let problems = oidc.with_overrides(&json!({})).expect_err("no issuer");
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].field, "overrides.issuer");

    let resolved = oidc
        .with_overrides(&json!({"issuer": "http://127.0.0.1:3000"}))
        .expect("enough");
    assert!(resolved.needs_discovery(AuthMode::OAuth2Code));
    assert!(resolved.hosts_replaced());
    let discovered = serde_json::from_value(json!({
        "authorization": "http://127.0.0.1:3000/auth", "token": "http://127.0.0.1:3000/token",
        "jwks": "http://127.0.0.1:3000/jwks", "userinfo": "http://127.0.0.1:3000/me",
    }));
    let resolved = resolved.with_discovered(discovered.expect("endpoints"));
    assert!(!resolved.needs_discovery(AuthMode::OAuth2Code));
    let userinfo = resolved
        .identity_url(&BTreeMap::new())
        .expect("a URL")
        .expect("an endpoint");
    assert_eq!(userinfo.as_str(), "http://127.0.0.1:3000/me");
}

#[test]
fn plain_oauth2_needs_endpoints_or_an_issuer() {
    let oauth2 = provider("oauth2");
    let problems = oauth2.with_overrides(&json!({})).expect_err("no endpoints");
    let fields: Vec<_> = problems
        .iter()
        .map(|problem| problem.field.as_str())
        .collect();
    assert_eq!(
        fields,
        [
            "overrides.endpoints.authorization",
            "overrides.endpoints.token"
        ]
    );

    assert!(
        oauth2
            .with_overrides(&json!({"issuer": "https://as.example.com"}))
            .is_ok()
    );
    let token = json!({"endpoints": {"token": "https://as.example.com/token"}});
    assert!(
        oauth2
            .with_overrides_for(AuthMode::OAuth2ClientCredentials, &token)
            .is_ok()
    );
    assert!(
        oauth2
            .with_overrides_for(AuthMode::OAuth2Code, &token)
            .is_err()
    );
}

#[test]
fn keys_and_passwords_need_nothing() {
    for key in ["api-key", "basic"] {
        assert!(provider(key).with_overrides(&json!({})).is_ok(), "{key}");
    }
}
