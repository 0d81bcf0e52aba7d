//! The model call as a state machine over its attempts: candidates, usage, and whether another attempt follows. No I/O.
//!
//! ```text
//! attempt ──► response ──► candidates … closed ──► usage
//!    ▲                                      │
//!    └── backoff ◄── failed without a candidate, and may be retried
//! ```
//! An answer that was cut after a candidate is kept, and not requested again: the caller may have received the candidate.
//!
//! Not for: connections and time (`user_object::generate`), sessions, the database.

use super::failure::Failure;
use super::response_reader::Outcome;
use crate::generation::candidate::{Candidate, Candidates, DroppedCounts, Found};
use crate::generation::retry;
use crate::generation::usage::Usage;
use crate::http::problem::Code;
use crate::quota::Reported;

/// The `Retry-After` of a response after the model API's 429 without one, in seconds.
const RATE_LIMIT_S: u64 = 10;

/// The completeness of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The answer was closed.
    Whole,
    /// It was cut; its complete candidates are kept.
    Partial,
}

/// The result of a model call.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// The completeness of an answer with at least one candidate, or the failure.
    pub outcome: Result<Extent, Code>,
    /// Invalid candidates, over all attempts.
    pub dropped: DroppedCounts,
    /// Over all attempts; `None` when the model API sent none.
    pub usage: Option<Usage>,
    /// The cost that the attempts reported, without those before a crash.
    pub reported: Reported,
    /// The model that answered last, as the model API names it.
    pub model: Option<String>,
    /// Its provider, as the model API names it.
    pub provider: Option<String>,
    /// The last generation's id at the model API.
    pub generation_id: Option<String>,
    /// Whether the answer was a cached one; `None` when none was requested, or the API did not say.
    pub was_reused: Option<bool>,
    /// Attempts, those before a crash included.
    pub attempts: u32,
    /// Whole seconds after which a retry can succeed; only with a code that may be retried.
    pub retry_after_s: Option<u64>,
    /// For the log: the last failure, as in `rate_limit_exceeded 429`; empty without one. Contains no text of the model API.
    pub operator_note: String,
}

/// A model call in progress.
#[derive(Debug)]
pub struct ModelCall {
    candidates: Candidates,
    attempts: u32,
    usage: Option<Usage>,
    reported: Reported,
    model: Option<String>,
    provider: Option<String>,
    generation_id: Option<String>,
    was_reused: Option<bool>,
    failure: Option<Failure>,
}

impl ModelCall {
    /// A call after so many attempts before a crash, with at most so many candidates.
    #[must_use]
    pub const fn new(candidates_max: usize, attempts_made: u32) -> Self {
        Self {
            candidates: Candidates::new(candidates_max),
            attempts: attempts_made,
            usage: None,
            reported: Reported { calls: 0, nanodollars: 0 },
            model: None,
            provider: None,
            generation_id: None,
            was_reused: None,
            failure: None,
        }
    }

    /// The number of attempts so far, those before a crash included.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The cost that the attempts have reported, without those before a crash.
    #[must_use]
    pub const fn reported(&self) -> Reported {
        self.reported
    }

    /// The 1-based number of the next attempt; `None` when all are used.
    #[must_use]
    pub fn next_attempt(&self, attempts_max: u32) -> Option<u32> {
        let next = self.attempts.saturating_add(1);
        (next <= attempts_max).then_some(next)
    }

    /// Starts an attempt. Returns whether a cached answer may be requested: not after a failure, because the failed answer may
    /// be the cached one.
    pub const fn start_attempt(&mut self) -> bool {
        self.attempts = self.attempts.saturating_add(1);
        self.failure.is_none()
    }

    /// Adds a candidate that the reader found; `None` when it is dropped.
    pub fn add(&mut self, found: Found) -> Option<Candidate> {
        self.candidates.add(found).ok()
    }

    /// Ends an attempt. Returns the input of the backoff, where another attempt may follow.
    pub fn end_attempt(
        &mut self,
        outcome: Outcome,
        was_reused: Option<bool>,
        attempts_max: u32,
        deadline_ms: u64,
        now_ms: u64,
    ) -> Option<retry::Failed> {
        self.usage = match (self.usage, outcome.usage) {
            (Some(before), Some(now)) => Some(before.plus(now)),
            (before, now) => now.or(before),
        };
        self.reported.add(outcome.cost);
        self.model = outcome.model.or(self.model.take());
        self.provider = outcome.provider.or(self.provider.take());
        self.generation_id = outcome.id.or(self.generation_id.take());
        self.was_reused = was_reused;
        self.failure = outcome.failure;
        let failed = self.failure.filter(|failed| failed.may_retry && self.candidates.is_empty())?;
        let failed = retry::Failed {
            attempts: self.attempts,
            attempts_max,
            now_ms,
            deadline_ms,
            retry_after_s: failed.retry_after_s,
        };
        // Whether there is a backoff does not depend on the random bits.
        retry::wait_ms(failed, 0).map(|_| failed)
    }

    /// The deadline has passed before an attempt.
    pub const fn pass_deadline(&mut self) {
        self.failure = Some(Failure::DEADLINE);
    }

    /// No further attempt may start: those of the call or of the user are used.
    pub fn run_out_of_attempts(&mut self) {
        self.failure = self.failure.or(Some(Failure::NO_ATTEMPT_LEFT));
    }

    /// Ends the call.
    #[must_use]
    pub fn into_answer(self) -> Answer {
        let has_none = self.candidates.is_empty();
        let outcome = match self.failure {
            None => Ok(Extent::Whole),
            Some(failure) if has_none => Err(failure.code),
            Some(_) => Ok(Extent::Partial),
        };
        let retryable = self.failure.filter(|failure| has_none && failure.code.retryable() == Some(true));
        Answer {
            outcome,
            dropped: self.candidates.dropped(),
            usage: self.usage,
            reported: self.reported,
            model: self.model,
            provider: self.provider,
            generation_id: self.generation_id,
            was_reused: self.was_reused,
            attempts: self.attempts,
            retry_after_s: retryable.and_then(|failure| {
                failure.retry_after_s.or(failure.is_rate_limit().then_some(RATE_LIMIT_S))
            }),
            operator_note: self.failure.map(|failure| failure.note()).unwrap_or_default(),
        }
    }
}

/// Whether the model API's id of a generation can be written to the log.
#[must_use]
pub fn is_loggable_id(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}
