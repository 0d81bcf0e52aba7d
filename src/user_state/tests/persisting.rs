//! Endings: persisted, retried, abandoned, and loaded after a crash.

use super::rows::Rows;
use super::*;

#[test]
fn a_generation_is_kept_until_it_is_persisted() {
    let mut state = in_progress();
    state.advance(ONE, Event::Ended(ending(None, T)), T);
    assert_eq!(state.advance(ONE, Event::NotPersisted, T), WriteSet::from([Write::Generation(ONE)]));
    assert!(state.find(ONE).is_some());
    assert_eq!(state.advance(ONE, Event::Persisted, T), WriteSet::from([Write::RemoveGeneration(ONE)]));
    assert!(state.find(ONE).is_none());
    assert_eq!(state.advance(ONE, Event::Persisted, T), WriteSet::none());
    assert_eq!(generations_left(&state), 2, "its reservation stays used");
}

#[test]
fn a_write_is_retried_with_backoff_until_the_token_expires() {
    let mut state = in_progress();
    state.advance(ONE, Event::Ended(ending(None, T)), T);
    let mut now_ms = T;
    let mut waits_ms = Vec::new();
    for _ in 0..12 {
        state.advance(ONE, Event::NotPersisted, now_ms);
        let at_ms = state.alarm_ms(|_| false, now_ms).expect("a job is left");
        assert_eq!(
            state.due_jobs(|_| false, None, at_ms.saturating_sub(1)),
            Vec::new(),
            "not before its time"
        );
        waits_ms.push(at_ms - now_ms);
        now_ms = at_ms;
        if at_ms < TOKEN_EXPIRES_MS {
            assert_eq!(state.due_jobs(|_| false, None, at_ms), vec![Job::Persist(ONE)]);
            assert_eq!(state.due_jobs(|_| true, None, at_ms), Vec::new(), "it is running");
        }
    }
    assert_eq!(waits_ms.get(..8), Some(&[2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000][..]));
    assert_eq!(waits_ms.get(8..), Some(&[300_000; 4][..]));
}

#[test]
fn a_result_without_a_valid_token_is_kept_for_a_day() {
    let ended_ms = T + 1000;
    let late_ms = TOKEN_EXPIRES_MS;
    let not_persisted = || {
        let mut state = in_progress();
        state.advance(ONE, Event::Ended(ending(None, ended_ms)), ended_ms);
        state.advance(ONE, Event::NotPersisted, late_ms);
        state
    };
    let mut state = not_persisted();
    let expires_ms = ended_ms + KEEP_NOT_PERSISTED_MS;
    assert_eq!(state.alarm_ms(|_| false, late_ms), Some(expires_ms));
    assert_eq!(state.due_jobs(|_| false, None, expires_ms - 1), Vec::new());
    assert_eq!(state.abandon_expired(|_| false, expires_ms - 1), (Vec::new(), WriteSet::none()));
    assert_eq!(state.abandon_expired(|_| true, expires_ms), (Vec::new(), WriteSet::none()), "it is running");
    let removed = WriteSet::from([Write::RemoveGeneration(ONE)]);
    let (abandoned, writes) = state.abandon_expired(|_| false, expires_ms);
    assert_eq!(
        (abandoned.iter().map(|one| one.accepted.id).collect::<Vec<_>>(), writes),
        (vec![ONE], removed)
    );
    assert!(state.find(ONE).is_none());

    let mut state = not_persisted();
    state.use_credentials(&credentials("new", late_ms + 3_600_000), None, late_ms + 1);
    assert_eq!(state.find(ONE).map(|found| &*found.accepted.credentials.token), Some("new"));
    assert_eq!(state.due_jobs(|_| false, None, late_ms + 1), vec![Job::Persist(ONE)]);
}

#[test]
fn an_older_token_does_not_replace_a_newer_one() {
    let mut state = in_progress();
    state.advance(ONE, Event::Ended(ending(None, T)), T);
    state.use_credentials(&credentials("older", TOKEN_EXPIRES_MS - 1), None, T);
    assert_eq!(state.find(ONE).map(|found| &*found.accepted.credentials.token), Some("old"));
}

#[test]
fn a_new_token_keeps_the_trace_context_of_the_generation() {
    let mut state = in_progress();
    state.advance(ONE, Event::Ended(ending(None, T)), T);
    let traceparent = Some(Rc::from("00-1-2-01"));
    let newer = Credentials { traceparent, ..credentials("new", TOKEN_EXPIRES_MS + 1) };
    state.use_credentials(&newer, None, T);
    let expected = credentials("new", TOKEN_EXPIRES_MS + 1);
    assert_eq!(state.find(ONE).map(|found| &found.accepted.credentials), Some(&expected));
}

