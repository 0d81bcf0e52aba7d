//! The desk's promises, each at its border.

use proptest::prelude::*;

use std::collections::{BTreeMap, BTreeSet};

use super::claim::{Found, KEEP_CLAIM_MS, session_id};
use super::record::{Accepted, Ending, KeptCandidate};
use super::*;
use crate::quota::Quota;

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

fn card(number: u128) -> KeptCandidate {
    KeptCandidate {
        id: Uuid::from_u128(number),
        front: format!("front {number}"),
        back: "back".to_owned(),
        prompt: "prompt".to_owned(),
    }
}

/// A desk with one accepted generation of id 1.
fn running() -> Desk {
    let mut desk = Desk::default();
    desk.count(&policies(), T).expect("the first request is within the burst");
    desk.admit(&policies(), accepted(1), None, TIMEOUT_MS, T)
        .expect("the first generation is within the limits");
    desk
}

const ONE: Uuid = Uuid::from_u128(1);

fn generations_left(desk: &Desk) -> u32 {
    desk.ledger.generations.standing(policies().generations, T).remaining
}

#[test]
fn an_accepted_generation_is_stored_with_what_it_used() {
    let mut desk = Desk::default();
    assert!(desk.count(&policies(), T).expect("within the burst").ledger);
    let effects = desk.admit(&policies(), accepted(1), None, TIMEOUT_MS, T).expect("within the limits");
    assert_eq!(effects, Effects { ledger: true, generation: Some(ONE), ..Effects::default() });
    assert_eq!(generations_left(&desk), 2);
    assert_eq!(desk.ledger.leases.in_use(T), 1);
    assert_eq!(desk.find(ONE).map(|found| found.deadline_ms), Some(T + TIMEOUT_MS));
}

#[test]
fn a_third_generation_in_flight_is_refused_and_changes_nothing() {
    let mut desk = running();
    desk.admit(&policies(), accepted(2), None, TIMEOUT_MS, T).expect("two may be in flight");
    let before = desk.ledger.clone();
    let refusal = desk.admit(&policies(), accepted(3), None, TIMEOUT_MS, T).expect_err("a third may not");
    assert_eq!(refusal.violated, vec![CONCURRENT]);
    assert_eq!(desk.ledger, before);
    assert_eq!(desk.generations.len(), 2);
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
        let mut desk = running();
        desk.advance(ONE, Event::Ended(ending(Some(code), T)), T);
        assert_eq!(generations_left(&desk), 3, "{}", code.name());
        assert_eq!(desk.ledger.leases.in_use(T), 0, "{}", code.name());
    }
    for code in [None, Some(Code::AiRefused)] {
        let mut desk = running();
        let effects = desk.advance(ONE, Event::Ended(ending(code, T)), T);
        assert_eq!(generations_left(&desk), 2);
        assert_eq!(desk.ledger.leases.in_use(T), 0, "a lease is always given back");
        assert_eq!(
            effects,
            Effects { ending: Some(ONE), ..Effects::default() },
            "the ledger has nothing new"
        );
    }
}

#[test]
fn the_first_ending_holds() {
    let mut desk = running();
    desk.advance(ONE, Event::Ended(ending(None, T)), T);
    let again = desk.advance(ONE, Event::Ended(ending(Some(Code::AiTimeout), T)), T);
    assert_eq!(again, Effects::default());
    assert_eq!(desk.find(ONE).and_then(|found| found.ending.clone()), Some(ending(None, T)));
    assert_eq!(generations_left(&desk), 2);
}

#[test]
fn cards_are_stored_once_in_their_order() {
    let mut desk = running();
    let first = desk.advance(ONE, Event::Found(vec![card(1), card(2)]), T);
    let second = desk.advance(ONE, Event::Found(vec![card(3)]), T);
    assert_eq!((first.candidates, first.generation), (Some((ONE, 0)), None));
    assert_eq!(second.candidates, Some((ONE, 2)));
    assert_eq!(desk.find(ONE).map(|found| found.candidates.len()), Some(3));
}

#[test]
fn what_is_written_is_forgotten_and_what_is_not_stays() {
    let mut desk = running();
    desk.advance(ONE, Event::Ended(ending(None, T)), T);
    desk.advance(ONE, Event::NotWritten, T);
    assert!(desk.find(ONE).is_some());
    assert_eq!(desk.advance(ONE, Event::Written, T), Effects { forget: Some(ONE), ..Effects::default() });
    assert!(desk.find(ONE).is_none());
    assert_eq!(desk.advance(ONE, Event::Written, T), Effects::default());
    assert_eq!(generations_left(&desk), 2, "its unit stays used");
}

