use provider_catalog::{
    Catalog, Provider, RefreshStrategy, Renewal, TokenErrorClass, TokenErrorRule, link, parse,
};

fn provider(key: &str) -> &'static Provider {
    Catalog::builtin()
        .get(key)
        .expect("an entry of the catalogue")
}

fn entry(key: &str, errors: &str) -> Provider {
    let text = format!(
        "key: {key}\ndisplay_name: {key}\ncategories: []\ndocs_url: https://x.example\nconfidence: documented\nauth_modes: [api_key]\nerrors:\n{errors}"
    );
    parse(&format!("catalog/{key}.yaml"), &text).expect("a good file")
}

#[test]
fn a_family_shares_its_errors_and_its_own_come_first() {
    let parent = entry(
        "parent",
        "  code: [/number]\n  rules:\n    - error: a\n      means: transient\n",
    );
    let child = entry(
        "child",
        "  from: parent\n  rules:\n    - error: [b, c]\n      means: configuration\n",
    );
    let mut all = [parent, child];
    link(&mut all).expect("a family");
    let errors: Vec<_> = all[1]
        .errors
        .rules
        .iter()
        .map(|rule| &rule.error[..])
        .collect();
    assert_eq!(
        errors,
        [&["b".to_owned(), "c".to_owned()][..], &["a".to_owned()]]
    );
    assert_eq!(all[1].errors.code.len(), 1);
    assert_eq!(all[0].errors.rules.len(), 1);
}

#[test]
fn a_family_needs_an_entry_with_a_table() {
    for from in ["nobody", "child", "empty"] {
        let mut all = [
            entry("empty", "  rules: []\n"),
            entry("child", &format!("  from: {from}\n")),
        ];
        let problems = link(&mut all).expect_err("no such table");
        assert_eq!(problems.len(), 1, "{from}");
        assert_eq!(
            (problems[0].0.as_str(), problems[0].1.field.as_str()),
            ("child", "errors.from")
        );
    }
}

#[test]
fn the_families_of_the_catalogue_are_linked() {
    for (child, parent) in [
        ("outlook", "microsoft"),
        ("google-service-account", "google"),
        ("salesforce-jwt", "salesforce"),
        ("instagram", "facebook"),
    ] {
        assert_eq!(
            provider(child).errors.rules,
            provider(parent).errors.rules,
            "{child}"
        );
        assert!(!provider(child).errors.rules.is_empty(), "{child}");
    }
}

/// Whoever refuses our client ends no grant: no rule makes a user connect again because of it.
#[test]
fn no_rule_ends_a_grant_for_a_wrong_client() {
    for provider in Catalog::builtin().iter() {
        for rule in &provider.errors.rules {
            let is_unrefined = rule.at.is_none() && rule.description_contains.is_none();
            let names_client = rule.error.iter().any(|error| error.contains("client"));
            assert!(
                !(is_unrefined && names_client && rule.means == TokenErrorClass::Reauthorization),
                "{}: {rule:?}",
                provider.key.as_str()
            );
        }
    }
}

#[test]
fn every_strategy_is_used_and_says_what_it_needs() {
    let renewal = |key: &str| {
        let provider = provider(key);
        provider.renewal(provider.default_mode())
    };
    assert_eq!(renewal("google"), Renewal::RefreshToken);
    assert_eq!(renewal("mailchimp"), Renewal::None);
    assert_eq!(renewal("api-key"), Renewal::None);
    let modes = &provider("microsoft").auth_modes;
    assert_eq!(
        provider("microsoft").renewal(modes[1]),
        Renewal::ClientCredentials
    );
    let Renewal::JwtBearer(assertion) = renewal("google-service-account") else {
        panic!("a service account signs");
    };
    assert_eq!(assertion.audience, None);
    let Renewal::JwtBearer(assertion) = renewal("salesforce-jwt") else {
        panic!("it is signed for");
    };
    let audience = assertion.audience.as_ref().expect("not the token endpoint");
    let values = [("audience".to_owned(), "test.salesforce.com".to_owned())].into();
    assert_eq!(
        audience.fill(&values).expect("a text"),
        "https://test.salesforce.com"
    );
    let Renewal::TokenExchange(exchange) = renewal("instagram") else {
        panic!("a token is traded for a token");
    };
    assert_eq!(exchange.renew.grant_type, "ig_refresh_token");
    assert_eq!(
        exchange
            .first
            .as_ref()
            .expect("another trade first")
            .grant_type,
        "ig_exchange_token"
    );
    assert_eq!(
        provider("facebook").refresh.strategy,
        RefreshStrategy::TokenExchange
    );
}

/// Whether all that fits `later` fits `earlier` too, so that `later` is never asked.
fn hides(earlier: &TokenErrorRule, later: &TokenErrorRule) -> bool {
    fn has_all<T: PartialEq>(earlier: &[T], later: &[T]) -> bool {
        earlier.is_empty()
            || (!later.is_empty() && later.iter().all(|value| earlier.contains(value)))
    }
    let text = earlier.description_contains.as_ref();
    has_all(&earlier.status, &later.status)
        && has_all(&earlier.error, &later.error)
        && (earlier.at.is_none()
            || (earlier.at == later.at && has_all(&earlier.any_of, &later.any_of)))
        && text.is_none_or(|text| {
            later
                .description_contains
                .as_ref()
                .is_some_and(|later| later.contains(text))
        })
}

#[test]
fn no_rule_hides_a_later_one() {
    for provider in Catalog::builtin().iter() {
        let rules = &provider.errors.rules;
        for (at, later) in rules.iter().enumerate() {
            for earlier in &rules[..at] {
                assert!(
                    !hides(earlier, later),
                    "{}: {earlier:?} hides {later:?}",
                    provider.key.as_str()
                );
            }
        }
    }
}
