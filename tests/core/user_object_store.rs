//! A store that conflicts, fails, fails halfway, or is slow: no decision has an effect twice, and none without its writes.

#![expect(clippy::expect_used, reason = "a session without its parts fails the test")]

use crate::scripted_client::{ClientRequest, USER, delete, get, get_events, post, post_text};
use crate::scripted_database::{Failure, Operation, ScriptedDatabase};
use crate::scripted_model::{answer, slow_answer, stream};
use crate::scripted_store::{Fault, Mode};
use crate::scripted_world::{START_MS, World};

/// The modes of a host whose alarms outlive a crash.
const WITH_ALARMS: [Mode; 2] = [Mode::Rows, Mode::Memory];
const MODES: [Mode; 3] = [Mode::Rows, Mode::Memory, Mode::Shared];

fn world(mode: Mode) -> World {
    World::with(mode, &[("RATE_LIMIT_BURST", "10/86400")])
}

fn finished(database: &ScriptedDatabase) -> usize {
    database.events().iter().filter(|(_, kind)| kind != "ai_session.rate_limited").count()
}

const REQUESTS: [fn() -> ClientRequest; 4] =
    [post, || post().key("k"), || post().key("k").stream(), || post().key("k").respond_async()];

#[test]
fn a_conflict_at_any_transaction_changes_no_result() {
    for mode in MODES {
        for request in REQUESTS {
            for conflicts in [1, 2, 5] {
                for transaction in 0.. {
                    let world = world(mode);
                    world.model(slow_answer(3, 300));
                    world.store().fail(transaction, &vec![Fault::Conflict; conflicts]);
                    let created = world.request(request());
                    world.run_tasks();
                    let note = format!("{mode:?}, {conflicts} conflicts at {transaction}");
                    assert!(created.status < 300, "{note}: {}", created.status);
                    assert_eq!((world.model_calls(), finished(world.database())), (1, 1), "{note}");
                    assert_eq!(world.database().count(Operation::Open), 1, "{note}: one run");
                    assert_eq!(world.used(&world.store().state()), [1, 1, 1], "{note}");
                    let (_, row) = world.database().rows().pop().expect("a row");
                    assert_eq!((row.status.as_str(), row.candidates.len()), ("completed", 3), "{note}");
                    if world.store().decisions() == world.store().transactions() {
                        assert!(transaction > 3, "{note}: it has several transactions");
                        break;
                    }
                }
            }
        }
    }
}

#[test]
fn a_failure_at_any_transaction_costs_no_second_session() {
    for mode in MODES {
        for request in REQUESTS {
            for fault in [Fault::BeforeDecision, Fault::AfterDecision, Fault::Halfway] {
                for transaction in 0.. {
                    let world = world(mode);
                    world.model(slow_answer(3, 300));
                    world.store().fail(transaction, &[fault]);
                    let created = world.request(request());
                    let note = format!("{mode:?}, {fault:?} at {transaction}");
                    if created.status >= 300 {
                        let code = created.code();
                        let expected = if transaction == 0 { "rate_limiter_unavailable" } else { "internal" };
                        assert_eq!(code, expected, "{note}");
                    }
                    if transaction == 0 {
                        assert!(
                            world.store().is_empty() && world.model_calls() == 0,
                            "{note}: nothing happened"
                        );
                    }
                    // An alarm that fails is set again after a minute.
                    world.run_for(120_000);
                    let state = world.store().state();
                    assert!(state.generations.is_empty(), "{note}: {}", world.log_text());
                    assert!(world.model_calls() <= 2, "{note}: {}", world.model_calls());
                    let rows = world.database().rows();
                    assert_eq!(rows.len(), usize::from(transaction > 0), "{note}");
                    assert!(rows.iter().all(|(_, row)| row.status == "completed"), "{note}");
                    let count = u32::from(transaction > 0);
                    assert_eq!(world.used(&state).get(..2), Some(&[count, count][..]), "{note}");
                    let has_failed = world.store().has_failed();
                    if !has_failed {
                        assert!(transaction > 3, "{note}: it has several transactions");
                        break;
                    }
                }
            }
        }
    }
}

#[test]
fn two_requests_between_decision_and_commit_start_one_run() {
    for (first_ms, second_ms) in [(100, 50), (50, 100), (100, 100), (100, 0), (1, 500)] {
        for mode in MODES {
            for request in
                [|| post().key("k"), || post().key("k").stream(), || post().key("k").respond_async()]
            {
                let world = world(mode);
                world.store().delay(&[first_ms, second_ms]);
                let (first, second) = (world.send(request()), world.send(request()));
                let (first, second) = (world.wait(&first), world.wait(&second));
                world.run_tasks();
                let note = format!("{mode:?} {first_ms} {second_ms}");
                assert!(first.status < 300 && second.status == first.status, "{note}: {}", second.status);
                assert_eq!(first.session(), second.session(), "{note}");
                assert_eq!((world.model_calls(), finished(world.database())), (1, 1), "{note}");
                assert_eq!(world.used(&world.store().state()), [2, 1, 1], "{note}");
            }
        }
    }
}

