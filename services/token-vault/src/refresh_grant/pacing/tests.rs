//! Who may go where when.

use common::TenantKey;

use super::*;

fn pacing() -> (Pacing, Deps) {
    let deps = Deps::system("test");
    let limits = Limits {
        per_endpoint: 4,
        in_background: 6,
    };
    (Pacing::new(limits, &deps), deps)
}

fn client(deps: &Deps) -> ClientKey {
    let tenant = TenantKey::new_tenant(deps);
    ClientKey {
        tenant,
        id: tenant.new_id(deps),
    }
}

fn url(text: &str) -> Url {
    text.parse().expect("it is one")
}

fn status(status: u16, class: Class) -> Failure {
    Failure {
        status: Some(status),
        ..Failure::new(class)
    }
}

#[tokio::test]
async fn so_many_at_a_time_and_callers_first() {
    let (pacing, deps) = pacing();
    let (client, there) = (client(&deps), url("https://one.example/token?a"));
    let mut due = Vec::new();
    for _ in 0..3 {
        due.push(pacing.enter(&there, client, Urgency::Due).await);
    }
    let fourth = pacing.enter(&there, client, Urgency::Due);
    let mut fourth = Box::pin(fourth);
    assert!(
        futures::poll!(fourth.as_mut()).is_pending(),
        "a place is kept for whoever is waited for"
    );
    let same = url("https://one.example/token?b");
    let awaited = pacing.enter(&same, client, Urgency::Awaited).await;
    let mut next = Box::pin(pacing.enter(&same, client, Urgency::Awaited));
    assert!(futures::poll!(next.as_mut()).is_pending());
    let elsewhere = url("https://one.example/other");
    assert!(
        pacing
            .enter(&elsewhere, client, Urgency::Awaited)
            .await
            .is_ok()
    );
    drop(awaited);
    assert!(next.await.is_ok());
    drop(due.pop());
    assert!(fourth.await.is_ok());
}

#[tokio::test]
async fn a_client_that_is_told_to_wait_waits_and_no_other() {
    let (pacing, deps) = pacing();
    let (one, other, there) = (
        client(&deps),
        client(&deps),
        url("https://one.example/token"),
    );
    let now = deps.now();
    let until = now + Duration::from_secs(90);
    let pass = pacing.enter(&there, one, Urgency::Due).await;
    let pass = pass.expect("nobody is here");
    pass.failed(&status(429, Class::RateLimited { until }), now);
    drop(pass);
    let refused = pacing.enter(&there, one, Urgency::Due).await;
    let refused = refused.expect_err("it was told to wait");
    assert!(refused.is_limited && refused.wait > Duration::from_secs(85));
    assert_eq!(pacing.clients_without_way(), [one.id]);
    assert!(pacing.enter(&there, other, Urgency::Due).await.is_ok());
    let token_alone = status(400, Class::RateLimited { until });
    let pass = pacing.enter(&there, other, Urgency::Due).await;
    pass.expect("it was not told").failed(&token_alone, now);
    assert!(pacing.enter(&there, other, Urgency::Due).await.is_ok());
}

#[tokio::test]
async fn an_endpoint_that_is_away_is_left_alone_by_everybody() {
    let (pacing, deps) = pacing();
    let (one, other, there) = (
        client(&deps),
        client(&deps),
        url("https://one.example/token"),
    );
    for _ in 0..5 {
        let pass = pacing.enter(&there, one, Urgency::Due).await;
        let pass = pass.expect("it is not yet known");
        pass.failed(&status(502, Class::Ambiguous), deps.now());
    }
    let refused = pacing.enter(&there, other, Urgency::Awaited).await;
    assert!(!refused.expect_err("it is away").is_limited);
    let mut without = pacing.clients_without_way();
    without.sort();
    let mut both = [one.id, other.id];
    both.sort();
    assert_eq!(without, both);
    let elsewhere = url("https://two.example/token");
    assert!(pacing.enter(&elsewhere, one, Urgency::Due).await.is_ok());
    assert_eq!(pacing.clients_without_way(), [other.id]);
}

#[test]
fn what_a_failure_says_of_the_endpoint() {
    let now = OffsetDateTime::UNIX_EPOCH;
    let of = |status: Option<u16>, class| {
        Sign::of(
            &Failure {
                status,
                ..Failure::new(class)
            },
            now,
        )
    };
    assert_eq!(of(None, Class::Transient), Sign::Away(None));
    assert_eq!(of(None, Class::Ambiguous), Sign::Away(None));
    assert_eq!(of(None, Class::Configuration), Sign::Nothing);
    assert_eq!(of(Some(500), Class::Ambiguous), Sign::Away(None));
    assert_eq!(of(Some(200), Class::ProviderBug), Sign::Away(None));
    assert_eq!(of(Some(400), Class::ProviderBug), Sign::Alive);
    assert_eq!(of(Some(400), Class::Transient), Sign::Alive);
    assert_eq!(of(Some(400), Class::Configuration), Sign::Alive);
    let told = Failure {
        retry_after: Some(Duration::from_secs(7)),
        ..status(503, Class::Transient)
    };
    assert_eq!(
        Sign::of(&told, now),
        Sign::Away(Some(Duration::from_secs(7)))
    );
}
