//! The scheduled wake-up: which requests of the database are taken, and which not.

use ai_sessions::config::Platform;
use ai_sessions::keyed_hash::{hex, keyed_hash};
use ai_sessions::supabase::wake_up::proof;
use serde_json::json;
use uuid::Uuid;

use crate::scripted_client::{ClientRequest, ClientResponse, request};
use crate::scripted_store::Mode;
use crate::scripted_world::{START_MS, World};

const PATH: &str = "/internal/wake-up";
const KEY: &str = "the-key-of-the-user-state-in-these-tests-0123";
const USER: Uuid = Uuid::from_u128(7);
const WINDOW_MS: u64 = 60_000;

fn world() -> World {
    let variables = [("USER_STATE_KEY", KEY), ("WAKE_UP", "1"), ("PUBLIC_URL", "https://service.example")];
    World::on(Platform::SupabaseEdge, Mode::Memory, &variables)
}

fn body(user: &str, at_ms: u64, proof: &str) -> String {
    json!({ "user": user, "at_ms": at_ms, "proof": proof }).to_string()
}

fn signed(at_ms: u64) -> String {
    body(&USER.to_string(), at_ms, &proof(KEY, USER, at_ms))
}

fn wake(body: &str) -> ClientRequest {
    request("POST", PATH).user(None).body(body.as_bytes())
}

fn expect_refused(world: &World, response: &ClientResponse, case: &str) {
    assert_eq!((response.status, response.code().as_str()), (401, "invalid_token"), "{case}");
    assert!(world.woken().is_empty(), "{case}");
}

#[test]
fn the_proof_is_a_labelled_hmac() {
    // As ai_sessions.wake_users makes it; tests/database/wake_up.test.ts compares the same.
    let text = b"ai-sessions/wake-up\x0000000000-0000-0000-0000-000000000007 1800000000000";
    assert_eq!(proof(KEY, USER, 1_800_000_000_000), hex(&keyed_hash(KEY, &[text])));
}

#[test]
fn a_signed_request_wakes_its_user_within_a_minute() {
    for at_ms in [START_MS - WINDOW_MS, START_MS, START_MS + WINDOW_MS] {
        let world = world();
        let response = world.request(wake(&signed(at_ms)));
        assert_eq!((response.status, world.woken()), (204, vec![USER]));
    }
    // As Postgres formats JSON.
    let spaced = signed(START_MS).replace(':', ": ").replace(',', ", ");
    let world = world();
    assert_eq!((world.request(wake(&spaced)).status, world.woken()), (204, vec![USER]));
}

#[test]
fn an_old_request_and_one_from_the_future_are_refused() {
    for at_ms in [0, START_MS - WINDOW_MS - 1, START_MS + WINDOW_MS + 1, u64::MAX] {
        let world = world();
        expect_refused(&world, &world.request(wake(&signed(at_ms))), &at_ms.to_string());
    }
}

#[test]
fn a_forged_proof_is_refused() {
    let user = USER.to_string();
    let valid = proof(KEY, USER, START_MS);
    let text = [&user, " ", &START_MS.to_string()].concat();
    let under = |key: &str, label: &[u8]| hex(&keyed_hash(key, &[label, text.as_bytes()]));
    for (case, body) in [
        ("of another user", body(&Uuid::from_u128(8).to_string(), START_MS, &valid)),
        ("of another time", body(&user, START_MS + 1, &valid)),
        (
            "of another key",
            body(&user, START_MS, &under("another-key-of-enough-characters-01", b"ai-sessions/wake-up\0")),
        ),
        ("of an empty key", body(&user, START_MS, &under("", b"ai-sessions/wake-up\0"))),
        ("of another kind", body(&user, START_MS, &under(KEY, b"ai-sessions/user-state\0"))),
        ("without a label", body(&user, START_MS, &under(KEY, b""))),
        ("in upper case", body(&user, START_MS, &valid.to_uppercase())),
        ("shorter", body(&user, START_MS, &valid[..62])),
        ("longer", body(&user, START_MS, &[&valid, "00"].concat())),
        ("empty", body(&user, START_MS, "")),
        ("without a proof", json!({ "user": user, "at_ms": START_MS }).to_string()),
        ("without a user", json!({ "at_ms": START_MS, "proof": valid }).to_string()),
        ("without a time", json!({ "user": user, "proof": valid }).to_string()),
        ("with a proof that is no text", json!({ "user": user, "at_ms": START_MS, "proof": 1 }).to_string()),
        ("that is no JSON", "{".to_owned()),
        ("that is empty", String::new()),
        ("that is a list", "[]".to_owned()),
        ("that is large", [&" ".repeat(600), signed(START_MS).as_str()].concat()),
    ] {
        let world = world();
        expect_refused(&world, &world.request(wake(&body)), case);
    }
}

#[test]
fn a_token_of_a_user_is_no_proof() {
    let world = world();
    let response = world.request(request("POST", PATH).body(b"{}"));
    expect_refused(&world, &response, "a valid token");
}

#[test]
fn there_is_no_wake_up_unless_it_is_set() {
    let key = ("USER_STATE_KEY", KEY);
    for (platform, variables) in [
        (Platform::SupabaseEdge, vec![key]),
        (Platform::SupabaseEdge, vec![key, ("WAKE_UP", "0")]),
        (Platform::Cloudflare, vec![key, ("WAKE_UP", "1")]),
    ] {
        let world = World::on(platform, Mode::Memory, &variables);
        let response = world.request(wake(&signed(START_MS)));
        assert_eq!((response.status, response.code().as_str()), (404, "not_found"), "{platform:?}");
        assert!(world.woken().is_empty(), "{platform:?}");
    }
    for method in ["GET", "PUT", "DELETE"] {
        let world = world();
        let response = world.request(request(method, PATH).user(None));
        assert_eq!((response.status, world.woken()), (404, vec![]), "{method}");
    }
}