#[test]
fn concurrent_requests_with_other_bodies_count_one_generation_each() {
    for mode in MODES {
        let world = world(mode);
        (0..3).for_each(|_| world.model(slow_answer(3, 1_000)));
        world.store().delay(&[100, 50, 20]);
        let texts = ["one ", "two ", "three "].map(|word| word.repeat(400));
        let calls = texts.each_ref().map(|text| world.send(post_text(text)));
        let statuses = calls.each_ref().map(|call| world.wait(call).status);
        let accepted = statuses.iter().filter(|status| **status == 201).count();
        assert_eq!((accepted, world.model_calls()), (2, 2), "{mode:?} {statuses:?}");
        assert!(statuses.contains(&429), "the third is over `concurrent`");
        assert_eq!(world.used(&world.store().state()), [3, 2, 2]);
    }
}

/// A generation whose ending is not yet persisted, and that the next request persists.
fn not_persisted(mode: Mode) -> (World, uuid::Uuid) {
    let world = world(mode);
    world.database().fail_always(Operation::Finish, Some(Failure::Down));
    let failed = world.request(post().key("k"));
    assert_eq!(failed.code(), "database_error");
    let state = world.store().state();
    let id = state.generations.first().expect("it is not persisted").accepted.id;
    (world, id)
}

#[test]
fn a_request_that_joins_a_dropped_reservation_is_replied_to() {
    // The first request reserves the run that persists the session, and its decision is dropped by a conflict; the second
    // has joined that run meanwhile.
    for second in [get, get_events, delete] {
        let (world, id) = not_persisted(Mode::Rows);
        world.database().fail_always(Operation::Finish, None);
        world.store().fail(0, &[Fault::Conflict, Fault::Conflict]);
        world.store().delay(&[100, 10]);
        let (first, second) = (world.send(post().key("k")), world.send(second(id)));
        let first = world.wait(&first);
        assert_eq!((first.status, first.candidates()), (201, 3));
        let second = world.wait(&second);
        world.run_tasks();
        assert!(second.status < 500, "{}", second.status);
        assert_eq!(world.model_calls(), 1);
    }
}

#[test]
fn the_joiner_of_a_failed_reservation_is_replied_to() {
    for second in [get, get_events, delete] {
        let (world, id) = not_persisted(Mode::Rows);
        world.database().fail_always(Operation::Finish, None);
        world.store().fail(0, &[Fault::AfterDecision]);
        world.store().delay(&[100, 10]);
        let (first, second) = (world.send(post().key("k")), world.send(second(id)));
        assert_eq!(world.wait(&first).code(), "rate_limiter_unavailable");
        let second = world.wait(&second);
        assert!(second.status < 600, "{}", second.status);
        world.run_for(60_000);
        assert!(world.store().state().generations.is_empty());
        assert_eq!(world.database().row(id).expect("a row").status, "completed");
    }
}

#[test]
fn the_new_token_of_the_owner_is_used_for_each_retry() {
    for mode in MODES {
        let world = world(mode);
        world.database().fail_always(Operation::Finish, Some(Failure::Down));
        let failed = world.request(post().key("k").token_ms(120_000));
        assert_eq!(failed.code(), "database_error");
        world.run_for(200_000);
        // The token has expired. The owner sends another one while the database is still down.
        let id = world.store().state().generations[0].accepted.id;
        assert_eq!(world.request(get(id)).status, 200);
        world.database().fail_always(Operation::Finish, None);
        world.run_for(400_000);
        let row = world.database().row(id).expect("a row");
        assert_eq!(row.status, "completed", "{mode:?}: without another request of the owner");
    }
}

#[test]
fn a_row_that_was_refused_is_not_created_later() {
    for mode in MODES {
        let world = world(mode);
        world.model(slow_answer(2, 500));
        world.database().fail(Operation::Open, &[Failure::Refused(403, "42501")]);
        assert_eq!(world.request(post().key("k")).code(), "database_error");
        world.run_for(60_000);
        assert_eq!(world.database().count(Operation::Finish), 0, "{mode:?}");
        assert!(world.store().state().generations.is_empty(), "{mode:?}");
    }
}

#[test]
fn a_confirmed_row_is_not_sent_again_with_its_end() {
    for mode in MODES {
        let world = world(mode);
        assert_eq!(world.request(post()).status, 201);
        let finish =
            world.host().sent().into_iter().rfind(|sent| sent.request.url.contains("finish_ai_session"));
        let body = String::from_utf8(finish.expect("it was sent").request.body).expect("it is JSON");
        assert!(!body.contains("text text"), "{mode:?}: the text is not sent twice");
    }
}

