//! The model call: attempts inside a deadline, each card told the moment it is complete.
//!
//! ```text
//! attempt ──► head, within the silence that is borne ──► pieces ──► cards … closed ──► usage, a little longer
//!    ▲                                                                │
//!    └── backoff ◄── failed, without a card, and may be tried again ◄─┘
//! ```
//! An answer that broke off after a card is kept as it is, and never asked for again: the caller may have
//! seen the card.
//!
//! Not for: sessions, the desk, the database.

use std::pin::pin;

use super::failure::Failure;
use super::request::{ModelRequest, allows_reuse, build};
use super::response_reader::{End, Outcome, Remaining, ResponseReader};
use crate::config::ModelApi;
use crate::generation::candidate::{Candidate, Candidates, Found};
use crate::generation::candidate_reader::OnFound;
use crate::generation::retry;
use crate::generation::usage::Usage;
use crate::ports::alarm::Alarm;
use crate::ports::{Body, Clock, Fetch, Head, Incoming, Random, Timer, Unreachable};
use crate::problem::Code;

/// How long the connection is listened to when the cards are complete, in milliseconds. The usage comes right
/// after them; a server that never ends its stream must not keep the caller from cards that are there.
pub const REST_MS: u64 = 2_000;
/// How long a bite may take to fill. Then what there is of it is taken, and single pieces for a while: a stream of comments
/// alone is alive, a card must not wait for long to be stored, and who begins to follow must not wait for the next one.
pub const BITE_MS: u64 = 250;
/// One that fills within so many milliseconds is followed by a larger one.
const FAST_MS: u64 = BITE_MS / 4;
/// The first bite of more than a piece: less than that is not worth the copy that a host keeps for it.
const BITE_BYTES_MIN: usize = 1024;
/// The largest bite.
const BITE_BYTES_MAX: usize = 16 * 1024;
/// What a caller is told to wait after the model API's 429 that does not say how long, in seconds.
const RATE_LIMIT_S: u64 = 10;

/// What happens while a call goes on.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// An attempt begins; its number, from 1, those before a restart included.
    Attempt(u32),
    /// A card is complete and valid.
    Candidate(&'a Candidate),
}

/// An answer that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The answer was closed.
    Whole,
    /// It broke off; the complete cards in it were kept.
    Partial,
}

/// What a call came to.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// How much of an answer there is (at least one candidate), or what the caller is told instead.
    pub outcome: Result<Extent, Code>,
    /// In the order in which they came; at most the deployment's maximum.
    pub candidates: Vec<Candidate>,
    /// Cards that did not hold to the contract, over all attempts.
    pub dropped: u32,
    /// Over all attempts; `None` when none told.
    pub usage: Option<Usage>,
    /// The model that served last, as the API names it.
    pub model: Option<String>,
    /// The last generation's id at the model API.
    pub generation_id: Option<String>,
    /// Whether the answer was one that was given before; `None` when that was not asked for, or not told.
    pub was_reused: Option<bool>,
    /// Attempts, those before a restart included.
    pub attempts: u32,
    /// Whole seconds after which it is worth another try; only with a code that can be tried again.
    pub retry_after_s: Option<u64>,
    /// For the log: what went wrong last, as in `rate_limit_exceeded 429`; empty when nothing did. Holds no
    /// text of the other side.
    pub operator_note: String,
}

