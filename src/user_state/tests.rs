//! The state's promises, each at its border.

use proptest::prelude::*;

use std::collections::{BTreeMap, BTreeSet};

use super::idempotency::{Found, KEEP_RECORD_MS, session_id};
use super::record::{Accepted, Ending, SessionCandidate};
use super::*;
use crate::quota::Quota;
use crate::quota::counts::{in_use, reserved};

const T: u64 = 1_800_000_000_000;
const TIMEOUT_MS: u64 = 60_000;

fn policies() -> Policies {
    Policies {
        burst: Quota { count: 10, window_s: 60 },
        generations: Quota { count: 3, window_s: 3600 },
        attempts: Quota { count: 1000, window_s: 3600 },
        concurrent: 2,
    }
}

fn accepted(id: u128) -> Accepted {
    Accepted {
        id: Uuid::from_u128(id),
        run: 1,
        user_id: Uuid::from_u128(7),
        input_text: "text".to_owned(),
        model: "a/one".to_owned(),
        token: "old".to_owned(),
        token_expires_ms: T + 3_600_000,
        origin: "https://cards.example".to_owned(),
        traceparent: None,
        no_cache: false,
    }
}

fn ending(code: Option<Code>, ended_ms: u64) -> Ending {
    Ending {
        code,
        partial: false,
        usage: None,
        served_model: None,
        attempts: 1,
        dropped: 0,
        ended_ms,
        retry_after_s: None,
        was_reused: None,
        is_blocked: false,
    }
}

fn card(number: u128) -> SessionCandidate {
    SessionCandidate {
        id: Uuid::from_u128(number),
        front: format!("front {number}"),
        back: "back".to_owned(),
        prompt: "prompt".to_owned(),
    }
}

/// A state with one accepted generation of id 1.
fn running() -> UserState {
    let mut state = UserState::default();
    state.count(&policies(), T).expect("the first request is within the burst");
    state
        .admit(&policies(), accepted(1), None, TIMEOUT_MS, T)
        .expect("the first generation is within the limits");
    state
}

const ONE: Uuid = Uuid::from_u128(1);

fn generations_left(state: &UserState) -> u32 {
    state.ledger.generations.status(policies().generations, T).remaining
}

#[test]
fn an_accepted_generation_is_stored_with_what_it_used() {
    let mut state = UserState::default();
    assert!(state.count(&policies(), T).expect("within the burst").ledger);
    let effects = state.admit(&policies(), accepted(1), None, TIMEOUT_MS, T).expect("within the limits");
    assert_eq!(effects, WriteSet { ledger: true, generation: Some(ONE), ..WriteSet::default() });
    assert_eq!(generations_left(&state), 2);
    assert_eq!(in_use(&state.ledger.leases, T), 1);
    assert_eq!(state.find(ONE).map(|found| found.deadline_ms), Some(T + TIMEOUT_MS));
}

#[test]
fn a_third_generation_in_flight_is_refused_and_changes_nothing() {
    let mut state = running();
    state.admit(&policies(), accepted(2), None, TIMEOUT_MS, T).expect("two may be in flight");
    let before = state.ledger.clone();
    let refusal = state.admit(&policies(), accepted(3), None, TIMEOUT_MS, T).expect_err("a third may not");
    assert_eq!(refusal.violated, vec![CONCURRENT]);
    assert_eq!(state.ledger, before);
    assert_eq!(state.generations.len(), 2);
}

#[test]
fn a_unit_goes_back_for_every_failure_but_a_refused_text() {
    for code in [
        Code::AiUnavailable,
        Code::AiTimeout,
        Code::AiInvalidResponse,
        Code::AiMisconfigured,
        Code::DatabaseError,
        Code::Cancelled,
    ] {
        let mut state = running();
        state.advance(ONE, Event::Ended(ending(Some(code), T)), T);
        assert_eq!(generations_left(&state), 3, "{}", code.name());
        assert_eq!(in_use(&state.ledger.leases, T), 0, "{}", code.name());
    }
    for code in [None, Some(Code::AiRefused)] {
        let mut state = running();
        let effects = state.advance(ONE, Event::Ended(ending(code, T)), T);
        assert_eq!(generations_left(&state), 2);
        assert_eq!(in_use(&state.ledger.leases, T), 0, "a lease is always given back");
        assert_eq!(
            effects,
            WriteSet { ending: Some(ONE), ..WriteSet::default() },
            "the ledger has nothing new"
        );
    }
}

#[test]
fn the_first_ending_holds() {
    let mut state = running();
    state.advance(ONE, Event::Ended(ending(None, T)), T);
    let again = state.advance(ONE, Event::Ended(ending(Some(Code::AiTimeout), T)), T);
    assert_eq!(again, WriteSet::default());
    assert_eq!(state.find(ONE).and_then(|found| found.ending.clone()), Some(ending(None, T)));
    assert_eq!(generations_left(&state), 2);
}

#[test]
fn cards_are_stored_once_in_their_order() {
    let mut state = running();
    let first = state.advance(ONE, Event::Candidates(vec![card(1), card(2)]), T);
    let second = state.advance(ONE, Event::Candidates(vec![card(3)]), T);
    assert_eq!((first.candidates, first.generation), (Some((ONE, 0)), None));
    assert_eq!(second.candidates, Some((ONE, 2)));
    assert_eq!(state.find(ONE).map(|found| found.candidates.len()), Some(3));
}

#[test]
fn what_is_written_is_forgotten_and_what_is_not_stays() {
    let mut state = running();
    state.advance(ONE, Event::Ended(ending(None, T)), T);
    state.advance(ONE, Event::NotPersisted, T);
    assert!(state.find(ONE).is_some());
    assert_eq!(
        state.advance(ONE, Event::Persisted, T),
        WriteSet { forget: Some(ONE), ..WriteSet::default() }
    );
    assert!(state.find(ONE).is_none());
    assert_eq!(state.advance(ONE, Event::Persisted, T), WriteSet::default());
    assert_eq!(generations_left(&state), 2, "its unit stays used");
}