#[test]
fn a_failed_read_of_the_quota_costs_no_response() {
    for mode in MODES {
        let world = world(mode);
        world.model(slow_answer(3, 300));
        let call = world.send(post());
        world.run_for(700);
        world.store().fail_peeks(9);
        let created = world.wait(&call);
        assert_eq!((created.status, created.candidates()), (201, 3), "{mode:?}");
        assert_eq!(created.quota(), [9, 49, 149]);
    }
}

#[test]
fn a_store_that_is_down_refuses_every_command() {
    for mode in MODES {
        let world = world(mode);
        let id = world.request(post()).session();
        world.store().set_down(true);
        let unavailable = "rate_limiter_unavailable";
        assert_eq!(world.request(post()).code(), unavailable);
        assert_eq!(world.request(post().stream()).code(), unavailable);
        assert_eq!(world.request(get_events(id)).code(), unavailable);
        assert_eq!(world.request(delete(id)).code(), unavailable);
        assert_eq!(world.request(post().body(b"{}")).code(), unavailable, "an invalid body is counted, too");
        // The database has the session.
        assert_eq!(world.request(get(id)).status, 200);
        assert_eq!(world.model_calls(), 1);
        world.store().set_down(false);
        assert_eq!(world.request(post()).status, 201);
        assert_eq!(world.used(&world.store().state()), [2, 2, 2]);
    }
}

#[test]
fn a_store_that_fails_during_a_run_ends_it_and_the_alarm_resumes_it() {
    for mode in WITH_ALARMS {
        let world = world(mode);
        world.model(slow_answer(3, 1_000));
        world.model(answer(2));
        let (created, streamed) = (world.send(post().key("k")), world.send(post().key("k").stream()));
        world.run_for(500);
        world.store().set_down(true);
        let created = world.wait(&created);
        assert_eq!(created.code(), "internal");
        assert!(world.wait(&streamed).stream().is_cut());
        world.store().set_down(false);
        world.run_for(120_000);
        let (_, row) = world.database().rows().pop().expect("a row");
        assert_eq!((row.status.as_str(), row.candidates.len()), ("completed", 2), "{mode:?}");
        assert_eq!(world.model_calls(), 2);
    }
}

#[test]
fn an_alarm_that_cannot_be_set_is_set_by_the_next_decision() {
    for mode in WITH_ALARMS {
        let world = world(mode);
        world.model(stream().hang());
        world.store().fail_alarms(99);
        let call = world.send(post().key("k"));
        world.run_for(100);
        assert_eq!(world.store().alarm_ms(), None);
        world.store().fail_alarms(0);
        // Any decision sets it, also one without a write.
        let id = world.store().state().generations[0].accepted.id;
        assert_eq!(world.request(get(id)).session_status(), "generating");
        assert!(world.store().alarm_ms().is_some(), "{mode:?}");
        world.crash();
        assert_eq!(world.wait(&call).status, 201);
    }
}

#[test]
fn a_stop_that_is_not_stored_is_not_confirmed() {
    for mode in WITH_ALARMS {
        let world = world(mode);
        world.model(stream().hang());
        let id = world.request(post().respond_async()).session();
        world.run_for(100);
        // The transaction after that of the command: the end of the generation.
        world.store().fail(1, &[Fault::AfterDecision]);
        let failed = world.request(delete(id));
        assert_eq!((failed.status, failed.code().as_str()), (500, "internal"), "{mode:?}");
        world.model(stream().hang());
        assert_eq!(world.request(delete(id)).status, 204, "{mode:?}: repeated, it is stored");
        let row = world.database().row(id).expect("a row");
        assert_eq!(row.error_code.as_deref(), Some("cancelled"));
    }
}

#[test]
fn a_request_beside_the_deletion_of_an_idle_state_is_kept() {
    for mode in MODES {
        for steps in 0..12 {
            let world = world(mode);
            world.yield_at_ports();
            world.request(post());
            let idle_ms = START_MS + 2 * 86_400_000;
            while world.store().alarm_ms().is_some_and(|at_ms| at_ms < idle_ms) && !world.store().is_idle() {
                world.run_for(world.store().alarm_ms().expect("it is set") - world.host_now());
            }
            world.fire_alarm(USER);
            for _ in 0..steps {
                world.host().step(world.host_now());
            }
            let created = world.request(post());
            let note = format!("{mode:?} {steps}");
            assert_eq!((created.status, created.quota()), (201, [9, 49, 149]), "{note}");
            world.run_tasks();
            assert_eq!(world.used(&world.store().state()), [1, 1, 1], "{note}: it is counted");
            assert_eq!(world.database().rows().len(), 2, "{note}");
        }
    }
}
