//! The admission of a request: key × delivery × the session before × response mode, the limits, reading and stopping.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::scripted_client::{
    ClientRequest, ClientResponse, STRANGER, USER, delete, get, get_events, post, post_text,
};
use crate::scripted_database::{Failure, Operation, Row};
use crate::scripted_host::Reply;
use crate::scripted_model::{answer, begun, model_error, slow_answer, stream};
use crate::scripted_store::Mode;
use crate::scripted_world::{Delivery, START_MS, World};

const MODES: [Mode; 3] = [Mode::Rows, Mode::Memory, Mode::Shared];

/// The session of the key before the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Running,
    Completed,
    /// In a way that may pass.
    Failed,
    /// For good.
    FailedForGood,
    /// And the database can be written again.
    NotPersisted,
    /// And the database still cannot be written.
    NotWritable,
    /// A failure that may pass.
    FailureNotPersisted,
}

/// The key of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Without,
    New,
    Same,
    OtherBody,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Response {
    Sync,
    Stream,
    Async,
}

/// What the request causes.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    status: u16,
    code: &'static str,
    model_calls: usize,
    burst: u32,
    generations: i64,
}

fn expected(before: Before, key: Key, delivery: Delivery, response: Response) -> Outcome {
    let ok = match response {
        Response::Sync => 201,
        Response::Stream => 200,
        Response::Async => 202,
    };
    let started = Outcome { status: ok, code: "", model_calls: 1, burst: 1, generations: 1 };
    // A delivery that finds the session does not count where the request was delivered before, or may have been.
    let joined = u32::from(delivery != Delivery::LostCommand);
    let found = Outcome { status: ok, code: "", model_calls: 0, burst: joined, generations: 0 };
    // Only a client that waits receives a problem document.
    let failed = |code| match response {
        Response::Sync => Outcome { status: 500, code, ..found },
        Response::Stream | Response::Async => Outcome { ..found },
    };
    match (key, before) {
        // A session that is not persisted has no lease.
        (Key::Without | Key::New, Before::NotWritable) => match response {
            Response::Sync => Outcome { status: 500, code: "database_error", ..started },
            Response::Stream | Response::Async => started,
        },
        (Key::Without | Key::New, _) | (_, Before::Nothing) => started,
        (Key::OtherBody, _) => {
            // Each delivery counts.
            let burst = if delivery == Delivery::LostReply { 2 } else { 1 };
            Outcome { status: 422, code: "idempotency_key_reused", model_calls: 0, burst, generations: 0 }
        }
        (Key::Same, Before::Running | Before::Completed | Before::NotPersisted) => found,
        (Key::Same, Before::FailedForGood) => failed("ai_misconfigured"),
        (Key::Same, Before::NotWritable) => failed("database_error"),
        (Key::Same, Before::Failed | Before::FailureNotPersisted) => started,
    }
}

fn prepared(mode: Mode, before: Before) -> World {
    let world = World::with(mode, &[("RATE_LIMIT_BURST", "100/86400"), ("RATE_LIMIT_CONCURRENT", "3")]);
    let finish_fails = |failure| world.database().fail_always(Operation::Finish, failure);
    match before {
        Before::Nothing => return world,
        Before::Running => world.model(slow_answer(3, 1_000)),
        Before::Completed => {}
        Before::Failed => (0..3).for_each(|_| world.model(model_error(503))),
        Before::FailedForGood => world.model(model_error(402)),
        Before::NotPersisted | Before::NotWritable => finish_fails(Some(Failure::Down)),
        Before::FailureNotPersisted => {
            finish_fails(Some(Failure::Down));
            (0..3).for_each(|_| world.model(model_error(503)));
        }
    }
    let first = world.send(post().key("k"));
    world.run_for(if before == Before::Running { 100 } else { 30_000 });
    assert_eq!(first.is_answered(), before != Before::Running);
    if before != Before::NotWritable {
        finish_fails(None);
    }
    world
}

