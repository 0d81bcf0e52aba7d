//! An accepted generation, until the database has its ending.

use std::rc::Rc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{CALL_MS_MIN, KEEP_FAILURE_MS, KEEP_NOT_PERSISTED_MS, REWRITE_MS, Write, WriteSet};
use crate::auth::credentials::Credentials;
use crate::generation::candidate::Candidate;
use crate::generation::usage::Usage;
use crate::http::problem::Code;
use crate::json_string::JsonString;
use crate::quota::Reservation;

/// A candidate with its id, as it is stored and sent. The service makes the id, so that a response needs nothing from the
/// database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCandidate {
    /// A UUIDv7.
    pub id: Uuid,
    /// 1 to 200 characters.
    pub front: String,
    /// 1 to 500 characters.
    pub back: String,
    /// 1 to 500 characters.
    pub prompt: String,
}

impl SessionCandidate {
    /// Gives a candidate its id.
    #[must_use]
    pub fn new(id: Uuid, candidate: Candidate) -> Self {
        Self { id, front: candidate.front, back: candidate.back, prompt: candidate.prompt }
    }
}

/// The parts of a request that the generation needs until its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredAccepted", into = "StoredAccepted")]
pub struct Accepted {
    /// The session's id.
    pub id: Uuid,
    /// The 1-based number of the run of this session: after a retryable failure, its idempotency key starts another.
    pub run: u32,
    /// The owner.
    pub user_id: Uuid,
    /// Sanitized; empty once it is no longer needed.
    pub input_text: JsonString,
    /// One of the allowed models.
    pub model: Rc<str>,
    /// The owner's; kept only until the ending is persisted.
    pub credentials: Credentials,
    /// `HTTP-Referer` of the model calls; empty: not sent.
    pub referer: Rc<str>,
    /// Whether `Cache-Control: no-cache` was sent.
    pub no_cache: bool,
}

/// The stored record of [`Accepted`].
#[derive(Serialize, Deserialize)]
struct StoredAccepted {
    id: Uuid,
    run: u32,
    user_id: Uuid,
    input_text: JsonString,
    model: Rc<str>,
    token: Rc<str>,
    token_expires_ms: u64,
    origin: Rc<str>,
    traceparent: Option<Rc<str>>,
    no_cache: bool,
}

impl From<StoredAccepted> for Accepted {
    fn from(stored: StoredAccepted) -> Self {
        Self {
            id: stored.id,
            run: stored.run,
            user_id: stored.user_id,
            input_text: stored.input_text,
            model: stored.model,
            credentials: Credentials {
                token: stored.token,
                expires_ms: stored.token_expires_ms,
                traceparent: stored.traceparent,
            },
            referer: stored.origin,
            no_cache: stored.no_cache,
        }
    }
}

impl From<Accepted> for StoredAccepted {
    fn from(accepted: Accepted) -> Self {
        Self {
            id: accepted.id,
            run: accepted.run,
            user_id: accepted.user_id,
            input_text: accepted.input_text,
            model: accepted.model,
            token: accepted.credentials.token,
            token_expires_ms: accepted.credentials.expires_ms,
            origin: accepted.referer,
            traceparent: accepted.credentials.traceparent,
            no_cache: accepted.no_cache,
        }
    }
}

/// How a generation ended. With a code it failed, without one it is completed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// The failure.
    pub code: Option<Code>,
    /// Whether the model's answer was cut.
    pub partial: bool,
    /// The billed usage, over all attempts.
    pub usage: Option<Usage>,
    /// The model that answered, as the model API names it.
    pub served_model: Option<String>,
    /// Model calls made.
    pub attempts: u32,
    /// Candidates dropped.
    pub dropped: u32,
    /// Milliseconds since the Unix epoch.
    pub ended_ms: u64,
    /// Seconds, from the model API.
    pub retry_after_s: Option<u64>,
    /// Whether the model API sent a cached answer; `None` where none was requested.
    #[serde(default)]
    pub was_reused: Option<bool>,
    /// Whether a firewall in front of the database refused the session: no retry can help.
    #[serde(default)]
    pub is_blocked: bool,
}

impl Ending {
    /// A failure without usage.
    #[must_use]
    pub const fn failed(code: Code, attempts: u32, ended_ms: u64) -> Self {
        Self {
            code: Some(code),
            partial: false,
            usage: None,
            served_model: None,
            attempts,
            dropped: 0,
            ended_ms,
            retry_after_s: None,
            was_reused: None,
            is_blocked: false,
        }
    }

    /// The ending of a generation that is not continued: with its complete candidates, else as a failure with `code`.
    #[must_use]
    pub fn interrupted(has_candidates: bool, code: Code, attempts: u32, ended_ms: u64) -> Self {
        let failed = Self::failed(code, attempts, ended_ms);
        Self { code: failed.code.filter(|_| !has_candidates), partial: has_candidates, ..failed }
    }
}

/// The state of a session's row before its ending is persisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RowState {
    /// It may exist: no request was sent yet, or its response was lost.
    Unknown,
    /// The database has confirmed it.
    Opened,
    /// The database has refused it: it does not exist.
    Refused,
}

