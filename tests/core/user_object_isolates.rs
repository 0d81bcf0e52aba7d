//! Two isolates that share the state of a user: one drives a generation, the other joins it, resumes its stream, stops it, or takes
//! it over.

use std::rc::Rc;

use crate::scripted_client::{Client, ClientResponse, delete, get, get_events, post, post_text};
use crate::scripted_model::{answer, begun, slow_answer, stream};
use crate::scripted_store::{LEASE_MS, Mode};
use crate::scripted_world::{START_MS, World};

/// What one isolate stores or requests, another has received after so long.
const LATE_MS: u64 = 1_000;

fn world() -> World {
    World::new(Mode::Shared)
}

fn streamed(response: &ClientResponse) -> Rc<Client> {
    assert_eq!(response.status, 200, "{response:?}");
    response.stream()
}

#[test]
fn two_isolates_never_exceed_a_quota_together() {
    let variables = [("RATE_LIMIT_BURST", "10/60"), ("RATE_LIMIT_CONCURRENT", "100")];
    let world = World::with(Mode::Shared, &variables);
    world.yield_at_ports();
    world.store().delay(&[30, 10, 20, 0, 40, 10, 0, 30]);
    let calls: Vec<_> = (0..50)
        .map(|number| {
            world.use_isolate(number % 2);
            world.send(post_text(&format!("{number} words in the text of this request ").repeat(40)))
        })
        .collect();
    let statuses: Vec<u16> = calls.iter().map(|call| world.wait(call).status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 10, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 40, "{statuses:?}");
    assert_eq!((world.model_calls(), world.used(&world.store().state())[0]), (10, 10));
}

#[test]
fn a_request_with_the_same_key_joins_the_run_of_another_isolate() {
    for request in [post, || post().stream(), || post().respond_async()] {
        let world = world();
        world.model(slow_answer(3, 1_000));
        let first = world.send(post().key("k"));
        world.run_for(1_500);
        world.use_isolate(1);
        let second = world.send(request().key("k"));
        world.run_tasks();
        let (first, second) = (first.response(), second.response());
        assert_eq!((first.status, first.candidates(), world.model_calls()), (201, 3, 1));
        assert_eq!(second.session(), first.session());
        assert_eq!(world.used(&world.store().state())[1], 1);
        if second.status == 201 {
            assert_eq!(second.json(), first.json());
        }
    }
}

#[test]
fn a_subscriber_in_another_isolate_receives_the_same_bytes_within_a_second() {
    for after_ms in [0, 999, 1_000, 2_500, 2_999] {
        let world = world();
        world.model(slow_answer(3, 1_000));
        let response = world.request(post().stream());
        let (id, first) = (response.session(), streamed(&response));
        world.run_for(after_ms);
        world.use_isolate(1);
        let second = streamed(&world.request(get_events(id)));
        world.run_tasks();
        assert_eq!(second.text(), first.text(), "{after_ms}");
        for (sent, received) in first.events().iter().zip(second.events()) {
            let sent_ms = sent.at_ms.max(START_MS + after_ms);
            assert!(received.at_ms - sent_ms <= LATE_MS, "{after_ms}: {} {}", sent.at_ms, received.at_ms);
        }
        assert!(second.is_closed());
    }
}

#[test]
fn a_stream_resumes_in_another_isolate_after_each_event() {
    for received in 0..3 {
        let world = world();
        world.model(slow_answer(3, 1_000));
        let response = world.request(post().stream());
        let (id, first) = (response.session(), streamed(&response));
        world.run_for(1_000 * received + 500);
        world.use_isolate(1);
        let rest = streamed(&world.request(get_events(id).after(&format!("1.{received}"))));
        world.run_tasks();
        let whole = first.text();
        let from = whole.find(&format!("id: 1.{}\n", received + 1)).expect("an event");
        assert_eq!(rest.text(), whole[from..], "after 1.{received}");
    }
}

#[test]
fn a_stop_in_another_isolate_takes_effect_within_a_second() {
    // At any time between two polls, and between two renewals of the lease.
    let times_ms = (3_000..8_500).step_by(190);
    for (candidates, status, after_ms) in
        times_ms.flat_map(|after_ms| [(0, 499, after_ms), (2, 201, after_ms)])
    {
        let world = world();
        world.model(begun(candidates, 100).hang());
        let first = world.send(post().key("k"));
        world.run_for(after_ms);
        world.use_isolate(1);
        let id = world.store().state().generations[0].accepted.id;
        let (before_ms, stopped) = (world.host_now(), world.request(delete(id)));
        assert_eq!(stopped.status, 204);
        assert!(world.host_now() - before_ms <= LATE_MS, "{}", world.host_now() - before_ms);
        let sent = world.host().sent();
        let call = sent.iter().find(|sent| sent.request.url.contains("/chat/completions")).expect("a call");
        assert!(call.closed_ms.expect("it is closed") - before_ms <= LATE_MS);
        let first = world.wait(&first);
        assert!(first.status == status || first.code() == "cancelled", "{candidates}: {}", first.status);
        assert_eq!(world.request(delete(id)).status, 409, "it has ended");
        assert_eq!(world.model_calls(), 1);
    }
}

