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
        consent_ends_at: None,
        next_refresh_at: Some(NOW + MINUTE * 55),
        raw_json: "{}".to_owned(),
    }
}

fn failure(kind: FailureKind) -> Failure {
    Failure {
        kind,
        error: "e".to_owned(),
        wait: MINUTE,
        is_clients: false,
    }
}

fn refused(fence: i64, version: i64, cause: ReauthorizationCause) -> Refused {
    Refused {
        fence,
        version,
        alternate: None,
        rotates: true,
        cause,
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
            audible: MINUTE * 60,
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
fn a_replay_window_counts_from_the_first_time_whoever_comes_next() {
    let replayable = rules(true, ReplayWindow::For(Duration::from_secs(10)));
    let mut grant = sent();
    for after in [4, 8] {
        grant.read_at = NOW + Duration::from_secs(after);
        let silence = Silence {
            instance: grant.intent.expect("it is open").instance,
            since: Some(Duration::from_secs(4)),
            audible: MINUTE * 60,
        };
        assert_eq!(
            grant.claim(claimant(), 1, &replayable, Some(silence)),
            Claim::Taken
        );
    }
    // Neither of the two has sent anything, and the provider may have acted all the same.
    let intent = grant.intent.expect("it is open");
    assert_eq!((intent.sent_at, grant.answer_lost), (Some(NOW), true));
    assert!(!may_take(
        &grant,
        Duration::from_secs(12),
        Duration::ZERO,
        &replayable
    ));
    grant.close_lost_intent();
    assert!(
        !grant.is_under_way() && grant.intent.is_some(),
        "it stays at the head of the queue"
    );
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
        &refused(fence, 1, ReauthorizationCause::Revoked),
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
    assert_eq!(grant.keep_alternate(alternate(2)), None);
    assert_eq!(grant.alternate.as_ref().map(|kept| kept.version), Some(2));
    grant.keep_alternate(alternate(1));
    assert_eq!(grant.alternate.as_ref().map(|kept| kept.version), Some(2));
}

fn alternate(version: i64) -> Alternate {
    Alternate {
        sealed: vec![7],
        version,
    }
}

#[test]
fn an_alternate_that_comes_while_the_other_is_refused_is_tried_before_the_grant_ends() {
    let mut grant = sent();
    grant.keep_alternate(alternate(1));
    let without = refused(grant.fence, 1, ReauthorizationCause::Revoked);
    assert_eq!(grant.refuse(&without, "e"), Verdict::TryAlternate);
    assert!(grant.is_alive() && grant.intent.is_none());
    assert_eq!(grant.claim(claimant(), 1, &strict(), None), Claim::Taken);
    let with = Refused {
        fence: grant.fence,
        alternate: Some(1),
        ..without
    };
    assert_eq!(
        grant.refuse(&with, "e"),
        Verdict::Ended(EventKind::ReauthorizationRequired)
    );
    assert_eq!(grant.alternate, None, "it was tried once");
}

#[test]
fn an_alternate_that_comes_after_the_verdict_is_another_chance() {
    let mut grant = sent();
    let fence = grant.fence;
    grant.refuse(&refused(fence, 1, ReauthorizationCause::Revoked), "e");
    assert!(!grant.is_alive());
    assert_eq!(
        grant.keep_alternate(alternate(1)),
        Some(EventKind::RefreshFailing)
    );
    assert_eq!(grant.claim(claimant(), 1, &strict(), None), Claim::Taken);

    let mut disabled = sent();
    disabled.refuse(
        &refused(fence, 1, ReauthorizationCause::AccountDisabled),
        "e",
    );
    assert_eq!(disabled.keep_alternate(alternate(1)), None);
    assert!(!disabled.is_alive(), "no token helps there");
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
        grant.refuse(&refused(0, 1, ReauthorizationCause::Revoked), "e"),
        Verdict::NotMine
    );
    assert_eq!(
        grant.refuse(&refused(1, 0, ReauthorizationCause::Revoked), "e"),
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
        grant.fail(1, &Failure::of_client("e", MINUTE)),
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
fn a_request_that_does_not_please_is_not_repeated_at_once_and_says_nothing_of_the_grant() {
    let mut grant = sent();
    grant.fail(1, &failure(FailureKind::Configuration));
    assert_eq!(
        (grant.state, grant.consecutive_failures, grant.revision),
        (State::Active, 0, 1)
    );
    let wait = Claim::NotBefore {
        at: NOW + MINUTE,
        last: FailureKind::Configuration,
    };
    assert_eq!(grant.claim(claimant(), 1, &strict(), None), wait);
}

#[test]
fn a_lease_under_which_nothing_was_sent_is_given_back_by_its_holder_alone() {
    let mut grant = sent();
    assert!(!grant.give_up_lease(0));
    assert!(grant.give_up_lease(1));
    assert!(grant.intent.is_none() && !grant.answer_lost);
    assert!(!grant.give_up_lease(1));
    assert_eq!(grant.claim(claimant(), 1, &strict(), None), Claim::Taken);
}

#[test]
fn scopes_in_another_order_are_the_same() {
    let mut grant = sent();
    grant.scopes = vec!["a".to_owned(), "b".to_owned()];
    let mut same = answer(&grant);
    same.scopes = vec!["b".to_owned(), "a".to_owned()];
    assert_eq!(
        grant.clone().settle(&same),
        Settled::Committed(EventKind::Refreshed)
    );
    same.scopes.pop();
    assert_eq!(
        grant.settle(&same),
        Settled::Committed(EventKind::ScopesChanged)
    );
}

#[test]
fn a_refusal_after_the_refresh_tokens_end_is_its_end() {
    let mut grant = sent();
    grant.refresh_token_expires_at = Some(NOW);
    grant.refuse(&refused(1, 1, ReauthorizationCause::Revoked), "e");
    assert_eq!(grant.cause, Some(ReauthorizationCause::Expired));
}

#[test]
fn an_end_that_nothing_moves_is_told_of_three_times() {
    let day = Duration::from_hours(24);
    let end = NOW + day * 365;
    let mut grant = sent();
    let mut with_end = answer(&grant);
    with_end.refresh_token_expires_at = Some(end);
    grant.settle(&with_end);
    let mut told = Vec::new();
    for left in (0..365_u32).rev() {
        grant.read_at = end - day * left + MINUTE;
        if let Some(event) = grant.remind() {
            assert_eq!(event, EventKind::ReauthorizationDue);
            told.push(left);
        }
        // Each refresh says the same end, give or take a second.
        let next = Answer {
            read_version: grant.version,
            refresh_token_expires_at: Some(end + Duration::from_secs(u64::from(left % 3))),
            ..with_end.clone()
        };
        grant.settle(&next);
        assert_eq!(grant.remind(), None);
    }
    assert_eq!(told, [30, 7, 1]);
}

#[test]
fn an_end_that_each_refresh_moves_is_not_told_of() {
    let day = Duration::from_hours(24);
    let mut grant = sent();
    for passed in 0..400 {
        grant.read_at = NOW + day * passed * 30;
        assert_eq!(grant.remind(), None, "the keep-alive comes at half of it");
        let next = Answer {
            read_version: grant.version,
            refresh_token_expires_at: Some(grant.read_at + day * 60),
            ..answer(&grant)
        };
        grant.settle(&next);
    }
    grant.read_at += day * 53;
    assert_eq!(
        grant.remind(),
        Some(EventKind::ReauthorizationDue),
        "refreshes have failed for long"
    );
}

#[test]
fn a_clear_cause_is_not_blamed_on_a_lost_answer() {
    let mut grant = sent();
    grant.answer_lost = true;
    grant.refuse(&refused(1, 1, ReauthorizationCause::AccountDisabled), "e");
    assert_eq!(grant.cause, Some(ReauthorizationCause::AccountDisabled));
    let mut keeps = sent();
    keeps.answer_lost = true;
    let keeping = Refused {
        rotates: false,
        ..refused(1, 1, ReauthorizationCause::Revoked)
    };
    keeps.refuse(&keeping, "e");
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
    assert!(lost.answer_lost && !lost.is_under_way());
    assert_eq!(
        lost.claim(claimant(), 1, &strict(), None),
        Claim::Taken,
        "nobody has to wait for it any more"
    );
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
