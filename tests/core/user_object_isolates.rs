//! Two isolates that share the state of a user: one drives a generation, the other joins it, resumes its stream, stops it, or takes
//! it over.

use std::rc::Rc;

use ai_sessions::ports::Lease;

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
fn a_run_whose_lease_was_taken_closes_its_model_call() {
    let world = World::with(Mode::Shared, &[("AI_IDLE_TIMEOUT_MS", "50000")]);
    world.model(stream().hang());
    world.model(answer(2));
    let first = world.send(post().key("k"));
    world.run_for(1_000);
    let store = world.store();
    store.set_cut_off(true);
    world.run_for(LEASE_MS + 100);
    world.use_isolate(1);
    assert_eq!(world.request(post().key("k")).status, 201);
    store.set_cut_off(false);
    let reachable_ms = world.host_now();
    assert_eq!(world.wait(&first).candidates(), 2, "it gets the result of the other isolate");
    let sent = world.host().sent();
    let call = sent.iter().find(|sent| sent.request.url.contains("/chat/completions")).expect("a call");
    assert!(call.closed_ms.expect("it is closed") - reachable_ms <= LATE_MS);
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
fn a_renewal_does_not_bring_a_released_lease_back() {
    let world = world();
    world.model(begun(2, 100).hang());
    world.send(post().key("k"));
    world.run_for(1_000);
    let (store, id) = (world.store(), world.store().state().generations[0].accepted.id);
    assert_eq!(store.renew(id), Ok(Lease::Renewed { is_stop_requested: false }));
    world.release_leases();
    world.run_for(100);
    // It was in flight meanwhile.
    assert_eq!(store.renew(id), Ok(Lease::Lost));
    world.use_isolate(1);
    let second = world.request(post().key("k"));
    assert_eq!((second.status, second.candidates(), world.model_calls()), (201, 2, 1));
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
fn a_slow_store_delays_no_request_without_end() {
    let variables = [("RATE_LIMIT_BURST", "100/60"), ("RATE_LIMIT_CONCURRENT", "100")];
    let world = World::with(Mode::Shared, &variables);
    world.store().delay(&[8_000; 40]);
    let calls: Vec<_> =
        (0..10).map(|number| world.send(post().key(&number.to_string()).respond_async())).collect();
    world.run_for(20_000);
    let answered = calls.iter().filter(|call| call.is_answered()).count();
    assert_eq!(answered, 10);
    let refused = calls.iter().map(|call| call.response()).filter(|response| response.status == 500);
    assert_eq!(refused.filter(|response| response.code() == "rate_limiter_unavailable").count(), 8);
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

/// A runner that lost its lease stops at its next write: the count of another model call is one.
#[test]
fn a_zombie_starts_no_further_model_call() {
    let world = World::with(Mode::Shared, &[("AI_IDLE_TIMEOUT_MS", "60000")]);
    // The first isolate's call fails after 25 s; the second one's answers slowly.
    world.model(crate::scripted_model::model_error(503).head_after(25_000));
    world.model(slow_answer(1, 40_000));
    world.model(answer(3));
    let first = world.send(post().key("k"));
    world.run_for(1_000);
    let store = world.store();
    store.set_cut_off(true);
    world.run_for(LEASE_MS + 100);
    world.use_isolate(1);
    let second = world.send(post().key("k"));
    world.run_for(1_000);
    assert_eq!(world.model_calls(), 2, "the second isolate has taken it over");
    store.set_cut_off(false);
    world.run_for(20_000);
    assert_eq!(world.model_calls(), 2, "the first isolate has lost its lease");
    let (first, second) = (world.wait(&first), world.wait(&second));
    assert_eq!((first.status, second.status), (201, 201));
}

/// A follower of run 1 is in the place of run 2 of the same session.
#[test]
fn a_request_that_starts_a_run_does_not_join_a_follower_of_the_run_before() {
    let world = World::with(Mode::Shared, &[("AI_MAX_ATTEMPTS", "1")]);
    world.model(crate::scripted_model::model_error(503).head_after(2_100));
    world.model(slow_answer(3, 3_000));
    let first = world.send(post().key("k"));
    world.run_for(500);
    world.use_isolate(1);
    // It follows run 1, whose driver is isolate 0.
    let joined = world.send(post().key("k"));
    let failed = world.wait(&first);
    assert_eq!(failed.status, 500, "{failed:?}");
    // The client of the first isolate tries again at once, and comes to the second one.
    let again = world.send(post().key("k"));
    let (again, joined) = (world.wait(&again), world.wait(&joined));
    world.run_tasks();
    assert_eq!(world.model_calls(), 2);
    assert_eq!((again.status, again.candidates()), (201, 3), "{:?} {:?}", again, joined);
}

/// A follower whose session has no row: the row was refused.
#[test]
fn a_follower_gets_the_failure_of_a_session_without_a_row() {
    use crate::scripted_database::{Failure, Operation};
    for joins in [false, true] {
        let world = world();
        world.database().fail_always(Operation::Open, Some(Failure::Refused(400, "23514")));
        world.model(stream().hang());
        let first = world.send(post().key("k"));
        world.use_isolate(usize::from(joins));
        let second = world.send(post().key("k"));
        let (first, second) = (world.wait(&first), world.wait(&second));
        assert_eq!((second.status, second.code()), (first.status, first.code()), "{joins}");
    }
}

/// A stop that the database refuses is requested again without a wait.
#[test]
fn a_refused_stop_is_not_requested_without_a_wait() {
    let world = world();
    world.model(begun(1, 100).hang());
    world.send(post().key("k"));
    world.run_for(1_000);
    let id = world.store().state().generations[0].accepted.id;
    world.use_isolate(1);
    let followed = world.send(post().key("k"));
    world.run_for(500);
    world.store().set_read_only(true);
    let stopped = world.send(delete(id));
    // A decision without a write still works.
    world.run_for(1_000);
    drop((followed, stopped));
}

/// A subscriber of run 1 in another isolate receives no event of run 2 as one of run 1.
#[test]
fn a_follower_of_a_run_receives_nothing_of_the_next_run() {
    let world = World::with(Mode::Shared, &[("AI_MAX_ATTEMPTS", "1")]);
    world.model(crate::scripted_model::model_error(503).head_after(2_100));
    world.model(slow_answer(3, 3_000));
    let first = world.send(post().key("k"));
    world.run_for(500);
    world.use_isolate(1);
    let joined = streamed(&world.request(post().key("k").stream()));
    world.use_isolate(0);
    let failed = world.wait(&first);
    assert_eq!(failed.status, 500);
    // The client tries again at once: run 2, in the first isolate.
    let again = streamed(&world.request(post().key("k").stream()));
    world.run_tasks();
    assert!(again.text().starts_with("id: 2.0"), "{}", again.text());
    assert!(!joined.text().contains("event: candidate"), "{}", joined.text());
}

/// The reply to a poll arrives after the follower has become the driver.
#[test]
fn a_takeover_duplicates_no_candidate() {
    for ms in (0..600).step_by(10) {
        let world = world();
        world.store().set_poll_delay(40);
        let slow = crate::scripted_database::Failure::Slow(100);
        world.database().fail_always(crate::scripted_database::Operation::Finish, Some(slow));
        world.model(begun(5, 300).hang());
        world.send(post().key("k").stream());
        world.run_for(100);
        world.use_isolate(1);
        let second = world.send(post().key("k").stream());
        world.run_for(ms);
        let second = world.wait(&second).stream();
        let id = world.store().state().generations[0].accepted.id;
        world.use_isolate(0);
        world.release_leases();
        world.use_isolate(1);
        world.send(get_events(id));
        world.run_tasks();
        let ids: Vec<_> = second
            .events()
            .iter()
            .filter(|event| event.name == "candidate")
            .map(|event| event.data["id"].to_string())
            .collect();
        let mut unique = ids.clone();
        unique.dedup();
        unique.sort();
        unique.dedup();
        assert_eq!(ids.len(), unique.len(), "after {ms}: {}", second.text());
    }
}

/// `AI_TIMEOUT_MS` + 16 s, which section 8 of the contract does not except: a silent database makes each poll of a follower take
/// three timeouts of 5 s and their backoff.
#[test]
fn a_waiting_client_has_a_response_in_time_when_the_store_is_silent() {
    let world = world();
    world.model(begun(1, 100).hang());
    let first = world.send(post().key("k"));
    world.run_for(1_000);
    world.store().set_poll_delay(15_500);
    world.store().set_down(true);
    let response = world.wait(&first);
    let waited_ms = world.host_now() - START_MS;
    assert!(waited_ms <= 60_000 + 16_000, "{waited_ms} {}", response.status);
}

/// A stop that comes to an isolate with a follower of the run before.
#[test]
fn a_stop_reaches_the_next_run_behind_a_follower() {
    let world = World::with(Mode::Shared, &[("AI_MAX_ATTEMPTS", "1")]);
    world.model(crate::scripted_model::model_error(503).head_after(2_100));
    world.model(slow_answer(10, 3_000));
    let first = world.send(post().key("k"));
    world.run_for(500);
    world.use_isolate(1);
    let joined = streamed(&world.request(post().key("k").stream()));
    world.use_isolate(0);
    let failed = world.wait(&first);
    let again = streamed(&world.request(post().key("k").stream()));
    world.run_for(4_000);
    let id = world.store().state().generations[0].accepted.id;
    world.use_isolate(1);
    let before_ms = world.host_now();
    let stopped = world.request(delete(id));
    assert_eq!(stopped.status, 204);
    assert!(world.host_now() - before_ms <= LATE_MS, "{} ms", world.host_now() - before_ms);
    drop((joined, failed, again));
}

/// A follower gives up while the transaction of another command, which makes it the driver, is on its way; and that one fails.
#[test]
fn a_client_does_not_wait_for_ever_when_a_takeover_fails() {
    let world = world();
    world.model(begun(1, 100).hang());
    world.send(post().key("k"));
    world.run_for(1_000);
    world.use_isolate(1);
    let joined = world.send(post().key("k"));
    world.run_for(1_000);
    world.use_isolate(0);
    world.crash();
    world.use_isolate(1);
    let id = world.store().state().generations[0].accepted.id;
    // The database has trouble: polls fail. The follower gives up after 5 s; the lease expires before.
    world.run_for(10_000);
    world.store().fail_polls(true);
    world.run_for(4_600);
    assert!(!joined.is_answered());
    world.store().delay(&[800]);
    world.store().fail(0, &[crate::scripted_store::Fault::AfterDecision]);
    let other = world.send(get_events(id));
    world.run_for(60_000);
    assert!(other.is_answered());
    assert!(joined.is_answered(), "it waits for ever");
}

/// Stores more often than every 300 ms keep the driver from renewing its lease: a part of a billed answer is lost.
#[test]
fn a_busy_driver_keeps_its_lease_with_many_candidates() {
    let world = World::with(Mode::Shared, &[("MAX_CANDIDATES", "60")]);
    world.model(slow_answer(60, 280));
    let first = world.send(post().key("k").stream());
    world.run_for(2_000);
    world.use_isolate(1);
    let second = world.send(post().key("k"));
    let second = world.wait(&second);
    drop(first);
    assert_eq!((second.candidates(), second.json()["partial"].as_bool()), (60, Some(false)));
}