#[test]
fn writing_is_tried_again_with_growing_waits_while_the_token_lives() {
    let mut state = running();
    state.advance(ONE, Event::Ended(ending(None, T)), T);
    let mut now_ms = T;
    let mut waits_ms = Vec::new();
    for _ in 0..12 {
        state.advance(ONE, Event::NotPersisted, now_ms);
        let at_ms = state.alarm_ms(|_| false, now_ms).expect("something is left to do");
        assert_eq!(
            state.due_jobs(|_| false, None, at_ms.saturating_sub(1)),
            Vec::new(),
            "not before its time"
        );
        waits_ms.push(at_ms - now_ms);
        now_ms = at_ms;
        if at_ms < T + 3_600_000 {
            assert_eq!(state.due_jobs(|_| false, None, at_ms), vec![Job::Write(ONE)]);
            assert_eq!(state.due_jobs(|_| true, None, at_ms), Vec::new(), "somebody is at it");
        }
    }
    assert_eq!(waits_ms.get(..8), Some(&[2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000][..]));
    assert_eq!(waits_ms.get(8..), Some(&[300_000; 4][..]));
}

#[test]
fn without_a_living_token_it_waits_for_its_owner_and_is_given_up_after_a_day() {
    let mut state = running();
    let ended_ms = T + 1000;
    state.advance(ONE, Event::Ended(ending(None, ended_ms)), ended_ms);
    let late_ms = T + 3_600_000; // the token's end
    state.advance(ONE, Event::NotPersisted, late_ms);
    let given_up_ms = ended_ms + KEEP_NOT_PERSISTED_MS;
    assert_eq!(state.alarm_ms(|_| false, late_ms), Some(given_up_ms));
    assert_eq!(state.due_jobs(|_| false, None, given_up_ms - 1), Vec::new());
    assert_eq!(state.due_jobs(|_| false, None, given_up_ms), vec![Job::Abandon(ONE)]);

    state.use_credentials("new", late_ms + 3_600_000, None, late_ms + 1);
    assert_eq!(state.find(ONE).map(|found| found.accepted.token.as_str()), Some("new"));
    assert_eq!(state.due_jobs(|_| false, None, late_ms + 1), vec![Job::Write(ONE)]);
}

#[test]
fn an_older_token_does_not_replace_a_newer_one() {
    let mut state = running();
    state.advance(ONE, Event::Ended(ending(None, T)), T);
    state.use_credentials("older", T + 3_599_999, None, T);
    assert_eq!(state.find(ONE).map(|found| found.accepted.token.as_str()), Some("old"));
}

#[test]
fn a_generation_that_nobody_runs_is_taken_up() {
    let mut state = running();
    assert_eq!(state.alarm_ms(|_| true, T), Some(T + HEARTBEAT_MS), "the object stays awake");
    assert_eq!(state.due_jobs(|_| true, None, T), Vec::new());
    assert_eq!(state.due_jobs(|_| false, None, T), vec![Job::Resume(ONE)]);
    state.advance(ONE, Event::Resumed, T);
    assert_eq!(state.find(ONE).map(|found| found.attempts), Some(1));
}

#[test]
fn after_a_death_cards_are_kept_and_a_model_is_asked_again_only_without_any() {
    let state = running();
    let resume = |state: &UserState, now_ms| {
        let found = state.find(ONE).expect("it is on the state");
        UserState::resume(found, 3, now_ms).map(|ending| (ending.code, ending.partial))
    };
    let last_ms = T + TIMEOUT_MS - 1_000;
    assert_eq!(resume(&state, T + 10_000), None, "there is time to ask again");
    assert_eq!(resume(&state, last_ms), None);
    assert_eq!(resume(&state, last_ms + 1), Some((Some(Code::AiTimeout), false)));

    let mut with_cards = running();
    with_cards.advance(ONE, Event::Candidates(vec![card(1)]), T);
    assert_eq!(resume(&with_cards, T + 10_000), Some((None, true)), "paid once is enough");
    assert_eq!(resume(&with_cards, last_ms + 1), Some((None, true)));

    let mut tired = running();
    assert!(tired.begin_attempt(&policies(), ONE, 3, T).0);
    assert_eq!(resume(&tired, T + 10_000), Some((Some(Code::AiTimeout), false)), "no attempt is left");
}

#[test]
fn an_idle_desk_empties_its_storage_and_no_sooner() {
    let mut state = running();
    state.advance(ONE, Event::Ended(ending(None, T)), T);
    state.advance(ONE, Event::Persisted, T);
    let at_ms = state.alarm_ms(|_| false, T).expect("the ledger has something in it");
    assert!(!state.is_idle(T + 3_600_000 - 1), "the last window still counts");
    assert!(state.is_idle(at_ms));
    assert!(state.clear().clear);
    assert!(state.is_empty());
    assert_eq!(state.alarm_ms(|_| false, at_ms), None, "an empty object sleeps");
}

#[test]
fn the_event_log_hears_of_a_limit_once_a_window() {
    let mut state = UserState::default();
    let refusal = Refusal { violated: vec![BURST, GENERATIONS], retry_after_s: 1 };
    assert_eq!(state.limits_to_log(&policies(), &refusal, T), vec![BURST, GENERATIONS]);
    assert_eq!(state.limits_to_log(&policies(), &refusal, T + 59_999), Vec::<&str>::new());
    assert_eq!(state.limits_to_log(&policies(), &refusal, T + 60_000), vec![BURST]);
    assert_eq!(state.limits_to_log(&policies(), &refusal, T + 3_600_000), vec![BURST, GENERATIONS]);
}

/// Which request brings the key.
const REQUEST: Uuid = Uuid::from_u128(77);

