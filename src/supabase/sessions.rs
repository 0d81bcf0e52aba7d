//! The rows of a session; each function is one round trip. `migrations/` contains the tables and the SQL functions.

use std::rc::Rc;

use uuid::Uuid;

use super::rest::{BYTES_MAX, RestError, is_document, request, send, send_repeatable};
use crate::auth::credentials::Credentials;
use crate::citation::sentences::Passage;
use crate::config::Supabase;
use crate::generation::candidate::CHARS_MAX;
use crate::generation::usage::Usage;
use crate::http::problem::Code;
use crate::json::record::{FromJson, Items, Members, ToJson, to_json, write_object};
use crate::json_string::JsonString;
use crate::ports::{Fetch, Timer};
use crate::user_state::generation::SessionCandidate;

/// The first row of a session.
#[derive(Debug)]
pub struct NewRow<'a> {
    /// The session's id.
    pub id: Uuid,
    /// The 1-based number of the run of this session.
    pub run: u32,
    /// The requested model.
    pub model: &'a str,
    /// Sanitized.
    pub input_text: &'a JsonString,
    /// RFC 3339.
    pub created_at: &'a str,
}

impl ToJson for NewRow<'_> {
    fn write(&self, json: &mut String) {
        let members: [(&str, &dyn ToJson); 5] = [
            ("id", &self.id),
            ("run", &self.run),
            ("model", &self.model),
            ("input_text", self.input_text),
            ("created_at", &self.created_at),
        ];
        write_object(json, &members);
    }
}

/// The body of a request.
fn body_of(members: &[(&str, &dyn ToJson)]) -> Vec<u8> {
    let mut json = String::new();
    write_object(&mut json, members);
    json.into_bytes()
}

/// Opens a session, or opens it again for another run. If the row of a first run exists, an earlier attempt wrote it and its
/// response was lost: the id is unique. `is_busy` returns whether the model call still runs; waiting for a token to become valid
/// causes no delay until then.
///
/// Returns whether the database confirmed the row. A page with status 200, such as a firewall's check of a browser, confirms
/// nothing, and does not stop a running model call: `finish_ai_session` creates the row itself.
///
/// # Errors
/// [`RestError`].
pub async fn open(
    host: &(impl Fetch + Timer),
    supabase: &Supabase,
    credentials: &Credentials,
    row: &NewRow<'_>,
    is_busy: &dyn Fn() -> bool,
) -> Result<bool, RestError> {
    if row.run > 1 {
        let body = body_of(&[("session", row)]);
        let opening = request(supabase, credentials, "POST", "/rpc/reopen_ai_session", body);
        return send_repeatable(host, opening, BYTES_MAX, is_busy).await.map(|answer| is_document(&answer));
    }
    let body = to_json(row).into_bytes();
    let opening = request(supabase, credentials, "POST", "/ai_generation_sessions", body);
    match send_repeatable(host, opening, BYTES_MAX, is_busy).await {
        Ok(answer) => Ok(is_document(&answer)),
        Err(RestError::Refused { sqlstate: Some(code), .. }) if code == RestError::UNIQUE_VIOLATION => {
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

/// The end of a session, for `finish_ai_session`.
#[derive(Debug)]
pub struct FinishedRow<'a> {
    /// The session's id.
    pub id: Uuid,
    /// The 1-based number of the run of this session.
    pub run: u32,
    /// The requested model.
    pub model: &'a str,
    /// Only if the row was not confirmed: the function then creates it.
    pub input_text: Option<&'a JsonString>,
    /// RFC 3339.
    pub created_at: Option<&'a str>,
    /// `completed` or `failed`.
    pub status: &'a str,
    /// Whether the model's answer was cut off.
    pub partial: bool,
    /// The code of a failure.
    pub error_code: Option<Code>,
    /// As billed.
    pub prompt_tokens: Option<u64>,
    /// As billed.
    pub completion_tokens: Option<u64>,
    /// In US dollars.
    pub cost: Option<f64>,
    /// The share of the text that has a candidate.
    pub coverage_percent: Option<u32>,
}

impl ToJson for FinishedRow<'_> {
    fn write(&self, json: &mut String) {
        let members: [(&str, &dyn ToJson); 12] = [
            ("id", &self.id),
            ("run", &self.run),
            ("model", &self.model),
            ("input_text", &self.input_text),
            ("created_at", &self.created_at),
            ("status", &self.status),
            ("partial", &self.partial),
            ("error_code", &self.error_code),
            ("prompt_tokens", &self.prompt_tokens),
            ("completion_tokens", &self.completion_tokens),
            ("cost", &self.cost),
            ("coverage_percent", &self.coverage_percent),
        ];
        write_object(json, &members);
    }
}

/// The data of an event row, beside type, user and session. A member without a value is left out.
#[derive(Debug)]
pub struct EventData<'a> {
    /// The code of a failure.
    pub code: Option<Code>,
    /// Model calls made.
    pub attempts: u32,
    /// Accepted candidates.
    pub candidates: u64,
    /// Dropped candidates.
    pub dropped: u32,
    /// The model that generated the answer.
    pub served_model: Option<&'a str>,
    /// From the acceptance to the end of the model's answer.
    pub duration_ms: u64,
    /// As billed.
    pub usage: Option<&'a Usage>,
}

