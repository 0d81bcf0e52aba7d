//! `DELETE /ai-sessions/{id}`: stops a generation that runs. Nothing else does: a client that leaves loses nothing.

use super::read_session::since_then;
use super::stored_session::{find, ms_of, parse_id};
use super::{AnswerHost, Caller, Passing, Request};
use crate::answer::session::GENERATING;
use crate::config::Config;
use crate::http::Answer;
use crate::ports::Inbound;
use crate::problem::{Code, Problem};
use crate::user_state::ask::Wish;

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
    let ended_ms = row.ended_at.as_deref().and_then(ms_of).unwrap_or_default();
    if is_repeated && is_since(request.began_ms, ended_ms) {
        return super::whole(Answer::empty(204));
    }
    Err(not_running())
}

/// Whether a generation that a request wants to stop has ended since the request began. Where the first answer to it was
/// lost, it is this request that has stopped it, or came just as it ended: then, too, the first answer was that it has.
#[must_use]
pub const fn is_since(began_ms: u64, ended_ms: u64) -> bool {
    began_ms <= ended_ms.saturating_add(CLOCKS_MS)
}

/// By how much the clocks of the Worker, the object and the database may differ.
const CLOCKS_MS: u64 = 1_000;

/// There is nothing to stop.
#[must_use]
pub fn not_running() -> Problem {
    Problem::new(Code::NotRunning, "this generation has ended, and cannot be stopped any more")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_is_since_the_request_began_to_the_millisecond_of_what_clocks_differ_by() {
        const T: u64 = 1_800_000_000_000;
        for (ended_ms, since) in [(T + 5, true), (T, true), (T - 1_000, true), (T - 1_001, false), (0, false)]
        {
            assert_eq!(is_since(T, ended_ms), since, "{ended_ms}");
        }
    }
}
