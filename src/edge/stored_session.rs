//! A session as the database has it: read with the caller's own token, told like any other.

use chrono::{DateTime, SecondsFormat, Utc};
use uuid::Uuid;

use super::no_session;
use crate::answer::session::{FAILED, GENERATING, Known};
use crate::auth::Refused;
use crate::config::{Config, LogLevel};
use crate::generation::usage::Usage;
use crate::input::page::CREATED_US_MAX;
use crate::ports::{Clock, Fetch, Log, Timer};
use crate::problem::{Code, Problem};
use crate::supabase::rest::{Caller, RestError};
use crate::supabase::sessions::{self, EventData, FinishedRow, SessionRow};

/// All that reading needs.
pub trait ReadHost: Fetch + Timer + Clock + Log {}
impl<H: Fetch + Timer + Clock + Log> ReadHost for H {}

/// As whom a session is read.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    /// The user's own access token, verified.
    pub token: &'a str,
    /// When it ends.
    pub token_expires_ms: u64,
    /// W3C Trace Context.
    pub traceparent: Option<&'a str>,
}

impl<'a> Reader<'a> {
    const fn caller(self) -> Caller<'a> {
        Caller { token: self.token, traceparent: self.traceparent }
    }
}

/// The session; `None` when the caller has none of this id.
///
/// # Errors
/// `database_error`, `expired_token`.
pub async fn find(
    host: &impl ReadHost,
    config: &Config,
    reader: Reader<'_>,
    id: Uuid,
) -> Result<Option<SessionRow>, Problem> {
    let candidates_max = config.model_api.candidates_max;
    let read = sessions::read(host, &config.supabase, reader.caller(), id, candidates_max).await;
    read.map_err(|error| not_read(host, reader, &error))
}

/// So many of the caller's sessions before that place, newest first.
///
/// # Errors
/// As [`find`].
pub async fn list(
    host: &impl ReadHost,
    config: &Config,
    reader: Reader<'_>,
    limit: u32,
    before: Option<(&str, Uuid)>,
) -> Result<Vec<SessionRow>, Problem> {
    let read = sessions::list(host, &config.supabase, reader.caller(), limit, before).await;
    read.map_err(|error| not_read(host, reader, &error))
}

fn not_read(host: &impl ReadHost, reader: Reader<'_>, error: &RestError) -> Problem {
    // It was verified a moment ago: the database refuses it only for its age, or else refuses this service.
    if *error == RestError::Unauthorized && reader.token_expires_ms <= host.now_ms() {
        return Refused::Expired.to_problem();
    }
    let line = [r#"{"level":"warn","message":"database","step":"read","error":""#, &error.note(), r#""}"#];
    host.log(LogLevel::Warn, &line.concat());
    if error.is_firewall_rejection() {
        return Problem::by_firewall(
            "the session cannot be read: refused by a firewall in front of the database",
        );
    }
    Problem::new(Code::DatabaseError, "the session cannot be read now; try again later")
}

/// How long a session may be without an end: the contract's `AI_TIMEOUT_MS` + 60 s.
const END_GRACE_MS: u64 = 60_000;

/// What the session comes to that the database has without an end, and that is on no desk: its desk gave it up, or
/// there never was one (a user can open a row past this service). Past its time it is ended here, so that nobody waits
/// for it any longer.
///
/// # Errors
/// As [`find`].
pub async fn end_orphan(
    host: &impl ReadHost,
    config: &Config,
    reader: Reader<'_>,
    row: SessionRow,
) -> Result<SessionRow, Problem> {
    if may_be_running(&row.created_at, config.model_api.timeout_ms, host.now_ms()) {
        return Ok(row);
    }
    let session = FinishedRow {
        id: row.id,
        run: row.run,
        model: &row.model,
        input_text: None,
        created_at: None,
        status: FAILED,
        partial: false,
        error_code: Some(Code::DatabaseError),
        prompt_tokens: None,
        completion_tokens: None,
        cost: None,
    };
    let event = EventData {
        code: session.error_code,
        attempts: 0,
        candidates: 0,
        dropped: 0,
        served_model: None,
        duration_ms: 0,
        usage: None,
    };
    let ended = sessions::finish(host, &config.supabase, reader.caller(), &session, &[], &event).await;
    ended.map_err(|error| not_read(host, reader, &error))?;
    Ok(find(host, config, reader, row.id).await?.unwrap_or(row))
}

/// Whether a session of this age can still be generating. One that was opened further in the future than clocks differ by
/// was opened past the service.
fn may_be_running(created_at: &str, timeout_ms: u64, now_ms: u64) -> bool {
    let life_ms = timeout_ms.saturating_add(END_GRACE_MS);
    ms_of(created_at).is_some_and(|created_ms| now_ms.abs_diff(created_ms) < life_ms)
}

/// What the row tells.
#[must_use]
pub fn known(row: &SessionRow) -> Known<'_> {
    let usage = match (row.prompt_tokens, row.completion_tokens) {
        (None, None) => None,
        (prompt, completion) => Some(Usage {
            prompt_tokens: prompt.unwrap_or(0),
            completion_tokens: completion.unwrap_or(0),
            cost: row.cost.unwrap_or(0.0),
        }),
    };
    // A code that this version does not know was written by another, or by the user.
    let code = row.error_code.as_deref().map(|code| Code::from_name(code).unwrap_or(Code::Internal));
    Known {
        id: row.id,
        run: row.run,
        model: &row.model,
        created_at: in_utc(&row.created_at),
        ended_at: row.ended_at.as_deref().map(in_utc),
        failure: code,
        retry_after_s: None,
        partial: row.partial,
        usage,
        was_reused: None,
        candidate_count: row.candidate_count(),
        candidates: &row.candidates,
        is_stored: row.status != GENERATING,
        is_blocked: false,
    }
}