fn key() -> Key {
    Key::new("k".to_owned(), "a/one", "text", REQUEST)
}

/// A state with one accepted generation of id 1, which has a key.
fn claimed() -> UserState {
    let mut state = UserState::default();
    state.admit(&policies(), accepted(1), Some(key()), TIMEOUT_MS, T).expect("within the limits");
    state
}

/// What the key finds when nobody is busy.
fn found(state: &UserState, now_ms: u64) -> Found {
    state.find_session(&key(), |_| false, now_ms)
}

#[test]
fn a_key_is_claimed_in_the_transaction_that_accepts_its_generation() {
    let mut state = UserState::default();
    assert_eq!(found(&state, T), Found::New);
    let effects = state.admit(&policies(), accepted(1), Some(key()), TIMEOUT_MS, T);
    let expected = WriteSet { ledger: true, generation: Some(ONE), record: Some(ONE), ..WriteSet::default() };
    assert_eq!(effects, Ok(expected));
    assert_eq!(found(&state, T), Found::Joins(ONE));
}

#[test]
fn a_key_that_is_not_let_in_is_not_claimed() {
    let mut state = UserState::default();
    for id in [2, 3] {
        state.admit(&policies(), accepted(id), None, TIMEOUT_MS, T).expect("two may be in flight");
    }
    state.admit(&policies(), accepted(1), Some(key()), TIMEOUT_MS, T).expect_err("a third may not");
    assert_eq!(state.records, Vec::new());
    assert_eq!(found(&state, T), Found::New);
}

#[test]
fn a_key_finds_its_session_in_whichever_state_it_is() {
    let mut state = claimed();
    assert_eq!(found(&state, T), Found::Joins(ONE), "it runs");
    let ended = state.advance(ONE, Event::Ended(ending(None, T)), T);
    assert_eq!(ended.record, Some(ONE), "how it ended is stored with the end");
    assert_eq!(found(&state, T), Found::Joins(ONE), "it is not written");
    state.advance(ONE, Event::Persisted, T);
    assert_eq!(found(&state, T), Found::Stored(ONE), "the database has it");

    for (code, after) in [
        (Code::AiRefused, Found::Stored(ONE)),
        (Code::AiMisconfigured, Found::Stored(ONE)),
        (Code::AiUnavailable, Found::Again(ONE, 2)),
        (Code::AiTimeout, Found::Again(ONE, 2)),
        (Code::AiInvalidResponse, Found::Again(ONE, 2)),
        (Code::DatabaseError, Found::Again(ONE, 2)),
        (Code::Cancelled, Found::Again(ONE, 2)),
    ] {
        let mut state = claimed();
        state.advance(ONE, Event::Ended(ending(Some(code), T)), T);
        assert_eq!(
            state.find_session(&key(), |_| true, T),
            Found::Joins(ONE),
            "{} is on its way",
            code.name()
        );
        state.advance(ONE, Event::Persisted, T);
        assert_eq!(found(&state, T), after, "{}", code.name());
    }
}

#[test]
fn a_failure_is_told_to_the_request_that_started_it_and_tried_again_by_the_next_one() {
    for code in [Code::AiUnavailable, Code::DatabaseError, Code::Cancelled, Code::AiRefused] {
        let mut state = claimed();
        let repeated = Key { is_repeated: true, ..key() };
        let of_another = Key { started_by: Uuid::from_u128(78), ..repeated.clone() };
        let found = |state: &UserState, key: &Key| state.find_session(key, |_| false, T);
        state.advance(ONE, Event::Ended(ending(Some(code), T)), T);
        assert_eq!(found(&state, &repeated), Found::Joins(ONE), "{}", code.name());
        let next = if code == Code::AiRefused { Found::Joins(ONE) } else { Found::Again(ONE, 2) };
        assert_eq!(found(&state, &key()), next, "{}", code.name());
        assert_eq!(found(&state, &of_another), next, "{}", code.name());
        state.advance(ONE, Event::Persisted, T);
        assert_eq!(found(&state, &repeated), Found::Stored(ONE), "{}", code.name());
    }
}

#[test]
fn a_claim_that_was_stored_before_it_named_its_request_is_read() {
    let stored = serde_json::json!({
        "key": "k", "fingerprint": key().fingerprint, "session_id": ONE, "run": 1, "claimed_ms": T, "outcome": null,
    });
    let record: IdempotencyRecord = serde_json::from_value(stored).expect("it holds");
    let state = UserState::stored((Ledger::default(), Vec::new(), 0), vec![record], Vec::new());
    assert_eq!(state.find_session(&Key { is_repeated: true, ..key() }, |_| true, T), Found::Joins(ONE));
}

#[test]
fn a_key_with_another_body_is_reused_in_whichever_state_its_session_is() {
    let other = Key::new("k".to_owned(), "a/one", "another text", REQUEST);
    let reused = |state: &UserState, now_ms| state.find_session(&other, |_| false, now_ms);
    let mut state = claimed();
    assert_eq!(reused(&state, T), Found::Reused);
    state.advance(ONE, Event::Ended(ending(Some(Code::AiTimeout), T)), T);
    assert_eq!(reused(&state, T), Found::Reused);
    state.advance(ONE, Event::Persisted, T);
    assert_eq!(reused(&state, T), Found::Reused);
    assert_eq!(reused(&state, T + KEEP_RECORD_MS), Found::New);
}

