//! `GET /ai-sessions/{id}/events`: the session as a stream of events, from its start or after `Last-Event-ID`. From the user
//! object while it has the session, then from the database.

use super::{last_event_id, session_id, stored_session};
use crate::config::Config;
use crate::edge::events::stored_events;
use crate::edge::execute::execute;
use crate::edge::render::{Responded, complete, found, stream_head};
use crate::edge::{Caller, EdgeHost, Request};
use crate::http::Response;
use crate::http::problem::{Code, Problem};
use crate::ports::Inbound;
use crate::user_object::command::Operation;
use crate::user_object::session_view::GENERATING;
use crate::user_object::stored_session::view_of;

/// Handles the request.
///
/// # Errors
/// `not_found` for every user but its owner, `invalid_parameter`, `database_error`.
pub async fn session_events<H: EdgeHost>(
    host: &H,
    config: &Config,
    request: &Request<impl Inbound>,
    caller: &Caller,
    id: &str,
) -> Responded<H::Body> {
    let id = session_id(id)?;
    let after = last_event_id(&request.inbound)?;
    let execution = execute(host, request, caller, Operation::Subscribe { id, after }).await?;
    if !execution.is_not_found() {
        return execution.respond(config, request, found);
    }
    let row = stored_session(host, config, caller, id).await?;
    if row.status == GENERATING {
        return Err(Problem::new(Code::DatabaseError, "this session is not in progress; try again later"));
    }
    let body = stored_events(&view_of(row), after, &request.context);
    complete(Response { body, ..stream_head(id) })
}
