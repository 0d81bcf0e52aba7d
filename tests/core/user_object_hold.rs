//! Output that is held in memory: a generation whose end the database has in time is stored once, and a crash costs no output that
//! is older than 250 ms.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a session without its parts fails the test"
)]

use std::rc::Rc;

use ai_sessions::user_object::generate::step::{HOLD_MS, TOGETHER_MS};
use ai_sessions::user_state::HEARTBEAT_MS;

use crate::scripted_client::{Client, ClientRequest, delete, get, get_events, post};
use crate::scripted_database::{Failure, Operation};
use crate::scripted_model::{answer, begun, candidate, delta, model_error, slow_answer, stream};
use crate::scripted_store::Mode;
use crate::scripted_world::{START_MS, World};

/// The modes of a host whose alarms outlive a crash.
const WITH_ALARMS: [Mode; 2] = [Mode::Rows, Mode::Memory];
const MODES: [Mode; 3] = [Mode::Rows, Mode::Memory, Mode::Shared];

/// The events of ended sessions.
fn ends(world: &World) -> usize {
    world.database().events().iter().filter(|(_, kind)| kind != "ai_session.rate_limited").count()
}

// The number of commits.

#[test]
fn a_sync_generation_commits_once_and_with_a_key_twice() {
    for mode in WITH_ALARMS {
        for (request, commits) in [(post(), 1), (post().key("k"), 2)] {
            let world = World::new(mode);
            let created = world.request(request);
            world.run_for(1);
            assert_eq!((created.status, created.candidates()), (201, 3));
            assert_eq!(world.store().commits(), commits, "{mode:?}");
            assert_eq!(created.quota(), [9, 49, 149]);
        }
    }
}

#[test]
fn the_next_commit_of_the_user_removes_the_row() {
    for mode in WITH_ALARMS {
        let world = World::new(mode);
        for number in 1..=3 {
            assert_eq!(world.request(post()).status, 201);
            world.run_for(1);
            assert_eq!((world.store().commits(), world.store().row_counts()), (number, (1, 0)), "{mode:?}");
            assert_eq!(world.used(&world.store().state())[1], u32::try_from(number).expect("it is small"));
        }
        world.run_for(HEARTBEAT_MS + 1);
        assert_eq!((world.store().commits(), world.store().row_counts()), (4, (0, 0)), "the alarm: {mode:?}");
        world.run_to_idle();
        assert!(world.store().is_empty());
        assert_eq!((world.model_calls(), ends(&world), world.database().count(Operation::Read)), (3, 3, 0));
    }
}

#[test]
fn a_shared_state_is_stored_twice_for_a_sync_generation() {
    let world = World::new(Mode::Shared);
    assert_eq!(world.request(post()).status, 201);
    world.run_tasks();
    assert_eq!((world.store().commits(), world.store().row_counts()), (2, (0, 0)));
}

#[test]
fn output_is_stored_when_the_database_takes_longer_than_250_ms() {
    for mode in MODES {
        // The model's time for each of its two candidates; of the database, and whether the output is stored.
        for (gap_ms, database_ms, is_stored) in [
            (0, HOLD_MS - 1, false),
            (0, HOLD_MS, false),
            (0, HOLD_MS + 1, true),
            // The batch that brought them began with the answer.
            (20, HOLD_MS - 40, false),
            (20, HOLD_MS - 39, true),
        ] {
            let world = World::new(mode);
            world.model(slow_answer(2, gap_ms));
            world.database().fail(Operation::Finish, &[Failure::Slow(database_ms)]);
            let call = world.send(post());
            let note = format!("{mode:?}, {gap_ms} ms a candidate, {database_ms} ms of the database");
            // The tasks of this moment, too.
            world.run_for(HOLD_MS);
            while world.host().step(START_MS + HOLD_MS) {}
            let state = world.store().state();
            assert_eq!(
                state.generations.first().is_some_and(|found| found.ending.is_some()),
                is_stored,
                "{note}"
            );
            let candidates = state.generations.first().map_or(0, |found| found.candidates.len());
            assert_eq!(candidates, if is_stored { 2 } else { 0 }, "{note}");
            let created = world.wait(&call);
            assert_eq!((created.status, created.candidates()), (201, 2), "{note}");
            let until_ms = (START_MS + 2 * gap_ms + database_ms).max(START_MS + HOLD_MS);
            assert_eq!(world.host_now(), until_ms, "{note}: nothing waits for the store");
            let removals = usize::from(is_stored || mode == Mode::Shared);
            assert_eq!(world.store().commits(), 1 + usize::from(is_stored) + removals, "{note}");
        }
    }
}

