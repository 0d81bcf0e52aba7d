//! Tests of the user state's decisions, each at its limits.

use std::rc::Rc;

use super::generation::{Accepted, Ending, RowState, SessionCandidate};
use super::idempotency::{KEEP_RECORD_MS, Plan, classify, session_id};
use super::*;
use crate::citation::check::Citation;
use crate::json_string::JsonString;
use crate::quota::counts::{in_use, reserved};
use crate::quota::{Price, Quota, SpendPolicy};

mod idempotency;
mod persisting;
mod properties;
mod rows;

const T: u64 = 1_800_000_000_000;
const TIMEOUT_MS: u64 = 60_000;
/// The expiry of the token of [`accepted`].
const TOKEN_EXPIRES_MS: u64 = T + 3_600_000;
const ONE: Uuid = Uuid::from_u128(1);

fn policies() -> Policies {
    Policies {
        burst: Quota { count: 10, window_s: 60 },
        generations: Quota { count: 3, window_s: 3600 },
        attempts: Quota { count: 1000, window_s: 3600 },
        concurrent: 2,
        spend: None,
    }
}

fn credentials(token: &str, expires_ms: u64) -> Credentials {
    Credentials { token: Rc::from(token), expires_ms, traceparent: None }
}

fn accepted(id: u128) -> Accepted {
    Accepted {
        id: Uuid::from_u128(id),
        run: 1,
        user_id: Uuid::from_u128(7),
        input_text: JsonString::new("text"),
        model: Rc::from("a/one"),
        credentials: credentials("old", TOKEN_EXPIRES_MS),
        referer: Rc::from("https://cards.example"),
        no_cache: false,
    }
}

fn ending(code: Option<Code>, ended_ms: u64) -> Ending {
    Ending { code, ..Ending::failed(Code::Internal, 1, ended_ms) }
}

fn candidate(number: u128) -> Rc<SessionCandidate> {
    Rc::new(SessionCandidate {
        id: Uuid::from_u128(number),
        front: format!("front {number}"),
        back: "back".to_owned(),
        prompt: "prompt".to_owned(),
        citation: Citation::default(),
    })
}

/// A state with one generation in progress, of id 1.
fn in_progress() -> UserState {
    let mut state = UserState::default();
    state.count(&policies(), T).expect("the first request is within the burst");
    state
        .admit(&policies(), accepted(1), None, TIMEOUT_MS, T)
        .expect("the first generation is within the limits");
    state
}

fn generations_left(state: &UserState) -> u32 {
    state.ledger.generations.status(policies().generations, T).remaining
}

#[test]
fn a_write_set_keeps_its_order_and_writes_the_ledger_once() {
    let mut writes = WriteSet::none();
    assert!(writes.is_empty());
    writes.add(Write::Ledger);
    writes.extend(WriteSet::from([Write::RemoveGeneration(ONE), Write::Ledger, Write::Generation(ONE)]));
    assert_eq!(writes.writes(), [Write::Ledger, Write::RemoveGeneration(ONE), Write::Generation(ONE)]);
    assert!(!writes.is_empty());
}

#[test]
fn an_accepted_generation_is_stored_with_its_reservation() {
    let mut state = UserState::default();
    assert_eq!(state.count(&policies(), T), Ok(WriteSet::from([Write::Ledger])));
    let writes = state.admit(&policies(), accepted(1), None, TIMEOUT_MS, T).expect("within the limits");
    assert_eq!(writes, WriteSet::from([Write::Ledger, Write::Generation(ONE)]));
    assert_eq!(generations_left(&state), 2);
    assert_eq!(in_use(&state.ledger.leases, T), 1);
    assert_eq!(state.find(ONE).map(|found| found.deadline_ms), Some(T + TIMEOUT_MS));
}

#[test]
fn a_rejected_third_concurrent_generation_changes_nothing() {
    let mut state = in_progress();
    state.admit(&policies(), accepted(2), None, TIMEOUT_MS, T).expect("two may be in progress");
    let before = state.ledger.clone();
    let refusal = state.admit(&policies(), accepted(3), None, TIMEOUT_MS, T).expect_err("a third may not");
    assert_eq!(refusal.violated, vec![CONCURRENT]);
    assert_eq!(state.ledger, before);
    assert_eq!(state.generations.len(), 2);
}

#[test]
fn every_failure_is_refunded_except_a_refused_text() {
    for code in [
        Code::AiUnavailable,
        Code::AiTimeout,
        Code::AiInvalidResponse,
        Code::AiMisconfigured,
        Code::DatabaseError,
        Code::Cancelled,
    ] {
        let mut state = in_progress();
        let writes = state.advance(ONE, Event::Ended(ending(Some(code), T)), T);
        assert_eq!(writes, WriteSet::from([Write::Ending(ONE), Write::Ledger]), "{}", code.name());
        assert_eq!(generations_left(&state), 3, "{}", code.name());
        assert_eq!(in_use(&state.ledger.leases, T), 0, "{}", code.name());
    }
    for code in [None, Some(Code::AiRefused)] {
        let mut state = in_progress();
        let writes = state.advance(ONE, Event::Ended(ending(code, T)), T);
        assert_eq!(generations_left(&state), 2);
        assert_eq!(in_use(&state.ledger.leases, T), 0, "a lease is always released");
        assert_eq!(writes, WriteSet::from([Write::Ending(ONE)]), "the ledger is unchanged");
    }
}