#[test]
fn writing_is_tried_again_with_growing_waits_while_the_token_lives() {
    let mut desk = running();
    desk.advance(ONE, Event::Ended(ending(None, T)), T);
    let mut now_ms = T;
    let mut waits_ms = Vec::new();
    for _ in 0..12 {
        desk.advance(ONE, Event::NotWritten, now_ms);
        let at_ms = desk.alarm_ms(|_| false, now_ms).expect("something is left to do");
        assert_eq!(desk.chores(|_| false, None, at_ms.saturating_sub(1)), Vec::new(), "not before its time");
        waits_ms.push(at_ms - now_ms);
        now_ms = at_ms;
        if at_ms < T + 3_600_000 {
            assert_eq!(desk.chores(|_| false, None, at_ms), vec![Chore::Write(ONE)]);
            assert_eq!(desk.chores(|_| true, None, at_ms), Vec::new(), "somebody is at it");
        }
    }
    assert_eq!(waits_ms.get(..8), Some(&[2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000][..]));
    assert_eq!(waits_ms.get(8..), Some(&[300_000; 4][..]));
}

#[test]
fn without_a_living_token_it_waits_for_its_owner_and_is_given_up_after_a_day() {
    let mut desk = running();
    let ended_ms = T + 1000;
    desk.advance(ONE, Event::Ended(ending(None, ended_ms)), ended_ms);
    let late_ms = T + 3_600_000; // the token's end
    desk.advance(ONE, Event::NotWritten, late_ms);
    let given_up_ms = ended_ms + KEEP_UNWRITTEN_MS;
    assert_eq!(desk.alarm_ms(|_| false, late_ms), Some(given_up_ms));
    assert_eq!(desk.chores(|_| false, None, given_up_ms - 1), Vec::new());
    assert_eq!(desk.chores(|_| false, None, given_up_ms), vec![Chore::GiveUp(ONE)]);

    desk.owner_is_here("new", late_ms + 3_600_000, None, late_ms + 1);
    assert_eq!(desk.find(ONE).map(|found| found.accepted.token.as_str()), Some("new"));
    assert_eq!(desk.chores(|_| false, None, late_ms + 1), vec![Chore::Write(ONE)]);
}

#[test]
fn an_older_token_does_not_replace_a_newer_one() {
    let mut desk = running();
    desk.advance(ONE, Event::Ended(ending(None, T)), T);
    desk.owner_is_here("older", T + 3_599_999, None, T);
    assert_eq!(desk.find(ONE).map(|found| found.accepted.token.as_str()), Some("old"));
}

#[test]
fn a_generation_that_nobody_runs_is_taken_up() {
    let mut desk = running();
    assert_eq!(desk.alarm_ms(|_| true, T), Some(T + HEARTBEAT_MS), "the object stays awake");
    assert_eq!(desk.chores(|_| true, None, T), Vec::new());
    assert_eq!(desk.chores(|_| false, None, T), vec![Chore::TakeUp(ONE)]);
    desk.advance(ONE, Event::TakenUp, T);
    assert_eq!(desk.find(ONE).map(|found| found.attempts), Some(1));
}

#[test]
fn after_a_death_cards_are_kept_and_a_model_is_asked_again_only_without_any() {
    let desk = running();
    let taken_up = |desk: &Desk, now_ms| {
        let found = desk.find(ONE).expect("it is on the desk");
        Desk::taken_up(found, 3, now_ms).map(|ending| (ending.code, ending.partial))
    };
    let last_ms = T + TIMEOUT_MS - 1_000;
    assert_eq!(taken_up(&desk, T + 10_000), None, "there is time to ask again");
    assert_eq!(taken_up(&desk, last_ms), None);
    assert_eq!(taken_up(&desk, last_ms + 1), Some((Some(Code::AiTimeout), false)));

    let mut with_cards = running();
    with_cards.advance(ONE, Event::Found(vec![card(1)]), T);
    assert_eq!(taken_up(&with_cards, T + 10_000), Some((None, true)), "paid once is enough");
    assert_eq!(taken_up(&with_cards, last_ms + 1), Some((None, true)));

    let mut tired = running();
    assert!(tired.begin_attempt(&policies(), ONE, 3, T).0);
    assert_eq!(taken_up(&tired, T + 10_000), Some((Some(Code::AiTimeout), false)), "no attempt is left");
}

#[test]
fn an_idle_desk_empties_its_storage_and_no_sooner() {
    let mut desk = running();
    desk.advance(ONE, Event::Ended(ending(None, T)), T);
    desk.advance(ONE, Event::Written, T);
    let at_ms = desk.alarm_ms(|_| false, T).expect("the ledger has something in it");
    assert!(!desk.is_idle(T + 3_600_000 - 1), "the last window still counts");
    assert!(desk.is_idle(at_ms));
    assert!(desk.clear().clear);
    assert!(desk.is_empty());
    assert_eq!(desk.alarm_ms(|_| false, at_ms), None, "an empty object sleeps");
}

