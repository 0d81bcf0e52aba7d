//! The generation as a state machine: inputs in, actions out. Pure.
//!
//! ```text
//! model    due ── count ──► send ──► head ──► bytes … ──► ended
//!           ▲                                   │
//!           └──────────── backoff ◄── failed ◄──┘
//! row      opening ──► opened                      beside the model
//! ```
//! [`Step::next`] returns the next action; after [`Action::Wait`] it needs an input. A stop ends it early, with its complete
//! candidates; a client that leaves does not.
//!
//! Not for: I/O (`super`), the state (`user_state`), the meaning of the bytes (`openrouter`).

use super::read_pacing::{LOOK_MS, Pace, ReadPacing};
use crate::generation::candidate::{Candidate, Found};
use crate::generation::retry;
use crate::openrouter::call::{Answer, ModelCall, is_loggable_id};
use crate::openrouter::failure::Failure;
use crate::openrouter::response_reader::{End, Outcome, ResponseReader};
use crate::quota::Reported;

/// Complete output is held in memory for this long at most, from the earliest moment at which it can have arrived: a crash loses
/// no older output, and an answer that the database has within this time is never stored beside it.
pub const HOLD_MS: u64 = 250;
/// The least time between two stores of candidates for a subscriber: those that arrive meanwhile are stored and sent together.
pub const TOGETHER_MS: u64 = 5;
/// The longest wait for the row's opening after the deadline, once the model's answer has ended.
pub const OPEN_GRACE_MS: u64 = 5_000;
/// How long a stopped generation is still read: its complete candidates are kept.
pub const STOP_MS: u64 = 2 * LOOK_MS;

/// The head of the model API's response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelHead {
    /// The HTTP status.
    pub status: u16,
    /// `Content-Type`; empty: none.
    pub content_type: String,
    /// `Retry-After`.
    pub retry_after: Option<String>,
    /// `X-OpenRouter-Cache-Status`.
    pub cache_status: Option<String>,
    /// `X-Generation-Id`.
    pub generation_id: Option<String>,
}

/// An input of the step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The opening of the row has ended: whether the row may exist, or can be created later.
    RowOpened(bool),
    /// The result of [`Action::CheckQuota`].
    QuotaChecked {
        /// Whether another model call is within the quota.
        has_quota: bool,
        /// Spread the backoff.
        random_bits: u128,
    },
    /// The result of [`Action::CountAttempt`]: whether the model call may start.
    AttemptCounted(bool),
    /// The head of the response.
    ModelHead(ModelHead),
    /// The next bytes of the response.
    ModelBytes(Vec<u8>),
    /// The end of the response, or of the connection.
    ModelEnded(ModelEnd),
    /// The owner stops the generation.
    Stop,
    /// The moment of [`Action::Wait`] has come before another input, with the bytes of the read in progress that have arrived
    /// until then.
    Timer(Vec<u8>),
}

/// How a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelEnd {
    /// Regularly.
    Regular,
    /// There is no connection, or it was cut.
    Cut,
}

/// An action for the driver.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Store these candidates.
    Store(Vec<Candidate>),
    /// Check whether another model call is within the quota, before its backoff.
    CheckQuota,
    /// Count a model call before it starts; carries its 1-based number.
    CountAttempt(u32),
    /// Send the request to the model API; whether a cached answer may be requested.
    Send(bool),
    /// Wait for the next input.
    Wait {
        /// How many bytes of the response a read that begins waits for; `None`: the connection is closed, and no more is billed.
        at_least: Option<usize>,
        /// The moment of [`Input::Timer`], in milliseconds since the Unix epoch.
        until_ms: u64,
    },
    /// Abandon the opening of the row, which takes too long. The result is [`Input::RowOpened`].
    AbandonRow,
    /// The generation has ended.
    End(Ended, Held),
}

/// Complete output that is not stored when a generation ends.
#[derive(Debug, Default, PartialEq)]
pub struct Held {
    /// The candidates after those that are stored.
    pub candidates: Vec<Candidate>,
    /// By when it has to be stored, in milliseconds since the Unix epoch.
    pub until_ms: u64,
}

/// How a generation ended.
#[derive(Debug, PartialEq)]
pub enum Ended {
    /// With the model's answer.
    Answered(Answer),
    /// It was stopped before the answer ended; the number of attempts.
    Stopped(u32),
    /// The row could not be opened, before the first candidate; the number of attempts.
    RowFailed(u32),
}

/// The settings of one generation.
#[derive(Debug, Clone, Copy)]
pub struct StepSettings {
    /// Model calls in all; 1 or more.
    pub attempts_max: u32,
    /// Candidates in all; 1 or more.
    pub candidates_max: usize,
    /// For silence of the model API.
    pub idle_timeout_ms: u64,
    /// The end of the model call, in milliseconds since the Unix epoch.
    pub deadline_ms: u64,
    /// Whether a cached answer may be used.
    pub allows_reuse: bool,
}

