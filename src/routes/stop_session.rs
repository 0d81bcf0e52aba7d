//! `DELETE /ai-sessions/{id}`: stops a generation that runs. Nothing else does: a client that leaves loses nothing.

use super::read_session::since_then;
use super::stored_session::{find, known, parse_id};
use super::{AnswerHost, Caller, Passing, Request};
use crate::answer::session::GENERATING;
use crate::config::Config;
use crate::desk::ask::Wish;
use crate::http::Answer;
use crate::ports::Inbound;
use crate::problem::{Code, Problem};

/// The whole of it.
///
/// # Errors
/// `not_running` when it has ended, `not_found` for whoever is not its owner, `database_error`.
pub async fn stop_session<H: AnswerHost>(
    host: &H,
    config: &Config,
    request: &Request<impl Inbound>,
    caller: &Caller<'_>,
    id: &str,
) -> Passing<H::Stream> {
    let id = parse_id(id)?;
    let (reply, is_repeated) = super::ask_desk_told(host, request, caller, Wish::Stop { id }).await?;
    if reply.status != 404 {
        return Ok(super::passed_on(reply));
    }
    let reader = caller.reader(request);
    let mut row = find(host, config, reader, id).await?.ok_or_else(super::no_session)?;
    if row.status == GENERATING {
        row = since_then(host, config, reader, row).await?;
    }
    if is_repeated && was_stopped(row.partial, known(&row).failure) {
        return super::whole(Answer::empty(204));
    }
    Err(not_running())
}

/// Whether a generation has ended as one that is stopped does. Asked when the answer to the first asking was lost: then it
/// is this request that has stopped it.
#[must_use]
pub fn was_stopped(is_partial: bool, failure: Option<Code>) -> bool {
    is_partial || failure == Some(Code::Cancelled)
}

/// There is nothing to stop.
#[must_use]
pub fn not_running() -> Problem {
    Problem::new(Code::NotRunning, "this generation has ended, and cannot be stopped any more")
}
