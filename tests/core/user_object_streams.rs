//! Subscribers of a generation that join late, are slow, stall, leave or resume, and the limits of their number.

use std::rc::Rc;

use ai_sessions::edge::events::{COMMENT_EVERY_MS, STALL_MS};
use ai_sessions::user_object::subscription::{SUBSCRIBERS_PER_SESSION_MAX, SUBSCRIBERS_PER_USER_MAX};
use uuid::Uuid;

use crate::scripted_client::{Client, STRANGER, Takes, delete, get, get_events, post, post_text};
use crate::scripted_database::{Failure, Operation};
use crate::scripted_model::{answer, begun, model_error, slow_answer, stream};
use crate::scripted_store::Mode;
use crate::scripted_world::{START_MS, World};

const MODES: [Mode; 3] = [Mode::Rows, Mode::Memory, Mode::Shared];
/// What a stream of three candidates has.
const WHOLE: [&str; 5] = ["session", "candidate", "candidate", "candidate", "done"];

/// A generation that runs, and the client of its stream.
fn streaming(world: &World) -> (Uuid, Rc<Client>) {
    let response = world.request(post().key("k").stream());
    assert_eq!(response.status, 200);
    (response.session(), response.stream())
}

fn events(world: &World, id: Uuid) -> Rc<Client> {
    let response = world.request(get_events(id));
    assert_eq!(response.status, 200, "{:?}", response);
    response.stream()
}

#[test]
fn each_candidate_is_sent_as_soon_as_it_is_stored() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(slow_answer(3, 1_000));
        let (_, client) = streaming(&world);
        world.run_tasks();
        let times: Vec<_> = client.events().into_iter().map(|event| event.at_ms - START_MS).collect();
        assert_eq!(times, [0, 1_000, 2_000, 3_000, 3_000], "{mode:?}");
        assert_eq!(client.names(), WHOLE);
        assert!(client.is_closed());
    }
}

#[test]
fn a_subscriber_that_joins_late_receives_the_same_bytes() {
    for mode in MODES {
        for after_ms in [0, 999, 1_000, 1_001, 2_500, 2_999] {
            let world = World::new(mode);
            world.model(slow_answer(3, 1_000));
            let (id, first) = streaming(&world);
            world.run_for(after_ms);
            let late = events(&world, id);
            let by_key = world.request(post().key("k").stream()).stream();
            world.run_tasks();
            assert_eq!(late.text(), first.text(), "{mode:?} {after_ms}");
            assert_eq!(by_key.text(), first.text(), "{mode:?} {after_ms}");
            // And so does one that joins after the end.
            let stored = world.request(get_events(id));
            assert_eq!(String::from_utf8_lossy(stored.bytes()), first.text());
            assert_eq!(world.model_calls(), 1);
        }
    }
}

#[test]
fn a_subscriber_resumes_after_each_event() {
    for mode in MODES {
        let reference = World::new(mode);
        reference.model(slow_answer(3, 1_000));
        let (_, whole) = streaming(&reference);
        reference.run_tasks();
        let whole = whole.text();
        for (received, event) in whole.split_inclusive("\n\n").enumerate() {
            let id_of = event.strip_prefix("id: ").and_then(|event| event.split('\n').next()).expect("an id");
            for after_ms in [500, 1_500, 3_500] {
                let world = World::new(mode);
                world.model(slow_answer(3, 1_000));
                let (id, first) = streaming(&world);
                world.run_for(after_ms);
                let response = world.request(get_events(id).after(id_of));
                let is_running = after_ms < 3_000;
                let resumed = is_running.then(|| response.stream());
                world.run_tasks();
                let rest = match &resumed {
                    Some(client) => client.text(),
                    None => String::from_utf8_lossy(response.bytes()).into_owned(),
                };
                let first = first.text();
                let expected: String = first.split_inclusive("\n\n").skip(received + 1).collect();
                assert_eq!(rest, expected, "{mode:?} after {id_of} at {after_ms}");
            }
        }
    }
}

#[test]
fn two_subscribers_receive_at_their_own_speed() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(slow_answer(3, 1_000));
        world.next_client(&[Takes::AfterMs(5_000); 9]);
        let (id, slow) = streaming(&world);
        let fast = events(&world, id);
        world.run_tasks();
        assert_eq!(slow.text().len(), fast.text().len(), "{mode:?}");
        assert_eq!(slow.events().iter().map(|event| &event.id).collect::<Vec<_>>().len(), 5);
        assert_eq!(fast.ended.get(), Some((START_MS + 3_000, false)));
        assert_eq!(slow.chunks.borrow().len(), 2, "candidates that arrived meanwhile are one chunk");
        assert_eq!(slow.ended.get(), Some((START_MS + 10_000, false)));
    }
}

#[test]
fn a_subscriber_that_stalls_is_disconnected_and_delays_no_other() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(slow_answer(3, 1_000));
        world.next_client(&[Takes::AfterMs(0), Takes::Never]);
        let (id, stalled) = streaming(&world);
        let other = events(&world, id);
        world.run_tasks();
        assert_eq!(stalled.names(), ["session"]);
        assert_eq!(stalled.ended.get(), Some((START_MS + 1_000 + STALL_MS, true)), "{mode:?}");
        assert_eq!(other.ended.get(), Some((START_MS + 3_000, false)));
        assert_eq!(world.request(get(id)).candidates(), 3);
    }
}

