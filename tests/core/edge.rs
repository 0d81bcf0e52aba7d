//! The edge: every endpoint with its errors, the delivery of commands, what every response carries, and the form of commands
//! and replies on the wire.

use std::rc::Rc;

use ai_sessions::auth::credentials::Credentials;
use ai_sessions::edge::wire::{read_command, read_reply, write_command, write_reply};
use ai_sessions::generation::usage::Usage;
use ai_sessions::http::problem::{Code, ProblemContext};
use ai_sessions::http::response_mode::ResponseMode;
use ai_sessions::http::sse::EventId;
use ai_sessions::json_string::JsonString;
use ai_sessions::ports::Clock as _;
use ai_sessions::quota::{
    ATTEMPTS, BURST, CONCURRENT, GENERATIONS, PolicyStatus, Refusal, SPEND, SpendStatus, UserQuota,
};
use ai_sessions::user_object::command::{Command, Generate, Operation};
use ai_sessions::user_object::reply::{Cause, Executed, Failure, LogFields, Reply, SessionDocument};
use ai_sessions::user_object::session_view::rfc3339;
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::scripted_client::{
    ClientRequest, ORIGIN, STRANGER, USER, delete, get, get_events, post, post_text, request,
};
use crate::scripted_database::{self, Failure as DatabaseFailure, Row};
use crate::scripted_host::Reply as Scripted;
use crate::scripted_model::{model_error, slow_answer};
use crate::scripted_store::Mode;
use crate::scripted_world::{Delivery, MeasuredPoint, START_MS, World};

const PAGE: &str = "https://page.example";

fn world() -> World {
    World::new(Mode::Memory)
}

fn anonymous(method: &'static str, path: &str) -> ClientRequest {
    request(method, path).user(None)
}

// Routes, and what every response has.

#[test]
fn an_unknown_path_is_not_found() {
    for path in ["/", "/ai-sessions/", "/ai-sessions/a/b", "/nothing", "/health/", "/Models"] {
        let response = world().request(anonymous("GET", path));
        assert_eq!((response.status, response.code().as_str()), (404, "not_found"), "{path}");
    }
}

#[test]
fn another_method_of_a_path_is_not_allowed() {
    for (method, path, allow) in [
        ("PUT", "/ai-sessions", "POST, GET, OPTIONS"),
        ("POST", "/ai-sessions/5d3e2c1b-0000-4000-8000-00000000000a", "GET, DELETE, OPTIONS"),
        ("DELETE", "/models", "GET, OPTIONS"),
        ("HEAD", "/health", "GET, OPTIONS"),
        ("POST", "/ai-sessions/x/events", "GET, OPTIONS"),
    ] {
        let response = world().request(anonymous(method, path));
        assert_eq!(
            (response.status, response.code().as_str()),
            (405, "method_not_allowed"),
            "{method} {path}"
        );
        assert_eq!(response.header("allow"), Some(allow), "{method} {path}");
    }
}

#[test]
fn a_preflight_of_any_path_is_answered() {
    for path in ["/ai-sessions", "/nothing"] {
        let response = world().request(anonymous("OPTIONS", path).with("origin", PAGE));
        assert_eq!(response.status, 204);
        assert_eq!(response.header("access-control-allow-methods"), Some("GET, POST, DELETE, OPTIONS"));
        assert_eq!(response.header("access-control-allow-origin"), Some(PAGE));
        assert!(response.header("x-request-id").is_some());
    }
}

#[test]
fn every_response_has_cors_headers_for_an_allowed_origin_only() {
    let world = world();
    for request in [
        anonymous("GET", "/health"),
        anonymous("GET", "/nothing"),
        request("GET", "/ai-sessions"),
        anonymous("GET", "/ai-sessions"),
        post(),
        post().stream(),
        post().body(b"{"),
    ] {
        let allowed = world.request(request.clone().with("origin", PAGE));
        assert_eq!(allowed.header("access-control-allow-origin"), Some(PAGE));
        assert!(
            allowed.header("access-control-expose-headers").expect("it is sent").contains("X-Request-Id")
        );
        let other = world.request(request.with("origin", "https://evil.example"));
        assert_eq!(other.header("access-control-allow-origin"), None);
        assert_eq!(other.header("vary"), Some("Origin"));
    }
}

#[test]
fn a_request_id_is_the_callers_uuid_or_a_new_one() {
    let world = world();
    let own = "0d9f0a50-7d0c-4f06-9b0c-1d3c7a1f2e11";
    let response = world.request(anonymous("GET", "/nothing").with("x-request-id", own));
    assert_eq!(response.header("x-request-id"), Some(own));
    assert_eq!(response.json()["request_id"], own);
    for other in ["", "1", "0d9f0a507d0c4f069b0c1d3c7a1f2e11", "{0d9f0a50-7d0c-4f06-9b0c-1d3c7a1f2e11}"] {
        let response = world.request(anonymous("GET", "/nothing").with("x-request-id", other));
        let id = response.header("x-request-id").expect("it is sent");
        assert_ne!(id, other);
        assert_eq!(Uuid::parse_str(id).expect("a UUID").get_version_num(), 7);
    }
}

