//! The log lines of a generation.

use serde::Serialize;
use uuid::Uuid;

use crate::config::LogLevel;
use crate::generation::usage::Usage;
use crate::http::problem::Code;
use crate::ports::{Log, log_line};
use crate::supabase::rest::RestError;
use crate::user_state::generation::{Ending, Generation};

/// The fields of an ending that are only logged.
pub(super) struct Note {
    /// The last failure at the model API, in words of this service.
    pub(super) text: String,
    /// The id of the last call at the model API, for the operator.
    pub(super) generation_id: Option<String>,
}

impl Note {
    pub(super) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), generation_id: None }
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
    attempts: u32,
    candidates_dropped: u32,
    partial: bool,
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
        attempts: ending.attempts,
        candidates_dropped: ending.dropped,
        partial: ending.partial,
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
