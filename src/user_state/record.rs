//! What the state keeps of a generation, in the form in which it is stored.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{KEEP_FAILURE_MS, KEEP_NOT_PERSISTED_MS, REWRITE_MS};
use crate::generation::candidate::Candidate;
use crate::generation::usage::Usage;
use crate::problem::Code;
use crate::quota::Reservation;

/// A candidate with its id, as it is stored and answered. The id is made by this service, so that the answer needs
/// nothing from the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCandidate {
    /// Its id.
    pub id: Uuid,
    /// 1 to 200 characters.
    pub front: String,
    /// 1 to 500 characters.
    pub back: String,
    /// 1 to 500 characters.
    pub prompt: String,
}

impl SessionCandidate {
    /// A card that gets its id.
    #[must_use]
    pub fn new(id: Uuid, card: Candidate) -> Self {
        Self { id, front: card.front, back: card.back, prompt: card.prompt }
    }
}

/// What a request brought that the generation needs for as long as it goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The session's id.
    pub id: Uuid,
    /// The so-manieth try under this session, from 1: a failure that can pass frees its idempotency key.
    pub run: u32,
    /// Whose it is.
    pub user_id: Uuid,
    /// Sanitized.
    pub input_text: String,
    /// One of the allowed models.
    pub model: String,
    /// The user's access token: kept only until the row is closed.
    pub token: String,
    /// When it ends.
    pub token_expires_ms: u64,
    /// The service's own origin, for the model API's attribution.
    pub origin: String,
    /// W3C Trace Context.
    pub traceparent: Option<String>,
    /// `Cache-Control: no-cache` was sent.
    pub no_cache: bool,
}

/// How a generation ended. With a code it failed, without one it is completed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// Why it failed.
    pub code: Option<Code>,
    /// Whether the model's answer broke off.
    pub partial: bool,
    /// What was billed, over all attempts.
    pub usage: Option<Usage>,
    /// The model that served, where it said so.
    pub served_model: Option<String>,
    /// Model calls made.
    pub attempts: u32,
    /// Candidates dropped.
    pub dropped: u32,
    /// When.
    pub ended_ms: u64,
    /// What the model API said about another try.
    pub retry_after_s: Option<u64>,
    /// Whether the model API gave an answer that it had given before; `None` where that was not asked for.
    #[serde(default)]
    pub was_reused: Option<bool>,
    /// Whether a firewall before the database refused the session: no other try can help.
    #[serde(default)]
    pub is_blocked: bool,
}

/// What is known of a session's row before its end is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Row {
    /// It may be there: nothing was heard, or nobody asked yet.
    Unknown,
    /// The database has confirmed it.
    Opened,
    /// The database has refused it: it is not there.
    Refused,
}

/// An accepted generation, until the database has its ending.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// What the request brought.
    pub accepted: Accepted,
    /// When it was accepted.
    pub started_ms: u64,
    /// `started_ms` + `AI_TIMEOUT_MS`: the model is not listened to any longer than that.
    pub deadline_ms: u64,
    /// Its unit of `generations`, until it is either given back or used for good.
    pub unit: Option<Reservation>,
    /// What is known of the session's row.
    pub row: Row,
    /// Model calls begun.
    pub attempts: u32,
    /// Present: it does not run any more, and this has to be written. Stored beside the record.
    #[serde(skip)]
    pub ending: Option<Ending>,
    /// Attempts to write that failed.
    pub writes: u32,
    /// Those of them that the database refused in a way that no retry can change.
    #[serde(default)]
    pub refusals: u32,
    /// The earliest moment of the next attempt.
    pub write_at_ms: u64,
    /// Complete cards in their order. Stored in rows of their own.
    #[serde(skip)]
    pub candidates: Vec<SessionCandidate>,
}

impl Generation {
    /// When an ending that is not written is abandoned: without candidates soon, because nothing of it is lost.
    #[must_use]
    pub fn keep_until_ms(&self) -> u64 {
        let since_ms = self.ending.as_ref().map_or(self.deadline_ms, |ending| ending.ended_ms);
        let is_failure = self.ending.as_ref().is_some_and(|ending| ending.code.is_some());
        since_ms.saturating_add(if is_failure { KEEP_FAILURE_MS } else { KEEP_NOT_PERSISTED_MS })
    }

    /// Whether its ending is due to be written at that moment, with a token that the database can still accept.
    #[must_use]
    pub const fn can_be_written(&self, at_ms: u64) -> bool {
        self.write_at_ms <= at_ms && self.token_lives(at_ms)
    }

    /// Puts the next attempt to write off, each time for twice as long. The text goes once the row is known to be open: the
    /// database has it, and the model is not called again.
    pub fn back_off(&mut self, now_ms: u64) {
        let doubled = REWRITE_MS.start().saturating_mul(1 << self.writes.min(16));
        self.writes = self.writes.saturating_add(1);
        self.write_at_ms = now_ms.saturating_add(doubled.min(*REWRITE_MS.end()));
        if self.row == Row::Opened {
            self.accepted.input_text = String::new();
        }
    }

    /// Whether the user's token can still be used at that moment.
    #[must_use]
    pub const fn token_lives(&self, at_ms: u64) -> bool {
        at_ms < self.accepted.token_expires_ms
    }
}

/// A generation that has come to its end, for everybody who waits for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// What it was, with its candidates and its ending.
    pub generation: Generation,
    /// Whether the database has it.
    pub written: bool,
    /// How long the completing transaction took.
    pub database_ms: u64,
}
