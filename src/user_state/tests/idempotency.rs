//! Idempotency keys over the life of a session.

use super::rows::Rows;
use super::*;

/// The request that sends the key.
const REQUEST: Uuid = Uuid::from_u128(77);

fn key() -> Key {
    Key::new("k".to_owned(), "a/one", &JsonString::new("text"), REQUEST)
}

/// A state with one generation in progress, of id 1, which has a key.
fn keyed() -> UserState {
    let mut state = UserState::default();
    state.admit(&policies(), accepted(1), Some(&key()), TIMEOUT_MS, T).expect("within the limits");
    state
}

/// The plan for another request with the key, while nothing is running.
fn plan(state: &UserState, now_ms: u64) -> Plan {
    classify(state, Some(&key()), Uuid::nil(), false, |_| false, now_ms)
}

#[test]
fn a_record_is_created_in_the_transaction_that_accepts_its_session() {
    let mut state = UserState::default();
    assert_eq!(plan(&state, T), Plan::Start);
    let writes = state.admit(&policies(), accepted(1), Some(&key()), TIMEOUT_MS, T);
    let expected = [Write::Ledger, Write::Generation(ONE), Write::IdempotencyRecord(ONE)];
    assert_eq!(writes, Ok(WriteSet::from(expected)));
    assert_eq!(plan(&state, T), Plan::Join(ONE));
}

#[test]
fn a_rejected_request_creates_no_record() {
    let mut state = UserState::default();
    for id in [2, 3] {
        state.admit(&policies(), accepted(id), None, TIMEOUT_MS, T).expect("two may be in progress");
    }
    state.admit(&policies(), accepted(1), Some(&key()), TIMEOUT_MS, T).expect_err("a third may not");
    assert_eq!(state.records, Vec::new());
    assert_eq!(plan(&state, T), Plan::Start);
}

#[test]
fn a_key_leads_to_its_session_at_every_stage() {
    let mut state = keyed();
    assert_eq!(plan(&state, T), Plan::Join(ONE), "in progress");
    let writes = state.advance(ONE, Event::Ended(ending(None, T)), T);
    let expected = [Write::Ending(ONE), Write::IdempotencyRecord(ONE)];
    assert_eq!(writes, WriteSet::from(expected), "the outcome is stored with the ending");
    assert_eq!(plan(&state, T), Plan::Join(ONE), "not yet persisted");
    state.advance(ONE, Event::Persisted, T);
    assert_eq!(plan(&state, T), Plan::ReadStored(ONE, false), "persisted");

    for (code, after) in [
        (Code::AiRefused, Plan::ReadStored(ONE, false)),
        (Code::AiMisconfigured, Plan::ReadStored(ONE, false)),
        (Code::AiUnavailable, Plan::StartAgain(ONE, 2)),
        (Code::AiTimeout, Plan::StartAgain(ONE, 2)),
        (Code::AiInvalidResponse, Plan::StartAgain(ONE, 2)),
        (Code::DatabaseError, Plan::StartAgain(ONE, 2)),
        (Code::Cancelled, Plan::StartAgain(ONE, 2)),
    ] {
        let mut state = keyed();
        state.advance(ONE, Event::Ended(ending(Some(code), T)), T);
        let while_running = classify(&state, Some(&key()), Uuid::nil(), false, |_| true, T);
        assert_eq!(while_running, Plan::Join(ONE), "{} is being persisted", code.name());
        state.advance(ONE, Event::Persisted, T);
        assert_eq!(plan(&state, T), after, "{}", code.name());
    }
}

#[test]
fn a_failure_that_a_firewall_caused_makes_its_record_final() {
    for (is_blocked, after) in [(false, Plan::StartAgain(ONE, 2)), (true, Plan::ReadStored(ONE, true))] {
        let mut state = keyed();
        let ending = Ending { is_blocked, ..ending(Some(Code::DatabaseError), T) };
        state.advance(ONE, Event::Ended(ending), T);
        state.advance(ONE, Event::Persisted, T);
        assert_eq!(plan(&state, T), after);
        assert_eq!(state.failure_of(ONE), Some(Code::DatabaseError));
    }
}