fn of_key(key: Key, response: Response) -> ClientRequest {
    let request = match key {
        Key::Without => post(),
        Key::New => post().key("another"),
        Key::Same => post().key("k"),
        Key::OtherBody => post_text(&"other ".repeat(300)).key("k"),
    };
    match response {
        Response::Sync => request,
        Response::Stream => request.stream(),
        Response::Async => request.respond_async(),
    }
}

#[test]
fn each_request_starts_joins_reads_or_is_rejected_as_the_table_says() {
    use Before::{
        Completed, Failed, FailedForGood, FailureNotPersisted, NotPersisted, NotWritable, Nothing, Running,
    };
    let befores =
        [Nothing, Running, Completed, Failed, FailedForGood, NotPersisted, NotWritable, FailureNotPersisted];
    for mode in MODES {
        for before in befores {
            for key in [Key::Without, Key::New, Key::Same, Key::OtherBody] {
                for delivery in [Delivery::Regular, Delivery::LostCommand, Delivery::LostReply] {
                    for response in [Response::Sync, Response::Stream, Response::Async] {
                        check(mode, before, key, delivery, response);
                    }
                }
            }
        }
    }
}

fn check(mode: Mode, before: Before, key: Key, delivery: Delivery, response: Response) {
    let note = format!("{mode:?} {before:?} {key:?} {delivery:?} {response:?}");
    let world = prepared(mode, before);
    let (calls, used) = (world.model_calls(), world.used(&world.store().state()));
    let sessions: Vec<Uuid> = world.database().rows().into_iter().map(|(id, _)| id).collect();
    world.deliver(&[delivery]);
    let received = world.request(of_key(key, response));
    let quota = (received.status != 500).then(|| received.quota());
    world.run_for(5_000);
    let now = world.used(&world.store().state());
    let code = received.code();
    let expected = expected(before, key, delivery, response);
    let outcome = Outcome {
        status: received.status,
        code: if code == expected.code { expected.code } else { "another code" },
        model_calls: world.model_calls() - calls,
        burst: now[0] - used[0],
        generations: i64::from(now[1]) - i64::from(used[1]),
    };
    assert_eq!(outcome, expected, "{note}: {code}\n{}", world.log_text());
    if let Some(quota) = quota {
        assert_eq!(quota[0], 100 - now[0], "{note}: the response has the quota");
    }
    // A key has one session; every other request has a session of its own.
    if received.status < 300 {
        let is_known = sessions.contains(&received.session());
        assert_eq!(is_known, key == Key::Same && before != Before::Nothing, "{note}");
    }
    let rows = world.database().rows();
    let new_sessions = rows.len() - sessions.len();
    let starts_new = expected.model_calls == 1 && !(key == Key::Same && before != Before::Nothing);
    assert_eq!(new_sessions, usize::from(starts_new), "{note}");
    let is_open = |status: &str| status == "generating";
    if before != Before::NotWritable {
        assert!(rows.iter().all(|(_, row)| !is_open(&row.status)), "{note}: every session has ended");
    }
}

#[test]
fn a_repeated_delivery_receives_the_failure_of_its_own_run() {
    for mode in MODES {
        let requests: [fn() -> ClientRequest; 2] = [post, || post().key("k")];
        for request in requests {
            let world = World::new(mode);
            (0..9).for_each(|_| world.model(model_error(503)));
            world.deliver(&[Delivery::LostReply]);
            let failed = world.request(request());
            assert_eq!((failed.code().as_str(), world.model_calls()), ("ai_unavailable", 3), "{mode:?}");
            assert_eq!(world.used(&world.store().state()), [1, 0, 3]);
            world.run_tasks();
            assert_eq!(world.model_calls(), 3);
        }
    }
}

#[test]
fn a_repeated_delivery_starts_no_run_while_the_database_is_down() {
    for mode in MODES {
        let world = World::new(mode);
        world.database().fail_always(Operation::Read, Some(Failure::Down));
        world.deliver(&[Delivery::LostReply]);
        let failed = world.request(post());
        // The session may exist, and be billed.
        assert_eq!((failed.code().as_str(), world.model_calls()), ("database_error", 1), "{mode:?}");
    }
}

