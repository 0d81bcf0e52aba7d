//! A request at the user's desk: what the edge asks, answered inside the object. What lies on the desk is seen to first:
//! what nobody runs any more is taken up, what is unwritten gets the token that the owner brings.

use uuid::Uuid;

use super::admission::generate;
use super::generate::log_abandoned;
use super::rate_limited;
use super::session_events::{Follow, stored_stream, stream_head};
use super::stop_session::{is_since, not_running};
use crate::answer::events::Position;
use crate::answer::form::Form;
use crate::answer::session::Known;
use crate::auth::Refused;
use crate::config::Config;
use crate::http::Answer;
use crate::ports::{Clock, DeskHost, Fetch, Log, StorageFailed, Timer};
use crate::problem::{Code, Problem};
use crate::quota::Refusal;
use crate::quota::headers::fields;
use crate::supabase::rest::Caller;
use crate::supabase::sessions;
use crate::user_state::ask::{Ask, LogFields, Wish};
use crate::user_state::record::Generation;
use crate::user_state::{Event, Job, UserState, WriteSet};

/// All that the desk may touch.
pub trait ServeHost: DeskHost + Fetch + Timer + Clock + Log {}
impl<H: DeskHost + Fetch + Timer + Clock + Log> ServeHost for H {}

/// What goes back to the edge, and what is left to do after it.
#[derive(Debug, Clone, PartialEq)]
pub struct Served {
    /// The caller's answer.
    pub answer: Answer,
    /// Present: its body is the events of this generation, as they come.
    pub follow: Option<Follow>,
    /// For the log.
    pub facts: LogFields,
    /// The policies whose limit was reached and of which the event log has not been told in this window.
    pub limited: Vec<&'static str>,
}

impl Served {
    pub(super) const fn whole(answer: Answer, facts: LogFields) -> Self {
        Self { answer, follow: None, facts, limited: Vec::new() }
    }

    /// The events of a generation that is on the desk.
    pub(super) fn stream(ask: &Ask, generation: &Generation, after: Option<Position>) -> Self {
        let follow = Follow {
            id: generation.accepted.id,
            run: generation.accepted.run,
            after,
            origin: ask.origin.clone(),
            request_id: ask.request_id.clone(),
        };
        let head = stream_head(&Known::on_desk(generation, false));
        Self { follow: Some(follow), ..Self::whole(head, facts_of(generation)) }
    }

    pub(super) fn with(mut self, headers: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        self.answer.headers.extend(headers);
        self
    }

    /// An error.
    pub(super) fn refused(ask: &Ask, problem: &Problem) -> Self {
        let facts = LogFields { code: Some(problem.code), ..LogFields::default() };
        Self::whole(problem.to_answer(&ask.origin, &ask.request_id), facts)
    }
}

/// Answers the edge.
pub async fn serve(host: &impl ServeHost, config: &Config, ask: &Ask) -> Served {
    let now_ms = host.now_ms();
    let served = match &ask.wish {
        _ if host.with_desk(|desk| (desk.is_rejected(now_ms), WriteSet::default())) == Ok(true) => {
            Ok(Served::refused(ask, &Refused::Invalid.to_problem()))
        }
        Wish::Count => count(host, config, ask),
        Wish::Generate(wanted) => generate(host, config, ask, wanted).await,
        Wish::Read { id } => read(host, config, ask, *id).await,
        Wish::Follow { id, after } => follow(host, config, ask, *id, *after),
        Wish::Stop { id } => stop(host, config, ask, *id).await,
    };
    served.unwrap_or_else(|StorageFailed| {
        Served::refused(ask, &Problem::new(Code::RateLimiterUnavailable, "your limits cannot be checked now"))
    })
}

fn count(host: &impl DeskHost, config: &Config, ask: &Ask) -> Result<Served, StorageFailed> {
    let now_ms = host.now_ms();
    let policies = &config.rate_limit;
    let (counted, headers) = host.with_desk(|desk| {
        let mut effects = WriteSet::default();
        let counted = desk.count(policies, now_ms).map(|counted| effects = counted);
        let counted = counted.map_err(|refusal| limited(desk, &mut effects, config, ask, refusal, now_ms));
        ((counted, fields(&desk.ledger, policies, now_ms)), effects)
    })?;
    let served = match counted {
        Ok(()) => Served::whole(Answer::empty(204), LogFields::default()),
        Err(limited) => limited,
    };
    Ok(served.with(headers))
}

