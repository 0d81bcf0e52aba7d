//! Persists the ending of a generation: candidates, session and event in one database transaction.

use std::pin::pin;

use futures_util::FutureExt;
use futures_util::future::{Either, join, select};

use super::log::{Note, log_rest};
use super::stage::Stage;
use super::step::OPEN_GRACE_MS;
use super::{UserObject, UserObjectHost, advance_held, in_time, reject_unknown_user, store_held};
use crate::http::problem::Code;
use crate::ports::{StoreError, within};
use crate::supabase::rest::RestError;
use crate::supabase::sessions::{self, EventData, FinishedRow};
use crate::user_object::decision::log_abandoned;
use crate::user_object::points::{JobName, Reason, measure_generation, measure_job};
use crate::user_object::run::Run;
use crate::user_object::session_view::{COMPLETED, FAILED, rfc3339};
use crate::user_state::generation::{Ending, Finished, Generation, RowState};
use crate::user_state::{Event, UserState, WriteSet};

/// By when after the deadline the ending is persisted, or left to a later job: a client that waits has its response within the
/// contract's `AI_TIMEOUT_MS` + 16 s.
const PERSIST_GRACE_MS: u64 = 15_000;
/// The least time of an attempt to persist an ending, also long after its end: as long as one request to the database may take.
const PERSIST_MS_MIN: u64 = PERSIST_GRACE_MS - OPEN_GRACE_MS;

/// Persists an ending. One that cannot be persisted stays in the state. `held_until_ms`: until then the ending, and candidates, need
/// not be stored; `None`: they are. `note`: of the first attempt to persist it; a later one is a job.
pub(super) async fn persist<H: UserObjectHost>(
    object: &UserObject<H>,
    run: &Run,
    mut generation: Generation,
    mut held_until_ms: Option<u64>,
    note: Option<&Note>,
) -> Result<Finished, StoreError> {
    let (host, id) = (object.host(), generation.accepted.id);
    let began_ms = host.now_ms();
    let stage = Stage::begin(host, run, "persist");
    let Some(ending) = generation.ending.clone() else {
        return Ok(Finished { generation, is_persisted: false, database_ms: 0 });
    };
    // The database has just refused the row, or did not answer: no client waits for another attempt.
    // After a refusal there is nothing to persist; else a job persists the failure.
    let is_unopened = ending.code == Some(Code::DatabaseError) && generation.writes == 0;
    let event = if is_unopened {
        if generation.row == RowState::Refused { Event::Persisted } else { Event::NotPersisted }
    } else {
        let until_ms = generation.deadline_ms.saturating_add(PERSIST_GRACE_MS);
        let left_ms = until_ms.saturating_sub(began_ms).max(PERSIST_MS_MIN);
        let finishing = within(host, left_ms, finish_or_open(object, &generation, &ending));
        let finished = match held_until_ms {
            None => finishing.boxed_local().await,
            Some(until_ms) => {
                let (finished, is_stored) =
                    finish_beside_hold(object, run, &generation, finishing, until_ms).await;
                held_until_ms = held_until_ms.filter(|_| !is_stored);
                finished
            }
        };
        let (outcome, row) = finished.unwrap_or((Err(RestError::Unavailable), generation.row));
        generation.row = row;
        match outcome {
            Ok(()) => Event::Persisted,
            Err(error) => {
                log_rest(host, id, "finish", &error);
                reject_unknown_user(object, &generation, &error).await?;
                if let Some(ending) = &mut generation.ending {
                    ending.is_blocked |= error.is_firewall_rejection();
                }
                if error.is_permanent() { Event::Refused } else { Event::NotPersisted }
            }
        }
    };
    let is_persisted = event == Event::Persisted;
    let now_ms = host.now_ms();
    drop(stage);
    let advance = |state: &mut UserState| {
        if !state.has_run(id, generation.accepted.run) {
            let is_stored = held_until_ms.is_none();
            return (if is_stored { After::Kept } else { After::Lost }, WriteSet::none());
        }
        let mut writes = advance_held(state, &generation, now_ms);
        writes.extend(state.advance(id, event.clone(), now_ms));
        if state.find(id).is_some() {
            return (After::Kept, writes);
        }
        // Its one row is removed by the next write: where it is loaded again, the end is found in the database.
        let is_held = held_until_ms.is_some();
        if is_persisted && is_held && !host.is_shared() && writes.is_removal_of(id) {
            return (After::Persisted, WriteSet::none());
        }
        (if is_persisted { After::Kept } else { After::Abandoned }, writes)
    };
    // Output that is stored nowhere else is worth waiting for the store.
    let advanced = match held_until_ms {
        Some(_) if !is_persisted => in_time(object, advance).boxed_local().await,
        _ => object.transact(advance).await,
    };
    let mut reason = if event == Event::Refused { Reason::Refused } else { Reason::Unavailable };
    match advanced? {
        After::Kept => {}
        After::Lost => return Err(StoreError),
        After::Persisted => object.0.persisted.borrow_mut().push((id, generation.accepted.run)),
        After::Abandoned => {
            log_abandoned(host, id);
            reason = Reason::Abandoned;
        }
    }
    let database_ms = now_ms.saturating_sub(began_ms);
    match note {
        Some(note) => measure_generation(host, &generation, &ending, note, database_ms, is_persisted),
        None if is_persisted => {}
        None => measure_job(host, JobName::Persist, reason, &generation, now_ms),
    }
    Ok(Finished { generation, is_persisted, database_ms })
}