#[test]
fn a_key_is_free_again_after_24_hours() {
    for mode in MODES {
        let world = World::new(mode);
        let first = world.request(post().key("k")).session();
        world.run_for(24 * 3_600_000 - 60_000);
        assert_eq!(world.request(post().key("k").token_ms(7_200_000)).session(), first, "{mode:?}");
        world.run_for(60_000);
        let second = world.request(post().key("k"));
        assert_ne!(second.session(), first);
        assert_eq!(world.model_calls(), 2);
        assert_eq!(world.store().state().records.len(), 1, "the expired record is removed");
    }
}

fn policies(response: &ClientResponse) -> Value {
    assert_eq!((response.status, response.code().as_str()), (429, "rate_limited"));
    response.json().get("violated-policies").cloned().unwrap_or_default()
}

#[test]
fn each_limit_refuses_the_request_that_is_one_too_many() {
    for mode in MODES {
        for (variable, value, policy) in [
            ("RATE_LIMIT_BURST", "2/60", "burst"),
            ("RATE_LIMIT_GENERATIONS", "2/60", "generations"),
            ("RATE_LIMIT_ATTEMPTS", "2/60", "attempts"),
        ] {
            let world = World::with(mode, &[(variable, value)]);
            for _ in 0..2 {
                assert_eq!(world.request(post()).status, 201);
            }
            let refused = world.request(post());
            assert_eq!(policies(&refused), json!([policy]), "{mode:?}");
            assert_eq!(world.model_calls(), 2);
            let wait_s: u64 = refused.header("retry-after").expect("it is sent").parse().expect("seconds");
            world.run_for((wait_s - 1) * 1_000);
            assert_eq!(policies(&world.request(post())), json!([policy]), "{mode:?}: a second too early");
            world.run_for(1_000);
            assert_eq!(world.request(post()).status, 201, "{mode:?}: {policy} after Retry-After");
        }
    }
}

#[test]
fn a_refusal_by_the_burst_is_repeated_without_a_hop() {
    for mode in MODES {
        let world = World::with(mode, &[("RATE_LIMIT_BURST", "2/60")]);
        for _ in 0..2 {
            assert_eq!(world.request(post()).status, 201);
        }
        let first = world.request(post());
        assert_eq!(policies(&first), json!(["burst"]), "{mode:?}");
        let wait_s: u64 = first.header("retry-after").expect("it is sent").parse().expect("seconds");
        world.run_tasks();
        let (commands, sent) = (world.commands(), world.host().sent().len());
        world.run_for(5_000);
        for request in [post(), post().key("k"), post().stream(), post_text("too short"), post_text("")] {
            let repeated = world.request(request);
            assert_eq!(policies(&repeated), json!(["burst"]), "{mode:?}");
            assert_eq!(repeated.header("retry-after"), Some((wait_s - 5).to_string().as_str()));
            assert_eq!(repeated.header("ratelimit-policy"), first.header("ratelimit-policy"));
            assert_eq!(repeated.quota(), first.quota());
        }
        assert_eq!(world.commands(), commands, "{mode:?}");
        assert_eq!(world.host().sent().len(), sent);
        world.run_for((wait_s - 5) * 1_000);
        assert_eq!(world.request(post()).status, 201, "{mode:?}: after Retry-After");
    }
}

#[test]
fn a_refusal_is_decided_anew_while_a_generation_is_in_progress() {
    for mode in MODES {
        let world = World::with(mode, &[("RATE_LIMIT_BURST", "1/60")]);
        world.model(model_error(503));
        world.model(slow_answer(2, 1_000));
        assert_eq!(world.request(post().respond_async()).status, 202);
        for _ in 0..2 {
            let commands = world.commands();
            assert_eq!(policies(&world.request(post())), json!(["burst"]), "{mode:?}");
            assert_eq!(world.commands(), commands + 1, "{mode:?}");
        }
    }
}

