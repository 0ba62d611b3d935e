use std::collections::BTreeMap;

use provider_catalog::{ApiErrorClass, Captured, Catalog, FillError, ResolvedProvider};
use serde_json::{Value, json};

fn resolved(key: &str) -> ResolvedProvider {
    Catalog::builtin()
        .get(key)
        .expect("an entry of the catalogue")
        .with_overrides(&json!({}))
        .expect("complete as it is")
}

fn one(name: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(name.to_owned(), value.to_owned())])
}

#[test]
fn checklist_15_callback_values_are_captured_by_declared_name_only() {
    let quickbooks = resolved("quickbooks");
    let mut callback = one("realmId", "9341453908059321");
    callback.insert("realm".to_owned(), "1".to_owned());
    assert_eq!(
        quickbooks
            .captured(Captured::Callback(&callback))
            .expect("a realm"),
        one("realm_id", "9341453908059321")
    );
    // Nobody has to be asked for it, and it is checked all the same.
    assert_eq!(quickbooks.parameters(&BTreeMap::new()), Ok(BTreeMap::new()));
    for bad in ["", "12/../x", "1 2", "x"] {
        let problems = quickbooks
            .captured(Captured::Callback(&one("realmId", bad)))
            .expect_err("no realm");
        assert_eq!(
            problems[0].field, "connection_parameters.realm_id",
            "{bad:?}"
        );
        assert!(quickbooks.parameters(&one("realm_id", bad)).is_err());
    }
    let endpoint = quickbooks
        .identity_url(&one("realm_id", "12"))
        .expect("a URL");
    assert_eq!(
        endpoint.expect("an endpoint").as_str(),
        "https://quickbooks.api.intuit.com/v3/company/12/companyinfo/12"
    );
    assert!(matches!(
        quickbooks.identity_url(&BTreeMap::new()),
        Err(FillError::Missing { .. })
    ));
}

#[test]
fn checklist_17_a_host_from_the_callback_is_one_of_the_providers() {
    let zoho = resolved("zoho");
    let token = |parameters: &BTreeMap<String, String>| {
        let template = zoho
            .provider()
            .endpoints
            .token
            .as_ref()
            .expect("an endpoint");
        zoho.url(template, parameters).expect("a URL").to_string()
    };
    let defaults = zoho.parameters(&BTreeMap::new()).expect("defaults");
    assert_eq!(token(&defaults), "https://accounts.zoho.com/oauth/v2/token");
    for (told, host) in [
        ("https://accounts.zoho.eu", "accounts.zoho.eu"),
        ("https://accounts.zoho.com.au/", "accounts.zoho.com.au"),
        ("https://accounts.zohocloud.ca", "accounts.zohocloud.ca"),
    ] {
        let callback = one("accounts-server", told);
        let captured = zoho
            .captured(Captured::Callback(&callback))
            .expect("a data center");
        assert_eq!(captured, one("accounts_server", host));
        let parameters = zoho.parameters(&captured).expect("it fits");
        assert_eq!(token(&parameters), format!("https://{host}/oauth/v2/token"));
    }
    for evil in [
        "https://accounts.zoho.com.evil.example",
        "https://evil.example/accounts.zoho.com",
        "https://accounts.zoho.com@evil.example",
        "https://u:p@accounts.zoho.com",
        "https://accounts.zoho.com:8443",
        "http://accounts.zoho.com",
        "accounts.zoho.com",
        "https://accounts-zoho.com",
        "https://accounts.zoho.evil",
    ] {
        let callback = one("accounts-server", evil);
        assert!(
            zoho.captured(Captured::Callback(&callback)).is_err(),
            "{evil}"
        );
    }
}

#[test]
fn what_a_token_response_tells_becomes_the_apis_address() {
    let salesforce = resolved("salesforce");
    let base = salesforce
        .provider()
        .api
        .base_url
        .clone()
        .expect("an address");
    let captured =
        |url: &str| salesforce.captured(Captured::TokenResponse(&json!({"instance_url": url})));
    let values = captured("https://acme.my.salesforce.com").expect("an instance");
    assert_eq!(
        salesforce.url(&base, &values).expect("a URL").as_str(),
        "https://acme.my.salesforce.com/"
    );
    for evil in [
        "https://evil.example",
        "https://acme.lightning.force.com",
        "https://salesforce.com.evil.example",
    ] {
        assert!(captured(evil).is_err(), "{evil}");
    }
    for host in ["acme.lightning.force.com", "evil.example", "salesforce.com"] {
        assert!(
            salesforce.parameters(&one("hostname", host)).is_err(),
            "{host}"
        );
    }
    for host in ["test.salesforce.com", "acme--uat.sandbox.my.salesforce.com"] {
        assert!(
            salesforce.parameters(&one("hostname", host)).is_ok(),
            "{host}"
        );
    }

    let zoom = resolved("zoom");
    let told = json!({"api_url": "https://api-eu.zoom.us"});
    assert_eq!(
        zoom.captured(Captured::TokenResponse(&told))
            .expect("a region"),
        one("api_host", "api-eu.zoom.us")
    );
    let mailchimp = resolved("mailchimp");
    assert_eq!(
        mailchimp
            .captured(Captured::Identity(&json!({"dc": "us6"})))
            .expect("a data center"),
        one("dc", "us6")
    );
}

