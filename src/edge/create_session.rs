//! `POST /ai-sessions`, at the edge. It reads from top to bottom as the contract's section 3:
//!
//! 1. Authenticate (`edge::answer` has done it).
//! 2. Read and check the body.
//! 3. One call to the user's desk, which counts, reserves, generates and answers.
//!
//! A body that does not hold is counted too, and a request over its limit is told so first, whatever its body says.

use super::session_events::{bad_header, last_event_id};
use super::{AnswerHost, Caller, Passing, Reply, Request, new_id};
use crate::answer::form::Form;
use crate::config::Config;
use crate::http::JSON;
use crate::input::idempotency_key;
use crate::input::new_session::{BODY_BYTES_MAX, NewSession};
use crate::ports::{BodyError, Head, Inbound, Random, read_whole};
use crate::problem::{Code, Problem};
use crate::user_state::ask::{Generate, LogFields, Wish};

/// The whole of it.
///
/// # Errors
/// Any row of the table that the contract names for this route.
pub async fn create_session<H: AnswerHost>(
    host: &H,
    config: &Config,
    request: &mut Request<impl Inbound>,
    caller: &Caller<'_>,
) -> Passing<H::Stream> {
    // (2) Read and check the body, and what the headers say of it.
    let read = match read_body(config, &mut request.inbound).await {
        Ok(new) => wanted(host, host.now_ms(), &request.inbound, new),
        Err(problem) => Err(problem),
    };
    let (wish, refused) = match read {
        Ok(wanted) => (Wish::Generate(Box::new(wanted)), None),
        Err(problem) => (Wish::Count, Some(problem)),
    };
    // (3) One call to the user's desk.
    let reply = super::ask_desk(host, request, caller, wish).await?;
    match refused {
        // 204: within the limit, so the request's own error is told, with the fields that tell what is left.
        Some(problem) if reply.status == 204 => {
            let mut answer = problem.to_answer(&request.origin, &request.id);
            answer
                .headers
                .extend(reply.headers.into_iter().filter(|(name, _)| name.starts_with("ratelimit")));
            Ok((Reply::Whole(answer), LogFields { code: Some(problem.code), ..LogFields::default() }))
        }
        _ => Ok(super::passed_on(reply)),
    }
}

fn wanted(random: &impl Random, now_ms: u64, head: &impl Head, new: NewSession) -> Result<Generate, Problem> {
    let key = head.header("idempotency-key").map(|field| idempotency_key::read(&field)).transpose();
    let key =
        key.map_err(|_| bad_header("Idempotency-Key", "must be one string of 1 to 255 visible characters"))?;
    let form = Form::asked(head.header("accept").as_deref(), head.header("prefer").as_deref());
    // Checked in every form, used in one.
    let after = last_event_id(head)?.filter(|_| form == Form::Stream);
    Ok(Generate {
        id: new_id(now_ms, random),
        input_text: new.input_text,
        model: new.model,
        no_cache: head.header("cache-control").is_some_and(|field| says_no_cache(&field)),
        key,
        form,
        after,
    })
}

async fn read_body(config: &Config, inbound: &mut impl Inbound) -> Result<NewSession, Problem> {
    let content_type = inbound.header("content-type").unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim_matches([' ', '\t']);
    let announced = inbound.header("content-length").and_then(|length| length.parse::<u64>().ok());
    if announced.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > BODY_BYTES_MAX))
    {
        return Err(too_large());
    }
    let body = read_whole(inbound, BODY_BYTES_MAX).await.map_err(|error| match error {
        BodyError::TooLarge => too_large(),
        BodyError::Broken => Problem::new(Code::MalformedJson, "the body broke off"),
    })?;
    // Said when the body has been read: a connection whose request was not read cannot be used again.
    if !media_type.eq_ignore_ascii_case(JSON) {
        return Err(Problem::new(Code::UnsupportedMediaType, "send the body as application/json"));
    }
    NewSession::read(&body, &config.model_api.allowed_models)
}

fn too_large() -> Problem {
    let mut problem = Problem::new(Code::BodyTooLarge, "the body has more than 262144 bytes");
    problem.errors.push(crate::problem::FieldError {
        field: String::new(),
        code: "length",
        message: "at most 262144 bytes are read".to_owned(),
        min: None,
        max: u64::try_from(BODY_BYTES_MAX).ok(),
        actual: None,
    });
    problem
}

fn says_no_cache(field: &str) -> bool {
    field.split(',').any(|directive| directive.trim().eq_ignore_ascii_case("no-cache"))
}