#[test]
fn a_repeated_delivery_gets_its_failure_and_the_next_request_retries() {
    for code in [Code::AiUnavailable, Code::DatabaseError, Code::Cancelled, Code::AiRefused] {
        let mut state = keyed();
        let of_another = Key { request: Uuid::from_u128(78), ..key() };
        let plan = |state: &UserState, key: &Key, is_repeated| {
            classify(state, Some(key), Uuid::nil(), is_repeated, |_| false, T)
        };
        state.advance(ONE, Event::Ended(ending(Some(code), T)), T);
        assert_eq!(plan(&state, &key(), true), Plan::Join(ONE), "{}", code.name());
        let next = if code == Code::AiRefused { Plan::Join(ONE) } else { Plan::StartAgain(ONE, 2) };
        assert_eq!(plan(&state, &key(), false), next, "{}", code.name());
        assert_eq!(plan(&state, &of_another, true), next, "{}", code.name());
        state.advance(ONE, Event::Persisted, T);
        assert_eq!(plan(&state, &key(), true), Plan::ReadStored(ONE, false), "{}", code.name());
    }
}

#[test]
fn a_key_with_another_body_is_rejected_at_every_stage() {
    let other = Key::new("k".to_owned(), "a/one", &JsonString::new("another text"), REQUEST);
    let reused =
        |state: &UserState, now_ms| classify(state, Some(&other), Uuid::nil(), false, |_| false, now_ms);
    let mut state = keyed();
    assert_eq!(reused(&state, T), Plan::RejectReused);
    state.advance(ONE, Event::Ended(ending(Some(Code::AiTimeout), T)), T);
    assert_eq!(reused(&state, T), Plan::RejectReused);
    state.advance(ONE, Event::Persisted, T);
    assert_eq!(reused(&state, T), Plan::RejectReused);
    assert_eq!(reused(&state, T + KEEP_RECORD_MS), Plan::Start);
}

#[test]
fn a_record_is_valid_for_a_day_and_removed_with_the_next_one() {
    let mut state = keyed();
    state.advance(ONE, Event::Ended(ending(None, T)), T);
    state.advance(ONE, Event::Persisted, T);
    let expires_ms = T + KEEP_RECORD_MS;
    assert_eq!(plan(&state, expires_ms - 1), Plan::ReadStored(ONE, false));
    assert_eq!(plan(&state, expires_ms), Plan::Start);

    let (other, two) =
        (Key::new("other".to_owned(), "a/one", &JsonString::new("text"), REQUEST), Uuid::from_u128(2));
    let mut sooner = keyed();
    let writes = sooner.admit(&policies(), accepted(2), Some(&other), TIMEOUT_MS, expires_ms - 1);
    let expected = [Write::Ledger, Write::Generation(two), Write::IdempotencyRecord(two)];
    assert_eq!(writes, Ok(WriteSet::from(expected)));
    assert_eq!(sooner.records.len(), 2);
    let writes = state.admit(&policies(), accepted(2), Some(&other), TIMEOUT_MS, expires_ms);
    let expected = [
        Write::Ledger,
        Write::Generation(two),
        Write::RemoveIdempotencyRecords(expires_ms),
        Write::IdempotencyRecord(two),
    ];
    assert_eq!(writes, Ok(WriteSet::from(expected)));
    assert_eq!(state.records.iter().map(|record| record.session_id).collect::<Vec<_>>(), [two]);
}

#[test]
fn another_run_keeps_the_time_of_its_record_and_replaces_the_failure() {
    let mut state = keyed();
    state.advance(ONE, Event::Ended(ending(Some(Code::DatabaseError), T)), T);
    state.advance(ONE, Event::NotPersisted, T);
    assert_eq!(plan(&state, T + 5), Plan::StartAgain(ONE, 2));
    let again = Accepted { run: 2, ..accepted(1) };
    state.admit(&policies(), again, Some(&key()), TIMEOUT_MS, T + 5).expect("within the limits");
    assert_eq!(state.generations.len(), 1);
    assert_eq!(state.find(ONE).map(|found| (found.accepted.run, found.ending.is_none())), Some((2, true)));
    assert_eq!(generations_left(&state), 2, "its reservation was refunded, and another was taken");
    assert_eq!(
        state.records.iter().map(|record| (record.run, record.created_ms)).collect::<Vec<_>>(),
        [(2, T)]
    );
    assert_eq!(plan(&state, T + 5), Plan::Join(ONE));
}

