//! A generation's own way, from its acceptance to its row in the database. The object runs it; requests are only
//! readers of it.
//!
//! 1. Open the session's row, and ask the model at the same time.
//! 2. Store each batch of complete cards as they come.
//! 3. The ending: the unit goes back where it has to, and is stored before anything else happens.
//! 4. One database transaction: candidates, session, event.
//!
//! It ends early when it is stopped on purpose, with the complete cards that it has, and never because a reader left.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use futures_util::future::{Either, select};
use serde::Serialize;
use uuid::Uuid;

use super::new_id;
use crate::answer::session::rfc3339;
use crate::config::{Config, LogLevel};
use crate::generation::usage::Usage;
use crate::openrouter::call::{BITE_MS, Extent, Progress, call};
use crate::openrouter::request::ModelRequest;
use crate::ports::{Clock, DeskHost, Fetch, Log, Random, StorageFailed, Timer, within};
use crate::problem::Code;
use crate::quota::Policies;
use crate::supabase::rest::{Caller, RestError};
use crate::supabase::sessions::{self, EventData, FinishedRow, NewRow};
use crate::user_state::record::{Ending, Finished, Generation, Row, SessionCandidate};
use crate::user_state::{Event, UserState, WriteSet, broken_off};

/// How many bytes of the answer are waited for at once while nobody waits for single cards: each read costs a crossing.
const BITE_BYTES: usize = 16 * 1024;
/// A complete card that nobody waits for is stored after this long at the latest: a death loses less than this of them,
/// and a fast answer costs one write.
const STORE_EVERY_MS: u64 = 250;
/// For how long after the deadline the opening of the row is waited for, when the model's answer is there.
const OPEN_GRACE_MS: u64 = 5_000;
/// By when after the deadline the end has been written, or is left to a later attempt: a client that waits has its response
/// within the contract's `AI_TIMEOUT_MS` + 16 s.
const FINISH_GRACE_MS: u64 = 15_000;
/// An attempt to write has at least this long, also one of a generation that ended long ago. As long as one request to the
/// database may take.
const FINISH_MS_MIN: u64 = FINISH_GRACE_MS - OPEN_GRACE_MS;
/// How long a generation is listened to that was stopped: a bite's time, and as much again for reading what there was of it.
const STOP_MS: u64 = 2 * BITE_MS;

/// All that a generation may touch.
pub trait GenerateHost: DeskHost + Fetch + Timer + Clock + Random {}
impl<H: DeskHost + Fetch + Timer + Clock + Random> GenerateHost for H {}

/// Runs a generation to its end, from wherever it is. `None` when the desk does not have it.
///
/// # Errors
/// [`StorageFailed`]: the alarm takes it up again.
pub async fn run(
    host: &impl GenerateHost,
    config: &Config,
    id: Uuid,
) -> Result<Option<Finished>, StorageFailed> {
    let find = || host.with_desk(|desk| (desk.find(id).cloned(), WriteSet::default()));
    let Some(generation) = find()? else { return Ok(None) };
    if generation.ending.is_none() {
        let (ending, note) = generate(host, config, &generation).await?;
        // (3) The ending.
        log_ending(host, &generation, &ending, &note);
        let now_ms = host.now_ms();
        host.with_desk(|desk| ((), desk.advance(id, Event::Ended(ending), now_ms)))?;
    } else if let Some(ending) = generation.ending.as_ref().filter(|_| generation.writes == 0) {
        log_ending(host, &generation, ending, &Note::of("ended after a death"));
    }
    let Some(generation) = find()? else { return Ok(None) };
    write(host, config, generation).await.map(Some)
}

