//! The requests to the user state as they are sent, and the replies of a real database to them: `tests/database` sends the same
//! requests to Postgres through PostgREST, and expects the same replies.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a fixture that cannot be read fails the test"
)]

use std::rc::Rc;

use ai_sessions::auth::credentials::Credentials;
use ai_sessions::citation::check::{Citation, Note};
use ai_sessions::citation::sentences::Passage;
use ai_sessions::config::Supabase;
use ai_sessions::http::problem::Code;
use ai_sessions::json::record::FromJson;
use ai_sessions::json_string::JsonString;
use ai_sessions::ports::{Lease, Polled};
use ai_sessions::supabase::user_state::{
    Commit, Reply, StoreResult, check, clock_of_refusal, poll, read, renew, signed, stop, store,
};
use ai_sessions::user_state::generation::{Accepted, Driver, Ending, Generation, SessionCandidate};
use ai_sessions::user_state::idempotency::IdempotencyRecord;
use ai_sessions::user_state::{UserState, Write, WriteSet};
use serde_json::{Value, json};
use uuid::Uuid;

const FIXTURE: &str = include_str!("../fixtures/user_state_requests.json");
const T: u64 = 1_800_000_000_000;
const KEY: &str = "the-key-of-the-service-in-these-tests-0123456789";
const USER: Uuid = Uuid::from_u128(0x4000_8000_0000_0000_0a01);
const RUNNER: Uuid = Uuid::from_u128(0x4000_8000_0000_0000_00f1);
const OTHER: Uuid = Uuid::from_u128(0x4000_8000_0000_0000_00f2);
const ONE: Uuid = Uuid::from_u128(0x4000_8000_0000_0000_0001);
const TWO: Uuid = Uuid::from_u128(0x4000_8000_0000_0000_0002);

fn candidate(number: u128) -> Rc<SessionCandidate> {
    let id = Uuid::from_u128(number);
    let text = |name: &str| [name, " \"quoted\", \\, \u{e9} and \u{1f600}"].concat();
    let citation = Citation {
        source: Some(Passage { start: 0, end: 12 }),
        supported: Some(true),
        notes: vec![Note::AnswerInQuestion],
    };
    Rc::new(SessionCandidate {
        id,
        front: text("front"),
        back: text("back"),
        prompt: text("prompt"),
        citation,
    })
}

fn generation(id: Uuid, started_ms: u64) -> Generation {
    let accepted = Accepted {
        id,
        run: 1,
        user_id: USER,
        input_text: JsonString::new("A text with \"quotes\",\n\u{e9} and \u{1f600}."),
        model: Rc::from("a/one"),
        credentials: Credentials { token: Rc::from("secret.token"), expires_ms: T + 1, traceparent: None },
        referer: Rc::from("https://cards.example"),
        no_cache: true,
    };
    let reservation = FromJson::read(T.to_string().as_bytes()).expect("a reservation is its moment");
    Generation::new(accepted, reservation, 60_000, started_ms)
}

fn ending() -> Ending {
    Ending::failed(Code::AiTimeout, 2, T + 60_000)
}

/// The state after the first store.
fn state() -> UserState {
    let mut one = generation(ONE, T + 1);
    one.candidates = vec![candidate(11), candidate(12)];
    UserState {
        // Not in the order of their acceptance, to which the database sorts them.
        generations: vec![one, Generation { ending: Some(ending()), ..generation(TWO, T) }],
        records: vec![IdempotencyRecord {
            key: "key-1".to_owned(),
            fingerprint: Uuid::from_u128(78),
            session_id: ONE,
            run: 1,
            request: Uuid::from_u128(77),
            created_ms: T,
            outcome: None,
            is_final: false,
        }],
        rejected_until_ms: T + 5,
        ..UserState::default()
    }
}

