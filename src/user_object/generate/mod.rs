//! The run of a generation: drives the [`Step`], then persists the ending.
//!
//! 0. After a crash, check in the database whether it has ended.
//! 1. Open the session's row, and call the model at the same time.
//! 2. Store the candidates as they are complete, or hold them for a short time.
//! 3. Store the ending, with the refund; or hold it, too.
//! 4. Persist it: candidates, session and event in one database transaction. Held output is stored beside it if that takes long.

pub(super) mod log;
mod persist;
pub mod read_pacing;
mod resume;
mod stage;
pub mod step;

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_util::FutureExt;

use super::run::{Run, RunResult};
use super::session_view::{SessionView, rfc3339};
use super::{LogFields, UserObject, UserObjectHost, log_fields};
use crate::citation::check::Checker;
use crate::citation::sentences::Sentences;
use crate::generation::candidate::Candidate;
use crate::http::problem::Code;
use crate::ids::new_id;
use crate::openrouter::call::{Answer, Extent};
use crate::openrouter::request::{ModelRequest, allows_reuse, build};
use crate::ports::reusable_timer::ReusableTimer;
use crate::ports::{Clock, Incoming, Random, StoreError, Unreachable, within};
use crate::supabase::rest::RestError;
use crate::supabase::sessions::{self, NewRow};
use crate::user_state::generation::{
    Ending, Finished, Generation, RowState, SessionCandidate, coverage_percent,
};
use crate::user_state::{Event, UserState, WriteSet};
use log::{Note, log_ending, log_rest};
use persist::persist;
use resume::{Resumed, resume};
use stage::Stage;
use step::{Action, Ended, Held, Input, ModelEnd, ModelHead, Step, StepSettings};

/// A transaction of paid output is repeated for so long after its begin. A client that waits has its response within the
/// contract's time.
const REPEAT_MS: u64 = 12_000;
/// Between two repetitions.
const REPEAT_PAUSE_MS: u64 = 500;

/// Drives a generation to its end, from wherever it is. `None` when the state does not have it any more.
///
/// # Errors
/// [`StoreError`]: the alarm resumes it.
pub(super) async fn run<H: UserObjectHost>(
    object: &UserObject<H>,
    run: &Run,
    mut generation: Generation,
) -> Result<Option<RunResult>, StoreError> {
    // (0) Check the database.
    let is_resumed = run.take_resumed();
    if is_resumed {
        generation = match resume(object, run, generation).boxed_local().await? {
            Resumed::Ended(result) => return Ok(Some(*result)),
            Resumed::Continues(generation) => *generation,
            Resumed::Removed => return Ok(None),
        };
    }
    if let Some(ending) = &generation.ending {
        // A later attempt to persist it is a job.
        let note = (is_resumed || generation.writes == 0).then(|| Note::new("ended after a crash"));
        if let Some(note) = &note {
            log_ending(object.host(), &generation, ending, note);
        }
        return persist(object, run, generation, None, note.as_ref()).await.map(result_of);
    }
    let Generated { ending, note, row, candidates, until_ms } = generate(object, run, &generation).await?;
    // (3) Store the ending, or hold it.
    log_ending(object.host(), &generation, &ending, &note);
    run.set_ended_ms(Some(ending.ended_ms));
    let is_plain = ending.code.is_none() && !ending.partial && row == RowState::Opened;
    // A subscriber has received the candidates: after a crash, it receives the same end.
    let is_followed = run.is_stopped() || run.subscribers() > 0;
    let can_be_held = is_plain && !is_followed && (!object.host().is_shared() || object.can_hold(run));
    (generation.row, generation.ending) = (row, Some(ending));
    generation.candidates = run.stored_from(0);
    generation.candidates.extend(candidates);
    if can_be_held && object.host().now_ms() < until_ms {
        return persist(object, run, generation, Some(until_ms), Some(&note)).await.map(result_of);
    }
    if !store_held(object, run, &generation).boxed_local().await? {
        return Ok(None);
    }
    persist(object, run, generation, None, Some(&note)).await.map(result_of)
}