/// Steps 1 and 2, unless it is stopped on purpose.
async fn generate(
    host: &impl GenerateHost,
    config: &Config,
    generation: &Generation,
) -> Result<(Ending, Note), StorageFailed> {
    let id = generation.accepted.id;
    let found = Found {
        host,
        policies: &config.rate_limit,
        id,
        pending: RefCell::default(),
        any: Cell::new(false),
        attempts: Cell::new(generation.attempts),
        is_stopped: Cell::new(false),
        is_cut_off: Cell::new(false),
        failed: Cell::new(false),
    };
    let ended = {
        let made = pin!(make(host, config, generation, &found));
        // The stop is looked at first: one that came before the first call, after a crash, is not to cause a call.
        match select(pin!(found.until_stopped()), made).await {
            Either::Right((ended, _)) => Some(ended?).filter(|_| !found.is_cut_off.get()),
            // What is not read on is dropped here: the model's connection is closed, and the bill stops.
            Either::Left(_) => None,
        }
    };
    found.store();
    if found.failed.get() {
        return Err(StorageFailed);
    }
    if let Some(ended) = ended {
        return Ok(ended);
    }
    let now_ms = host.now_ms();
    let ending = host.with_desk(|desk| {
        let stopped = desk.find(id).unwrap_or(generation);
        (broken_off(stopped, Code::Cancelled, found.attempts.get(), now_ms), WriteSet::default())
    })?;
    Ok((ending, Note::of("stopped")))
}

/// Steps 1 and 2.
async fn make<H: GenerateHost>(
    host: &H,
    config: &Config,
    generation: &Generation,
    found: &Found<'_, H>,
) -> Result<(Ending, Note), StorageFailed> {
    let accepted = &generation.accepted;
    let (session_id, user_id) = (accepted.id.to_string(), accepted.user_id.to_string());
    let caller = Caller { token: &accepted.token, traceparent: accepted.traceparent.as_deref() };
    let created_at = rfc3339(generation.started_ms);
    let row = NewRow {
        id: accepted.id,
        run: accepted.run,
        model: &accepted.model,
        input_text: &accepted.input_text,
        created_at: &created_at,
    };
    let ask = ModelRequest {
        secret: &config.service_secret,
        session_id: &session_id,
        user_id: &user_id,
        model: &accepted.model,
        text: &accepted.input_text,
        deadline_ms: generation.deadline_ms,
        attempts_made: generation.attempts,
        batch_bytes: &|| if found.is_stopped.get() || host.is_followed(accepted.id) { 1 } else { BITE_BYTES },
        has_call_left: &|| found.has_call_left(),
        may_call: &|attempt| found.may_call(attempt),
        no_cache: accepted.no_cache,
        traceparent: accepted.traceparent.as_deref(),
        referer: &accepted.origin,
    };

    // (1) Open the session's row, and ask the model at the same time.
    let model_runs = Cell::new(true);
    let is_busy = || model_runs.get();
    let open = pin!(sessions::open(host, &config.supabase, caller, &row, &is_busy));
    let call = call(host, &config.model_api, &ask, |progress| found.take(progress));
    let asked = pin!(async {
        let answer = match select(pin!(call), pin!(found.store_as_they_come())).await {
            Either::Left((answer, _)) => answer,
            Either::Right((never, _)) => match never {},
        };
        model_runs.set(false);
        answer
    });
    let answer = match select(open, asked).await {
        Either::Left((Ok(is_confirmed), asked)) => {
            opened(host, generation, is_confirmed)?;
            asked.await
        }
        Either::Left((Err(error), asked)) => {
            not_opened(host, generation, &error)?;
            // Nothing complete yet: closing the connection stops the bill. Else it is paid, and written later.
            if !found.any.get() {
                let ending = failed(Code::DatabaseError, found.attempts.get(), host.now_ms());
                let ending = Ending { is_blocked: error.is_firewall_rejection(), ..ending };
                return Ok((ending, Note::of("")));
            }
            asked.await
        }
        Either::Right((answer, open)) => {
            // All of it is paid: on the desk before anything is waited for.
            found.store();
            let until_ms = generation.deadline_ms.saturating_add(OPEN_GRACE_MS);
            let left_ms = until_ms.saturating_sub(host.now_ms());
            match within(host, left_ms, open).await.unwrap_or(Err(RestError::Unavailable)) {
                Ok(is_confirmed) => opened(host, generation, is_confirmed)?,
                Err(error) => not_opened(host, generation, &error)?,
            }
            answer
        }
    };

    let ending = Ending {
        code: answer.outcome.err(),
        partial: answer.outcome == Ok(Extent::Partial),
        usage: answer.usage,
        served_model: answer.model,
        attempts: answer.attempts,
        dropped: answer.dropped,
        ended_ms: host.now_ms(),
        retry_after_s: answer.retry_after_s,
        was_reused: answer.was_reused,
        is_blocked: false,
    };
    Ok((ending, Note { word: answer.operator_note, generation_id: answer.generation_id }))
}

