//! The order of things: which route answers, and what every answer has.
//!
//! One file per endpoint. At the edge: [`create_session`], [`read_session`], [`session_events`], [`stop_session`],
//! [`list_sessions`], [`models`], [`health`], [`ready`], [`openapi`], [`docs`]. In the user's object: [`user_desk`] (what
//! the edge asks of it), [`admission`] (a generation that is wanted) and [`generate`] (a generation's own way). Nothing
//! here knows which host it runs in.

pub mod admission;
pub mod authenticate;
pub mod create_session;
pub mod docs;
pub mod generate;
pub mod health;
pub mod list_sessions;
pub mod models;
pub mod openapi;
pub mod read_session;
pub mod ready;
pub mod session_events;
pub mod stop_session;
pub mod stored_session;
pub mod user_desk;

use std::fmt::Write as _;

use futures_util::FutureExt;
use serde::Serialize;
use uuid::Uuid;

use crate::answer::headers;
use crate::auth::bearer::BearerToken;
use crate::auth::{Refused, User};
use crate::config::{AllowedOrigins, Config, ConfigError, LogLevel};
use crate::generation::usage::Usage;
use crate::http::Answer;
use crate::ports::{Assets, DeskError, DeskReply, Desks, Inbound, Log, Metrics, Point, Random};
use crate::problem::{Code, Problem};
use crate::pseudonym::pseudonym;
use crate::quota::Refusal;
use crate::user_state::ask::{Ask, LogFields, Wish};
use authenticate::AuthHost;
use stored_session::Reader;

/// All that a request at the edge may touch.
pub trait AnswerHost: AuthHost + Desks + Assets + Random + Log + Metrics {}
impl<H: AuthHost + Desks + Assets + Random + Log + Metrics> AnswerHost for H {}

/// An answer, whole or passed on.
#[derive(Debug)]
pub enum Reply<S> {
    /// Made here.
    Whole(Answer),
    /// Made at the desk; its body goes through untouched.
    Passed {
        /// The HTTP status.
        status: u16,
        /// Those of the desk and those of the edge.
        headers: Vec<(&'static str, String)>,
        /// As it comes.
        body: S,
    },
}

/// A request on its way through the edge.
#[derive(Debug)]
pub struct Request<I> {
    /// As the host gives it.
    pub inbound: I,
    /// `X-Request-Id` of the answer.
    pub id: String,
    /// When it began.
    pub began_ms: u64,
    /// The service's own origin, `https://host`.
    pub origin: String,
    /// W3C Trace Context, when the caller sent one that holds.
    pub traceparent: Option<String>,
}

/// Every route. A path stands once for each of its methods.
pub const TABLE: &[(&str, &str, Route)] = &[
    ("POST", "/ai-sessions", Route::CreateSession),
    ("GET", "/ai-sessions", Route::ListSessions),
    ("GET", "/ai-sessions/{id}", Route::ReadSession),
    ("GET", "/ai-sessions/{id}/events", Route::SessionEvents),
    ("DELETE", "/ai-sessions/{id}", Route::StopSession),
    ("GET", "/models", Route::Models),
    ("GET", "/health", Route::Health),
    ("GET", "/health/ready", Route::Ready),
    ("GET", "/openapi.json", Route::Openapi),
    ("GET", "/docs", Route::Docs),
];

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// `POST /ai-sessions`
    CreateSession,
    /// `GET /ai-sessions`
    ListSessions,
    /// `GET /ai-sessions/{id}`
    ReadSession,
    /// `GET /ai-sessions/{id}/events`
    SessionEvents,
    /// `DELETE /ai-sessions/{id}`
    StopSession,
    /// `GET /models`
    Models,
    /// `GET /health`
    Health,
    /// `GET /health/ready`
    Ready,
    /// `GET /openapi.json`
    Openapi,
    /// `GET /docs`
    Docs,
}

/// What a method and a path lead to.
#[derive(Debug, PartialEq, Eq)]
enum Match<'a> {
    Found { pattern: &'static str, route: Route, id: &'a str },
    OtherMethods(Vec<&'static str>),
    Nothing,
}

