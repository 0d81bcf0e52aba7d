//! The policy `spend`: what is reserved, reported, kept and refused, with a whole user object.

use serde_json::{Value, json};

use crate::scripted_client::{ClientResponse, delete, post, post_text};
use crate::scripted_host::Reply;
use crate::scripted_model::{begun, delta, model_error};
use crate::scripted_store::Mode;
use crate::scripted_world::{Delivery, World};

const MODES: [Mode; 3] = [Mode::Rows, Mode::Memory, Mode::Shared];
/// The reservation of the text of [`post`], in nanodollars: 6000 tokens, its bytes and an eighth more at 1 dollar for a million, 9000
/// at 5.
const RESERVED: u64 = 6_000_000 + 1_499_000 + 187_000 + 45_000_000;
const LIMIT: u64 = 200_000_000;

/// A world with a limit of 0.2 dollars a minute: three reservations.
fn world(mode: Mode) -> World {
    let price = [("RATE_LIMIT_SPEND", "0.2/60"), ("AI_MAX_PRICE", "1/5")];
    World::with(
        mode,
        &[&price[..], &[("RATE_LIMIT_BURST", "1000/60"), ("RATE_LIMIT_CONCURRENT", "9")]].concat(),
    )
}

/// An answer of one candidate, whose last chunk is this.
fn answer_with(last: &Value) -> Reply {
    begun(1, 0).say(delta("]}")).say(format!("data: {last}\n\n")).say("data: [DONE]\n\n")
}

/// An answer that costs so many dollars.
fn answer_of(cost: f64) -> Reply {
    answer_with(
        &json!({ "choices": [], "usage": { "prompt_tokens": 7, "completion_tokens": 5, "cost": cost } }),
    )
}

/// What is spent or reserved, in nanodollars.
fn used(world: &World) -> u64 {
    LIMIT - world.remaining_money(&world.store().state())
}

fn refusal(response: &ClientResponse) -> Value {
    assert_eq!((response.status, response.code().as_str()), (429, "rate_limited"));
    response.json()
}

#[test]
fn the_reported_cost_replaces_the_reservation() {
    for mode in MODES {
        let world = world(mode);
        for (cost, expected) in [(0.001_25, 1_250_000), (0.0, 0), (0.06, 60_000_000)] {
            let before = used(&world);
            world.model(answer_of(cost));
            assert_eq!(world.request(post()).status, 201);
            assert_eq!(used(&world) - before, expected, "{mode:?} {cost}");
        }
        assert_eq!(world.model_requests().len(), 3);
        for request in world.model_requests() {
            let body: Value = serde_json::from_slice(&request.body).expect("it is JSON");
            let price = json!({ "prompt": 1, "completion": 5, "request": 0 });
            assert_eq!((&body["provider"]["max_price"], &body["max_tokens"]), (&price, &json!(9_000)));
        }
    }
}

#[test]
fn a_call_without_a_reported_cost_keeps_its_reservation() {
    let without_cost = json!({ "choices": [], "usage": { "prompt_tokens": 7, "completion_tokens": 5 } });
    let without_usage = json!({ "choices": [] });
    for mode in MODES {
        for last in [&without_cost, &without_usage] {
            let world = world(mode);
            world.model(answer_with(last));
            assert_eq!(world.request(post()).status, 201);
            assert_eq!(used(&world), RESERVED, "{mode:?}");
        }
    }
}

#[test]
fn a_refunded_generation_is_not_refunded_its_money() {
    for mode in MODES {
        let world = world(mode);
        world.model(answer_with(&json!({ "choices": [] }))); // of another text
        assert_eq!(world.request(post()).status, 201);
        let before = used(&world);
        world.model(model_error(402));
        let failed = world.request(post());
        assert_eq!((failed.code().as_str(), failed.quota()[1]), ("ai_misconfigured", 49), "{mode:?}");
        assert_eq!(used(&world) - before, RESERVED);
    }
}

#[test]
fn each_retry_reserves_and_the_one_over_the_limit_is_not_made() {
    for mode in MODES {
        let world = world(mode);
        (0..3).for_each(|_| world.model(model_error(503)));
        assert_eq!(world.request(post()).code(), "ai_unavailable");
        assert_eq!((world.model_calls(), used(&world)), (3, 3 * RESERVED), "{mode:?}");
        assert_eq!(refusal(&world.request(post()))["violated-policies"], json!(["spend"]));

        world.run_for(120_000);
        assert_eq!(used(&world), 0);
        world.model(answer_of(0.05));
        assert_eq!(world.request(post()).status, 201);
        (0..3).for_each(|_| world.model(model_error(503)));
        assert_eq!(world.request(post()).code(), "ai_unavailable");
        assert_eq!((world.model_calls(), used(&world)), (6, 50_000_000 + 2 * RESERVED), "{mode:?}");
        assert_eq!(
            world.used(&world.store().state())[2],
            6,
            "the call that is not made counts for no policy"
        );
    }
}

#[test]
fn the_cost_of_a_failed_attempt_is_reported_with_the_rest() {
    for mode in MODES {
        let world = world(mode);
        let usage = json!({ "prompt_tokens": 7, "completion_tokens": 5, "cost": 0.004 });
        let empty = json!({ "choices": [{ "delta": { "content": "{\"candidates\":[]}" } }], "usage": usage });
        let stream = Reply::new(200).with("content-type", "text/event-stream");
        world.model(stream.say(format!("data: {empty}\n\n")).say("data: [DONE]\n\n"));
        world.model(answer_of(0.001));
        assert_eq!(world.request(post()).status, 201);
        assert_eq!((world.model_calls(), used(&world)), (2, 5_000_000), "{mode:?}");
    }
}

