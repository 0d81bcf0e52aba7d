//! Where a candidate comes from: the same in every response, from the object and from the database, also after a crash.

#![expect(clippy::expect_used, reason = "a response without its parts fails the test")]

use serde_json::{Value, json};

use crate::scripted_client::{
    ClientBody, ClientRequest, ClientResponse, delete, events_of, get, get_events, post_text,
};
use crate::scripted_database::{Failure, Operation};
use crate::scripted_host::Reply;
use crate::scripted_model::{candidate_from, delta, model_error, stream};
use crate::scripted_store::Mode;
use crate::scripted_world::World;

const MODES: [Mode; 3] = [Mode::Rows, Mode::Memory, Mode::Shared];
/// 20 sentences of 60 characters, without the space between them.
const SENTENCES: usize = 20;
const CHARS: usize = 60;

/// A text whose characters have up to four bytes.
fn text() -> String {
    let sentence = |number: usize| {
        format!("{:\u{e9}<width$}.", format!("Planet \u{1f600} {number:02} "), width = CHARS - 1)
    };
    (1..=SENTENCES).map(sentence).collect::<Vec<_>>().join(" ")
}

fn post() -> ClientRequest {
    post_text(&text())
}

/// The range of a sentence.
fn source(number: usize) -> Value {
    let start = (number - 1) * (CHARS + 1);
    json!({ "start": start, "end": start + CHARS })
}

/// An answer whose candidates name these sentences.
fn answer(named: &[Value]) -> Reply {
    let candidates = named.iter().enumerate().map(|(number, named)| candidate_from(number, named));
    let list = candidates.collect::<Vec<_>>().join(",");
    stream().say(delta(&format!("{{\"candidates\":[{list}]}}"))).say("data: [DONE]\n\n")
}

fn sources(document: &Value) -> Vec<Value> {
    let candidates = document["candidates"].as_array().expect("candidates");
    candidates.iter().map(|candidate| candidate["source"].clone()).collect()
}

/// The members of the list in a document, as they are written.
fn candidates_of(response: &ClientResponse) -> String {
    let text = String::from_utf8(response.bytes().to_vec()).expect("UTF-8");
    let at = text.find("\"candidates\":").expect("a list");
    text[at..].to_owned()
}

/// The whole text of a stream, live or from the database.
fn stream_text(response: &ClientResponse) -> String {
    match &response.body {
        ClientBody::Complete(bytes) => String::from_utf8(bytes.clone()).expect("UTF-8"),
        ClientBody::Stream(client) => client.text(),
    }
}

#[test]
fn every_response_says_where_a_candidate_comes_from() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(answer(&[
            json!([1]),
            json!("20"),
            json!([3, 5]),
            json!([99]),
            json!(null),
            json!({ "n": 4 }),
        ]));
        let created = world.request(post().key("k"));
        let (id, document) = (created.session(), created.json());
        let long = json!({ "start": source(3)["start"], "end": source(5)["end"] });
        assert_eq!(sources(&document), [source(1), source(20), long, json!(null), json!(null), json!(null)]);
        // 5 of 20 sentences.
        assert_eq!(document["coverage"], json!(0.25));
        for candidate in document["candidates"].as_array().expect("candidates") {
            assert!(!candidate["source"].is_null() || candidate["supported"].is_null(), "{candidate}");
            assert!(candidate["notes"].is_array(), "{candidate}");
        }
        world.run_for(60_000);
        let (found, replayed) = (world.request(get(id)), world.request(post().key("k")));
        assert_eq!(replayed.bytes(), created.bytes(), "{mode:?}: from the database");
        assert_eq!(candidates_of(&found), candidates_of(&created), "{mode:?}");
        let events = events_of(0, &stream_text(&world.request(get_events(id))));
        let (done, candidates) = events.split_last().expect("events");
        assert_eq!((done.name.as_str(), &done.data["coverage"]), ("done", &json!(0.25)));
        let without_index = candidates.iter().skip(1).map(|event| {
            let mut candidate = event.data.clone();
            candidate.as_object_mut().expect("an object").remove("index");
            candidate
        });
        assert_eq!(
            without_index.collect::<Vec<_>>(),
            *document["candidates"].as_array().expect("candidates")
        );
        assert_eq!(world.model_calls(), 1);
    }
}

#[test]
fn a_stream_has_the_same_bytes_from_the_object_and_the_database() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(answer(&[json!([2]), json!([4])]));
        let live = world.request(post().key("k").stream());
        let id = live.session();
        world.run_for(60_000);
        let stored = world.request(get_events(id));
        assert_eq!(stream_text(&stored), stream_text(&live), "{mode:?}");
        assert!(stream_text(&live).contains("\"coverage\":0.1}"), "{}", stream_text(&live));
    }
}