fn find<'a>(method: &str, path: &'a str) -> Match<'a> {
    let mut methods = Vec::new();
    for (known, pattern, route) in TABLE {
        let id = match pattern.split_once("{id}") {
            None if *pattern == path => "",
            Some((before, after)) => {
                match path.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)) {
                    Some(id) if !id.is_empty() && !id.contains('/') => id,
                    _ => continue,
                }
            }
            None => continue,
        };
        if *known == method {
            return Match::Found { pattern, route: *route, id };
        }
        methods.push(*known);
    }
    if methods.is_empty() { Match::Nothing } else { Match::OtherMethods(methods) }
}

/// The line that is written for every request. Never the text, the token or a key: there is no field for them.
#[derive(Serialize)]
struct LogLine<'a> {
    level: &'static str,
    message: &'static str,
    request_id: &'a str,
    method: &'a str,
    route: &'static str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Code>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    duration_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    database_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

/// Answers a request: the outermost layer, whose answer is always complete.
pub async fn answer<H: AnswerHost>(
    host: &H,
    config: &Result<Config, Vec<ConfigError>>,
    inbound: impl Inbound,
) -> Reply<H::Stream> {
    let started_ms = host.now_ms();
    let (origin, path) = split_url(inbound.url());
    let (origin, path) = (origin.to_owned(), path.to_owned());
    let id = request_id(inbound.header("x-request-id"), started_ms, host);
    let traceparent = inbound.header("traceparent").filter(|field| is_traceparent(field));
    let page = inbound.header("origin");
    let mut request = Request { inbound, id, began_ms: started_ms, origin, traceparent };

    let mut passed = Passed::default();
    let answered = route(host, config, &mut request, &path, &mut passed).await;
    let (mut reply, facts) = answered.unwrap_or_else(|problem| {
        let answer = problem.to_answer(&request.origin, &request.id);
        (Reply::Whole(answer), LogFields { code: Some(problem.code), ..LogFields::default() })
    });

    let duration_ms = host.now_ms().saturating_sub(started_ms);
    let allowed = config.as_ref().map_or(&AllowedOrigins::Any, |config| &config.allowed_origins);
    let timing = [
        ("auth", passed.auth_ms),
        ("model", facts.model_ms),
        ("database", facts.database_ms),
        ("total", Some(duration_ms)),
    ];
    let (status, reply_headers) = match &mut reply {
        Reply::Whole(answer) => (answer.status, &mut answer.headers),
        Reply::Passed { status, headers, .. } => (*status, headers),
    };
    reply_headers.push(("x-request-id", request.id.clone()));
    reply_headers.extend(headers::cors(allowed, page.as_deref()));
    if let Some(timing) = headers::server_timing(&timing) {
        reply_headers.push(("server-timing", timing));
    }

    let (level, word) = level_of(facts.code);
    let user = passed.user.as_ref().zip(config.as_ref().ok());
    let line = LogLine {
        level: word,
        message: "request",
        request_id: &request.id,
        method: request.inbound.method(),
        route: passed.pattern.unwrap_or("none"),
        status,
        code: facts.code,
        user: user.map(|(user, config)| pseudonym(&config.service_secret, &user.id.to_string())),
        duration_ms,
        auth_ms: passed.auth_ms,
        model_ms: facts.model_ms,
        database_ms: facts.database_ms,
        session_id: facts.session_id,
        model: facts.model.as_deref(),
        attempts: facts.attempts,
        usage: facts.usage,
    };
    host.log(level, &serde_json::to_string(&line).unwrap_or_default());
    host.measure(&point(&line));
    reply
}

/// The line's figures.
fn point<'a>(line: &LogLine<'a>) -> Point<'a> {
    // Milliseconds and tokens of one request: what does not fit is no measurement.
    let figure = |number: u64| u32::try_from(number).map_or(f64::INFINITY, f64::from);
    let ms = |ms: Option<u64>| figure(ms.unwrap_or(0));
    let usage = line.usage.unwrap_or_default();
    Point {
        texts: [line.route, line.method, line.code.map_or("", Code::name), line.model.unwrap_or("")],
        figures: [
            f64::from(line.status),
            figure(line.duration_ms),
            ms(line.auth_ms),
            ms(line.model_ms),
            ms(line.database_ms),
            f64::from(line.attempts.unwrap_or(0)),
            figure(usage.prompt_tokens),
            figure(usage.completion_tokens),
            usage.cost,
        ],
    }
}