#[test]
fn a_follower_takes_over_when_the_isolate_of_the_run_ends() {
    for candidates in [0, 2] {
        let world = world();
        world.model(begun(candidates, 100).hang());
        world.model(answer(3));
        world.send(post().key("k"));
        world.run_for(1_000);
        world.use_isolate(1);
        let (joined, joined_stream) = (world.send(post().key("k")), world.send(post().key("k").stream()));
        world.run_for(1_000);
        world.use_isolate(0);
        world.crash();
        world.use_isolate(1);
        let crashed_ms = world.host_now();
        let joined = world.wait(&joined);
        let calls = if candidates == 0 { 2 } else { 1 };
        let kept = if candidates == 0 { 3 } else { candidates };
        assert_eq!((joined.status, joined.candidates(), world.model_calls()), (201, kept, calls));
        assert!(world.host_now() - crashed_ms <= LEASE_MS + LATE_MS);
        let client = world.wait(&joined_stream).stream();
        world.run_tasks();
        assert_eq!(client.names().len(), kept + 2, "{:?}", client.names());
        assert!(client.is_closed());
        let state = world.store().state();
        assert!(state.generations.is_empty());
        assert_eq!(world.used(&state)[1], 1);
    }
}

#[test]
fn the_next_request_of_the_owner_resumes_what_an_ended_isolate_left() {
    for request in [get_events, get] {
        let world = world();
        world.model(stream().hang());
        let id = world.request(post().respond_async()).session();
        world.run_for(1_000);
        world.crash();
        world.use_isolate(1);
        // Before the lease has expired, it waits.
        let early = world.send(request(id));
        world.run_for(100);
        assert_eq!(world.model_calls(), 1);
        world.run_for(LEASE_MS + 100);
        drop(early);
        world.request(request(id));
        world.run_tasks();
        assert_eq!(world.database().row(id).expect("a row").status, "completed");
        assert_eq!(world.model_calls(), 2);
    }
}

#[test]
fn a_run_whose_lease_was_taken_stops_at_its_next_write() {
    let world = world();
    world.model(slow_answer(3, 20_000));
    world.model(answer(2));
    let first = world.send(post().key("k"));
    world.run_for(1_000);
    // It cannot renew its lease.
    let store = world.store();
    store.set_cut_off(true);
    world.run_for(LEASE_MS + 100);
    world.use_isolate(1);
    let second = world.send(post().key("k"));
    world.run_for(1_000);
    store.set_cut_off(false);
    let (first, second) = (world.wait(&first), world.wait(&second));
    assert_eq!((second.status, second.candidates()), (201, 2));
    assert_eq!(first.json(), second.json(), "it follows the isolate that has taken over");
    world.run_tasks();
    let rows = world.database().rows();
    assert_eq!((rows.len(), rows[0].1.candidates.len(), world.model_calls()), (1, 2, 2));
    assert_eq!(world.used(&world.store().state())[1], 1);
}

#[test]
fn a_released_lease_is_taken_at_once() {
    let world = world();
    world.model(begun(2, 100).hang());
    let first = world.send(post().key("k").stream());
    world.run_for(1_000);
    let first = world.wait(&first).stream();
    world.release_leases();
    world.run_for(10_000);
    assert!(!first.is_closed(), "the run continues until another isolate takes it over");
    world.use_isolate(1);
    let second = world.request(post().key("k"));
    assert_eq!((second.status, second.candidates(), world.model_calls()), (201, 2, 1));
    world.run_tasks();
    assert_eq!(first.names(), ["session", "candidate", "candidate", "done"]);
}

#[test]
fn a_short_outage_of_the_store_costs_no_paid_candidate() {
    for stream in [false, true] {
        let world = world();
        world.model(slow_answer(3, 1_000));
        let request = if stream { post().stream() } else { post() };
        let call = world.send(request.key("k"));
        world.run_for(1_500);
        world.store().set_down(true);
        world.run_for(8_000);
        world.store().set_down(false);
        let created = world.wait(&call);
        world.run_tasks();
        let rows = world.database().rows();
        assert_eq!((rows.len(), rows[0].1.candidates.len(), world.model_calls()), (1, 3, 1));
        if stream {
            assert_eq!(created.stream().names(), ["session", "candidate", "candidate", "candidate", "done"]);
        } else {
            assert_eq!((created.status, created.candidates()), (201, 3));
        }
    }
}

#[test]
fn no_token_is_stored() {
    let world = world();
    world.model(stream().hang());
    let token = world.token(crate::scripted_client::USER, 600_000);
    world.send(post().with("authorization", &["Bearer ", &token].concat()));
    world.run_for(1_000);
    let text = world.store().text();
    assert!(text.contains("input_text"), "{text}");
    assert!(token.split('.').all(|part| !text.contains(part)), "{text}");
}