/// The requests of all purposes, in the order in which they are sent.
fn requests() -> Vec<(&'static str, String)> {
    let commit = |version, commits| Commit { user: USER, runner: RUNNER, version, commits, wake_up: None };
    let first = ["00000000000000c1".to_owned()];
    let both = [first[0].clone(), "00000000000000c2".to_owned()];
    let everything = WriteSet::from([
        Write::Ledger,
        Write::RemoveGeneration(ONE),
        Write::Generation(ONE),
        Write::Generation(TWO),
        Write::Candidates(ONE, 0),
        Write::Lease(ONE),
        Write::Release(TWO),
        Write::IdempotencyRecord(ONE),
        Write::RemoveIdempotencyRecords(T),
        // Of a generation and a record that the decision has removed again.
        Write::Lease(Uuid::nil()),
        Write::IdempotencyRecord(Uuid::nil()),
    ]);
    let mut later = state();
    later.generations[0].candidates.push(candidate(13));
    later.generations[0].ending = Some(ending());
    let more = WriteSet::from([Write::Candidates(ONE, 2), Write::Ending(ONE), Write::Release(ONE)]);
    let store = |version, commits, state: &UserState, writes: &WriteSet| {
        store(&commit(version, commits), state, writes).expect("the records can be written")
    };
    vec![
        ("check", check()),
        ("read nothing", read(USER)),
        ("poll nothing", poll(USER, ONE, 0)),
        ("store", store(0, &first, &state(), &everything)),
        ("conflict", store(0, &first, &state(), &everything)),
        ("read", read(USER)),
        ("stop", stop(USER, ONE, T + 1)),
        ("stop another run", stop(USER, ONE, T)),
        ("renew", renew(USER, RUNNER, ONE)),
        ("renew a lease of another", renew(USER, OTHER, ONE)),
        ("store more", store(1, &both, &later, &more)),
        ("poll", poll(USER, ONE, 2)),
        ("remove", store(2, &both, &UserState::default(), &WriteSet::from([Write::RemoveAll]))),
        ("read no more", read(USER)),
    ]
}

fn fixture() -> Vec<Value> {
    let fixture: Value = serde_json::from_str(FIXTURE).expect("the fixture is JSON");
    fixture["requests"].as_array().expect("it has requests").clone()
}

fn reply(name: &str) -> Reply {
    let found = fixture().into_iter().find(|request| request["name"] == name);
    let found = found.unwrap_or_else(|| panic!("no reply to {name}"));
    Reply::read(found["reply"].to_string().as_bytes()).expect("the reply is one")
}

#[test]
fn each_request_is_the_one_of_the_fixture() {
    let supabase = Supabase {
        url: "https://p.supabase.co".to_owned(),
        anon_key: "anon".to_owned(),
        jwt_secret: None,
        jwks: None,
    };
    let fixture = fixture();
    let mut written = Vec::new();
    for (name, members) in requests() {
        let request = signed(&supabase, KEY, &members, T);
        assert_eq!(request.url, "https://p.supabase.co/rest/v1/rpc/transact_ai_user_state");
        let body: Value = serde_json::from_slice(&request.body).expect("the body is JSON");
        let reply = fixture.iter().find(|request| request["name"] == name).map(|request| &request["reply"]);
        written.push(json!({ "name": name, "body": body, "reply": reply }));
    }
    let is_same = Value::from(written.clone()) == Value::from(fixture);
    let expected = json!({ "key": KEY, "user": USER, "at_ms": T, "requests": written });
    assert!(is_same, "tests/fixtures/user_state_requests.json must be\n{expected}");
}

#[test]
fn no_request_has_an_access_token() {
    assert!(!FIXTURE.contains("secret.token"));
}

#[test]
fn a_stored_state_is_read_back() {
    let empty = reply("read nothing").into_state(RUNNER).expect("it is a state");
    assert_eq!((empty.version, empty.state.is_empty(), empty.commits.len()), (0, true, 0));

    let stored = reply("read").into_state(RUNNER).expect("it is a state");
    assert_eq!((stored.version, stored.commits), (1, vec!["00000000000000c1".to_owned()]));
    let mut expected = state();
    expected.generations.reverse();
    for generation in &mut expected.generations {
        let credentials = &mut generation.accepted.credentials;
        (credentials.token, credentials.expires_ms) = (Rc::from(""), 0);
        generation.driver = Driver::Own;
    }
    // It has ended.
    expected.generations[0].reservation = None;
    assert_eq!(stored.state.generations, expected.generations);
    assert_eq!(stored.state.records, expected.records);
    assert_eq!(stored.state.rejected_until_ms, T + 5);

    let drivers = |runner| {
        let state = reply("read").into_state(runner).expect("it is a state").state;
        state.generations.iter().map(|generation| generation.driver).collect::<Vec<_>>()
    };
    assert_eq!(drivers(OTHER), [Driver::Lapsed, Driver::Other]);

    let empty = reply("read no more").into_state(RUNNER).expect("it is a state");
    assert_eq!((empty.version, empty.state.is_empty(), empty.commits.len()), (3, true, 2));
}

