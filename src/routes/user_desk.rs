//! A request at the user's desk: what the edge asks, answered inside the object.
//!
//! 1. What is unwritten gets the token that the owner brings.
//! 2. Count, and reserve, in one transaction.
//! 3. Start the generation. The object owns it, not this request.
//! 4. Wait for its end, as a reader of it, and answer.

use chrono::{DateTime, SecondsFormat, Utc};
use uuid::Uuid;

use super::new_id;
use super::read_session::GENERATING;
use crate::answer::documents::{Created, Session, to_json};
use crate::config::Config;
use crate::desk::ask::{Ask, Facts, Wish};
use crate::desk::record::{Accepted, Generation, Settled};
use crate::desk::{Chore, Desk, Effects, Event};
use crate::http::{Answer, JSON};
use crate::ports::{DeskHost, Fetch, StorageFailed, Timer};
use crate::problem::{Code, Problem};
use crate::quota::Refusal;
use crate::quota::headers::fields;
use crate::supabase::rest::Caller;
use crate::supabase::sessions;

/// What goes back to the edge, and what is left to do after it.
#[derive(Debug, Clone, PartialEq)]
pub struct Served {
    /// The caller's answer.
    pub answer: Answer,
    /// For the log.
    pub facts: Facts,
    /// The policies whose limit was reached and of which the event log has not been told in this window.
    pub limited: Vec<&'static str>,
}

