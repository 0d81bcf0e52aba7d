//! The JSON documents of the contract that are not errors.

use serde::Serialize;
use uuid::Uuid;

use crate::generation::usage::Usage;
use crate::user_state::record::SessionCandidate;

/// The answer of `POST /ai-sessions`.
#[derive(Debug, Serialize)]
pub struct Created<'a> {
    /// The session.
    pub id: Uuid,
    /// Whether the model's answer broke off.
    pub partial: bool,
    /// 1 to `MAX_CANDIDATES`.
    pub candidates: &'a [SessionCandidate],
}

/// The answer of `GET /ai-sessions/{id}`, and the 202 of `POST /ai-sessions`.
#[derive(Debug, Serialize)]
pub struct Session<'a> {
    /// What a list says of it too.
    #[serde(flatten)]
    pub summary: Summary<'a>,
    /// Empty unless completed.
    pub candidates: &'a [SessionCandidate],
}

/// The answer of `GET /ai-sessions`.
#[derive(Debug, Serialize)]
pub struct Sessions<'a> {
    /// The newest first.
    pub sessions: Vec<Summary<'a>>,
    /// `before` for the next page; `None` on the last.
    pub next: Option<String>,
}

/// A session without its cards.
#[derive(Debug, Serialize)]
pub struct Summary<'a> {
    /// The session.
    pub id: Uuid,
    /// `generating`, `completed`, `failed`.
    pub status: &'a str,
    /// The asked-for model.
    pub model: &'a str,
    /// Whether the model's answer broke off.
    pub partial: bool,
    /// The code of a failure.
    pub error: Option<&'a str>,
    /// RFC 3339, UTC.
    pub created_at: &'a str,
    /// RFC 3339, UTC.
    pub ended_at: Option<&'a str>,
    /// What was billed.
    pub usage: Option<Usage>,
    /// How many cards there are, so far.
    pub candidate_count: usize,
}

/// The answer of `GET /models`.
#[derive(Debug, Serialize)]
pub struct Models<'a> {
    /// The default first.
    pub models: Vec<Model<'a>>,
}

/// One allowed model.
#[derive(Debug, Serialize)]
pub struct Model<'a> {
    /// As OpenRouter names it.
    pub id: &'a str,
    /// Whether it is the default.
    pub default: bool,
}

/// The answer of `GET /health`.
#[derive(Debug, Serialize)]
pub struct Health {
    /// Always `ok`.
    pub status: &'static str,
    /// Of this crate.
    pub version: &'static str,
}

/// The answer of `GET /health/ready`.
#[derive(Debug, Serialize)]
pub struct Ready<'a> {
    /// `ok` or `unavailable`.
    pub status: &'static str,
    /// One row per dependency.
    pub checks: &'a [Check],
}

/// One dependency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// `configuration`, `auth_keys`, `database`, `model_api`.
    pub name: &'static str,
    /// Whether it can be used.
    pub ok: bool,
    /// Milliseconds until its answer.
    pub latency_ms: u64,
    /// Why not, in words of this service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Structs of strings and numbers: serde_json has nothing that could fail in them.
#[must_use]
pub fn to_json(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).unwrap_or_default()
}
