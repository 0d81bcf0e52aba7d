//! `GET /ai-sessions/{id}`: the owner's session, from the database; from the user object while the database does not have its
//! end.

use super::session_id;
use crate::config::Config;
use crate::edge::execute::execute;
use crate::edge::failure::problem_of;
use crate::edge::render::{Responded, complete, found, no_session};
use crate::edge::{Caller, EdgeHost, Request};
use crate::http::Response;
use crate::http::problem::Code;
use crate::ports::Inbound;
use crate::supabase::sessions::SessionRow;
use crate::user_object::command::Operation;
use crate::user_object::session_view::GENERATING;
use crate::user_object::stored_session::{failure_of, find, read_again, view_of};

/// Handles the request.
///
/// # Errors
/// `not_found` for every user but its owner, `database_error`.
pub async fn read_session<H: EdgeHost>(
    host: &H,
    config: &Config,
    request: &Request<impl Inbound>,
    caller: &Caller,
    id: &str,
) -> Responded<H::Body> {
    let id = session_id(id)?;
    let credentials = &caller.credentials;
    let stored = match find(host, config, credentials, id).await {
        Ok(Some(row)) if has_final_end(&row) => return complete(document(row)),
        stored => stored,
    };
    // In progress, perhaps once more, or not yet persisted, or the database is unreachable: the object may have a later state.
    let execution = execute(host, request, caller, Operation::Read { id }).await?;
    if !execution.is_not_found() {
        return execution.respond(config, request, found);
    }
    let row = stored.map_err(problem_of)?.ok_or_else(no_session)?;
    let row = read_again(host, config, credentials, row).await.map_err(problem_of)?;
    complete(document(row))
}

fn document(row: SessionRow) -> Response {
    let document = view_of(row).document();
    Response { body: document.json.clone(), ..found(&document) }
}

/// Whether no other run can start. After a retryable failure one can, and the object has it before the database.
fn has_final_end(row: &SessionRow) -> bool {
    row.status != GENERATING && failure_of(row).and_then(Code::retryable) != Some(true)
}
