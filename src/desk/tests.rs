//! The desk's promises, each at its border.

use proptest::prelude::*;

use super::record::{Accepted, Ending, KeptCandidate};
use super::*;
use crate::quota::Quota;

const T: u64 = 1_800_000_000_000;
const TIMEOUT_MS: u64 = 60_000;

fn policies() -> Policies {
    Policies {
        burst: Quota { count: 10, window_s: 60 },
        generations: Quota { count: 3, window_s: 3600 },
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
        assert_eq!(desk.chores(|_| false, at_ms.saturating_sub(1)), Vec::new(), "not before its time");
        waits_ms.push(at_ms - now_ms);
        now_ms = at_ms;
        if at_ms < T + 3_600_000 {
            assert_eq!(desk.chores(|_| false, at_ms), vec![Chore::Write(ONE)]);
            assert_eq!(desk.chores(|_| true, at_ms), Vec::new(), "somebody is at it");
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
    assert_eq!(desk.chores(|_| false, given_up_ms - 1), Vec::new());
    assert_eq!(desk.chores(|_| false, given_up_ms), vec![Chore::GiveUp(ONE)]);

    assert_eq!(desk.owner_is_here("new", late_ms + 3_600_000, late_ms + 1), vec![ONE]);
    assert_eq!(desk.find(ONE).map(|found| found.accepted.token.as_str()), Some("new"));
    assert_eq!(desk.chores(|_| false, late_ms + 1), vec![Chore::Write(ONE)]);
}

#[test]
fn an_older_token_does_not_replace_a_newer_one() {
    let mut desk = running();
    desk.advance(ONE, Event::Ended(ending(None, T)), T);
    desk.owner_is_here("older", T + 3_599_999, T);
    assert_eq!(desk.find(ONE).map(|found| found.accepted.token.as_str()), Some("old"));
}

#[test]
fn a_generation_that_nobody_runs_is_taken_up() {
    let mut desk = running();
    assert_eq!(desk.alarm_ms(|_| true, T), Some(T + HEARTBEAT_MS), "the object stays awake");
    assert_eq!(desk.chores(|_| true, T), Vec::new());
    assert_eq!(desk.chores(|_| false, T), vec![Chore::TakeUp(ONE)]);
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
    tired.advance(ONE, Event::Attempt(3), T);
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
    let ledger = serde_json::from_str(&ledger).expect("it can be read");
    let loaded = Desk::stored(ledger, Vec::new(), Vec::new(), generations);
    assert_eq!(loaded.generations, desk.generations);
    assert_eq!(loaded.ledger, desk.ledger, "the lease of what has ended is released");
    assert_eq!(loaded.ledger.leases.in_use(T), 1);
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
