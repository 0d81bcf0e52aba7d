//! `src/edge/openapi.json` against the code, in both directions: a name in one and not in the other fails. Over HTTP,
//! `tests/service/service.ts` validates every response against it, and `tests/service/openapi.ts` sends its examples.
//! `tests/scripts/static_assets.test.ts` checks the page that is made of it.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a document that cannot be read fails the test; a member that is not there is null"
)]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use ai_sessions::citation::check::{Citation, Note};
use ai_sessions::citation::record::Coverage;
use ai_sessions::citation::sentences::Passage;
use ai_sessions::config::{AllowedOrigins, Config, LogLevel, Platform};
use ai_sessions::edge::documents::{Check, Health, Model, Models, Ready, Sessions};
use ai_sessions::edge::endpoints::docs::docs;
use ai_sessions::edge::endpoints::openapi::openapi;
use ai_sessions::edge::events::{End, EventList};
use ai_sessions::edge::execute::Received;
use ai_sessions::edge::render::{created, found, render};
use ai_sessions::edge::routes::TABLE;
use ai_sessions::generation::candidate;
use ai_sessions::generation::usage::Usage;
use ai_sessions::http::problem::{Code, FieldError, Problem, ProblemContext, SpendLimit};
use ai_sessions::http::{Response, cors, idempotency_key, rate_limit, to_json};
use ai_sessions::input::{new_session, page};
use ai_sessions::json::record;
use ai_sessions::ports::{Assets, Log};
use ai_sessions::quota::{ATTEMPTS, BURST, CONCURRENT, GENERATIONS, Ledger, READS, Refusal, SPEND};
use ai_sessions::user_object::reply::{Cause, Executed, Failure, LogFields, Reply, SessionDocument};
use ai_sessions::user_object::session_view::SessionView;
use ai_sessions::user_state::generation::SessionCandidate;
use futures_executor::block_on;
use serde_json::{Value, json};
use uuid::Uuid;

fn document() -> Value {
    serde_json::from_str(include_str!("../../src/edge/openapi.json")).expect("it is JSON")
}

fn schema(name: &str) -> Value {
    let found = document()["components"]["schemas"][name].clone();
    assert!(found.is_object(), "there is no schema {name}");
    found
}

fn names(object: &Value) -> BTreeSet<String> {
    object.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
}