#[test]
fn a_store_has_its_version_or_the_state_of_a_conflict() {
    let result = |name| reply(name).into_result(RUNNER).expect("it is a result");
    let StoreResult::Stored { version: 1, stops } = result("store") else { panic!("it is stored") };
    assert!(stops.is_empty());
    let StoreResult::Stored { version: 2, stops } = result("store more") else { panic!("it is stored") };
    assert_eq!(stops, [ONE]);
    let StoreResult::Conflict(stored) = result("conflict") else { panic!("it is a conflict") };
    assert_eq!((stored.version, stored.state.generations.len()), (1, 2));
}

#[test]
fn a_poll_has_the_generation_and_its_candidates() {
    assert_eq!(reply("poll nothing").into_polled(RUNNER), Ok(None));
    let expected = Polled {
        started_ms: T + 1,
        ending: Some(ending()),
        driver: Driver::Own,
        is_stop_requested: true,
        candidates: vec![candidate(13)],
    };
    assert_eq!(reply("poll").into_polled(RUNNER), Ok(Some(expected)));
}

#[test]
fn a_renewal_and_a_stop_have_their_results() {
    let lease = |name| reply(name).into_lease(ONE);
    assert_eq!(lease("renew"), Ok(Lease::Renewed { is_stop_requested: true }));
    assert_eq!(lease("renew a lease of another"), Ok(Lease::Lost));
    assert_eq!(reply("stop").into_found(), Ok(true));
    assert_eq!(reply("stop another run").into_found(), Ok(false));
    assert_eq!(reply("check").clock_ms, T);
}

#[test]
fn a_reply_without_its_members_is_not_read() {
    let bare = || Reply::read(b"{\"clock_ms\":1}").expect("it has a clock");
    assert!(bare().into_state(RUNNER).is_err() && bare().into_result(RUNNER).is_err());
    assert!(bare().into_polled(RUNNER).is_err() && bare().into_lease(ONE).is_err());
    assert!(bare().into_found().is_err());
    for text in [
        "",
        "null",
        "[]",
        "{}",
        "<html>",
        "{\"clock_ms\":-1}",
        "{\"clock_ms\":1",
        "{\"clock_ms\":1}<",
        "{\"clock_ms\":1,\"version\":\"2\"}",
        "{\"clock_ms\":1,\"ledger\":7}",
        "{\"clock_ms\":1,\"conflict\":1}",
        "{\"clock_ms\":1,\"generations\":{}}",
        "{\"clock_ms\":1,\"generations\":[{\"stop\":null}]}",
        "{\"clock_ms\":1,\"generation\":{\"runner\":\"no id\",\"stop\":true}}",
        "{\"clock_ms\":1,\"generation\":{\"started_ms\":\"1\",\"stop\":true}}",
        "{\"clock_ms\":1,\"stops\":[\"no id\"]}",
        "{\"clock_ms\":1,\"idempotency_records\":[{}]}",
    ] {
        assert!(Reply::read(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn the_clock_of_a_refusal_is_read() {
    let refusal = |code: &str| json!({ "code": code, "details": T.to_string(), "message": "m" }).to_string();
    assert_eq!(clock_of_refusal(refusal("PT412").as_bytes()), Some(T));
    assert_eq!(clock_of_refusal(refusal("PT413").as_bytes()), None);
    assert_eq!(clock_of_refusal(b"{\"code\":\"PT412\",\"details\":null}"), None);
    assert_eq!(clock_of_refusal(b"<html>"), None);
}