#[test]
fn a_key_is_free_again_after_a_day_to_the_millisecond_and_its_claim_goes_with_the_next() {
    let mut state = claimed();
    state.advance(ONE, Event::Ended(ending(None, T)), T);
    state.advance(ONE, Event::Persisted, T);
    let free_ms = T + KEEP_RECORD_MS;
    assert_eq!(found(&state, free_ms - 1), Found::Stored(ONE));
    assert_eq!(found(&state, free_ms), Found::New);

    let other = || Some(Key::new("other".to_owned(), "a/one", "text", REQUEST));
    let mut sooner = claimed();
    let effects = sooner.admit(&policies(), accepted(2), other(), TIMEOUT_MS, free_ms - 1);
    assert_eq!(effects.expect("within the limits").records_until_ms, None);
    assert_eq!(sooner.records.len(), 2);
    let effects = state.admit(&policies(), accepted(2), other(), TIMEOUT_MS, free_ms);
    assert_eq!(effects.expect("within the limits").records_until_ms, Some(free_ms));
    assert_eq!(
        state.records.iter().map(|record| record.session_id).collect::<Vec<_>>(),
        [Uuid::from_u128(2)]
    );
}

#[test]
fn a_session_that_is_tried_again_keeps_the_time_of_its_claim_and_takes_the_place_of_its_failure() {
    let mut state = claimed();
    state.advance(ONE, Event::Ended(ending(Some(Code::DatabaseError), T)), T);
    state.advance(ONE, Event::NotPersisted, T);
    assert_eq!(found(&state, T + 5), Found::Again(ONE, 2));
    let again = Accepted { run: 2, ..accepted(1) };
    state.admit(&policies(), again, Some(key()), TIMEOUT_MS, T + 5).expect("within the limits");
    assert_eq!(state.generations.len(), 1);
    assert_eq!(state.find(ONE).map(|found| (found.accepted.run, found.ending.is_none())), Some((2, true)));
    assert_eq!(generations_left(&state), 2, "its unit came back, and went out once more");
    assert_eq!(
        state.records.iter().map(|record| (record.run, record.created_ms)).collect::<Vec<_>>(),
        [(2, T)]
    );
    assert_eq!(found(&state, T + 5), Found::Joins(ONE));
}

#[test]
fn a_try_that_is_not_let_in_leaves_the_failure_where_it_was() {
    let mut state = claimed();
    state.advance(ONE, Event::Ended(ending(Some(Code::AiTimeout), T)), T);
    for id in [2, 3] {
        state.admit(&policies(), accepted(id), None, TIMEOUT_MS, T).expect("two may be in flight");
    }
    let (generations, records) = (state.generations.clone(), state.records.clone());
    let again = Accepted { run: 2, ..accepted(1) };
    state.admit(&policies(), again, Some(key()), TIMEOUT_MS, T).expect_err("a third may not");
    assert_eq!((state.generations.clone(), state.records.clone()), (generations, records));
    assert_eq!(found(&state, T), Found::Again(ONE, 2));
}

#[test]
fn a_desk_is_not_idle_while_a_key_stands_for_something() {
    let mut state = claimed();
    state.advance(ONE, Event::Ended(ending(None, T)), T);
    state.advance(ONE, Event::Persisted, T);
    let free_ms = T + KEEP_RECORD_MS;
    assert_eq!(state.alarm_ms(|_| false, T), Some(free_ms + 1));
    assert!(!state.is_idle(free_ms - 1));
    assert!(state.is_idle(free_ms));
}

#[test]
fn a_claim_comes_back_from_the_storage_as_it_was() {
    for event in [None, Some(ending(None, T)), Some(ending(Some(Code::AiRefused), T))] {
        let mut state = claimed();
        if let Some(ending) = event {
            state.advance(ONE, Event::Ended(ending), T);
        }
        let stored = serde_json::to_string(&state.records).expect("it can be written");
        assert_eq!(
            serde_json::from_str::<Vec<IdempotencyRecord>>(&stored).expect("it can be read"),
            state.records
        );
    }
}

#[test]
fn a_desk_comes_back_from_the_storage_as_it_was() {
    let mut state = running();
    state.admit(&policies(), accepted(2), None, TIMEOUT_MS, T).expect("two may be in flight");
    let ledger = serde_json::to_string(&state.ledger).expect("it can be written");
    state.advance(ONE, Event::Ended(ending(None, T + 5)), T + 5);

    // As the tables have it: the record as it was before its end, the ending beside it, the ledger of before.
    let stored = |generation: &Generation| {
        let record = serde_json::to_string(generation).expect("it can be written");
        let read: Generation = serde_json::from_str(&record).expect("it can be read");
        assert_eq!(read.ending, None, "it has a column of its own");
        Generation { ending: generation.ending.clone(), ..read }
    };
    let generations = state.generations.iter().map(stored).collect();
    let ledger: Ledger = serde_json::from_str(&ledger).expect("it can be read");
    let ledger = Ledger { attempts: state.ledger.attempts.clone(), ..ledger };
    let loaded = UserState::stored((ledger, Vec::new(), 0), Vec::new(), generations);
    assert_eq!(loaded.generations, state.generations);
    assert_eq!(loaded.ledger, state.ledger, "the lease of what has ended is released");
    assert_eq!(in_use(&loaded.ledger.leases, T), 1);
}

/// A state with so many ended generations that are not written yet, from id 1 on; each ended at T.
fn not_persisted(count: u128) -> UserState {
    let mut state = UserState::default();
    let policies = Policies { generations: Quota { count: 1000, window_s: 3600 }, ..policies() };
    for id in 1..=count {
        state.admit(&policies, accepted(id), None, TIMEOUT_MS, T).expect("within the limits");
        state.advance(Uuid::from_u128(id), Event::Row(Row::Opened), T);
        state.advance(Uuid::from_u128(id), Event::Ended(ending(None, T)), T);
        state.advance(Uuid::from_u128(id), Event::NotPersisted, T);
    }
    state
}