#[test]
fn the_event_log_hears_of_a_limit_once_a_window() {
    let mut desk = Desk::default();
    let refusal = Refusal { violated: vec![BURST, GENERATIONS], retry_after_s: 1 };
    assert_eq!(desk.to_tell_limited(&policies(), &refusal, T), vec![BURST, GENERATIONS]);
    assert_eq!(desk.to_tell_limited(&policies(), &refusal, T + 59_999), Vec::<&str>::new());
    assert_eq!(desk.to_tell_limited(&policies(), &refusal, T + 60_000), vec![BURST]);
    assert_eq!(desk.to_tell_limited(&policies(), &refusal, T + 3_600_000), vec![BURST, GENERATIONS]);
}

/// Which request brings the key.
const REQUEST: Uuid = Uuid::from_u128(77);

fn key() -> Key {
    Key::new("k".to_owned(), "a/one", "text", REQUEST)
}

/// A desk with one accepted generation of id 1, which has a key.
fn claimed() -> Desk {
    let mut desk = Desk::default();
    desk.admit(&policies(), accepted(1), Some(key()), TIMEOUT_MS, T).expect("within the limits");
    desk
}

/// What the key finds when nobody is busy.
fn found(desk: &Desk, now_ms: u64) -> Found {
    desk.find_claim(&key(), |_| false, now_ms)
}

#[test]
fn a_key_is_claimed_in_the_transaction_that_accepts_its_generation() {
    let mut desk = Desk::default();
    assert_eq!(found(&desk, T), Found::New);
    let effects = desk.admit(&policies(), accepted(1), Some(key()), TIMEOUT_MS, T);
    let expected = Effects { ledger: true, generation: Some(ONE), claim: Some(ONE), ..Effects::default() };
    assert_eq!(effects, Ok(expected));
    assert_eq!(found(&desk, T), Found::Joins(ONE));
}

#[test]
fn a_key_that_is_not_let_in_is_not_claimed() {
    let mut desk = Desk::default();
    for id in [2, 3] {
        desk.admit(&policies(), accepted(id), None, TIMEOUT_MS, T).expect("two may be in flight");
    }
    desk.admit(&policies(), accepted(1), Some(key()), TIMEOUT_MS, T).expect_err("a third may not");
    assert_eq!(desk.claims, Vec::new());
    assert_eq!(found(&desk, T), Found::New);
}

#[test]
fn a_key_finds_its_session_in_whichever_state_it_is() {
    let mut desk = claimed();
    assert_eq!(found(&desk, T), Found::Joins(ONE), "it runs");
    let ended = desk.advance(ONE, Event::Ended(ending(None, T)), T);
    assert_eq!(ended.claim, Some(ONE), "how it ended is stored with the end");
    assert_eq!(found(&desk, T), Found::Joins(ONE), "it is not written");
    desk.advance(ONE, Event::Written, T);
    assert_eq!(found(&desk, T), Found::Stored(ONE), "the database has it");

    for (code, after) in [
        (Code::AiRefused, Found::Stored(ONE)),
        (Code::AiMisconfigured, Found::Stored(ONE)),
        (Code::AiUnavailable, Found::Again(ONE, 2)),
        (Code::AiTimeout, Found::Again(ONE, 2)),
        (Code::AiInvalidResponse, Found::Again(ONE, 2)),
        (Code::DatabaseError, Found::Again(ONE, 2)),
        (Code::Cancelled, Found::Again(ONE, 2)),
    ] {
        let mut desk = claimed();
        desk.advance(ONE, Event::Ended(ending(Some(code), T)), T);
        assert_eq!(desk.find_claim(&key(), |_| true, T), Found::Joins(ONE), "{} is on its way", code.name());
        desk.advance(ONE, Event::Written, T);
        assert_eq!(found(&desk, T), after, "{}", code.name());
    }
}

#[test]
fn a_failure_is_told_to_the_request_that_started_it_and_tried_again_by_the_next_one() {
    for code in [Code::AiUnavailable, Code::DatabaseError, Code::Cancelled, Code::AiRefused] {
        let mut desk = claimed();
        let repeated = Key { is_repeated: true, ..key() };
        let of_another = Key { asked_by: Uuid::from_u128(78), ..repeated.clone() };
        let found = |desk: &Desk, key: &Key| desk.find_claim(key, |_| false, T);
        desk.advance(ONE, Event::Ended(ending(Some(code), T)), T);
        assert_eq!(found(&desk, &repeated), Found::Joins(ONE), "{}", code.name());
        let next = if code == Code::AiRefused { Found::Joins(ONE) } else { Found::Again(ONE, 2) };
        assert_eq!(found(&desk, &key()), next, "{}", code.name());
        assert_eq!(found(&desk, &of_another), next, "{}", code.name());
        desk.advance(ONE, Event::Written, T);
        assert_eq!(found(&desk, &repeated), Found::Stored(ONE), "{}", code.name());
    }
}