async fn read(host: &impl DeskHost, config: &Config, ask: &Ask, id: Uuid) -> Result<Served, StorageFailed> {
    see_to_all(host, config, ask, Some(id))?;
    let Some(generation) = on_desk(host, id)? else { return Ok(no_session(ask)) };
    // One that has ended is being written now.
    let settled = if generation.ending.is_some() { host.settled(id).await } else { None };
    let generation = settled.map_or(generation, |settled| settled.generation.clone());
    Ok(Served::whole(Known::on_desk(&generation, false).document(200), facts_of(&generation)))
}

fn follow(
    host: &impl DeskHost,
    config: &Config,
    ask: &Ask,
    id: Uuid,
    after: Option<Position>,
) -> Result<Served, StorageFailed> {
    see_to_all(host, config, ask, Some(id))?;
    let Some(generation) = on_desk(host, id)? else { return Ok(no_session(ask)) };
    if !may_subscribe(host, id) {
        return Ok(Served::refused(ask, &too_many_subscribers()));
    }
    Ok(if write_if_idle(host, id)? {
        Served::stream(ask, &generation, after)
    } else {
        not_persisted(ask, &generation, Form::Stream, after)
    })
}

/// A session that has ended, that nobody writes now and that can wait for no longer: its response says that it is not
/// persisted yet.
pub(super) fn not_persisted(
    ask: &Ask,
    generation: &Generation,
    form: Form,
    after: Option<Position>,
) -> Served {
    in_form(ask, &Known::on_desk(generation, false), facts_of(generation), form, after)
}

/// A session that does not run, in the form that is wanted.
pub(super) fn in_form(
    ask: &Ask,
    session: &Known<'_>,
    facts: LogFields,
    form: Form,
    after: Option<Position>,
) -> Served {
    match form {
        Form::Plain => told(ask, session, facts),
        Form::Later => Served::whole(session.later(), facts),
        Form::Stream => Served::whole(stored_stream(session, after, &ask.origin, &ask.request_id), facts),
    }
}

/// The response to a client that waited for the end.
pub(super) fn told(ask: &Ask, session: &Known<'_>, facts: LogFields) -> Served {
    match session.created() {
        Ok(answer) => Served::whole(answer, facts),
        Err(problem) => {
            let facts = LogFields { code: Some(problem.code), ..facts };
            Served::whole(problem.to_answer(&ask.origin, &ask.request_id), facts)
        }
    }
}

fn too_many_subscribers() -> Problem {
    rate_limited(&Refusal::by_concurrent())
}

async fn stop(host: &impl DeskHost, config: &Config, ask: &Ask, id: Uuid) -> Result<Served, StorageFailed> {
    see_to_all(host, config, ask, Some(id))?;
    let Some(generation) = on_desk(host, id)? else { return Ok(no_session(ask)) };
    if let Some(ending) = &generation.ending {
        let is_ours = ask.is_repeated && is_since(ask.began_ms, ending.ended_ms);
        let told = if is_ours {
            Served::whole(Answer::empty(204), facts_of(&generation))
        } else {
            Served::refused(ask, &not_running())
        };
        return Ok(told);
    }
    host.stop(id);
    // Who reads the session next shall find it ended.
    host.settled(id).await;
    Ok(Served::whole(Answer::empty(204), facts_of(&generation)))
}

pub(super) fn on_desk(host: &impl DeskHost, id: Uuid) -> Result<Option<Generation>, StorageFailed> {
    host.with_desk(|desk| (desk.find(id).cloned(), WriteSet::default()))
}

/// Makes sure that somebody is busy with a generation before a client waits for it. Nobody is when it is not written yet and
/// every token for it has ended, that of its reader by less than what clocks may differ by: the database may still take that
/// one. Whether somebody is busy with it now: no more than two are written at a time.
pub(super) fn write_if_idle(host: &impl DeskHost, id: Uuid) -> Result<bool, StorageFailed> {
    let is_busy = host.is_busy(id);
    let may_start = || host.with_desk(|desk| (desk.writes_left(|id| host.is_busy(id)), WriteSet::default()));
    if is_busy || may_start()? == 0 {
        return Ok(is_busy);
    }
    host.start(id);
    Ok(true)
}

/// At most so many streams follow one generation: each holds a connection and its place in the list. A learner has a tab or
/// two, and a broken line that is not noticed yet. Clients that wait for the end without a stream come with a `POST` each, so
/// `burst` bounds them.
const SUBSCRIBERS_PER_SESSION_MAX: usize = 8;
/// At most so many of one user.
const SUBSCRIBERS_PER_USER_MAX: usize = 32;