fn result_of(finished: Finished) -> Option<RunResult> {
    Some(RunResult {
        session: SessionView::of_generation(&finished.generation, finished.is_persisted),
        log: LogFields { database_ms: Some(finished.database_ms), ..log_fields(&finished.generation) },
    })
}

/// Stores the ending of a generation, with its candidates that are not yet stored, in one transaction. Whether the run is still in
/// the state, and this isolate may write it.
async fn store_held<H: UserObjectHost>(
    object: &UserObject<H>,
    run: &Run,
    generation: &Generation,
) -> Result<bool, StoreError> {
    let now_ms = object.host().now_ms();
    let stored = in_time(object, |state| {
        if !state.has_run(run.id, run.number) {
            return (false, WriteSet::none());
        }
        (true, advance_held(state, generation, now_ms))
    });
    let is_stored = stored.await?;
    if let Some(held) =
        generation.candidates.get(run.stored_count()..).filter(|held| is_stored && !held.is_empty())
    {
        run.add_stored(held.to_vec());
    }
    Ok(is_stored)
}

/// Applies the output of a generation that the state does not have: row, candidates, ending.
fn advance_held(state: &mut UserState, generation: &Generation, now_ms: u64) -> WriteSet {
    let id = generation.accepted.id;
    let mut writes = state.advance(id, Event::Row(generation.row), now_ms);
    let stored = state.find(id).map_or(0, |found| found.candidates.len());
    // Some are there by a transaction whose reply was lost.
    let held = generation.candidates.get(stored..).unwrap_or_default();
    if !held.is_empty() {
        writes.extend(state.advance(id, Event::Candidates(held.to_vec()), now_ms));
    }
    if let Some(ending) = &generation.ending {
        writes.extend(state.advance(id, Event::Ended(ending.clone()), now_ms));
    }
    writes
}

/// The result of steps 1 and 2.
struct Generated {
    ending: Ending,
    note: Note,
    row: RowState,
    /// Those that are not yet stored.
    candidates: Vec<Rc<SessionCandidate>>,
    /// By when they and the ending have to be stored.
    until_ms: u64,
}

/// The connection to the model API.
enum Connection<'h, B> {
    Closed,
    /// The request is sent.
    Sent(Pin<Box<dyn Future<Output = Result<B, Unreachable>> + 'h>>),
    /// The response is read.
    Open(B),
}

/// What a wait ends with.
enum Woken<B> {
    Input(Input),
    Row(Result<bool, RestError>),
    Response(B),
    /// Another isolate drives the run.
    Lost,
}