#[test]
fn only_the_first_ending_of_a_generation_counts() {
    let mut state = in_progress();
    state.advance(ONE, Event::Ended(ending(None, T)), T);
    let again = state.advance(ONE, Event::Ended(ending(Some(Code::AiTimeout), T)), T);
    assert_eq!(again, WriteSet::none());
    assert_eq!(state.find(ONE).and_then(|found| found.ending.clone()), Some(ending(None, T)));
    assert_eq!(generations_left(&state), 2);
}

#[test]
fn candidates_are_stored_once_in_their_order() {
    let mut state = in_progress();
    let first = state.advance(ONE, Event::Candidates(vec![candidate(1), candidate(2)]), T);
    let second = state.advance(ONE, Event::Candidates(vec![candidate(3)]), T);
    assert_eq!(first, WriteSet::from([Write::Candidates(ONE, 0)]));
    assert_eq!(second, WriteSet::from([Write::Candidates(ONE, 2)]));
    assert_eq!(state.find(ONE).map(|found| found.candidates.len()), Some(3));
}

#[test]
fn a_generation_that_was_in_progress_at_a_crash_is_resumed() {
    let mut state = in_progress();
    assert_eq!(state.alarm_ms(|_| true, T), Some(T + HEARTBEAT_MS), "the object is woken again");
    assert_eq!(state.due_jobs(|_| true, None, T), Vec::new());
    assert_eq!(state.due_jobs(|_| false, None, T), vec![Job::Resume(ONE)]);
    assert_eq!(state.advance(ONE, Event::Resumed, T), WriteSet::from([Write::Generation(ONE)]));
    assert_eq!(state.find(ONE).map(|found| found.attempts), Some(1));
}

#[test]
fn a_crash_keeps_candidates_and_only_without_any_calls_the_model() {
    let state = in_progress();
    let after_crash = |state: &UserState, now_ms| {
        let found = state.find(ONE).expect("it is in progress");
        let ending = found.ending_after_crash(3, now_ms);
        ending.map(|ending| (ending.code, ending.partial, ending.coverage_percent))
    };
    let last_ms = T + TIMEOUT_MS - 1_000;
    assert_eq!(after_crash(&state, T + 10_000), None, "there is time for another call");
    assert_eq!(after_crash(&state, last_ms), None);
    assert_eq!(after_crash(&state, last_ms + 1), Some((Some(Code::AiTimeout), false, None)));

    let mut with_candidates = in_progress();
    with_candidates.advance(ONE, Event::Candidates(vec![candidate(1)]), T);
    assert_eq!(
        after_crash(&with_candidates, T + 10_000),
        Some((None, true, Some(0))),
        "billed once is enough"
    );
    assert_eq!(after_crash(&with_candidates, last_ms + 1), Some((None, true, Some(0))));

    let mut without_attempts = in_progress();
    assert!(without_attempts.begin_attempt(&policies(), ONE, 3, T).0);
    let expected = Some((Some(Code::AiTimeout), false, None));
    assert_eq!(after_crash(&without_attempts, T + 10_000), expected, "no attempt is left");
}

#[test]
fn a_state_that_is_no_longer_needed_is_removed_and_no_sooner() {
    let mut state = in_progress();
    state.advance(ONE, Event::Ended(ending(None, T)), T);
    state.advance(ONE, Event::Persisted, T);
    let at_ms = state.alarm_ms(|_| false, T).expect("the ledger is not empty");
    assert!(!state.is_idle(T + 3_600_000 - 1), "the last window still counts");
    assert!(state.is_idle(at_ms));
    assert_eq!(state.clear(), WriteSet::from([Write::RemoveAll]));
    assert!(state.is_empty());
    assert_eq!(state.alarm_ms(|_| false, at_ms), None, "an empty object sets no alarm");
}

#[test]
fn a_limit_is_written_to_the_event_log_once_per_window() {
    let mut state = UserState::default();
    let refusal = Refusal { violated: vec![BURST, GENERATIONS], retry_after_s: 1 };
    assert_eq!(state.limits_to_log(&policies(), &refusal, T), vec![BURST, GENERATIONS]);
    assert_eq!(state.limits_to_log(&policies(), &refusal, T + 59_999), Vec::<&str>::new());
    assert_eq!(state.limits_to_log(&policies(), &refusal, T + 60_000), vec![BURST]);
    assert_eq!(state.limits_to_log(&policies(), &refusal, T + 3_600_000), vec![BURST, GENERATIONS]);
}

