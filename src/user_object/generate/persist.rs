//! Persists the ending of a generation: candidates, session and event in one database transaction.

use super::log::log_rest;
use super::step::OPEN_GRACE_MS;
use super::{UserObject, UserObjectHost, reject_unknown_user};
use crate::http::problem::Code;
use crate::ports::{StoreError, within};
use crate::supabase::rest::RestError;
use crate::supabase::sessions::{self, EventData, FinishedRow};
use crate::user_object::decision::log_abandoned;
use crate::user_object::session_view::{COMPLETED, FAILED, rfc3339};
use crate::user_state::generation::{Ending, Finished, Generation, RowState};
use crate::user_state::{Event, WriteSet};

/// By when after the deadline the ending is persisted, or left to a later job: a client that waits has its response within the
/// contract's `AI_TIMEOUT_MS` + 16 s.
const PERSIST_GRACE_MS: u64 = 15_000;
/// The least time of an attempt to persist an ending, also long after its end: as long as one request to the database may take.
const PERSIST_MS_MIN: u64 = PERSIST_GRACE_MS - OPEN_GRACE_MS;

/// Persists an ending. One that cannot be persisted stays in the state.
pub(super) async fn persist<H: UserObjectHost>(
    object: &UserObject<H>,
    mut generation: Generation,
) -> Result<Finished, StoreError> {
    let (host, id) = (object.host(), generation.accepted.id);
    let began_ms = host.now_ms();
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
        let finishing = finish_or_open(object, &mut generation, &ending);
        match within(host, left_ms, finishing).await.unwrap_or(Err(RestError::Unavailable)) {
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
    let is_abandoned = object.transact(|state| {
        if !state.has_run(id, generation.accepted.run) {
            return (false, WriteSet::none());
        }
        let mut writes = state.advance(id, Event::Row(generation.row), now_ms);
        writes.extend(state.advance(id, event.clone(), now_ms));
        (!is_persisted && state.find(id).is_none(), writes)
    });
    if is_abandoned.await? {
        log_abandoned(host, id);
    }
    Ok(Finished { generation, is_persisted, database_ms: now_ms.saturating_sub(began_ms) })
}

/// Ends the row; opens it first where it was opened and does not exist.
async fn finish_or_open<H: UserObjectHost>(
    object: &UserObject<H>,
    generation: &mut Generation,
    ending: &Ending,
) -> Result<(), RestError> {
    let outcome = finish(object, generation, ending).await;
    let is_missing = matches!(&outcome, Err(RestError::Refused { status: 404, .. }));
    if is_missing && generation.row == RowState::Opened && !generation.accepted.input_text.is_empty() {
        generation.row = RowState::Unknown;
        return finish(object, generation, ending).await;
    }
    outcome
}

async fn finish<H: UserObjectHost>(
    object: &UserObject<H>,
    generation: &Generation,
    ending: &Ending,
) -> Result<(), RestError> {
    let accepted = &generation.accepted;
    let created_at = rfc3339(generation.started_ms);
    let completed = ending.code.is_none();
    let is_unconfirmed = generation.row != RowState::Opened;
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
    let supabase = &object.0.config.supabase;
    sessions::finish(object.host(), supabase, &accepted.credentials, &session, candidates, &event).await
}
