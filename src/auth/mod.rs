//! Who is calling: from the `Authorization` header to a [`User`], in types that cannot be mixed up.
//!
//! ```text
//! header ─► BearerToken ─► UnverifiedToken ─► key (key_cache) ─► signature (host) ─► claims ─► User
//! ```
//! Pure: the signature itself is checked by the host (WebCrypto), keys are fetched by `supabase::keys`.

pub mod bearer;
pub mod claims;
pub mod jwk;
pub mod key_cache;
pub mod token;
pub mod verified;

use uuid::Uuid;

use crate::problem::{Code, Problem};

/// Somebody whose token was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// `sub`.
    pub id: Uuid,
    /// `exp`, as milliseconds since the epoch.
    pub expires_ms: u64,
}

/// Why a caller is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// No bearer token was sent.
    Missing,
    /// One that does not hold, for whatever reason.
    Invalid,
    /// One that held, but whose time is over.
    Expired,
    /// An anonymous sign-in where those are not allowed.
    Anonymous,
    /// No key could be had to check it with.
    NoKeys,
}

impl Refused {
    /// What the caller is told: one text for every way in which a token can fail to hold.
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

/// The sign-in service is asked again at most once in [`key_cache::COOL_DOWN_EMPTY_MS`]; a client that waits this
/// long finds a new answer.
const NO_KEYS_RETRY_AFTER_S: u64 = 5;
