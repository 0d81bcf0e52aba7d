//! A crash at each await of a generation, and a restart: what was billed is neither lost nor billed again.

#![expect(clippy::expect_used, reason = "a session without its parts fails the test")]

use ai_sessions::user_state::UserState;

use crate::scripted_client::{ClientRequest, ClientResponse, delete, get, post};
use crate::scripted_database::{Failure, Operation};
use crate::scripted_model::{answer, begun, candidate, delta, model_error, slow_answer, stream};
use crate::scripted_store::Mode;
use crate::scripted_world::{Delivery, World};

/// A request, and a world in which it is executed.
struct Scenario {
    name: &'static str,
    prepare: fn(&World),
    request: fn() -> ClientRequest,
    /// The most model calls of one run without a crash.
    calls: usize,
}

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "sync", prepare: |_| {}, request: post, calls: 1 },
    Scenario { name: "sync with a key", prepare: |_| {}, request: || post().key("k"), calls: 1 },
    Scenario {
        name: "async with a key",
        prepare: |_| {},
        request: || post().key("k").respond_async(),
        calls: 1,
    },
    Scenario { name: "stream", prepare: |_| {}, request: || post().key("k").stream(), calls: 1 },
    Scenario {
        name: "slow candidates",
        prepare: |world| world.model(slow_answer(3, 400)),
        request: || post().key("k"),
        calls: 1,
    },
    Scenario {
        name: "a retry",
        prepare: |world| world.model(model_error(502)),
        request: || post().key("k"),
        calls: 2,
    },
    Scenario {
        name: "a final failure",
        prepare: |world| (0..9).for_each(|_| world.model(model_error(401))),
        request: || post().key("k"),
        calls: 1,
    },
    Scenario {
        name: "a row that is refused",
        prepare: |world| world.database().fail(Operation::Open, &[Failure::Refused(403, "42501")]),
        request: || post().key("k"),
        calls: 1,
    },
    Scenario {
        name: "an end that is not persisted at first",
        prepare: |world| world.database().fail(Operation::Finish, &[Failure::Down; 4]),
        request: || post().key("k"),
        calls: 1,
    },
    Scenario {
        name: "an end whose response is lost",
        prepare: |world| world.database().fail(Operation::Finish, &[Failure::LostResponse; 3]),
        request: || post().key("k"),
        calls: 1,
    },
];

const MODES: [Mode; 3] = [Mode::Rows, Mode::Memory, Mode::Shared];

fn world(scenario: &Scenario, mode: Mode) -> World {
    let world = World::with(mode, &[("RATE_LIMIT_BURST", "10/86400"), ("RATE_LIMIT_CONCURRENT", "1")]);
    world.yield_at_ports();
    (scenario.prepare)(&world);
    world
}

#[test]
fn a_crash_at_any_await_neither_loses_nor_repeats_a_bill() {
    for scenario in SCENARIOS {
        for mode in MODES {
            let mut crashes = 0;
            for polls in 1.. {
                let world = world(scenario, mode);
                world.crash_after(polls);
                let first = world.send((scenario.request)());
                world.run_tasks();
                let note = format!("{}, {mode:?}, crash after poll {polls}", scenario.name);
                assert!(first.is_answered(), "{note}");
                let first = first.response();
                check_rest(&world, scenario, &first, &note);
                if !world.was_crashed() {
                    break;
                }
                crashes += 1;
                assert!(polls < 500, "{note}: it never ends");
            }
            assert!(crashes > 10, "{}: {crashes}", scenario.name);
        }
    }
}