#[test]
fn server_timing_has_the_stages_that_took_place() {
    let world = world();
    world.model(slow_answer(2, 1_000));
    let created = world.request(post());
    assert_eq!(
        created.header("server-timing"),
        Some("auth;dur=0, model;dur=2000, database;dur=0, total;dur=2000")
    );
    let health = world.request(anonymous("GET", "/health"));
    assert_eq!(health.header("server-timing"), Some("total;dur=0"));
}

#[test]
fn the_log_and_the_points_have_no_text_and_no_token() {
    let world = world();
    let secret_text = "confidential ".repeat(100);
    let token = world.token(USER, 3_600_000);
    let created = world.request(post_text(&secret_text).with("authorization", &["Bearer ", &token].concat()));
    let lines = world.log_lines();
    let line = lines.iter().find(|line| line["message"] == "request").expect("a line of the request");
    let id = created.session().to_string();
    assert_eq!(line["request_id"].as_str(), created.header("x-request-id"));
    let fields = json!({
        "level": "info", "message": "request", "request_id": line["request_id"], "method": "POST",
        "route": "/ai-sessions", "status": 201, "user": line["user"], "duration_ms": 0, "auth_ms": 0, "model_ms": 0,
        "database_ms": 0, "session_id": id, "model": "a/one", "attempts": 1,
        "usage": { "prompt_tokens": 7, "completion_tokens": 5, "cost": 0.5 },
    });
    assert_eq!(line, &fields);
    let log = world.log_text();
    for secret in ["confidential", token.as_str(), &USER.to_string(), "front 1", "the key of the model API"] {
        assert!(!log.contains(secret), "{secret}");
    }
    let points = format!("{:?}", world.points());
    assert!(points.contains("generation"));
    for secret in [
        "confidential",
        token.as_str(),
        &USER.to_string(),
        "front 1",
        "the key of the model API",
        id.as_str(),
    ] {
        assert!(!points.contains(secret), "{secret}");
    }
    world.request(anonymous("GET", "/nothing"));
    let lines = world.log_lines();
    let line = lines.last().expect("a line");
    assert_eq!(
        (&line["route"], &line["code"], line.get("user")),
        (&json!("none"), &json!("not_found"), None)
    );
}

#[test]
fn the_level_of_the_log_line_follows_the_code() {
    let world = world();
    world.model(model_error(402));
    world.request(post());
    (0..3).for_each(|_| world.model(model_error(503)));
    world.request(post());
    world.request(post().body(b"{"));
    let requests: Vec<_> = world
        .log_lines()
        .into_iter()
        .filter(|line| line["message"] == "request")
        .map(|line| line["level"].clone())
        .collect();
    assert_eq!(requests, ["error", "warn", "info"]);
}