/// Answers the edge.
pub async fn serve(host: &impl DeskHost, config: &Config, ask: &Ask) -> Served {
    let served = match &ask.wish {
        Wish::Count => count(host, config, ask),
        Wish::Generate { input_text, model, no_cache } => {
            let accepted = Accepted {
                id: new_id(host.now_ms(), host),
                user_id: ask.user_id,
                input_text: input_text.clone(),
                model: model.clone(),
                token: ask.token.clone(),
                token_expires_ms: ask.token_expires_ms,
                origin: ask.origin.clone(),
                traceparent: ask.traceparent.clone(),
                no_cache: *no_cache,
            };
            generate(host, config, ask, accepted).await
        }
        Wish::Read { id } => read(host, ask, *id).await,
    };
    served.unwrap_or_else(|StorageFailed| {
        refused(ask, &Problem::new(Code::RateLimiterUnavailable, "your limits cannot be checked now"))
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
    let mut served = match counted {
        Ok(()) => Served { answer: Answer::empty(204), facts: Facts::default(), limited: Vec::new() },
        Err(limited) => limited,
    };
    served.answer.headers.extend(headers);
    Ok(served)
}

async fn generate(
    host: &impl DeskHost,
    config: &Config,
    ask: &Ask,
    accepted: Accepted,
) -> Result<Served, StorageFailed> {
    let now_ms = host.now_ms();
    let policies = &config.rate_limit;
    let id = accepted.id;

    // (1) What is unwritten gets the token that the owner brings.
    write_with(host, ask, now_ms)?;

    // (2) Count, and reserve, in one transaction.
    let (admitted, headers) = host.with_desk(|desk| {
        let mut effects = Effects::default();
        let admitted = match desk.count(policies, now_ms) {
            Ok(counted) => {
                effects = counted;
                desk.admit(policies, accepted, config.model_api.timeout_ms, now_ms)
            }
            Err(refusal) => Err(desk.ledger.refusal_of_generation(refusal, policies, now_ms)),
        };
        let admitted = match admitted {
            Ok(more) => {
                effects = more;
                Ok(())
            }
            Err(refusal) => Err(limited(desk, &mut effects, config, ask, refusal, now_ms)),
        };
        ((admitted, fields(&desk.ledger, policies, now_ms)), effects)
    })?;
    if let Err(mut limited) = admitted {
        limited.answer.headers.extend(headers);
        return Ok(limited);
    }

    // (3) Start the generation.
    host.start(id);

    // (4) Wait for its end, and answer.
    let settled = host.settled(id).await;
    let now_ms = host.now_ms();
    let headers = host.with_desk(|desk| (fields(&desk.ledger, policies, now_ms), Effects::default()))?;
    let mut served = match settled {
        Some(settled) => tell(ask, &settled),
        None => refused(ask, &Problem::new(Code::Internal, "the generation was lost")),
    };
    served.answer.headers.extend(headers);
    Ok(served)
}

async fn read(host: &impl DeskHost, ask: &Ask, id: Uuid) -> Result<Served, StorageFailed> {
    write_with(host, ask, host.now_ms())?;
    let find = |desk: &mut Desk| (desk.find(id).cloned(), Effects::default());
    let Some(generation) = host.with_desk(find)? else {
        return Ok(refused(ask, &super::no_session()));
    };
    if generation.ending.is_none() {
        let answer = session_answer(&generation).with("retry-after", RUNNING_RETRY_AFTER_S);
        return Ok(Served { answer, facts: facts_of(&generation), limited: Vec::new() });
    }
    let generation = match host.settled(id).await {
        Some(settled) => settled.generation.clone(),
        None => generation,
    };
    Ok(Served { answer: session_answer(&generation), facts: facts_of(&generation), limited: Vec::new() })
}

/// While it runs: most generations take 5 to 20 s.
const RUNNING_RETRY_AFTER_S: &str = "2";

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

/// The owner is here: everything that is unwritten is written with the token that came along.
fn write_with(host: &impl DeskHost, ask: &Ask, now_ms: u64) -> Result<(), StorageFailed> {
    let to_write = host.with_desk(|desk| {
        (desk.owner_is_here(&ask.token, ask.token_expires_ms, now_ms), Effects::default())
    })?;
    for id in to_write {
        if !host.is_busy(id) {
            host.start(id);
        }
    }
    Ok(())
}

fn limited(
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
    Served { limited, ..refused(ask, &problem) }
}

fn refused(ask: &Ask, problem: &Problem) -> Served {
    let facts = Facts { code: Some(problem.code), ..Facts::default() };
    Served { answer: problem.to_answer(&ask.origin, &ask.request_id), facts, limited: Vec::new() }
}

/// A settled generation, in the plain form.
fn tell(ask: &Ask, settled: &Settled) -> Served {
    let generation = &settled.generation;
    let mut facts = facts_of(generation);
    facts.database_ms = Some(settled.database_ms);
    let code = match &generation.ending {
        Some(ending) if ending.code.is_some() => ending.code,
        Some(_) if settled.written => None,
        _ => Some(Code::DatabaseError),
    };
    if let Some(code) = code {
        facts.code = Some(code);
        let is_kept = generation.ending.as_ref().is_some_and(|ending| ending.code.is_none());
        let detail = if is_kept { KEPT } else { detail_of(code) };
        let mut problem = Problem::new(code, detail);
        problem.retry_after_s = generation.ending.as_ref().and_then(|ending| ending.retry_after_s);
        return Served { facts, ..refused(ask, &problem) };
    }
    let document = Created {
        id: generation.accepted.id,
        partial: generation.ending.as_ref().is_some_and(|ending| ending.partial),
        candidates: &generation.candidates,
    };
    let answer = Answer::new(201, JSON, to_json(&document))
        .with("cache-control", "no-store")
        .with("location", ["/ai-sessions/", &generation.accepted.id.to_string()].concat());
    let answer = match generation.ending.as_ref().and_then(|ending| ending.was_reused) {
        Some(true) => answer.with("cache-status", "OpenRouter; hit"),
        Some(false) => answer.with("cache-status", "OpenRouter; fwd=miss"),
        None => answer,
    };
    Served { answer, facts, limited: Vec::new() }
}

/// What it means when there are cards, and the database does not take them.
const KEPT: &str = "the session cannot be stored now; what was generated is kept and will be there later";

/// What a failure means for the person who asked.
const fn detail_of(code: Code) -> &'static str {
    match code {
        Code::AiUnavailable => "the model cannot be reached now; nothing was counted, try again later",
        Code::AiTimeout => "the model did not answer in time; nothing was counted, try again",
        Code::AiInvalidResponse => "the model gave no usable flashcard; nothing was counted, try again",
        Code::AiRefused => "the model refuses this text; change the text",
        Code::AiMisconfigured => "the model API refuses this service; its operator has to act",
        Code::DatabaseError => {
            "the session could not be stored now; what was generated is kept and stored later"
        }
        _ => "the generation did not succeed",
    }
}

fn facts_of(generation: &Generation) -> Facts {
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

/// `GET /ai-sessions/{id}` for what the database does not have yet.
fn session_answer(generation: &Generation) -> Answer {
    let ending = generation.ending.as_ref();
    let ended_at = ending.map(|ending| rfc3339(ending.ended_ms));
    let document = Session {
        id: generation.accepted.id,
        status: match ending {
            None => GENERATING,
            Some(ending) if ending.code.is_some() => "failed",
            Some(_) => "completed",
        },
        model: &generation.accepted.model,
        partial: ending.is_some_and(|ending| ending.partial),
        error: ending.and_then(|ending| ending.code).map(Code::name),
        created_at: &rfc3339(generation.started_ms),
        ended_at: ended_at.as_deref(),
        usage: ending.and_then(|ending| ending.usage),
        candidates: if ending.is_some() { &generation.candidates } else { &[] },
    };
    Answer::new(200, JSON, to_json(&document)).with("cache-control", "no-store")
}

/// RFC 3339, UTC, with milliseconds.
pub(super) fn rfc3339(ms: u64) -> String {
    let at = i64::try_from(ms).ok().and_then(DateTime::<Utc>::from_timestamp_millis).unwrap_or_default();
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}