/// What holds after the crash, once the alarms have done their work.
fn check_rest(world: &World, scenario: &Scenario, first: &ClientResponse, note: &str) {
    world.let_owner_return();
    world.run_for(60_000);
    let state = world.store().state();
    assert!(state.generations.is_empty(), "{note}: everything is persisted\n{}", world.log_text());
    let rows = world.database().rows();
    assert!(rows.len() <= 1, "{note}: one session");
    assert!(rows.iter().all(|(_, row)| row.status != "generating"), "{note}: it has ended");
    // No crash doubles the point; one between the commit of the database and the point loses it.
    let points = world.points();
    let is_generation = |texts: &[String]| texts.first().is_some_and(|kind| kind == "generation");
    let measured = points.iter().filter(|(texts, _)| is_generation(texts)).count();
    assert!(measured == 1 || measured == 0 && world.was_crashed(), "{note}: {measured} points");
    let calls = world.model_calls();
    // A crash counts as an attempt of its own.
    assert!(calls <= scenario.calls + 1 && calls <= 3, "{note}: {calls} calls");
    let is_completed = rows.first().is_some_and(|(_, row)| row.status == "completed");
    let ledger = ledger(world, &state);
    assert!(ledger[0] <= 1, "{note}: burst {ledger:?}");
    assert!(
        ledger[1] <= u32::from(is_completed) + u32::from(scenario.name == "a final failure"),
        "{note}: {ledger:?}"
    );
    if first.status < 300 {
        assert_eq!((rows.len(), ledger[0]), (1, 1), "{note}");
    }
    if is_completed {
        assert_eq!((ledger[0], ledger[1]), (1, 1), "{note}: it is counted once");
    }
    // The same request again: one session in all.
    let had_key = (scenario.request)().has_key();
    let again = world.request((scenario.request)());
    assert_ne!(again.status, 429, "{note}: no lease is left");
    world.run_for(60_000);
    if !had_key {
        return;
    }
    let rows = world.database().rows();
    assert_eq!(rows.len(), 1, "{note}: the key has one session");
    let (id, row) = rows.first().expect("one row");
    if is_completed {
        assert_eq!(world.model_calls(), calls, "{note}: it is not billed again");
        assert_eq!(again.session(), *id, "{note}");
    }
    if scenario.name == "a final failure" {
        assert_eq!((row.status.as_str(), again.code().as_str()), ("failed", "ai_misconfigured"), "{note}");
    } else {
        assert_eq!(row.status, "completed", "{note}: {}\n{}", again.status, world.log_text());
        let found = world.request(get(*id));
        assert_eq!(found.candidates(), row.candidates.len(), "{note}");
        let state = world.store().state();
        let ledger = self::ledger(world, &state);
        assert_eq!(ledger[1], 1, "{note}: one generation is counted: {ledger:?}");
    }
}

/// What is used of `burst`, `generations` and `attempts`, all windows being longer than the test.
fn ledger(world: &World, state: &UserState) -> [u32; 3] {
    world.used(state)
}

/// A crash after a stored candidate.
#[test]
fn a_stored_candidate_is_kept_and_no_second_call_is_made() {
    for mode in MODES {
        let world = World::new(mode);
        let cut =
            stream().say(delta("{\"candidates\":[")).say(delta(&candidate(1))).wait(2_000).say(delta("]}"));
        world.model(cut);
        let created = world.send(post().key("k"));
        world.run_for(1_000);
        assert_eq!(world.store().state().generations[0].candidates.len(), 1);
        // The platform restarts the object for the second delivery of the command, which joins the generation.
        world.crash();
        let created = world.wait(&created);
        assert_eq!((created.status, created.candidates(), world.model_calls()), (201, 1, 1));
        assert_eq!(created.json()["partial"], true);
    }
}

#[test]
fn a_crash_without_a_candidate_calls_the_model_again_once() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(stream().hang());
        world.model(answer(2));
        let call = world.send(post().key("k"));
        world.run_for(500);
        world.crash();
        let created = world.wait(&call);
        assert_eq!((created.status, created.candidates(), world.model_calls()), (201, 2, 2));
        assert_eq!(created.quota(), [9, 49, 148]);
    }
}