/// Steps 1 and 2.
async fn generate<H: UserObjectHost>(
    object: &UserObject<H>,
    run: &Run,
    generation: &Generation,
) -> Result<Generated, StoreError> {
    let (host, config) = (object.host(), &object.0.config);
    let (id, policies) = (generation.accepted.id, &config.rate_limit);
    let text_bytes = generation.accepted.text_bytes();
    let (session_id, user_id) = (id.to_string(), generation.accepted.user_id.to_string());
    let text = generation.accepted.input_text.decoded();
    let sentences = Sentences::of(&text);
    let request = ModelRequest {
        secret: &config.service_secret,
        session_id: &session_id,
        user_id: &user_id,
        model: &generation.accepted.model,
        text: &text,
        sentences: &sentences,
        no_cache: generation.accepted.no_cache,
        traceparent: generation.accepted.credentials.traceparent.as_deref(),
        referer: &generation.accepted.referer,
    };
    let settings = StepSettings {
        attempts_max: config.model_api.attempts_max,
        candidates_max: config.model_api.candidates_max,
        idle_timeout_ms: config.model_api.idle_timeout_ms,
        deadline_ms: generation.deadline_ms,
        allows_reuse: allows_reuse(&config.model_api, &request),
    };
    let mut step = Step::new(settings, generation.attempts, host.now_ms());
    let is_calling = Cell::new(true);
    let is_busy = || is_calling.get();
    let mut opening = pin!(open_row(object, generation, &is_busy));
    let (mut is_opening, mut is_row_blocked, mut is_stop_handled) = (true, false, false);
    let mut row = generation.row;
    let mut opening_stage = Some(Stage::begin(host, run, "open_row"));
    let mut model_stage = None;
    let mut connection = Connection::Closed;
    let mut timer = ReusableTimer::new(host);
    let mut checks = Checks { text: &text, sentences: &sentences, checker: None };
    let (ended, held) = loop {
        if run.is_stopped() && !is_stop_handled {
            is_stop_handled = true;
            step.handle(Input::Stop, host.now_ms());
        }
        let has_subscriber = run.subscribers() > 0;
        let input = match step.next(has_subscriber, host.now_ms()) {
            Action::Store(candidates) => {
                store(object, run, checks.check(host, candidates)).boxed_local().await?;
                continue;
            }
            Action::CheckQuota => {
                let now_ms = host.now_ms();
                let has_quota = object
                    .peek(|state| state.ledger.has_attempt(policies, text_bytes, now_ms))
                    .boxed_local()
                    .await?;
                Input::QuotaChecked { has_quota, random_bits: host.random_bits() }
            }
            // The admission has counted it; a transaction without a write would be one more round trip before the call.
            Action::CountAttempt(1) if host.is_shared() => Input::AttemptCounted(true),
            Action::CountAttempt(attempt) => {
                let count = object.transact(|state| {
                    if !state.has_run(id, run.number) {
                        return (None, WriteSet::none());
                    }
                    let (may_call, writes) = state.begin_attempt(policies, id, attempt, host.now_ms());
                    (Some(may_call), writes)
                });
                // Another run has replaced this one, or another isolate drives it.
                Input::AttemptCounted(count.await?.ok_or(StoreError)?)
            }
            Action::Send(may_reuse) => {
                let request = build(&config.model_api, &request, may_reuse);
                connection = Connection::Sent(Box::pin(host.fetch(request)));
                model_stage = Some(Stage::begin(host, run, "call_model"));
                continue;
            }
            Action::AbandonRow => {
                is_opening = false;
                opening_stage = None;
                row = row_opened(object, generation, Err(&RestError::Unavailable)).boxed_local().await?;
                Input::RowOpened(false)
            }
            Action::End(ended, held) => break (ended, held),
            Action::Wait { at_least, until_ms } => {
                is_calling.set(!step.is_answered());
                if at_least.is_none() {
                    connection = Connection::Closed; // nothing more is billed
                    model_stage = None;
                }
                let woken = poll_fn(|context| {
                    if run.is_lost() {
                        return Poll::Ready(Woken::Lost);
                    }
                    if !is_stop_handled && run.poll_stop(context).is_ready() {
                        is_stop_handled = true;
                        return Poll::Ready(Woken::Input(Input::Stop));
                    }
                    if is_opening && let Poll::Ready(opened) = opening.as_mut().poll(context) {
                        return Poll::Ready(Woken::Row(opened));
                    }
                    if let Poll::Ready(woken) = connection.poll(at_least.unwrap_or(1), context) {
                        return Poll::Ready(woken);
                    }
                    if !has_subscriber && run.subscribers() > 0 {
                        // What has arrived and what is held is stored, and sent.
                        return Poll::Ready(Woken::Input(Input::Timer(connection.look())));
                    }
                    timer.poll(until_ms, context).map(|()| Woken::Input(Input::Timer(connection.look())))
                });
                match woken.await {
                    Woken::Lost => return Err(StoreError),
                    Woken::Input(input) => input,
                    Woken::Row(opened) => {
                        is_opening = false;
                        opening_stage = None;
                        is_row_blocked = opened.as_ref().is_err_and(RestError::is_firewall_rejection);
                        row = row_opened(object, generation, opened.as_ref().copied()).await?;
                        Input::RowOpened(opened.is_ok())
                    }
                    Woken::Response(response) => {
                        let head = head_of(&response);
                        connection = Connection::Open(response);
                        drop(model_stage.take());
                        model_stage = Some(Stage::begin(host, run, "read_answer"));
                        Input::ModelHead(head)
                    }
                }
            }
        };
        step.handle(input, host.now_ms());
    };
    drop((connection, opening_stage, model_stage)); // nothing more is billed
    let now_ms = host.now_ms();
    let Held { candidates, until_ms } = held;
    let candidates = checks.check(host, candidates);
    let (mut ending, mut note) = match ended {
        Ended::Answered(answer) => ending_of(answer, now_ms),
        Ended::RowFailed(attempts) => {
            let ending = Ending::failed(Code::DatabaseError, attempts, now_ms);
            (Ending { is_blocked: is_row_blocked, reported: step.reported(), ..ending }, Note::new(""))
        }
        Ended::Stopped(attempts) => {
            let has_candidates = run.stored_count() > 0 || !candidates.is_empty();
            let ending = Ending::interrupted(has_candidates, Code::Cancelled, attempts, now_ms);
            (Ending { reported: step.reported(), ..ending }, Note::new("stopped"))
        }
    };
    (note.first_candidate_ms, note.answered_ms) = (step.first_candidate_ms(), step.answered_ms());
    if ending.code.is_none() {
        let all = [run.stored_from(0), candidates.clone()].concat();
        ending.coverage_percent = coverage_percent(&all, |sources| sentences.coverage_percent(sources));
    }
    Ok(Generated { ending, note, row, candidates, until_ms })
}

