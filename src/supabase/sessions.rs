//! The rows of a session: one function, one round trip. The tables and the completing function are in
//! `migrations/`.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::rest::{BYTES_MAX, Caller, RestError, is_document, request, send, send_repeatable};
use crate::config::Supabase;
use crate::generation::candidate::CHARS_MAX;
use crate::generation::usage::Usage;
use crate::ports::{Fetch, Timer};
use crate::problem::Code;
use crate::user_state::record::SessionCandidate;

/// The row with which a session begins.
#[derive(Debug, Serialize)]
pub struct NewRow<'a> {
    /// The session's id.
    pub id: Uuid,
    /// The so-manieth try under this session.
    pub run: u32,
    /// The asked-for model.
    pub model: &'a str,
    /// Sanitized.
    pub input_text: &'a str,
    /// RFC 3339.
    pub created_at: &'a str,
}

/// Opens a session, or opens it again for another run. A row that is there already when the first one begins is the one
/// that an earlier attempt wrote without our hearing of it: nobody else makes this id. `is_busy` says whether the model
/// still runs: for so long, a token that is not valid yet costs nobody any time.
///
/// Whether the database has confirmed it. A page with status 200, such as a firewall sends to look at a browser, confirms
/// nothing, and is no reason to stop a model that runs: the completing function opens the row itself.
///
/// # Errors
/// [`RestError`].
pub async fn open(
    host: &(impl Fetch + Timer),
    supabase: &Supabase,
    caller: Caller<'_>,
    row: &NewRow<'_>,
    is_busy: &dyn Fn() -> bool,
) -> Result<bool, RestError> {
    #[derive(Serialize)]
    struct Arguments<'a> {
        session: &'a NewRow<'a>,
    }
    if row.run > 1 {
        let body = serde_json::to_vec(&Arguments { session: row }).unwrap_or_default();
        let opening = request(supabase, caller, "POST", "/rpc/reopen_ai_session", body);
        return send_repeatable(host, opening, BYTES_MAX, is_busy).await.map(|answer| is_document(&answer));
    }
    let body = serde_json::to_vec(row).unwrap_or_default();
    let opening = request(supabase, caller, "POST", "/ai_generation_sessions", body);
    match send_repeatable(host, opening, BYTES_MAX, is_busy).await {
        Ok(answer) => Ok(is_document(&answer)),
        Err(RestError::Refused { sqlstate: Some(code), .. }) if code == RestError::UNIQUE_VIOLATION => {
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

/// How a session ended, for the completing function.
#[derive(Debug, Serialize)]
pub struct FinishedRow<'a> {
    /// The session's id.
    pub id: Uuid,
    /// The so-manieth try under this session.
    pub run: u32,
    /// The asked-for model.
    pub model: &'a str,
    /// Only where the opening was not confirmed: the function then opens the row itself.
    pub input_text: Option<&'a str>,
    /// RFC 3339.
    pub created_at: Option<&'a str>,
    /// `completed` or `failed`.
    pub status: &'a str,
    /// Whether the model's answer broke off.
    pub partial: bool,
    /// Why it failed.
    pub error_code: Option<Code>,
    /// What was billed.
    pub prompt_tokens: Option<u64>,
    /// What was billed.
    pub completion_tokens: Option<u64>,
    /// In US dollars.
    pub cost: Option<f64>,
}

/// What the event row keeps beside type, user and session.
#[derive(Debug, Serialize)]
pub struct EventData<'a> {
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// Model calls made.
    pub attempts: u32,
    /// Candidates kept.
    pub candidates: usize,
    /// Candidates dropped.
    pub dropped: u32,
    /// The model that served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub served_model: Option<&'a str>,
    /// From the acceptance to the end of the model's answer.
    pub duration_ms: u64,
    /// What was billed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<&'a Usage>,
}

