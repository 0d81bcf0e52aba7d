//! PostgREST behind Supabase's gateway: one request, one answer, and what its failures mean here.

use serde::Deserialize;

use crate::config::Supabase;
use crate::http::{JSON, Request};
use crate::ports::{Fetch, Incoming, Timer, read_whole, within};

/// A query that takes longer has gone wrong: each of ours reads or writes a handful of rows by key.
const TIMEOUT_MS: u64 = 5000;
/// The size of a response without rows: a status, an error, or the page of a proxy.
pub const BYTES_MAX: usize = 256 * 1024;

/// As whom a request is made.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The user's own access token.
    pub token: &'a str,
    /// W3C Trace Context, passed on.
    pub traceparent: Option<&'a str>,
}

/// Why a request was not answered as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestError {
    /// No answer, none in time, or a 5xx: may work later.
    Unavailable,
    /// 401: the token is not taken (any more).
    Unauthorized,
    /// Any other refusal. `sqlstate` where Postgres gave one.
    Refused {
        /// The HTTP status.
        status: u16,
        /// Postgres' or PostgREST's code.
        sqlstate: Option<String>,
    },
}

/// Of every code of Postgres.
const SQLSTATE_CHARS: usize = 5;
/// Postgres' code for a reference to a row that is not there.
const FOREIGN_KEY_VIOLATION: &str = "23503";

impl RestError {
    /// Postgres' code for a row that is there already.
    pub const UNIQUE_VIOLATION: &'static str = "23505";

    /// Whether another attempt in a moment can help.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable)
    }

    /// Whether the database itself said no, so that nothing was written. A refusal without its code is somebody's who
    /// stands before it, and may have let the request through.
    #[must_use]
    pub const fn is_by_database(&self) -> bool {
        matches!(self, Self::Unauthorized | Self::Refused { sqlstate: Some(_), .. })
    }

    /// Whether the database refused what it was sent, so that no retry of the same request can succeed. Not for want of
    /// a connection, of resources or of a lock, nor in a conflict, a shutdown or a failover; nor where a table, column or
    /// function is missing, which a migration brings. The classes are those of Postgres' "PostgreSQL Error Codes" (appendix
    /// A); what is longer is a code of PostgREST's own.
    #[must_use]
    pub fn is_final(&self) -> bool {
        const PASSING_CLASSES: [&str; 8] = ["08", "25", "40", "53", "55", "57", "58", "XX"];
        const MISSING: [&str; 3] = ["42P01", "42703", "42883"];
        let Self::Refused { sqlstate: Some(sqlstate), .. } = self else { return false };
        let is_passing = PASSING_CLASSES.iter().any(|class| sqlstate.starts_with(class));
        sqlstate.len() == SQLSTATE_CHARS && !is_passing && !MISSING.contains(&sqlstate.as_str())
    }

    /// Whether the database says that the user of the token does not exist: the only foreign key of a session's row is its
    /// user.
    #[must_use]
    pub fn is_unknown_user(&self) -> bool {
        matches!(self, Self::Refused { sqlstate: Some(sqlstate), .. } if sqlstate == FOREIGN_KEY_VIOLATION)
    }

    /// For the log: says what happened, holds nothing of what the database said.
    #[must_use]
    pub fn word(&self) -> String {
        match self {
            Self::Unavailable => "unavailable".to_owned(),
            Self::Unauthorized => "unauthorized".to_owned(),
            Self::Refused { status, sqlstate: None } => status.to_string(),
            Self::Refused { status, sqlstate: Some(sqlstate) } => format!("{status} {sqlstate}"),
        }
    }
}

/// Builds a request to `/rest/v1{path}`.
#[must_use]
pub fn request(
    supabase: &Supabase,
    caller: Caller<'_>,
    method: &'static str,
    path: &str,
    body: Vec<u8>,
) -> Request {
    let mut headers = vec![
        ("apikey", supabase.anon_key.clone()),
        ("authorization", ["Bearer ", caller.token].concat()),
        ("accept", JSON.to_owned()),
    ];
    if !body.is_empty() {
        headers.push(("content-type", JSON.to_owned()));
        // `return=representation` would also need the SELECT policy, and nobody reads it.
        headers.push(("prefer", "return=minimal".to_owned()));
    }
    if let Some(traceparent) = caller.traceparent {
        headers.push(("traceparent", traceparent.to_owned()));
    }
    Request { method, url: [&supabase.url, "/rest/v1", path].concat(), headers, body }
}

#[derive(Deserialize)]
struct ErrorBody {
    code: Option<String>,
}