#[test]
fn a_stopped_generation_keeps_its_reservation() {
    for mode in MODES {
        let world = world(mode);
        world.model(begun(1, 100).wait(30_000));
        let call = world.send(post().respond_async());
        world.run_for(1_000);
        let id = call.response().session();
        assert_eq!(used(&world), RESERVED, "{mode:?}: reserved");
        assert_eq!(world.request(delete(id)).status, 204);
        world.run_for(5_000);
        assert_eq!(used(&world), RESERVED, "{mode:?}: kept");
    }
}

#[test]
fn a_client_that_waits_for_the_money_is_admitted() {
    for mode in MODES {
        let world = world(mode);
        world.model(answer_of(0.1));
        assert_eq!(world.request(post()).status, 201);
        world.run_for(10_000);
        world.model(answer_of(0.08));
        assert_eq!(world.request(post()).status, 201);
        let refused = world.request(post());
        let problem = refusal(&refused);
        assert_eq!(problem["violated-policies"], json!(["spend"]), "{mode:?}");
        assert_eq!(problem["spend"], json!({ "limit": "0.2", "remaining": "0.02", "window_s": 60 }));
        let policy = refused.header("ratelimit-policy").expect("it is sent");
        assert!(policy.ends_with(r#", "attempts";q=150;w=86400, "spend";q=2;w=60"#), "{policy}");
        let limit = refused.header("ratelimit").expect("it is sent");
        assert!(limit.contains(r#", "spend";r=0;t="#), "{limit}");
        let wait_s: u64 = refused.header("retry-after").expect("it is sent").parse().expect("seconds");
        assert!((48..=51).contains(&wait_s), "{wait_s}");
        world.run_for((wait_s - 1) * 1_000);
        assert_eq!(world.request(post()).status, 429, "{mode:?}: a second too early");
        assert_eq!(world.model_calls(), 2);
        world.run_for(1_000);
        world.model(answer_of(0.001));
        assert_eq!(world.request(post()).status, 201, "{mode:?}");
    }
}

#[test]
fn a_longer_text_reserves_more() {
    for mode in MODES {
        let world = world(mode);
        world.model(answer_of(0.14));
        assert_eq!(world.request(post()).status, 201);
        // 0.06 dollars are left: enough for 8000 bytes, and not for 8001.
        let long = |bytes: usize| post_text(&"x".repeat(bytes));
        assert_eq!(refusal(&world.request(long(8_001)))["violated-policies"], json!(["spend"]), "{mode:?}");
        world.model(answer_of(0.0));
        assert_eq!(world.request(long(8_000)).status, 201);
    }
}

#[test]
fn a_replayed_or_repeated_request_reserves_nothing() {
    for mode in MODES {
        let world = world(mode);
        world.model(answer_of(0.001));
        world.deliver(&[Delivery::LostReply]);
        let first = world.request(post().key("k")).session();
        for _ in 0..5 {
            assert_eq!(world.request(post().key("k")).session(), first);
        }
        assert_eq!((world.model_calls(), used(&world)), (1, 1_000_000), "{mode:?}");
    }
}

#[test]
fn a_crash_keeps_the_reservation_of_the_unfinished_call() {
    for mode in MODES {
        let world = world(mode);
        world.model(begun(0, 0).wait(30_000));
        let call = world.send(post().respond_async());
        world.run_for(1_000);
        assert_eq!(call.response().status, 202);
        world.crash();
        world.model(answer_of(0.001));
        world.let_owner_return();
        world.run_for(40_000);
        assert_eq!(world.model_calls(), 2, "{mode:?}: it was called again");
        assert_eq!(used(&world), RESERVED + 1_000_000, "{mode:?}");
    }
}

#[test]
fn concurrent_generations_reserve_no_more_than_the_limit() {
    for mode in MODES {
        let world = world(mode);
        let free =
            json!({ "choices": [], "usage": { "prompt_tokens": 7, "completion_tokens": 5, "cost": 0 } });
        let slow = || begun(1, 0).wait(10_000).say(delta("]}")).say(format!("data: {free}\n\n"));
        (0..9).for_each(|_| world.model(slow().say("data: [DONE]\n\n")));
        let calls: Vec<_> = (0..9).map(|_| world.send(post().respond_async())).collect();
        world.run_for(8_000);
        let statuses: Vec<u16> = calls.iter().map(|call| call.response().status).collect();
        let accepted = statuses.iter().filter(|status| **status == 202).count();
        assert!(statuses.iter().all(|status| [202, 429].contains(status)), "{statuses:?}");
        assert_eq!((accepted, world.model_calls()), (3, 3), "{mode:?}");
        world.run_for(10_000);
        assert_eq!(used(&world), 0, "{mode:?}: the model was free");
    }
}

#[test]
fn without_the_policy_no_price_and_no_amount_is_sent() {
    for mode in MODES {
        let world = World::new(mode);
        let created = world.request(post());
        assert!(!created.header("ratelimit").expect("it is sent").contains("spend"), "{mode:?}");
        assert!(!created.header("ratelimit-policy").expect("it is sent").contains("spend"));
        let body: Value = serde_json::from_slice(&world.model_requests()[0].body).expect("it is JSON");
        assert_eq!(body["provider"].get("max_price"), None);
    }
}