/// The state of the model call.
#[derive(Debug)]
enum Model {
    /// The next attempt starts at this moment.
    Due { at_ms: u64 },
    /// The quota is checked before the backoff.
    Checking { failed: retry::Failed },
    /// The attempt is counted.
    Counting,
    /// The request has to be sent.
    Starting { may_be_cached: bool },
    /// The request was sent, and the head of the response is waited for until this moment.
    Sending { may_be_cached: bool, until_ms: u64 },
    /// The response is read.
    Reading(Box<Response>),
    /// No attempt follows.
    Ended,
}

#[derive(Debug)]
struct Response {
    reader: ResponseReader,
    pacing: ReadPacing,
    was_reused: Option<bool>,
    generation_id: Option<String>,
}

/// A generation in progress.
#[derive(Debug)]
pub struct Step {
    settings: StepSettings,
    call: ModelCall,
    model: Model,
    /// Complete candidates that are not yet stored. INVARIANT: empty, or `pending_since_ms` is set.
    pending: Vec<Candidate>,
    /// The earliest moment at which the first of them can have arrived.
    pending_since_ms: Option<u64>,
    /// The same for the bytes after the last complete candidate.
    tail_since_ms: Option<u64>,
    /// The same for the last bytes.
    bytes_since_ms: u64,
    /// When candidates were last stored.
    stored_ms: Option<u64>,
    /// When the first candidate was complete.
    first_candidate_ms: Option<u64>,
    /// When the last attempt ended.
    answered_ms: Option<u64>,
    is_row_opening: bool,
    has_row_failed: bool,
    stop_until_ms: Option<u64>,
}

impl Step {
    /// A generation whose row is being opened; after so many attempts before a crash.
    #[must_use]
    pub const fn new(settings: StepSettings, attempts_made: u32, now_ms: u64) -> Self {
        Self {
            settings,
            call: ModelCall::new(settings.candidates_max, attempts_made),
            model: Model::Due { at_ms: now_ms },
            pending: Vec::new(),
            pending_since_ms: None,
            tail_since_ms: None,
            bytes_since_ms: now_ms,
            stored_ms: None,
            first_candidate_ms: None,
            answered_ms: None,
            is_row_opening: true,
            has_row_failed: false,
            stop_until_ms: None,
        }
    }

    /// Takes an input.
    pub fn handle(&mut self, input: Input, now_ms: u64) {
        match input {
            Input::RowOpened(is_ok) => {
                self.is_row_opening = false;
                // Without a candidate nothing is lost, and the bill stops. The result of a call that has ended is kept.
                self.has_row_failed = !is_ok && !self.has_candidate() && !matches!(self.model, Model::Ended);
            }
            Input::QuotaChecked { has_quota, random_bits } => {
                if let Model::Checking { failed } = self.model {
                    let backoff_ms = retry::wait_ms(failed, random_bits).filter(|_| has_quota);
                    let due = |backoff_ms| Model::Due { at_ms: now_ms.saturating_add(backoff_ms) };
                    self.model = backoff_ms.map_or(Model::Ended, due);
                }
            }
            Input::AttemptCounted(may_start) => {
                if matches!(self.model, Model::Counting) {
                    self.attempt_counted(may_start);
                }
            }
            Input::ModelHead(head) => {
                if let Model::Sending { may_be_cached, .. } = self.model {
                    self.model = Model::Reading(Box::new(self.response(head, may_be_cached, now_ms)));
                }
            }
            Input::ModelBytes(bytes) => {
                if let Model::Reading(response) = &mut self.model {
                    let since_ms = response.pacing.received(now_ms);
                    self.read(&bytes, since_ms);
                }
            }
            Input::ModelEnded(end) => match self.model {
                Model::Sending { .. } => {
                    self.end_attempt(Outcome::without_response(Failure::UNREACHABLE), None, now_ms);
                }
                Model::Reading(_) => {
                    let end = if end == ModelEnd::Cut { End::Cut } else { End::Regular };
                    self.end_response(end, now_ms);
                }
                _ => {}
            },
            Input::Stop => {
                self.stop_until_ms.get_or_insert(now_ms.saturating_add(STOP_MS));
            }
            Input::Timer(arrived) => self.expire(&arrived, now_ms),
        }
        self.keep_time(now_ms);
    }

