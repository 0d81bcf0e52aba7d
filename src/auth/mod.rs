//! Authentication: from the `Authorization` header to a [`User`], with one type per step.
//!
//! ```text
//! header ─► BearerToken ─► UnverifiedToken ─► key (key_cache) ─► signature (host) ─► claims ─► User
//! ```
//! Pure. Not for: checking the signature (the host, by WebCrypto) and fetching keys (`supabase::keys`).

pub mod bearer;
pub mod claims;
pub mod credentials;
pub mod jwk;
pub mod key_cache;
pub mod token;
pub mod verified_tokens;

use uuid::Uuid;

use crate::http::problem::{Code, Problem};

/// The user of a verified token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// `sub`.
    pub id: Uuid,
    /// `exp`, as milliseconds since the epoch.
    pub expires_ms: u64,
}

/// Why a token is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// No bearer token was sent.
    Missing,
    /// The token is not valid.
    Invalid,
    /// The token is valid but expired.
    Expired,
    /// The token is of an anonymous sign-in, and those are not allowed.
    Anonymous,
    /// No key is available to check the token.
    NoKeys,
}

impl Refused {
    /// Returns the problem for the caller: one text for all reasons why a token is invalid.
    #[must_use]
    pub fn to_problem(self) -> Problem {
        match self {
            Self::Missing => Problem::new(Code::MissingToken, "send `Authorization: Bearer <access token>`"),
            Self::Invalid => {
                Problem::new(Code::InvalidToken, "the access token is not valid here; sign in again")
            }
            Self::Expired => Problem::new(Code::ExpiredToken, "the access token has expired; refresh it"),
            Self::Anonymous => Problem::new(
                Code::AnonymousNotAllowed,
                "this service wants a signed-in user; link an account",
            ),
            Self::NoKeys => {
                let mut problem =
                    Problem::new(Code::AuthUnavailable, "the keys of the sign-in service cannot be had");
                problem.retry_after_s = Some(NO_KEYS_RETRY_AFTER_S);
                problem
            }
        }
    }
}

/// Longer than [`key_cache::COOL_DOWN_EMPTY_MS`], so that a client that waits this long causes a new fetch of the keys.
const NO_KEYS_RETRY_AFTER_S: u64 = 5;