/// What only the log is told of an ending.
struct Note {
    /// What happened at the model API, in a word of ours.
    word: String,
    /// By which an operator finds the last call at the model API.
    generation_id: Option<String>,
}

impl Note {
    fn of(word: &str) -> Self {
        Self { word: word.to_owned(), generation_id: None }
    }
}

/// (2) Complete cards on their way to the desk.
struct Found<'a, H> {
    host: &'a H,
    policies: &'a Policies,
    id: Uuid,
    pending: RefCell<Vec<SessionCandidate>>,
    any: Cell<bool>,
    attempts: Cell<u32>,
    /// From now on only what has come already is taken.
    is_stopped: Cell<bool>,
    /// A further model call was wanted after that, and not made.
    is_cut_off: Cell<bool>,
    failed: Cell<bool>,
}

impl<H: DeskHost + Timer> Found<'_, H> {
    fn take(&self, progress: Progress<'_>) {
        let card = match progress {
            Progress::Candidate(card) => card.clone(),
            Progress::Attempt(attempt) => return self.attempts.set(attempt),
        };
        self.any.set(true);
        self.pending.borrow_mut().push(SessionCandidate::new(new_id(self.host.now_ms(), self.host), card));
    }

    /// Counts a model call before it is made. Whether the user may make it.
    fn may_call(&self, attempt: u32) -> bool {
        let now_ms = self.host.now_ms();
        self.decide(|desk| desk.begin_attempt(self.policies, self.id, attempt, now_ms))
    }

    /// Whether the user may make one more model call now.
    fn has_call_left(&self) -> bool {
        let now_ms = self.host.now_ms();
        self.decide(|desk| (desk.ledger.has_attempt(self.policies, now_ms), WriteSet::default()))
    }

    fn decide(&self, decide: impl FnOnce(&mut UserState) -> (bool, WriteSet)) -> bool {
        if self.is_stopped.get() {
            self.is_cut_off.set(true);
            return false;
        }
        self.host.with_desk(decide).unwrap_or_else(|StorageFailed| {
            self.failed.set(true);
            false
        })
    }

    /// Stores what is pending, each time a while after it came, whether or not more comes. To be polled beside the
    /// call, which brings the cards: nothing else wakes it while it waits for one.
    async fn store_as_they_come(&self) -> Infallible {
        loop {
            poll_fn(|_| if self.pending.borrow().is_empty() { Poll::Pending } else { Poll::Ready(()) }).await;
            // Nobody hears of a card before it is stored: what was told must be there after a death.
            if !self.host.is_followed(self.id) {
                self.host.sleep(STORE_EVERY_MS).await;
            }
            self.store();
        }
    }

    /// Ends when it is stopped, and a little later: a complete card may be in a bite that has not filled, which is told
    /// when its time is over. The model is not asked once more meanwhile.
    async fn until_stopped(&self) {
        self.host.stopped(self.id).await;
        self.is_stopped.set(true);
        let attempts = self.attempts.get();
        let asked =
            poll_fn(|_| if self.attempts.get() == attempts { Poll::Pending } else { Poll::Ready(()) });
        let _ = within(self.host, STOP_MS, asked).await;
    }

    fn store(&self) {
        let pending = self.pending.take();
        if !pending.is_empty() {
            self.tell(Event::Candidates(pending));
        }
    }

    fn tell(&self, event: Event) {
        let now_ms = self.host.now_ms();
        let told = self.host.with_desk(|desk| ((), desk.advance(self.id, event, now_ms)));
        if told.is_err() {
            self.failed.set(true);
        }
    }
}