impl<B: Incoming> Connection<'_, B> {
    fn poll(&mut self, at_least: usize, context: &mut Context<'_>) -> Poll<Woken<B>> {
        match self {
            Self::Closed => Poll::Pending,
            Self::Sent(response) => response.as_mut().poll(context).map(|response| match response {
                Ok(response) => Woken::Response(response),
                Err(Unreachable) => Woken::Input(Input::ModelEnded(ModelEnd::Cut)),
            }),
            Self::Open(body) => body.poll_next(at_least, context).map(|bytes| {
                Woken::Input(match bytes {
                    Ok(Some(bytes)) => Input::ModelBytes(bytes),
                    Ok(None) => Input::ModelEnded(ModelEnd::Regular),
                    Err(Unreachable) => Input::ModelEnded(ModelEnd::Cut),
                })
            }),
        }
    }

    /// The bytes of the read in progress that have arrived.
    fn look(&mut self) -> Vec<u8> {
        match self {
            Self::Open(body) => body.look(),
            Self::Closed | Self::Sent(_) => Vec::new(),
        }
    }
}

fn head_of(response: &impl Incoming) -> ModelHead {
    ModelHead {
        status: response.status(),
        content_type: response.header("content-type").unwrap_or_default(),
        retry_after: response.header("retry-after"),
        cache_status: response.header("x-openrouter-cache-status"),
        generation_id: response.header("x-generation-id"),
    }
}

/// Repeats a transaction of paid output for a short time, where the store of a shared state cannot be reached.
async fn in_time<H: UserObjectHost, T>(
    object: &UserObject<H>,
    mut decide: impl FnMut(&mut UserState) -> (T, WriteSet),
) -> Result<T, StoreError> {
    let host = object.host();
    if !host.is_shared() {
        return object.transact(decide).await;
    }
    let repeated = within(host, REPEAT_MS, async {
        loop {
            let transacted = object.transact(&mut decide).await;
            if transacted.is_ok() {
                return transacted;
            }
            host.sleep(REPEAT_PAUSE_MS).await;
        }
    });
    repeated.await.unwrap_or(Err(StoreError))
}

/// (1) Opens the session's row. Whether the database has confirmed it.
async fn open_row<H: UserObjectHost>(
    object: &UserObject<H>,
    generation: &Generation,
    is_busy: &dyn Fn() -> bool,
) -> Result<bool, RestError> {
    let accepted = &generation.accepted;
    let created_at = rfc3339(generation.started_ms);
    let row = NewRow {
        id: accepted.id,
        run: accepted.run,
        model: &accepted.model,
        input_text: &accepted.input_text,
        created_at: &created_at,
    };
    sessions::open(object.host(), &object.0.config.supabase, &accepted.credentials, &row, is_busy).await
}

