//! `GET /ai-sessions?limit=&before=`: the caller's own sessions, newest first, from the database.

use crate::config::Config;
use crate::edge::documents::Sessions;
use crate::edge::failure::problem_of;
use crate::edge::render::{Responded, complete};
use crate::edge::{Caller, EdgeHost, Request};
use crate::http::url::query_of;
use crate::http::{JSON, Response};
use crate::input::page::{Cursor, Page};
use crate::json::record::to_json;
use crate::ports::Inbound;
use crate::user_object::stored_session::{list, place_of, time_of, view_of};

/// Handles the request.
///
/// # Errors
/// `invalid_parameter`, `database_error`.
pub async fn list_sessions<H: EdgeHost>(
    host: &H,
    config: &Config,
    request: &Request<impl Inbound>,
    caller: &Caller,
) -> Responded<H::Body> {
    let page = Page::read(query_of(request.inbound.url()))?;
    let before = page.before.map(|cursor| (time_of(cursor.created_us), cursor.id));
    let before = before.as_ref().map(|(time, id)| (time.as_str(), *id));
    // One more than is sent, which shows whether there is another page.
    let listed = list(host, config, &caller.credentials, page.limit.saturating_add(1), before).await;
    let mut rows = listed.map_err(problem_of)?;
    let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| has_more).and_then(|last| {
        place_of(&last.created_at).map(|created_us| Cursor { created_us, id: last.id }.to_string())
    });
    let views: Vec<_> = rows.into_iter().map(view_of).collect();
    let document = Sessions { sessions: views.iter().map(|view| view.summary()).collect(), next };
    complete(Response::new(200, JSON, to_json(&document).into_bytes()).with("cache-control", "no-store"))
}