impl ToJson for EventData<'_> {
    fn write(&self, json: &mut String) {
        let mut members: Vec<(&str, &dyn ToJson)> = Vec::new();
        if let Some(code) = &self.code {
            members.push(("code", code));
        }
        members.push(("attempts", &self.attempts));
        members.push(("candidates", &self.candidates));
        members.push(("dropped", &self.dropped));
        if let Some(served_model) = &self.served_model {
            members.push(("served_model", served_model));
        }
        members.push(("duration_ms", &self.duration_ms));
        if let Some(usage) = self.usage {
            members.push(("usage", usage));
        }
        write_object(json, &members);
    }
}

/// Ends a session in one transaction: candidates, session, event. May be repeated: an ended session does not change.
///
/// # Errors
/// [`RestError`].
pub async fn finish(
    host: &(impl Fetch + Timer),
    supabase: &Supabase,
    credentials: &Credentials,
    session: &FinishedRow<'_>,
    candidates: &[Rc<SessionCandidate>],
    event: &EventData<'_>,
) -> Result<(), RestError> {
    let body = body_of(&[("session", session), ("candidates", &candidates), ("event", event)]);
    let ending = request(supabase, credentials, "POST", "/rpc/finish_ai_session", body);
    let answer = send_repeatable(host, ending, BYTES_MAX, &|| false).await?;
    if is_session_status(&answer) { Ok(()) } else { Err(RestError::Unavailable) }
}

/// Whether a response is from `finish_ai_session`: the present status of the session as a JSON string (empty from a PostgREST
/// that applies `return=minimal` to functions, too). `generating` is the status of a later run, for which this end is too late.
/// A page with status 200 is from an intermediary: nothing is written then, and the billed candidates must be kept.
fn is_session_status(answer: &[u8]) -> bool {
    matches!(answer.trim_ascii(), b"" | b"\"completed\"" | b"\"failed\"" | b"\"generating\"")
}

/// The data of an event row about an exceeded limit.
struct Exceeded<'a> {
    policy: &'a str,
}

impl ToJson for Exceeded<'_> {
    fn write(&self, json: &mut String) {
        write_object(json, &[("policy", &self.policy)]);
    }
}

/// Writes to the event log that a limit was exceeded.
///
/// # Errors
/// [`RestError`].
pub async fn log_rate_limited(
    host: &(impl Fetch + Timer),
    supabase: &Supabase,
    credentials: &Credentials,
    policy: &str,
) -> Result<(), RestError> {
    let row: [(&str, &dyn ToJson); 2] =
        [("type", &"ai_session.rate_limited"), ("data", &Exceeded { policy })];
    let body = body_of(&row);
    send(host, request(supabase, credentials, "POST", "/event_logs", body), BYTES_MAX).await.map(|_| ())
}