    /// Decides the next action. `has_subscriber`: a candidate is stored soon after it is complete, because it is sent once it is
    /// stored.
    pub fn next(&mut self, has_subscriber: bool, now_ms: u64) -> Action {
        let is_eager = has_subscriber || self.stop_until_ms.is_some();
        let mut read = None;
        if let Model::Reading(response) = &mut self.model {
            match response.pacing.next(response.reader.remaining(), is_eager, now_ms) {
                Pace::Read { at_least, until_ms } => read = Some((at_least, until_ms)),
                Pace::End(end) => {
                    self.end_response(end, now_ms);
                    self.keep_time(now_ms);
                }
            }
        }
        if self.is_answered() {
            self.answered_ms.get_or_insert(now_ms);
        }
        let ended = self.has_ended(now_ms);
        if ended {
            let since_ms = self.pending_since_ms.into_iter().chain(self.tail_since_ms).min();
            let until_ms = since_ms.unwrap_or(now_ms).saturating_add(HOLD_MS);
            let held = Held { candidates: std::mem::take(&mut self.pending), until_ms };
            return Action::End(self.end(now_ms), held);
        }
        let store_at_ms = self.store_at_ms(has_subscriber, now_ms);
        if store_at_ms.is_some_and(|at_ms| now_ms >= at_ms) {
            (self.pending_since_ms, self.stored_ms) = (None, Some(now_ms));
            return Action::Store(std::mem::take(&mut self.pending));
        }
        let until_ms = match self.model {
            // Only the opening of the row is waited for, until the stop is over.
            Model::Due { .. } | Model::Checking { .. } | Model::Starting { .. }
                if self.stop_until_ms.is_some() =>
            {
                u64::MAX
            }
            Model::Due { at_ms } if now_ms >= at_ms => return self.begin_attempt(has_subscriber, now_ms),
            Model::Due { at_ms } => at_ms,
            Model::Checking { .. } => return Action::CheckQuota,
            Model::Counting => return Action::CountAttempt(self.call.attempts().saturating_add(1)),
            Model::Starting { may_be_cached } => {
                let idle_until_ms = now_ms.saturating_add(self.settings.idle_timeout_ms);
                let until_ms = idle_until_ms.min(self.settings.deadline_ms);
                self.model = Model::Sending { may_be_cached, until_ms };
                return Action::Send(may_be_cached && self.settings.allows_reuse);
            }
            Model::Sending { until_ms, .. } => {
                read = Some((1, until_ms));
                until_ms
            }
            Model::Reading(_) => read.map_or(u64::MAX, |(_, until_ms)| until_ms),
            Model::Ended => {
                let until_ms = self.settings.deadline_ms.saturating_add(OPEN_GRACE_MS);
                if now_ms >= until_ms {
                    return Action::AbandonRow;
                }
                until_ms
            }
        };
        let others_ms = [store_at_ms, self.stop_until_ms].into_iter().flatten();
        Action::Wait {
            at_least: read.map(|(at_least, _)| at_least),
            until_ms: others_ms.fold(until_ms, u64::min),
        }
    }

    /// Whether no attempt follows.
    #[must_use]
    pub const fn is_answered(&self) -> bool {
        matches!(self.model, Model::Ended)
    }

    /// The cost that the calls have reported; after [`Ended::Answered`], the answer has it.
    #[must_use]
    pub const fn reported(&self) -> Reported {
        self.call.reported()
    }

    /// When the first candidate was complete, in milliseconds since the Unix epoch. Without a subscriber, that is up to [`LOOK_MS`]
    /// after its last byte.
    #[must_use]
    pub const fn first_candidate_ms(&self) -> Option<u64> {
        self.first_candidate_ms
    }

    /// When the last attempt ended; `None` for a generation that was stopped or whose row has failed before.
    #[must_use]
    pub const fn answered_ms(&self) -> Option<u64> {
        self.answered_ms
    }

    const fn has_candidate(&self) -> bool {
        self.first_candidate_ms.is_some()
    }

    /// Whether the time of a stop is over: the bytes that had arrived are read.
    fn is_stop_over(&self, now_ms: u64) -> bool {
        self.stop_until_ms.is_some_and(|until_ms| now_ms >= until_ms)
    }

    /// Whether nothing more is to come: the answer and the row are there, or the row has failed, or it is stopped.
    fn has_ended(&self, now_ms: u64) -> bool {
        if self.has_row_failed || self.is_stop_over(now_ms) {
            return true;
        }
        let is_idle = match self.model {
            Model::Ended => true,
            // A stopped generation sends no request.
            Model::Due { .. } | Model::Checking { .. } | Model::Starting { .. } => {
                self.stop_until_ms.is_some()
            }
            _ => false,
        };
        is_idle && !self.is_row_opening
    }

    fn end(&mut self, now_ms: u64) -> Ended {
        let attempts = self.call.attempts();
        // A stop comes before a failure whose row is not yet known; an answer that is there is kept.
        let is_cancelled = self.is_row_opening && self.is_stop_over(now_ms) && !self.has_candidate();
        if self.is_answered() && !is_cancelled {
            return Ended::Answered(std::mem::replace(&mut self.call, ModelCall::new(0, 0)).into_answer());
        }
        if self.has_row_failed { Ended::RowFailed(attempts) } else { Ended::Stopped(attempts) }
    }