#[test]
fn a_rejected_retry_leaves_the_failure_unchanged() {
    let mut state = keyed();
    state.advance(ONE, Event::Ended(ending(Some(Code::AiTimeout), T)), T);
    for id in [2, 3] {
        state.admit(&policies(), accepted(id), None, TIMEOUT_MS, T).expect("two may be in progress");
    }
    let (generations, records) = (state.generations.clone(), state.records.clone());
    let again = Accepted { run: 2, ..accepted(1) };
    state.admit(&policies(), again, Some(&key()), TIMEOUT_MS, T).expect_err("a third may not");
    assert_eq!((state.generations.clone(), state.records.clone()), (generations, records));
    assert_eq!(plan(&state, T), Plan::StartAgain(ONE, 2));
}

#[test]
fn a_state_with_a_valid_record_is_still_needed() {
    let mut state = keyed();
    state.advance(ONE, Event::Ended(ending(None, T)), T);
    state.advance(ONE, Event::Persisted, T);
    let expires_ms = T + KEEP_RECORD_MS;
    assert_eq!(state.alarm_ms(|_| false, T), Some(expires_ms + 1));
    assert!(!state.is_idle(expires_ms - 1));
    assert!(state.is_idle(expires_ms));
}

#[test]
fn a_record_is_the_same_after_a_crash() {
    for ending in [None, Some(ending(None, T)), Some(ending(Some(Code::AiRefused), T))] {
        let (mut state, mut rows) = (UserState::default(), Rows::default());
        let writes = state.admit(&policies(), accepted(1), Some(&key()), TIMEOUT_MS, T);
        rows.store(&state, &writes.expect("within the limits"));
        if let Some(ending) = ending {
            let writes = state.advance(ONE, Event::Ended(ending), T);
            rows.store(&state, &writes);
        }
        assert_eq!(state.records.len(), 1);
        assert_eq!(rows.load().records, state.records);
    }
}

#[test]
fn a_write_that_the_database_refuses_three_times_is_abandoned() {
    let mut state = keyed();
    state.advance(ONE, Event::Ended(ending(None, T)), T);
    state.advance(ONE, Event::Refused, T);
    state.advance(ONE, Event::NotPersisted, T);
    state.advance(ONE, Event::Refused, T);
    assert!(state.find(ONE).is_some(), "two refusals");
    let writes = state.advance(ONE, Event::Refused, T);
    assert_eq!(writes, WriteSet::from([Write::RemoveGeneration(ONE), Write::IdempotencyRecord(ONE)]));
    assert!(state.find(ONE).is_none());
    assert_eq!(plan(&state, T), Plan::StartAgain(ONE, 2), "its key can be used again");
    assert_eq!(state.failure_of(ONE), Some(Code::DatabaseError));
}

#[test]
fn a_failure_that_cannot_be_persisted_is_abandoned_after_ten_minutes() {
    let mut state = keyed();
    state.advance(ONE, Event::Ended(ending(Some(Code::AiRefused), T)), T);
    state.advance(ONE, Event::NotPersisted, T);
    let expires_ms = T + KEEP_FAILURE_MS;
    assert_eq!(state.due_jobs(|_| false, None, expires_ms - 1), vec![Job::Persist(ONE)]);
    assert_eq!(state.abandon_expired(|_| false, expires_ms - 1), (Vec::new(), WriteSet::none()));
    let removed = WriteSet::from([Write::RemoveGeneration(ONE)]);
    let (abandoned, writes) = state.abandon_expired(|_| false, expires_ms);
    assert_eq!(
        (abandoned.iter().map(|one| one.accepted.id).collect::<Vec<_>>(), writes),
        (vec![ONE], removed)
    );
    assert_eq!(plan(&state, T), Plan::ReadStored(ONE, false));
    assert_eq!(state.failure_of(ONE), Some(Code::AiRefused), "its key returns it");
}
