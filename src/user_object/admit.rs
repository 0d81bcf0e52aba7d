//! The admission of a request for a generation.
//!
//! 1. Resume pending work.
//! 2. Classify the request, count it, reserve; in the same transaction.
//! 3. Start the run. The object owns it, not the request.
//! 4. Reply in the response mode of the client.

use std::rc::Rc;

use futures_util::FutureExt;
use uuid::Uuid;

use super::command::{Command, Generate};
use super::decision::Decision;
use super::reply::{Cause, Failure, LogFields, Reply};
use super::run::Run;
use super::session_view::{GENERATING, SessionView};
use super::stored_session::{find, view_of};
use super::subscription::Subscription;
use super::{Replied, UserObject, UserObjectHost, failed, log_fields};
use crate::http::response_mode::ResponseMode;
use crate::http::sse::EventId;
use crate::quota::Refusal;
use crate::user_state::UserState;
use crate::user_state::generation::{Accepted, Generation};
use crate::user_state::idempotency::{Key, Plan, classify, session_id};

/// The result of a decision.
enum Admitted {
    /// The request starts this run, or joins it.
    Runs(Rc<Run>, Option<Subscription>, Box<Generation>),
    /// The session is not yet persisted, and no write of it may start now.
    Waits(Box<Generation>),
    /// The database has the session; whether its failure is final.
    Stored(Uuid, bool),
    /// The database has to be checked first.
    CheckDatabase,
    /// The request is rejected.
    Rejected(Reply),
}

/// Executes the command.
///
/// # Errors
/// [`Cause`]; nothing was counted or started then.
pub(super) async fn generate<H: UserObjectHost>(
    object: &UserObject<H>,
    command: &Command,
    generate: &Generate,
) -> Result<Replied, Cause> {
    let key =
        generate.key.clone().map(|key| Key::new(key, &generate.model, &generate.input_text, generate.id));
    let mut is_stored = None;
    let (admitted, quota, refusal_lasts_ms) = loop {
        let decided = object.decide(Some(&command.credentials), |decision| {
            let admitted = admit(object, decision, command, generate, key.as_ref(), is_stored);
            let lasts_ms = match &admitted {
                Admitted::Rejected(Reply::LimitExceeded(refusal)) => decision.refusal_lasts_ms(refusal),
                _ => None,
            };
            (admitted, decision.quota(), lasts_ms)
        });
        let decided = decided.await?;
        if !matches!(decided.0, Admitted::CheckDatabase) {
            break decided;
        }
        is_stored = Some(is_in_database(object, command, generate.id).boxed_local().await);
    };

    // (4) Reply in the response mode of the client.
    let replied = match admitted {
        Admitted::Runs(_, Some(subscription), generation) => {
            Replied::subscribed(subscription, log_fields(&generation))
        }
        Admitted::Runs(run, None, _) if generate.mode == ResponseMode::Sync => {
            let replied = run.finished().await.map_or_else(
                || failed(Cause::Lost),
                |result| in_mode(result.session.clone(), result.log.clone(), ResponseMode::Sync, None),
            );
            let now_ms = object.0.host.now_ms();
            let now = object.peek(|state| state.ledger.status(&object.0.config.rate_limit, now_ms)).await;
            return Ok(Replied { quota: Some(now.unwrap_or(quota)), ..replied });
        }
        Admitted::Runs(_, None, generation) | Admitted::Waits(generation) => {
            let session = SessionView::of_generation(&generation, false);
            in_mode(session, log_fields(&generation), generate.mode, generate.after)
        }
        Admitted::Stored(id, is_final) => stored(object, command, generate, id, is_final).boxed_local().await,
        Admitted::CheckDatabase => failed(Cause::Lost),
        Admitted::Rejected(reply) => Replied::bare(reply),
    };
    Ok(Replied { quota: Some(quota), refusal_lasts_ms, ..replied })
}

