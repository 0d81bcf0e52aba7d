//! Sends requests to PostgREST behind Supabase's gateway, and classifies its failures.

use std::ops::RangeInclusive;

use crate::auth::credentials::Credentials;
use crate::config::Supabase;
use crate::http::{JSON, Request};
use crate::json::record::Members;
use crate::ports::{Exchange, Limits};

/// The timeout of a request: each reads or writes a few rows by key.
const TIMEOUT_MS: u64 = 5000;
/// The longest response without rows: a status, an error, or the page of a proxy.
pub const BYTES_MAX: usize = 256 * 1024;

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestError {
    /// No response, none in time, or a 5xx: can succeed later.
    Unavailable,
    /// 401: the token is rejected.
    Unauthorized,
    /// 401: the token is not valid yet by the database's clock.
    NotYetValid,
    /// A 4xx without a JSON body: a firewall before the database rejected the request.
    Firewall {
        /// The HTTP status.
        status: u16,
    },
    /// Any other rejection, with the `sqlstate` of Postgres if there is one.
    Refused {
        /// The HTTP status.
        status: u16,
        /// Postgres' or PostgREST's code.
        sqlstate: Option<String>,
    },
}

/// The length of every code of Postgres.
const SQLSTATE_CHARS: usize = 5;
/// Postgres' code for a reference to a missing row.
const FOREIGN_KEY_VIOLATION: &str = "23503";

impl RestError {
    /// Postgres' code for an existing row.
    pub const UNIQUE_VIOLATION: &'static str = "23505";

    /// Whether an immediate retry can succeed.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable)
    }

    /// Whether the database itself rejected the request, so that nothing was written. A rejection without its code is from an
    /// intermediary, which may have forwarded the request.
    #[must_use]
    pub const fn is_database_rejection(&self) -> bool {
        matches!(self, Self::Unauthorized | Self::NotYetValid | Self::Refused { sqlstate: Some(_), .. })
    }

    /// Whether a firewall rejected the request, and would reject it again.
    #[must_use]
    pub const fn is_firewall_rejection(&self) -> bool {
        matches!(self, Self::Firewall { .. })
    }

    /// Whether the sender was rejected, and not the content of the request.
    const fn is_sender_rejection(&self) -> bool {
        matches!(
            self,
            Self::Unauthorized
                | Self::NotYetValid
                | Self::Firewall { .. }
                | Self::Refused { status: 403, .. }
        )
    }

    /// Whether the database rejected the content, so that no retry of the same request can succeed. Not for a lack of a
    /// connection, of resources or of a lock, nor in a conflict, a shutdown or a failover; nor for a missing grant, table,
    /// column or function, which a migration adds. The classes are those of "PostgreSQL Error Codes" (appendix A of Postgres'
    /// documentation); longer codes are PostgREST's own.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        const PASSING_CLASSES: [&str; 8] = ["08", "25", "40", "53", "55", "57", "58", "XX"];
        const MISSING: [&str; 4] = ["42501", "42703", "42883", "42P01"];
        let Self::Refused { sqlstate: Some(sqlstate), .. } = self else { return false };
        let is_transient = PASSING_CLASSES.iter().any(|class| sqlstate.starts_with(class));
        sqlstate.len() == SQLSTATE_CHARS && !is_transient && !MISSING.contains(&sqlstate.as_str())
    }

    /// Whether the user of the token does not exist: the only foreign key of a session's row is its user.
    #[must_use]
    pub fn is_unknown_user(&self) -> bool {
        matches!(self, Self::Refused { sqlstate: Some(sqlstate), .. } if sqlstate == FOREIGN_KEY_VIOLATION)
    }

    /// Returns a note for the log, without any text of the database.
    #[must_use]
    pub fn note(&self) -> String {
        match self {
            Self::Unavailable => "unavailable".to_owned(),
            Self::Unauthorized => "unauthorized".to_owned(),
            Self::NotYetValid => "token not yet valid".to_owned(),
            Self::Firewall { status } => ["firewall ", &status.to_string()].concat(),
            Self::Refused { status, sqlstate: None } => status.to_string(),
            Self::Refused { status, sqlstate: Some(sqlstate) } => format!("{status} {sqlstate}"),
        }
    }
}