#[test]
fn a_claim_that_was_stored_before_it_named_its_request_is_read() {
    let stored = serde_json::json!({
        "key": "k", "fingerprint": key().fingerprint, "session_id": ONE, "run": 1, "claimed_ms": T, "outcome": null,
    });
    let claim: Claim = serde_json::from_value(stored).expect("it holds");
    let desk = Desk::stored((Ledger::default(), Vec::new(), 0), vec![claim], Vec::new());
    assert_eq!(desk.find_claim(&Key { is_repeated: true, ..key() }, |_| true, T), Found::Joins(ONE));
}

#[test]
fn a_key_with_another_body_is_reused_in_whichever_state_its_session_is() {
    let other = Key::new("k".to_owned(), "a/one", "another text", REQUEST);
    let reused = |desk: &Desk, now_ms| desk.find_claim(&other, |_| false, now_ms);
    let mut desk = claimed();
    assert_eq!(reused(&desk, T), Found::Reused);
    desk.advance(ONE, Event::Ended(ending(Some(Code::AiTimeout), T)), T);
    assert_eq!(reused(&desk, T), Found::Reused);
    desk.advance(ONE, Event::Written, T);
    assert_eq!(reused(&desk, T), Found::Reused);
    assert_eq!(reused(&desk, T + KEEP_CLAIM_MS), Found::New);
}

#[test]
fn a_key_is_free_again_after_a_day_to_the_millisecond_and_its_claim_goes_with_the_next() {
    let mut desk = claimed();
    desk.advance(ONE, Event::Ended(ending(None, T)), T);
    desk.advance(ONE, Event::Written, T);
    let free_ms = T + KEEP_CLAIM_MS;
    assert_eq!(found(&desk, free_ms - 1), Found::Stored(ONE));
    assert_eq!(found(&desk, free_ms), Found::New);

    let other = || Some(Key::new("other".to_owned(), "a/one", "text", REQUEST));
    let mut sooner = claimed();
    let effects = sooner.admit(&policies(), accepted(2), other(), TIMEOUT_MS, free_ms - 1);
    assert_eq!(effects.expect("within the limits").claims_until_ms, None);
    assert_eq!(sooner.claims.len(), 2);
    let effects = desk.admit(&policies(), accepted(2), other(), TIMEOUT_MS, free_ms);
    assert_eq!(effects.expect("within the limits").claims_until_ms, Some(free_ms));
    assert_eq!(desk.claims.iter().map(|claim| claim.session_id).collect::<Vec<_>>(), [Uuid::from_u128(2)]);
}

#[test]
fn a_session_that_is_tried_again_keeps_the_time_of_its_claim_and_takes_the_place_of_its_failure() {
    let mut desk = claimed();
    desk.advance(ONE, Event::Ended(ending(Some(Code::DatabaseError), T)), T);
    desk.advance(ONE, Event::NotWritten, T);
    assert_eq!(found(&desk, T + 5), Found::Again(ONE, 2));
    let again = Accepted { run: 2, ..accepted(1) };
    desk.admit(&policies(), again, Some(key()), TIMEOUT_MS, T + 5).expect("within the limits");
    assert_eq!(desk.generations.len(), 1);
    assert_eq!(desk.find(ONE).map(|found| (found.accepted.run, found.ending.is_none())), Some((2, true)));
    assert_eq!(generations_left(&desk), 2, "its unit came back, and went out once more");
    assert_eq!(desk.claims.iter().map(|claim| (claim.run, claim.claimed_ms)).collect::<Vec<_>>(), [(2, T)]);
    assert_eq!(found(&desk, T + 5), Found::Joins(ONE));
}

#[test]
fn a_try_that_is_not_let_in_leaves_the_failure_where_it_was() {
    let mut desk = claimed();
    desk.advance(ONE, Event::Ended(ending(Some(Code::AiTimeout), T)), T);
    for id in [2, 3] {
        desk.admit(&policies(), accepted(id), None, TIMEOUT_MS, T).expect("two may be in flight");
    }
    let (generations, claims) = (desk.generations.clone(), desk.claims.clone());
    let again = Accepted { run: 2, ..accepted(1) };
    desk.admit(&policies(), again, Some(key()), TIMEOUT_MS, T).expect_err("a third may not");
    assert_eq!((desk.generations.clone(), desk.claims.clone()), (generations, claims));
    assert_eq!(found(&desk, T), Found::Again(ONE, 2));
}

#[test]
fn a_desk_is_not_idle_while_a_key_stands_for_something() {
    let mut desk = claimed();
    desk.advance(ONE, Event::Ended(ending(None, T)), T);
    desk.advance(ONE, Event::Written, T);
    let free_ms = T + KEEP_CLAIM_MS;
    assert_eq!(desk.alarm_ms(|_| false, T), Some(free_ms + 1));
    assert!(!desk.is_idle(free_ms - 1));
    assert!(desk.is_idle(free_ms));
}

