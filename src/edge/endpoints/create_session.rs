//! `POST /ai-sessions`, as section 3 of the contract:
//!
//! 1. Authenticate (done by `edge::handle`).
//! 2. Read and check the body.
//! 3. Send one command to the user object, which counts, reserves, generates and replies.
//!
//! Invalid bodies are forwarded so that they count toward the burst limit; a request over its limit gets that error first.

use std::rc::Rc;

use uuid::Uuid;

use super::{invalid_header, last_event_id};
use crate::config::Config;
use crate::edge::execute::execute;
use crate::edge::render::{Outgoing, Responded, created, limit_exceeded};
use crate::edge::{Caller, EdgeHost, Request};
use crate::http::problem::{Code, FieldError, Problem};
use crate::http::response_mode::ResponseMode;
use crate::http::{JSON, idempotency_key, rate_limit};
use crate::ids::new_id;
use crate::input::new_session::{BODY_BYTES_MAX, NewSession};
use crate::json_string::JsonString;
use crate::ports::{BodyError, Inbound, Random};
use crate::quota::UserQuota;
use crate::user_object::command::{Generate, Operation};
use crate::user_object::reply::{Executed, LogFields, Reply};

/// Handles the request.
///
/// # Errors
/// Any row of the table that the contract names for this route.
pub async fn create_session<H: EdgeHost>(
    host: &H,
    config: &Config,
    request: &mut Request<impl Inbound>,
    caller: &Caller,
) -> Responded<H::Body> {
    // A request that the user object would refuse like the one before needs no call, whatever it contains.
    let (user_id, now_ms) = (caller.user.id, host.now_ms());
    if let Some((refusal, quota)) = host.with_memory(|memory| memory.refusals.find(user_id, now_ms)) {
        let problem = limit_exceeded(&refusal);
        return Ok(refused(&problem, Some(&quota), config, request));
    }
    // (2) Read and check the body, and the headers that belong to it.
    let read = match read_body(config, &mut request.inbound).await {
        Ok(new) => generate(host, host.now_ms(), request, new),
        Err(problem) => Err(problem),
    };
    let (operation, invalid) = match read {
        Ok(generate) => (Operation::Generate(Box::new(generate)), None),
        Err(problem) => (Operation::Count, Some(problem)),
    };
    // (3) Send one command to the user object.
    let sent_ms = host.now_ms();
    let execution = execute(host, request, caller, operation).await?;
    let executed = &execution.received.executed;
    remember_refusal(host, user_id, executed, sent_ms);
    let Some(problem) = invalid.filter(|_| executed.reply == Reply::Counted) else {
        return execution.respond(config, request, created);
    };
    Ok(refused(&problem, executed.quota.as_ref(), config, request))
}

/// The response with a problem and the status of the quotas.
fn refused<B>(
    problem: &Problem,
    quota: Option<&UserQuota>,
    config: &Config,
    request: &Request<impl Inbound>,
) -> (Outgoing<B>, LogFields) {
    let mut response = problem.to_response(&request.context);
    if let Some(quota) = quota {
        response.headers.extend(rate_limit::fields(quota, &config.rate_limit));
    }
    (Outgoing::Complete(response), LogFields { code: Some(problem.code), ..LogFields::default() })
}

/// Remembers a refusal that lasts.
fn remember_refusal<H: EdgeHost>(host: &H, user_id: Uuid, executed: &Executed, sent_ms: u64) {
    let (Reply::LimitExceeded(refusal), Some(quota), Some(lasts_ms)) =
        (&executed.reply, executed.quota, executed.refusal_lasts_ms)
    else {
        return;
    };
    let times_ms = (sent_ms, host.now_ms());
    host.with_memory(|memory| memory.refusals.remember(user_id, (refusal, quota), times_ms, lasts_ms));
}

fn generate(
    random: &impl Random,
    now_ms: u64,
    request: &Request<impl Inbound>,
    new: NewSession,
) -> Result<Generate, Problem> {
    let head = &request.inbound;
    let key = head.header("idempotency-key").map(|field| idempotency_key::read(&field)).transpose();
    let key = key.map_err(|_| {
        invalid_header("Idempotency-Key", "must be one string of 1 to 255 visible characters")
    })?;
    let mode = ResponseMode::negotiate(head.header("accept").as_deref(), head.header("prefer").as_deref());
    // Checked in every mode, used in one.
    let after = last_event_id(head)?.filter(|_| mode == ResponseMode::Stream);
    Ok(Generate {
        id: new_id(now_ms, random.random_bits()),
        input_text: JsonString::new(&new.input_text),
        model: Rc::from(new.model),
        no_cache: head.header("cache-control").is_some_and(|field| has_no_cache(&field)),
        referer: Rc::from(request.context.origin.as_str()),
        key,
        mode,
        after,
    })
}

async fn read_body(config: &Config, inbound: &mut impl Inbound) -> Result<NewSession, Problem> {
    let content_type = inbound.header("content-type").unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim_matches([' ', '\t']);
    let content_length = inbound.header("content-length").and_then(|length| length.parse::<u64>().ok());
    if content_length
        .is_some_and(|length| usize::try_from(length).map_or(true, |length| length > BODY_BYTES_MAX))
    {
        return Err(too_large());
    }
    let body = inbound.whole_body(BODY_BYTES_MAX).await.map_err(|error| match error {
        BodyError::TooLarge => too_large(),
        BodyError::Cut => Problem::new(Code::MalformedJson, "the body broke off"),
    })?;
    // Checked after the body is read: a connection whose request was not read cannot be used again.
    if !media_type.eq_ignore_ascii_case(JSON) {
        return Err(Problem::new(Code::UnsupportedMediaType, "send the body as application/json"));
    }
    NewSession::read(&body, &config.model_api.allowed_models)
}

fn too_large() -> Problem {
    let mut problem = Problem::new(Code::BodyTooLarge, "the body has more than 262144 bytes");
    problem.errors.push(FieldError {
        field: String::new(),
        code: "length",
        message: "at most 262144 bytes are read".to_owned(),
        min: None,
        max: u64::try_from(BODY_BYTES_MAX).ok(),
        actual: None,
    });
    problem
}

fn has_no_cache(field: &str) -> bool {
    field.split(',').any(|directive| directive.trim().eq_ignore_ascii_case("no-cache"))
}