/// Builds a request to `/rest/v1{path}`.
#[must_use]
pub fn request(
    supabase: &Supabase,
    credentials: &Credentials,
    method: &'static str,
    path: &str,
    body: Vec<u8>,
) -> Request {
    let mut headers = vec![
        ("apikey", supabase.anon_key.clone()),
        ("authorization", ["Bearer ", &credentials.token].concat()),
        ("accept", JSON.to_owned()),
    ];
    if !body.is_empty() {
        headers.push(("content-type", JSON.to_owned()));
        // `return=representation` would also need the SELECT policy, and its result is not needed.
        headers.push(("prefer", "return=minimal".to_owned()));
    }
    if let Some(traceparent) = &credentials.traceparent {
        headers.push(("traceparent", traceparent.as_ref().to_owned()));
    }
    Request { method, url: [&supabase.url, "/rest/v1", path].concat(), headers, body }
}

/// PostgREST's code for invalid claims.
const CLAIMS_REFUSED: &str = "PGRST303";

pub(super) fn code_of(body: &[u8]) -> Option<String> {
    Members::read(body)?.get("code")?
}

/// Whether the message is "JWT issued at future" or "JWT not yet valid". The other messages of this code, such as "JWT expired"
/// and "JWT not in audience", are for tokens that never become valid.
fn is_not_yet_valid(body: &[u8]) -> bool {
    let contains = |words: &[u8]| body.windows(words.len()).any(|part| part == words);
    code_of(body).as_deref() == Some(CLAIMS_REFUSED)
        && (contains(b" at future") || contains(b" not yet valid"))
}

/// Whether the body can be from PostgREST or its gateway. The pages and lines of a firewall are no JSON.
pub(super) fn is_document(body: &[u8]) -> bool {
    matches!(body.trim_ascii(), b"" | b"null" | [b'{' | b'[' | b'"', ..])
}

/// Sends a request once, and reads a response of at most so many bytes.
///
/// # Errors
/// [`RestError`].
pub async fn send(host: &dyn Exchange, request: Request, bytes_max: usize) -> Result<Vec<u8>, RestError> {
    exchange(host, request, bytes_max).await.and_then(|(status, body)| accept(status, body))
}

/// Sends a request once, and reads the status and a body of at most so many bytes.
///
/// # Errors
/// [`RestError::Unavailable`].
pub(super) async fn exchange(
    host: &dyn Exchange,
    request: Request,
    bytes_max: usize,
) -> Result<(u16, Vec<u8>), RestError> {
    let limits = Limits { timeout_ms: TIMEOUT_MS, bytes_max };
    match host.exchange(request, limits).await {
        Ok(answer) if answer.status < 500 => Ok((answer.status, answer.body)),
        _ => Err(RestError::Unavailable),
    }
}

/// The body of a response that confirms its request.
///
/// # Errors
/// [`RestError`].
pub(super) fn accept(status: u16, body: Vec<u8>) -> Result<Vec<u8>, RestError> {
    match status {
        200..=299 => Ok(body),
        // The rate limit of the gateway, and a request that arrived too slowly.
        408 | 429 => Err(RestError::Unavailable),
        // With another status, such a body is from a gateway with a transient failure.
        401 | 403 | 406 if !is_document(&body) => Err(RestError::Firewall { status }),
        401 if is_not_yet_valid(&body) => Err(RestError::NotYetValid),
        401 => Err(RestError::Unauthorized),
        _ => {
            let is_code =
                |code: &String| code.len() <= 16 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
            Err(RestError::Refused { status, sqlstate: code_of(&body).filter(is_code) })
        }
    }
}

/// The waits before the second and the third attempt. Short, because a caller waits, and a failed write is repeated later by
/// the user object.
pub(super) const BACKOFF_MS: [u64; 2] = [100, 400];

/// The first and the longest wait between attempts with a token that is not valid yet; each is twice the one before.
const VALID_WAIT_MS: RangeInclusive<u64> = 100..=1000;
/// The longest wait for a token to become valid while no model call runs: the clocks of one platform differ by a second or two,
/// and PostgREST tolerates 30 more.
const VALID_MS: u64 = 4000;