/// What is known of a request when it is answered, however far it came.
#[derive(Default)]
struct Passed {
    pattern: Option<&'static str>,
    user: Option<User>,
    auth_ms: Option<u64>,
}

async fn route<H: AnswerHost>(
    host: &H,
    config: &Result<Config, Vec<ConfigError>>,
    request: &mut Request<impl Inbound>,
    path: &str,
    passed: &mut Passed,
) -> Passing<H::Stream> {
    if request.inbound.method() == "OPTIONS" {
        // Of any path, so that a page can read that there is nothing.
        return whole(headers::preflight());
    }
    let (pattern, route, id) = match find(request.inbound.method(), path) {
        Match::Found { pattern, route, id } => (pattern, route, id),
        Match::OtherMethods(methods) => return method_not_allowed(request, &methods),
        Match::Nothing => {
            return Err(Problem::new(Code::NotFound, "there is nothing at this path; see GET /docs"));
        }
    };
    passed.pattern = Some(pattern);
    // What anybody may ask. All but the last work without a configuration.
    match (route, config) {
        (Route::Health, _) => return whole(health::health()),
        (Route::Openapi, _) => return whole(openapi::openapi(host).boxed_local().await?),
        (Route::Docs, _) => return whole(docs::docs(host).boxed_local().await?),
        (Route::Ready, config) => return whole(ready::ready(host, config).boxed_local().await),
        (Route::Models, Ok(config)) => return whole(models::models(config)),
        _ => {}
    }
    let config = config.as_ref().map_err(|errors| misconfigured(host, errors))?;
    signed_in(host, config, request, (route, id), passed).boxed_local().await
}

/// The routes of which each caller has their own. Each is boxed, here and above: the engine compiles whole functions, when
/// they are first called, and one route must not wait for the code of the others.
async fn signed_in<H: AnswerHost>(
    host: &H,
    config: &Config,
    request: &mut Request<impl Inbound>,
    (route, id): (Route, &str),
    passed: &mut Passed,
) -> Passing<H::Stream> {
    // (1) Authenticate.
    let began_ms = host.now_ms();
    let header = request.inbound.header("authorization");
    let authenticated = async {
        let token = BearerToken::read(header.as_deref())?;
        Ok((authenticate::authenticate(host, config, &request.origin, token).await?, token.as_str()))
    };
    let (user, token) = authenticated.await.map_err(Refused::to_problem)?;
    passed.auth_ms = Some(host.now_ms().saturating_sub(began_ms));
    let caller = Caller { user, token };
    passed.user = Some(caller.user.clone());
    if route != Route::CreateSession {
        let now_ms = host.now_ms();
        let counted =
            host.with_memory(|memory| memory.reads.count(caller.user.id, config.read_limit, now_ms));
        counted.map_err(|refusal| rate_limited(&refusal))?;
    }

    let answering = match route {
        Route::CreateSession => create_session::create_session(host, config, request, &caller).boxed_local(),
        Route::ListSessions => list_sessions::list_sessions(host, config, request, &caller).boxed_local(),
        Route::ReadSession => read_session::read_session(host, config, request, &caller, id).boxed_local(),
        Route::SessionEvents => {
            session_events::session_events(host, config, request, &caller, id).boxed_local()
        }
        Route::StopSession => stop_session::stop_session(host, config, request, &caller, id).boxed_local(),
        Route::Models | Route::Health | Route::Ready | Route::Openapi | Route::Docs => {
            return Err(no_session());
        }
    };
    answering.await
}

/// Who is calling, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller<'a> {
    /// The user.
    pub user: User,
    /// The user's own access token.
    pub token: &'a str,
}

impl Caller<'_> {
    fn reader<'a>(&'a self, request: &'a Request<impl Inbound>) -> Reader<'a> {
        Reader {
            token: self.token,
            token_expires_ms: self.user.expires_ms,
            traceparent: request.traceparent.as_deref(),
        }
    }
}

