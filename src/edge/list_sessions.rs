//! `GET /ai-sessions?limit=&before=`: the caller's own sessions, newest first, from the database.

use super::stored_session::{known, list, place_of, time_of};
use super::{AnswerHost, Caller, Passing, Request};
use crate::answer::documents::{Sessions, to_json};
use crate::config::Config;
use crate::http::{Answer, JSON};
use crate::input::page::{Cursor, Page};
use crate::ports::Inbound;

/// The whole of it.
///
/// # Errors
/// `invalid_parameter`, `database_error`.
pub async fn list_sessions<H: AnswerHost>(
    host: &H,
    config: &Config,
    request: &Request<impl Inbound>,
    caller: &Caller<'_>,
) -> Passing<H::Stream> {
    let page = Page::read(super::query_of(request.inbound.url()))?;
    let before = page.before.map(|cursor| (time_of(cursor.created_us), cursor.id));
    let before = before.as_ref().map(|(time, id)| (time.as_str(), *id));
    // One more than is told, to know whether there is another page.
    let mut rows = list(host, config, caller.reader(request), page.limit.saturating_add(1), before).await?;
    let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| has_more).and_then(|last| {
        place_of(&last.created_at).map(|created_us| Cursor { created_us, id: last.id }.to_string())
    });
    let known: Vec<_> = rows.iter().map(known).collect();
    let document = Sessions { sessions: known.iter().map(|known| known.summary()).collect(), next };
    super::whole(Answer::new(200, JSON, to_json(&document)).with("cache-control", "no-store"))
}