#[test]
fn a_failure_is_stored_before_the_database_has_it() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(model_error(402));
        world.database().fail(Operation::Finish, &[Failure::Slow(100)]);
        world.send(post());
        world.run_for(50);
        let state = world.store().state();
        assert!(state.generations[0].ending.is_some(), "{mode:?}");
        assert_eq!(world.used(&state)[1], 0, "it is refunded");
    }
}

// Crashes.

/// A crash, and what is due then.
struct Crash {
    request: fn() -> ClientRequest,
    prepare: fn(&World),
    /// When the first and the last candidate are complete, after the start.
    complete_ms: [u64; 2],
    candidates: usize,
}

const CRASHES: &[Crash] = &[
    Crash { request: post, prepare: |_| {}, complete_ms: [0, 0], candidates: 3 },
    Crash { request: || post().key("k"), prepare: |_| {}, complete_ms: [0, 0], candidates: 3 },
    Crash { request: || post().respond_async(), prepare: |_| {}, complete_ms: [0, 0], candidates: 3 },
    Crash { request: || post().stream(), prepare: |_| {}, complete_ms: [0, 0], candidates: 3 },
    Crash {
        request: || post().key("k"),
        prepare: |world| world.database().fail(Operation::Finish, &[Failure::Slow(400)]),
        complete_ms: [0, 0],
        candidates: 3,
    },
    Crash {
        request: post,
        prepare: |world| world.database().fail(Operation::Finish, &[Failure::Down; 2]),
        complete_ms: [0, 0],
        candidates: 3,
    },
    Crash {
        request: post,
        prepare: |world| world.database().fail(Operation::Finish, &[Failure::LostResponse; 3]),
        complete_ms: [0, 0],
        candidates: 3,
    },
    Crash {
        request: post,
        prepare: |world| world.model(slow_answer(4, 90)),
        complete_ms: [90, 360],
        candidates: 4,
    },
    Crash {
        request: || post().key("k").stream(),
        prepare: |world| world.model(slow_answer(8, 3)),
        complete_ms: [3, 24],
        candidates: 8,
    },
];

#[test]
fn a_crash_at_any_await_costs_no_output_older_than_250_ms() {
    for (number, crash) in CRASHES.iter().enumerate() {
        for mode in MODES {
            let mut crashes = 0;
            for polls in 1.. {
                let world = World::with(mode, &[("RATE_LIMIT_BURST", "10/86400")]);
                world.yield_at_ports();
                (crash.prepare)(&world);
                world.crash_after(polls);
                let first = world.send((crash.request)());
                world.run_tasks();
                let note = format!("{number}, {mode:?}, crash after poll {polls}");
                let client = stream_of(&first.response());
                check_end(&world, crash, client.as_deref().map(sent).unwrap_or_default(), &note);
                if !world.was_crashed() {
                    assert_eq!(world.model_calls(), 1, "{note}");
                    break;
                }
                crashes += 1;
                assert!(polls < 500, "{note}: it never ends");
            }
            assert!(crashes > 10, "{number}: {crashes}");
        }
    }
}

fn stream_of(response: &crate::scripted_client::ClientResponse) -> Option<Rc<Client>> {
    let is_stream = response.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
    is_stream.then(|| response.stream())
}

/// The candidates that a client has received.
fn sent(client: &Client) -> Vec<String> {
    let events = client.events().into_iter().filter(|event| event.name == "candidate");
    events.map(|event| event.data["id"].as_str().expect("an id").to_owned()).collect()
}