/// Waits for the database, and stores the held output beside that wait if it takes longer than the hold. Whether it was stored.
async fn finish_beside_hold<H: UserObjectHost, T>(
    object: &UserObject<H>,
    run: &Run,
    generation: &Generation,
    finishing: impl Future<Output = T>,
    until_ms: u64,
) -> (T, bool) {
    let mut finishing = pin!(finishing);
    let left_ms = until_ms.saturating_sub(object.host().now_ms());
    match select(finishing.as_mut(), pin!(object.host().sleep(left_ms))).await {
        Either::Left((finished, _)) => (finished, false),
        Either::Right(_) => {
            let (stored, finished) = join(store_held(object, run, generation).boxed_local(), finishing).await;
            (finished, stored == Ok(true))
        }
    }
}

/// What becomes of the rows of a generation.
enum After {
    /// They are as they were written.
    Kept,
    /// Another isolate has taken the run over, and its result is the one that counts.
    Lost,
    /// The next write removes them.
    Persisted,
    /// They are removed, and the database does not have the end.
    Abandoned,
}

/// Ends the row; opens it first where it was opened and does not exist. The result has the state of the row.
async fn finish_or_open<H: UserObjectHost>(
    object: &UserObject<H>,
    generation: &Generation,
    ending: &Ending,
) -> (Result<(), RestError>, RowState) {
    let (mut row, mut outcome) = (generation.row, Err(RestError::Unavailable));
    for _ in 0..2 {
        outcome = finish(object, generation, row, ending).await;
        let is_missing = matches!(&outcome, Err(RestError::Refused { status: 404, .. }));
        if !is_missing || row != RowState::Opened || generation.accepted.input_text.is_empty() {
            break;
        }
        row = RowState::Unknown;
    }
    (outcome, row)
}

async fn finish<H: UserObjectHost>(
    object: &UserObject<H>,
    generation: &Generation,
    row: RowState,
    ending: &Ending,
) -> Result<(), RestError> {
    let accepted = &generation.accepted;
    let created_at = rfc3339(generation.started_ms);
    let completed = ending.code.is_none();
    let is_unconfirmed = row != RowState::Opened;
    let session = FinishedRow {
        id: accepted.id,
        run: accepted.run,
        model: &accepted.model,
        input_text: is_unconfirmed.then_some(&accepted.input_text),
        created_at: is_unconfirmed.then_some(created_at.as_str()),
        status: if completed { COMPLETED } else { FAILED },
        partial: ending.partial,
        error_code: ending.code,
        prompt_tokens: ending.usage.map(|usage| usage.prompt_tokens),
        completion_tokens: ending.usage.map(|usage| usage.completion_tokens),
        cost: ending.usage.map(|usage| usage.cost),
        coverage_percent: ending.coverage_percent,
    };
    let event = EventData {
        code: ending.code,
        attempts: ending.attempts,
        candidates: u64::try_from(generation.candidates.len()).unwrap_or(u64::MAX),
        dropped: ending.dropped,
        served_model: ending.served_model.as_deref(),
        duration_ms: ending.ended_ms.saturating_sub(generation.started_ms),
        usage: ending.usage.as_ref(),
    };
    let candidates = if completed { generation.candidates.as_slice() } else { &[] };
    let supabase = &object.0.config.supabase;
    sessions::finish(object.host(), supabase, &accepted.credentials, &session, candidates, &event).await
}