/// An accepted generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// The parts of the request.
    pub accepted: Accepted,
    /// When it was accepted.
    pub started_ms: u64,
    /// `started_ms` + `AI_TIMEOUT_MS`: the model's answer is read until then at most.
    pub deadline_ms: u64,
    /// Its reservation of `generations`, until it is refunded or becomes final.
    #[serde(rename = "unit")]
    pub reservation: Option<Reservation>,
    /// The state of the session's row.
    pub row: RowState,
    /// Model calls started.
    pub attempts: u32,
    /// Present: it has ended, and the ending has to be persisted. Stored beside the record.
    #[serde(skip)]
    pub ending: Option<Ending>,
    /// Failed attempts to persist it.
    pub writes: u32,
    /// Those of them that the database refused in a way that no retry can change.
    #[serde(default)]
    pub refusals: u32,
    /// The earliest moment of the next attempt.
    pub write_at_ms: u64,
    /// The complete candidates in their order. Stored in rows of their own.
    #[serde(skip)]
    pub candidates: Vec<Rc<SessionCandidate>>,
    /// The isolate that drives it. Stored beside the record.
    #[serde(skip)]
    pub driver: Driver,
    /// Whether another isolate has requested a stop of this run. Stored beside the record.
    #[serde(skip)]
    pub is_stop_requested: bool,
}

/// The isolate that drives a generation, where several isolates share a user's state: it has a lease of the generation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Driver {
    /// No isolate, or the only one that there is.
    #[default]
    None,
    /// This isolate, also after its lease has expired.
    Own,
    /// Another isolate, whose lease is valid.
    Other,
    /// Another isolate, whose lease has expired.
    Lapsed,
}

impl Generation {
    /// A generation that is accepted now.
    #[must_use]
    pub const fn new(accepted: Accepted, reservation: Reservation, timeout_ms: u64, now_ms: u64) -> Self {
        Self {
            accepted,
            started_ms: now_ms,
            deadline_ms: now_ms.saturating_add(timeout_ms),
            reservation: Some(reservation),
            row: RowState::Unknown,
            attempts: 0,
            ending: None,
            writes: 0,
            refusals: 0,
            write_at_ms: 0,
            candidates: Vec::new(),
            driver: Driver::None,
            is_stop_requested: false,
        }
    }

    /// The ending of a generation after a crash; `None` where another model call inside the deadline continues it. Complete
    /// candidates are kept; with any, no second call is billed.
    #[must_use]
    pub fn ending_after_crash(&self, attempts_max: u32, now_ms: u64) -> Option<Ending> {
        let may_call =
            self.attempts.max(1) < attempts_max && now_ms.saturating_add(CALL_MS_MIN) <= self.deadline_ms;
        if self.candidates.is_empty() && may_call {
            return None;
        }
        Some(Ending::interrupted(!self.candidates.is_empty(), Code::AiTimeout, self.attempts, now_ms))
    }

    /// When it is abandoned because it cannot be resumed, or its ending not persisted: early without candidates, because none is
    /// lost then.
    #[must_use]
    pub fn keep_until_ms(&self) -> u64 {
        let since_ms = self.ending.as_ref().map_or(self.deadline_ms, |ending| ending.ended_ms);
        let is_failure =
            self.ending.as_ref().map_or(self.candidates.is_empty(), |ending| ending.code.is_some());
        since_ms.saturating_add(if is_failure { KEEP_FAILURE_MS } else { KEEP_NOT_PERSISTED_MS })
    }

    /// Whether it is due at that moment to be resumed, or its ending to be written, with a token that the database can still
    /// accept.
    #[must_use]
    pub fn can_be_written(&self, at_ms: u64) -> bool {
        self.write_at_ms <= at_ms && self.has_valid_token(at_ms)
    }

    /// Delays the next attempt at the write, each time for twice as long. Removes the text once the row is confirmed: the
    /// database has it, and no model call follows.
    pub fn back_off(&mut self, now_ms: u64) {
        let doubled = REWRITE_MS.start().saturating_mul(1 << self.writes.min(16));
        self.writes = self.writes.saturating_add(1);
        self.write_at_ms = now_ms.saturating_add(doubled.min(*REWRITE_MS.end()));
        if self.row == RowState::Opened {
            self.accepted.input_text = JsonString::new("");
        }
    }

    /// Whether another isolate drives it.
    #[must_use]
    pub fn is_driven_elsewhere(&self) -> bool {
        self.driver == Driver::Other
    }

    /// Whether another isolate has taken it over, so that this one must not write it.
    #[must_use]
    pub const fn is_taken_over(&self) -> bool {
        matches!(self.driver, Driver::Other | Driver::Lapsed)
    }

    /// Ends the lease of this isolate, where it has one.
    pub(super) fn release(&mut self) -> WriteSet {
        if self.driver != Driver::Own {
            return WriteSet::none();
        }
        self.driver = Driver::None;
        WriteSet::from([Write::Release(self.accepted.id)])
    }

    /// Whether there is a token, expired or not.
    #[must_use]
    pub fn has_token(&self) -> bool {
        !self.accepted.credentials.token.is_empty()
    }

    /// Whether there is a token that has not expired at that moment.
    #[must_use]
    pub fn has_valid_token(&self, at_ms: u64) -> bool {
        self.has_token() && at_ms < self.accepted.credentials.expires_ms
    }
}

/// A generation that has ended, and whether the attempt to persist it succeeded.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// With its candidates and its ending.
    pub generation: Generation,
    /// Whether the database has it.
    pub is_persisted: bool,
    /// Milliseconds of the completing transaction.
    pub database_ms: u64,
}