#[test]
fn a_refused_request_makes_a_due_write() {
    for mode in MODES {
        let world = World::with(mode, &[("RATE_LIMIT_BURST", "1/60")]);
        world.database().fail_always(Operation::Finish, Some(Failure::Refused(500, "XX000")));
        assert_eq!(world.request(post()).code(), "database_error", "{mode:?}");
        let commands = world.commands();
        world.database().fail_always(Operation::Finish, None);
        for _ in 0..2 {
            assert_eq!(policies(&world.request(post())), json!(["burst"]), "{mode:?}");
        }
        assert_eq!(world.commands(), commands + 2, "{mode:?}");
        // Sooner than by the alarm.
        world.run_for(100);
        assert!(world.store().state().generations.is_empty(), "{mode:?}: persisted by the request");
    }
}

#[test]
fn two_generations_run_at_the_same_time() {
    for mode in MODES {
        let world = World::new(mode);
        let texts = ["one ", "two ", "three "].map(|word| word.repeat(400));
        (0..2).for_each(|_| world.model(slow_answer(2, 1_000)));
        for text in texts.iter().take(2) {
            assert_eq!(world.request(post_text(text).respond_async()).status, 202);
        }
        let refused = world.request(post_text(&texts[2]));
        assert_eq!(policies(&refused), json!(["concurrent"]), "{mode:?}");
        world.run_tasks();
        assert_eq!(world.request(post_text(&texts[2])).status, 201);
        assert_eq!(world.used(&world.store().state()), [4, 3, 3]);
    }
}

#[test]
fn a_limit_is_logged_once_per_window() {
    for mode in MODES {
        let world = World::with(mode, &[("RATE_LIMIT_BURST", "1/60")]);
        world.request(post());
        for _ in 0..3 {
            assert_eq!(world.request(post()).status, 429);
            world.crash();
        }
        world.run_tasks();
        let limits = |world: &World| {
            let events = world.database().events();
            events.iter().filter(|(owner, kind)| *owner == USER && kind == "ai_session.rate_limited").count()
        };
        assert_eq!(limits(&world), 1, "{mode:?}");
        world.run_for(61_000);
        world.request(post());
        world.request(post());
        world.run_tasks();
        assert_eq!(limits(&world), 2);
    }
}

#[test]
fn a_retry_that_attempts_forbid_is_not_made() {
    for mode in MODES {
        let world = World::with(mode, &[("RATE_LIMIT_ATTEMPTS", "2/60")]);
        (0..9).for_each(|_| world.model(model_error(503)));
        assert_eq!(world.request(post()).code(), "ai_unavailable");
        assert_eq!(world.model_calls(), 2, "{mode:?}");
        assert_eq!(policies(&world.request(post())), json!(["attempts"]));
        assert_eq!(world.used(&world.store().state()), [2, 0, 2]);
    }
}

#[test]
fn a_refusal_of_the_model_is_not_refunded() {
    for mode in MODES {
        for (status, code, generations) in
            [(403, "ai_refused", 1), (402, "ai_misconfigured", 0), (400, "ai_misconfigured", 0)]
        {
            let world = World::new(mode);
            world.model(model_error(status));
            let failed = world.request(post());
            assert_eq!(failed.code(), code);
            assert_eq!(failed.quota(), [9, 50 - generations, 149], "{mode:?} {status}");
        }
    }
}

#[test]
fn a_running_session_is_read_from_the_object() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(slow_answer(3, 1_000));
        let accepted = world.request(post().respond_async());
        assert_eq!(accepted.session_status(), "generating");
        assert_eq!(accepted.header("retry-after"), Some("2"));
        let id = accepted.session();
        world.run_for(2_500);
        let found = world.request(get(id));
        assert_eq!((found.session_status().as_str(), found.candidates()), ("generating", 0), "{mode:?}");
        assert_eq!(found.json()["candidate_count"], 2);
        assert_eq!(found.header("retry-after"), Some("2"));
        world.run_tasks();
        let found = world.request(get(id));
        assert_eq!((found.session_status().as_str(), found.candidates()), ("completed", 3));
        assert_eq!(found.json()["usage"]["cost"], 0.5);
        assert_eq!(found.header("retry-after"), None);
    }
}

