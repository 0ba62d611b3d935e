use super::*;

const CLIENT: &str = "c";

fn provider(rotation: Rotation) -> ProviderConfig {
    ProviderConfig {
        slug: "p".to_owned(),
        rotation,
        access_lifetime_seconds: 10,
        ..ProviderConfig::default()
    }
}

fn granted(provider: &ProviderConfig) -> (Grants, Issued) {
    let mut grants = Grants::default();
    let code = grants.issue_code(Code {
        provider: "p".to_owned(),
        client_id: CLIENT.to_owned(),
        user: "alice".to_owned(),
        redirect_uri: "http://c/cb".to_owned(),
        challenge: None,
        nonce: None,
        scope: vec!["a".to_owned(), "b".to_owned()],
        issued_ms: 0,
        exchanged: None,
    });
    let request = CodeRequest {
        code: &code,
        client_id: CLIENT,
        redirect_uri: Some("http://c/cb"),
        verifier: None,
    };
    let exchanged = grants
        .exchange(provider, &request, 0)
        .expect("the code is good");
    (grants, exchanged.issued)
}

fn refresh(
    grants: &mut Grants,
    provider: &ProviderConfig,
    token: &str,
    now: i64,
) -> Result<Refreshed, GrantError> {
    let request = RefreshRequest {
        refresh_token: token,
        client_id: CLIENT,
        scope: None,
    };
    grants.refresh(provider, &request, now)
}

fn fresh(refreshed: Result<Refreshed, GrantError>) -> Issued {
    match refreshed {
        Ok(Refreshed::Fresh(issued)) => issued,
        other => panic!("not fresh tokens: {other:?}"),
    }
}

#[test]
fn without_rotation_a_refresh_token_stays_and_is_not_repeated() {
    let provider = provider(Rotation::Off);
    let (mut grants, first) = granted(&provider);
    let token = first.refresh_token.expect("one was issued");
    for now in [1, 2, 3] {
        assert_eq!(
            fresh(refresh(&mut grants, &provider, &token, now)).refresh_token,
            None
        );
    }
}

#[test]
fn overlapping_tokens_stay_good() {
    let provider = provider(Rotation::Overlapping);
    let (mut grants, first) = granted(&provider);
    let token = first.refresh_token.expect("one was issued");
    let second = fresh(refresh(&mut grants, &provider, &token, 1))
        .refresh_token
        .expect("a new one");
    assert_ne!(token, second);
    fresh(refresh(&mut grants, &provider, &token, 2));
    fresh(refresh(&mut grants, &provider, &second, 3));
}

#[test]
fn only_the_previous_token_is_replayed_within_the_window() {
    let provider = provider(Rotation::Grace {
        window_seconds: 5,
        replay: Replay::Same,
    });
    let (mut grants, first) = granted(&provider);
    let zeroth = first.refresh_token.expect("one was issued");
    let one = fresh(refresh(&mut grants, &provider, &zeroth, 1000));
    let replayed = refresh(&mut grants, &provider, &zeroth, 5999).expect("within the window");
    assert_eq!(replayed, Refreshed::Replayed(one.clone()));
    let two = fresh(refresh(
        &mut grants,
        &provider,
        one.refresh_token.as_deref().expect("rotated"),
        2000,
    ));
    assert_eq!(
        refresh(&mut grants, &provider, &zeroth, 3000),
        Err(GrantError::Reused(1)),
        "it is not the previous one any more"
    );
    let last = two.refresh_token.expect("rotated");
    assert_eq!(
        refresh(&mut grants, &provider, &last, 3001),
        Err(GrantError::Revoked)
    );
    assert!(grants.bearer("p", &two.access_token, 3001).is_none());
}

#[test]
fn a_refresh_cannot_widen_the_scope() {
    let provider = provider(Rotation::Off);
    let (mut grants, first) = granted(&provider);
    let request = |scope: &str| RefreshRequest {
        refresh_token: first.refresh_token.as_deref().expect("one was issued"),
        client_id: CLIENT,
        scope: Some(vec![scope.to_owned()]),
    };
    let narrowed = fresh(grants.refresh(&provider, &request("a"), 1));
    assert_eq!(narrowed.scope, ["a"]);
    assert_eq!(
        grants.refresh(&provider, &request("c"), 2),
        Err(GrantError::Scope)
    );
}

#[test]
fn a_refresh_lifetime_slides_or_counts_from_the_consent() {
    for slides in [true, false] {
        let provider = ProviderConfig {
            refresh_lifetime_seconds: Some(10),
            refresh_lifetime_slides: slides,
            ..provider(Rotation::Strict)
        };
        let (mut grants, first) = granted(&provider);
        let second = fresh(refresh(
            &mut grants,
            &provider,
            first.refresh_token.as_deref().expect("issued"),
            6000,
        ));
        let third = refresh(
            &mut grants,
            &provider,
            second.refresh_token.as_deref().expect("rotated"),
            12_000,
        );
        assert_eq!(third.is_ok(), slides, "{third:?}");
    }
}

#[test]
fn expired_access_tokens_are_swept() {
    let provider = provider(Rotation::Off);
    let (mut grants, first) = granted(&provider);
    let token = first.refresh_token.expect("one was issued");
    for round in 0..5000 {
        fresh(refresh(&mut grants, &provider, &token, round * 100));
    }
    assert!(
        grants.access.len() < 2000,
        "{} access tokens are kept",
        grants.access.len()
    );
}

#[test]
fn old_generations_are_forgotten_but_recent_ones_still_end_the_grant() {
    let provider = provider(Rotation::Strict);
    let (mut grants, first) = granted(&provider);
    let mut tokens = vec![first.refresh_token.expect("one was issued")];
    for round in 1..400 {
        let last = tokens.last().expect("there is one").clone();
        tokens.push(
            fresh(refresh(&mut grants, &provider, &last, round))
                .refresh_token
                .expect("rotated"),
        );
    }
    assert!(
        grants.refresh.len() <= 2 * REMEMBERED_GENERATIONS as usize + 1,
        "{}",
        grants.refresh.len()
    );
    assert_eq!(
        refresh(&mut grants, &provider, &tokens[0], 500),
        Err(GrantError::Unknown)
    );
    assert_eq!(
        refresh(&mut grants, &provider, &tokens[390], 501),
        Err(GrantError::Reused(1))
    );
}
