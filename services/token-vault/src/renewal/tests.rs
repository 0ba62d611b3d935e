use std::collections::BTreeMap;
use std::time::Duration;

use common::{Deps, Secret, TenantKey};
use oauth_client::TokenGrant;
use provider_catalog::{
    CallMethod, ClientParams, ExchangeCall, Refresh, RefreshStrategy, TokenExchange,
};
use time::OffsetDateTime;

use super::{StandIn, Unfit};
use crate::grant::{Grant, GrantKey, Kind, Strategy};
use crate::providers::{Resolved, Trade, Trades};

fn grant(strategy: Strategy) -> Grant {
    let deps = Deps::system("test");
    let tenant = TenantKey::new_tenant(&deps);
    let key = GrantKey {
        tenant,
        id: tenant.new_id(&deps),
    };
    let now = deps.now();
    Grant {
        scopes: vec!["a".to_owned()],
        version: 2,
        issued_at: Some(now),
        ..Grant::new(key, Kind::OAuth2, strategy, None, now)
    }
}

fn call() -> ExchangeCall {
    ExchangeCall {
        endpoint: None,
        method: CallMethod::Post,
        grant_type: "trade".to_owned(),
        token_param: "token".to_owned(),
        client: ClientParams::None,
    }
}

fn trades(first: &str, renew: &str) -> Resolved {
    let trade = |url: &str| Trade {
        url: url.parse().expect("a URL"),
        call: call(),
    };
    let refresh = Refresh {
        strategy: RefreshStrategy::TokenExchange,
        token_exchange: Some(TokenExchange {
            renew: call(),
            first: Some(call()),
            minimum_age: Some(Duration::from_hours(24)),
        }),
        ..Refresh::default()
    };
    let trades = Trades {
        first: Some(trade(first)),
        renew: trade(renew),
    };
    Resolved::for_tests(refresh, Some(trades)).renewed_by(Strategy::TokenExchange)
}

fn mint(parameters: &[(&str, &str)]) -> Secret<String> {
    let parameters = parameters
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    StandIn::Mint {
        subject: "kim".to_owned(),
        scopes: vec!["b".to_owned()],
        parameters,
    }
    .text()
}

#[test]
fn checklist_40_scopes_go_with_a_refresh_only_where_the_provider_wants_them() {
    let (grant, token) = (grant(Strategy::RefreshToken), Secret::from("r"));
    for resend_scopes in [false, true] {
        let refresh = Refresh {
            resend_scopes,
            ..Refresh::default()
        };
        let resolved = Resolved::for_tests(refresh, None).renewed_by(Strategy::RefreshToken);
        let renewal = resolved.renewal(&grant, Some(&token)).expect("it fits");
        assert_eq!(renewal.url.path(), "/refresh");
        let TokenGrant::RefreshToken { scopes, .. } = renewal.traded() else {
            panic!("a refresh is expected");
        };
        assert_eq!(scopes.is_empty(), !resend_scopes);
    }
}

#[test]
fn checklist_48_what_is_asked_for_anew_is_what_was_asked_for_at_first() {
    let resolved =
        Resolved::for_tests(Refresh::default(), None).renewed_by(Strategy::ClientCredentials);
    assert!(!resolved.rules.rotates && !resolved.dialect.rotates);
    let kept = mint(&[]);
    let minted = grant(Strategy::ClientCredentials);
    let renewal = resolved.renewal(&minted, Some(&kept)).expect("it fits");
    assert_eq!(renewal.url.path(), "/token");
    assert!(
        matches!(renewal.traded(), TokenGrant::ClientCredentials { scopes } if scopes == ["b"])
    );
    // One from before there were stand-ins.
    let renewal = resolved.renewal(&minted, None).expect("it fits");
    assert!(
        matches!(renewal.traded(), TokenGrant::ClientCredentials { scopes } if scopes == ["a"])
    );
    let signed = grant(Strategy::JwtBearer);
    let renewal = resolved.renewal(&signed, Some(&kept)).expect("it fits");
    assert!(matches!(renewal.traded(), TokenGrant::JwtBearer { subject, .. } if subject == "kim"));
}

#[test]
fn what_does_not_fit_is_not_sent() {
    let resolved = trades("https://as.example/first", "https://as.example/renew");
    let unfit = |strategy, kept: Option<&Secret<String>>, parameters: BTreeMap<_, _>| {
        let grant = Grant {
            parameters,
            ..grant(strategy)
        };
        resolved.renewal(&grant, kept).err()
    };
    let here = BTreeMap::from([("installation_id".to_owned(), "43".to_owned())]);
    let there = mint(&[("installation_id", "42")]);
    assert_eq!(
        unfit(Strategy::JwtBearer, Some(&there), here),
        Some(Unfit::Parameters)
    );
    let token = Resolved::first_stand_in(&Secret::from("t")).text();
    let plain = Secret::from("a refresh token");
    for (strategy, kept) in [
        (Strategy::JwtBearer, Some(&token)),
        (Strategy::JwtBearer, Some(&plain)),
        (Strategy::JwtBearer, None),
        (Strategy::ClientCredentials, Some(&token)),
        (Strategy::TokenExchange, Some(&there)),
        (Strategy::TokenExchange, Some(&plain)),
        (Strategy::TokenExchange, None),
        (Strategy::RefreshToken, None),
        (Strategy::None, Some(&plain)),
    ] {
        let found = unfit(strategy, kept, BTreeMap::new());
        assert_eq!(found, Some(Unfit::Strategy), "{strategy:?}");
    }
}

#[test]
fn the_first_trade_is_another_one_and_at_the_same_origin() {
    let resolved = trades("https://as.example/first", "https://as.example/renew");
    let grant = grant(Strategy::TokenExchange);
    let first = Resolved::first_stand_in(&Secret::from("t")).text();
    let renewal = resolved.renewal(&grant, Some(&first)).expect("it fits");
    assert_eq!(renewal.url.path(), "/first");
    assert!(
        matches!(renewal.traded(), TokenGrant::AccessToken { token, .. } if token.expose() == "t")
    );
    let next = StandIn::AccessToken {
        value: "u".to_owned(),
        is_first: false,
    };
    let next = next.text();
    let renewal = resolved.renewal(&grant, Some(&next)).expect("it fits");
    assert_eq!(renewal.url.path(), "/renew");

    let elsewhere = trades("https://other.example/first", "https://as.example/renew");
    let found = elsewhere.renewal(&grant, Some(&first)).err();
    assert_eq!(found, Some(Unfit::Origin));
}

#[test]
fn a_token_that_was_traded_rests_for_as_long_as_the_provider_wants() {
    let resolved = trades("https://as.example/first", "https://as.example/renew");
    let traded = grant(Strategy::TokenExchange);
    assert_eq!(
        resolved.wait_to_renew(&traded),
        Some(Duration::from_hours(24))
    );
    let rested = Grant {
        issued_at: traded
            .issued_at
            .map(|at: OffsetDateTime| at - time::Duration::hours(24)),
        ..traded.clone()
    };
    assert_eq!(resolved.wait_to_renew(&rested), None);
    let first = Grant {
        version: 1,
        ..traded
    };
    assert_eq!(resolved.wait_to_renew(&first), None);
}

#[test]
fn a_stand_in_is_told_from_a_token() {
    assert!(StandIn::is_in(mint(&[]).expose()));
    assert!(!StandIn::is_in("1//0refresh"));
}