/// One end, one event, one charge; a second call only for output that was younger than 250 ms at the crash.
fn check_end(world: &World, crash: &Crash, sent: Vec<String>, note: &str) {
    world.let_owner_return();
    world.run_for(60_000);
    let state = world.store().state();
    let log = world.log_text();
    assert!(state.generations.is_empty(), "{note}: everything has ended\n{log}");
    let rows = world.database().rows();
    assert!(rows.len() <= 1, "{note}");
    assert_eq!(ends(world), rows.len(), "{note}: one event\n{log}");
    let used = u32::try_from(rows.len()).expect("it is small");
    assert_eq!(world.used(&state).get(..2), Some(&[used, used][..]), "{note}: counted once");
    for (_, row) in &rows {
        assert_eq!(row.status, "completed", "{note}\n{log}");
        let stored = row.candidates.iter().map(|candidate| candidate["id"].as_str().expect("an id"));
        assert!(stored.take(sent.len()).eq(sent.iter()), "{note}: no sent candidate is lost");
    }
    let Some(crashed_ms) = world.crashed_ms() else { return };
    let [first_ms, last_ms] = crash.complete_ms.map(|ms| START_MS + ms);
    if crashed_ms > first_ms + HOLD_MS || !sent.is_empty() {
        assert_eq!(world.model_calls(), 1, "{note}: no second call\n{log}");
    }
    assert!(world.model_calls() <= 2, "{note}");
    if crashed_ms > last_ms + HOLD_MS {
        let (_, row) = rows.first().expect("a row");
        assert_eq!(
            (row.candidates.len(), row.partial),
            (crash.candidates, false),
            "{note}: all is kept\n{log}"
        );
    }
}

#[test]
fn a_crash_at_any_millisecond_costs_no_output_older_than_250_ms() {
    for mode in MODES {
        for gap_ms in [0, 30, 100] {
            let last_ms = 3 * gap_ms;
            let near = |ms: u64| ms.saturating_sub(2)..=ms + 2;
            for crash_ms in near(gap_ms + HOLD_MS).chain(near(last_ms + HOLD_MS)).chain((0..700).step_by(23))
            {
                let world = World::new(mode);
                world.model(slow_answer(3, gap_ms));
                // The database does not execute the request.
                world.database().fail(Operation::Finish, &[Failure::Silent]);
                world.send(post());
                world.run_for(crash_ms);
                world.crash();
                world.let_owner_return();
                world.run_for(60_000);
                let note = format!("{mode:?}, {gap_ms} ms a candidate, crash after {crash_ms} ms");
                let (_, row) = world.database().rows().pop().expect("a row");
                assert_eq!((row.status.as_str(), ends(&world)), ("completed", 1), "{note}");
                assert_eq!(world.used(&world.store().state())[1], 1, "{note}");
                if crash_ms >= gap_ms + HOLD_MS {
                    assert_eq!(world.model_calls(), 1, "{note}");
                }
                if crash_ms >= last_ms + HOLD_MS {
                    assert_eq!((row.candidates.len(), row.partial), (3, false), "{note}");
                }
                assert!(world.model_calls() <= 2, "{note}");
            }
        }
    }
}

// The resumption.

#[test]
fn a_row_of_a_persisted_end_is_removed_without_a_call() {
    for mode in WITH_ALARMS {
        for is_requested in [false, true] {
            let world = World::new(mode);
            let created = world.request(post());
            world.run_for(2_000);
            world.crash();
            if is_requested {
                assert_eq!(world.request(get(created.session())).session_status(), "completed");
                assert_eq!(world.request(delete(created.session())).code(), "not_running");
                let next = world.request(post());
                assert_eq!((next.status, next.quota()), (201, [8, 48, 148]), "{mode:?}");
            }
            world.run_for(2 * HEARTBEAT_MS);
            let sessions = if is_requested { 2 } else { 1 };
            assert_eq!((world.model_calls(), ends(&world)), (sessions, sessions), "{mode:?}");
            assert_eq!(world.store().row_counts(), (0, 0), "{mode:?}");
            let used = u32::try_from(sessions).expect("it is small");
            assert_eq!(world.used(&world.store().state()), [used; 3], "{mode:?}");
            world.run_to_idle();
            assert!(world.store().is_empty());
        }
    }
}