#[test]
fn a_refusal_by_the_burst_lasts_until_a_window_changes() {
    let policies = policies();
    let refused = |state: &mut UserState, now_ms| {
        let refusal = state.count(&policies, now_ms).expect_err("the burst is used up");
        let refusal = state.ledger.refusal_of_generation(refusal, &policies, 1_000, now_ms);
        state.limits_to_log(&policies, &refusal, now_ms);
        state.refusal_lasts_ms(&policies, &refusal, now_ms)
    };
    let mut state = UserState::default();
    let count = |state: &mut UserState, times, now_ms| {
        (0..times).for_each(|_| drop(state.count(&policies, now_ms).expect("it is within the burst")));
    };
    count(&mut state, 10, T);
    assert_eq!(refused(&mut state, T + 1_000), Some(59_600), "a window and a bucket");
    // The limit is logged again after a window, here sooner than the last request leaves.
    count(&mut state, 10, T + 60_600);
    assert_eq!(refused(&mut state, T + 60_700), Some(300));
    assert_eq!(refused(&mut state, T + 61_000), Some(60_000));
    // The cost of the next text is not known.
    let price = Price { prompt: 1, completion: 1 };
    let spend = SpendPolicy { limit: u64::MAX, window_s: 60, price, answer_tokens_max: 1 };
    let with_spend = Policies { spend: Some(spend), ..policies };
    let refusal = Refusal { violated: vec![BURST], retry_after_s: 60 };
    assert_eq!(state.refusal_lasts_ms(&with_spend, &refusal, T + 61_000), None);

    // A generation may end with a refund; afterwards its reservation leaves sooner than the burst.
    let mut state = in_progress();
    let first_ms = T + 3_600_000 - 1_000;
    count(&mut state, 10, first_ms);
    assert_eq!(refused(&mut state, first_ms), None);
    state.advance(ONE, Event::Ended(ending(None, first_ms)), first_ms);
    assert_eq!(refused(&mut state, first_ms), None, "it is not yet persisted");
    state.advance(ONE, Event::Persisted, first_ms);
    assert_eq!(refused(&mut state, first_ms), Some(37_000), "a bucket of 36 s after the hour");

    // Another policy refuses only requests for a generation.
    let mut state = UserState::default();
    for number in 1..=3 {
        state.admit(&policies, accepted(number), None, TIMEOUT_MS, T).expect("it is within the limits");
        state.forget(Uuid::from_u128(number), 1);
    }
    count(&mut state, 10, T);
    assert_eq!(refused(&mut state, T), None);
}

#[test]
fn a_user_who_does_not_exist_is_rejected_until_the_token_expires() {
    let mut state = in_progress();
    assert!(!state.is_rejected(0));
    let writes = state.reject_user(T + 1_000);
    assert_eq!(writes, WriteSet::from([Write::Ledger]));
    state.reject_user(T); // another token, which expires sooner
    for (now_ms, is_rejected) in [(T, true), (T + 31_000, true), (T + 31_001, false)] {
        assert_eq!(state.is_rejected(now_ms), is_rejected, "{now_ms}");
    }
    let mut only = UserState::default();
    only.reject_user(T);
    assert!(!only.is_idle(T + 29_999), "the state is kept for as long as the rejection");
    assert_eq!(only.alarm_ms(|_| false, T), Some(T + 30_001));
}

#[test]
fn a_retry_over_the_quota_of_attempts_is_not_counted() {
    let policies = Policies { attempts: Quota { count: 2, window_s: 3600 }, ..policies() };
    let mut state = UserState::default();
    state.admit(&policies, accepted(1), None, TIMEOUT_MS, T).expect("within the limits");
    assert_eq!(
        state.begin_attempt(&policies, ONE, 1, T),
        (true, WriteSet::none()),
        "counted when it was admitted"
    );
    let stored = WriteSet::from([Write::Ledger, Write::Generation(ONE)]);
    assert_eq!(state.begin_attempt(&policies, ONE, 2, T), (true, stored));
    assert_eq!(state.begin_attempt(&policies, ONE, 3, T), (false, WriteSet::none()));
    assert_eq!(state.find(ONE).map(|found| found.attempts), Some(2));
    state.advance(ONE, Event::Ended(ending(Some(Code::AiInvalidResponse), T)), T);
    let refusal =
        state.admit(&policies, accepted(2), None, TIMEOUT_MS, T).expect_err("no model call is left");
    assert_eq!(refusal.violated, vec![ATTEMPTS]);
    assert_eq!(generations_left(&state), 3, "the generation was refunded, its calls were not");
}

#[test]
fn events_and_attempts_of_an_unknown_generation_change_nothing() {
    let mut state = in_progress();
    let unknown = Uuid::from_u128(9);
    let ledger = state.ledger.clone();
    for event in [
        Event::Row(RowState::Opened),
        Event::Candidates(vec![candidate(1)]),
        Event::Resumed,
        Event::Ended(ending(None, T)),
        Event::Persisted,
        Event::NotPersisted,
        Event::Refused,
    ] {
        assert_eq!(state.advance(unknown, event, T), WriteSet::none());
    }
    assert_eq!(state.begin_attempt(&policies(), unknown, 2, T), (false, WriteSet::none()));
    assert_eq!((state.ledger, state.generations.len()), (ledger, 1));
}
