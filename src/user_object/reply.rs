//! The reply of the user object to a command: plain values, which `edge` renders.

use uuid::Uuid;

use crate::generation::usage::Usage;
use crate::http::problem::Code;
use crate::quota::{Refusal, UserQuota};

/// The reply to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The request is within the limit.
    Counted,
    /// A limit is reached.
    LimitExceeded(Refusal),
    /// This object has no such session.
    NotFound,
    /// The session.
    Session(SessionDocument),
    /// The session was accepted, and the client does not wait for its end.
    Accepted(SessionDocument),
    /// The client receives the events of this session.
    Subscribed(Uuid),
    /// The generation was stopped.
    Stopped,
    /// The generation had ended before.
    NotRunning,
    /// The idempotency key was used with another body.
    KeyReused,
    /// The command failed.
    Failed(Failure),
}

/// A session as JSON, with the fields that its response needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionDocument {
    /// The session.
    pub id: Uuid,
    /// Whether it is in progress.
    pub is_generating: bool,
    /// Whether the model API sent a cached answer; `None` where none was requested.
    pub was_reused: Option<bool>,
    /// The JSON document.
    pub json: Vec<u8>,
}

/// Why a command failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// The kind of the failure.
    pub cause: Cause,
    /// Whether a firewall in front of the database refused the session: no retry can help.
    pub is_blocked: bool,
    /// Seconds after which a retry can succeed, from the model API.
    pub retry_after_s: Option<u64>,
}

/// The kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The generation failed with this code.
    Generation(Code),
    /// The generation has candidates that are not yet persisted.
    NotPersisted,
    /// The session cannot be read from the database.
    NotReadable,
    /// The access token has expired since it was verified.
    TokenExpired,
    /// The account does not exist.
    UnknownUser,
    /// The storage of the user state failed.
    Storage,
    /// The run of the generation ended without a result; it is resumed later.
    Lost,
}

impl Failure {
    /// A failure without further details.
    #[must_use]
    pub const fn new(cause: Cause) -> Self {
        Self { cause, is_blocked: false, retry_after_s: None }
    }
}

/// A reply with its quota status and its log fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Executed {
    /// The reply.
    pub reply: Reply,
    /// The user's quota after a command that counts.
    pub quota: Option<UserQuota>,
    /// Milliseconds for which every request for a generation gets this refusal; `None` where that is not known.
    pub refusal_lasts_ms: Option<u64>,
    /// The log fields of the command.
    pub log: LogFields,
}

/// The fields that a command adds to the log line of its request, and to `Server-Timing`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogFields {
    /// The failure of the generation, or of the command.
    pub code: Option<Code>,
    /// The session.
    pub session_id: Option<Uuid>,
    /// The requested model.
    pub model: Option<String>,
    /// Model calls made.
    pub attempts: Option<u32>,
    /// The billed usage.
    pub usage: Option<Usage>,
    /// Milliseconds from the acceptance to the end of the model's answer.
    pub model_ms: Option<u64>,
    /// Milliseconds of the completing transaction.
    pub database_ms: Option<u64>,
}
