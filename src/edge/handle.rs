//! Handles a request: every one gets a complete response, and a log line.

use std::rc::Rc;

use futures_util::FutureExt;
use uuid::Uuid;

use super::authenticate::authenticate;
use super::endpoints::{
    create_session, docs, health, list_sessions, models, openapi, read_session, ready, session_events,
    stop_session, wake_up,
};
use super::log::{Logged, log_configuration, log_request};
use super::render::{Outgoing, Responded, complete, limit_exceeded, no_session};
use super::routes::{Match, Route, find};
use super::{Caller, EdgeHost, Request};
use crate::auth::bearer::BearerToken;
use crate::auth::credentials::Credentials;
use crate::auth::{Refused, User};
use crate::config::{AllowedOrigins, Config, ConfigError, Misconfigured, base_path};
use crate::http::problem::{Code, Problem, ProblemContext};
use crate::http::url::split_url;
use crate::http::{cors, traceparent};
use crate::ids::new_id;
use crate::ports::{Inbound, Log, Random};
use crate::pseudonym::pseudonym;
use crate::user_object::reply::LogFields;

/// The log fields that a request has gathered, also when it ends with an error.
#[derive(Default)]
struct Progress {
    pattern: Option<&'static str>,
    user: Option<User>,
    auth_ms: Option<u64>,
}

/// Handles a request.
pub async fn handle<H: EdgeHost>(
    host: &H,
    config: &Result<Rc<Config>, Misconfigured>,
    inbound: impl Inbound,
) -> Outgoing<H::Body> {
    let began_ms = host.now_ms();
    let public_url = public_url(config);
    let base_path = public_url.map_or("", base_path);
    let (origin, path) = split_url(inbound.url());
    let origin = public_url.unwrap_or(origin).to_owned();
    let path = without_base(path, base_path).to_owned();
    let request_id = request_id(inbound.header("x-request-id"), began_ms, host);
    let traceparent = inbound.header("traceparent").filter(|field| traceparent::is_valid(field));
    let page = inbound.header("origin");
    let context = ProblemContext { origin, request_id };
    let mut request = Request { inbound, began_ms, context, traceparent: traceparent.map(Rc::from) };

    let mut progress = Progress::default();
    let responded = route(host, config, &mut request, &path, &mut progress).await;
    let context = &request.context;
    let (mut outgoing, fields) = responded.unwrap_or_else(|problem| {
        let fields = LogFields { code: Some(problem.code), ..LogFields::default() };
        (Outgoing::Complete(problem.to_response(context)), fields)
    });

    let duration_ms = host.now_ms().saturating_sub(began_ms);
    let allowed = config.as_ref().map_or(&AllowedOrigins::Any, |config| &config.allowed_origins);
    let timing = [
        ("auth", progress.auth_ms),
        ("model", fields.model_ms),
        ("database", fields.database_ms),
        ("total", Some(duration_ms)),
    ];
    let response = outgoing.response_mut();
    for (_, value) in response.headers.iter_mut().filter(|(name, _)| *name == "location") {
        value.insert_str(0, base_path);
    }
    response.headers.push(("x-request-id", context.request_id.clone()));
    response.headers.extend(cors::headers(allowed, page.as_deref()));
    if let Some(timing) = cors::server_timing(&timing) {
        response.headers.push(("server-timing", timing));
    }

    let user = progress.user.as_ref().zip(config.as_ref().ok());
    let user = user.map(|(user, config)| pseudonym(&config.service_secret, &user.id.to_string()));
    let logged = Logged {
        request_id: &context.request_id,
        method: request.inbound.method(),
        route: progress.pattern.unwrap_or("none"),
        status: response.status,
        user: user.as_deref(),
        duration_ms,
        auth_ms: progress.auth_ms,
        fields: &fields,
    };
    log_request(host, &logged);
    outgoing
}

