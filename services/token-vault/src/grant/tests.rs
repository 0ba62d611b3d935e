//! Each rule of the protocol on a row of its own.

use common::Deps;
use time::macros::datetime;

use super::*;

const NOW: OffsetDateTime = datetime!(2026-01-15 12:00 UTC);
const MINUTE: Duration = Duration::from_mins(1);

fn rules(rotates: bool, replay: ReplayWindow) -> RefreshRules {
    RefreshRules {
        rotates,
        replay,
        margin: DEFAULT_MARGIN,
        idle: None,
        absolute: None,
    }
}

fn strict() -> RefreshRules {
    rules(true, ReplayWindow::None)
}

fn grant() -> Grant {
    let deps = Deps::system("test");
    let tenant = TenantKey::new_tenant(&deps);
    let key = GrantKey {
        tenant,
        id: tenant.new_id(&deps),
    };
    let mut grant = Grant::new(key, Kind::OAuth2, Strategy::RefreshToken, None, NOW);
    grant.state = State::Active;
    grant.version = 1;
    grant.revision = 1;
    grant.credential = Some(vec![1]);
    grant.refresh_token = Some(vec![2]);
    grant.issued_at = Some(NOW - MINUTE * 60);
    grant.expires_at = Some(NOW - Duration::from_secs(1));
    grant
}

fn claimant() -> Claimant {
    Claimant {
        instance: TenantKey::PLATFORM.new_id(&Deps::system("test")),
        lease: Duration::from_secs(35),
    }
}

fn taken() -> Grant {
    let mut grant = grant();
    assert_eq!(grant.claim(claimant(), 1, &strict(), None), Claim::Taken);
    grant
}

fn sent() -> Grant {
    let mut grant = taken();
    grant.intent.as_mut().expect("it was taken").sent_at = Some(NOW);
    grant
}

fn answer(grant: &Grant) -> Answer {
    Answer {
        tenant_id: grant.key.tenant.id(),
        grant_id: grant.key.id,
        fence: grant.fence,
        read_version: grant.version,
        exchange: None,
        credential: vec![3],
        refresh_token: Some(vec![4]),
        previous: None,
        previous_until: None,
        key_version: 1,
        token_type: "Bearer".to_owned(),
        scopes: Vec::new(),
        scope_raw: String::new(),
        token_names: Vec::new(),
        issued_at: NOW,
        expires_at: Some(NOW + MINUTE * 60),
        refresh_token_expires_at: None,
        next_refresh_at: Some(NOW + MINUTE * 55),
        raw_json: "{}".to_owned(),
    }
}

fn failure(kind: FailureKind) -> Failure {
    Failure {
        kind,
        error: "e".to_owned(),
        wait: MINUTE,
    }
}

/// Whether somebody else gets the lease `after` the present one was taken, its holder silent since `heard` after it.
fn may_take(grant: &Grant, after: Duration, heard: Duration, rules: &RefreshRules) -> bool {
    let mut later = grant.clone();
    later.read_at = NOW + after;
    let instance = grant.intent.expect("it was taken").instance;
    later.claim(
        claimant(),
        1,
        rules,
        Some(Silence {
            instance,
            since: Some(after.saturating_sub(heard)),
        }),
    ) == Claim::Taken
}

#[test]
fn one_claim_at_a_time() {
    let mut grant = taken();
    assert_eq!(grant.fence, 1);
    assert_eq!(grant.lease_until, Some(NOW + Duration::from_secs(35)));
    assert_eq!(grant.claim(claimant(), 1, &strict(), None), Claim::Busy);
    assert_eq!(grant.claim(claimant(), 0, &strict(), None), Claim::Current);
}

#[test]
fn what_was_never_sent_is_taken_over_soon() {
    let grant = taken();
    let alive = |after| {
        may_take(
            &grant,
            Duration::from_secs(after),
            Duration::from_secs(after),
            &strict(),
        )
    };
    let silent = |after| {
        may_take(
            &grant,
            Duration::from_secs(after),
            Duration::ZERO,
            &strict(),
        )
    };
    assert!(!silent(2) && silent(3));
    assert!(!alive(34) && alive(35));
}