#[test]
fn a_user_with_twenty_unwritten_generations_starts_no_more() {
    let policies = Policies { generations: Quota { count: 1000, window_s: 3600 }, ..policies() };
    let mut state = not_persisted(19);
    state.admit(&policies, accepted(20), None, TIMEOUT_MS, T).expect("nineteen wait");
    state.advance(Uuid::from_u128(20), Event::Ended(ending(None, T)), T);
    let refusal = state.admit(&policies, accepted(21), None, TIMEOUT_MS, T).expect_err("twenty wait");
    assert_eq!(refusal.violated, vec![CONCURRENT]);
    assert!((1..=10).contains(&refusal.retry_after_s));
    assert_eq!(state.generations.len(), 20);
    let again = Accepted { run: 2, ..accepted(20) };
    assert!(
        state.admit(&policies, again, None, TIMEOUT_MS, T).is_ok(),
        "a retry takes the place of its failure"
    );
    state.advance(ONE, Event::Persisted, T);
    assert!(state.admit(&policies, accepted(22), None, TIMEOUT_MS, T).is_ok());
}

#[test]
fn no_more_than_two_are_written_at_a_time() {
    let state = not_persisted(5);
    let at_ms = T + 2_000;
    let busy = |ids: &'static [u128]| move |id: Uuid| ids.contains(&id.as_u128());
    let writes = |ids: &[u128]| ids.iter().map(|id| Job::Write(Uuid::from_u128(*id))).collect::<Vec<_>>();
    assert_eq!(state.due_jobs(busy(&[]), None, at_ms), writes(&[1, 2]));
    assert_eq!(state.due_jobs(busy(&[]), Some(Uuid::from_u128(4)), at_ms), writes(&[4, 1]));
    assert_eq!(state.due_jobs(busy(&[2]), None, at_ms), writes(&[1]));
    assert_eq!(state.due_jobs(busy(&[2, 3]), None, at_ms), Vec::new());
    assert_eq!(state.writes_left(busy(&[2, 3, 4])), 0);
    // Then the end of one of them sets the next alarm.
    assert_eq!(state.alarm_ms(busy(&[2, 3]), at_ms), Some(at_ms + HEARTBEAT_MS));
    assert_eq!(state.alarm_ms(busy(&[2]), at_ms), Some(at_ms + ALARM_MIN_MS));
}

#[test]
fn a_request_of_the_owner_hurries_one_write() {
    for (named, hurried) in [(None, 1), (Some(3), 3), (Some(99), 1)] {
        let mut state = not_persisted(3);
        state.use_credentials("newer", T + 7_200_000, named.map(Uuid::from_u128), T + 1);
        let due = state.due_jobs(|_| false, None, T + 1);
        assert_eq!(due, vec![Job::Write(Uuid::from_u128(hurried))], "{named:?}");
        assert!(state.generations.iter().all(|found| found.accepted.token == "newer"));
    }
}

#[test]
fn what_waited_for_a_token_is_due_when_the_owner_brings_one() {
    let mut state = not_persisted(4);
    let late_ms = T + 3_600_000; // the end of the token
    assert_eq!(state.due_jobs(|_| false, None, late_ms), Vec::new());
    for id in 1..=4 {
        state.advance(Uuid::from_u128(id), Event::NotPersisted, late_ms);
    }
    state.use_credentials("newer", late_ms + 3_600_000, None, late_ms + 1);
    assert_eq!(state.due_jobs(|_| false, None, late_ms + 1).len(), 2);
    assert!(state.generations.iter().all(|found| found.can_be_written(late_ms + 1)));
}

#[test]
fn a_write_that_the_database_refuses_for_good_is_abandoned_after_three_tries() {
    let mut state = claimed();
    state.advance(ONE, Event::Ended(ending(None, T)), T);
    state.advance(ONE, Event::Refused, T);
    state.advance(ONE, Event::NotPersisted, T);
    state.advance(ONE, Event::Refused, T);
    assert!(state.find(ONE).is_some(), "two refusals");
    let effects = state.advance(ONE, Event::Refused, T);
    assert_eq!(effects, WriteSet { forget: Some(ONE), record: Some(ONE), ..WriteSet::default() });
    assert!(state.find(ONE).is_none());
    assert_eq!(found(&state, T), Found::Again(ONE, 2), "its key is free");
    assert_eq!(state.failure_of(ONE), Some(Code::DatabaseError));
}

#[test]
fn a_failure_that_cannot_be_written_is_abandoned_after_ten_minutes() {
    let mut state = claimed();
    state.advance(ONE, Event::Ended(ending(Some(Code::AiRefused), T)), T);
    state.advance(ONE, Event::NotPersisted, T);
    assert_eq!(state.due_jobs(|_| false, None, T + KEEP_FAILURE_MS - 1), vec![Job::Write(ONE)]);
    assert_eq!(state.due_jobs(|_| false, None, T + KEEP_FAILURE_MS), vec![Job::Abandon(ONE)]);
    assert_eq!(state.abandon(ONE), WriteSet { forget: Some(ONE), ..WriteSet::default() });
    assert_eq!(found(&state, T), Found::Stored(ONE));
    assert_eq!(state.failure_of(ONE), Some(Code::AiRefused), "its key replays it");
}

#[test]
fn the_text_of_an_unwritten_generation_goes_once_its_row_is_open() {
    for (row, text) in [(Row::Opened, ""), (Row::Unknown, "text"), (Row::Refused, "text")] {
        let mut state = running();
        state.advance(ONE, Event::Row(row), T);
        state.advance(ONE, Event::Ended(ending(None, T)), T);
        assert_eq!(state.find(ONE).map(|found| found.accepted.input_text.as_str()), Some("text"));
        let effects = state.advance(ONE, Event::NotPersisted, T);
        assert_eq!(effects.generation, Some(ONE), "the storage drops it too");
        assert_eq!(state.find(ONE).map(|found| found.accepted.input_text.as_str()), Some(text), "{row:?}");
    }
}