#[test]
fn crashes_never_use_more_than_the_allowed_attempts() {
    for mode in MODES {
        let world = World::new(mode);
        for _ in 0..10 {
            world.model(stream().hang());
        }
        let call = world.send(post().key("k"));
        for _ in 0..8 {
            world.run_for(11_000);
            world.crash();
        }
        world.let_owner_return();
        world.run_for(120_000);
        assert!(world.model_calls() <= 3, "{}", world.model_calls());
        // Both deliveries of the command were lost.
        assert_eq!(world.wait(&call).code(), "rate_limiter_unavailable");
        let (_, row) = world.database().rows().pop().expect("a row");
        assert_eq!((row.status.as_str(), row.error_code.as_deref()), ("failed", Some("ai_timeout")));
        let state = world.store().state();
        assert!(state.generations.is_empty());
        assert_eq!(world.used(&state)[1], 0, "the reservation is refunded");
    }
}

#[test]
fn a_lost_reply_joins_the_generation_it_started() {
    for mode in MODES {
        for request in [post(), post().key("k"), post().respond_async(), post().stream()] {
            let world = World::new(mode);
            world.deliver(&[Delivery::LostReply]);
            let created = world.request(request);
            assert!(created.status < 300, "{}", created.status);
            world.run_tasks();
            assert_eq!((world.model_calls(), world.database().rows().len()), (1, 1));
            assert_eq!(world.used(&world.store().state())[1], 1);
        }
    }
}

#[test]
fn a_crash_at_any_await_of_a_stop_leaves_an_ended_session() {
    for mode in MODES {
        for candidates in [0, 2] {
            for polls in 1.. {
                let world = World::new(mode);
                world.yield_at_ports();
                (0..9).for_each(|_| world.model(begun(candidates, 1_000).hang()));
                let id = world.request(post().key("k").respond_async()).session();
                world.run_for(2_500);
                world.crash_in(polls);
                let stopped = world.request(delete(id));
                let calls = world.model_calls();
                let note = format!("{mode:?}, {candidates} candidates, crash after poll {polls}");
                world.let_owner_return();
                // A crash after the end was stored: it has ended, and the repeated command finds it so.
                assert!([204, 409].contains(&stopped.status), "{note}: {}", stopped.status);
                world.run_for(120_000);
                assert_eq!(world.model_calls(), calls, "{note}: no call follows the stop");
                let row = world.database().row(id).expect("a row");
                match candidates {
                    0 => assert_eq!(row.error_code.as_deref(), Some("cancelled"), "{note}"),
                    _ => assert_eq!((row.candidates.len(), row.partial), (candidates, true), "{note}"),
                }
                let generations = u32::from(candidates > 0);
                assert_eq!(world.used(&world.store().state())[1], generations, "{note}: refunded once");
                if !world.was_crashed() {
                    assert!(polls > 5, "{note}");
                    break;
                }
            }
        }
    }
}

#[test]
fn a_crash_at_any_await_of_a_further_run_keeps_one_session() {
    for mode in MODES {
        for polls in 1.. {
            let world =
                World::with(mode, &[("RATE_LIMIT_BURST", "10/86400"), ("RATE_LIMIT_CONCURRENT", "1")]);
            world.yield_at_ports();
            (0..3).for_each(|_| world.model(model_error(503)));
            let failed = world.request(post().key("k"));
            assert_eq!(failed.code(), "ai_unavailable");
            world.run_tasks();
            world.crash_in(polls);
            let again = world.request(post().key("k"));
            let note = format!("{mode:?}, crash after poll {polls}");
            world.run_for(60_000);
            let rows = world.database().rows();
            let (id, row) = rows.first().expect("a row");
            assert_eq!((rows.len(), row.status.as_str()), (1, "completed"), "{note}: {}", again.status);
            assert!((2..=3).contains(&row.run), "{note}: run {}", row.run);
            assert!(world.model_calls() <= 5, "{note}: {}", world.model_calls());
            assert_eq!(world.used(&world.store().state()).get(..2), Some(&[2, 1][..]), "{note}");
            let joined = world.request(post().key("k"));
            assert_eq!((joined.session(), joined.candidates()), (*id, row.candidates.len()), "{note}");
            if !world.was_crashed() {
                assert!(polls > 5, "{note}");
                break;
            }
        }
    }
}