#[test]
fn a_read_waits_for_an_ending_that_is_being_persisted() {
    for mode in MODES {
        let world = World::new(mode);
        world.database().fail(Operation::Finish, &[Failure::Down, Failure::Down]);
        let id = world.request(post().respond_async()).session();
        world.run_for(50);
        let found = world.request(get(id));
        assert_eq!((found.session_status().as_str(), found.candidates()), ("completed", 3), "{mode:?}");
        assert_eq!(world.host_now(), START_MS + 500, "the third attempt of the request");
    }
}

#[test]
fn a_stop_keeps_the_candidates_and_ends_the_bill() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(begun(2, 1_000).hang());
        let created = world.send(post().key("k"));
        world.run_for(2_100);
        let id = world.store().state().generations[0].accepted.id;
        assert_eq!(world.request(delete(id)).status, 204);
        let created = world.wait(&created);
        assert_eq!((created.status, created.candidates()), (201, 2), "{mode:?}");
        assert_eq!(created.json()["partial"], true);
        let call =
            world.host().sent().into_iter().find(|sent| sent.request.url.ends_with("/chat/completions"));
        assert!(call.expect("it was sent").closed_ms.is_some(), "the connection is closed");
        let again = world.request(delete(id));
        assert_eq!((again.status, again.code().as_str()), (409, "not_running"));
        assert_eq!(world.request(post().key("k")).session(), id, "it is no failure");
    }
}

#[test]
fn a_stop_whose_reply_is_lost_is_repeated() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(begun(2, 1_000).hang());
        let id = world.request(post().respond_async()).session();
        world.run_for(2_100);
        world.deliver(&[Delivery::LostReply]);
        assert_eq!(world.request(delete(id)).status, 204, "{mode:?}");
        // The same where the object still has the session.
        world.model(begun(2, 1_000).hang());
        world.database().fail_always(Operation::Finish, Some(Failure::Down));
        let id = world.request(post().respond_async()).session();
        world.run_for(2_100);
        world.deliver(&[Delivery::LostReply]);
        assert_eq!(world.request(delete(id)).status, 204, "{mode:?}");
        world.run_for(20_000);
        assert_eq!(world.request(delete(id)).code(), "not_running");
    }
}

#[test]
fn a_waiting_client_of_a_stopped_generation_gets_cancelled() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(stream().hang());
        let created = world.send(post().key("k"));
        world.run_for(1_000);
        let id = world.store().state().generations[0].accepted.id;
        assert_eq!(world.request(delete(id)).status, 204);
        let cancelled = world.wait(&created);
        assert_eq!((cancelled.status, cancelled.code().as_str()), (409, "cancelled"), "{mode:?}");
        assert_eq!(cancelled.quota(), [9, 50, 149], "it is refunded");
        // The key can start another run.
        assert_eq!(world.request(post().key("k")).session(), id);
        assert_eq!(world.database().row(id).expect("a row").run, 2);
    }
}

#[test]
fn a_stop_between_two_attempts_makes_no_further_one() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(model_error(503).with("retry-after", "20"));
        let created = world.send(post());
        world.run_for(5_000);
        let id = world.store().state().generations[0].accepted.id;
        assert_eq!(world.request(delete(id)).status, 204);
        assert_eq!(world.wait(&created).code(), "cancelled", "{mode:?}");
        world.run_for(60_000);
        assert_eq!(world.model_calls(), 1);
    }
}