#[test]
fn an_issuer_is_the_text_that_its_template_says() {
    let issuer = |key: &str, parameters: &BTreeMap<String, String>| {
        let resolved = resolved(key);
        let template = resolved.provider().issuer.clone().expect("an issuer");
        template.fill_text(parameters)
    };
    assert_eq!(
        issuer("okta", &one("subdomain", "acme")).expect("a text"),
        "https://acme.okta.com"
    );
    assert_eq!(
        issuer("auth0", &one("domain", "acme.eu.auth0.com")).expect("a text"),
        "https://acme.eu.auth0.com/"
    );
    assert_eq!(
        issuer("okta", &one("subdomain", "a/b")),
        Err(FillError::Shape)
    );
}

#[test]
fn accounts_of_another_product_do_not_count() {
    let basecamp = Catalog::builtin().get("basecamp").expect("an entry");
    let problems = basecamp.with_overrides(&json!({})).expect_err("no contact");
    assert_eq!(problems[0].field, "overrides.api.headers.User-Agent");
    let overrides = json!({"api": {"headers": {"User-Agent": "Acme (ops@acme.example)"}}});
    let resolved = basecamp.with_overrides(&overrides).expect("complete");
    let listing = json!({"identity": {"id": 9}, "accounts": [
        {"product": "bc3", "id": 88, "name": "Acme", "href": "https://3.basecampapi.com/88"},
        {"product": "bcx", "id": 99, "name": "Old Acme"},
    ]});
    let accounts = resolved.provider().accounts.as_ref().expect("a listing");
    let accounts = accounts.read(&listing).expect("a list");
    assert_eq!(accounts.len(), 1);
    assert_eq!(accounts[0].id, "88");
    let base = resolved
        .provider()
        .api
        .base_url
        .clone()
        .expect("an address");
    assert_eq!(
        resolved
            .url(&base, &one("account", "88"))
            .expect("a URL")
            .as_str(),
        "https://3.basecampapi.com/88"
    );
}

/// The entry; the answer's status, headers and body; what it says.
type Case = (
    &'static str,
    u16,
    &'static [(&'static str, &'static str)],
    Value,
    Option<ApiErrorClass>,
);

#[test]
fn checklist_section_8_what_an_api_says_of_a_credential() {
    use ApiErrorClass::{
        AccountUnavailable, Configuration, RateLimited, Revoked, TokenRefused, Transient,
    };
    let fault = |code: &str| json!({"Fault": {"Error": [{"Message": "m", "code": code}], "type": "AUTHENTICATION"}});
    let cases: &[Case] = &[
        // Basecamp: the account, and not the grant.
        (
            "basecamp",
            404,
            &[("Reason", "Account Inactive")],
            json!({}),
            Some(AccountUnavailable),
        ),
        ("basecamp", 404, &[], json!({}), None),
        ("basecamp", 401, &[], json!({}), Some(TokenRefused)),
        // QuickBooks.
        ("quickbooks", 401, &[], fault("3200"), Some(TokenRefused)),
        ("quickbooks", 401, &[], fault("003100"), Some(Configuration)),
        ("quickbooks", 403, &[], fault("3100"), Some(Configuration)),
        ("quickbooks", 403, &[], fault("3001"), Some(RateLimited)),
        ("quickbooks", 403, &[], fault("6000"), None),
        ("quickbooks", 429, &[], json!({}), Some(RateLimited)),
        ("quickbooks", 503, &[], json!(null), Some(Transient)),
        // Xero: one organization is disconnected.
        (
            "xero",
            403,
            &[],
            json!({"Title": "Forbidden", "Status": 403, "Detail": "AuthenticationUnsuccessful"}),
            Some(AccountUnavailable),
        ),
        (
            "xero",
            401,
            &[],
            json!({"Title": "Unauthorized", "Detail": "TokenExpired: token expired at 01/01/2026"}),
            Some(TokenRefused),
        ),
        // Slack, with 200.
        (
            "slack",
            200,
            &[],
            json!({"ok": false, "error": "token_expired"}),
            Some(TokenRefused),
        ),
        (
            "slack",
            200,
            &[],
            json!({"ok": false, "error": "account_inactive"}),
            Some(Revoked),
        ),
        ("slack", 200, &[], json!({"ok": true}), None),
        // Others.
        (
            "salesforce",
            403,
            &[],
            json!([{"errorCode": "REQUEST_LIMIT_EXCEEDED"}]),
            Some(RateLimited),
        ),
        (
            "salesforce",
            401,
            &[],
            json!([{"errorCode": "INVALID_SESSION_ID"}]),
            Some(TokenRefused),
        ),
        (
            "google",
            403,
            &[],
            json!({"error": {"errors": [{"reason": "userRateLimitExceeded"}]}}),
            Some(RateLimited),
        ),
        (
            "linear",
            400,
            &[],
            json!({"errors": [{"extensions": {"code": "RATELIMITED"}}]}),
            Some(RateLimited),
        ),
    ];
    for (key, status, headers, body, expected) in cases {
        let provider = Catalog::builtin().get(key).expect("an entry");
        let header = |wanted: &str| {
            let found = headers
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.map(|(_, value)| *value)
        };
        assert_eq!(
            provider.api.error_class(*status, header, body),
            *expected,
            "{key} {status} {body}"
        );
    }
}