/// What a route comes to: an answer and what the log is told of it, or an error.
pub type Passing<S> = Result<(Reply<S>, LogFields), Problem>;

fn whole<S>(answer: Answer) -> Passing<S> {
    Ok((Reply::Whole(answer), LogFields::default()))
}

fn method_not_allowed<S>(request: &Request<impl Inbound>, methods: &[&'static str]) -> Passing<S> {
    let problem = Problem::new(Code::MethodNotAllowed, "this path has other methods; see `Allow`");
    let allow = [&methods.join(", "), ", OPTIONS"].concat();
    let answer = problem.to_answer(&request.origin, &request.id).with("allow", allow);
    Ok((Reply::Whole(answer), LogFields { code: Some(problem.code), ..LogFields::default() }))
}

fn no_session() -> Problem {
    Problem::new(Code::NotFound, "you have no session of this id")
}

/// Tells the operator which variables are wrong, the caller only that something is.
fn misconfigured(log: &impl Log, errors: &[ConfigError]) -> Problem {
    let mut line = String::from(r#"{"level":"error","message":"configuration","errors":["#);
    for (index, error) in errors.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Names and expectations are literals of `config.rs`: nothing in them needs escaping.
        let _ = write!(line, r#"{comma}"{} {}""#, error.variable, error.expected);
    }
    line.push_str("]}");
    log.log(LogLevel::Error, &line);
    Problem::new(Code::Internal, "the service is not set up; see GET /health/ready")
}

/// Asks the user's desk; once more when the platform lost the first answer (it moves objects, and a deployment starts
/// them anew): the ask has all that it takes to be found again. Not once more when the platform says that the object is
/// overloaded: each more request makes that worse
/// (<https://developers.cloudflare.com/durable-objects/best-practices/error-handling/>).
async fn ask_desk<H: AnswerHost>(
    host: &H,
    request: &Request<impl Inbound>,
    caller: &Caller<'_>,
    wish: Wish,
) -> Result<DeskReply<H::Stream>, Problem> {
    ask_desk_told(host, request, caller, wish).await.map(|(reply, _)| reply)
}

/// The same, and whether it was asked once more.
async fn ask_desk_told<H: AnswerHost>(
    host: &H,
    request: &Request<impl Inbound>,
    caller: &Caller<'_>,
    wish: Wish,
) -> Result<(DeskReply<H::Stream>, bool), Problem> {
    let mut ask = Ask {
        user_id: caller.user.id,
        token: caller.token.to_owned(),
        token_expires_ms: caller.user.expires_ms,
        request_id: request.id.clone(),
        origin: request.origin.clone(),
        traceparent: request.traceparent.clone(),
        began_ms: request.began_ms,
        is_repeated: false,
        wish,
    };
    match host.ask(&ask).await {
        Ok(reply) => return Ok((reply, false)),
        Err(DeskError::Overloaded) => return Err(desk_unreachable()),
        Err(DeskError::Unreachable) => {}
    }
    ask.is_repeated = true;
    host.ask(&ask).await.map(|reply| (reply, true)).map_err(|_| desk_unreachable())
}

/// The desk's own answer.
fn passed_on<S>(reply: DeskReply<S>) -> (Reply<S>, LogFields) {
    (Reply::Passed { status: reply.status, headers: reply.headers, body: reply.body }, reply.facts)
}

/// It guards money: an object that cannot be reached refuses.
fn desk_unreachable() -> Problem {
    let mut problem = Problem::new(Code::RateLimiterUnavailable, "your limits cannot be checked now");
    problem.retry_after_s = Some(5);
    problem
}

/// A refusal by a policy.
fn rate_limited(refusal: &Refusal) -> Problem {
    let mut problem = Problem::new(
        Code::RateLimited,
        ["the limit of ", &refusal.violated.join(" and of "), " is reached; see Retry-After"].concat(),
    );
    problem.retry_after_s = Some(refusal.retry_after_s);
    problem.violated_policies.clone_from(&refusal.violated);
    problem
}

fn level_of(code: Option<Code>) -> (LogLevel, &'static str) {
    match code {
        Some(Code::AiMisconfigured | Code::Internal) => (LogLevel::Error, "error"),
        Some(code) if code.status() >= 500 => (LogLevel::Warn, "warn"),
        _ => (LogLevel::Info, "info"),
    }
}

/// `https://host/path?query` → (`https://host`, `/path`).
fn split_url(url: &str) -> (&str, &str) {
    let after_scheme = url.find("://").map_or(0, |at| at.saturating_add(3));
    let host_end = url.get(after_scheme..).and_then(|rest| rest.find(['/', '?', '#']));
    let at = host_end.map_or(url.len(), |end| after_scheme.saturating_add(end));
    let (origin, rest) = url.split_at_checked(at).unwrap_or((url, ""));
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    (origin, if path.is_empty() { "/" } else { path })
}

/// `https://host/path?query#fragment` → `query`.
fn query_of(url: &str) -> &str {
    let url = url.split('#').next().unwrap_or_default();
    url.split_once('?').map_or("", |(_, query)| query)
}

/// The caller's own id if it is a UUID, so that two logs can be laid side by side; else a new one.
fn request_id(sent: Option<String>, now_ms: u64, random: &impl Random) -> String {
    const HYPHENATED_CHARS: usize = 36;
    let sent = sent.filter(|id| id.len() == HYPHENATED_CHARS).and_then(|id| Uuid::try_parse(&id).ok());
    sent.unwrap_or_else(|| new_id(now_ms, random)).to_string()
}

/// A UUIDv7 (RFC 9562, section 5.7).
fn new_id(now_ms: u64, random: &impl Random) -> Uuid {
    let bits = random.random_bits().to_be_bytes();
    let mut random_bytes = [0; 10];
    for (to, from) in random_bytes.iter_mut().zip(bits) {
        *to = from;
    }
    uuid::Builder::from_unix_timestamp_millis(now_ms, &random_bytes).into_uuid()
}

/// W3C Trace Context, section 3.2: version 00, a trace id and a parent id that are not all zero.
fn is_traceparent(field: &str) -> bool {
    let parts: Vec<&str> = field.split('-').collect();
    let [version, trace, parent, flags] = parts.as_slice() else { return false };
    let is_hex = |part: &str, length| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_set = |part: &str| part.bytes().any(|byte| byte != b'0');
    *version == "00"
        && is_hex(trace, 32)
        && is_set(trace)
        && is_hex(parent, 16)
        && is_set(parent)
        && is_hex(flags, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_its_route_or_to_its_methods() {
        let id = "5d3e2c1b-0000-4000-8000-00000000000a";
        for (method, path, route) in [
            ("POST", "/ai-sessions", Some(Route::CreateSession)),
            ("GET", &format!("/ai-sessions/{id}"), Some(Route::ReadSession)),
            ("GET", "/health", Some(Route::Health)),
            ("GET", "/models", Some(Route::Models)),
        ] {
            let Match::Found { route: found, .. } = find(method, path) else { panic!("{method} {path}") };
            assert_eq!(Some(found), route);
        }
        assert_eq!(find("DELETE", "/models"), Match::OtherMethods(vec!["GET"]));
        for path in [
            "/",
            "",
            "/ai-sessions/",
            "/ai-sessions//",
            "/ai-sessions/a/b",
            "/Health",
            "/health/",
            "//health",
        ] {
            assert_eq!(find("GET", path), Match::Nothing, "{path}");
        }
    }

    #[test]
    fn a_url_is_taken_apart() {
        for (url, origin, path) in [
            ("https://a.example/b?c", "https://a.example", "/b"),
            ("http://127.0.0.1:8787/", "http://127.0.0.1:8787", "/"),
            ("https://a.example", "https://a.example", "/"),
            ("https://a.example?x=/y", "https://a.example", "/"),
            ("", "", "/"),
        ] {
            assert_eq!(split_url(url), (origin, path), "{url}");
        }
    }

    #[test]
    fn only_a_whole_trace_context_is_passed_on() {
        assert!(is_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        for field in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert!(!is_traceparent(field), "{field}");
        }
    }
}