/// Sends it once, and reads a response of at most so many bytes.
///
/// # Errors
/// [`RestError`].
pub async fn send(
    host: &(impl Fetch + Timer),
    request: Request,
    bytes_max: usize,
) -> Result<Vec<u8>, RestError> {
    let answered = within(host, TIMEOUT_MS, async {
        let mut answer = host.fetch(request).await.map_err(|_| RestError::Unavailable)?;
        let status = answer.status();
        if status >= 500 {
            return Err(RestError::Unavailable);
        }
        let body = read_whole(&mut answer, bytes_max).await.map_err(|_| RestError::Unavailable)?;
        match status {
            200..=299 => Ok(body),
            401 => Err(RestError::Unauthorized),
            // The gateway's own limit, and a request that took too long to arrive.
            408 | 429 => Err(RestError::Unavailable),
            _ => {
                let sqlstate = serde_json::from_slice(&body).ok().and_then(|body: ErrorBody| body.code);
                let is_code =
                    |code: &String| code.len() <= 16 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
                Err(RestError::Refused { status, sqlstate: sqlstate.filter(is_code) })
            }
        }
    });
    answered.await.unwrap_or(Err(RestError::Unavailable))
}

/// Waits before the second and the third attempt. Short: somebody waits for the answer, and what cannot be written
/// now is written later by the desk.
const BACKOFF_MS: [u64; 2] = [100, 400];

/// Sends a request that may be repeated, up to three times.
///
/// # Errors
/// The last [`RestError`].
pub async fn send_repeatable(
    host: &(impl Fetch + Timer),
    request: Request,
    bytes_max: usize,
) -> Result<Vec<u8>, RestError> {
    let mut answered = send(host, request.clone(), bytes_max).await;
    for wait_ms in BACKOFF_MS {
        if !answered.as_ref().is_err_and(RestError::is_passing) {
            return answered;
        }
        host.sleep(wait_ms).await;
        answered = match send(host, request.clone(), bytes_max).await {
            // Says nothing of the attempt before, which may have been kept.
            Err(RestError::Unauthorized | RestError::Refused { status: 403, .. }) => {
                Err(RestError::Unavailable)
            }
            answered => answered,
        };
    }
    answered
}

/// Whether the database answers. Asked without a user, it refuses, and a refusal by Postgres itself is as good a sign
/// of life as rows are.
///
/// # Errors
/// What it did instead, in words of this service.
pub async fn probe(host: &(impl Fetch + Timer), supabase: &Supabase) -> Result<(), String> {
    let request = Request {
        method: "GET",
        url: [&supabase.url, "/rest/v1/ai_generation_sessions?select=id&limit=1"].concat(),
        headers: vec![("apikey", supabase.anon_key.clone()), ("accept", JSON.to_owned())],
        body: Vec::new(),
    };
    let mut answer = host.fetch(request).await.map_err(|_| "no connection".to_owned())?;
    match answer.status() {
        200..=299 => Ok(()),
        404 => Err("the tables are not there: apply the migrations".to_owned()),
        401 | 403 => {
            let body = read_whole(&mut answer, BYTES_MAX).await.unwrap_or_default();
            let code = serde_json::from_slice(&body).ok().and_then(|body: ErrorBody| body.code);
            let by_postgres = code.as_deref() == Some(INSUFFICIENT_PRIVILEGE);
            if by_postgres { Ok(()) } else { Err("the key is not taken".to_owned()) }
        }
        status => Err(["status ", &status.to_string()].concat()),
    }
}

/// Postgres' code for what nobody may do without being signed in.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_final_where_no_retry_can_change_it() {
        let refused = |code: &str| RestError::Refused { status: 400, sqlstate: Some(code.to_owned()) };
        for code in [
            "23505", "23503", "23514", "23502", "22P05", "22023", "42501", "P0001", "PT404", "21000", "0A000",
        ] {
            assert!(refused(code).is_final(), "{code}");
        }
        for code in [
            "40001", "40P01", "08006", "53300", "53100", "55P03", "57014", "57P01", "58030", "XX000",
            "25006", "42P01", "42883", "42703", "PGRST202", "PGRST301", "", "2350",
        ] {
            assert!(!refused(code).is_final(), "{code}");
        }
        let without_code = RestError::Refused { status: 403, sqlstate: None };
        for error in [RestError::Unavailable, RestError::Unauthorized, without_code] {
            assert!(!error.is_final(), "{error:?}");
        }
        assert!(refused("23503").is_unknown_user());
        assert!(!refused("23505").is_unknown_user());
    }
}
