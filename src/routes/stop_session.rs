//! `DELETE /ai-sessions/{id}`: stops a generation that runs. Nothing else does: a client that leaves loses nothing.

use super::read_session::since_then;
use super::stored_session::{find, parse_id};
use super::{AnswerHost, Caller, Passing, Request};
use crate::answer::session::GENERATING;
use crate::config::Config;
use crate::desk::ask::Wish;
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
    let reply = super::ask_desk(host, request, caller, Wish::Stop { id }).await?;
    if reply.status != 404 {
        return Ok(super::passed_on(reply));
    }
    let reader = caller.reader(request);
    let row = find(host, config, reader, id).await?.ok_or_else(super::no_session)?;
    if row.status == GENERATING {
        since_then(host, config, reader, row).await?;
    }
    Err(not_running())
}

/// There is nothing to stop.
#[must_use]
pub fn not_running() -> Problem {
    Problem::new(Code::NotRunning, "this generation has ended, and cannot be stopped any more")
}