/// Whether one more stream may follow that generation.
pub(super) fn may_subscribe(host: &impl DeskHost, id: Uuid) -> bool {
    host.subscribers(Some(id)) < SUBSCRIBERS_PER_SESSION_MAX
        && host.subscribers(None) < SUBSCRIBERS_PER_USER_MAX
}

pub(super) fn no_session(ask: &Ask) -> Served {
    Served::refused(ask, &super::no_session())
}

/// What the alarm sees to.
///
/// # Errors
/// [`StorageFailed`]; the alarm is repeated then.
pub fn wake(host: &impl DeskHost, config: &Config) -> Result<(), StorageFailed> {
    let now_ms = host.now_ms();
    let due_jobs = host.with_desk(|desk| {
        if desk.is_idle(now_ms) {
            return (Vec::new(), desk.clear());
        }
        (desk.due_jobs(|id| host.is_busy(id), None, now_ms), WriteSet::default())
    })?;
    see_to(host, config, due_jobs, now_ms)
}

fn see_to(
    host: &impl DeskHost,
    config: &Config,
    due_jobs: Vec<Job>,
    now_ms: u64,
) -> Result<(), StorageFailed> {
    for job in due_jobs {
        match job {
            Job::Resume(id) => {
                host.with_desk(|desk| {
                    let attempts_max = config.model_api.attempts_max;
                    let ending =
                        desk.find(id).and_then(|found| UserState::resume(found, attempts_max, now_ms));
                    ((), desk.advance(id, ending.map_or(Event::Resumed, Event::Ended), now_ms))
                })?;
                host.start(id);
            }
            Job::Write(id) => host.start(id),
            Job::Abandon(id) => {
                host.with_desk(|desk| ((), desk.abandon(id)))?;
                log_abandoned(host, id);
            }
        }
    }
    Ok(())
}

/// Tells the event log that a limit was reached; after the answer, because nobody waits for it. It is worth one
/// attempt: what it tells is not what anybody pays for.
pub async fn tell_limited(host: &(impl Fetch + Timer), config: &Config, ask: &Ask, limited: &[&'static str]) {
    let caller = Caller { token: &ask.token, traceparent: ask.traceparent.as_deref() };
    for policy in limited {
        let _ = sessions::log_rate_limited(host, &config.supabase, caller, policy).await;
    }
}

/// Runs what is due, now that the owner is here and brings a token. The session that the owner names comes first.
pub(super) fn see_to_all(
    host: &impl DeskHost,
    config: &Config,
    ask: &Ask,
    named: Option<Uuid>,
) -> Result<(), StorageFailed> {
    see_to_others(host, config, ask, named, None)
}

/// The same, but for one.
pub(super) fn see_to_others(
    host: &impl DeskHost,
    config: &Config,
    ask: &Ask,
    named: Option<Uuid>,
    one: Option<Uuid>,
) -> Result<(), StorageFailed> {
    let now_ms = host.now_ms();
    let due_jobs = host.with_desk(|desk| {
        desk.use_credentials(&ask.token, ask.token_expires_ms, named, now_ms);
        let mut due_jobs = desk.due_jobs(|id| host.is_busy(id), named, now_ms);
        due_jobs.retain(|job| one.is_none_or(|one| !job.is_of(one)));
        (due_jobs, WriteSet::default())
    })?;
    see_to(host, config, due_jobs, now_ms)
}

pub(super) fn limited(
    desk: &mut UserState,
    effects: &mut WriteSet,
    config: &Config,
    ask: &Ask,
    refusal: Refusal,
    now_ms: u64,
) -> Served {
    let problem = rate_limited(&refusal);
    let limited = desk.limits_to_log(&config.rate_limit, &refusal, now_ms);
    // What the event log was told has to outlive the object, else it is told again in the same window.
    effects.ledger |= !limited.is_empty();
    Served { limited, ..Served::refused(ask, &problem) }
}

pub(super) fn facts_of(generation: &Generation) -> LogFields {
    let ending = generation.ending.as_ref();
    LogFields {
        code: ending.and_then(|ending| ending.code),
        session_id: Some(generation.accepted.id),
        model: Some(generation.accepted.model.clone()),
        attempts: ending.map(|ending| ending.attempts),
        usage: ending.and_then(|ending| ending.usage),
        model_ms: ending.map(|ending| ending.ended_ms.saturating_sub(generation.started_ms)),
        database_ms: None,
    }
}
