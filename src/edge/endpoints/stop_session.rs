//! `DELETE /ai-sessions/{id}`: stops a generation in progress. No other request does, nor a client that leaves.

use super::{session_id, stored_session};
use crate::config::Config;
use crate::edge::execute::execute;
use crate::edge::render::{Responded, complete, found, not_running};
use crate::edge::{Caller, EdgeHost, Request};
use crate::http::Response;
use crate::ports::Inbound;
use crate::user_object::command::Operation;
use crate::user_object::has_ended_since;
use crate::user_object::stored_session::ms_of;

/// Handles the request.
///
/// # Errors
/// `not_running` when it has ended, `not_found` for every user but its owner, `database_error`.
pub async fn stop_session<H: EdgeHost>(
    host: &H,
    config: &Config,
    request: &Request<impl Inbound>,
    caller: &Caller,
    id: &str,
) -> Responded<H::Body> {
    let id = session_id(id)?;
    let execution = execute(host, request, caller, Operation::Stop { id }).await?;
    if !execution.is_not_found() {
        return execution.respond(config, request, found);
    }
    let row = stored_session(host, config, caller, id).await?;
    let ended_ms = row.ended_at.as_deref().and_then(ms_of).unwrap_or_default();
    if execution.is_repeated && has_ended_since(request.began_ms, ended_ms) {
        return complete(Response::empty(204));
    }
    Err(not_running())
}