#[test]
fn a_claim_comes_back_from_the_storage_as_it_was() {
    for event in [None, Some(ending(None, T)), Some(ending(Some(Code::AiRefused), T))] {
        let mut desk = claimed();
        if let Some(ending) = event {
            desk.advance(ONE, Event::Ended(ending), T);
        }
        let stored = serde_json::to_string(&desk.claims).expect("it can be written");
        assert_eq!(serde_json::from_str::<Vec<Claim>>(&stored).expect("it can be read"), desk.claims);
    }
}

#[test]
fn a_desk_comes_back_from_the_storage_as_it_was() {
    let mut desk = running();
    desk.admit(&policies(), accepted(2), None, TIMEOUT_MS, T).expect("two may be in flight");
    let ledger = serde_json::to_string(&desk.ledger).expect("it can be written");
    desk.advance(ONE, Event::Ended(ending(None, T + 5)), T + 5);

    // As the tables have it: the record as it was before its end, the ending beside it, the ledger of before.
    let stored = |generation: &Generation| {
        let record = serde_json::to_string(generation).expect("it can be written");
        let read: Generation = serde_json::from_str(&record).expect("it can be read");
        assert_eq!(read.ending, None, "it has a column of its own");
        Generation { ending: generation.ending.clone(), ..read }
    };
    let generations = desk.generations.iter().map(stored).collect();
    let ledger: Ledger = serde_json::from_str(&ledger).expect("it can be read");
    let ledger = Ledger { attempts: desk.ledger.attempts.clone(), ..ledger };
    let loaded = Desk::stored((ledger, Vec::new(), 0), Vec::new(), generations);
    assert_eq!(loaded.generations, desk.generations);
    assert_eq!(loaded.ledger, desk.ledger, "the lease of what has ended is released");
    assert_eq!(loaded.ledger.leases.in_use(T), 1);
}

/// A desk with so many ended generations that are not written yet, from id 1 on; each ended at T.
fn not_persisted(count: u128) -> Desk {
    let mut desk = Desk::default();
    let policies = Policies { generations: Quota { count: 1000, window_s: 3600 }, ..policies() };
    for id in 1..=count {
        desk.admit(&policies, accepted(id), None, TIMEOUT_MS, T).expect("within the limits");
        desk.advance(Uuid::from_u128(id), Event::Row(Row::Opened), T);
        desk.advance(Uuid::from_u128(id), Event::Ended(ending(None, T)), T);
        desk.advance(Uuid::from_u128(id), Event::NotWritten, T);
    }
    desk
}

#[test]
fn a_user_with_twenty_unwritten_generations_starts_no_more() {
    let policies = Policies { generations: Quota { count: 1000, window_s: 3600 }, ..policies() };
    let mut desk = not_persisted(19);
    desk.admit(&policies, accepted(20), None, TIMEOUT_MS, T).expect("nineteen wait");
    desk.advance(Uuid::from_u128(20), Event::Ended(ending(None, T)), T);
    let refusal = desk.admit(&policies, accepted(21), None, TIMEOUT_MS, T).expect_err("twenty wait");
    assert_eq!(refusal.violated, vec![CONCURRENT]);
    assert!((1..=10).contains(&refusal.retry_after_s));
    assert_eq!(desk.generations.len(), 20);
    let again = Accepted { run: 2, ..accepted(20) };
    assert!(
        desk.admit(&policies, again, None, TIMEOUT_MS, T).is_ok(),
        "a retry takes the place of its failure"
    );
    desk.advance(ONE, Event::Written, T);
    assert!(desk.admit(&policies, accepted(22), None, TIMEOUT_MS, T).is_ok());
}

#[test]
fn no_more_than_two_are_written_at_a_time() {
    let desk = not_persisted(5);
    let at_ms = T + 2_000;
    let busy = |ids: &'static [u128]| move |id: Uuid| ids.contains(&id.as_u128());
    let writes = |ids: &[u128]| ids.iter().map(|id| Chore::Write(Uuid::from_u128(*id))).collect::<Vec<_>>();
    assert_eq!(desk.chores(busy(&[]), None, at_ms), writes(&[1, 2]));
    assert_eq!(desk.chores(busy(&[]), Some(Uuid::from_u128(4)), at_ms), writes(&[4, 1]));
    assert_eq!(desk.chores(busy(&[2]), None, at_ms), writes(&[1]));
    assert_eq!(desk.chores(busy(&[2, 3]), None, at_ms), Vec::new());
    assert_eq!(desk.writes_left(busy(&[2, 3, 4])), 0);
    // Then the end of one of them sets the next alarm.
    assert_eq!(desk.alarm_ms(busy(&[2, 3]), at_ms), Some(at_ms + HEARTBEAT_MS));
    assert_eq!(desk.alarm_ms(busy(&[2]), at_ms), Some(at_ms + ALARM_MIN_MS));
}