#[test]
fn a_key_whose_end_the_database_has_is_completed_after_a_crash() {
    for mode in MODES {
        let world = World::new(mode);
        // The end is stored there, and its response does not arrive before the crash.
        world.database().fail(Operation::Finish, &[Failure::Slow(200)]);
        let first = world.send(post().key("k"));
        world.run_for(100);
        world.crash();
        let created = world.wait(&first);
        assert_eq!((created.status, created.candidates(), world.model_calls()), (201, 3, 1), "{mode:?}");
        world.let_owner_return();
        let again = world.request(post().key("k"));
        assert_eq!(
            (again.status, again.session(), world.model_calls()),
            (201, created.session(), 1),
            "{mode:?}"
        );
        assert_eq!((ends(&world), world.used(&world.store().state())[1]), (1, 1), "{mode:?}");
        assert!(world.store().state().generations.is_empty(), "{mode:?}");
    }
}

#[test]
fn a_failure_that_the_database_has_is_refunded_after_a_crash() {
    for mode in WITH_ALARMS {
        let world = World::new(mode);
        world.model(stream().hang());
        let id = world.request(post().key("k").respond_async()).session();
        world.run_for(100);
        world.crash();
        // The owner's read has ended the row meanwhile.
        let row = world.database().row(id).expect("a row");
        let ended_at = Some(row.created_at.clone());
        let error_code = Some("database_error".to_owned());
        let status = "failed".to_owned();
        world.database().insert(id, crate::scripted_database::Row { status, error_code, ended_at, ..row });
        world.run_for(HEARTBEAT_MS);
        let state = world.store().state();
        assert_eq!((state.generations.len(), world.model_calls()), (0, 1), "{mode:?}");
        assert_eq!(world.used(&state), [1, 0, 1], "{mode:?}");
        let again = world.request(post().key("k"));
        assert_eq!(
            (again.status, again.session(), world.model_calls()),
            (201, id, 2),
            "it is retryable: {mode:?}"
        );
    }
}

#[test]
fn the_end_of_an_earlier_run_is_not_that_of_the_resumed_one() {
    for mode in MODES {
        let world = World::new(mode);
        (0..3).for_each(|_| world.model(model_error(503)));
        let failed = world.request(post().key("k"));
        assert_eq!(failed.code(), "ai_unavailable");
        world.run_tasks();
        let calls = world.model_calls();
        // The second run, whose row is not opened before the crash.
        world.model(stream().hang());
        world.database().fail(Operation::Reopen, &[Failure::Silent]);
        let second = world.send(post().key("k"));
        world.run_for(100);
        let (id, row) = world.database().rows().pop().expect("a row");
        assert_eq!((row.run, row.status.as_str()), (1, "failed"), "{mode:?}");
        world.crash();
        let created = world.wait(&second);
        assert_eq!((created.status, created.session()), (201, id), "{mode:?}");
        let (_, row) = world.database().rows().pop().expect("a row");
        assert_eq!(
            (row.run, row.status.as_str(), world.model_calls()),
            (2, "completed", calls + 2),
            "{mode:?}"
        );
    }
}

#[test]
fn no_call_is_made_while_the_database_cannot_be_checked() {
    for mode in WITH_ALARMS {
        let world = World::new(mode);
        let created = world.request(post());
        world.run_for(1);
        world.crash();
        world.database().fail_all(Some(Failure::Down));
        world.run_for(40_000);
        assert!(world.database().count(Operation::Read) > 3, "{mode:?}: it is repeated");
        assert_eq!(world.store().row_counts(), (1, 0), "{mode:?}");
        world.database().fail_all(None);
        world.run_for(60_000);
        assert_eq!((world.model_calls(), ends(&world)), (1, 1), "{mode:?}");
        assert_eq!(
            (world.store().row_counts(), world.used(&world.store().state())[1]),
            ((0, 0), 1),
            "{mode:?}"
        );
        assert_eq!(world.request(get(created.session())).session_status(), "completed");
    }
}

#[test]
fn a_resumption_without_a_valid_token_waits_for_the_owner() {
    for mode in WITH_ALARMS {
        let world = World::new(mode);
        let created = world.request(post().token_ms(5_000));
        world.run_for(1);
        world.crash();
        world.run_for(HEARTBEAT_MS + 1_000);
        assert_eq!((world.model_calls(), world.store().row_counts()), (1, (1, 0)), "{mode:?}");
        let found = world.request(get_events(created.session())).stream();
        world.run_tasks();
        assert_eq!(found.names().last().map(String::as_str), Some("done"), "{mode:?}");
        world.run_for(HEARTBEAT_MS + 1_000);
        let next = world.request(post());
        world.run_tasks();
        assert_eq!((next.status, world.model_calls(), ends(&world)), (201, 2, 2), "{mode:?}");
        assert_eq!(world.used(&world.store().state()), [2; 3], "{mode:?}");
    }
}

