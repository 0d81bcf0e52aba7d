//! `GET /ai-sessions/{id}`: the owner's session, from the database; from the desk while the database does not have
//! its end.

use uuid::Uuid;

use super::{AnswerHost, Reply, Request};
use crate::answer::documents::{Session, to_json};
use crate::auth::User;
use crate::config::{Config, LogLevel};
use crate::desk::ask::{Facts, Wish};
use crate::desk::record::KeptCandidate;
use crate::generation::usage::Usage;
use crate::http::{Answer, JSON};
use crate::ports::Inbound;
use crate::problem::{Code, Problem};
use crate::supabase::rest::{Caller, RestError};
use crate::supabase::sessions::{self, SessionRow};

/// The whole of it.
///
/// # Errors
/// `not_found` for whoever is not its owner, `database_error`.
pub async fn read_session<H: AnswerHost>(
    host: &H,
    config: &Config,
    request: &Request<impl Inbound>,
    user: &User,
    token: &str,
    id: &str,
) -> Result<(Reply<H::Stream>, Facts), Problem> {
    let id = Uuid::try_parse(id).map_err(|_| super::no_session())?;
    let caller = Caller { token, traceparent: request.traceparent.as_deref() };
    let stored = sessions::read(host, &config.supabase, caller, id).await;
    if let Ok(Some(row)) = &stored
        && row.status != GENERATING
    {
        return Ok((Reply::Whole(answer(row)), Facts::default()));
    }
    // Running, or not written yet, or the database is away: the desk may know more.
    let reply = super::ask_desk(host, request, user, token, Wish::Read { id }).await?;
    if reply.status != 404 {
        let reply_to_pass = Reply::Passed { status: reply.status, headers: reply.headers, body: reply.body };
        return Ok((reply_to_pass, reply.facts));
    }
    match stored {
        Ok(Some(row)) => Ok((Reply::Whole(answer(&row)), Facts::default())),
        Ok(None) => Err(super::no_session()),
        // It was verified a moment ago: the database refuses it only for its age, or else refuses this service.
        Err(RestError::Unauthorized) if user.expires_ms <= host.now_ms() => {
            Err(crate::auth::Refused::Expired.to_problem())
        }
        Err(error) => {
            let line =
                [r#"{"level":"warn","message":"database","step":"read","error":""#, &error.word(), r#""}"#];
            host.log(LogLevel::Warn, &line.concat());
            Err(Problem::new(Code::DatabaseError, "the session cannot be read now; try again later"))
        }
    }
}

/// The status of a session without an end.
pub const GENERATING: &str = "generating";

fn answer(row: &SessionRow) -> Answer {
    let usage = match (row.prompt_tokens, row.completion_tokens) {
        (None, None) => None,
        (prompt, completion) => Some(Usage {
            prompt_tokens: prompt.unwrap_or(0),
            completion_tokens: completion.unwrap_or(0),
            cost: row.cost.unwrap_or(0.0),
        }),
    };
    let none: &[KeptCandidate] = &[];
    let document = Session {
        id: row.id,
        status: &row.status,
        model: &row.model,
        partial: row.partial,
        error: row.error_code.as_deref(),
        created_at: &row.created_at,
        ended_at: row.ended_at.as_deref(),
        usage,
        candidates: if row.status == "completed" { &row.candidates } else { none },
    };
    Answer::new(200, JSON, to_json(&document)).with("cache-control", "no-store")
}