#[test]
fn a_request_of_the_owner_hurries_one_write() {
    for (named, hurried) in [(None, 1), (Some(3), 3), (Some(99), 1)] {
        let mut desk = not_persisted(3);
        desk.owner_is_here("newer", T + 7_200_000, named.map(Uuid::from_u128), T + 1);
        let due = desk.chores(|_| false, None, T + 1);
        assert_eq!(due, vec![Chore::Write(Uuid::from_u128(hurried))], "{named:?}");
        assert!(desk.generations.iter().all(|found| found.accepted.token == "newer"));
    }
}

#[test]
fn what_waited_for_a_token_is_due_when_the_owner_brings_one() {
    let mut desk = not_persisted(4);
    let late_ms = T + 3_600_000; // the end of the token
    assert_eq!(desk.chores(|_| false, None, late_ms), Vec::new());
    for id in 1..=4 {
        desk.advance(Uuid::from_u128(id), Event::NotWritten, late_ms);
    }
    desk.owner_is_here("newer", late_ms + 3_600_000, None, late_ms + 1);
    assert_eq!(desk.chores(|_| false, None, late_ms + 1).len(), 2);
    assert!(desk.generations.iter().all(|found| found.can_be_written(late_ms + 1)));
}

#[test]
fn a_write_that_the_database_refuses_for_good_is_abandoned_after_three_tries() {
    let mut desk = claimed();
    desk.advance(ONE, Event::Ended(ending(None, T)), T);
    desk.advance(ONE, Event::Refused, T);
    desk.advance(ONE, Event::NotWritten, T);
    desk.advance(ONE, Event::Refused, T);
    assert!(desk.find(ONE).is_some(), "two refusals");
    let effects = desk.advance(ONE, Event::Refused, T);
    assert_eq!(effects, Effects { forget: Some(ONE), claim: Some(ONE), ..Effects::default() });
    assert!(desk.find(ONE).is_none());
    assert_eq!(found(&desk, T), Found::Again(ONE, 2), "its key is free");
    assert_eq!(desk.failure_of(ONE), Some(Code::DatabaseError));
}

#[test]
fn a_failure_that_cannot_be_written_is_abandoned_after_ten_minutes() {
    let mut desk = claimed();
    desk.advance(ONE, Event::Ended(ending(Some(Code::AiRefused), T)), T);
    desk.advance(ONE, Event::NotWritten, T);
    assert_eq!(desk.chores(|_| false, None, T + KEEP_FAILURE_MS - 1), vec![Chore::Write(ONE)]);
    assert_eq!(desk.chores(|_| false, None, T + KEEP_FAILURE_MS), vec![Chore::GiveUp(ONE)]);
    assert_eq!(desk.abandon(ONE), Effects { forget: Some(ONE), ..Effects::default() });
    assert_eq!(found(&desk, T), Found::Stored(ONE));
    assert_eq!(desk.failure_of(ONE), Some(Code::AiRefused), "its key replays it");
}

#[test]
fn the_text_of_an_unwritten_generation_goes_once_its_row_is_open() {
    for (row, text) in [(Row::Opened, ""), (Row::Unknown, "text"), (Row::Refused, "text")] {
        let mut desk = running();
        desk.advance(ONE, Event::Row(row), T);
        desk.advance(ONE, Event::Ended(ending(None, T)), T);
        assert_eq!(desk.find(ONE).map(|found| found.accepted.input_text.as_str()), Some("text"));
        let effects = desk.advance(ONE, Event::NotWritten, T);
        assert_eq!(effects.generation, Some(ONE), "the storage drops it too");
        assert_eq!(desk.find(ONE).map(|found| found.accepted.input_text.as_str()), Some(text), "{row:?}");
    }
}

#[test]
fn a_user_who_does_not_exist_is_rejected_until_the_token_ends() {
    let mut desk = running();
    assert!(!desk.is_rejected(0));
    let effects = desk.reject_user(T + 1_000);
    assert!(effects.ledger);
    desk.reject_user(T); // another token, which ends sooner
    for (now_ms, is_rejected) in [(T, true), (T + 31_000, true), (T + 31_001, false)] {
        assert_eq!(desk.is_rejected(now_ms), is_rejected, "{now_ms}");
    }
    let mut only = Desk::default();
    only.reject_user(T);
    assert!(!only.is_idle(T + 29_999), "the storage outlives the rejection");
    assert_eq!(only.alarm_ms(|_| false, T), Some(T + 30_001));
}

#[test]
fn a_retry_that_attempts_forbids_is_not_counted() {
    let policies = Policies { attempts: Quota { count: 2, window_s: 3600 }, ..policies() };
    let mut desk = Desk::default();
    desk.admit(&policies, accepted(1), None, TIMEOUT_MS, T).expect("within the limits");
    assert_eq!(
        desk.begin_attempt(&policies, ONE, 1, T),
        (true, Effects::default()),
        "counted when it was admitted"
    );
    let (may, effects) = desk.begin_attempt(&policies, ONE, 2, T);
    assert!(may && effects.ledger && effects.generation == Some(ONE));
    assert_eq!(desk.begin_attempt(&policies, ONE, 3, T), (false, Effects::default()));
    assert_eq!(desk.find(ONE).map(|found| found.attempts), Some(2));
    desk.advance(ONE, Event::Ended(ending(Some(Code::AiInvalidResponse), T)), T);
    let refusal = desk.admit(&policies, accepted(2), None, TIMEOUT_MS, T).expect_err("no model call is left");
    assert_eq!(refusal.violated, vec![ATTEMPTS]);
    assert_eq!(generations_left(&desk), 3, "the generation was refunded, its calls were not");
}