#[test]
fn a_user_who_does_not_exist_is_rejected_until_the_token_ends() {
    let mut state = running();
    assert!(!state.is_rejected(0));
    let effects = state.reject_user(T + 1_000);
    assert!(effects.ledger);
    state.reject_user(T); // another token, which ends sooner
    for (now_ms, is_rejected) in [(T, true), (T + 31_000, true), (T + 31_001, false)] {
        assert_eq!(state.is_rejected(now_ms), is_rejected, "{now_ms}");
    }
    let mut only = UserState::default();
    only.reject_user(T);
    assert!(!only.is_idle(T + 29_999), "the storage outlives the rejection");
    assert_eq!(only.alarm_ms(|_| false, T), Some(T + 30_001));
}

#[test]
fn a_retry_that_attempts_forbids_is_not_counted() {
    let policies = Policies { attempts: Quota { count: 2, window_s: 3600 }, ..policies() };
    let mut state = UserState::default();
    state.admit(&policies, accepted(1), None, TIMEOUT_MS, T).expect("within the limits");
    assert_eq!(
        state.begin_attempt(&policies, ONE, 1, T),
        (true, WriteSet::default()),
        "counted when it was admitted"
    );
    let (may, effects) = state.begin_attempt(&policies, ONE, 2, T);
    assert!(may && effects.ledger && effects.generation == Some(ONE));
    assert_eq!(state.begin_attempt(&policies, ONE, 3, T), (false, WriteSet::default()));
    assert_eq!(state.find(ONE).map(|found| found.attempts), Some(2));
    state.advance(ONE, Event::Ended(ending(Some(Code::AiInvalidResponse), T)), T);
    let refusal =
        state.admit(&policies, accepted(2), None, TIMEOUT_MS, T).expect_err("no model call is left");
    assert_eq!(refusal.violated, vec![ATTEMPTS]);
    assert_eq!(generations_left(&state), 3, "the generation was refunded, its calls were not");
}

/// What can happen to a state, in any order.
#[derive(Debug, Clone)]
enum Step {
    Ask,
    End(u8, bool),
    Write(u8, bool),
    Wait(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Ask),
        3 => (any::<u8>(), any::<bool>()).prop_map(|(which, failed)| Step::End(which, failed)),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(which, written)| Step::Write(which, written)),
        2 => any::<u16>().prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..80)
}

proptest! {
    /// INVARIANT: units used = generations that run or are unwritten or were written, less those that failed; leases
    /// in use = generations that run. None is lost, none is counted twice, whatever the order.
    #[test]
    fn no_unit_and_no_lease_is_lost_or_counted_twice(steps in steps()) {
        let policies = Policies { generations: Quota { count: 1000, window_s: 2_678_400 }, ..policies() };
        let (mut state, mut now_ms, mut next_id, mut used) = (UserState::default(), T, 1_u128, 0_u32);
        for step in steps {
            let pick = |which: u8| {
                let length = state.generations.len().max(1);
                state.generations.get(usize::from(which) % length).map(|found| found.accepted.id)
            };
            match step {
                Step::Ask => {
                    next_id += 1;
                    if state.admit(&policies, accepted(next_id), None, TIMEOUT_MS, now_ms).is_ok() {
                        used += 1;
                    }
                }
                Step::End(which, failed) => {
                    let Some(id) = pick(which) else { continue };
                    let was_running = state.find(id).is_some_and(|found| found.ending.is_none());
                    state.advance(id, Event::Ended(ending(failed.then_some(Code::AiTimeout), now_ms)), now_ms);
                    if was_running && failed {
                        used -= 1;
                    }
                }
                Step::Write(which, written) => {
                    let Some(id) = pick(which) else { continue };
                    if state.find(id).is_some_and(|found| found.ending.is_some()) {
                        state.advance(id, if written { Event::Persisted } else { Event::NotPersisted }, now_ms);
                    }
                }
                Step::Wait(ms) => now_ms += u64::from(ms) % 1000,
            }
            let running = state.generations.iter().filter(|found| found.ending.is_none()).count();
            prop_assert_eq!(in_use(&state.ledger.leases, now_ms), running);
            prop_assert_eq!(reserved(&state.ledger.generations, policies.generations, now_ms), used);
            prop_assert!(state.generations.is_empty() || state.alarm_ms(|_| false, now_ms).is_some());
        }
    }
}

/// What can happen to a state between two alarms, in any order.
#[derive(Debug, Clone)]
enum AlarmStep {
    /// A generation begins, with a token that lives for so many seconds.
    Begin(u16),
    End(u8, Option<Code>),
    Write(u8),
    NotWritten(u8),
    Refused(u8),
    /// The owner comes, with a token that lives for so many seconds.
    Owner(u16),
    /// Somebody begins, or ceases, to be busy with one.
    Toggle(u8),
    /// So many milliseconds.
    Wait(u32),
}

