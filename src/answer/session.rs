//! A session as it is told, from wherever it is known: the desk that runs it, or the database that has it. Each form is
//! made here once, so that nobody can tell the two apart.

use chrono::{DateTime, SecondsFormat, Utc};
use uuid::Uuid;

use super::documents::{Created, Session, Summary, to_json};
use super::events::{End, EventList};
use crate::generation::usage::Usage;
use crate::http::{Answer, JSON};
use crate::problem::{Code, Problem};
use crate::user_state::record::{Generation, SessionCandidate};

/// The status of a session without an end.
pub const GENERATING: &str = "generating";
/// The status of a session with cards.
pub const COMPLETED: &str = "completed";
/// The status of a session that has an error instead.
pub const FAILED: &str = "failed";

/// What is known of a session.
#[derive(Debug, Clone, PartialEq)]
pub struct Known<'a> {
    /// Its id.
    pub id: Uuid,
    /// The so-manieth try under it.
    pub run: u32,
    /// The asked-for model.
    pub model: &'a str,
    /// When it was accepted; RFC 3339.
    pub created_at: String,
    /// When it ended; RFC 3339.
    pub ended_at: Option<String>,
    /// Why it failed.
    pub failure: Option<Code>,
    /// What the model API said about another try.
    pub retry_after_s: Option<u64>,
    /// Whether the model's answer broke off.
    pub partial: bool,
    /// What was billed.
    pub usage: Option<Usage>,
    /// Whether the model API gave an answer that it had given before; `None` where that was not asked for.
    pub was_reused: Option<bool>,
    /// How many cards there are, so far.
    pub candidate_count: usize,
    /// In their order.
    pub candidates: &'a [SessionCandidate],
    /// Whether the database has its end.
    pub is_stored: bool,
    /// Whether a firewall before the database refused it.
    pub is_blocked: bool,
}

impl<'a> Known<'a> {
    /// What a desk knows.
    #[must_use]
    pub fn on_desk(generation: &'a Generation, is_stored: bool) -> Self {
        let ending = generation.ending.as_ref();
        Self {
            id: generation.accepted.id,
            run: generation.accepted.run,
            model: &generation.accepted.model,
            created_at: rfc3339(generation.started_ms),
            ended_at: ending.map(|ending| rfc3339(ending.ended_ms)),
            failure: ending.and_then(|ending| ending.code),
            retry_after_s: ending.and_then(|ending| ending.retry_after_s),
            partial: ending.is_some_and(|ending| ending.partial),
            usage: ending.and_then(|ending| ending.usage),
            was_reused: ending.and_then(|ending| ending.was_reused),
            candidate_count: generation.candidates.len(),
            candidates: &generation.candidates,
            is_stored,
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

    /// What a list says of it.
    #[must_use]
    pub fn summary(&self) -> Summary<'_> {
        Summary {
            id: self.id,
            status: self.status(),
            model: self.model,
            partial: self.partial,
            error: self.failure.map(Code::name),
            created_at: &self.created_at,
            ended_at: self.ended_at.as_deref(),
            usage: self.usage,
            candidate_count: self.candidate_count,
        }
    }

    /// What its owner is told who asks for it; while it has no end, also when to ask again.
    #[must_use]
    pub fn document(&self, status: u16) -> Answer {
        let candidates = if self.status() == COMPLETED { self.candidates } else { &[] };
        let document = Session { summary: self.summary(), candidates };
        let answer = Answer::new(status, JSON, to_json(&document)).with("cache-control", "no-store");
        if self.ended_at.is_none() { answer.with("retry-after", RUNNING_RETRY_AFTER_S) } else { answer }
    }

    /// What the caller of `POST /ai-sessions` is told when it has ended.
    ///
    /// # Errors
    /// The failure, or `database_error` while its cards are not stored.
    pub fn created(&self) -> Result<Answer, Problem> {
        if let Some(problem) = self.problem() {
            return Err(problem);
        }
        let document = Created { id: self.id, partial: self.partial, candidates: self.candidates };
        let answer = Answer::new(201, JSON, to_json(&document))
            .with("cache-control", "no-store")
            .with("location", self.location());
        Ok(match self.was_reused {
            Some(true) => answer.with("cache-status", "OpenRouter; hit"),
            Some(false) => answer.with("cache-status", "OpenRouter; fwd=miss"),
            None => answer,
        })
    }

    /// What the caller of `POST /ai-sessions` is told who does not want to wait.
    #[must_use]
    pub fn later(&self) -> Answer {
        self.document(202).with("location", self.location()).with("preference-applied", "respond-async")
    }

    /// The path of the session.
    #[must_use]
    pub fn location(&self) -> String {
        ["/ai-sessions/", &self.id.to_string()].concat()
    }

    /// Writes what is left of the events of a session that has ended.
    pub fn tell_rest(&self, list: &mut EventList, out: &mut Vec<u8>, origin: &str, request_id: &str) {
        list.begin(out);
        list.cards(out, self.candidates.get(list.cards_heard()..).unwrap_or_default());
        let problem = self.problem().map(|problem| problem.to_json(origin, request_id));
        let end = match &problem {
            None => End::Done { partial: self.partial, usage: self.usage },
            Some(problem) if self.failure.is_some() => End::Failed(problem),
            Some(problem) => End::NotStored(problem),
        };
        list.end(out, self.candidates.len(), end);
    }

    /// Why there are no cards to be had.
    #[must_use]
    pub fn problem(&self) -> Option<Problem> {
        let mut problem = match self.failure {
            Some(code) => failure(code, self.is_blocked),
            None if self.is_stored => return None,
            None if self.is_blocked => Problem::by_firewall(NOT_STORED_BLOCKED),
            None => Problem::new(Code::DatabaseError, NOT_STORED),
        };
        problem.retry_after_s = self.retry_after_s;
        Some(problem)
    }
}

/// While it runs: most generations take 5 to 20 s.
const RUNNING_RETRY_AFTER_S: &str = "2";

/// What it means when there are cards, and the database does not take them.
const NOT_STORED: &str =
    "the session cannot be stored now; what was generated is kept and will be there later";

/// What it means when a firewall refused the session.
const BLOCKED: &str = "the session was refused by a firewall in front of the database; no generation was counted, its operator has to act";
const NOT_STORED_BLOCKED: &str = "the session was refused by a firewall in front of the database; what was generated is kept, its operator has to act";

/// A generation that failed; whether because a firewall before the database refused its session.
#[must_use]
pub fn failure(code: Code, is_blocked: bool) -> Problem {
    match code {
        Code::DatabaseError if is_blocked => Problem::by_firewall(BLOCKED),
        _ => Problem::new(code, detail_of(code)),
    }
}

/// What a failure means for the person who asked.
const fn detail_of(code: Code) -> &'static str {
    match code {
        Code::AiUnavailable => "the model cannot be reached now; no generation was counted, try again later",
        Code::AiTimeout => "the model did not answer in time; no generation was counted, try again",
        Code::AiInvalidResponse => "the model gave no usable flashcard; no generation was counted, try again",
        Code::AiRefused => "the model refuses this text; change the text",
        Code::AiMisconfigured => "the model API refuses this service; its operator has to act",
        Code::DatabaseError => "the session could not be stored; no generation was counted, try again later",
        Code::Cancelled => "the generation was stopped before its first card; no generation was counted",
        _ => "the generation did not succeed",
    }
}

/// RFC 3339, UTC, with milliseconds.
#[must_use]
pub fn rfc3339(ms: u64) -> String {
    let at = i64::try_from(ms).ok().and_then(DateTime::<Utc>::from_timestamp_millis).unwrap_or_default();
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}
