//! A request at the user's desk: what the edge asks, answered inside the object. What lies on the desk is seen to first:
//! what nobody runs any more is taken up, what is unwritten gets the token that the owner brings.

use uuid::Uuid;

use super::admission::generate;
use super::session_events::{Follow, stream_head};
use super::stop_session::{is_since, not_running};
use crate::answer::events::Position;
use crate::answer::session::Known;
use crate::config::Config;
use crate::desk::ask::{Ask, Facts, Wish};
use crate::desk::record::Generation;
use crate::desk::{Chore, Desk, Effects, Event};
use crate::http::Answer;
use crate::ports::{Clock, DeskHost, Fetch, Log, StorageFailed, Timer};
use crate::problem::{Code, Problem};
use crate::quota::Refusal;
use crate::quota::headers::fields;
use crate::supabase::rest::Caller;
use crate::supabase::sessions;

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
    pub facts: Facts,
    /// The policies whose limit was reached and of which the event log has not been told in this window.
    pub limited: Vec<&'static str>,
}

impl Served {
    pub(super) const fn whole(answer: Answer, facts: Facts) -> Self {
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
        let facts = Facts { code: Some(problem.code), ..Facts::default() };
        Self::whole(problem.to_answer(&ask.origin, &ask.request_id), facts)
    }
}

/// Answers the edge.
pub async fn serve(host: &impl ServeHost, config: &Config, ask: &Ask) -> Served {
    let served = match &ask.wish {
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
        let mut effects = Effects::default();
        let counted = desk.count(policies, now_ms).map(|counted| effects = counted);
        let counted = counted.map_err(|refusal| limited(desk, &mut effects, config, ask, refusal, now_ms));
        ((counted, fields(&desk.ledger, policies, now_ms)), effects)
    })?;
    let served = match counted {
        Ok(()) => Served::whole(Answer::empty(204), Facts::default()),
        Err(limited) => limited,
    };
    Ok(served.with(headers))
}

async fn read(host: &impl DeskHost, config: &Config, ask: &Ask, id: Uuid) -> Result<Served, StorageFailed> {
    see_to_all(host, config, ask)?;
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
    see_to_all(host, config, ask)?;
    let Some(generation) = on_desk(host, id)? else { return Ok(no_session(ask)) };
    write_if_idle(host, id);
    Ok(Served::stream(ask, &generation, after))
}

async fn stop(host: &impl DeskHost, config: &Config, ask: &Ask, id: Uuid) -> Result<Served, StorageFailed> {
    see_to_all(host, config, ask)?;
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
    host.with_desk(|desk| (desk.find(id).cloned(), Effects::default()))
}

/// Somebody is about to wait for it, so somebody has to be busy with it. Nobody is when it is unwritten and every token
/// for it has ended, that of its reader by less than what clocks may differ by: the database may still take that one.
pub(super) fn write_if_idle(host: &impl DeskHost, id: Uuid) {
    if !host.is_busy(id) {
        host.start(id);
    }
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
    let chores = host.with_desk(|desk| {
        if desk.is_idle(now_ms) {
            return (Vec::new(), desk.clear());
        }
        (desk.chores(|id| host.is_busy(id), now_ms), Effects::default())
    })?;
    see_to(host, config, chores, now_ms)
}

fn see_to(
    host: &impl DeskHost,
    config: &Config,
    chores: Vec<Chore>,
    now_ms: u64,
) -> Result<(), StorageFailed> {
    for chore in chores {
        match chore {
            Chore::TakeUp(id) => {
                host.with_desk(|desk| {
                    let attempts_max = config.model_api.attempts_max;
                    let ending = desk.find(id).and_then(|found| Desk::taken_up(found, attempts_max, now_ms));
                    ((), desk.advance(id, ending.map_or(Event::TakenUp, Event::Ended), now_ms))
                })?;
                host.start(id);
            }
            Chore::Write(id) => host.start(id),
            Chore::GiveUp(id) => {
                host.with_desk(|desk| ((), desk.advance(id, Event::Written, now_ms)))?;
                let line =
                    [r#"{"level":"error","message":"given up","session_id":""#, &id.to_string(), r#""}"#];
                host.log(crate::config::LogLevel::Error, &line.concat());
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

/// The owner is here, and brings a token: whatever nobody sees to is seen to now, not at the next alarm.
pub(super) fn see_to_all(host: &impl DeskHost, config: &Config, ask: &Ask) -> Result<(), StorageFailed> {
    see_to_others(host, config, ask, None)
}

/// The same, but for one.
pub(super) fn see_to_others(
    host: &impl DeskHost,
    config: &Config,
    ask: &Ask,
    one: Option<Uuid>,
) -> Result<(), StorageFailed> {
    let now_ms = host.now_ms();
    let chores = host.with_desk(|desk| {
        desk.owner_is_here(&ask.token, ask.token_expires_ms, now_ms);
        (desk.chores(|id| one == Some(id) || host.is_busy(id), now_ms), Effects::default())
    })?;
    see_to(host, config, chores, now_ms)
}

pub(super) fn limited(
    desk: &mut Desk,
    effects: &mut Effects,
    config: &Config,
    ask: &Ask,
    refusal: Refusal,
    now_ms: u64,
) -> Served {
    let mut problem = Problem::new(
        Code::RateLimited,
        ["the limit of ", &refusal.violated.join(" and of "), " is reached; see Retry-After"].concat(),
    );
    problem.retry_after_s = Some(refusal.retry_after_s);
    let limited = desk.to_tell_limited(&config.rate_limit, &refusal, now_ms);
    // What the event log was told has to outlive the object, else it is told again in the same window.
    effects.ledger |= !limited.is_empty();
    problem.violated_policies = refusal.violated;
    Served { limited, ..Served::refused(ask, &problem) }
}

pub(super) fn facts_of(generation: &Generation) -> Facts {
    let ending = generation.ending.as_ref();
    Facts {
        code: ending.and_then(|ending| ending.code),
        session_id: Some(generation.accepted.id),
        model: Some(generation.accepted.model.clone()),
        attempts: ending.map(|ending| ending.attempts),
        usage: ending.and_then(|ending| ending.usage),
        model_ms: ending.map(|ending| ending.ended_ms.saturating_sub(generation.started_ms)),
        database_ms: None,
    }
}