/// Sends a request that may be repeated, up to three times. With a token that is not valid yet it is repeated while `is_busy`
/// returns true, and for `VALID_MS` more.
///
/// # Errors
/// The last [`RestError`].
pub async fn send_repeatable(
    host: &dyn Exchange,
    request: Request,
    bytes_max: usize,
    is_busy: &dyn Fn() -> bool,
) -> Result<Vec<u8>, RestError> {
    let mut backoff_ms = BACKOFF_MS.iter();
    let (mut valid_wait_ms, mut valid_left_ms) = (*VALID_WAIT_MS.start(), VALID_MS);
    let mut may_be_written = false;
    loop {
        let mut answered = send(host, request.clone(), bytes_max).await;
        let wait_ms = if matches!(answered, Err(RestError::NotYetValid)) && valid_left_ms > 0 {
            let wait_ms = valid_wait_ms;
            valid_wait_ms = wait_ms.saturating_mul(2).min(*VALID_WAIT_MS.end());
            if !is_busy() {
                valid_left_ms = valid_left_ms.saturating_sub(wait_ms);
            }
            wait_ms
        } else {
            // The rejection of this attempt does not rule out that the one before was written.
            if may_be_written && answered.as_ref().is_err_and(RestError::is_sender_rejection) {
                answered = Err(RestError::Unavailable);
            }
            let wait_ms = backoff_ms.next().filter(|_| answered.as_ref().is_err_and(RestError::is_transient));
            let Some(wait_ms) = wait_ms else { return answered };
            may_be_written = true;
            *wait_ms
        };
        host.pause(wait_ms).await;
    }
}

/// Checks that the database responds. It rejects a request without a user; a rejection by Postgres itself shows that it is
/// reachable.
///
/// # Errors
/// A description of the failure, in words of this service.
pub async fn probe(host: &dyn Exchange, supabase: &Supabase) -> Result<(), String> {
    let request = Request {
        method: "GET",
        url: [&supabase.url, "/rest/v1/ai_generation_sessions?select=id&limit=1"].concat(),
        headers: vec![("apikey", supabase.anon_key.clone()), ("accept", JSON.to_owned())],
        body: Vec::new(),
    };
    let limits = Limits { timeout_ms: TIMEOUT_MS, bytes_max: BYTES_MAX };
    let answer = host.exchange(request, limits).await.map_err(|_| "no connection".to_owned())?;
    match answer.status {
        200..=299 => Ok(()),
        404 => Err("the tables are not there: apply the migrations".to_owned()),
        401 | 403 => match code_of(&answer.body).as_deref() {
            Some(INSUFFICIENT_PRIVILEGE) => Ok(()),
            None if !is_document(&answer.body) => Err("refused by a firewall".to_owned()),
            _ => Err("the key is not taken".to_owned()),
        },
        status => Err(["status ", &status.to_string()].concat()),
    }
}

/// Postgres' code for a request without the necessary rights, such as one without a user.
pub(super) const INSUFFICIENT_PRIVILEGE: &str = "42501";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_is_permanent_where_no_retry_can_help() {
        let refused = |code: &str| RestError::Refused { status: 400, sqlstate: Some(code.to_owned()) };
        for code in ["23505", "23503", "23514", "23502", "22P05", "22023", "P0001", "PT404", "21000", "0A000"]
        {
            assert!(refused(code).is_permanent(), "{code}");
        }
        for code in [
            "40001", "40P01", "08006", "53300", "53100", "55P03", "57014", "57P01", "58030", "XX000",
            "25006", "42501", "42P01", "42883", "42703", "PGRST202", "PGRST301", "", "2350",
        ] {
            assert!(!refused(code).is_permanent(), "{code}");
        }
        let without_code = RestError::Refused { status: 403, sqlstate: None };
        for error in [RestError::Unavailable, RestError::Unauthorized, without_code] {
            assert!(!error.is_permanent(), "{error:?}");
        }
        assert!(refused("23503").is_unknown_user());
        assert!(!refused("23505").is_unknown_user());
    }
}