/// Microseconds since the Unix epoch, as exact as Postgres is.
fn micros_of(time: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(time).ok().map(|time| time.timestamp_micros())
}

/// Milliseconds since the Unix epoch.
pub fn ms_of(time: &str) -> Option<u64> {
    micros_of(time).and_then(|us| u64::try_from(us.checked_div(1000)?).ok())
}

/// The same moment for PostgREST.
pub fn time_of(micros: i64) -> String {
    let time = DateTime::<Utc>::from_timestamp_micros(micros).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// The first and the last time that a response contains: those of a row can lie outside of RFC 3339's years.
const FIRST: &str = "0001-01-01T00:00:00.000Z";
const LAST: &str = "9999-12-31T23:59:59.999Z";

/// RFC 3339, UTC, with milliseconds. Postgres writes the offset as `+00:00` and as many digits as there are, and for a row that
/// was written past the service also `infinity`, `-infinity`, years after 9999 and `0044-03-15T00:00:00+00:00 BC`.
fn in_utc(time: &str) -> String {
    let parsed = DateTime::parse_from_rfc3339(time).ok();
    let text = parsed.map(|time| time.to_utc().to_rfc3339_opts(SecondsFormat::Millis, true));
    // A year of five digits has a sign.
    let text = text.filter(|text| text.len() == LAST.len());
    text.unwrap_or_else(|| if is_before_years(time) { FIRST } else { LAST }.to_owned())
}

/// Of a time without a form in RFC 3339.
fn is_before_years(time: &str) -> bool {
    time.starts_with('-') || time.ends_with("BC")
}

/// The place of a session in a list, for the cursor of the next page: microseconds since the Unix epoch. `None` where no cursor
/// can follow, before 1970.
pub fn place_of(created_at: &str) -> Option<i64> {
    let us = micros_of(created_at).unwrap_or(if is_before_years(created_at) { -1 } else { i64::MAX });
    (us >= 0).then_some(us.min(CREATED_US_MAX))
}

/// A session's id, out of a path.
///
/// # Errors
/// `not_found`: nobody has a session of another form of id.
pub fn parse_id(id: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(id).map_err(|_| no_session())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A time as Postgres writes it in JSON, as a response has it, and its place in a list.
    const TIMES: [(&str, &str, Option<i64>); 12] = [
        ("2026-11-27T10:00:00.123456+00:00", "2026-11-27T10:00:00.123Z", Some(1_795_773_600_123_456)),
        ("2026-11-27T10:00:00+00:00", "2026-11-27T10:00:00.000Z", Some(1_795_773_600_000_000)),
        ("2026-11-27T12:00:00+02:00", "2026-11-27T10:00:00.000Z", Some(1_795_773_600_000_000)),
        ("1970-01-01T00:00:00+00:00", "1970-01-01T00:00:00.000Z", Some(0)),
        ("1969-12-31T23:59:59.999999+00:00", "1969-12-31T23:59:59.999Z", None),
        ("0001-01-01T00:00:00+00:00", FIRST, None),
        ("0044-03-15T00:00:00+00:00 BC", FIRST, None),
        ("-infinity", FIRST, None),
        ("9999-12-31T23:59:59.999999+00:00", LAST, Some(CREATED_US_MAX)),
        ("9999-12-31T23:59:59-00:01", LAST, Some(CREATED_US_MAX)),
        ("294276-12-31T23:59:59.999999+00:00", LAST, Some(CREATED_US_MAX)),
        ("infinity", LAST, Some(CREATED_US_MAX)),
    ];

    #[test]
    fn a_time_is_rfc_3339_whatever_the_row_contains() {
        for (time, expected, place) in TIMES {
            assert_eq!(in_utc(time), expected);
            assert!(DateTime::parse_from_rfc3339(&in_utc(time)).is_ok(), "{time}");
            assert_eq!(place_of(time), place, "{time}");
        }
    }

    #[test]
    fn a_session_is_running_near_its_creation_only() {
        const NOW_MS: u64 = 1_795_773_600_000;
        const LIFE_MS: i64 = 65_000;
        for (age_ms, may_be) in [
            (0, true),
            (LIFE_MS - 1, true),
            (LIFE_MS, false),
            (1 - LIFE_MS, true),
            (-LIFE_MS, false),
            (-2_000_000_000_000, false),
        ] {
            let created_at = time_of((i64::try_from(NOW_MS).unwrap_or_default() - age_ms) * 1000);
            assert_eq!(may_be_running(&created_at, 5000, NOW_MS), may_be, "{age_ms}");
        }
        for time in ["infinity", "-infinity", "294276-12-31T23:59:59+00:00", "0044-03-15T00:00:00+00:00 BC"] {
            assert!(!may_be_running(time, 5000, NOW_MS), "{time}");
        }
    }
}
