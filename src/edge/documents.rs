//! The JSON documents of the contract that are neither sessions nor errors.

use serde::Serialize;

use crate::json::record::{ToJson, write_object};
use crate::user_object::session_view::Summary;

/// The document of `GET /ai-sessions`.
#[derive(Debug)]
pub struct Sessions<'a> {
    /// The newest first.
    pub sessions: Vec<Summary<'a>>,
    /// `before` for the next page; `None` on the last.
    pub next: Option<String>,
}

impl ToJson for Sessions<'_> {
    fn write(&self, json: &mut String) {
        write_object(json, &[("sessions", &self.sessions), ("next", &self.next)]);
    }
}

/// The document of `GET /models`.
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

/// The document of `GET /health`.
#[derive(Debug, Serialize)]
pub struct Health {
    /// Always `ok`.
    pub status: &'static str,
    /// Of this crate.
    pub version: &'static str,
}

/// The document of `GET /health/ready`.
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
    /// Of a dependency that is down: when the first failed check since it was last available began, as far as this isolate has
    /// checked. RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}
