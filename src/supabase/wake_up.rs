//! The request with which the database wakes the service up for a user, both sides of it: `ai_sessions.wake_users` of
//! `migrations/optional/` sends it by `pg_net`.
//!
//! ```text
//! {"user": "…", "at_ms": …, "proof": "<64 hexadecimal digits>"}
//! ```
//! The proof is an HMAC of the other two members under the key of the user state. It has a label of its own, so that no proof of
//! a request for user state is valid here, and none of this kind is valid there.

use uuid::Uuid;

use crate::json::Cursor;
use crate::keyed_hash::{hex, is_equal, keyed_hash};

/// Separates this hash from the others under the key.
const LABEL: &[u8] = b"ai-sessions/wake-up\0";
/// A request is valid for so long: more than a call lasts and a clock is wrong. A repetition runs no job twice.
pub const WINDOW_MS: u64 = 60_000;
/// The largest body: twice the request.
pub const BODY_BYTES_MAX: usize = 512;

/// The proof of a request.
#[must_use]
pub fn proof(key: &str, user: Uuid, at_ms: u64) -> String {
    let (user, at_ms) = (user.to_string(), at_ms.to_string());
    hex(&keyed_hash(key, &[LABEL, user.as_bytes(), b" ", at_ms.as_bytes()]))
}

/// The user whom a request names; `None` unless the database has signed it in the last minute.
#[must_use]
pub fn verify(key: &str, body: &[u8], now_ms: u64) -> Option<Uuid> {
    let (mut user, mut at_ms, mut sent) = (None, None, None);
    let mut cursor = Cursor::new(body);
    cursor.object(&mut |name, cursor| match (name, cursor.value()) {
        (b"user", value) => user = value.as_str().and_then(|id| Uuid::try_parse(id).ok()),
        (b"at_ms", value) => at_ms = value.whole(),
        (b"proof", value) => sent = value.as_str(),
        _ => {}
    });
    let (user, at_ms) = user.zip(at_ms)?;
    let is_signed = is_equal(key, &proof(key, user, at_ms), sent?);
    (is_signed && at_ms.abs_diff(now_ms) <= WINDOW_MS).then_some(user)
}