/// Ends a session in one transaction: candidates, session, event. May be repeated: a session that has ended stays as
/// it is.
///
/// # Errors
/// [`RestError`].
pub async fn finish(
    host: &(impl Fetch + Timer),
    supabase: &Supabase,
    caller: Caller<'_>,
    session: &FinishedRow<'_>,
    candidates: &[SessionCandidate],
    event: &EventData<'_>,
) -> Result<(), RestError> {
    #[derive(Serialize)]
    struct Arguments<'a> {
        session: &'a FinishedRow<'a>,
        candidates: &'a [SessionCandidate],
        event: &'a EventData<'a>,
    }
    let body = serde_json::to_vec(&Arguments { session, candidates, event }).unwrap_or_default();
    let ending = request(supabase, caller, "POST", "/rpc/finish_ai_session", body);
    let answer = send_repeatable(host, ending, BYTES_MAX, &|| false).await?;
    if is_session_status(&answer) { Ok(()) } else { Err(RestError::Unavailable) }
}

/// Whether that is what the completing function answers: how the session stands now, as a JSON string (nothing at all
/// from a PostgREST that takes `return=minimal` for functions too). `generating` says that a later run has it, for which
/// this end came too late. A page with status 200 is from somebody who stands before the database: nothing is written
/// then, and what was paid for must be kept.
fn is_session_status(answer: &[u8]) -> bool {
    matches!(answer.trim_ascii(), b"" | b"\"completed\"" | b"\"failed\"" | b"\"generating\"")
}

/// Tells the event log that a limit was reached.
///
/// # Errors
/// [`RestError`].
pub async fn log_rate_limited(
    host: &(impl Fetch + Timer),
    supabase: &Supabase,
    caller: Caller<'_>,
    policy: &str,
) -> Result<(), RestError> {
    #[derive(Serialize)]
    struct Row<'a> {
        r#type: &'a str,
        data: Data<'a>,
    }
    #[derive(Serialize)]
    struct Data<'a> {
        policy: &'a str,
    }
    let row = Row { r#type: "ai_session.rate_limited", data: Data { policy } };
    let body = serde_json::to_vec(&row).unwrap_or_default();
    send(host, request(supabase, caller, "POST", "/event_logs", body), BYTES_MAX).await.map(|_| ())
}

/// A session as the database has it. Its owner can have written the row past this service, so a cost or a time that is none
/// must not fail the read; the types of the other columns exclude the like.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct SessionRow {
    /// The session's id.
    pub id: Uuid,
    /// The so-manieth try under this session.
    pub run: u32,
    /// `generating`, `completed`, `failed`.
    pub status: String,
    /// The asked-for model.
    pub model: String,
    /// Whether the model's answer broke off.
    pub partial: bool,
    /// Why it failed.
    pub error_code: Option<String>,
    /// As Postgres writes a time: RFC 3339, `infinity`, or with a year that RFC 3339 has no form for.
    pub created_at: String,
    /// The same.
    pub ended_at: Option<String>,
    /// What was billed.
    pub prompt_tokens: Option<u64>,
    /// What was billed.
    pub completion_tokens: Option<u64>,
    /// In US dollars.
    #[serde(default, deserialize_with = "finite_or_none")]
    pub cost: Option<f64>,
    /// In their order; none in a list.
    #[serde(rename = "flashcard_candidates", alias = "first", default)]
    pub candidates: Vec<SessionCandidate>,
    /// Those beyond [`ROWS_MAX`]; appended to the others once they are read.
    #[serde(default)]
    rest: Vec<SessionCandidate>,
    /// In a list, how many there are: as PostgREST counts what is embedded, a list of one.
    #[serde(default)]
    counted: Vec<Counted>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Counted {
    count: usize,
}

/// `None` for what is no finite number here, such as a `numeric` of 400 digits or `"NaN"`.
fn finite_or_none<'de, D: Deserializer<'de>>(column: D) -> Result<Option<f64>, D::Error> {
    let raw = <&RawValue>::deserialize(column)?;
    Ok(serde_json::from_slice(raw.get().as_bytes()).ok())
}

impl SessionRow {
    /// How many candidates it has.
    #[must_use]
    pub fn candidate_count(&self) -> usize {
        self.counted.first().map_or(self.candidates.len(), |counted| counted.count)
    }
}

/// The columns of a [`SessionRow`].
const COLUMNS: &str =
    "id,run,status,model,partial,error_code,created_at,ended_at,prompt_tokens,completion_tokens,cost";