/// The state of the row after its opening.
async fn row_opened<H: UserObjectHost>(
    object: &UserObject<H>,
    generation: &Generation,
    opened: Result<bool, &RestError>,
) -> Result<RowState, StoreError> {
    let error = match opened {
        Ok(true) => return Ok(RowState::Opened),
        Ok(false) => return Ok(generation.row),
        Err(error) => error,
    };
    log_rest(object.host(), generation.accepted.id, "open", error);
    reject_unknown_user(object, generation, error).await?;
    // Only the first attempt of all that was refused says that the row does not exist; before a crash, and in the run
    // before, it may have been opened.
    let is_first =
        generation.accepted.run == 1 && generation.attempts == 0 && generation.row == RowState::Unknown;
    Ok(if is_first && error.is_database_rejection() { RowState::Refused } else { generation.row })
}

/// A deleted account is rejected from now on, for as long as its token would be accepted: each of its requests would be one
/// more billed call whose result cannot be persisted.
async fn reject_unknown_user<H: UserObjectHost>(
    object: &UserObject<H>,
    generation: &Generation,
    error: &RestError,
) -> Result<(), StoreError> {
    if !error.is_unknown_user() {
        return Ok(());
    }
    object.transact(|state| ((), state.reject_user(generation.accepted.credentials.expires_ms))).await
}

/// The checks of the candidates of one run against the text.
struct Checks<'a> {
    text: &'a str,
    sentences: &'a Sentences,
    /// Present from the first candidate on.
    checker: Option<Checker<'a>>,
}

impl Checks<'_> {
    /// Checks accepted candidates, in their order, and gives them their ids.
    fn check(
        &mut self,
        host: &(impl Clock + Random),
        candidates: Vec<Candidate>,
    ) -> Vec<Rc<SessionCandidate>> {
        let now_ms = host.now_ms();
        let check = |candidate: Candidate| {
            let checker = self.checker.get_or_insert_with(|| Checker::new(self.text, self.sentences));
            let citation = checker.check(&candidate.front, &candidate.back, &candidate.sentences);
            Rc::new(SessionCandidate::new(new_id(now_ms, host.random_bits()), candidate, citation))
        };
        candidates.into_iter().map(check).collect()
    }
}

/// (2) Stores complete candidates, then sends them to the subscribers.
async fn store<H: UserObjectHost>(
    object: &UserObject<H>,
    run: &Run,
    candidates: Vec<Rc<SessionCandidate>>,
) -> Result<(), StoreError> {
    let host = object.host();
    let (now_ms, from) = (host.now_ms(), run.stored_count());
    let stored = in_time(object, |state| {
        let current = state.find(run.id).filter(|found| found.ending.is_none());
        let Some(current) = current.filter(|_| state.has_run(run.id, run.number)) else {
            return (false, WriteSet::none());
        };
        if current.candidates.len() > from {
            return (true, WriteSet::none()); // by a transaction whose reply was lost
        }
        (true, state.advance(run.id, Event::Candidates(candidates.clone()), now_ms))
    });
    if !stored.await? {
        return Err(StoreError); // another run has replaced this one, which ends without a result
    }
    run.add_stored(candidates);
    if host.is_shared() {
        object.check_stop(run).await;
    }
    Ok(())
}

fn ending_of(answer: Answer, now_ms: u64) -> (Ending, Note) {
    let ending = Ending {
        code: answer.outcome.err(),
        partial: answer.outcome == Ok(Extent::Partial),
        usage: answer.usage,
        served_model: answer.model,
        attempts: answer.attempts,
        dropped: answer.dropped.total(),
        ended_ms: now_ms,
        retry_after_s: answer.retry_after_s,
        was_reused: answer.was_reused,
        is_blocked: false,
        reported: answer.reported,
        coverage_percent: None,
    };
    let note = Note {
        text: answer.operator_note,
        generation_id: answer.generation_id,
        provider: answer.provider,
        dropped: answer.dropped,
        ..Note::default()
    };
    (ending, note)
}