    fn begin_attempt(&mut self, has_subscriber: bool, now_ms: u64) -> Action {
        if now_ms >= self.settings.deadline_ms {
            self.call.pass_deadline();
            self.model = Model::Ended;
        } else if let Some(attempt) = self.call.next_attempt(self.settings.attempts_max) {
            self.model = Model::Counting;
            return Action::CountAttempt(attempt);
        } else {
            self.call.run_out_of_attempts();
            self.model = Model::Ended;
        }
        self.next(has_subscriber, now_ms)
    }

    fn attempt_counted(&mut self, may_start: bool) {
        if may_start {
            self.model = Model::Starting { may_be_cached: self.call.start_attempt() };
        } else {
            self.call.run_out_of_attempts();
            self.model = Model::Ended;
        }
    }

    fn response(&self, head: ModelHead, may_be_cached: bool, now_ms: u64) -> Response {
        let is_hit = |status: String| status.eq_ignore_ascii_case("hit");
        let was_reused = may_be_cached && self.settings.allows_reuse;
        Response {
            reader: ResponseReader::new(head.status, &head.content_type, head.retry_after.as_deref()),
            pacing: ReadPacing::new(self.settings.idle_timeout_ms, self.settings.deadline_ms, now_ms),
            was_reused: head.cache_status.filter(|_| was_reused).map(is_hit),
            generation_id: head.generation_id.filter(|id| is_loggable_id(id)),
        }
    }

    /// Reads bytes that can have arrived since then.
    fn read(&mut self, bytes: &[u8], since_ms: u64) {
        let Model::Reading(response) = &mut self.model else { return };
        if bytes.is_empty() {
            return;
        }
        self.bytes_since_ms = since_ms;
        let pending = self.pending.len();
        response.reader.push(bytes, &mut on_found(&mut self.call, &mut self.pending));
        if self.pending.len() > pending {
            self.tail_since_ms = None;
        }
        self.tail_since_ms.get_or_insert(since_ms);
    }

    /// The moment of a wait has come.
    fn expire(&mut self, arrived: &[u8], now_ms: u64) {
        match &mut self.model {
            Model::Sending { until_ms, .. } if now_ms >= *until_ms => {
                let is_deadline = now_ms >= self.settings.deadline_ms;
                let failure = if is_deadline { Failure::DEADLINE } else { Failure::IDLE_TIMEOUT };
                self.end_attempt(Outcome::without_response(failure), None, now_ms);
            }
            Model::Reading(response) => {
                let since_ms = response.pacing.looked(!arrived.is_empty(), now_ms);
                self.read(arrived, since_ms);
            }
            _ => {}
        }
    }

    fn end_response(&mut self, end: End, now_ms: u64) {
        let Model::Reading(response) = std::mem::replace(&mut self.model, Model::Ended) else { return };
        let Response { reader, was_reused, generation_id, .. } = *response;
        let mut outcome = reader.end(end, &mut on_found(&mut self.call, &mut self.pending));
        // Of an error, or of an answer that was cut before its first chunk.
        outcome.id = outcome.id.or(generation_id);
        self.end_attempt(outcome, was_reused, now_ms);
    }

    fn end_attempt(&mut self, outcome: Outcome, was_reused: Option<bool>, now_ms: u64) {
        let StepSettings { attempts_max, deadline_ms, .. } = self.settings;
        let failed = self.call.end_attempt(outcome, was_reused, attempts_max, deadline_ms, now_ms);
        self.model = failed.map_or(Model::Ended, |failed| Model::Checking { failed });
    }

    /// Notes since when there are candidates that are not stored.
    fn keep_time(&mut self, now_ms: u64) {
        if !self.pending.is_empty() {
            self.first_candidate_ms.get_or_insert(now_ms);
            self.pending_since_ms.get_or_insert(self.bytes_since_ms);
        }
    }

    /// When the pending candidates are stored; `None` without any.
    fn store_at_ms(&self, has_subscriber: bool, now_ms: u64) -> Option<u64> {
        let held_until_ms = self.pending_since_ms?.saturating_add(HOLD_MS);
        let together_ms = self.stored_ms.map_or(now_ms, |stored_ms| stored_ms.saturating_add(TOGETHER_MS));
        Some(if has_subscriber { together_ms.min(held_until_ms) } else { held_until_ms })
    }
}

/// Adds a found candidate to the call and to the pending ones.
fn on_found<'a>(call: &'a mut ModelCall, pending: &'a mut Vec<Candidate>) -> impl FnMut(Found) -> bool + 'a {
    move |found| match call.add(found) {
        Some(candidate) => {
            pending.push(candidate);
            true
        }
        None => false,
    }
}
