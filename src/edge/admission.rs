//! A wanted generation at the user's desk.
//!
//! 1. What lies on the desk is seen to.
//! 2. Count; find what the key stands for; reserve. All in one transaction.
//! 3. Start the generation. The object owns it, not this request.
//! 4. Answer as its reader: at its end, with its events as they come, or at once.

use uuid::Uuid;

use super::stored_session::{Reader, find, known};
use super::user_desk::{
    ServeHost, Served, facts_of, in_form, limited, may_subscribe, no_session, not_persisted, on_desk,
    see_to_others, told, write_if_idle,
};
use crate::answer::form::Form;
use crate::answer::session::{GENERATING, Known, failure};
use crate::config::Config;
use crate::ports::{DeskHost, StorageFailed};
use crate::problem::{Code, Problem};
use crate::quota::Refusal;
use crate::quota::headers::fields;
use crate::user_state::ask::{Ask, Generate, LogFields};
use crate::user_state::idempotency::{Found, Key, session_id};
use crate::user_state::record::{Accepted, Finished};
use crate::user_state::{UserState, WriteSet};

/// What a request comes to at the desk.
enum Admitted {
    /// It starts this generation.
    Starts(Uuid),
    /// It is one more reader of this generation, which is on the desk.
    Joins(Uuid),
    /// It is a reader of this session, which the database has; whether that failed, and no other try can help.
    Reads(Uuid, bool),
    /// It is over.
    Refused(Box<Served>),
}

/// The whole of it.
///
/// # Errors
/// [`StorageFailed`]; nothing was counted or started then.
pub async fn generate(
    host: &impl ServeHost,
    config: &Config,
    ask: &Ask,
    wanted: &Generate,
) -> Result<Served, StorageFailed> {
    // (1) What lies on the desk is seen to, but for a failure that this request is going to try again.
    let key = wanted.key.clone().map(|key| {
        let key = Key::new(key, &wanted.model, &wanted.input_text, wanted.id);
        Key { is_repeated: ask.is_repeated, ..key }
    });
    let now_ms = host.now_ms();
    let found =
        host.with_desk(|desk| (find_session(host, wanted, key.as_ref(), desk, now_ms), WriteSet::default()))?;
    let again = if let Found::Again(id, _) = found { Some(id) } else { None };
    let named = if let Found::Joins(id) = found { Some(id) } else { None };
    see_to_others(host, config, ask, named, again)?;
    // A key tells by its claim whether its session was admitted; without one, only the database may know of it.
    let may_be_stored = found == Found::New && ask.is_repeated && wanted.key.is_none();
    let is_stored =
        if may_be_stored { is_in_database(host, config, ask, wanted.id).await } else { Ok(false) };

    // (2) Count; find what the key stands for; reserve.
    let now_ms = host.now_ms();
    let (admitted, headers) = host.with_desk(|desk| {
        let mut effects = WriteSet::default();
        let admitted = match (find_session(host, wanted, key.as_ref(), desk, now_ms), &is_stored) {
            (Found::New, Ok(true)) => Admitted::Reads(wanted.id, false),
            // It may have been paid for.
            (Found::New, Err(problem)) => Admitted::Refused(Box::new(Served::refused(ask, problem))),
            (found, _) => {
                let may_follow =
                    wanted.form != Form::Stream || may_subscribe(host, found.id().unwrap_or(wanted.id));
                admit(config, ask, wanted, (found, key, may_follow), desk, &mut effects, now_ms)
            }
        };
        ((admitted, fields(&desk.ledger, &config.rate_limit, now_ms)), effects)
    })?;
    // (3) Start the generation.
    let (id, is_new) = match admitted {
        Admitted::Starts(id) => {
            host.start(id);
            (id, true)
        }
        Admitted::Joins(id) => (id, false),
        Admitted::Reads(id, is_blocked) => {
            return Ok(stored(host, config, ask, wanted, (id, is_blocked)).await.with(headers));
        }
        Admitted::Refused(served) => return Ok((*served).with(headers)),
    };

    // (4) Answer as its reader.
    let is_busy = is_new || write_if_idle(host, id)?;
    if is_busy && wanted.form == Form::Plain {
        let settled = host.settled(id).await;
        let now_ms = host.now_ms();
        let headers =
            host.with_desk(|desk| (fields(&desk.ledger, &config.rate_limit, now_ms), WriteSet::default()))?;
        return Ok(settled.map_or_else(|| lost(ask), |settled| at_its_end(ask, &settled)).with(headers));
    }
    let Some(generation) = on_desk(host, id)? else { return Ok(no_session(ask).with(headers)) };
    let served = if is_busy && wanted.form == Form::Stream {
        Served::stream(ask, &generation, wanted.after.filter(|_| !is_new))
    } else {
        not_persisted(ask, &generation, wanted.form, wanted.after)
    };
    Ok(served.with(headers))
}