/// How many rows a hosted PostgREST returns of one table (`max-rows`), also of one that is embedded.
const ROWS_MAX: usize = 1000;
/// The longest form of a character in JSON: two escapes such as `\ud83d`.
const CHAR_BYTES_MAX: usize = 12;
/// The names, ids, times and figures of a row: at most some 500 bytes.
const ROW_BYTES_MAX: usize = 1024;
/// The texts of a session's row: the model's id (200 characters) and an error code (64).
const SESSION_BYTES_MAX: usize = ROW_BYTES_MAX + 264 * CHAR_BYTES_MAX;
/// A candidate's texts and its id.
const CANDIDATE_BYTES_MAX: usize =
    ROW_BYTES_MAX + (CHARS_MAX[0].1 + CHARS_MAX[1].1 + CHARS_MAX[2].1) * CHAR_BYTES_MAX;

/// The size of so many rows, and of an error in their place.
const fn bytes_of(rows: usize, row_bytes_max: usize) -> usize {
    BYTES_MAX.saturating_add(rows.saturating_mul(row_bytes_max))
}

/// Selects a session with at most so many of its candidates: its owner can have inserted more than this service makes.
fn path_of(id: Uuid, candidates_max: usize) -> String {
    let id = id.to_string();
    let first = ["/ai_generation_sessions?id=eq.", &id, "&select=", COLUMNS].concat();
    let Some(rest) = candidates_max.checked_sub(ROWS_MAX).filter(|rest| *rest > 0) else {
        let limit = candidates_max.to_string();
        let candidates = ",flashcard_candidates(id,front,back,prompt)&flashcard_candidates.order=position";
        return [&first, candidates, "&flashcard_candidates.limit=", &limit].concat();
    };
    let candidates = ",first:flashcard_candidates(id,front,back,prompt),rest:flashcard_candidates(id,front,back,prompt)\
                      &first.order=position&first.position=lt.1000&rest.order=position&rest.position=gte.1000&rest.limit=";
    [&first, candidates, &rest.to_string()].concat()
}

/// One session with at most so many of its candidates; `None` when the caller has none of this id.
///
/// # Errors
/// [`RestError`].
pub async fn read(
    host: &(impl Fetch + Timer),
    supabase: &Supabase,
    caller: Caller<'_>,
    id: Uuid,
    candidates_max: usize,
) -> Result<Option<SessionRow>, RestError> {
    let reading = request(supabase, caller, "GET", &path_of(id, candidates_max), Vec::new());
    let bytes_max = bytes_of(candidates_max, CANDIDATE_BYTES_MAX);
    let body = send_repeatable(host, reading, bytes_max, &|| false).await?;
    let rows: Vec<SessionRow> = serde_json::from_slice(&body).map_err(|_| RestError::Unavailable)?;
    Ok(rows.into_iter().next().map(|mut row| {
        row.candidates.append(&mut row.rest);
        row
    }))
}

/// The caller's sessions, newest first: at most `limit` of those before that place.
///
/// # Errors
/// [`RestError`].
pub async fn list(
    host: &(impl Fetch + Timer),
    supabase: &Supabase,
    caller: Caller<'_>,
    limit: u32,
    before: Option<(&str, Uuid)>,
) -> Result<Vec<SessionRow>, RestError> {
    let select =
        ["/ai_generation_sessions?select=", COLUMNS, ",counted:flashcard_candidates(count)"].concat();
    let mut path = [&select, "&order=created_at.desc,id.desc&limit=", &limit.to_string()].concat();
    if let Some((created_at, id)) = before {
        // The first condition is what the index is entered by; `or` alone would walk it from its beginning.
        let id = id.to_string();
        for part in ["&created_at=lte.", created_at, "&or=(created_at.lt.", created_at, ",id.lt.", &id, ")"] {
            path.push_str(part);
        }
    }
    let reading = request(supabase, caller, "GET", &path, Vec::new());
    let rows = usize::try_from(limit).unwrap_or(usize::MAX);
    let body = send_repeatable(host, reading, bytes_of(rows, SESSION_BYTES_MAX), &|| false).await?;
    serde_json::from_slice(&body).map_err(|_| RestError::Unavailable)
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