fn row_is(host: &impl DeskHost, id: Uuid, row: Row) -> Result<(), StorageFailed> {
    let now_ms = host.now_ms();
    host.with_desk(|desk| ((), desk.advance(id, Event::Row(row), now_ms)))
}

fn opened(host: &impl DeskHost, generation: &Generation, is_confirmed: bool) -> Result<(), StorageFailed> {
    row_is(host, generation.accepted.id, if is_confirmed { Row::Opened } else { generation.row })
}

fn not_opened(host: &impl DeskHost, generation: &Generation, error: &RestError) -> Result<(), StorageFailed> {
    let id = generation.accepted.id;
    log_rest(host, id, "open", error);
    reject_unknown_user(host, generation, error)?;
    // Only the first attempt of all that was refused says that the row is not there; before a death, and in the run
    // before, it may have been opened.
    let is_first = generation.accepted.run == 1 && generation.attempts == 0 && generation.row == Row::Unknown;
    let row = if is_first && error.is_database_rejection() { Row::Refused } else { generation.row };
    row_is(host, id, row)
}

/// An account that was deleted is refused from now on, for as long as its token would be accepted: each of its requests would
/// be one more paid call whose result nobody can store.
fn reject_unknown_user(
    host: &impl DeskHost,
    generation: &Generation,
    error: &RestError,
) -> Result<(), StorageFailed> {
    if !error.is_unknown_user() {
        return Ok(());
    }
    host.with_desk(|desk| ((), desk.reject_user(generation.accepted.token_expires_ms)))
}

