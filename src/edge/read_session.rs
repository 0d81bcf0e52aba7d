//! `GET /ai-sessions/{id}`: the owner's session, from the database; from the desk while the database does not have
//! its end.

use super::stored_session::{Reader, end_orphan, find, known, parse_id};
use super::{AnswerHost, Caller, Passing, Request};
use crate::answer::session::GENERATING;
use crate::config::Config;
use crate::ports::Inbound;
use crate::problem::{Code, Problem};
use crate::supabase::sessions::SessionRow;
use crate::user_state::ask::Wish;

/// The whole of it.
///
/// # Errors
/// `not_found` for whoever is not its owner, `database_error`.
pub async fn read_session<H: AnswerHost>(
    host: &H,
    config: &Config,
    request: &Request<impl Inbound>,
    caller: &Caller<'_>,
    id: &str,
) -> Passing<H::Stream> {
    let id = parse_id(id)?;
    let reader = caller.reader(request);
    let stored = find(host, config, reader, id).await;
    if let Ok(Some(row)) = &stored
        && has_ended_for_good(row)
    {
        return super::whole(known(row).document(200));
    }
    // Running, perhaps once more, or not written yet, or the database is away: the desk may know more.
    let reply = super::ask_desk(host, request, caller, Wish::Read { id }).await?;
    if reply.status != 404 {
        return Ok(super::passed_on(reply));
    }
    let row = stored?.ok_or_else(super::no_session)?;
    super::whole(known(&since_then(host, config, reader, row).await?).document(200))
}

/// Whether no other run can follow. After a failure that can pass one may, and the desk knows of it first.
fn has_ended_for_good(row: &SessionRow) -> bool {
    let failure = known(row).failure;
    row.status != GENERATING && failure.and_then(Code::retryable) != Some(true)
}

/// The session of that row, which had no end for good when it was read and was on no desk afterwards: it has ended in
/// between, or nobody sees to it. One of a later run is another matter: that has begun since then.
///
/// # Errors
/// As `find`.
pub async fn since_then<H: AnswerHost>(
    host: &H,
    config: &Config,
    reader: Reader<'_>,
    row: SessionRow,
) -> Result<SessionRow, Problem> {
    let run = row.run;
    let row = find(host, config, reader, row.id).await?.unwrap_or(row);
    if row.status == GENERATING && row.run == run {
        return end_orphan(host, config, reader, row).await;
    }
    Ok(row)
}
