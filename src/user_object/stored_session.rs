//! A session as the database has it, read with the owner's own token.

use serde::Serialize;
use uuid::Uuid;

use super::reply::{Cause, Failure};
use super::session_view::{FAILED, GENERATING, SessionView};
use crate::auth::credentials::Credentials;
use crate::citation::record::Coverage;
use crate::config::{Config, LogLevel};
use crate::generation::usage::Usage;
use crate::http::problem::Code;
use crate::input::page::CREATED_US_MAX;
use crate::ports::{Clock, Fetch, Log, Timer, log_line};
use crate::rfc3339;
use crate::supabase::rest::RestError;
use crate::supabase::sessions::{self, EventData, FinishedRow, SessionRow};

/// Everything that a read needs.
pub trait ReadHost: Fetch + Timer + Clock + Log {}
impl<H: Fetch + Timer + Clock + Log> ReadHost for H {}

/// Reads a session; `None` when its reader has none with this id.
///
/// # Errors
/// [`Failure`]: the session is not readable, or the token has expired.
pub async fn find(
    host: &impl ReadHost,
    config: &Config,
    credentials: &Credentials,
    id: Uuid,
) -> Result<Option<SessionRow>, Failure> {
    let candidates_max = config.model_api.candidates_max;
    let read = sessions::read(host, &config.supabase, credentials, id, candidates_max).await;
    read.map_err(|error| not_readable(host, credentials, &error))
}

/// Reads at most `limit` sessions before that place, newest first.
///
/// # Errors
/// As [`find`].
pub async fn list(
    host: &impl ReadHost,
    config: &Config,
    credentials: &Credentials,
    limit: u32,
    before: Option<(&str, Uuid)>,
) -> Result<Vec<SessionRow>, Failure> {
    let read = sessions::list(host, &config.supabase, credentials, limit, before).await;
    read.map_err(|error| not_readable(host, credentials, &error))
}

#[derive(Serialize)]
struct DatabaseLine<'a> {
    level: &'static str,
    message: &'static str,
    step: &'static str,
    error: &'a str,
}

fn not_readable(host: &impl ReadHost, credentials: &Credentials, error: &RestError) -> Failure {
    // The token was verified a moment ago: the database refuses it for its age, or else refuses this service.
    if *error == RestError::Unauthorized && credentials.expires_ms <= host.now_ms() {
        return Failure::new(Cause::TokenExpired);
    }
    let level = LogLevel::Warn;
    let line = DatabaseLine { level: level.name(), message: "database", step: "read", error: &error.note() };
    log_line(host, level, &line);
    Failure { is_blocked: error.is_firewall_rejection(), ..Failure::new(Cause::NotReadable) }
}

/// The longest time of a session without an end: the contract's `AI_TIMEOUT_MS` + 60 s.
const END_GRACE_MS: u64 = 60_000;

/// Reads a session again that had no final end when it was read and that its object did not have afterwards: it has ended in
/// between, or it never ends by itself. A session of a later run has begun since then.
///
/// # Errors
/// As [`find`].
pub async fn read_again(
    host: &impl ReadHost,
    config: &Config,
    credentials: &Credentials,
    row: SessionRow,
) -> Result<SessionRow, Failure> {
    let run = row.run;
    let row = find(host, config, credentials, row.id).await?.unwrap_or(row);
    if row.status == GENERATING && row.run == run {
        return end_orphan(host, config, credentials, row).await;
    }
    Ok(row)
}

/// Ends a session that the database has without an end and that no object has: its object abandoned it, or it never had one (a
/// user can create a row past this service). Only past its time.
async fn end_orphan(
    host: &impl ReadHost,
    config: &Config,
    credentials: &Credentials,
    row: SessionRow,
) -> Result<SessionRow, Failure> {
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
        coverage_percent: None,
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
    let ended = sessions::finish(host, &config.supabase, credentials, &session, &[], &event).await;
    ended.map_err(|error| not_readable(host, credentials, &error))?;
    Ok(find(host, config, credentials, row.id).await?.unwrap_or(row))
}

/// Whether a session of this age can still be generating. One that was opened further in the future than clocks differ by
/// was opened past the service.
fn may_be_running(created_at: &str, timeout_ms: u64, now_ms: u64) -> bool {
    let life_ms = timeout_ms.saturating_add(END_GRACE_MS);
    ms_of(created_at).is_some_and(|created_ms| now_ms.abs_diff(created_ms) < life_ms)
}

/// The view of a row.
#[must_use]
pub fn view_of(row: SessionRow) -> SessionView {
    let usage = match (row.prompt_tokens, row.completion_tokens) {
        (None, None) => None,
        (prompt, completion) => Some(Usage {
            prompt_tokens: prompt.unwrap_or(0),
            completion_tokens: completion.unwrap_or(0),
            cost: row.cost.unwrap_or(0.0),
        }),
    };
    SessionView {
        id: row.id,
        run: row.run,
        created_at: in_utc(&row.created_at),
        ended_at: row.ended_at.as_deref().map(in_utc),
        failure: failure_of(&row),
        retry_after_s: None,
        partial: row.partial,
        usage,
        was_reused: None,
        candidate_count: row.candidate_count(),
        is_persisted: row.status != GENERATING,
        is_blocked: false,
        model: row.model,
        candidates: row.candidates,
        coverage: row.coverage_percent.map(Coverage),
    }
}

/// The failure of a row. A code that this version does not have was written by another version, or by the user.
#[must_use]
pub fn failure_of(row: &SessionRow) -> Option<Code> {
    row.error_code.as_deref().map(|code| Code::from_name(code).unwrap_or(Code::Internal))
}

/// Microseconds since the Unix epoch, as exact as Postgres is.
fn micros_of(time: &str) -> Option<i64> {
    rfc3339::read(time)
}

/// Milliseconds since the Unix epoch.
pub fn ms_of(time: &str) -> Option<u64> {
    micros_of(time).and_then(|us| u64::try_from(us.checked_div(1000)?).ok())
}

/// The same moment for PostgREST.
pub fn time_of(micros: i64) -> String {
    rfc3339::write(micros, 6)
}

/// The first and the last time that a response contains: those of a row can lie outside of RFC 3339's years.
const FIRST: &str = "0001-01-01T00:00:00.000Z";
const LAST: &str = "9999-12-31T23:59:59.999Z";

/// RFC 3339, UTC, with milliseconds. Postgres writes the offset as `+00:00` and as many digits as there are, and for a row that
/// was written past the service also `infinity`, `-infinity`, years after 9999 and `0044-03-15T00:00:00+00:00 BC`.
fn in_utc(time: &str) -> String {
    let text = rfc3339::read(time).map(|us| rfc3339::write(us, 3));
    text.unwrap_or_else(|| if is_before_years(time) { FIRST } else { LAST }.to_owned())
}

/// Whether a time that RFC 3339 cannot express is before its years, and not after them.
fn is_before_years(time: &str) -> bool {
    time.starts_with('-') || time.ends_with("BC")
}

/// The place of a session in a list, for the cursor of the next page: microseconds since the Unix epoch. `None` where no cursor
/// can follow, before 1970.
pub fn place_of(created_at: &str) -> Option<i64> {
    let us = micros_of(created_at).unwrap_or(if is_before_years(created_at) { -1 } else { i64::MAX });
    (us >= 0).then_some(us.min(CREATED_US_MAX))
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
            assert!(rfc3339::read(&in_utc(time)).is_some(), "{time}");
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