/// Asks the model. Ends at `ask.deadline_ms` at the latest.
pub async fn call<H>(
    host: &H,
    settings: &ModelApi,
    ask: &ModelRequest<'_>,
    mut on_progress: impl FnMut(Progress<'_>),
) -> Answer
where
    H: Fetch + Timer + Clock + Random,
{
    let mut candidates = Candidates::new(settings.candidates_max);
    let mut answer = Answer {
        outcome: Ok(Extent::Whole),
        candidates: Vec::new(),
        dropped: 0,
        usage: None,
        model: None,
        generation_id: None,
        was_reused: None,
        attempts: ask.attempts_made,
        retry_after_s: None,
        operator_note: String::new(),
    };
    let mut failure = None;
    let mut wait_ms = None;
    loop {
        if host.now_ms() >= ask.deadline_ms {
            failure = Some(Failure::DEADLINE);
            break;
        }
        let next = answer.attempts.saturating_add(1);
        if let Some(wait_ms) = wait_ms {
            // Nobody waits for an attempt that is forbidden; one that is stopped in its backoff is not counted.
            if !(ask.has_call_left)() {
                break;
            }
            host.sleep(wait_ms).await;
        }
        if next > settings.attempts_max || !(ask.may_call)(next) {
            failure = failure.or(Some(Failure::NO_ATTEMPT_LEFT));
            break;
        }
        answer.attempts = next;
        on_progress(Progress::Attempt(answer.attempts));
        let mut take = |found: Found| {
            candidates.take(found).map(|candidate| on_progress(Progress::Candidate(candidate))).is_ok()
        };
        let (ended, was_reused) = attempt(host, settings, ask, failure.is_none(), &mut take).await;
        answer.usage = match (answer.usage, ended.usage) {
            (Some(before), Some(now)) => Some(before.plus(now)),
            (before, now) => now.or(before),
        };
        answer.model = ended.model.or(answer.model);
        answer.generation_id = ended.id.or(answer.generation_id);
        answer.was_reused = was_reused;
        failure = ended.failure;
        let Some(failed) = failure.filter(|failed| failed.may_retry && candidates.is_empty()) else { break };
        let failed = retry::Failed {
            attempts: answer.attempts,
            attempts_max: settings.attempts_max,
            now_ms: host.now_ms(),
            deadline_ms: ask.deadline_ms,
            retry_after_s: failed.retry_after_s,
        };
        wait_ms = retry::wait_ms(failed, host.random_bits());
        if wait_ms.is_none() {
            break;
        }
    }
    if let Some(failure) = failure {
        answer.operator_note = failure.note();
        answer.outcome = if candidates.is_empty() { Err(failure.code) } else { Ok(Extent::Partial) };
        if candidates.is_empty() && failure.code.retryable() == Some(true) {
            answer.retry_after_s = failure.retry_after_s.or(failure.is_rate_limit().then_some(RATE_LIMIT_S));
        }
    }
    answer.dropped = candidates.dropped_count();
    answer.candidates = candidates.into_list();
    answer
}

/// One attempt, and whether its answer was one that was given before.
async fn attempt<H>(
    host: &H,
    settings: &ModelApi,
    ask: &ModelRequest<'_>,
    is_first: bool,
    take: &mut OnFound<'_>,
) -> (Outcome, Option<bool>)
where
    H: Fetch + Timer + Clock,
{
    let mut alarm = Alarm::new(host);
    let silent_ms = host.now_ms().saturating_add(settings.idle_timeout_ms);
    let due_ms = silent_ms.min(ask.deadline_ms);
    let head = alarm.until(due_ms, pin!(host.fetch(build(settings, ask, is_first)))).await;
    let mut incoming = match head {
        Some(Ok(incoming)) => incoming,
        Some(Err(Unreachable)) => return (Outcome::without_response(Failure::UNREACHABLE), None),
        None if host.now_ms() >= ask.deadline_ms => {
            return (Outcome::without_response(Failure::DEADLINE), None);
        }
        None => return (Outcome::without_response(Failure::IDLE_TIMEOUT), None),
    };
    let content_type = incoming.header("content-type").unwrap_or_default();
    let retry_after = incoming.header("retry-after");
    let was_reused = (is_first && allows_reuse(settings, ask))
        .then(|| incoming.header("x-openrouter-cache-status"))
        .flatten()
        .map(|status| status.eq_ignore_ascii_case("hit"));
    let mut reading = ResponseReader::new(incoming.status(), &content_type, retry_after.as_deref());
    let end = read(host, settings, ask, &mut alarm, &mut incoming, &mut reading, take).await;
    let mut ended = reading.end(end, take);
    if ended.id.is_none() {
        // An error, or an answer that broke off before its first chunk.
        ended.id = incoming.header("x-generation-id").filter(|id| is_id(id));
    }
    drop(incoming); // closes the connection: nothing more is billed
    (ended, was_reused)
}

/// As in a chunk: what a log can hold.
fn is_id(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Reads until nothing more is wanted, or until the time is over: for the whole, for silence, for the rest.
async fn read<H: Timer + Clock>(
    host: &H,
    settings: &ModelApi,
    ask: &ModelRequest<'_>,
    alarm: &mut Alarm<'_, H>,
    body: &mut impl Body,
    reading: &mut ResponseReader,
    take: &mut OnFound<'_>,
) -> End {
    let mut now_ms = host.now_ms();
    let mut heard_ms = now_ms;
    let mut rest_until_ms = u64::MAX;
    let mut wanted_bytes = 1;
    loop {
        match reading.remaining() {
            // More content followed an apparent end.
            Remaining::Candidates => rest_until_ms = u64::MAX,
            Remaining::Tail => {
                rest_until_ms = rest_until_ms.min(now_ms.saturating_add(REST_MS));
                wanted_bytes = 1; // the end of the stream may never come: take what is there
            }
            Remaining::Nothing => return End::Regular,
        }
        let silent_ms = heard_ms.saturating_add(settings.idle_timeout_ms);
        if now_ms >= rest_until_ms {
            return End::Regular;
        }
        if now_ms >= ask.deadline_ms {
            return End::Deadline;
        }
        if now_ms >= silent_ms {
            return End::IdleTimeout;
        }
        let bite_max = (ask.batch_bytes)().max(1);
        let due_ms = rest_until_ms.min(ask.deadline_ms).min(silent_ms);
        // So near the end of the time no bite is begun: what had come of it would be lost with it, and count as silence.
        let is_late = due_ms.saturating_sub(now_ms) <= BITE_MS.saturating_mul(2);
        let bite_bytes = if is_late { 1 } else { wanted_bytes.min(bite_max) };
        let due_ms = if bite_bytes > 1 { due_ms.min(now_ms.saturating_add(BITE_MS)) } else { due_ms };
        let began_ms = now_ms;
        let piece = alarm.until(due_ms, pin!(body.next(bite_bytes))).await;
        now_ms = host.now_ms();
        wanted_bytes = match &piece {
            // Pieces that come fast are worth a bite of many, a bite that fills fast a larger one. Not more at once: what had
            // come of a bite that did not fill comes fast, too.
            Some(_) if now_ms.saturating_sub(began_ms) < FAST_MS => {
                wanted_bytes.saturating_mul(4).clamp(BITE_BYTES_MIN, BITE_BYTES_MAX)
            }
            Some(_) if bite_bytes > 1 => wanted_bytes,
            _ => 1,
        };
        match piece {
            Some(Ok(Some(piece))) => {
                heard_ms = now_ms;
                reading.push(&piece, take);
            }
            Some(Ok(None)) => return End::Regular,
            Some(Err(Unreachable)) => return End::Cut,
            None => {}
        }
    }
}
