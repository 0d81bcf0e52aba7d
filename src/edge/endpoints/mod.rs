//! One file per endpoint. Each function follows the numbered steps of the contract from top to bottom.

pub mod create_session;
pub mod docs;
pub mod health;
pub mod list_sessions;
pub mod models;
pub mod openapi;
pub mod read_session;
pub mod ready;
pub mod session_events;
pub mod stop_session;
pub mod wake_up;

use uuid::Uuid;

use super::Caller;
use super::failure::problem_of;
use super::render::no_session;
use crate::config::Config;
use crate::http::problem::{Code, FieldError, Problem};
use crate::http::sse::EventId;
use crate::ports::Head;
use crate::supabase::sessions::SessionRow;
use crate::user_object::session_view::GENERATING;
use crate::user_object::stored_session::{ReadHost, find, read_again};

/// A session's id from a path.
///
/// # Errors
/// `not_found`: the id is no UUID, so no session has it.
fn session_id(id: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(id).map_err(|_| no_session())
}

/// A session that its object does not have, from the database.
///
/// # Errors
/// `not_found` for every user but its owner, `expired_token`, `database_error`.
async fn stored_session(
    host: &impl ReadHost,
    config: &Config,
    caller: &Caller,
    id: Uuid,
) -> Result<SessionRow, Problem> {
    let row = find(host, config, &caller.credentials, id).await.map_err(problem_of)?;
    let row = row.ok_or_else(no_session)?;
    if row.status != GENERATING {
        return Ok(row);
    }
    read_again(host, config, &caller.credentials, row).await.map_err(problem_of)
}

/// `Last-Event-ID`, where it was sent.
///
/// # Errors
/// `invalid_parameter` for an id that no event of this service has.
fn last_event_id(head: &impl Head) -> Result<Option<EventId>, Problem> {
    let Some(field) = head.header("last-event-id") else { return Ok(None) };
    EventId::read(&field)
        .map(Some)
        .ok_or_else(|| invalid_header("Last-Event-ID", "must be the id of an event"))
}

/// An invalid header.
fn invalid_header(name: &str, message: &str) -> Problem {
    let mut problem = Problem::new(Code::InvalidParameter, [name, " ", message].concat());
    problem.errors.push(FieldError {
        field: name.to_owned(),
        code: "type",
        message: message.to_owned(),
        min: None,
        max: None,
        actual: None,
    });
    problem
}