#[test]
fn a_stop_before_the_row_is_confirmed_cancels_also_a_failed_generation() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(model_error(402));
        world.database().fail(Operation::Open, &[Failure::Slow(3_000)]);
        let created = world.send(post());
        world.run_for(1_000);
        let id = world.store().state().generations[0].accepted.id;
        assert_eq!(world.request(delete(id)).status, 204);
        assert_eq!(world.wait(&created).code(), "cancelled", "{mode:?}");
        assert_eq!(world.used(&world.store().state())[1], 0, "the generation is refunded");
    }
}

#[test]
fn users_have_quotas_and_keys_of_their_own() {
    for mode in MODES {
        let world = World::with(mode, &[("RATE_LIMIT_BURST", "2/60")]);
        for _ in 0..2 {
            assert_eq!(world.request(post().key("k")).status, 201);
        }
        assert_eq!(world.request(post().key("k")).status, 429);
        let other = world.request(post().key("k").user(Some(STRANGER)));
        assert_eq!((other.status, other.quota()), (201, [1, 49, 149]), "{mode:?}");
        assert_eq!((world.model_calls(), world.database().rows().len()), (2, 2));
    }
}

#[test]
fn a_cached_answer_is_reported_to_the_client_that_waits() {
    for (hit, no_cache, status) in [
        ("HIT", false, Some("OpenRouter; hit")),
        ("miss", false, Some("OpenRouter; fwd=miss")),
        ("hit", true, None),
    ] {
        let world = World::with(Mode::Rows, &[("AI_CACHE_TTL_S", "600")]);
        world.model(answer(1).with("x-openrouter-cache-status", hit));
        let request = if no_cache { post().with("cache-control", "max-age=0, No-Cache") } else { post() };
        let created = world.request(request);
        assert_eq!((created.status, created.header("cache-status")), (201, status));
        let requests = world.model_requests();
        let sent = requests.first().expect("a request");
        assert_eq!(sent.headers.iter().any(|(name, _)| *name == "x-openrouter-cache"), !no_cache);
    }
}

#[test]
fn a_row_that_opens_too_late_is_abandoned_and_the_result_is_kept() {
    for mode in MODES {
        for timeout_ms in [1_000, 20_000, 60_000] {
            let world = World::with(mode, &[("AI_TIMEOUT_MS", &timeout_ms.to_string())]);
            world.database().fail_always(Operation::Open, Some(Failure::Silent));
            let created = world.request(post());
            assert_eq!((created.status, created.candidates()), (201, 3), "{mode:?} {timeout_ms}");
            assert!(world.host_now() <= START_MS + timeout_ms + 16_000, "AI_TIMEOUT_MS + 16 s");
            let (_, row) = world.database().rows().pop().expect("a row");
            assert_eq!((row.status.as_str(), row.input_text.len() > 1_000), ("completed", true));
        }
    }
}

#[test]
fn a_session_that_waits_for_its_write_is_reported_as_not_persisted() {
    for mode in MODES {
        let world = World::with(mode, &[("RATE_LIMIT_BURST", "100/60")]);
        let text_of = |number: usize| format!("text {number} ").repeat(200);
        let key_of = |number: usize| format!("k{number}");
        let request = |number: usize| post_text(&text_of(number)).key(&key_of(number));
        world.database().fail_always(Operation::Finish, Some(Failure::Down));
        for number in 0..3 {
            assert_eq!(world.request(request(number)).code(), "database_error");
        }
        world.database().fail_always(Operation::Finish, Some(Failure::Slow(5_000)));
        let first = [0, 1].map(|number| world.send(request(number)));
        world.run_for(100);
        // Two endings are being persisted: the third one waits.
        let waiting = world.request(request(2));
        assert_eq!((waiting.status, waiting.code().as_str()), (500, "database_error"), "{mode:?}");
        assert_eq!(world.request(request(2).respond_async()).status, 202);
        let streamed = world.request(request(2).stream());
        let events = world.request(get_events(streamed.session())).stream();
        world.run_for(1_000);
        for client in [streamed.stream(), events] {
            let last = client.events().pop().expect("an event");
            assert_eq!((last.name.as_str(), last.id.as_str()), ("error", "1.3"), "{mode:?}");
        }
        assert!(first.iter().all(|call| world.wait(call).status == 201));
        world.run_for(60_000);
        assert_eq!(world.request(request(2)).status, 201);
        assert_eq!(world.model_calls(), 3);
    }
}