/// Decides, in one transaction. `is_stored`: whether the database has the session, where it was checked.
fn admit<H: UserObjectHost>(
    object: &UserObject<H>,
    decision: &mut Decision<'_, H>,
    command: &Command,
    generate: &Generate,
    key: Option<&Key>,
    is_stored: Option<Result<bool, Failure>>,
) -> Admitted {
    // (1) Resume pending work, but not a failure that this request is going to retry.
    let now_ms = decision.now_ms;
    let classify = |state: &UserState| {
        let is_running = |id| object.is_running(id);
        classify(state, key, generate.id, command.is_repeated, is_running, now_ms)
    };
    let retried = |plan| if let Plan::StartAgain(id, _) = plan { Some(id) } else { None };
    let mut plan = classify(decision.state);
    if decision.abandon_expired(retried(plan)) {
        plan = classify(decision.state);
    }
    let (named, except) = (if let Plan::Join(id) = plan { Some(id) } else { None }, retried(plan));
    decision.resume_pending_work(&command.credentials, named, except);
    let plan = match (plan, is_stored) {
        (Plan::CheckDatabase, None) => return Admitted::CheckDatabase,
        (Plan::CheckDatabase, Some(Ok(true))) => return Admitted::Stored(generate.id, false),
        (Plan::CheckDatabase, Some(Ok(false))) => Plan::Start,
        // The session may exist, and be billed.
        (Plan::CheckDatabase, Some(Err(failure))) => return Admitted::Rejected(Reply::Failed(failure)),
        (plan, _) => plan,
    };

    // (2) Count the request. A repeated delivery was counted when it came first.
    let config = &object.0.config;
    let policies = &config.rate_limit;
    let was_counted = command.is_repeated && matches!(plan, Plan::Join(_) | Plan::ReadStored(..));
    if !was_counted {
        match decision.state.count(policies, now_ms) {
            Ok(writes) => decision.writes.extend(writes),
            Err(refusal) => {
                let refusal = decision.state.ledger.refusal_of_generation(
                    refusal,
                    policies,
                    generate.input_text.escaped().len(),
                    now_ms,
                );
                return Admitted::Rejected(decision.exceed_limit(refusal));
            }
        }
    }
    let is_stream = generate.mode == ResponseMode::Stream;
    let may_subscribe = || object.may_subscribe(plan.session_id().unwrap_or(generate.id));
    let (id, run) = match plan {
        Plan::ReadStored(id, is_final) => return Admitted::Stored(id, is_final),
        Plan::RejectReused => return Admitted::Rejected(Reply::KeyReused),
        _ if is_stream && !may_subscribe() => {
            return Admitted::Rejected(decision.exceed_limit(Refusal::by_concurrent()));
        }
        Plan::Join(id) => return join(decision, command, id, is_stream, generate.after),
        Plan::StartAgain(id, run) => (id, run),
        Plan::Start | Plan::CheckDatabase => {
            let of_key = |key: &Key| session_id(&config.service_secret, command.user_id, &key.key, now_ms);
            (key.map_or(generate.id, of_key), 1)
        }
    };
    let accepted = Accepted {
        id,
        run,
        user_id: command.user_id,
        input_text: generate.input_text.clone(),
        model: Rc::clone(&generate.model),
        credentials: command.credentials.clone(),
        referer: Rc::clone(&generate.referer),
        no_cache: generate.no_cache,
    };
    match decision.state.admit(policies, accepted, key, config.model_api.timeout_ms, now_ms) {
        Ok(writes) => decision.writes.extend(writes),
        Err(refusal) => return Admitted::Rejected(decision.exceed_limit(refusal)),
    }
    // (3) Start the run.
    decision.reserve_run(id);
    join(decision, command, id, is_stream, None)
}

/// Joins a session that is in progress or not yet persisted.
fn join<H: UserObjectHost>(
    decision: &mut Decision<'_, H>,
    command: &Command,
    id: Uuid,
    is_stream: bool,
    after: Option<EventId>,
) -> Admitted {
    let Some(generation) = decision.state.find(id).cloned() else {
        return Admitted::Rejected(Reply::NotFound);
    };
    let Some(run) = decision.run_or_persist(id, &command.credentials) else {
        return Admitted::Waits(Box::new(generation));
    };
    let subscription = is_stream.then(|| Subscription::to_run(generation.accepted.run, after, &run));
    Admitted::Runs(run, subscription, Box::new(generation))
}

/// Whether the session of a repeated delivery is in the database, with its end.
async fn is_in_database<H: UserObjectHost>(
    object: &UserObject<H>,
    command: &Command,
    id: Uuid,
) -> Result<bool, Failure> {
    let found = find(object.host(), &object.0.config, &command.credentials, id).await?;
    Ok(found.is_some_and(|row| row.status != GENERATING))
}

/// The reply with a session of the database.
async fn stored<H: UserObjectHost>(
    object: &UserObject<H>,
    command: &Command,
    generate: &Generate,
    id: Uuid,
    is_final: bool,
) -> Replied {
    let row = match find(object.host(), &object.0.config, &command.credentials, id).await {
        Ok(row) => row,
        Err(failure) => return Replied::bare(Reply::Failed(failure)),
    };
    // A failure that was never persisted, whose row may not exist.
    if row.as_ref().is_none_or(|row| row.status == GENERATING)
        && let Ok(Some(code)) = object.peek(|state| state.failure_of(id)).await
    {
        let failure = Failure { is_blocked: is_final, ..Failure::new(Cause::Generation(code)) };
        return Replied::bare(Reply::Failed(failure));
    }
    let Some(row) = row else { return Replied::bare(Reply::NotFound) };
    let session = SessionView { is_blocked: is_final, ..view_of(row) }; // the row does not say so
    let log = LogFields { session_id: Some(id), code: session.failure, ..LogFields::default() };
    in_mode(session, log, generate.mode, generate.after)
}

/// The reply with a session that does not run, or whose client does not wait.
fn in_mode(session: SessionView, log: LogFields, mode: ResponseMode, after: Option<EventId>) -> Replied {
    match mode {
        ResponseMode::Sync => match session.created() {
            Ok(document) => Replied::new(Reply::Session(document), log),
            Err(failure) => Replied::new(Reply::Failed(failure), log),
        },
        ResponseMode::Async => Replied::new(Reply::Accepted(session.document()), log),
        ResponseMode::Stream => Replied::subscribed(Subscription::to_ended(session, after), log),
    }
}