fn strings(array: &Value) -> BTreeSet<String> {
    array.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn set<T: Into<String>>(all: impl IntoIterator<Item = T>) -> BTreeSet<String> {
    all.into_iter().map(Into::into).collect()
}

/// Resolves a reference.
fn resolved(value: &Value) -> Value {
    let Some(path) = value["$ref"].as_str() else { return value.clone() };
    document().pointer(path.trim_start_matches('#')).expect("a reference has a target").clone()
}

/// Every documented response, with its operation and status.
fn responses() -> Vec<(String, String, Value)> {
    let document = document();
    let mut all = Vec::new();
    let mut add = |of: &str, responses: &Value| {
        for (status, response) in responses.as_object().into_iter().flatten() {
            all.push((of.to_owned(), status.clone(), resolved(response)));
        }
    };
    for (path, item) in document["paths"].as_object().expect("it has paths") {
        for (method, operation) in item.as_object().expect("it has operations") {
            add(&[method, " ", path].concat(), &operation["responses"]);
        }
    }
    add("other requests", &document["x-other-requests"]["responses"]);
    all
}

#[test]
fn the_documents_version_is_that_of_the_crate() {
    assert_eq!(document()["info"]["version"], env!("CARGO_PKG_VERSION"));
}

/// A deployment with these assets, or without any.
struct Deployment {
    assets: Vec<(&'static str, String)>,
    logged: RefCell<Vec<String>>,
}

impl Assets for Deployment {
    async fn asset(&self, name: &str) -> Option<Vec<u8>> {
        let found = self.assets.iter().find(|(asset, _)| *asset == name);
        found.map(|(_, text)| text.as_bytes().to_vec())
    }
}

impl Log for Deployment {
    fn log(&self, level: LogLevel, line: &str) {
        assert_eq!(level, LogLevel::Error);
        self.logged.borrow_mut().push(line.to_owned());
    }
}

fn deployed(assets: &[(&'static str, &str)]) -> Deployment {
    let assets = assets.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
    Deployment { assets, logged: RefCell::default() }
}

#[test]
fn the_two_documents_are_the_assets_of_the_deployment() {
    let host = deployed(&[("openapi.json", "{}"), ("docs.html", "<p>")]);
    assert_eq!(block_on(openapi(&host, None)).map(|response| response.body), Ok(b"{}".to_vec()));
    assert_eq!(block_on(docs(&host)).map(|response| response.body), Ok(b"<p>".to_vec()));
    assert!(host.logged.borrow().is_empty());
}

#[test]
fn the_server_of_the_document_is_the_public_url() {
    let served = |public_url| {
        // Without white space, as `npm run build` makes it.
        let host = deployed(&[("openapi.json", &document().to_string())]);
        let response = block_on(openapi(&host, public_url)).expect("the asset is there");
        serde_json::from_slice::<Value>(&response.body).expect("it is JSON")
    };
    assert!(served(None) == document(), "the asset has its own server");
    for public_url in ["https://cards.example", "https://p.supabase.co/functions/v1/flashcards"] {
        let mut expected = document();
        expected["servers"][0]["url"] = json!(public_url);
        assert!(served(Some(public_url)) == expected, "{public_url}");
    }
}

#[test]
fn a_missing_asset_is_internal_and_logged() {
    let host = deployed(&[]);
    assert_eq!(block_on(openapi(&host, None)).map_err(|problem| problem.code), Err(Code::Internal));
    assert_eq!(block_on(docs(&host)).map_err(|problem| problem.code), Err(Code::Internal));
    let line = |asset: &str| json!({ "level": "error", "message": "asset missing", "asset": asset });
    let logged: Vec<Value> = host.logged.borrow().iter().map(|line| written(line.as_bytes())).collect();
    assert_eq!(logged, [line("openapi.json"), line("docs.html")]);
}

#[test]
fn every_route_is_documented_and_no_other() {
    let document = document();
    let mut documented = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("it has paths") {
        for method in names(item).iter().filter(|name| *name != "parameters") {
            documented.insert([&method.to_uppercase(), " ", path].concat());
        }
    }
    assert_eq!(documented, set(TABLE.iter().map(|(method, path, _)| [*method, " ", *path].concat())));
}

#[test]
fn every_code_is_documented_with_its_title_and_no_other() {
    let documented: Vec<(String, String)> = schema("ProblemCode")["oneOf"]
        .as_array()
        .expect("it is a list")
        .iter()
        .map(|row| {
            (
                row["const"].as_str().expect("a code").to_owned(),
                row["title"].as_str().expect("a title").to_owned(),
            )
        })
        .collect();
    let expected: Vec<(String, String)> =
        Code::ALL.iter().map(|code| (code.name().to_owned(), code.title().to_owned())).collect();
    assert_eq!(documented, expected);
}

#[test]
fn every_code_is_in_a_response_of_its_status_with_an_example() {
    let mut documented = BTreeSet::new();
    for (of, status, response) in responses() {
        let body = &response["content"]["application/problem+json"];
        let codes = strings(&body["schema"]["properties"]["code"]["enum"]);
        assert_eq!(codes.is_empty(), body.is_null(), "{of} {status}: which codes?");
        for name in &codes {
            let code = Code::from_name(name).expect("it is a code");
            assert_eq!(status, code.status().to_string(), "{of}: {name}");
        }
        let examples =
            body["examples"].as_object().into_iter().flatten().map(|(_, example)| resolved(example));
        let shown: BTreeSet<String> = examples
            .map(|example| {
                let example = &example["value"];
                let name = example["code"].as_str().expect("it has a code");
                let code = Code::from_name(name).expect("it is a code");
                assert_eq!(example["title"], code.title());
                assert_eq!(example["status"], code.status());
                assert_eq!(example["retryable"], code.retryable().map_or(Value::Null, Value::Bool), "{name}");
                name.to_owned()
            })
            .collect();
        assert_eq!(shown, codes, "{of} {status}: the codes and their examples");
        documented.extend(codes);
    }
    assert_eq!(documented, set(Code::ALL.iter().map(|code| code.name())));
}

#[test]
fn private_operations_require_authentication() {
    let document = document();
    for (path, item) in document["paths"].as_object().expect("it has paths") {
        for method in names(item).iter().filter(|name| *name != "parameters") {
            let operation = &item[method];
            let is_private = path.starts_with("/ai-sessions");
            assert_eq!(operation.get("security").is_some(), is_private, "{method} {path}");
            assert_eq!(names(&operation["responses"]).contains("401"), is_private, "{method} {path}");
            assert!(
                names(&operation["responses"]).contains("500"),
                "{method} {path}: internal can come anywhere"
            );
        }
    }
}

/// The members of a schema: all of them, and the required ones.
fn members(name: &str) -> [BTreeSet<String>; 2] {
    let schema = schema(name);
    let parts = schema["allOf"]
        .as_array()
        .map_or_else(|| vec![schema.clone()], |parts| parts.iter().map(resolved).collect());
    let all = parts.iter().flat_map(|part| names(&part["properties"])).collect();
    [all, parts.iter().flat_map(|part| strings(&part["required"])).collect()]
}

/// The schema has the members of the fullest document, and requires those of the least.
fn assert_members(name: &str, fullest: &Value, least: &Value) {
    assert_eq!(members(name), [names(fullest), names(least)], "{name}");
}

fn written(document: &[u8]) -> Value {
    serde_json::from_slice(document).expect("it is JSON")
}

const USAGE: Usage = Usage { prompt_tokens: 1, completion_tokens: 2, cost: 0.5 };

fn candidate() -> Rc<SessionCandidate> {
    let (id, front, back, prompt) = (Uuid::nil(), "f".to_owned(), "b".to_owned(), "p".to_owned());
    let citation = Citation {
        source: Some(Passage { start: 0, end: 1 }),
        supported: Some(true),
        notes: Note::ALL.to_vec(),
    };
    Rc::new(SessionCandidate { id, front, back, prompt, citation })
}

fn session() -> SessionView {
    SessionView {
        id: Uuid::nil(),
        run: 1,
        model: "a/b".into(),
        created_at: "2026-11-24T12:00:00.000Z".to_owned(),
        ended_at: Some("2026-11-24T12:00:09.000Z".to_owned()),
        failure: None,
        retry_after_s: None,
        partial: false,
        usage: Some(USAGE),
        was_reused: None,
        candidate_count: 1,
        candidates: vec![candidate()],
        coverage: Some(Coverage(67)),
        is_persisted: true,
        is_blocked: false,
    }
}

#[test]
fn every_member_of_a_document_is_documented_and_no_other() {
    let check = |text: Option<&str>| Check {
        name: "database",
        ok: true,
        latency_ms: 1,
        detail: text.map(str::to_owned),
        since: text.map(str::to_owned),
    };
    let view = session();
    let created = view.created().expect("it is persisted");
    let session = written(&view.document().json);
    let list = record::to_json(&Sessions { sessions: vec![view.summary()], next: None });
    let list = written(list.as_bytes());
    let models = written(&to_json(&Models { models: vec![Model { id: "a/b", default: true }] }));
    let ready = written(&to_json(&Ready { status: "ok", checks: &[check(Some("d")), check(None)] }));
    for (name, document) in [
        ("Created", &written(&created.json)),
        ("Candidate", &session["candidates"][0]),
        ("Source", &session["candidates"][0]["source"]),
        ("Session", &session),
        ("SessionList", &list),
        ("SessionSummary", &list["sessions"][0]),
        ("Usage", &session["usage"]),
        ("Models", &models),
        ("Model", &models["models"][0]),
        ("Health", &written(&to_json(&Health { status: "ok", version: "1" }))),
        ("Ready", &ready),
    ] {
        assert_members(name, document, document);
    }
    assert_members("Check", &ready["checks"][0], &ready["checks"][1]);
}

fn context() -> ProblemContext {
    ProblemContext { origin: "https://a.example".to_owned(), request_id: "r".to_owned() }
}

#[test]
fn every_member_of_a_problem_is_documented_and_no_other() {
    let field_error = |size: Option<u64>| FieldError {
        field: String::new(),
        code: "length",
        message: String::new(),
        min: size,
        max: size,
        actual: size,
    };
    let mut problem = Problem::new(Code::DatabaseError, "d");
    problem.errors = vec![field_error(Some(1)), field_error(None)];
    problem.violated_policies = vec![BURST];
    problem.spend =
        Some(Box::new(SpendLimit { limit: "1".to_owned(), remaining: "0".to_owned(), window_s: 1 }));
    let fullest = written(&problem.to_json(&context()));
    let least = written(&Problem::new(Code::Internal, "d").to_json(&context()));
    assert_members("Problem", &fullest, &least);
    assert_members("SpendLimit", &fullest["spend"], &fullest["spend"]);
    assert_members("FieldError", &fullest["errors"][0], &fullest["errors"][1]);
    assert_eq!(
        strings(&schema("Problem")["properties"]["violated-policies"]["items"]["enum"]),
        set([BURST, GENERATIONS, ATTEMPTS, SPEND, CONCURRENT, READS])
    );
}

#[test]
fn every_event_of_a_stream_is_documented_and_no_other() {
    let mut stream = Vec::new();
    let mut list = EventList::new(Uuid::nil(), 1, None);
    list.begin(&mut stream);
    list.candidates(&mut stream, &[candidate()]);
    list.end(&mut stream, 1, End::Done { partial: false, usage: Some(USAGE), coverage: Some(Coverage(67)) });
    EventList::new(Uuid::nil(), 1, None).end(&mut stream, 0, End::Failed(b"{}"));
    let stream = String::from_utf8(stream).expect("it is text");
    let documented = &schema("EventStream")["x-events"];
    let mut written_events = BTreeSet::new();
    for event in stream.split_terminator("\n\n") {
        let field = |name: &str| {
            let lines = event.lines().filter_map(|line| line.split_once(": "));
            lines.filter(|(field, _)| *field == name).map(|(_, value)| value.to_owned()).collect::<String>()
        };
        let (name, data) = (field("event"), field("data"));
        let schema = documented[&name]["$ref"]
            .as_str()
            .expect("it has a schema")
            .rsplit('/')
            .next()
            .expect("a name")
            .to_owned();
        if schema != "Problem" {
            let data = written(data.as_bytes());
            assert_members(&schema, &data, &data);
        }
        written_events.insert(name);
    }
    assert_eq!(names(documented), written_events);
}

#[test]
fn every_limit_is_that_of_the_code() {
    let document = document();
    let at = |pointer: &str| document.pointer(pointer).cloned().unwrap_or_default();
    for (pointer, limit) in [
        (
            "/components/schemas/NewSession/properties/input_text/minLength",
            json!(new_session::INPUT_TEXT_MIN),
        ),
        (
            "/components/schemas/NewSession/properties/input_text/maxLength",
            json!(new_session::INPUT_TEXT_MAX),
        ),
        ("/components/schemas/SessionList/properties/sessions/maxItems", json!(page::LIMIT_MAX)),
        ("/paths/~1ai-sessions/get/parameters/0/schema/default", json!(page::LIMIT_DEFAULT)),
        ("/paths/~1ai-sessions/get/parameters/0/schema/maximum", json!(page::LIMIT_MAX)),
    ] {
        assert_eq!(at(pointer), limit, "{pointer}");
    }
    for (pointer, limit) in [
        ("/paths/~1ai-sessions/post/requestBody/description", new_session::BODY_BYTES_MAX.to_string()),
        ("/components/parameters/Idempotency-Key/description", idempotency_key::KEY_CHARS_MAX.to_string()),
    ] {
        assert!(
            at(pointer).as_str().is_some_and(|text| text.contains(&limit)),
            "{pointer} does not say {limit}"
        );
    }
    for name in ["Candidate", "CandidateEvent"] {
        for (field, chars_max) in candidate::CHARS_MAX {
            assert_eq!(schema(name)["properties"][field]["maxLength"], chars_max, "{name}: {field}");
        }
    }
    let source = &schema("Source")["properties"];
    assert_eq!([&source["start"]["minimum"], &source["end"]["minimum"]], [0, 1]);
    assert_eq!(source["start"]["maximum"], new_session::INPUT_TEXT_MAX - 1);
    assert_eq!(source["end"]["maximum"], new_session::INPUT_TEXT_MAX);
}

#[test]
fn every_note_is_documented_and_allowed_by_the_database() {
    let notes = set(Note::ALL.iter().map(|note| note.code()));
    assert_eq!(strings(&schema("Notes")["items"]["enum"]), notes);
    let migration = include_str!("../../migrations/20261128130000_flashcard_candidates_source.sql");
    let allowed = migration.split("array_position(notes, '").skip(1);
    let allowed = allowed.map(|rest| rest.split('\'').next().expect("a code"));
    assert_eq!(set(allowed), notes);
}

fn config() -> Config {
    let config = Config::read(Platform::Cloudflare, |name| {
        ["SUPABASE_URL", "SUPABASE_ANON_KEY", "OPENROUTER_API_KEY"]
            .contains(&name)
            .then(|| "https://a.example/of/32/characters".to_owned())
    });
    config.expect("the required variables are set")
}

/// Every reply of the user object.
fn replies() -> Vec<Reply> {
    let document = |is_generating, was_reused| SessionDocument {
        id: Uuid::nil(),
        is_generating,
        was_reused,
        json: Vec::new(),
    };
    let refusal = Refusal { violated: vec![BURST], retry_after_s: 1 };
    let causes = Code::ALL.iter().copied().map(Cause::Generation).chain([
        Cause::NotPersisted,
        Cause::NotReadable,
        Cause::TokenExpired,
        Cause::UnknownUser,
        Cause::Storage,
        Cause::Lost,
    ]);
    let mut replies = vec![Reply::Counted, Reply::LimitExceeded(refusal), Reply::NotFound];
    for was_reused in [None, Some(true), Some(false)] {
        replies.push(Reply::Session(document(false, was_reused)));
    }
    replies.push(Reply::Session(document(true, None)));
    replies.push(Reply::Accepted(document(true, None)));
    replies.extend([Reply::Subscribed(Uuid::nil()), Reply::Stopped, Reply::NotRunning, Reply::KeyReused]);
    replies.extend(
        causes.map(|cause| Reply::Failed(Failure { cause, is_blocked: false, retry_after_s: Some(1) })),
    );
    for reply in &replies {
        // Another variant does not compile here, until it is added above.
        match reply {
            Reply::Counted | Reply::LimitExceeded(_) | Reply::NotFound | Reply::Session(_) => {}
            Reply::Accepted(_) | Reply::Subscribed(_) | Reply::Stopped | Reply::NotRunning => {}
            Reply::KeyReused | Reply::Failed(_) => {}
        }
    }
    replies
}

/// The responses to each reply, and of each problem.
fn rendered() -> Vec<Response> {
    let config = config();
    let quota = Ledger::default().status(&config.rate_limit, 0);
    let mut responses = Vec::new();
    for reply in replies() {
        for on_session in [created, found] {
            let executed = Executed {
                reply: reply.clone(),
                quota: Some(quota),
                refusal_lasts_ms: None,
                log: LogFields::default(),
            };
            let received = Received { executed, body: () };
            let rendered = render(received, &config, &context(), on_session);
            let (mut outgoing, _) = rendered.expect("a reply has a response");
            responses.push(outgoing.response_mut().clone());
        }
    }
    responses.extend(Code::ALL.iter().map(|code| Problem::new(*code, "d").to_response(&context())));
    responses
}

#[test]
fn every_response_header_is_documented_and_no_other() {
    let document = document();
    let listed = |field: &str| {
        let names = field.split(',').map(|name| name.trim().to_ascii_lowercase());
        names.filter(|name| !name.is_empty()).collect::<BTreeSet<String>>()
    };
    let lower = |names: BTreeSet<String>| set(names.iter().map(|name| name.to_ascii_lowercase()));
    let cors = cors::headers(
        &AllowedOrigins::Exactly(vec!["https://a.example".to_owned()]),
        Some("https://a.example"),
    );
    let preflight = cors::preflight();
    let page = block_on(docs(&deployed(&[("docs.html", "")]))).expect("the asset is there");
    let rendered = rendered();
    let of_page = rendered.iter().flat_map(|response| &response.headers).map(|(name, _)| *name);
    // The last two are added by `edge::handle`.
    let of_page = set(of_page.chain(["x-request-id", "server-timing"]));
    let mut sent = of_page.clone();
    sent.extend(
        cors.iter().chain(&preflight.headers).chain(&page.headers).map(|(name, _)| (*name).to_owned()),
    );
    sent.insert("allow".to_owned()); // by `edge::handle`, to a method that the path does not have
    sent.remove("content-type"); // the key of `content`
    assert_eq!(lower(names(&document["components"]["headers"])), sent);

    // Fetch, section 2.2.2: a page may read these without their being exposed.
    let safelisted = set(["cache-control", "content-type"]);
    let exposed = cors.iter().find(|(name, _)| *name == "access-control-expose-headers");
    let exposed = listed(&exposed.expect("it is there").1);
    assert_eq!(exposed, of_page.difference(&safelisted).cloned().collect());
    for (name, sent) in cors.iter().chain(&preflight.headers).chain(&page.headers) {
        let documented = document["components"]["headers"].as_object().into_iter().flatten();
        let Some((_, documented)) =
            documented.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name))
        else {
            continue;
        };
        let example = &documented["example"];
        let example = example.as_str().map_or_else(|| example.to_string(), str::to_owned);
        if !["cache-control", "access-control-allow-origin"].contains(name) {
            assert_eq!(*sent, example, "{name}");
        }
    }

    let allowed = preflight.header("access-control-allow-headers").expect("it is there");
    let mut parameters = lower(names(&document["components"]["parameters"]));
    assert!(parameters.remove("id"));
    // OpenAPI 3.1, Parameter Object: definitions of these three "SHALL be ignored".
    parameters.extend(set(["accept", "content-type", "authorization"]));
    assert_eq!(listed(allowed), parameters);
}

#[test]
fn the_example_of_the_rate_limit_policy_is_the_default_one() {
    assert_eq!(
        document()["components"]["headers"]["RateLimit-Policy"]["example"],
        rate_limit::rate_limit_policy(&config().rate_limit)
    );
}