#[test]
fn an_answer_that_is_cut_keeps_its_candidates() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(Reply::unreachable());
        world.model(begun(2, 300).cut());
        let created = world.request(post());
        assert_eq!((created.status, created.candidates(), world.model_calls()), (201, 2, 2), "{mode:?}");
        assert_eq!(created.json()["partial"], true);
        let (_, row) = world.database().rows().pop().expect("a row");
        assert_eq!((row.partial, row.model.as_str()), (true, "a/one"));
    }
}

#[test]
fn a_stored_session_that_cannot_be_read_is_a_database_error() {
    for mode in MODES {
        let world = World::new(mode);
        let id = world.request(post().key("k")).session();
        world.database().fail_always(Operation::Read, Some(Failure::Down));
        let failed = world.request(post().key("k"));
        assert_eq!((failed.status, failed.code().as_str()), (500, "database_error"), "{mode:?}");
        assert_eq!(failed.json()["retryable"], true);
        world.database().fail_always(Operation::Read, None);
        assert_eq!(world.request(post().key("k")).session(), id);
        assert_eq!(world.model_calls(), 1);
    }
}

#[test]
fn a_session_that_ends_between_two_reads_is_read_again() {
    let requests: [fn(Uuid) -> ClientRequest; 2] = [get, get_events];
    for request in requests {
        let world = World::new(Mode::Rows);
        let id = world.request(post()).session();
        let ended = world.database().row(id).expect("a row");
        let open = Row { status: "generating".to_owned(), ended_at: None, ..ended.clone() };
        world.database().insert(id, open);
        world.store().delay(&[100]);
        let found = world.send(request(id));
        world.run_for(50);
        world.database().insert(id, ended);
        let found = world.wait(&found);
        let body = String::from_utf8_lossy(found.bytes()).into_owned();
        assert!(found.status == 200 && body.contains("front 3"), "{} {body}", found.status);
    }
}

#[test]
fn a_page_of_a_firewall_confirms_no_row() {
    for mode in MODES {
        let world = World::new(mode);
        world.database().fail(Operation::Open, &[Failure::Page]);
        assert_eq!(world.request(post()).status, 201, "{mode:?}");
        let (_, row) = world.database().rows().pop().expect("a row");
        assert_eq!(row.status, "completed");
    }
}

#[test]
fn a_confirmed_row_that_is_gone_is_created_with_its_end() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(slow_answer(2, 1_000));
        let created = world.send(post());
        world.run_for(500);
        let id = world.store().state().generations[0].accepted.id;
        world.database().remove(id);
        assert_eq!(world.wait(&created).status, 201, "{mode:?}");
        assert_eq!(world.database().row(id).expect("a row").status, "completed");
    }
}

#[test]
fn an_orphan_is_ended_by_the_read_of_its_owner() {
    for mode in MODES {
        let requests: [fn(Uuid) -> ClientRequest; 3] = [get, get_events, delete];
        for request in requests {
            let world = World::new(mode);
            world.model(stream().hang());
            let id = world.request(post().respond_async()).session();
            world.run_for(100);
            // The object has lost it.
            world.crash();
            world.store().clear();
            let young = world.request(request(id));
            match young.status {
                200 => assert_eq!(young.session_status(), "generating"),
                409 => assert_eq!(young.code(), "not_running"),
                _ => assert_eq!(young.code(), "database_error"),
            }
            world.run_for(120_000);
            let old = world.request(request(id));
            assert!(old.status == 200 || old.code() == "not_running", "{mode:?}: {}", old.status);
            let row = world.database().row(id).expect("a row");
            assert_eq!((row.status.as_str(), row.error_code.as_deref()), ("failed", Some("database_error")));
        }
    }
}