#[test]
fn what_may_have_been_sent_waits_for_its_sender_where_sending_again_does_harm() {
    let grant = sent();
    let silent =
        |after, rules| may_take(&grant, Duration::from_secs(after), Duration::ZERO, &rules);
    assert!(!silent(59, strict()) && silent(60, strict()));
    let replayable = rules(true, ReplayWindow::For(MINUTE));
    assert!(!silent(2, replayable) && silent(3, replayable));
    let gone_by = rules(true, ReplayWindow::For(Duration::from_secs(10)));
    assert!(!silent(11, gone_by));
    assert!(silent(3, rules(false, ReplayWindow::None)));

    let mut valid = sent();
    valid.expires_at = Some(NOW + MINUTE * 60);
    let silent = |after| {
        may_take(
            &valid,
            Duration::from_secs(after),
            Duration::ZERO,
            &strict(),
        )
    };
    assert!(!silent(599) && silent(600));
}

#[test]
fn a_sender_that_lives_and_lets_its_lease_run_out_has_lost_its_answer() {
    let grant = sent();
    let alive = |after| {
        may_take(
            &grant,
            Duration::from_secs(after),
            Duration::from_secs(after),
            &strict(),
        )
    };
    assert!(!alive(94) && alive(95));
    let mut later = grant.clone();
    later.read_at = NOW + Duration::from_secs(95);
    assert_eq!(later.claim(claimant(), 1, &strict(), None), Claim::Taken);
    assert!(later.answer_lost);
    assert_eq!(later.fence, 2);
}

#[test]
fn an_answer_is_taken_whatever_became_of_the_fence() {
    let mut grant = sent();
    let answer = answer(&grant);
    grant.read_at = NOW + Duration::from_secs(95);
    assert_eq!(grant.claim(claimant(), 1, &strict(), None), Claim::Taken);
    assert_eq!(
        grant.settle(&answer),
        Settled::Committed(EventKind::Refreshed)
    );
    assert_eq!((grant.version, grant.state), (2, State::Active));
    assert!(grant.intent.is_some(), "the lease is still the other one's");
    assert_eq!(grant.settle(&answer), Settled::AlreadyCommitted);
}

#[test]
fn an_answer_overrides_a_verdict() {
    let mut grant = sent();
    let late = answer(&grant);
    grant.answer_lost = true;
    let fence = grant.fence;
    let verdict = grant.refuse(
        fence,
        1,
        true,
        ReauthorizationCause::Revoked,
        "invalid_grant",
    );
    assert_eq!(verdict, Verdict::Ended(EventKind::ReauthorizationRequired));
    assert_eq!(grant.cause, Some(ReauthorizationCause::LostRotation));
    assert_eq!(
        grant.settle(&late),
        Settled::Committed(EventKind::Recovered)
    );
    assert_eq!((grant.state, grant.cause), (State::Active, None));
}

#[test]
fn an_answer_that_was_superseded_is_kept_and_tried() {
    let mut grant = sent();
    let late = answer(&grant);
    let newer = Answer {
        credential: vec![9],
        ..late.clone()
    };
    assert_eq!(
        grant.settle(&newer),
        Settled::Committed(EventKind::Refreshed)
    );
    assert_eq!(grant.settle(&late), Settled::Superseded);
    grant.keep_alternate(Alternate {
        sealed: vec![7],
        version: 2,
    });
    assert_eq!(grant.alternate.as_ref().map(|kept| kept.version), Some(2));
}

#[test]
fn an_answer_to_a_revoked_grant_is_too_late() {
    let mut grant = sent();
    let late = answer(&grant);
    assert_eq!(grant.begin_revoking(), Some(EventKind::Revoked));
    assert_eq!(
        (grant.credential.clone(), grant.refresh_token.clone()),
        (None, None)
    );
    assert_eq!(grant.fence, 2);
    assert_eq!(grant.settle(&late), Settled::TooLate);
    assert_eq!(grant.begin_revoking(), None);
    assert_eq!(grant.end_revoking(), Some(EventKind::Revoked));
    assert_eq!(grant.settle(&late), Settled::TooLate);
}

#[test]
fn failures_and_refusals_are_written_by_the_holder_alone() {
    let mut grant = sent();
    assert_eq!(
        grant.fail(0, &failure(FailureKind::Transient)),
        Recorded::NotMine
    );
    assert_eq!(
        grant.refuse(0, 1, true, ReauthorizationCause::Revoked, "e"),
        Verdict::NotMine
    );
    assert_eq!(
        grant.refuse(1, 0, true, ReauthorizationCause::Revoked, "e"),
        Verdict::Newer
    );
    assert_eq!(grant.state, State::Active);
}