/// What can happen to a desk, in any order.
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
        let (mut desk, mut now_ms, mut next_id, mut used) = (Desk::default(), T, 1_u128, 0_u32);
        for step in steps {
            let pick = |which: u8| {
                let length = desk.generations.len().max(1);
                desk.generations.get(usize::from(which) % length).map(|found| found.accepted.id)
            };
            match step {
                Step::Ask => {
                    next_id += 1;
                    if desk.admit(&policies, accepted(next_id), None, TIMEOUT_MS, now_ms).is_ok() {
                        used += 1;
                    }
                }
                Step::End(which, failed) => {
                    let Some(id) = pick(which) else { continue };
                    let was_running = desk.find(id).is_some_and(|found| found.ending.is_none());
                    desk.advance(id, Event::Ended(ending(failed.then_some(Code::AiTimeout), now_ms)), now_ms);
                    if was_running && failed {
                        used -= 1;
                    }
                }
                Step::Write(which, written) => {
                    let Some(id) = pick(which) else { continue };
                    if desk.find(id).is_some_and(|found| found.ending.is_some()) {
                        desk.advance(id, if written { Event::Written } else { Event::NotWritten }, now_ms);
                    }
                }
                Step::Wait(ms) => now_ms += u64::from(ms) % 1000,
            }
            let running = desk.generations.iter().filter(|found| found.ending.is_none()).count();
            prop_assert_eq!(desk.ledger.leases.in_use(now_ms), running);
            prop_assert_eq!(desk.ledger.generations.used(policies.generations, now_ms), used);
            prop_assert!(desk.generations.is_empty() || desk.alarm_ms(|_| false, now_ms).is_some());
        }
    }
}

/// What can happen to a desk between two alarms, in any order.
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
        let (mut desk, mut busy, mut now_ms, mut next_id) = (Desk::default(), BTreeSet::new(), T, 0_u128);
        for step in steps {
            let pick = |which: u8| {
                let index = usize::from(which).checked_rem(desk.generations.len())?;
                desk.generations.get(index).map(|found| found.accepted.id)
            };
            match step {
                AlarmStep::Begin(token_s) => {
                    next_id += 1;
                    let token_expires_ms = now_ms + u64::from(token_s) * 1000;
                    let accepted = Accepted { token_expires_ms, ..accepted(next_id) };
                    let _ = desk.admit(&policies, accepted, None, TIMEOUT_MS, now_ms);
                    busy.insert(Uuid::from_u128(next_id));
                }
                AlarmStep::End(which, code) => {
                    if let Some(id) = pick(which) {
                        desk.advance(id, Event::Ended(ending(code, now_ms)), now_ms);
                    }
                }
                AlarmStep::Write(which) | AlarmStep::NotWritten(which) | AlarmStep::Refused(which) => {
                    let event = match step {
                        AlarmStep::Write(_) => Event::Written,
                        AlarmStep::Refused(_) => Event::Refused,
                        _ => Event::NotWritten,
                    };
                    if let Some(id) = pick(which).filter(|id| desk.find(*id).is_some_and(|found| found.ending.is_some())) {
                        desk.advance(id, event, now_ms);
                        busy.remove(&id);
                    }
                }
                AlarmStep::Owner(token_s) => desk.owner_is_here("new", now_ms + u64::from(token_s) * 1000, None, now_ms),
                AlarmStep::Toggle(which) => {
                    if let Some(id) = pick(which) && !busy.remove(&id) {
                        busy.insert(id);
                    }
                }
                AlarmStep::Wait(ms) => now_ms += u64::from(ms),
            }
            let is_busy = |id| busy.contains(&id);
            let Some(alarm_ms) = desk.alarm_ms(is_busy, now_ms) else {
                prop_assert!(desk.is_empty());
                continue;
            };
            prop_assert!(alarm_ms >= now_ms + ALARM_MIN_MS);
            let has_heartbeat = desk.generations.iter().any(|found| found.ending.is_none() || is_busy(found.accepted.id));
            let has_work = |at_ms| has_heartbeat || desk.is_idle(at_ms) || !desk.chores(is_busy, None, at_ms).is_empty();
            prop_assert!(has_work(alarm_ms), "nothing to do at {}", alarm_ms - now_ms);
            // Late, it may find that a token has ended meanwhile; then the next one is at a time at which there is a job.
            let woken_ms = alarm_ms + late_ms;
            if !has_work(woken_ms) {
                let next_ms = desk.alarm_ms(is_busy, woken_ms).expect("it is not empty");
                prop_assert!(next_ms >= woken_ms + ALARM_MIN_MS && has_work(next_ms));
            }
            if !has_heartbeat {
                for at_ms in (now_ms + ALARM_MIN_MS..alarm_ms).step_by(997).take(100) {
                    prop_assert_eq!(desk.chores(is_busy, None, at_ms), Vec::new(), "due before the alarm");
                }
            }
        }
    }
}