/// What there is already of what is wanted.
fn find_session(
    host: &impl DeskHost,
    wanted: &Generate,
    key: Option<&Key>,
    desk: &UserState,
    now_ms: u64,
) -> Found {
    match key {
        Some(key) => desk.find_session(key, |id| host.is_busy(id), now_ms),
        None if desk.find(wanted.id).is_some() => Found::Joins(wanted.id),
        None => Found::New,
    }
}

/// Whether the session of an ask that is repeated has got as far as the database.
async fn is_in_database(
    host: &impl ServeHost,
    config: &Config,
    ask: &Ask,
    id: Uuid,
) -> Result<bool, Problem> {
    let found = find(host, config, reader_of(ask), id).await?;
    Ok(found.is_some_and(|row| row.status != GENERATING))
}

fn admit(
    config: &Config,
    ask: &Ask,
    wanted: &Generate,
    (found, key, may_follow): (Found, Option<Key>, bool),
    desk: &mut UserState,
    effects: &mut WriteSet,
    now_ms: u64,
) -> Admitted {
    let policies = &config.rate_limit;
    // An ask that is repeated was counted when it was put first.
    let is_counted = ask.is_repeated && matches!(found, Found::Joins(_) | Found::Stored(_));
    if !is_counted {
        match desk.count(policies, now_ms) {
            Ok(counted) => *effects = counted,
            Err(refusal) => {
                let refusal = desk.ledger.refusal_of_generation(refusal, policies, now_ms);
                return Admitted::Refused(Box::new(limited(desk, effects, config, ask, refusal, now_ms)));
            }
        }
    }
    let reads_database = matches!(found, Found::Stored(_) | Found::Reused);
    if !may_follow && !reads_database {
        let refusal = Refusal::by_concurrent();
        return Admitted::Refused(Box::new(limited(desk, effects, config, ask, refusal, now_ms)));
    }
    let (id, run) = match found {
        Found::Joins(id) => return Admitted::Joins(id),
        Found::Stored(id) => return Admitted::Reads(id, desk.has_failed_for_good(id)),
        Found::Reused => {
            let detail = "this Idempotency-Key was used with another text or model; take a new one";
            let problem = Problem::new(Code::IdempotencyKeyReused, detail);
            return Admitted::Refused(Box::new(Served::refused(ask, &problem)));
        }
        Found::Again(id, run) => (id, run),
        Found::New => {
            let of_key = |key: &Key| session_id(&config.service_secret, ask.user_id, &key.key, now_ms);
            (key.as_ref().map_or(wanted.id, of_key), 1)
        }
    };
    let accepted = Accepted {
        id,
        run,
        user_id: ask.user_id,
        input_text: wanted.input_text.clone(),
        model: wanted.model.clone(),
        token: ask.token.clone(),
        token_expires_ms: ask.token_expires_ms,
        origin: ask.origin.clone(),
        traceparent: ask.traceparent.clone(),
        no_cache: wanted.no_cache,
    };
    match desk.admit(policies, accepted, key, config.model_api.timeout_ms, now_ms) {
        Ok(more) => {
            *effects = more;
            Admitted::Starts(id)
        }
        Err(refusal) => Admitted::Refused(Box::new(limited(desk, effects, config, ask, refusal, now_ms))),
    }
}

const fn reader_of(ask: &Ask) -> Reader<'_> {
    Reader {
        token: ask.token.as_str(),
        token_expires_ms: ask.token_expires_ms,
        traceparent: match &ask.traceparent {
            Some(traceparent) => Some(traceparent.as_str()),
            None => None,
        },
    }
}

/// The end of a generation, in the plain form.
fn at_its_end(ask: &Ask, settled: &Finished) -> Served {
    let session = Known::on_desk(&settled.generation, settled.written);
    let facts = LogFields { database_ms: Some(settled.database_ms), ..facts_of(&settled.generation) };
    told(ask, &session, facts)
}

/// A session that was made before, from the database, in the form that is wanted now.
async fn stored(
    host: &impl ServeHost,
    config: &Config,
    ask: &Ask,
    wanted: &Generate,
    (id, is_blocked): (Uuid, bool),
) -> Served {
    let found = match find(host, config, reader_of(ask), id).await {
        Ok(found) => found,
        Err(problem) => return Served::refused(ask, &problem),
    };
    // A failure whose end never reached the database, which may not have had its beginning.
    if found.as_ref().is_none_or(|row| row.status == GENERATING)
        && let Ok(Some(code)) = host.with_desk(|desk| (desk.failure_of(id), WriteSet::default()))
    {
        return Served::refused(ask, &failure(code, is_blocked));
    }
    let Some(row) = found else { return no_session(ask) };
    let mut session = known(&row);
    session.is_blocked = is_blocked; // the row does not say so
    let facts = LogFields { session_id: Some(id), code: session.failure, ..LogFields::default() };
    in_form(ask, &session, facts, wanted.form, wanted.after)
}

/// The storage failed while it ran. The alarm takes it up.
fn lost(ask: &Ask) -> Served {
    Served::refused(ask, &Problem::new(Code::Internal, "the generation was lost"))
}
