//! `POST /ai-sessions`, at the edge. It reads from top to bottom as the contract's section 3:
//!
//! 1. Authenticate (`routes::answer` has done it).
//! 2. Read and check the body.
//! 3. One call to the user's desk, which counts, reserves, generates and answers.
//!
//! A body that does not hold is counted too, and a request over its limit is told so first, whatever its body says.

use super::{AnswerHost, Reply, Request};
use crate::auth::User;
use crate::config::Config;
use crate::desk::ask::{Facts, Wish};
use crate::http::JSON;
use crate::input::new_session::{BODY_BYTES_MAX, NewSession};
use crate::ports::{BodyError, Inbound, read_whole};
use crate::problem::{Code, Problem};

/// The whole of it.
///
/// # Errors
/// Any row of the table that the contract names for this route.
pub async fn create_session<H: AnswerHost>(
    host: &H,
    config: &Config,
    request: &mut Request<impl Inbound>,
    user: &User,
    token: &str,
) -> Result<(Reply<H::Stream>, Facts), Problem> {
    // (2) Read and check the body.
    let read = read_body(config, &mut request.inbound).await;
    let (wish, refused) = match read {
        Ok(new) => {
            let no_cache = request.inbound.header("cache-control").is_some_and(|field| says_no_cache(&field));
            (Wish::Generate { input_text: new.input_text, model: new.model, no_cache }, None)
        }
        Err(problem) => (Wish::Count, Some(problem)),
    };
    // (3) One call to the user's desk.
    let reply = super::ask_desk(host, request, user, token, wish).await?;
    match refused {
        // 204: within the limit, so the body's own error is told, with the fields that tell what is left.
        Some(problem) if reply.status == 204 => {
            let mut answer = problem.to_answer(&request.origin, &request.id);
            answer
                .headers
                .extend(reply.headers.into_iter().filter(|(name, _)| name.starts_with("ratelimit")));
            Ok((Reply::Whole(answer), Facts { code: Some(problem.code), ..Facts::default() }))
        }
        _ => Ok((
            Reply::Passed { status: reply.status, headers: reply.headers, body: reply.body },
            reply.facts,
        )),
    }
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
