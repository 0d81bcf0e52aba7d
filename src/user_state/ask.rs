//! What the edge asks a user's state, and what it tells the log beside its answer: both sides of the wire between
//! the Worker and the object.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::answer::events::Position;
use crate::answer::form::Form;
use crate::generation::usage::Usage;
use crate::problem::Code;

/// A request to the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Who asks, verified.
    pub user_id: Uuid,
    /// The user's access token.
    pub token: String,
    /// When it ends.
    pub token_expires_ms: u64,
    /// The request's id, for the problem document.
    pub request_id: String,
    /// The service's own origin (`https://host`).
    pub origin: String,
    /// W3C Trace Context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// When the request began.
    #[serde(default)]
    pub began_ms: u64,
    /// The same ask was put before, and its answer was lost on the way.
    #[serde(default)]
    pub is_repeated: bool,
    /// What is asked.
    pub wish: Wish,
}

/// What is asked of the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// Count a request whose body does not hold; 204 when it is within the limit.
    Count,
    /// Start a generation, or find the one that the key stands for, and answer in the wanted form.
    Generate(Box<Generate>),
    /// Tell the state of a session that the database does not have as ended; 404 when it is not on this state.
    Read {
        /// The session.
        id: Uuid,
    },
    /// Tell the events of such a session as they come; 404 when it is not on this state.
    Follow {
        /// The session.
        id: Uuid,
        /// What was heard of it before.
        after: Option<Position>,
    },
    /// Stop a generation; 409 when it has ended and is not written yet, 404 when it is not on this state.
    Stop {
        /// The session.
        id: Uuid,
    },
}

/// A generation that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generate {
    /// The session's id, where no key stands for one. Made at the edge, so that the ask can be repeated.
    pub id: Uuid,
    /// Sanitized.
    pub input_text: String,
    /// One of the allowed models.
    pub model: String,
    /// `Cache-Control: no-cache` was sent.
    pub no_cache: bool,
    /// `Idempotency-Key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// In which form the caller wants to hear of it.
    pub form: Form,
    /// What was heard of it before, on a connection that broke.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Position>,
}

/// The one header of the state's answer to the edge, which takes it off: a [`Head`]. Each header is a crossing between
/// Wasm and JavaScript on either side.
pub const HEAD_HEADER: &str = "x-state-head";

/// What the state says beside its answer's status and body.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// The headers that belong to the caller.
    pub headers: Vec<(String, String)>,
    /// For the log.
    pub facts: LogFields,
}

/// What the log line and `Server-Timing` want to know of a generation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LogFields {
    /// The error of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// The session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<Uuid>,
    /// The asked-for model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Model calls made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// What was billed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Milliseconds from the acceptance to the end of the model's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_ms: Option<u64>,
    /// Milliseconds of the completing transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_ms: Option<u64>,
}