async fn route<H: EdgeHost>(
    host: &H,
    config: &Result<Rc<Config>, Misconfigured>,
    request: &mut Request<impl Inbound>,
    path: &str,
    progress: &mut Progress,
) -> Responded<H::Body> {
    if request.inbound.method() == "OPTIONS" {
        // Of any path, so that a page can read that there is none.
        return complete(cors::preflight());
    }
    let (pattern, route, id) = match find(request.inbound.method(), path) {
        Match::Found { pattern, route, id } => (pattern, route, id),
        Match::OtherMethods(methods) => return method_not_allowed(request, &methods),
        Match::NotFound => {
            if let Ok(config) = config
                && config.wake_up
                && path == wake_up::PATH
                && request.inbound.method() == "POST"
            {
                progress.pattern = Some(wake_up::PATH);
                return complete(wake_up::wake_up(host, config, &mut request.inbound).boxed_local().await?);
            }
            return Err(Problem::new(Code::NotFound, "there is nothing at this path; see GET /docs"));
        }
    };
    progress.pattern = Some(pattern);
    // Endpoints without authentication. All but the last work without a configuration.
    match (route, config) {
        (Route::Health, _) => return complete(health::health()),
        (Route::Openapi, config) => {
            return complete(openapi::openapi(host, public_url(config)).boxed_local().await?);
        }
        (Route::Docs, _) => return complete(docs::docs(host).boxed_local().await?),
        (Route::Ready, config) => return complete(ready::ready(host, config).boxed_local().await),
        (Route::Models, Ok(config)) => return complete(models::models(config)),
        _ => {}
    }
    let config = config.as_ref().map_err(|invalid| misconfigured(host, &invalid.errors))?;
    authenticated(host, config, request, (route, id), progress).boxed_local().await
}

/// The endpoints of a signed-in user. Each future is boxed, here and above: its code is compiled when it is first used.
async fn authenticated<H: EdgeHost>(
    host: &H,
    config: &Config,
    request: &mut Request<impl Inbound>,
    (route, id): (Route, &str),
    progress: &mut Progress,
) -> Responded<H::Body> {
    // (1) Authenticate.
    let began_ms = host.now_ms();
    let header = request.inbound.header("authorization");
    let authenticated = async {
        let token = BearerToken::read(header.as_deref())?;
        let (origin, _) = split_url(request.inbound.url());
        let user = authenticate(host, config, origin, token).await?;
        Ok((user, Rc::from(token.as_str())))
    };
    let (user, token) = authenticated.await.map_err(Refused::to_problem)?;
    progress.auth_ms = Some(host.now_ms().saturating_sub(began_ms));
    let credentials =
        Credentials { token, expires_ms: user.expires_ms, traceparent: request.traceparent.clone() };
    progress.user = Some(user.clone());
    let caller = Caller { user, credentials };
    if route != Route::CreateSession {
        let now_ms = host.now_ms();
        let counted =
            host.with_memory(|memory| memory.reads.count(caller.user.id, config.read_limit, now_ms));
        counted.map_err(|refusal| limit_exceeded(&refusal))?;
    }

    let responding = match route {
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
    responding.await
}

#[expect(clippy::unnecessary_wraps, reason = "the type of every endpoint")]
fn method_not_allowed<B>(request: &Request<impl Inbound>, methods: &[&'static str]) -> Responded<B> {
    let problem = Problem::new(Code::MethodNotAllowed, "this path has other methods; see `Allow`");
    let allow = [&methods.join(", "), ", OPTIONS"].concat();
    let response = problem.to_response(&request.context).with("allow", allow);
    Ok((Outgoing::Complete(response), LogFields { code: Some(problem.code), ..LogFields::default() }))
}

fn public_url(config: &Result<Rc<Config>, Misconfigured>) -> Option<&str> {
    let public_url = config.as_ref().map_or_else(|invalid| &invalid.public_url, |config| &config.public_url);
    public_url.as_deref()
}

/// A path without the base path, unless a proxy has removed that already.
fn without_base<'a>(path: &'a str, base_path: &str) -> &'a str {
    match path.strip_prefix(base_path) {
        Some(rest) if rest.starts_with('/') => rest,
        Some("") => "/",
        _ => path,
    }
}

/// Logs the invalid variables; the caller receives only that some are.
fn misconfigured(log: &impl Log, errors: &[ConfigError]) -> Problem {
    log_configuration(log, errors);
    Problem::new(Code::Internal, "the service is not set up; see GET /health/ready")
}

/// Returns the caller's own id if it is a UUID, so that two logs can be joined; else a new one.
fn request_id(sent: Option<String>, now_ms: u64, random: &impl Random) -> String {
    const HYPHENATED_CHARS: usize = 36;
    let sent = sent.filter(|id| id.len() == HYPHENATED_CHARS).and_then(|id| Uuid::try_parse(&id).ok());
    sent.unwrap_or_else(|| new_id(now_ms, random.random_bits())).to_string()
}