#[test]
fn a_generation_in_progress_keeps_its_token() {
    let mut state = in_progress();
    state.use_credentials(&credentials("new", TOKEN_EXPIRES_MS + 1), Some(ONE), T);
    assert_eq!(state.find(ONE).map(|found| &*found.accepted.credentials.token), Some("old"));
}

#[test]
fn a_state_is_the_same_after_a_crash() {
    let (mut state, mut rows) = (UserState::default(), Rows::default());
    for id in [1, 2] {
        let writes =
            state.admit(&policies(), accepted(id), None, TIMEOUT_MS, T).expect("two may be in progress");
        rows.store(&state, &writes);
    }
    let candidates = Event::Candidates(vec![candidate(1), candidate(2)]);
    for event in [candidates, Event::Candidates(vec![candidate(3)]), Event::Ended(ending(None, T + 5))] {
        let writes = state.advance(ONE, event, T + 5);
        rows.store(&state, &writes);
    }
    let loaded = rows.load();
    assert_eq!(loaded.generations, state.generations);
    assert_eq!(loaded.ledger, state.ledger, "the lease of an ended generation is released");
    assert_eq!(in_use(&loaded.ledger.leases, T), 1);
}

/// A state with so many ended generations that are not yet persisted, from id 1 on; each ended at T.
fn not_persisted(count: u128) -> UserState {
    let mut state = UserState::default();
    let policies = Policies { generations: Quota { count: 1000, window_s: 3600 }, ..policies() };
    for id in 1..=count {
        state.admit(&policies, accepted(id), None, TIMEOUT_MS, T).expect("within the limits");
        state.advance(Uuid::from_u128(id), Event::Row(RowState::Opened), T);
        state.advance(Uuid::from_u128(id), Event::Ended(ending(None, T)), T);
        state.advance(Uuid::from_u128(id), Event::NotPersisted, T);
    }
    state
}

#[test]
fn a_user_with_twenty_not_persisted_generations_starts_no_more() {
    let policies = Policies { generations: Quota { count: 1000, window_s: 3600 }, ..policies() };
    let mut state = not_persisted(19);
    state.admit(&policies, accepted(20), None, TIMEOUT_MS, T).expect("nineteen are not persisted");
    state.advance(Uuid::from_u128(20), Event::Ended(ending(None, T)), T);
    let refusal = state.admit(&policies, accepted(21), None, TIMEOUT_MS, T).expect_err("twenty are not");
    assert_eq!(refusal.violated, vec![CONCURRENT]);
    assert!((1..=10).contains(&refusal.retry_after_s));
    assert_eq!(state.generations.len(), 20);
    let again = Accepted { run: 2, ..accepted(20) };
    assert!(state.admit(&policies, again, None, TIMEOUT_MS, T).is_ok(), "a retry replaces its failure");
    state.advance(ONE, Event::Persisted, T);
    assert!(state.admit(&policies, accepted(22), None, TIMEOUT_MS, T).is_ok());
}

#[test]
fn at_most_two_endings_are_written_at_the_same_time() {
    let state = not_persisted(5);
    let at_ms = T + 2_000;
    let running = |ids: &'static [u128]| move |id: Uuid| ids.contains(&id.as_u128());
    let writes = |ids: &[u128]| ids.iter().map(|id| Job::Persist(Uuid::from_u128(*id))).collect::<Vec<_>>();
    assert_eq!(state.due_jobs(running(&[]), None, at_ms), writes(&[1, 2]));
    assert_eq!(state.due_jobs(running(&[]), Some(Uuid::from_u128(4)), at_ms), writes(&[4, 1]));
    assert_eq!(state.due_jobs(running(&[2]), None, at_ms), writes(&[1]));
    assert_eq!(state.due_jobs(running(&[2, 3]), None, at_ms), Vec::new());
    assert_eq!(state.writes_left(running(&[2, 3, 4])), 0);
    // Then the end of one of them sets the next alarm.
    assert_eq!(state.alarm_ms(running(&[2, 3]), at_ms), Some(at_ms + HEARTBEAT_MS));
    assert_eq!(state.alarm_ms(running(&[2]), at_ms), Some(at_ms + ALARM_MIN_MS));
}

#[test]
fn a_request_of_the_owner_makes_one_write_due() {
    for (named, hurried) in [(None, 1), (Some(3), 3), (Some(99), 1)] {
        let mut state = not_persisted(3);
        state.use_credentials(&credentials("newer", T + 7_200_000), named.map(Uuid::from_u128), T + 1);
        let due = state.due_jobs(|_| false, None, T + 1);
        assert_eq!(due, vec![Job::Persist(Uuid::from_u128(hurried))], "{named:?}");
        assert!(state.generations.iter().all(|found| &*found.accepted.credentials.token == "newer"));
    }
}