/// A stored session. Its owner can have written the row without this service, so an invalid cost or time must not fail the
/// read; the other columns have types without invalid values.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRow {
    /// The session's id.
    pub id: Uuid,
    /// The 1-based number of the run of this session.
    pub run: u32,
    /// `generating`, `completed`, `failed`.
    pub status: String,
    /// The requested model.
    pub model: Rc<str>,
    /// Whether the model's answer was cut off.
    pub partial: bool,
    /// The code of a failure.
    pub error_code: Option<String>,
    /// As Postgres writes a time: RFC 3339, `infinity`, or with a year that RFC 3339 cannot express.
    pub created_at: String,
    /// In the same format.
    pub ended_at: Option<String>,
    /// As billed.
    pub prompt_tokens: Option<u64>,
    /// As billed.
    pub completion_tokens: Option<u64>,
    /// In US dollars.
    pub cost: Option<f64>,
    /// The share of the text that has a candidate; `None` in a list.
    pub coverage_percent: Option<u32>,
    /// In their order; empty in a list.
    pub candidates: Vec<Rc<SessionCandidate>>,
    /// The candidates beyond [`ROWS_MAX`], which [`read`] appends to the others.
    rest: Vec<Rc<SessionCandidate>>,
    /// In a list, the number of candidates, which PostgREST returns as an array of one.
    counted: Vec<Counted>,
}

#[derive(Debug, Clone, PartialEq)]
struct Counted {
    count: u32,
}

impl FromJson for SessionRow {
    fn read(json: &[u8]) -> Option<Self> {
        let members = Members::read(json)?;
        let first = if members.has("first") { "first" } else { "flashcard_candidates" };
        let candidates: CandidateRows = members.get_or_default(first)?;
        let rest: CandidateRows = members.get_or_default("rest")?;
        Some(Self {
            id: members.get("id")?,
            run: members.get("run")?,
            status: members.get("status")?,
            model: members.get("model")?,
            partial: members.get("partial")?,
            error_code: members.get("error_code")?,
            created_at: members.get("created_at")?,
            ended_at: members.get("ended_at")?,
            prompt_tokens: members.get("prompt_tokens")?,
            completion_tokens: members.get("completion_tokens")?,
            // None for a number that is not finite, such as a `numeric` of 400 digits or `"NaN"`.
            cost: members.get("cost").flatten(),
            coverage_percent: members.get("coverage_percent")?,
            candidates: candidates.0,
            rest: rest.0,
            counted: members.get_or_default("counted")?,
        })
    }
}

/// Rows of candidates. Unlike a record, a row has the two ends of the source in columns of their own.
#[derive(Default)]
struct CandidateRows(Vec<Rc<SessionCandidate>>);

impl FromJson for CandidateRows {
    fn read(json: &[u8]) -> Option<Self> {
        let row = |json| {
            let mut candidate = SessionCandidate::read(json)?;
            let members = Members::read(json)?;
            let ends: (Option<usize>, Option<usize>) =
                (members.get("source_start")?, members.get("source_end")?);
            candidate.citation.source = ends.0.zip(ends.1).map(|(start, end)| Passage { start, end });
            Some(Rc::new(candidate))
        };
        Items::read(json)?.iter().map(row).collect::<Option<_>>().map(Self)
    }
}

impl FromJson for Counted {
    fn read(json: &[u8]) -> Option<Self> {
        Members::read(json)?.get("count").map(|count| Self { count })
    }
}

impl SessionRow {
    /// Returns the number of candidates.
    #[must_use]
    pub fn candidate_count(&self) -> usize {
        self.counted
            .first()
            .map_or(self.candidates.len(), |counted| usize::try_from(counted.count).unwrap_or(usize::MAX))
    }
}

/// The columns of a [`SessionRow`].
const COLUMNS: &str =
    "id,run,status,model,partial,error_code,created_at,ended_at,prompt_tokens,completion_tokens,cost";

/// The embedded columns of a candidate.
const CANDIDATES: &str = "flashcard_candidates(id,front,back,prompt,source_start,source_end,supported,notes)";

