//! The resumption of a generation after a crash: the database may have its end, which is not stored while it is persisted.

use super::log::log_rest;
use super::{UserObject, UserObjectHost};
use crate::http::problem::Code;
use crate::ports::{StoreError, within};
use crate::supabase::rest::RestError;
use crate::supabase::sessions::{self, SessionRow};
use crate::user_object::log_fields;
use crate::user_object::points::{JobName, Reason, measure_job};
use crate::user_object::reply::LogFields;
use crate::user_object::run::{Run, RunResult};
use crate::user_object::session_view::GENERATING;
use crate::user_object::stored_session::{failure_of, ms_of, view_of};
use crate::user_state::generation::{Ending, Generation};
use crate::user_state::{Event, WriteSet};

/// The longest check of the database, with its retries.
const CHECK_MS: u64 = 10_000;

/// The result of a resumption.
pub(super) enum Resumed {
    /// The database has its end.
    Ended(Box<RunResult>),
    /// It is called again, or ends with what is stored.
    Continues(Box<Generation>),
    /// It is not in the state any more, or another isolate drives it.
    Removed,
}

/// Checks in the database whether a generation has ended; the state follows it. Else ends it, or counts an attempt as made. With
/// a database that cannot be read, it is resumed later: no model call is made twice.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn resume<H: UserObjectHost>(
    object: &UserObject<H>,
    run: &Run,
    mut generation: Generation,
) -> Result<Resumed, StoreError> {
    let (host, config, id) = (object.host(), &object.0.config, generation.accepted.id);
    let credentials = &generation.accepted.credentials;
    let reading = sessions::read(host, &config.supabase, credentials, id, config.model_api.candidates_max);
    let read = within(host, CHECK_MS, reading).await.unwrap_or(Err(RestError::Unavailable));
    if let Err(error) = &read {
        log_rest(host, id, "resume", error);
    }
    // The row of an earlier run may have ended.
    let row = read.map(|row| row.filter(|row| row.run == run.number && row.status != GENERATING));
    let ending = row.as_ref().ok().and_then(Option::as_ref).map(|row| ending_of(row, &generation));
    let is_readable = row.is_ok();
    let now_ms = host.now_ms();
    let resumed = object.transact(|state| {
        if !state.has_run(id, run.number) {
            return (None, WriteSet::none());
        }
        let mut writes = WriteSet::none();
        if let Some(ending) = &ending {
            writes.extend(state.advance(id, Event::Ended(ending.clone()), now_ms));
            writes.extend(state.advance(id, Event::Persisted, now_ms));
            return (Some(generation.clone()), writes);
        }
        let attempts_max = config.model_api.attempts_max;
        let event = match state.find(id).filter(|_| is_readable) {
            None => Event::NotPersisted,
            Some(found) => {
                found.ending_after_crash(attempts_max, now_ms).map_or(Event::Resumed, Event::Ended)
            }
        };
        writes.extend(state.advance(id, event, now_ms));
        (state.find(id).cloned(), writes)
    });
    let Some(mut resumed) = resumed.await? else { return Ok(Resumed::Removed) };
    match row {
        Err(error) => {
            let reason = if error.is_permanent() { Reason::Refused } else { Reason::Unavailable };
            measure_job(host, JobName::Resume, reason, &generation, now_ms);
            Err(StoreError)
        }
        Ok(Some(row)) => {
            generation.ending = ending;
            run.set_ended_ms(generation.ending.as_ref().map(|ending| ending.ended_ms));
            let log = LogFields { model_ms: None, ..log_fields(&generation) };
            Ok(Resumed::Ended(Box::new(RunResult { session: view_of(row), log })))
        }
        Ok(None) => {
            if !resumed.has_token() {
                resumed.accepted.credentials = generation.accepted.credentials;
            }
            Ok(Resumed::Continues(Box::new(resumed)))
        }
    }
}

/// The ending that the database has.
fn ending_of(row: &SessionRow, generation: &Generation) -> Ending {
    let ended_ms = row.ended_at.as_deref().and_then(ms_of).unwrap_or(generation.deadline_ms);
    let failed = Ending::failed(Code::Internal, generation.attempts, ended_ms);
    Ending { partial: row.partial, code: failure_of(row), coverage_percent: row.coverage_percent, ..failed }
}