/// What can happen to a desk whose user sends keys, in any order.
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
    claimed_ms: u64,
    /// Model calls, each of which somebody pays for.
    starts: u32,
    /// Of these, how many failed in a way that can pass.
    passed: u32,
}

/// What is stored, by what the effects say alone.
#[derive(Debug, Default)]
struct Stored {
    generations: BTreeSet<Uuid>,
    claims: BTreeMap<Uuid, Claim>,
}

impl Stored {
    fn store(&mut self, desk: &Desk, effects: &Effects) {
        self.generations.extend(effects.generation);
        let claim = effects.claim.and_then(|id| desk.claims.iter().find(|claim| claim.session_id == id));
        self.claims.extend(claim.map(|claim| (claim.session_id, claim.clone())));
        if let Some(until_ms) = effects.claims_until_ms {
            self.claims.retain(|_, claim| claim.ends_ms() > until_ms);
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
        let (mut desk, mut stored, mut now_ms, mut used) = (Desk::default(), Stored::default(), T, 0_u32);
        let (mut seen, mut busy) = (BTreeMap::<Uuid, Seen>::new(), BTreeSet::<Uuid>::new());
        for step in steps {
            let (running, ended): (Vec<_>, Vec<_>) =
                desk.generations.iter().partition(|generation| generation.ending.is_none());
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
                let effects = desk.advance(id, Event::Ended(ending(code, now_ms)), now_ms);
                stored.store(&desk, &effects);
                used -= u32::from(code.is_some_and(|code| code != Code::AiRefused));
                let can_pass = code.and_then(Code::retryable) == Some(true);
                seen.entry(id).and_modify(|seen| seen.passed += u32::from(can_pass));
            }
            if let Some((id, is_written)) = written {
                let effects = desk.advance(id, if is_written { Event::Written } else { Event::NotWritten }, now_ms);
                stored.store(&desk, &effects);
                busy.remove(&id);
            }
            match step {
                KeyedStep::Ask(name, body) => {
                    let text = if body { "text" } else { "another" };
                    let key = Key::new(name.to_string(), "a/one", text, REQUEST);
                    let fingerprint = key.fingerprint;
                    let claimed = seen.iter().find(|(_, seen)| {
                        seen.key == name && now_ms < seen.claimed_ms + KEEP_CLAIM_MS
                    });
                    let found = desk.find_claim(&key, |id| busy.contains(&id), now_ms);
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
                            prop_assert!(desk.find(id).is_some(), "there is something to join");
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
                    if let Ok(effects) = desk.admit(&policies, accepted, Some(key), TIMEOUT_MS, now_ms) {
                        stored.store(&desk, &effects);
                        busy.insert(id);
                        used += 1;
                        let first = Seen { key: name, fingerprint, claimed_ms: now_ms, starts: 0, passed: 0 };
                        seen.entry(id).or_insert(first).starts += 1;
                    }
                }
                KeyedStep::Die => busy.clear(),
                KeyedStep::Wait(minutes) => now_ms += u64::from(minutes) * 60_000,
                KeyedStep::End(..) | KeyedStep::Write(..) => {}
            }

            let running: Vec<_> = desk.generations.iter().filter(|found| found.ending.is_none()).collect();
            let keys: BTreeSet<_> = running.iter().filter_map(|found| seen.get(&found.accepted.id)).map(|seen| seen.key).collect();
            prop_assert_eq!(keys.len(), running.len(), "one that runs for a key");
            prop_assert_eq!(desk.ledger.leases.in_use(now_ms), running.len());
            prop_assert_eq!(desk.ledger.generations.used(policies.generations, now_ms), used);
            for name in 0..3_u8 {
                let holding = desk.claims.iter().filter(|claim| claim.key == name.to_string() && claim.holds(now_ms));
                prop_assert!(holding.count() <= 1, "one claim of a key");
            }
            let known: BTreeMap<_, _> = desk.claims.iter().map(|claim| (claim.session_id, claim.clone())).collect();
            prop_assert_eq!(known.len(), desk.claims.len(), "one claim on a session");
            prop_assert_eq!(&stored.claims, &known);
            let on_desk: BTreeSet<_> = desk.generations.iter().map(|found| found.accepted.id).collect();
            prop_assert_eq!(&stored.generations, &on_desk);
        }
    }
}
