//! `GET /ai-sessions/{id}/events`: the session as a stream of events, from its start or after `Last-Event-ID`. From the
//! desk while it has it, from the database after that.

use std::pin::pin;

use uuid::Uuid;

use super::read_session::since_then;
use super::stored_session::{find, known, parse_id};
use super::{AnswerHost, Caller, Passing, Request};
use crate::answer::events::{COMMENT, COMMENT_EVERY_MS, EVENT_STREAM, EventList, Position};
use crate::answer::session::{GENERATING, Known};
use crate::config::Config;
use crate::http::Answer;
use crate::ports::alarm::Alarm;
use crate::ports::{Clock, EventSink, Follower, Head, Inbound, News, Timer, Unreachable};
use crate::problem::{Code, FieldError, Problem};
use crate::user_state::ask::Wish;

/// The whole of it.
///
/// # Errors
/// `not_found` for whoever is not its owner, `invalid_parameter`, `database_error`.
pub async fn session_events<H: AnswerHost>(
    host: &H,
    config: &Config,
    request: &Request<impl Inbound>,
    caller: &Caller<'_>,
    id: &str,
) -> Passing<H::Stream> {
    let id = parse_id(id)?;
    let after = last_event_id(&request.inbound)?;
    let reply = super::ask_desk(host, request, caller, Wish::Follow { id, after }).await?;
    if reply.status != 404 {
        return Ok(super::passed_on(reply));
    }
    let reader = caller.reader(request);
    let mut row = find(host, config, reader, id).await?.ok_or_else(super::no_session)?;
    if row.status == GENERATING {
        row = since_then(host, config, reader, row).await?;
    }
    if row.status == GENERATING {
        return Err(Problem::new(Code::DatabaseError, "nobody works on this session yet; try again later"));
    }
    super::whole(stored_stream(&known(&row), after, &request.origin, &request.id))
}

/// `Last-Event-ID`, where it was sent.
///
/// # Errors
/// `invalid_parameter` for what no event of this service has as its id.
pub fn last_event_id(head: &impl Head) -> Result<Option<Position>, Problem> {
    let Some(field) = head.header("last-event-id") else { return Ok(None) };
    Position::read(&field).map(Some).ok_or_else(|| bad_header("Last-Event-ID", "must be the id of an event"))
}

/// A header whose value cannot be used.
pub fn bad_header(name: &str, message: &str) -> Problem {
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

/// The head of a stream. `no-transform`: an intermediary that compresses a stream buffers it.
#[must_use]
pub fn stream_head(session: &Known<'_>) -> Answer {
    Answer::new(200, EVENT_STREAM, Vec::new())
        .with("cache-control", "no-store, no-transform")
        .with("location", session.location())
}

/// The events of a session that has ended, whole.
#[must_use]
pub fn stored_stream(session: &Known<'_>, after: Option<Position>, origin: &str, request_id: &str) -> Answer {
    let (mut list, mut body) = (EventList::new(session.id, session.run, after), Vec::new());
    session.tell_rest(&mut list, &mut body, origin, request_id);
    Answer { body, ..stream_head(session) }
}

/// One reader of a generation, from the inside of its object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follow {
    /// The session.
    pub id: Uuid,
    /// Its run.
    pub run: u32,
    /// What was heard before.
    pub after: Option<Position>,
    /// Of the request, for a problem document.
    pub origin: String,
    /// Of the request, for a problem document.
    pub request_id: String,
}

/// A reader who takes nothing for so long is let go; it can come back with `Last-Event-ID`. As long as the silence that
/// Cloudflare bears in the other direction.
pub const STALL_MS: u64 = 100_000;

/// Writes the events as they come, to the end. Each reader has its own place in the one list, so a slow one holds up
/// nobody, and what is kept for it is the list itself.
///
/// # Errors
/// [`Unreachable`]: the reader left, or takes nothing; or the storage failed. A stream that breaks off is one to come
/// back to.
pub async fn write_events(
    host: &(impl Timer + Clock),
    follow: &Follow,
    follower: &impl Follower,
    mut sink: impl EventSink,
) -> Result<(), Unreachable> {
    let mut list = EventList::new(follow.id, follow.run, follow.after);
    let mut alarm = Alarm::new(host);
    let (mut piece, mut is_over) = (Vec::new(), false);
    list.begin(&mut piece);
    loop {
        if !piece.is_empty() {
            let due_ms = host.now_ms().saturating_add(STALL_MS);
            alarm.until(due_ms, pin!(sink.write(&piece))).await.unwrap_or(Err(Unreachable))?;
            piece.clear();
        }
        if is_over {
            sink.close().await;
            return Ok(());
        }
        let due_ms = host.now_ms().saturating_add(COMMENT_EVERY_MS);
        match alarm.until(due_ms, pin!(follower.news(list.cards_heard()))).await {
            Some(News::Cards(candidates)) => list.cards(&mut piece, &candidates),
            Some(News::Finished(settled)) => {
                let session = Known::on_desk(&settled.generation, settled.written);
                session.tell_rest(&mut list, &mut piece, &follow.origin, &follow.request_id);
                is_over = true;
            }
            Some(News::Lost) => return Err(Unreachable),
            None => piece.extend_from_slice(COMMENT),
        }
    }
}
