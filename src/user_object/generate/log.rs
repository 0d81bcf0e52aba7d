//! The log lines of a generation.

use serde::Serialize;
use uuid::Uuid;

use crate::config::LogLevel;
use crate::generation::candidate::DroppedCounts;
use crate::generation::usage::Usage;
use crate::http::problem::Code;
use crate::ports::{Log, log_line};
use crate::supabase::rest::RestError;
use crate::user_state::generation::{Ending, Generation};

/// The facts of an ending that are only logged and measured: unknown for one that is stored, after a crash.
#[derive(Default)]
pub(in crate::user_object) struct Note {
    /// The last failure at the model API, in words of this service.
    pub(in crate::user_object) text: String,
    /// The id of the last call at the model API, for the operator.
    pub(in crate::user_object) generation_id: Option<String>,
    /// The provider of the model that answered.
    pub(in crate::user_object) provider: Option<String>,
    /// The dropped candidates, by the reason.
    pub(in crate::user_object) dropped: DroppedCounts,
    /// When the first candidate was complete, in milliseconds since the Unix epoch.
    pub(in crate::user_object) first_candidate_ms: Option<u64>,
    /// When the model's answer ended, in milliseconds since the Unix epoch.
    pub(in crate::user_object) answered_ms: Option<u64>,
}

impl Note {
    pub(super) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), ..Self::default() }
    }
}

/// The log line of a generation that has ended.
#[derive(Serialize)]
struct EndingLine<'a> {
    level: &'static str,
    message: &'static str,
    session_id: Uuid,
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Code>,
    #[serde(skip_serializing_if = "str::is_empty")]
    note: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a str>,
    attempts: u32,
    candidates_dropped: u32,
    partial: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_candidate_ms: Option<u64>,
    duration_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

pub(super) fn log_ending(log: &impl Log, generation: &Generation, ending: &Ending, note: &Note) {
    let level = match ending.code {
        // Every request fails until the operator repairs this.
        Some(Code::AiMisconfigured) => LogLevel::Error,
        Some(_) => LogLevel::Warn,
        None => LogLevel::Info,
    };
    let line = EndingLine {
        level: level.name(),
        message: "generation",
        session_id: generation.accepted.id,
        model: &generation.accepted.model,
        code: ending.code,
        note: &note.text,
        generation_id: note.generation_id.as_deref(),
        provider: note.provider.as_deref(),
        attempts: ending.attempts,
        candidates_dropped: ending.dropped,
        partial: ending.partial,
        first_candidate_ms: note.first_candidate_ms.map(|at_ms| at_ms.saturating_sub(generation.started_ms)),
        duration_ms: ending.ended_ms.saturating_sub(generation.started_ms),
        usage: ending.usage,
    };
    log_line(log, level, &line);
}

#[derive(Serialize)]
struct DatabaseLine<'a> {
    level: &'static str,
    message: &'static str,
    session_id: Uuid,
    step: &'static str,
    error: &'a str,
}

pub(super) fn log_rest(log: &impl Log, session_id: Uuid, step: &'static str, error: &RestError) {
    let level = LogLevel::Warn;
    let line =
        DatabaseLine { level: level.name(), message: "database", session_id, step, error: &error.note() };
    log_line(log, level, &line);
}