#[test]
fn a_generation_goes_on_when_its_last_subscriber_leaves() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(slow_answer(3, 1_000));
        world.next_client(&[Takes::AfterMs(0), Takes::Gone]);
        let (id, gone) = streaming(&world);
        world.run_tasks();
        assert!(gone.is_cut());
        let found = world.request(get(id));
        assert_eq!((found.session_status().as_str(), found.candidates()), ("completed", 3), "{mode:?}");
    }
}

#[test]
fn a_silent_stream_has_a_comment_every_15_s() {
    let world = World::with(Mode::Rows, &[("AI_IDLE_TIMEOUT_MS", "50000")]);
    world.model(slow_answer(1, 40_000));
    let (_, client) = streaming(&world);
    world.run_for(39_999);
    assert_eq!(client.comments(), 2);
    let times: Vec<_> = client.chunks.borrow().iter().map(|(at_ms, _)| at_ms - START_MS).collect();
    assert_eq!(times, [0, COMMENT_EVERY_MS, 2 * COMMENT_EVERY_MS]);
    world.run_tasks();
    assert!(client.is_closed());
}

#[test]
fn a_session_has_8_subscribers_and_a_stream_more_is_refused() {
    for mode in MODES {
        let world = World::with(mode, &[("RATE_LIMIT_BURST", "100/60")]);
        world.model(slow_answer(3, 1_000));
        let (id, _first) = streaming(&world);
        for _ in 1..SUBSCRIBERS_PER_SESSION_MAX {
            events(&world, id);
        }
        for refused in [get_events(id), post().key("k").stream()] {
            let refused = world.request(refused);
            assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limited"), "{mode:?}");
            assert_eq!(refused.json()["violated-policies"], serde_json::json!(["concurrent"]));
            assert_eq!(refused.header("retry-after"), Some("10"));
        }
        // A client that waits without a stream is no subscriber.
        assert_eq!(world.request(post().key("k").respond_async()).status, 202);
        world.run_tasks();
        assert_eq!(world.request(get_events(id)).status, 200);
        assert_eq!(world.model_calls(), 1);
    }
}

#[test]
fn a_subscriber_that_left_makes_room_for_another() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(slow_answer(3, 1_000));
        for _ in 0..SUBSCRIBERS_PER_SESSION_MAX {
            world.next_client(&[Takes::AfterMs(0), Takes::Gone]);
        }
        let (id, _first) = streaming(&world);
        for _ in 1..SUBSCRIBERS_PER_SESSION_MAX {
            events(&world, id);
        }
        assert_eq!(world.request(get_events(id)).status, 429, "{mode:?}");
        world.run_for(1_000);
        assert_eq!(world.request(get_events(id)).status, 200, "{mode:?}");
        world.run_tasks();
    }
}

#[test]
fn a_user_has_32_subscribers_in_all() {
    let variables =
        [("RATE_LIMIT_CONCURRENT", "9"), ("RATE_LIMIT_BURST", "100/60"), ("RATE_LIMIT_READS", "1000/60")];
    for mode in MODES {
        let world = World::with(mode, &variables);
        let texts: Vec<String> = (0..5).map(|number| format!("text {number} ").repeat(200)).collect();
        let mut ids = Vec::new();
        for text in &texts {
            world.model(slow_answer(3, 1_000));
            ids.push(world.request(post_text(text).respond_async()).session());
        }
        for id in ids.iter().take(4) {
            for _ in 0..SUBSCRIBERS_PER_SESSION_MAX {
                events(&world, *id);
            }
        }
        assert_eq!(SUBSCRIBERS_PER_USER_MAX, 4 * SUBSCRIBERS_PER_SESSION_MAX);
        let last = *ids.last().expect("five sessions");
        assert_eq!(world.request(get_events(last)).status, 429, "{mode:?}");
        let commands = world.commands();
        let refused = world.request(post_text(&"another ".repeat(200)).stream());
        assert_eq!((refused.status, world.commands()), (429, commands + 1));
        assert_eq!(world.model_calls(), 5, "a refused request starts no generation");
        world.run_tasks();
        assert_eq!(world.request(get_events(last)).status, 200);
    }
}

#[test]
fn a_stream_is_cut_when_the_storage_fails_and_can_be_resumed() {
    for mode in [Mode::Rows, Mode::Memory] {
        let world = World::new(mode);
        world.model(slow_answer(3, 1_000));
        world.model(answer(3));
        let (id, client) = streaming(&world);
        world.run_for(1_500);
        world.store().set_down(true);
        world.run_for(1_000);
        assert!(client.is_cut(), "{mode:?}");
        assert_eq!(client.names(), ["session", "candidate"]);
        world.store().set_down(false);
        world.run_for(60_000);
        // The stored candidate is kept, and no second call is billed.
        let rest = world.request(get_events(id).after("1.1"));
        let rest = String::from_utf8_lossy(rest.bytes()).into_owned();
        assert!(rest.starts_with("id: 1.2\nevent: done\n") && rest.contains("\"partial\":true"), "{rest}");
        assert_eq!(world.model_calls(), 1);
    }
}

