//! A session as its owner sees it, whether the object or the database has it, and its JSON documents.

use std::rc::Rc;

use uuid::Uuid;

use super::reply::{Cause, Failure, SessionDocument};
use crate::citation::record::Coverage;
use crate::generation::usage::Usage;
use crate::http::problem::Code;
use crate::json::record::{ToJson, write_object};
use crate::rfc3339;
use crate::user_state::generation::{Generation, SessionCandidate};

/// The status of a session without an end.
pub const GENERATING: &str = "generating";
/// The status of a session with candidates.
pub const COMPLETED: &str = "completed";
/// The status of a session with an error.
pub const FAILED: &str = "failed";

/// A session as its owner sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionView {
    /// Its id.
    pub id: Uuid,
    /// The 1-based number of its run.
    pub run: u32,
    /// The requested model.
    pub model: Rc<str>,
    /// The time of its acceptance; RFC 3339.
    pub created_at: String,
    /// The time of its end; RFC 3339.
    pub ended_at: Option<String>,
    /// Its failure.
    pub failure: Option<Code>,
    /// Seconds after which a retry can succeed, from the model API.
    pub retry_after_s: Option<u64>,
    /// Whether the model's answer was cut.
    pub partial: bool,
    /// The billed usage.
    pub usage: Option<Usage>,
    /// Whether the model API sent a cached answer; `None` where none was requested.
    pub was_reused: Option<bool>,
    /// The number of candidates so far.
    pub candidate_count: usize,
    /// In their order.
    pub candidates: Vec<Rc<SessionCandidate>>,
    /// The share of the text that has a candidate.
    pub coverage: Option<Coverage>,
    /// Whether the database has its end.
    pub is_persisted: bool,
    /// Whether a firewall in front of the database refused it.
    pub is_blocked: bool,
}

/// A session without its candidates, as in a list.
#[derive(Debug)]
pub struct Summary<'a> {
    /// The session.
    pub id: Uuid,
    /// `generating`, `completed`, `failed`.
    pub status: &'a str,
    /// The requested model.
    pub model: &'a str,
    /// Whether the model's answer was cut.
    pub partial: bool,
    /// The code of a failure.
    pub error: Option<&'a str>,
    /// RFC 3339, UTC.
    pub created_at: &'a str,
    /// RFC 3339, UTC.
    pub ended_at: Option<&'a str>,
    /// The billed usage.
    pub usage: Option<Usage>,
    /// The number of candidates so far.
    pub candidate_count: usize,
}

impl Summary<'_> {
    fn members(&self) -> [(&'static str, &dyn ToJson); 9] {
        [
            ("id", &self.id),
            ("status", &self.status),
            ("model", &self.model),
            ("partial", &self.partial),
            ("error", &self.error),
            ("created_at", &self.created_at),
            ("ended_at", &self.ended_at),
            ("usage", &self.usage),
            ("candidate_count", &self.candidate_count),
        ]
    }
}

impl ToJson for Summary<'_> {
    fn write(&self, json: &mut String) {
        write_object(json, &self.members());
    }
}

impl SessionView {
    /// The view of a generation that the object has.
    #[must_use]
    pub fn of_generation(generation: &Generation, is_persisted: bool) -> Self {
        let ending = generation.ending.as_ref();
        Self {
            id: generation.accepted.id,
            run: generation.accepted.run,
            model: Rc::clone(&generation.accepted.model),
            created_at: rfc3339(generation.started_ms),
            ended_at: ending.map(|ending| rfc3339(ending.ended_ms)),
            failure: ending.and_then(|ending| ending.code),
            retry_after_s: ending.and_then(|ending| ending.retry_after_s),
            partial: ending.is_some_and(|ending| ending.partial),
            usage: ending.and_then(|ending| ending.usage),
            was_reused: ending.and_then(|ending| ending.was_reused),
            candidate_count: generation.candidates.len(),
            candidates: generation.candidates.clone(),
            coverage: ending.and_then(|ending| ending.coverage_percent).map(Coverage),
            is_persisted,
            is_blocked: ending.is_some_and(|ending| ending.is_blocked),
        }
    }

    /// `generating`, `completed` or `failed`.
    #[must_use]
    pub const fn status(&self) -> &'static str {
        match (&self.ended_at, self.failure) {
            (None, _) => GENERATING,
            (Some(_), Some(_)) => FAILED,
            (Some(_), None) => COMPLETED,
        }
    }

    /// The session without its candidates.
    #[must_use]
    pub fn summary(&self) -> Summary<'_> {
        Summary {
            id: self.id,
            status: self.status(),
            model: &self.model,
            partial: self.partial,
            error: self.failure.map(Code::name),
            created_at: &self.created_at,
            ended_at: self.ended_at.as_deref(),
            usage: self.usage,
            candidate_count: self.candidate_count,
        }
    }

    /// The document of `GET /ai-sessions/{id}`, and of the 202 of `POST /ai-sessions`. Its candidates are empty unless it is
    /// completed.
    #[must_use]
    pub fn document(&self) -> SessionDocument {
        let candidates = if self.status() == COMPLETED { self.candidates.as_slice() } else { &[] };
        let summary = self.summary();
        let mut members = summary.members().to_vec();
        members.push(("candidates", &candidates));
        self.with_members(&members)
    }

    /// The document of the 201 of `POST /ai-sessions`.
    ///
    /// # Errors
    /// The failure of the generation, or that its candidates are not yet persisted.
    pub fn created(&self) -> Result<SessionDocument, Failure> {
        if let Some(failure) = self.problem() {
            return Err(failure);
        }
        let members: [(&str, &dyn ToJson); 4] = [
            ("id", &self.id),
            ("partial", &self.partial),
            ("coverage", &self.coverage),
            ("candidates", &self.candidates),
        ];
        Ok(self.with_members(&members))
    }

    fn with_members(&self, members: &[(&str, &dyn ToJson)]) -> SessionDocument {
        let mut json = String::new();
        write_object(&mut json, members);
        SessionDocument {
            id: self.id,
            is_generating: self.ended_at.is_none(),
            was_reused: self.was_reused,
            json: json.into_bytes(),
        }
    }

    /// The reason why the candidates are not available; `None` when they are.
    #[must_use]
    pub const fn problem(&self) -> Option<Failure> {
        let cause = match self.failure {
            Some(code) => Cause::Generation(code),
            None if self.is_persisted => return None,
            None => Cause::NotPersisted,
        };
        Some(Failure { cause, is_blocked: self.is_blocked, retry_after_s: self.retry_after_s })
    }
}

/// RFC 3339, UTC, with milliseconds.
#[must_use]
pub fn rfc3339(ms: u64) -> String {
    rfc3339::write(i64::try_from(ms.saturating_mul(1000)).unwrap_or(i64::MAX), 3)
}
