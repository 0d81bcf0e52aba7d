//! The response to a reply of the user object.

use uuid::Uuid;

use super::execute::Received;
use super::failure;
use crate::config::Config;
use crate::http::problem::{Code, Problem, ProblemContext, SpendLimit};
use crate::http::sse::EVENT_STREAM;
use crate::http::{JSON, Response, rate_limit};
use crate::money;
use crate::quota::{Refusal, SPEND, UserQuota};
use crate::user_object::reply::{LogFields, Reply, SessionDocument};

/// Seconds after which a client reads a session in progress again: most generations take 5 to 20 s.
const GENERATING_RETRY_AFTER_S: &str = "2";

/// A response: complete, or with a body that is forwarded from the user object untouched.
#[derive(Debug)]
pub enum Outgoing<B> {
    /// A complete response.
    Complete(Response),
    /// The head of a response, and its body.
    Forwarded(Response, B),
}

impl<B> Outgoing<B> {
    /// The response, or its head.
    pub const fn response_mut(&mut self) -> &mut Response {
        match self {
            Self::Complete(response) | Self::Forwarded(response, _) => response,
        }
    }
}

/// The response of an endpoint with its log fields, or an error.
pub type Responded<B> = Result<(Outgoing<B>, LogFields), Problem>;

/// A complete response without log fields.
///
/// # Errors
/// None; the type is that of every endpoint.
pub fn complete<B>(response: Response) -> Responded<B> {
    Ok((Outgoing::Complete(response), LogFields::default()))
}

/// The response to a reply. `on_session` is the head of the response with a [`Reply::Session`].
///
/// # Errors
/// None; an error is a response with a problem document.
pub fn render<B>(
    received: Received<B>,
    config: &Config,
    context: &ProblemContext,
    on_session: impl FnOnce(&SessionDocument) -> Response,
) -> Responded<B> {
    let Received { executed, body } = received;
    let forwarded = |head| Outgoing::Forwarded(head, body);
    let mut problem = problem_of(&executed.reply);
    if let (Some(problem), Some(quota)) = (&mut problem, &executed.quota)
        && problem.violated_policies.contains(&SPEND)
    {
        problem.spend = spend_limit(config, quota).map(Box::new);
    }
    let mut outgoing = match (&executed.reply, &problem) {
        (Reply::Session(document), _) => forwarded(on_session(document)),
        (Reply::Accepted(document), _) => forwarded(accepted(document)),
        (Reply::Subscribed(id), _) => forwarded(stream_head(*id)),
        (_, Some(problem)) => Outgoing::Complete(problem.to_response(context)),
        (_, None) => Outgoing::Complete(Response::empty(204)),
    };
    if let Some(quota) = &executed.quota {
        outgoing.response_mut().headers.extend(rate_limit::fields(quota, &config.rate_limit));
    }
    let code = problem.map(|problem| problem.code).or(executed.log.code);
    Ok((outgoing, LogFields { code, ..executed.log }))
}

/// The limit in US dollars.
fn spend_limit(config: &Config, quota: &UserQuota) -> Option<SpendLimit> {
    let (policy, status) = (config.rate_limit.spend?, quota.spend?);
    Some(SpendLimit {
        limit: money::write(policy.limit, money::NANODOLLAR),
        remaining: money::write(status.remaining, money::NANODOLLAR),
        window_s: policy.window_s,
    })
}

/// The problem of a reply that is an error.
fn problem_of(reply: &Reply) -> Option<Problem> {
    Some(match reply {
        Reply::Counted | Reply::Session(_) | Reply::Accepted(_) | Reply::Subscribed(_) | Reply::Stopped => {
            return None;
        }
        Reply::LimitExceeded(refusal) => limit_exceeded(refusal),
        Reply::NotFound => no_session(),
        Reply::NotRunning => not_running(),
        Reply::KeyReused => Problem::new(
            Code::IdempotencyKeyReused,
            "this Idempotency-Key was used with another text or model; take a new one",
        ),
        Reply::Failed(failure) => failure::problem_of(*failure),
    })
}

/// The head of the response to a client that has waited for the end.
#[must_use]
pub fn created(document: &SessionDocument) -> Response {
    let response = json(201).with("location", location(document.id));
    match document.was_reused {
        Some(true) => response.with("cache-status", "OpenRouter; hit"),
        Some(false) => response.with("cache-status", "OpenRouter; fwd=miss"),
        None => response,
    }
}

/// The head of the response to an owner who reads the session; while it is in progress, also when to read it again.
#[must_use]
pub fn found(document: &SessionDocument) -> Response {
    with_retry_after(json(200), document)
}

fn accepted(document: &SessionDocument) -> Response {
    with_retry_after(json(202), document)
        .with("location", location(document.id))
        .with("preference-applied", "respond-async")
}

fn json(status: u16) -> Response {
    Response::new(status, JSON, Vec::new()).with("cache-control", "no-store")
}

fn with_retry_after(response: Response, document: &SessionDocument) -> Response {
    if document.is_generating { response.with("retry-after", GENERATING_RETRY_AFTER_S) } else { response }
}

/// The head of a stream. `no-transform`: an intermediary that compresses a stream buffers it.
#[must_use]
pub fn stream_head(id: Uuid) -> Response {
    Response::new(200, EVENT_STREAM, Vec::new())
        .with("cache-control", "no-store, no-transform")
        .with("location", location(id))
}

fn location(id: Uuid) -> String {
    ["/ai-sessions/", &id.to_string()].concat()
}

/// The caller has no session with this id.
#[must_use]
pub fn no_session() -> Problem {
    Problem::new(Code::NotFound, "you have no session of this id")
}

/// There is nothing to stop.
#[must_use]
pub fn not_running() -> Problem {
    Problem::new(Code::NotRunning, "this generation has ended, and cannot be stopped any more")
}

/// A policy rejects the request.
#[must_use]
pub fn limit_exceeded(refusal: &Refusal) -> Problem {
    let mut problem = Problem::new(
        Code::RateLimited,
        ["the limit of ", &refusal.violated.join(" and of "), " is reached; see Retry-After"].concat(),
    );
    problem.retry_after_s = Some(refusal.retry_after_s);
    problem.violated_policies.clone_from(&refusal.violated);
    problem
}