#[test]
fn what_cannot_be_resumed_is_abandoned() {
    for mode in WITH_ALARMS {
        let world = World::new(mode);
        world.request(post().token_ms(5_000));
        world.run_for(1);
        world.crash();
        world.run_to_idle();
        assert!(world.store().is_empty(), "{mode:?}");
        assert_eq!((world.model_calls(), ends(&world)), (1, 1), "{mode:?}");
    }
}

#[test]
fn stored_candidates_yield_to_the_end_that_the_database_has() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(slow_answer(3, 600));
        world.database().fail(Operation::Finish, &[Failure::Slow(200)]);
        let first = world.send(post().key("k"));
        world.run_for(1_900);
        assert!(world.store().state().generations[0].ending.is_none(), "{mode:?}: it is held");
        assert!(!world.store().state().generations[0].candidates.is_empty(), "{mode:?}");
        world.crash();
        let created = world.wait(&first);
        assert_eq!((created.status, created.candidates(), world.model_calls()), (201, 3, 1), "{mode:?}");
        assert_eq!(created.json()["partial"], false, "{mode:?}");
    }
}

// Subscribers.

#[test]
fn a_subscriber_that_joins_receives_what_is_held_at_once() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(begun(2, 0).wait(2_000).say(delta(&[",", &candidate(3)].concat())).say(delta("]}")));
        let id = world.request(post().respond_async()).session();
        world.run_for(10);
        assert_eq!(world.store().row_counts(), (1, 0), "{mode:?}: they are held");
        let client = world.request(get_events(id)).stream();
        world.run_for(TOGETHER_MS);
        assert_eq!(client.names(), ["session", "candidate", "candidate"], "{mode:?}");
        assert_eq!(world.store().row_counts(), (1, 1), "{mode:?}: they are stored before");
    }
}

#[test]
fn candidates_of_a_burst_are_stored_and_sent_together() {
    for mode in WITH_ALARMS {
        let world = World::new(mode);
        world.model(slow_answer(20, 1));
        let client = world.request(post().stream()).stream();
        world.run_tasks();
        let events: Vec<_> = client.events().into_iter().filter(|event| event.name == "candidate").collect();
        assert_eq!(events.len(), 20);
        for (number, event) in (1..).zip(&events) {
            let late_ms = event.at_ms - (START_MS + number);
            assert!(late_ms <= TOGETHER_MS, "{mode:?}: candidate {number} is {late_ms} ms late");
        }
        assert_eq!(events[0].at_ms, START_MS + 1, "{mode:?}: the first is sent at once");
        // One of the acceptance, one for 5 ms each, one at the end.
        assert!(world.store().commits() <= 1 + 20 / 5 + 2, "{mode:?}: {}", world.store().commits());
    }
}

#[test]
fn a_slow_stream_sends_each_candidate_at_once() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(slow_answer(5, TOGETHER_MS + 1));
        let client = world.request(post().stream()).stream();
        world.run_tasks();
        let events = client.events().into_iter().filter(|event| event.name == "candidate");
        for (number, event) in (1..).zip(events) {
            assert_eq!(event.at_ms, START_MS + number * (TOGETHER_MS + 1), "{mode:?}");
        }
    }
}

#[test]
fn a_persisted_run_counts_no_more_when_its_row_is_still_stored() {
    for mode in WITH_ALARMS {
        let world = World::with(mode, &[("RATE_LIMIT_CONCURRENT", "1")]);
        for _ in 0..3 {
            world.model(answer(1));
            let created = world.request(post());
            assert_eq!((created.status, created.candidates()), (201, 1), "{mode:?}");
        }
        // A write that fails drops the memory, and the row is loaded again.
        world.store().fail(0, &[crate::scripted_store::Fault::AfterDecision]);
        assert_eq!(world.request(post()).code(), "rate_limiter_unavailable");
        assert_eq!(world.request(post()).status, 201, "{mode:?}: no lease is left");
        assert_eq!((world.model_calls(), world.database().count(Operation::Read)), (4, 0), "{mode:?}");
    }
}