#[test]
fn each_request_is_measured_by_one_point() {
    let world = world();
    world.model(slow_answer(2, 1_000));
    world.request(post());
    world.request(anonymous("GET", "/health"));
    world.request(anonymous("GET", "/nothing"));
    let is_request = |(texts, _): &MeasuredPoint| texts.len() == 4;
    let points: Vec<MeasuredPoint> = world.points().into_iter().filter(is_request).collect();
    let texts = |route: &str, method: &str, code: &str, model: &str| {
        [route, method, code, model].map(str::to_owned).to_vec()
    };
    assert_eq!(
        points,
        [
            (
                texts("/ai-sessions", "POST", "", "a/one"),
                vec![201.0, 2000.0, 0.0, 2000.0, 0.0, 1.0, 7.0, 5.0, 0.5]
            ),
            (texts("/health", "GET", "", ""), vec![200.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
            (texts("none", "GET", "not_found", ""), vec![404.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
        ]
    );
}

// Endpoints without authentication.

#[test]
fn health_calls_no_dependency_and_needs_no_configuration() {
    for world in [world(), World::with(Mode::Memory, &[("SUPABASE_URL", "")])] {
        let health = world.request(anonymous("GET", "/health"));
        assert_eq!(health.json(), json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }));
        assert!(world.host().sent().is_empty());
    }
}

#[test]
fn models_lists_the_allowed_ones_the_default_first() {
    let models = world().request(anonymous("GET", "/models"));
    assert_eq!(
        models.json(),
        json!({ "models": [{ "id": "a/one", "default": true }, { "id": "b/two", "default": false }] })
    );
}

#[test]
fn the_documents_are_assets_and_a_missing_one_is_logged() {
    for (path, asset) in [("/openapi.json", "openapi.json"), ("/docs", "docs.html")] {
        let world = World::with(Mode::Memory, &[("SUPABASE_URL", "")]);
        let missing = world.request(anonymous("GET", path));
        assert_eq!((missing.status, missing.code().as_str()), (500, "internal"));
        assert!(world.log_text().contains("asset missing"));
        world.add_asset(asset, b"<p>");
        let found = world.request(anonymous("GET", path));
        assert_eq!((found.status, found.bytes()), (200, &b"<p>"[..]));
    }
}

#[test]
fn an_invalid_configuration_is_logged_and_named_by_ready_alone() {
    let world = World::with(Mode::Memory, &[("SUPABASE_URL", "nonsense"), ("AI_MAX_ATTEMPTS", "0")]);
    for request in [post(), request("GET", "/ai-sessions"), anonymous("GET", "/models"), delete(USER)] {
        let response = world.request(request);
        assert_eq!((response.status, response.code().as_str()), (500, "internal"));
        assert!(!String::from_utf8_lossy(response.bytes()).contains("SUPABASE_URL"));
        assert!(response.header("x-request-id").is_some());
    }
    assert!(world.log_text().contains("SUPABASE_URL must be an absolute http(s) URL"));
    let ready = world.request(anonymous("GET", "/health/ready"));
    assert_eq!(ready.status, 503);
    let checks = ready.json()["checks"].clone();
    assert_eq!(checks.as_array().map(Vec::len), Some(2));
    assert_eq!(checks[0]["name"], "configuration");
}

#[test]
fn ready_checks_each_dependency_once_in_30_s() {
    let world = world();
    let keys = "/auth/v1/.well-known/jwks.json";
    world.host().always(keys, Scripted::new(200).say(json!({ "keys": [] }).to_string()));
    world.host().always("/v1/key", Scripted::new(200));
    let ready = world.request(anonymous("GET", "/health/ready"));
    assert_eq!((ready.status, &ready.json()["status"]), (200, &json!("ok")));
    let names: Vec<_> = ready.json()["checks"]
        .as_array()
        .expect("checks")
        .iter()
        .map(|check| check["name"].clone())
        .collect();
    assert_eq!(names, ["configuration", "auth_keys", "database", "model_api"]);
    let sent = world.host().sent().len();
    world.run_for(29_900);
    world.request(anonymous("GET", "/health/ready"));
    assert_eq!(world.host().sent().len(), sent, "the result is valid for 30 s");
    world.run_for(100);
    // Two at the same time share a check.
    let both = [(); 2].map(|()| world.send(anonymous("GET", "/health/ready")));
    assert!(both.iter().all(|call| world.wait(call).status == 200));
    assert_eq!(world.host().sent().len(), 2 * sent);
}

#[test]
fn ready_names_the_dependencies_that_are_down() {
    for (reply, detail) in [
        (Scripted::unreachable(), "no connection"),
        (Scripted::new(503), "status 503"),
        (Scripted::new(401), "the key is not taken"),
        (Scripted::silence(), "no answer in time"),
    ] {
        let world = world();
        world.host().always("/auth/v1/.well-known/jwks.json", Scripted::new(500));
        world.host().always("/v1/key", reply);
        let ready = world.request(anonymous("GET", "/health/ready"));
        assert_eq!(ready.status, 503);
        let checks = ready.json()["checks"].clone();
        assert_eq!((&checks[1]["ok"], &checks[1]["detail"]), (&json!(false), &json!("no usable key set")));
        assert_eq!(checks[2]["ok"], true, "the database is up");
        assert_eq!((&checks[3]["ok"], &checks[3]["detail"]), (&json!(false), &json!(detail)));
    }
}

#[test]
fn ready_states_since_when_a_dependency_has_been_down() {
    let world = world();
    let (keys, models) = ("/auth/v1/.well-known/jwks.json", "/v1/key");
    let published = || Scripted::new(200).say(json!({ "keys": [] }).to_string());
    let check = || {
        let ready = world.request(anonymous("GET", "/health/ready"));
        let checks = ready.json()["checks"].clone();
        let since = |index: usize| checks[index]["since"].clone();
        assert_eq!([since(0), since(2)], [json!(null), json!(null)], "they are available");
        world.run_for(30_000);
        [since(1), since(3)]
    };
    let now = || json!(rfc3339(world.now_ms()));

    // Down at the first check ever: since that check, also when it ends late.
    let first = now();
    world.host().always(keys, published());
    world.host().always(models, Scripted::silence());
    assert_eq!(check(), [json!(null), first.clone()]);
    // Still down, and another one with it: each has its own time.
    let second = now();
    world.host().always(keys, Scripted::new(500));
    assert_eq!(check(), [second.clone(), first]);
    // Available again, then down again.
    world.host().always(models, Scripted::new(200));
    assert_eq!(check(), [second.clone(), json!(null)]);
    let third = now();
    world.host().always(models, Scripted::new(503));
    assert_eq!(check(), [second, third]);
}

// Authentication.

#[test]
fn every_private_endpoint_requires_a_token() {
    let id = USER;
    for request in [post(), get(id), get_events(id), delete(id), request("GET", "/ai-sessions")] {
        for (authorization, code) in [
            (None, "missing_token"),
            (Some("Bearer x.y.z"), "invalid_token"),
            (Some("Basic x"), "missing_token"),
        ] {
            let world = world();
            let request = request.clone().user(None);
            let request = match authorization {
                Some(value) => request.with("authorization", value),
                None => request,
            };
            let response = world.request(request);
            assert_eq!((response.status, response.code().as_str()), (401, code));
            assert!(response.header("www-authenticate").is_some());
            assert_eq!((world.commands(), world.host().sent().len()), (0, 0));
        }
    }
}

#[test]
fn a_token_that_expires_before_the_read_is_reported_as_expired() {
    let world = world();
    let id = world.request(post()).session();
    // Within the leeway of the edge, past its end for the database.
    let token = world.token(USER, 10_000);
    world.run_for(15_000);
    for path in [format!("/ai-sessions/{id}"), "/ai-sessions".to_owned()] {
        let request = request("GET", &path).with("authorization", &["Bearer ", &token].concat());
        let expired = world.request(request);
        assert_eq!((expired.status, expired.code().as_str()), (401, "expired_token"), "{path}");
    }
}

// The base path.

const PUBLIC_URL: &str = "https://p.supabase.co/functions/v1/flashcards";
const BASE_PATH: &str = "/functions/v1/flashcards";

fn world_with_base_path() -> World {
    World::with(Mode::Memory, &[("PUBLIC_URL", PUBLIC_URL)])
}

#[test]
fn a_route_is_found_under_the_base_path_and_without_it() {
    for (path, status) in [
        ("/functions/v1/flashcards/health", 200),
        ("/health", 200),
        ("/functions/v1/flashcards/models", 200),
        ("/functions/v1/flashcards", 404),
        ("/functions/v1/flashcards/", 404),
        ("/functions/v1/flashcardshealth", 404),
        ("/functions/v1/flashcards//health", 404),
        ("/functions/v1/flashcards/functions/v1/flashcards/health", 404),
        ("/functions/v1/health", 404),
        ("/flashcards/health", 404),
        ("/Functions/v1/flashcards/health", 404),
    ] {
        let response = world_with_base_path().request(anonymous("GET", path));
        assert_eq!(response.status, status, "{path}");
    }
    assert_eq!(world().request(anonymous("GET", "/functions/v1/flashcards/health")).status, 404);
}

#[test]
fn a_misconfigured_service_is_under_the_base_path_too() {
    let world = World::with(Mode::Memory, &[("PUBLIC_URL", PUBLIC_URL), ("LOG_LEVEL", "loud")]);
    assert_eq!(world.request(anonymous("GET", "/functions/v1/flashcards/health")).status, 200);
    let failed = world.request(request("GET", "/functions/v1/flashcards/ai-sessions"));
    assert_eq!(failed.json()["type"], [PUBLIC_URL, "/docs#internal"].concat());
}

#[test]
fn the_location_of_a_session_has_the_base_path() {
    let world = world_with_base_path();
    for posted in [post(), post().respond_async(), post().stream()] {
        let created = world.request(posted);
        let location = created.header("location").expect("it has a Location").to_owned();
        assert_eq!(location, format!("{BASE_PATH}/ai-sessions/{}", created.session()));
        world.run_tasks();
        let found = world.request(request("GET", &location));
        assert_eq!(found.json()["id"], json!(created.session()));
        let events = world.request(request("GET", &[&location, "/events"].concat()));
        assert_eq!(events.header("location"), Some(location.as_str()));
    }
    let page = world.request(request("GET", &format!("{BASE_PATH}/ai-sessions?limit=2")));
    let before = page.json()["next"].as_str().expect("there is another page").to_owned();
    let rest = world.request(request("GET", &format!("{BASE_PATH}/ai-sessions?before={before}")));
    assert_eq!(rest.json()["sessions"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_problem_links_to_the_page_under_the_base_path() {
    let world = world_with_base_path();
    let not_found = world.request(anonymous("GET", "/functions/v1/flashcards/nothing"));
    assert_eq!(not_found.json()["type"], [PUBLIC_URL, "/docs#not_found"].concat());
    let id = Uuid::from_u128(9);
    world.database().insert(id, row_written_past_the_service());
    let failed = world.request(get_events(id));
    let events = String::from_utf8_lossy(failed.bytes());
    assert!(events.contains(&[PUBLIC_URL, "/docs#internal"].concat()), "{events}");
}

#[test]
fn a_model_call_has_the_public_url_as_referer() {
    let world = world_with_base_path();
    world.request(post());
    let requests = world.model_requests();
    let referer =
        requests.iter().flat_map(|request| &request.headers).find(|(name, _)| *name == "http-referer");
    assert_eq!(referer.map(|(_, value)| value.as_str()), Some(PUBLIC_URL));
}

#[test]
fn the_key_cache_is_on_the_host_of_the_request() {
    let world = world_with_base_path();
    world.request(request("GET", "/ai-sessions"));
    let urls = world.host().cached_urls();
    assert!(urls.iter().all(|url| url.starts_with(&[ORIGIN, "/.well-known/"].concat())), "{urls:?}");
}

// `POST /ai-sessions`.

#[test]
fn an_invalid_request_is_counted_and_costs_no_generation() {
    let text = "text ".repeat(300);
    let valid = json!({ "input_text": text, "model": "a/one" }).to_string();
    let large = vec![b' '; 300_000];
    let cases: Vec<(ClientRequest, u16, &str)> = vec![
        (post().body(b"{"), 400, "malformed_json"),
        (post().body(b"{}"), 400, "validation_failed"),
        (post_text("too short"), 400, "validation_failed"),
        (post().body(valid.replace("a/one", "c/none").as_bytes()), 400, "validation_failed"),
        (post().body(&valid.as_bytes()[..500]).cut(), 400, "malformed_json"),
        (post().without("content-type"), 415, "unsupported_media_type"),
        (post().with("content-type", "text/plain"), 415, "unsupported_media_type"),
        (post().body(&large), 413, "body_too_large"),
        (post().with("content-length", "300000"), 413, "body_too_large"),
        (post().key("\"\""), 400, "invalid_parameter"),
        (post().after("nonsense"), 400, "invalid_parameter"),
    ];
    for mode in [Mode::Rows, Mode::Memory] {
        for (request, status, code) in &cases {
            let world = World::with(mode, &[("RATE_LIMIT_BURST", "2/60")]);
            let invalid = world.request(request.clone());
            assert_eq!((invalid.status, invalid.code().as_str()), (*status, *code));
            assert_eq!(invalid.quota(), [1, 50, 150], "{code}");
            world.request(request.clone());
            // Over the limit, that error comes first.
            let refused = world.request(request.clone());
            assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limited"), "{code}");
            assert_eq!((world.model_calls(), world.database().rows().len()), (0, 0));
        }
    }
}

#[test]
fn a_content_type_may_have_a_charset() {
    let created = world().request(post().with("content-type", "Application/JSON ; charset=utf-8"));
    assert_eq!(created.status, 201);
}

#[test]
fn a_created_session_has_its_headers() {
    let world = world();
    let created = world.request(post());
    let id = created.session();
    assert_eq!(created.header("location"), Some(format!("/ai-sessions/{id}").as_str()));
    assert_eq!(created.header("cache-control"), Some("no-store"));
    assert_eq!(created.header("content-type"), Some("application/json"));
    let policy = "\"burst\";q=10;w=60, \"generations\";q=50;w=86400, \"attempts\";q=150;w=86400";
    assert_eq!(created.header("ratelimit-policy"), Some(policy));
    let body = created.json();
    assert_eq!((&body["id"], &body["partial"]), (&json!(id), &json!(false)));
    assert_eq!(body["candidates"][0]["front"], "front 1");
    let accepted = world.request(post().respond_async());
    assert_eq!(accepted.header("preference-applied"), Some("respond-async"));
    let streamed = world.request(post().stream());
    assert_eq!(streamed.header("content-type"), Some("text/event-stream"));
    assert_eq!(streamed.header("cache-control"), Some("no-store, no-transform"));
}

#[test]
fn a_model_call_carries_pseudonym_origin_and_trace() {
    let world = world();
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    world.request(post().with("traceparent", traceparent));
    world.request(post().with("traceparent", "nonsense"));
    let requests = world.model_requests();
    let header = |index: usize, name: &str| {
        let request = requests.get(index).expect("a request");
        request.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    };
    assert_eq!(header(0, "traceparent").as_deref(), Some(traceparent));
    assert_eq!(header(1, "traceparent"), None);
    assert_eq!(header(0, "http-referer").as_deref(), Some(ORIGIN));
    let body = String::from_utf8_lossy(&requests[0].body).into_owned();
    assert!(!body.contains(&USER.to_string()));
    let to_database = world
        .host()
        .sent()
        .into_iter()
        .find(|sent| sent.request.url.contains("/rest/v1/"))
        .expect("a request");
    assert_eq!(to_database.header("traceparent"), Some(traceparent));
}

// The delivery of commands.

#[test]
fn a_lost_command_or_reply_is_repeated_once() {
    use Delivery::{LostCommand, LostReply, NoReply, Overloaded};
    for (deliveries, status, commands) in [
        (vec![LostCommand], 201, 1),
        (vec![LostReply], 201, 2),
        (vec![NoReply], 201, 1),
        (vec![LostCommand, LostCommand], 500, 0),
        (vec![LostReply, LostReply], 500, 2),
        (vec![LostReply, LostCommand], 500, 1),
        (vec![Overloaded], 500, 0),
        (vec![LostCommand, Overloaded], 500, 0),
    ] {
        let world = world();
        world.deliver(&deliveries);
        let response = world.request(post());
        assert_eq!((response.status, world.commands()), (status, commands), "{deliveries:?}");
        if status == 500 {
            assert_eq!(response.code(), "rate_limiter_unavailable", "{deliveries:?}");
            assert_eq!(response.header("retry-after"), Some("5"));
        }
        world.run_tasks();
        assert!(world.model_calls() <= 1, "{deliveries:?}");
    }
}

#[test]
fn every_endpoint_of_the_object_repeats_a_lost_command() {
    let world = world();
    let id = world.request(post()).session();
    world.model(slow_answer(3, 1_000));
    let running = world.request(post().respond_async()).session();
    for (request, status) in [
        (get(running), 200),
        (get_events(running), 200),
        (get_events(id), 200),
        (post().body(b"{"), 400),
        (delete(running), 204),
    ] {
        world.deliver(&[Delivery::LostCommand]);
        assert_eq!(world.request(request).status, status);
    }
    world.run_tasks();
}

#[test]
fn an_object_that_is_unreachable_does_not_stop_reads_of_ended_sessions() {
    let world = world();
    let id = world.request(post()).session();
    world.deliver(&[Delivery::LostCommand; 2]);
    assert_eq!(world.request(get(id)).candidates(), 3);
    for request in [get_events(id), delete(id), post(), post().body(b"{")] {
        let world = self::world();
        world.deliver(&[Delivery::LostCommand; 2]);
        assert_eq!(world.request(request).code(), "rate_limiter_unavailable");
    }
}

// Reads.

#[test]
fn an_id_that_is_no_uuid_or_unknown_is_not_found() {
    for id in ["x", "5d3e2c1b-0000-4000-8000-0000000000ff"] {
        for (method, path) in [
            ("GET", format!("/ai-sessions/{id}")),
            ("GET", format!("/ai-sessions/{id}/events")),
            ("DELETE", format!("/ai-sessions/{id}")),
        ] {
            let response = world().request(request(method, &path));
            assert_eq!((response.status, response.code().as_str()), (404, "not_found"), "{method} {path}");
        }
    }
}

#[test]
fn an_invalid_last_event_id_is_refused() {
    let world = world();
    let id = world.request(post()).session();
    let refused = world.request(get_events(id).after("x"));
    assert_eq!((refused.status, refused.code().as_str()), (400, "invalid_parameter"));
    assert_eq!(refused.json()["errors"][0]["field"], "Last-Event-ID");
}

#[test]
fn reads_are_limited_in_the_isolate_without_a_hop() {
    let world = World::with(Mode::Memory, &[("RATE_LIMIT_READS", "3/60")]);
    let id = world.request(post()).session();
    for request in [get(id), request("GET", "/ai-sessions"), delete(id)] {
        assert!(world.request(request).status < 429);
    }
    let (commands, sent) = (world.commands(), world.host().sent().len());
    for request in [get(id), get_events(id), request("GET", "/ai-sessions"), delete(id)] {
        let refused = world.request(request);
        assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limited"));
        assert_eq!(refused.json()["violated-policies"], json!(["reads"]));
        assert!(refused.header("retry-after").is_some() && refused.header("ratelimit").is_none());
    }
    assert_eq!((world.commands(), world.host().sent().len()), (commands, sent));
    // A POST is not a read, and another user has reads of their own.
    assert_eq!(world.request(post()).status, 201);
    assert_eq!(world.request(get(id).user(Some(STRANGER))).status, 404);
    world.run_for(61_000);
    assert_eq!(world.request(get(id)).status, 200);
}

#[test]
fn sessions_are_listed_newest_first_page_by_page() {
    let world = World::with(Mode::Memory, &[("RATE_LIMIT_BURST", "100/60")]);
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(world.request(post_text(&format!("text {number} ").repeat(200))).session());
        world.run_for(1_000);
    }
    ids.reverse();
    let mut found = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let before = next.as_ref().map_or_else(String::new, |next| format!("&before={next}"));
        let page = world.request(request("GET", &format!("/ai-sessions?limit=2{before}"))).json();
        let sessions = page["sessions"].as_array().expect("sessions").clone();
        assert!((1..=2).contains(&sessions.len()));
        for session in sessions {
            assert_eq!((&session["candidate_count"], session.get("candidates")), (&json!(3), None));
            found.push(Uuid::parse_str(session["id"].as_str().expect("an id")).expect("an id"));
        }
        match page["next"].as_str() {
            Some(cursor) => next = Some(cursor.to_owned()),
            None => break,
        }
    }
    assert_eq!(found, ids);
    let invalid = world.request(request("GET", "/ai-sessions?limit=0"));
    assert_eq!((invalid.status, invalid.code().as_str()), (400, "invalid_parameter"));
    let strange = world.request(request("GET", "/ai-sessions").user(Some(STRANGER)));
    assert_eq!(strange.json(), json!({ "sessions": [], "next": null }));
}

#[test]
fn a_database_that_fails_is_a_database_error_of_every_read() {
    for (failure, retryable) in [
        (DatabaseFailure::Down, true),
        (DatabaseFailure::Refused(400, "42P01"), true),
        (DatabaseFailure::Firewall(403), false),
        (DatabaseFailure::Page, true),
        (DatabaseFailure::Refused(401, "PGRST301"), true),
    ] {
        let world = world();
        let id = world.request(post()).session();
        world.database().fail_all(Some(failure));
        for request in [get(id), get_events(id), delete(id), request("GET", "/ai-sessions")] {
            let failed = world.request(request);
            assert_eq!((failed.status, failed.code().as_str()), (500, "database_error"), "{failure:?}");
            assert_eq!(failed.json()["retryable"], retryable, "{failure:?}");
        }
        assert!(world.log_text().contains("\"step\":\"read\""));
    }
}

#[test]
fn a_running_session_is_read_while_the_database_is_down() {
    let world = world();
    world.model(slow_answer(3, 1_000));
    let id = world.request(post().respond_async()).session();
    world.run_for(500);
    world.database().fail_all(Some(DatabaseFailure::Down));
    assert_eq!(world.request(get(id)).session_status(), "generating");
    world.database().fail_all(None);
    world.run_tasks();
}

fn row_written_past_the_service() -> Row {
    Row {
        owner: USER,
        run: 1,
        status: "failed".to_owned(),
        model: "z/zero".to_owned(),
        input_text: String::new(),
        partial: false,
        error_code: Some("a code of another version".to_owned()),
        created_at: "infinity".to_owned(),
        ended_at: Some("-infinity".to_owned()),
        usage: [Value::from(3), Value::Null, Value::Null],
        coverage_percent: Value::Null,
        candidates: Vec::new(),
    }
}

#[test]
fn a_row_that_was_written_past_the_service_is_readable() {
    let world = world();
    let id = Uuid::from_u128(9);
    world.database().insert(id, row_written_past_the_service());
    let found = world.request(get(id));
    assert_eq!(found.status, 200);
    let found = found.json();
    assert_eq!((&found["status"], &found["error"]), (&json!("failed"), &json!("internal")));
    assert_eq!(found["created_at"], "9999-12-31T23:59:59.999Z");
    assert_eq!(found["ended_at"], "0001-01-01T00:00:00.000Z");
    assert_eq!(found["usage"], json!({ "prompt_tokens": 3, "completion_tokens": 0, "cost": 0.0 }));
    assert_eq!(world.request(delete(id)).code(), "not_running");
    let events = world.request(get_events(id));
    assert!(String::from_utf8_lossy(events.bytes()).contains("event: error"));
}

#[test]
fn a_young_session_that_no_object_has_is_in_progress() {
    let world = world();
    let id = Uuid::from_u128(9);
    let created_at = ai_sessions::user_object::session_view::rfc3339(START_MS);
    let row = Row {
        status: "generating".to_owned(),
        error_code: None,
        ended_at: None,
        created_at,
        ..row_written_past_the_service()
    };
    world.database().insert(id, row);
    let found = world.request(get(id));
    assert_eq!((found.session_status().as_str(), found.header("retry-after")), ("generating", Some("2")));
    assert_eq!(world.request(get_events(id)).code(), "database_error");
    assert_eq!(world.request(delete(id)).code(), "not_running");
    let finish = scripted_database::Operation::Finish;
    assert_eq!(world.database().count(finish), 0);
    world.run_for(120_000);
    assert_eq!(world.request(get(id)).session_status(), "failed");
    assert_eq!(world.database().count(finish), 1);
}

// The wire.

fn text() -> impl Strategy<Value = String> {
    proptest::collection::vec(any::<char>(), 0..40).prop_map(String::from_iter)
}

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn event_id() -> impl Strategy<Value = Option<EventId>> {
    proptest::option::of((any::<u32>(), any::<u32>()).prop_map(|(run, index)| EventId { run, index }))
}

fn operations() -> impl Strategy<Value = Operation> {
    let mode = prop_oneof![Just(ResponseMode::Sync), Just(ResponseMode::Stream), Just(ResponseMode::Async)];
    let generate =
        (uuid(), (text(), text(), text()), any::<bool>(), proptest::option::of(text()), mode, event_id());
    prop_oneof![
        Just(Operation::Count),
        generate.prop_map(|(id, (input_text, model, referer), no_cache, key, mode, after)| {
            Operation::Generate(Box::new(Generate {
                id,
                input_text: JsonString::new(&input_text),
                model: Rc::from(model),
                no_cache,
                referer: Rc::from(referer),
                key,
                mode,
                after,
            }))
        }),
        uuid().prop_map(|id| Operation::Read { id }),
        (uuid(), event_id()).prop_map(|(id, after)| Operation::Subscribe { id, after }),
        uuid().prop_map(|id| Operation::Stop { id }),
    ]
}

fn codes() -> impl Strategy<Value = Code> {
    proptest::sample::select(Code::ALL)
}

fn replies() -> impl Strategy<Value = Reply> {
    let document = (any::<u128>(), any::<bool>(), proptest::option::of(any::<bool>()), any::<Vec<u8>>());
    let document = document.prop_map(|(id, is_generating, was_reused, json)| SessionDocument {
        id: Uuid::from_u128(id),
        is_generating,
        was_reused,
        json,
    });
    let policies =
        proptest::sample::subsequence(vec![BURST, GENERATIONS, ATTEMPTS, SPEND, CONCURRENT], 1..=5);
    let cause = prop_oneof![
        codes().prop_map(Cause::Generation),
        Just(Cause::NotPersisted),
        Just(Cause::NotReadable),
        Just(Cause::TokenExpired),
        Just(Cause::UnknownUser),
        Just(Cause::Storage),
        Just(Cause::Lost),
    ];
    let failure = (cause, any::<bool>(), proptest::option::of(any::<u64>()));
    prop_oneof![
        Just(Reply::Counted),
        (policies, any::<u64>())
            .prop_map(|(violated, retry_after_s)| Reply::LimitExceeded(Refusal { violated, retry_after_s })),
        Just(Reply::NotFound),
        document.clone().prop_map(Reply::Session),
        document.prop_map(Reply::Accepted),
        uuid().prop_map(Reply::Subscribed),
        Just(Reply::Stopped),
        Just(Reply::NotRunning),
        Just(Reply::KeyReused),
        failure.prop_map(|(cause, is_blocked, retry_after_s)| {
            Reply::Failed(Failure { cause, is_blocked, retry_after_s })
        }),
    ]
}

fn log_fields() -> impl Strategy<Value = LogFields> {
    use proptest::option::of;
    let usage = (any::<u32>(), any::<u32>(), 0_u32..1_000_000).prop_map(|(prompt, completion, cost)| Usage {
        prompt_tokens: u64::from(prompt),
        completion_tokens: u64::from(completion),
        cost: f64::from(cost) / 1e6,
    });
    (of(codes()), of(uuid()), of(text()), of(any::<u32>()), of(usage), of(any::<u64>()), of(any::<u64>()))
        .prop_map(|(code, session_id, model, attempts, usage, model_ms, database_ms)| LogFields {
            code,
            session_id,
            model,
            attempts,
            usage,
            model_ms,
            database_ms,
        })
}

proptest! {
    #[test]
    fn a_command_is_read_as_it_was_written(
        user_id in uuid(),
        token in text(),
        expires_ms in any::<u64>(),
        traceparent in proptest::option::of(text()),
        began_ms in any::<u64>(),
        is_repeated in any::<bool>(),
        operation in operations(),
        origin in text(),
        request_id in text(),
    ) {
        let credentials =
            Credentials { token: Rc::from(token), expires_ms, traceparent: traceparent.map(Rc::from) };
        let command = Command { user_id, credentials, began_ms, is_repeated, operation };
        let context = ProblemContext { origin, request_id };
        let read = read_command(&write_command(&command, &context));
        prop_assert_eq!(read, Some((command, context)));
    }

    #[test]
    fn a_reply_is_read_as_it_was_written(
        reply in replies(),
        quota in proptest::option::of(proptest::array::uniform3((any::<u32>(), proptest::option::of(any::<u64>())))),
        spend in proptest::option::of((any::<u64>(), proptest::option::of(any::<u64>()))),
        refusal_lasts_ms in proptest::option::of(any::<u64>()),
        log in log_fields(),
    ) {
        let quota = quota.map(|counts| UserQuota {
            counts: counts.map(|(remaining, more_in_s)| PolicyStatus { remaining, more_in_s }),
            spend: spend.map(|(remaining, more_in_s)| SpendStatus { remaining, more_in_s }),
        });
        let executed = Executed { reply, quota, refusal_lasts_ms, log };
        let (message, body) = write_reply(&mut executed.clone());
        // A header's value.
        prop_assert!(!message.contains(['\n', '\r']));
        let read = read_reply(&message);
        let mut expected = executed;
        match &mut expected.reply {
            Reply::Session(document) | Reply::Accepted(document) => {
                prop_assert_eq!(&body, &std::mem::take(&mut document.json));
                expected.log.session_id = Some(document.id);
            }
            Reply::Subscribed(id) => expected.log.session_id = Some(*id),
            _ => prop_assert!(body.is_empty()),
        }
        prop_assert_eq!(read, Some(expected));
    }

    #[test]
    fn other_bytes_are_no_command_and_no_reply(bytes in any::<Vec<u8>>(), text in text()) {
        prop_assert_eq!(read_command(&bytes), None);
        prop_assert_eq!(read_reply(&text), None);
    }
}

#[test]
fn a_message_without_its_members_is_none() {
    let command = Command {
        user_id: USER,
        credentials: Credentials { token: Rc::from("t"), expires_ms: 1, traceparent: None },
        began_ms: 1,
        is_repeated: false,
        operation: Operation::Count,
    };
    let message: Value =
        serde_json::from_slice(&write_command(&command, &ProblemContext::default())).expect("it is JSON");
    for operation in ["read", "subscribe", "stop", "generate", "other"] {
        let mut other = message.clone();
        other["operation"] = json!(operation);
        assert_eq!(read_command(other.to_string().as_bytes()), None, "{operation}");
    }
    let mut counted =
        Executed { reply: Reply::Counted, quota: None, refusal_lasts_ms: None, log: LogFields::default() };
    let (message, _) = write_reply(&mut counted);
    let message: Value = serde_json::from_str(&message).expect("it is JSON");
    for reply in ["session", "accepted", "subscribed", "limit_exceeded", "generation_failed", "other"] {
        let mut other = message.clone();
        other["reply"] = json!(reply);
        assert_eq!(read_reply(&other.to_string()), None, "{reply}");
    }
}
