//! A command to the user object: one operation on behalf of one user.

use std::rc::Rc;

use uuid::Uuid;

use crate::auth::credentials::Credentials;
use crate::http::response_mode::ResponseMode;
use crate::http::sse::EventId;
use crate::json_string::JsonString;

/// One operation on behalf of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The user, verified.
    pub user_id: Uuid,
    /// The user's access credentials.
    pub credentials: Credentials,
    /// The start of the request, in milliseconds since the Unix epoch.
    pub began_ms: u64,
    /// Whether the same command was sent before, without a reply.
    pub is_repeated: bool,
    /// The operation.
    pub operation: Operation,
}

/// The operation of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Counts a request whose body is invalid.
    Count,
    /// Starts a generation, or finds the one of the idempotency key.
    Generate(Box<Generate>),
    /// Reads a session that the database does not have as ended.
    Read {
        /// The session.
        id: Uuid,
    },
    /// Subscribes to such a session.
    Subscribe {
        /// The session.
        id: Uuid,
        /// The last event that the client received.
        after: Option<EventId>,
    },
    /// Stops a generation.
    Stop {
        /// The session.
        id: Uuid,
    },
}

/// A request for a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generate {
    /// The session's id, where there is no idempotency key. Made at the edge, so that the command can be repeated.
    pub id: Uuid,
    /// Sanitized.
    pub input_text: JsonString,
    /// One of the allowed models.
    pub model: Rc<str>,
    /// Whether `Cache-Control: no-cache` was sent.
    pub no_cache: bool,
    /// `HTTP-Referer` of the model calls; empty: not sent.
    pub referer: Rc<str>,
    /// `Idempotency-Key`.
    pub key: Option<String>,
    /// How the client receives the result.
    pub mode: ResponseMode,
    /// The last event that the client received, of a stream that was cut.
    pub after: Option<EventId>,
}