#[test]
fn a_new_token_makes_every_write_due_whose_token_has_expired() {
    let mut state = not_persisted(4);
    let late_ms = TOKEN_EXPIRES_MS;
    assert_eq!(state.due_jobs(|_| false, None, late_ms), Vec::new());
    for id in 1..=4 {
        state.advance(Uuid::from_u128(id), Event::NotPersisted, late_ms);
    }
    state.use_credentials(&credentials("newer", late_ms + 3_600_000), None, late_ms + 1);
    assert_eq!(state.due_jobs(|_| false, None, late_ms + 1).len(), 2);
    assert!(state.generations.iter().all(|found| found.can_be_written(late_ms + 1)));
}

#[test]
fn the_text_is_removed_after_a_failed_write_if_the_row_exists() {
    for (row, text) in [(RowState::Opened, ""), (RowState::Unknown, "text"), (RowState::Refused, "text")] {
        let mut state = in_progress();
        assert_eq!(state.advance(ONE, Event::Row(row), T), WriteSet::none());
        state.advance(ONE, Event::Ended(ending(None, T)), T);
        assert_eq!(
            state.find(ONE).map(|found| found.accepted.input_text.decoded().into_owned()).as_deref(),
            Some("text")
        );
        let writes = state.advance(ONE, Event::NotPersisted, T);
        assert_eq!(writes, WriteSet::from([Write::Generation(ONE)]), "it is removed from the storage too");
        assert_eq!(
            state.find(ONE).map(|found| found.accepted.input_text.decoded().into_owned()).as_deref(),
            Some(text),
            "{row:?}"
        );
    }
}

#[test]
fn a_generation_that_waits_for_its_resumption_keeps_its_text() {
    // After a crash, with a database that cannot be read: the model may still be called.
    let mut state = in_progress();
    state.advance(ONE, Event::Row(RowState::Opened), T);
    state.advance(ONE, Event::NotPersisted, T);
    let text = state.find(ONE).map(|found| found.accepted.input_text.decoded().into_owned());
    assert_eq!(text.as_deref(), Some("text"));
}

#[test]
fn a_lease_is_released_when_the_ending_is_not_persisted() {
    for (event, is_leased) in [
        (Event::NotPersisted, true),
        (Event::Refused, true),
        (Event::NotPersisted, false),
        (Event::Refused, false),
    ] {
        let mut state = in_progress();
        if is_leased {
            assert_eq!(state.lease(ONE), WriteSet::from([Write::Lease(ONE)]));
        }
        state.advance(ONE, Event::Ended(ending(None, T)), T);
        let mut expected = WriteSet::from([Write::Generation(ONE)]);
        if is_leased {
            expected.add(Write::Release(ONE));
        }
        assert_eq!(state.advance(ONE, event, T), expected);
    }
}

#[test]
fn a_generation_in_progress_is_due_when_its_lease_ends() {
    let mut state = in_progress();
    for (token_ms, due_ms) in [(15_002, Some(T + 15_001)), (15_001, None)] {
        state.generations[0].accepted.credentials.expires_ms = T + token_ms;
        assert_eq!(state.wake_at_ms(15_000, T + 1), due_ms, "a token of {token_ms} ms");
    }
    assert_eq!(UserState::default().wake_at_ms(15_000, T), None);
    let mut without_token = in_progress();
    without_token.generations[0].accepted.credentials.token = Rc::from("");
    assert_eq!(without_token.wake_at_ms(15_000, T), None);
}

#[test]
fn an_ending_is_due_while_its_token_is_valid() {
    let mut state = in_progress();
    state.advance(ONE, Event::Ended(ending(None, T)), T);
    assert_eq!(state.wake_at_ms(15_000, T), Some(T));
    state.advance(ONE, Event::NotPersisted, T);
    assert_eq!(state.wake_at_ms(15_000, T), Some(T + 2_000));
    assert_eq!(state.wake_at_ms(15_000, T + 5_000), Some(T + 5_000));
    // After that it waits for the owner.
    assert_eq!(state.wake_at_ms(15_000, TOKEN_EXPIRES_MS - 1), Some(TOKEN_EXPIRES_MS - 1));
    assert_eq!(state.wake_at_ms(15_000, TOKEN_EXPIRES_MS), None);
    assert_eq!(state.due_jobs(|_| false, None, TOKEN_EXPIRES_MS), []);
}