#[test]
fn a_passing_failure_makes_everybody_wait() {
    let mut grant = sent();
    let first = grant.fail(1, &failure(FailureKind::RateLimited));
    assert_eq!(first, Recorded::Written(Some(EventKind::RefreshFailing)));
    assert_eq!(grant.state, State::RefreshFailing);
    let wait = Claim::NotBefore {
        at: NOW + MINUTE,
        last: FailureKind::RateLimited,
    };
    assert_eq!(grant.claim(claimant(), 1, &strict(), None), wait);
    grant.read_at = NOW + MINUTE;
    assert_eq!(grant.claim(claimant(), 1, &strict(), None), Claim::Taken);
    let fence = grant.fence;
    assert_eq!(
        grant.fail(fence, &failure(FailureKind::Ambiguous)),
        Recorded::Written(None),
        "others know already"
    );
    assert!(grant.answer_lost);
    assert_eq!(grant.consecutive_failures, 2);
}

#[test]
fn a_refused_client_leaves_the_grant_as_it_was() {
    let mut grant = sent();
    assert_eq!(
        grant.fail(1, &failure(FailureKind::Configuration)),
        Recorded::Written(None)
    );
    assert_eq!(
        (grant.state, grant.consecutive_failures, grant.revision),
        (State::Active, 0, 1)
    );
    assert_eq!(grant.retry_at, None);
    assert_eq!(grant.next_refresh_at, Some(NOW + MINUTE));
}

#[test]
fn a_clear_cause_is_not_blamed_on_a_lost_answer() {
    let mut grant = sent();
    grant.answer_lost = true;
    grant.refuse(1, 1, true, ReauthorizationCause::AccountDisabled, "e");
    assert_eq!(grant.cause, Some(ReauthorizationCause::AccountDisabled));
    let mut keeps = sent();
    keeps.answer_lost = true;
    keeps.refuse(1, 1, false, ReauthorizationCause::Revoked, "e");
    assert_eq!(
        keeps.cause,
        Some(ReauthorizationCause::Revoked),
        "nothing was rotated"
    );
}

#[test]
fn an_instance_that_comes_back_closes_what_it_left() {
    let mut unsent = taken();
    unsent.close_lost_intent();
    assert!(!unsent.answer_lost);
    let mut lost = sent();
    lost.close_lost_intent();
    assert!(lost.answer_lost);
    assert_eq!(
        lost.claim(claimant(), 1, &strict(), None),
        Claim::Taken,
        "nobody has to wait for it any more"
    );
}

#[test]
fn validity_is_judged_by_what_is_due_and_what_is_demanded() {
    let mut grant = grant();
    let mut with = |left: i64, due_in: i64, demand: Option<u64>| {
        grant.expires_at = Some(NOW + time::Duration::seconds(left));
        grant.next_refresh_at = Some(NOW + time::Duration::seconds(due_in));
        grant.validity(demand.map(Duration::from_secs))
    };
    assert_eq!(with(301, 1, None), Validity::Good);
    assert_eq!(with(300, 0, None), Validity::Expiring);
    assert_eq!(with(1, -299, None), Validity::Expiring);
    assert_eq!(with(0, -300, None), Validity::Short);
    assert_eq!(
        with(1, 60, None),
        Validity::Good,
        "the last attempt failed, and the next is not due"
    );
    assert_eq!(with(600, 60, Some(600)), Validity::Short);
    assert_eq!(with(601, 60, Some(600)), Validity::Good);
    grant.expires_at = None;
    grant.next_refresh_at = None;
    assert_eq!(grant.validity(Some(MINUTE)), Validity::Good);
}

#[test]
fn a_grant_without_a_way_to_renew_it_ends_with_its_token() {
    let mut grant = grant();
    grant.refresh_token = None;
    assert_eq!(
        grant.claim(claimant(), 1, &strict(), None),
        Claim::NotRefreshable
    );
    assert_eq!(grant.expire(), Some(EventKind::ReauthorizationRequired));
    assert_eq!(grant.cause, Some(ReauthorizationCause::Expired));
    assert_eq!(grant.expire(), None);
}

#[test]
fn confirming_keeps_a_grant() {
    let mut grant = grant();
    grant.state = State::Unconfirmed;
    grant.confirm_until = Some(NOW + MINUTE);
    grant.confirm();
    assert_eq!(
        (grant.state, grant.confirm_until, grant.revision),
        (State::Active, None, 2)
    );
    grant.confirm();
    assert_eq!(grant.revision, 2);
}

#[test]
fn an_answer_survives_the_spool() {
    let answer = answer(&sent());
    let written = serde_json::to_vec(&answer).expect("it is written");
    assert_eq!(
        serde_json::from_slice::<Answer>(&written).expect("it is read"),
        answer
    );
}