#[test]
fn candidates_without_a_source_cover_nothing() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(answer(&[json!([]), json!(true), json!([0])]));
        let created = world.request(post().key("k"));
        assert_eq!(created.candidates(), 3, "none is dropped");
        assert_eq!(created.json()["coverage"], json!(0.0), "{mode:?}");
        world.run_for(60_000);
        let row = world.database().row(created.session()).expect("a row");
        assert_eq!(row.coverage_percent, json!(0), "{mode:?}");
        assert_eq!(world.request(post().key("k")).bytes(), created.bytes(), "{mode:?}");
        let events = stream_text(&world.request(get_events(created.session())));
        assert!(events.contains("\"coverage\":0.0}"), "{events}");
    }
}

/// The response to a request whose host crashes after the first candidate, which names this sentence.
fn created_after_crash(world: &World, sentence: usize) -> ClientResponse {
    let cut = stream()
        .say(delta("{\"candidates\":["))
        .say(delta(&candidate_from(1, &json!([sentence]))))
        .wait(2_000)
        .say(delta("]}"));
    world.model(cut);
    let call = world.send(post().key("k"));
    world.run_for(1_000);
    world.crash();
    world.wait(&call)
}

#[test]
fn candidates_without_a_source_cover_nothing_after_a_crash() {
    for mode in MODES {
        let world = World::new(mode);
        let created = created_after_crash(&world, 99);
        assert_eq!((created.status, &created.json()["coverage"]), (201, &json!(0.0)), "{mode:?}");
    }
}

#[test]
fn a_failed_generation_has_no_coverage() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(model_error(403));
        let failed = world.request(post().key("k"));
        assert_eq!(failed.code(), "ai_refused", "{mode:?}");
        world.run_for(60_000);
        let (id, row) = world.database().rows().first().cloned().expect("a row");
        assert_eq!((row.status.as_str(), &row.coverage_percent), ("failed", &json!(null)), "{mode:?}: {id}");
    }
}

#[test]
fn a_source_survives_a_crash() {
    for mode in MODES {
        let world = World::new(mode);
        let created = created_after_crash(&world, 7);
        assert_eq!(
            (sources(&created.json()), &created.json()["coverage"]),
            (vec![source(7)], &json!(0.05)),
            "{mode:?}"
        );
        world.run_for(60_000);
        assert_eq!(world.request(post().key("k")).bytes(), created.bytes(), "{mode:?}");
    }
}

#[test]
fn a_source_is_kept_until_the_database_accepts_it() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(answer(&[json!([2])]));
        world.database().fail(Operation::Finish, &[Failure::Down; 12]);
        let failed = world.request(post().key("k"));
        assert_eq!(failed.code(), "database_error");
        let id = world.database().rows().first().expect("a row").0;
        // The text is removed after the first failed write: the coverage is of the end, and not computed again.
        let held = world.request(get(id));
        assert_eq!(held.session_status(), "completed", "{mode:?}");
        assert_eq!(sources(&held.json()), [source(2)]);
        world.run_for(600_000);
        world.let_owner_return();
        let created = world.request(post().key("k"));
        assert_eq!((created.status, &created.json()["coverage"]), (201, &json!(0.05)), "{mode:?}");
        assert_eq!(candidates_of(&world.request(get(id))), candidates_of(&held));
    }
}

#[test]
fn a_stopped_generation_has_its_coverage() {
    for mode in MODES {
        let world = World::new(mode);
        let hanging =
            stream().say(delta("{\"candidates\":[")).say(delta(&candidate_from(1, &json!([1, 2])))).hang();
        world.model(hanging);
        let call = world.send(post().key("k"));
        world.run_for(1_000);
        let id = world.database().rows().first().expect("a row").0;
        world.request(delete(id));
        let created = world.wait(&call);
        assert_eq!((created.status, &created.json()["coverage"]), (201, &json!(0.1)), "{mode:?}");
    }
}

#[test]
fn a_session_from_before_has_no_source() {
    let world = World::new(Mode::Memory);
    world.model(answer(&[json!([1])]));
    let created = world.request(post().key("k"));
    world.run_for(60_000);
    let mut row = world.database().row(created.session()).expect("a row");
    row.coverage_percent = Value::Null;
    for candidate in &mut row.candidates {
        for (column, value) in [
            ("source_start", json!(null)),
            ("source_end", json!(null)),
            ("supported", json!(null)),
            ("notes", json!([])),
        ] {
            candidate[column] = value;
        }
    }
    world.database().insert(created.session(), row);
    let replayed = world.request(post().key("k")).json();
    assert_eq!(replayed["coverage"], json!(null));
    let candidate = &replayed["candidates"][0];
    assert_eq!(
        [&candidate["source"], &candidate["supported"], &candidate["notes"]],
        [&json!(null), &json!(null), &json!([])]
    );
}