fn failed(code: Code, attempts: u32, ended_ms: u64) -> Ending {
    Ending {
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

/// Step 4. What cannot be written stays on the desk.
async fn write(
    host: &impl GenerateHost,
    config: &Config,
    mut generation: Generation,
) -> Result<Finished, StorageFailed> {
    let id = generation.accepted.id;
    let began_ms = host.now_ms();
    let Some(ending) = generation.ending.clone() else {
        return Ok(Finished { generation, written: false, database_ms: 0 });
    };
    // The database was asked for the row a moment ago, and refused it or said nothing; nobody shall wait for it
    // again. With a refusal there is nothing to write, else the alarm writes the failure when it can be written.
    let is_unopened = ending.code == Some(Code::DatabaseError) && generation.writes == 0;
    let event = if is_unopened {
        if generation.row == Row::Refused { Event::Persisted } else { Event::NotPersisted }
    } else {
        let until_ms = generation.deadline_ms.saturating_add(FINISH_GRACE_MS);
        let left_ms = until_ms.saturating_sub(began_ms).max(FINISH_MS_MIN);
        let finishing = finish_or_open(host, config, &mut generation, &ending);
        match within(host, left_ms, finishing).await.unwrap_or(Err(RestError::Unavailable)) {
            Ok(()) => Event::Persisted,
            Err(error) => {
                log_rest(host, id, "finish", &error);
                reject_unknown_user(host, &generation, &error)?;
                if let Some(ending) = &mut generation.ending {
                    ending.is_blocked |= error.is_firewall_rejection();
                }
                if error.is_permanent() { Event::Refused } else { Event::NotPersisted }
            }
        }
    };
    let written = event == Event::Persisted;
    let now_ms = host.now_ms();
    let is_abandoned = host.with_desk(|desk| {
        let effects = desk.advance(id, event, now_ms);
        (!written && desk.find(id).is_none(), effects)
    })?;
    if is_abandoned {
        log_abandoned(host, id);
    }
    Ok(Finished { generation, written, database_ms: now_ms.saturating_sub(began_ms) })
}

/// Logs that an ended generation is lost.
pub(super) fn log_abandoned(host: &impl Log, id: Uuid) {
    let line = [r#"{"level":"error","message":"given up","session_id":""#, &id.to_string(), r#""}"#];
    host.log(LogLevel::Error, &line.concat());
}

/// Ends the row; opens it first where it was opened and is not there.
async fn finish_or_open(
    host: &impl GenerateHost,
    config: &Config,
    generation: &mut Generation,
    ending: &Ending,
) -> Result<(), RestError> {
    let outcome = finish(host, config, generation, ending).await;
    let is_missing = matches!(&outcome, Err(RestError::Refused { status: 404, .. }));
    if is_missing && generation.row == Row::Opened && !generation.accepted.input_text.is_empty() {
        generation.row = Row::Unknown;
        row_is(host, generation.accepted.id, Row::Unknown).map_err(|StorageFailed| RestError::Unavailable)?;
        return finish(host, config, generation, ending).await;
    }
    outcome
}

async fn finish(
    host: &impl GenerateHost,
    config: &Config,
    generation: &Generation,
    ending: &Ending,
) -> Result<(), RestError> {
    let accepted = &generation.accepted;
    let created_at = rfc3339(generation.started_ms);
    let completed = ending.code.is_none();
    let is_unconfirmed = generation.row != Row::Opened;
    let session = FinishedRow {
        id: accepted.id,
        run: accepted.run,
        model: &accepted.model,
        input_text: is_unconfirmed.then_some(accepted.input_text.as_str()),
        created_at: is_unconfirmed.then_some(created_at.as_str()),
        status: if completed { "completed" } else { "failed" },
        partial: ending.partial,
        error_code: ending.code,
        prompt_tokens: ending.usage.map(|usage| usage.prompt_tokens),
        completion_tokens: ending.usage.map(|usage| usage.completion_tokens),
        cost: ending.usage.map(|usage| usage.cost),
    };
    let event = EventData {
        code: ending.code,
        attempts: ending.attempts,
        candidates: generation.candidates.len(),
        dropped: ending.dropped,
        served_model: ending.served_model.as_deref(),
        duration_ms: ending.ended_ms.saturating_sub(generation.started_ms),
        usage: ending.usage.as_ref(),
    };
    let candidates = if completed { generation.candidates.as_slice() } else { &[] };
    let caller = Caller { token: &accepted.token, traceparent: accepted.traceparent.as_deref() };
    sessions::finish(host, &config.supabase, caller, &session, candidates, &event).await
}

/// What is logged of a generation when the model's answer has ended, whether or not anybody still waits for it.
#[derive(Serialize)]
struct EndingLine<'a> {
    level: &'static str,
    message: &'static str,
    session_id: Uuid,
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Code>,
    /// What happened at the model API, in a word of ours.
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

fn log_ending(host: &impl DeskHost, generation: &Generation, ending: &Ending, note: &Note) {
    let (level, word) = match ending.code {
        // Nobody but the operator can mend this, and no request succeeds until it is done.
        Some(Code::AiMisconfigured) => (LogLevel::Error, "error"),
        Some(_) => (LogLevel::Warn, "warn"),
        None => (LogLevel::Info, "info"),
    };
    let line = EndingLine {
        level: word,
        message: "generation",
        session_id: generation.accepted.id,
        model: &generation.accepted.model,
        code: ending.code,
        note: &note.word,
        generation_id: note.generation_id.as_deref(),
        attempts: ending.attempts,
        candidates_dropped: ending.dropped,
        partial: ending.partial,
        duration_ms: ending.ended_ms.saturating_sub(generation.started_ms),
        usage: ending.usage,
    };
    host.log(level, &serde_json::to_string(&line).unwrap_or_default());
}

#[derive(Serialize)]
struct DatabaseLine<'a> {
    level: &'static str,
    message: &'static str,
    session_id: Uuid,
    step: &'static str,
    error: &'a str,
}

fn log_rest(host: &impl DeskHost, session_id: Uuid, step: &'static str, error: &RestError) {
    let line = DatabaseLine { level: "warn", message: "database", session_id, step, error: &error.note() };
    host.log(LogLevel::Warn, &serde_json::to_string(&line).unwrap_or_default());
}