/// The most rows that a hosted PostgREST returns of one table (`max-rows`), also of an embedded one.
const ROWS_MAX: usize = 1000;
/// The longest form of a character in JSON: two escapes such as `\ud83d`.
const CHAR_BYTES_MAX: usize = 12;
/// The longest names, ids, times and numbers of a row: at most some 500 bytes.
const ROW_BYTES_MAX: usize = 1024;
/// The texts of a session's row: the model's id (200 characters) and an error code (64).
const SESSION_BYTES_MAX: usize = ROW_BYTES_MAX + 264 * CHAR_BYTES_MAX;
/// A candidate's texts and its id.
const CANDIDATE_BYTES_MAX: usize =
    ROW_BYTES_MAX + (CHARS_MAX[0].1 + CHARS_MAX[1].1 + CHARS_MAX[2].1) * CHAR_BYTES_MAX;

/// Returns the size of so many rows, or of an error in their place.
const fn bytes_of(rows: usize, row_bytes_max: usize) -> usize {
    BYTES_MAX.saturating_add(rows.saturating_mul(row_bytes_max))
}

/// Returns the path of a session with at most so many of its candidates: its owner can have inserted more than this service.
fn path_of(id: Uuid, candidates_max: usize) -> String {
    let id = id.to_string();
    let first = ["/ai_generation_sessions?id=eq.", &id, "&select=", COLUMNS, ",coverage_percent"].concat();
    let Some(rest) = candidates_max.checked_sub(ROWS_MAX).filter(|rest| *rest > 0) else {
        let limit = candidates_max.to_string();
        let order = "&flashcard_candidates.order=position&flashcard_candidates.limit=";
        return [&first, ",", CANDIDATES, order, &limit].concat();
    };
    let order =
        "&first.order=position&first.position=lt.1000&rest.order=position&rest.position=gte.1000&rest.limit=";
    [&first, ",first:", CANDIDATES, ",rest:", CANDIDATES, order, &rest.to_string()].concat()
}

/// Reads one session with at most so many of its candidates; `None` if the caller has none of this id.
///
/// # Errors
/// [`RestError`].
pub async fn read(
    host: &(impl Fetch + Timer),
    supabase: &Supabase,
    credentials: &Credentials,
    id: Uuid,
    candidates_max: usize,
) -> Result<Option<SessionRow>, RestError> {
    let reading = request(supabase, credentials, "GET", &path_of(id, candidates_max), Vec::new());
    let bytes_max = bytes_of(candidates_max, CANDIDATE_BYTES_MAX);
    let body = send_repeatable(host, reading, bytes_max, &|| false).await?;
    let rows: Vec<SessionRow> = Vec::read(&body).ok_or(RestError::Unavailable)?;
    Ok(rows.into_iter().next().map(|mut row| {
        row.candidates.append(&mut row.rest);
        row
    }))
}

/// Lists at most `limit` of the caller's sessions before a place, newest first.
///
/// # Errors
/// [`RestError`].
pub async fn list(
    host: &(impl Fetch + Timer),
    supabase: &Supabase,
    credentials: &Credentials,
    limit: u32,
    before: Option<(&str, Uuid)>,
) -> Result<Vec<SessionRow>, RestError> {
    let select =
        ["/ai_generation_sessions?select=", COLUMNS, ",counted:flashcard_candidates(count)"].concat();
    let mut path = [&select, "&order=created_at.desc,id.desc&limit=", &limit.to_string()].concat();
    if let Some((created_at, id)) = before {
        // The first condition allows an index range scan; `or` alone would scan from the beginning.
        let id = id.to_string();
        for part in ["&created_at=lte.", created_at, "&or=(created_at.lt.", created_at, ",id.lt.", &id, ")"] {
            path.push_str(part);
        }
    }
    let reading = request(supabase, credentials, "GET", &path, Vec::new());
    let rows = usize::try_from(limit).unwrap_or(usize::MAX);
    let body = send_repeatable(host, reading, bytes_of(rows, SESSION_BYTES_MAX), &|| false).await?;
    Vec::read(&body).ok_or(RestError::Unavailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_session_status_confirms_the_end() {
        for (answer, is_it) in [
            (&b"\"completed\""[..], true),
            (b"\"failed\"\n", true),
            (b"", true),
            (b"\"generating\"", true),
            (b"<html>", false),
            (b"[]", false),
            (b"{\"message\":\"completed\"}", false),
        ] {
            assert_eq!(is_session_status(answer), is_it);
        }
    }
}