#[test]
fn a_crash_cuts_the_stream_and_a_resumed_one_has_the_rest() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(slow_answer(3, 1_000));
        let (id, client) = streaming(&world);
        world.run_for(2_500);
        world.crash();
        assert!(client.is_cut());
        let received = client.text();
        let resumed = world.request(get_events(id).after("1.2"));
        assert_eq!(resumed.status, 200);
        let resumed = resumed.stream();
        world.run_tasks();
        assert_eq!(resumed.names(), ["done"], "{mode:?}");
        let stored = world.request(get_events(id));
        assert_eq!(String::from_utf8_lossy(stored.bytes()), [received, resumed.text()].concat());
        assert_eq!(world.model_calls(), 1);
    }
}

#[test]
fn a_failure_ends_the_stream_with_its_problem() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(model_error(402));
        let (id, client) = streaming(&world);
        world.run_tasks();
        let last = client.events().pop().expect("an event");
        assert_eq!((last.name.as_str(), last.data["code"].as_str()), ("error", Some("ai_misconfigured")));
        assert_eq!(
            (last.data["status"].as_u64(), last.data["retryable"].as_bool()),
            (Some(500), Some(false))
        );
        assert!(client.is_closed(), "{mode:?}");
        // A client that joins later receives the same event, under its own request id.
        let stored = world.request(get_events(id));
        let code = crate::scripted_client::events_of(0, &String::from_utf8_lossy(stored.bytes()))
            .pop()
            .expect("an event");
        assert_eq!(code.data["code"], last.data["code"]);
        assert_ne!(code.data["request_id"], last.data["request_id"]);
    }
}

#[test]
fn a_stopped_generation_ends_the_stream_with_its_candidates() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(begun(2, 1_000).hang());
        let (id, client) = streaming(&world);
        world.run_for(2_500);
        assert_eq!(world.request(delete(id)).status, 204);
        world.run_tasks();
        let last = client.events().pop().expect("an event");
        assert_eq!((last.name.as_str(), last.data["count"].as_u64()), ("done", Some(2)), "{mode:?}");
        assert_eq!(last.data["partial"], true);
    }
}

#[test]
fn a_stopped_generation_without_a_candidate_is_cancelled() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(stream().hang());
        let (id, client) = streaming(&world);
        world.run_for(500);
        assert_eq!(world.request(delete(id)).status, 204);
        world.run_tasks();
        let last = client.events().pop().expect("an event");
        assert_eq!(
            (last.name.as_str(), last.data["code"].as_str()),
            ("error", Some("cancelled")),
            "{mode:?}"
        );
        assert_eq!(world.used(&world.store().state())[1], 0, "it is refunded");
        assert_eq!(world.request(delete(id)).code(), "not_running");
    }
}

#[test]
fn an_end_that_is_not_persisted_has_the_id_of_the_event_before() {
    for mode in MODES {
        let world = World::new(mode);
        world.database().fail_always(Operation::Finish, Some(Failure::Down));
        let (id, client) = streaming(&world);
        world.run_for(20_000);
        let last = client.events().pop().expect("an event");
        assert_eq!((last.name.as_str(), last.id.as_str()), ("error", "1.3"), "{mode:?}");
        assert_eq!(last.data["code"], "database_error");
        world.database().fail_always(Operation::Finish, None);
        world.run_for(60_000);
        let rest = world.request(get_events(id).after(&last.id));
        assert!(String::from_utf8_lossy(rest.bytes()).starts_with("id: 1.4\nevent: done\n"));
    }
}

#[test]
fn a_further_run_is_sent_whole_to_a_client_of_the_run_before() {
    for mode in MODES {
        let world = World::new(mode);
        (0..3).for_each(|_| world.model(model_error(503)));
        let (id, client) = streaming(&world);
        world.run_tasks();
        let last = client.events().pop().expect("an event");
        assert_eq!((last.name.as_str(), last.id.as_str()), ("error", "1.1"), "{mode:?}");
        let again = world.request(post().key("k").stream().after(&last.id));
        assert_eq!(again.session(), id);
        let again = again.stream();
        world.run_tasks();
        assert_eq!(again.names(), WHOLE);
        assert_eq!(again.events().first().expect("an event").id, "2.0");
        assert_eq!(world.database().row(id).expect("a row").run, 2);
    }
}

#[test]
fn a_strangers_session_has_no_events() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(slow_answer(3, 1_000));
        let (id, _client) = streaming(&world);
        for request in [get_events(id), get(id), delete(id)] {
            let response = world.request(request.user(Some(STRANGER)));
            assert_eq!((response.status, response.code().as_str()), (404, "not_found"), "{mode:?}");
        }
        world.run_tasks();
        assert_eq!(world.request(get(id)).candidates(), 3);
    }
}