fn alarm_steps() -> impl Strategy<Value = Vec<AlarmStep>> {
    let code = prop_oneof![Just(None), Just(Some(Code::AiTimeout)), Just(Some(Code::AiRefused))];
    let step = prop_oneof![
        4 => (0..120_u16).prop_map(AlarmStep::Begin),
        4 => (any::<u8>(), code).prop_map(|(which, code)| AlarmStep::End(which, code)),
        1 => any::<u8>().prop_map(AlarmStep::Write),
        4 => any::<u8>().prop_map(AlarmStep::NotWritten),
        2 => any::<u8>().prop_map(AlarmStep::Refused),
        1 => (0..4_000_u16).prop_map(AlarmStep::Owner),
        4 => any::<u8>().prop_map(AlarmStep::Toggle),
        2 => (0..3_000_u32).prop_map(AlarmStep::Wait),
        1 => (0..200_000_000_u32).prop_map(AlarmStep::Wait),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    /// INVARIANT: at the moment of the alarm something is to be done, however late it goes off; and nothing is due a second
    /// or more before it.
    #[test]
    fn a_job_is_due_at_the_time_of_every_alarm(steps in alarm_steps(), late_ms in prop_oneof![Just(0_u64), 0..7_200_000_u64]) {
        let any = Quota { count: 1000, window_s: 60 };
        let policies = Policies { burst: any, generations: any, attempts: any, concurrent: 100 };
        let (mut state, mut busy, mut now_ms, mut next_id) = (UserState::default(), BTreeSet::new(), T, 0_u128);
        for step in steps {
            let pick = |which: u8| {
                let index = usize::from(which).checked_rem(state.generations.len())?;
                state.generations.get(index).map(|found| found.accepted.id)
            };
            match step {
                AlarmStep::Begin(token_s) => {
                    next_id += 1;
                    let token_expires_ms = now_ms + u64::from(token_s) * 1000;
                    let accepted = Accepted { token_expires_ms, ..accepted(next_id) };
                    let _ = state.admit(&policies, accepted, None, TIMEOUT_MS, now_ms);
                    busy.insert(Uuid::from_u128(next_id));
                }
                AlarmStep::End(which, code) => {
                    if let Some(id) = pick(which) {
                        state.advance(id, Event::Ended(ending(code, now_ms)), now_ms);
                    }
                }
                AlarmStep::Write(which) | AlarmStep::NotWritten(which) | AlarmStep::Refused(which) => {
                    let event = match step {
                        AlarmStep::Write(_) => Event::Persisted,
                        AlarmStep::Refused(_) => Event::Refused,
                        _ => Event::NotPersisted,
                    };
                    if let Some(id) = pick(which).filter(|id| state.find(*id).is_some_and(|found| found.ending.is_some())) {
                        state.advance(id, event, now_ms);
                        busy.remove(&id);
                    }
                }
                AlarmStep::Owner(token_s) => state.use_credentials("new", now_ms + u64::from(token_s) * 1000, None, now_ms),
                AlarmStep::Toggle(which) => {
                    if let Some(id) = pick(which) && !busy.remove(&id) {
                        busy.insert(id);
                    }
                }
                AlarmStep::Wait(ms) => now_ms += u64::from(ms),
            }
            let is_busy = |id| busy.contains(&id);
            let Some(alarm_ms) = state.alarm_ms(is_busy, now_ms) else {
                prop_assert!(state.is_empty());
                continue;
            };
            prop_assert!(alarm_ms >= now_ms + ALARM_MIN_MS);
            let has_heartbeat = state.generations.iter().any(|found| found.ending.is_none() || is_busy(found.accepted.id));
            let has_work = |at_ms| has_heartbeat || state.is_idle(at_ms) || !state.due_jobs(is_busy, None, at_ms).is_empty();
            prop_assert!(has_work(alarm_ms), "nothing to do at {}", alarm_ms - now_ms);
            // Late, it may find that a token has ended meanwhile; then the next one is at a time at which there is a job.
            let woken_ms = alarm_ms + late_ms;
            if !has_work(woken_ms) {
                let next_ms = state.alarm_ms(is_busy, woken_ms).expect("it is not empty");
                prop_assert!(next_ms >= woken_ms + ALARM_MIN_MS && has_work(next_ms));
            }
            if !has_heartbeat {
                for at_ms in (now_ms + ALARM_MIN_MS..alarm_ms).step_by(997).take(100) {
                    prop_assert_eq!(state.due_jobs(is_busy, None, at_ms), Vec::new(), "due before the alarm");
                }
            }
        }
    }
}

/// What can happen to a state whose user sends keys, in any order.
#[derive(Debug, Clone)]
enum KeyedStep {
    /// One of a few keys, with one of two bodies.
    Ask(u8, bool),
    /// One of those that run.
    End(u8, Option<Code>),
    /// One of those that have ended; whether the database takes it.
    Write(u8, bool),
    /// Nobody is busy any more.
    Die,
    /// So many minutes. Whatever runs has met its deadline by then.
    Wait(u16),
}

fn keyed_steps() -> impl Strategy<Value = Vec<KeyedStep>> {
    let code = prop_oneof![
        Just(None),
        Just(Some(Code::AiUnavailable)),
        Just(Some(Code::AiRefused)),
        Just(Some(Code::Cancelled)),
        Just(Some(Code::DatabaseError)),
    ];
    let step = prop_oneof![
        6 => (0..3_u8, any::<bool>()).prop_map(|(key, body)| KeyedStep::Ask(key, body)),
        4 => (any::<u8>(), code).prop_map(|(which, code)| KeyedStep::End(which, code)),
        3 => (any::<u8>(), any::<bool>()).prop_map(|(which, written)| KeyedStep::Write(which, written)),
        1 => Just(KeyedStep::Die),
        1 => (0..600_u16).prop_map(KeyedStep::Wait),
    ];
    proptest::collection::vec(step, 0..80)
}

/// What somebody outside remembers of a session that a key stands for.
#[derive(Debug)]
struct Seen {
    key: u8,
    fingerprint: Uuid,
    created_ms: u64,
    /// Model calls, each of which somebody pays for.
    starts: u32,
    /// Of these, how many failed in a way that can pass.
    passed: u32,
}

/// What is stored, by what the effects say alone.
#[derive(Debug, Default)]
struct Stored {
    generations: BTreeSet<Uuid>,
    records: BTreeMap<Uuid, IdempotencyRecord>,
}

impl Stored {
    fn store(&mut self, state: &UserState, effects: &WriteSet) {
        self.generations.extend(effects.generation);
        let record =
            effects.record.and_then(|id| state.records.iter().find(|record| record.session_id == id));
        self.records.extend(record.map(|record| (record.session_id, record.clone())));
        if let Some(until_ms) = effects.records_until_ms {
            self.records.retain(|_, record| record.ends_ms() > until_ms);
        }
        if let Some(id) = effects.forget {
            self.generations.remove(&id);
        }
    }
}

proptest! {
    /// INVARIANT: a key has at most one claim that holds and at most one generation that runs; it starts one only where
    /// all before it failed in a way that can pass; units and leases are those of the generations, as without keys; and
    /// what is stored is what is known. Whatever the order.
    #[test]
    fn a_key_is_paid_for_once_whatever_happens(steps in keyed_steps()) {
        let policies = Policies { generations: Quota { count: 1000, window_s: 2_678_400 }, ..policies() };
        let user_id = Uuid::from_u128(7);
        let (mut state, mut stored, mut now_ms, mut used) = (UserState::default(), Stored::default(), T, 0_u32);
        let (mut seen, mut busy) = (BTreeMap::<Uuid, Seen>::new(), BTreeSet::<Uuid>::new());
        for step in steps {
            let (running, ended): (Vec<_>, Vec<_>) =
                state.generations.iter().partition(|generation| generation.ending.is_none());
            let id_of = |generations: &[&Generation], which: u8| {
                let picked = generations.get(usize::from(which) % generations.len().max(1));
                picked.map(|generation| generation.accepted.id)
            };
            let ends: Vec<(Uuid, Option<Code>)> = match &step {
                KeyedStep::End(which, code) => {
                    id_of(&running, *which).map(|id| (id, *code)).into_iter().collect()
                }
                KeyedStep::Wait(_) => {
                    running.iter().map(|found| (found.accepted.id, Some(Code::AiTimeout))).collect()
                }
                _ => Vec::new(),
            };
            let written = match &step {
                KeyedStep::Write(which, written) => id_of(&ended, *which).map(|id| (id, *written)),
                _ => None,
            };
            for (id, code) in ends {
                let effects = state.advance(id, Event::Ended(ending(code, now_ms)), now_ms);
                stored.store(&state, &effects);
                used -= u32::from(code.is_some_and(|code| code != Code::AiRefused));
                let can_pass = code.and_then(Code::retryable) == Some(true);
                seen.entry(id).and_modify(|seen| seen.passed += u32::from(can_pass));
            }
            if let Some((id, is_written)) = written {
                let effects = state.advance(id, if is_written { Event::Persisted } else { Event::NotPersisted }, now_ms);
                stored.store(&state, &effects);
                busy.remove(&id);
            }
            match step {
                KeyedStep::Ask(name, body) => {
                    let text = if body { "text" } else { "another" };
                    let key = Key::new(name.to_string(), "a/one", text, REQUEST);
                    let fingerprint = key.fingerprint;
                    let claimed = seen.iter().find(|(_, seen)| {
                        seen.key == name && now_ms < seen.created_ms + KEEP_RECORD_MS
                    });
                    let found = state.find_session(&key, |id| busy.contains(&id), now_ms);
                    let (id, run) = match (found, claimed) {
                        (Found::New, None) => {
                            let id = session_id("secret", user_id, &name.to_string(), now_ms);
                            prop_assert!(!seen.contains_key(&id), "a new claim is a new session");
                            (id, 1)
                        }
                        (Found::Again(id, run), Some((known, seen))) => {
                            prop_assert_eq!((id, run), (*known, seen.starts + 1));
                            prop_assert!(seen.starts == seen.passed && !busy.contains(&id), "nothing to wait for");
                            (id, run)
                        }
                        (Found::Reused, Some((_, seen))) => {
                            prop_assert_ne!(seen.fingerprint, fingerprint);
                            continue;
                        }
                        (Found::Joins(id), Some((known, seen))) => {
                            prop_assert_eq!((id, fingerprint), (*known, seen.fingerprint));
                            prop_assert!(state.find(id).is_some(), "there is something to join");
                            continue;
                        }
                        (Found::Stored(id), Some((known, seen))) => {
                            prop_assert_eq!((id, fingerprint), (*known, seen.fingerprint));
                            prop_assert_eq!(seen.starts, seen.passed + 1, "there is something to read");
                            continue;
                        }
                        (found, claimed) => {
                            prop_assert!(false, "{found:?} {claimed:?}");
                            continue;
                        }
                    };
                    let accepted = Accepted { id, run, ..accepted(0) };
                    if let Ok(effects) = state.admit(&policies, accepted, Some(key), TIMEOUT_MS, now_ms) {
                        stored.store(&state, &effects);
                        busy.insert(id);
                        used += 1;
                        let first = Seen { key: name, fingerprint, created_ms: now_ms, starts: 0, passed: 0 };
                        seen.entry(id).or_insert(first).starts += 1;
                    }
                }
                KeyedStep::Die => busy.clear(),
                KeyedStep::Wait(minutes) => now_ms += u64::from(minutes) * 60_000,
                KeyedStep::End(..) | KeyedStep::Write(..) => {}
            }

            let running: Vec<_> = state.generations.iter().filter(|found| found.ending.is_none()).collect();
            let keys: BTreeSet<_> = running.iter().filter_map(|found| seen.get(&found.accepted.id)).map(|seen| seen.key).collect();
            prop_assert_eq!(keys.len(), running.len(), "one that runs for a key");
            prop_assert_eq!(in_use(&state.ledger.leases, now_ms), running.len());
            prop_assert_eq!(reserved(&state.ledger.generations, policies.generations, now_ms), used);
            for name in 0..3_u8 {
                let holding = state.records.iter().filter(|record| record.key == name.to_string() && record.holds(now_ms));
                prop_assert!(holding.count() <= 1, "one claim of a key");
            }
            let known: BTreeMap<_, _> = state.records.iter().map(|record| (record.session_id, record.clone())).collect();
            prop_assert_eq!(known.len(), state.records.len(), "one claim on a session");
            prop_assert_eq!(&stored.records, &known);
            let on_desk: BTreeSet<_> = state.generations.iter().map(|found| found.accepted.id).collect();
            prop_assert_eq!(&stored.generations, &on_desk);
        }
    }
}
