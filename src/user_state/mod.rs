//! A user's state: what one user has used, which generations run, and what of them is not yet in the database. One
//! Durable Object holds one state, so every decision here is made by one place, one at a time.
//!
//! ```text
//!            admit                    advance(Ended)                advance(Written)
//!  request ────────► Running ─────────────────────────► Unwritten ────────────────────► forgotten
//!                       ▲  candidates, opened               │  ▲
//!                       └── wake: taken up after a death    └──┘ wake: written again
//! ```
//! Pure: load → decide → store. Each function changes the state and says in [`WriteSet`] what has to be stored in the
//! same transaction. Not for: the order of things in a request (`edge::user_desk`), the storage (`cloudflare`).

pub mod ask;
pub mod idempotency;
pub mod record;

use uuid::Uuid;

use crate::auth::claims::LEEWAY_S;
use crate::problem::Code;
use crate::quota::{ATTEMPTS, BURST, CONCURRENT, GENERATIONS, Ledger, Policies, Refusal};
use idempotency::{IdempotencyRecord, Key, Outcome};
use record::{Accepted, Ending, Generation, Row, SessionCandidate};

/// An object that has no request is evicted after 70 to 140 s even while a fetch is pending, and one that died is
/// woken by its next alarm: this is how long a generation lies untouched after a death. Every alarm is a billed
/// request, so not much shorter.
pub const HEARTBEAT_MS: u64 = 10_000;
/// What was paid for and could not be written is kept for this long.
pub const KEEP_NOT_PERSISTED_MS: u64 = 24 * 60 * 60 * 1000;
/// A failure without a candidate that could not be written is kept for this long: nothing in it was paid for by the user,
/// and the owner's next GET ends its row.
pub const KEEP_FAILURE_MS: u64 = 10 * 60 * 1000;
/// No alarm is set sooner than this from now. A decision that finds nothing to do then costs an alarm a second at most, and
/// the alarm that is running now is never set again to its own time (workerd deletes it when its handler ends).
pub const ALARM_MIN_MS: u64 = 1_000;
/// How many ended generations of one user may wait to be written. More of them are rows that the database keeps refusing,
/// and each holds its candidates in memory.
pub const NOT_PERSISTED_MAX: usize = 20;
/// How many of them are written at a time.
const WRITES_MAX: usize = 2;
/// How often a write is tried that the database refuses for good: once more than a race with the owner's own writes needs.
const REFUSALS_MAX: u32 = 3;
/// Between two attempts to write: doubles from the first to the second.
const REWRITE_MS: std::ops::RangeInclusive<u64> = 2_000..=300_000;
/// Less than this before the deadline, a model is not asked again after a death.
const LEAST_FOR_A_CALL_MS: u64 = 1_000;
/// A lease ends by itself this long after the deadline, in case that nobody gives it back.
const LEASE_GRACE_MS: u64 = 30_000;

/// One user's state.
#[derive(Debug, Default)]
pub struct UserState {
    /// What was used.
    pub ledger: Ledger,
    /// INVARIANT: in the order of their acceptance; each is either running (no ending) or unwritten.
    pub generations: Vec<Generation>,
    /// When the event log was last told of each policy's limit: one entry a policy.
    pub logged_limits: Vec<(String, u64)>,
    /// INVARIANT: at most one that holds for a key; at most one for a session.
    pub records: Vec<IdempotencyRecord>,
    /// Until then every request of the user is refused, because the account does not exist; 0: it may exist.
    pub rejected_until_ms: u64,
}

/// What must be stored, in one transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteSet {
    /// The ledger, and what is stored beside it.
    pub ledger: bool,
    /// The record of this generation, without its candidates.
    pub generation: Option<Uuid>,
    /// Only the ending of this generation, whose record is there.
    pub ending: Option<Uuid>,
    /// The candidates of this generation from this position on.
    pub candidates: Option<(Uuid, usize)>,
    /// Everything of this generation goes.
    pub forget: Option<Uuid>,
    /// The claim on this session.
    pub record: Option<Uuid>,
    /// The claims that end at this moment or before it go.
    pub records_until_ms: Option<u64>,
    /// Everything goes.
    pub clear: bool,
}

/// What an accepted generation tells the state.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// What the database says of its row.
    Row(Row),
    /// These candidates are complete.
    Candidates(Vec<SessionCandidate>),
    /// Nobody ran it any more, and somebody does again: an attempt was on its way, whether or not it was stored.
    Resumed,
    /// It has ended, and this is what has to be written.
    Ended(Ending),
    /// The database has it.
    Persisted,
    /// The database did not take it.
    NotPersisted,
    /// The database refused it in a way that no retry can change.
    Refused,
}

/// What the alarm has to see to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Nobody runs this generation any more: take it up.
    Resume(Uuid),
    /// Try again to write it.
    Write(Uuid),
    /// It could not be written for as long as it is kept: abandon it. Worth an error in the log.
    Abandon(Uuid),
}

impl Job {
    /// Whether it is one of that generation.
    #[must_use]
    pub fn is_of(&self, id: Uuid) -> bool {
        let (Self::Resume(of) | Self::Write(of) | Self::Abandon(of)) = self;
        *of == id
    }
}

impl UserState {
    /// A state as it was stored. What follows from an ending is not stored beside it: its lease is released, and its unit
    /// is given back or used for good.
    #[must_use]
    pub fn stored(
        (mut ledger, logged_limits, rejected_until_ms): (Ledger, Vec<(String, u64)>, u64),
        records: Vec<IdempotencyRecord>,
        mut generations: Vec<Generation>,
    ) -> Self {
        for generation in generations.iter_mut().filter(|generation| generation.ending.is_some()) {
            generation.unit = None;
        }
        let is_running = |generation: &&Generation| generation.ending.is_none();
        let running: Vec<Uuid> =
            generations.iter().filter(is_running).map(|generation| generation.accepted.id).collect();
        ledger.leases.keep(&running);
        Self { ledger, generations, logged_limits, records, rejected_until_ms }
    }

    /// Counts a request, whatever its body says.
    ///
    /// # Errors
    /// [`Refusal`] by `burst`; nothing is counted then.
    pub fn count(&mut self, policies: &Policies, now_ms: u64) -> Result<WriteSet, Refusal> {
        self.ledger.count_request(policies, now_ms)?;
        Ok(WriteSet { ledger: true, ..WriteSet::default() })
    }

    /// Accepts a generation: reserves its unit and its lease, and claims its key. To be called after [`UserState::count`],
    /// in the same transaction. A failure of the session that is not written yet gives way to this run of it.
    ///
    /// # Errors
    /// [`Refusal`] by `generations`, `attempts` or `concurrent` (also when too many are not written yet); nothing is reserved
    /// or claimed then.
    pub fn admit(
        &mut self,
        policies: &Policies,
        accepted: Accepted,
        key: Option<Key>,
        timeout_ms: u64,
        now_ms: u64,
    ) -> Result<WriteSet, Refusal> {
        let (id, run) = (accepted.id, accepted.run);
        let not_persisted = self
            .generations
            .iter()
            .filter(|generation| generation.ending.is_some() && generation.accepted.id != id);
        if not_persisted.count() >= NOT_PERSISTED_MAX {
            return Err(Refusal::by_concurrent());
        }
        let unit = self.ledger.reserve(policies, id, timeout_ms.saturating_add(LEASE_GRACE_MS), now_ms)?;
        self.generations.retain(|generation| generation.accepted.id != id);
        self.generations.push(Generation {
            accepted,
            started_ms: now_ms,
            deadline_ms: now_ms.saturating_add(timeout_ms),
            unit: Some(unit),
            row: Row::Unknown,
            attempts: 0,
            ending: None,
            writes: 0,
            refusals: 0,
            write_at_ms: 0,
            candidates: Vec::new(),
        });
        let mut effects = WriteSet { ledger: true, generation: Some(id), ..WriteSet::default() };
        if let Some(Key { key, fingerprint, started_by, .. }) = key {
            let has_old = self.records.iter().any(|record| !record.holds(now_ms));
            effects.records_until_ms = has_old.then_some(now_ms);
            effects.record = Some(id);
            // Tried again, it keeps the time of its first claim.
            let before = self.records.iter().find(|record| record.session_id == id);
            let created_ms = before.map_or(now_ms, |record| record.created_ms);
            self.records.retain(|record| record.holds(now_ms) && record.session_id != id);
            self.records.push(IdempotencyRecord {
                key,
                fingerprint,
                session_id: id,
                run,
                started_by,
                created_ms,
                outcome: None,
                is_final: false,
            });
        }
        Ok(effects)
    }

    /// The generation of that id, while it runs or is unwritten.
    #[must_use]
    pub fn find(&self, id: Uuid) -> Option<&Generation> {
        self.generations.iter().find(|generation| generation.accepted.id == id)
    }

    /// Counts a model call of a generation before it is made; `attempt` is its 1-based number. Whether it may be made.
    /// The first call was counted by [`UserState::admit`].
    pub fn begin_attempt(
        &mut self,
        policies: &Policies,
        id: Uuid,
        attempt: u32,
        now_ms: u64,
    ) -> (bool, WriteSet) {
        let Some(generation) = self.generations.iter_mut().find(|generation| generation.accepted.id == id)
        else {
            return (false, WriteSet::default());
        };
        if attempt <= 1 {
            generation.attempts = attempt;
            return (true, WriteSet::default()); // what `Resumed` assumes anyway
        }
        if !self.ledger.count_attempt(policies, now_ms) {
            return (false, WriteSet::default());
        }
        generation.attempts = attempt;
        (true, WriteSet { ledger: true, generation: Some(id), ..WriteSet::default() })
    }

    /// Refuses every request of the user until the token that this generation came with can no longer be accepted: the
    /// database says that the account does not exist.
    pub fn reject_user(&mut self, token_expires_ms: u64) -> WriteSet {
        let until_ms = token_expires_ms.saturating_add(leeway_ms());
        self.rejected_until_ms = self.rejected_until_ms.max(until_ms);
        WriteSet { ledger: true, ..WriteSet::default() }
    }

    /// Whether the account is known not to exist.
    #[must_use]
    pub const fn is_rejected(&self, now_ms: u64) -> bool {
        now_ms <= self.rejected_until_ms && self.rejected_until_ms > 0
    }

    /// Takes in what a generation tells.
    ///
    /// A unit goes back with the ending, not later, so that the answer's fields show it; only once, because only an
    /// ending without one before it counts.
    pub fn advance(&mut self, id: Uuid, event: Event, now_ms: u64) -> WriteSet {
        let Some(index) = self.generations.iter().position(|generation| generation.accepted.id == id) else {
            return WriteSet::default();
        };
        let Some(generation) = self.generations.get_mut(index) else { return WriteSet::default() };
        let mut effects = WriteSet { generation: Some(id), ..WriteSet::default() };
        match event {
            Event::Row(row) => {
                // Not stored by itself: after a death the completing function finds out.
                generation.row = row;
                return WriteSet::default();
            }
            Event::Resumed => generation.attempts = generation.attempts.max(1),
            Event::Candidates(candidates) => {
                effects.generation = None;
                effects.candidates = Some((id, generation.candidates.len()));
                generation.candidates.extend(candidates);
            }
            Event::Ended(ending) => {
                if generation.ending.is_some() {
                    return WriteSet::default();
                }
                let refunded = ending.code.is_some_and(|code| code != Code::AiRefused);
                if let Some(unit) = generation.unit.take().filter(|_| refunded) {
                    self.ledger.refund(unit);
                    effects.ledger = true;
                }
                // Not a reason to store the ledger: see `stored`.
                self.ledger.release(id);
                (effects.generation, effects.ending) = (None, Some(id));
                if let Some(record) = self.records.iter_mut().find(|record| record.session_id == id) {
                    record.outcome = Some(Outcome::of(&ending));
                    record.is_final = ending.is_blocked;
                    effects.record = Some(id);
                }
                generation.ending = Some(ending);
            }
            Event::Persisted => {
                self.generations.remove(index);
                return WriteSet { forget: Some(id), ..WriteSet::default() };
            }
            Event::NotPersisted => generation.back_off(now_ms),
            Event::Refused => {
                generation.refusals = generation.refusals.saturating_add(1);
                generation.back_off(now_ms);
                if generation.refusals >= REFUSALS_MAX {
                    return self.abandon(id);
                }
            }
        }
        effects
    }

    /// Forgets an ended generation that the database does not have. Its idempotency key is free again.
    pub fn abandon(&mut self, id: Uuid) -> WriteSet {
        self.generations.retain(|generation| generation.accepted.id != id);
        let mut effects = WriteSet { forget: Some(id), ..WriteSet::default() };
        let completed = |record: &&mut IdempotencyRecord| {
            record.session_id == id && record.outcome == Some(Outcome::Completed)
        };
        if let Some(record) = self.records.iter_mut().find(completed) {
            record.outcome = Some(Outcome::Failed(Code::DatabaseError));
            effects.record = Some(id);
        }
        effects
    }

    /// Takes the token that the owner brings, for what could not be written with an older one, and makes one write due
    /// whatever its backoff says: that of the session which the owner names, if it is one of these, else the oldest. Only held
    /// in memory: the next job has a token of its own to try with.
    pub fn use_credentials(&mut self, token: &str, expires_ms: u64, named: Option<Uuid>, now_ms: u64) {
        let mut ended = self.generations.iter().filter(|generation| generation.ending.is_some());
        let is_named = |generation: &&Generation| named == Some(generation.accepted.id);
        let hurried = ended.clone().find(is_named).or_else(|| ended.next());
        let hurried = hurried.map(|generation| generation.accepted.id);
        for generation in self.generations.iter_mut().filter(|generation| generation.ending.is_some()) {
            let had_token = generation.token_lives(now_ms);
            if expires_ms > generation.accepted.token_expires_ms {
                token.clone_into(&mut generation.accepted.token);
                generation.accepted.token_expires_ms = expires_ms;
            }
            if !had_token || hurried == Some(generation.accepted.id) {
                generation.write_at_ms = generation.write_at_ms.min(now_ms);
            }
        }
    }

    /// What there is to see to, given which generations somebody in this object is busy with. The session that the owner
    /// names comes first.
    #[must_use]
    pub fn due_jobs(&self, is_busy: impl Fn(Uuid) -> bool, named: Option<Uuid>, now_ms: u64) -> Vec<Job> {
        let mut due_jobs = Vec::new();
        let mut writes_left = self.writes_left(&is_busy);
        let is_named = |generation: &&Generation| named == Some(generation.accepted.id);
        let first = self.generations.iter().filter(is_named);
        for generation in first.chain(self.generations.iter().filter(|generation| !is_named(generation))) {
            let id = generation.accepted.id;
            if is_busy(id) {
                continue;
            }
            match &generation.ending {
                None => due_jobs.push(Job::Resume(id)),
                Some(_) if generation.keep_until_ms() <= now_ms => due_jobs.push(Job::Abandon(id)),
                Some(_) if writes_left > 0 && generation.can_be_written(now_ms) => {
                    writes_left = writes_left.saturating_sub(1);
                    due_jobs.push(Job::Write(id));
                }
                Some(_) => {}
            }
        }
        due_jobs
    }

    /// How many more may be written at the same time as those that are being written.
    #[must_use]
    pub fn writes_left(&self, is_busy: impl Fn(Uuid) -> bool) -> usize {
        let is_being_written =
            |generation: &&Generation| generation.ending.is_some() && is_busy(generation.accepted.id);
        WRITES_MAX.saturating_sub(self.generations.iter().filter(is_being_written).count())
    }

    /// How to go on with a generation that nobody runs any more, because the process died: `None` to ask the model
    /// again inside the deadline, else how it has ended. Complete cards are kept; a second call is never paid for
    /// when there are any.
    #[must_use]
    pub fn resume(generation: &Generation, attempts_max: u32, now_ms: u64) -> Option<Ending> {
        let may_ask = generation.attempts.max(1) < attempts_max
            && now_ms.saturating_add(LEAST_FOR_A_CALL_MS) <= generation.deadline_ms;
        if generation.candidates.is_empty() && may_ask {
            return None;
        }
        Some(broken_off(generation, Code::AiTimeout, generation.attempts, now_ms))
    }

    /// When the object must be woken at the latest: no sooner than [`ALARM_MIN_MS`] from now. At that moment there is
    /// something to do, if nothing happens before: a job of [`UserState::due_jobs`], a heartbeat of what is running, or an idle
    /// storage to delete.
    #[must_use]
    pub fn alarm_ms(&self, is_busy: impl Fn(Uuid) -> bool, now_ms: u64) -> Option<u64> {
        let heartbeat_ms = now_ms.saturating_add(HEARTBEAT_MS);
        let soonest_ms = now_ms.saturating_add(ALARM_MIN_MS);
        let can_write = self.writes_left(&is_busy) > 0;
        let of_one = |generation: &Generation| {
            if generation.ending.is_none() || is_busy(generation.accepted.id) {
                return heartbeat_ms;
            }
            let write_at_ms = generation.write_at_ms.max(soonest_ms);
            let keep_until_ms = generation.keep_until_ms();
            // Where two are being written, the end of one of them sets the next alarm.
            if can_write && generation.can_be_written(write_at_ms) {
                return write_at_ms.min(keep_until_ms);
            }
            keep_until_ms
        };
        let next_ms = self.generations.iter().map(of_one).min();
        // A millisecond later, because a window's last one still counts.
        let next_ms = next_ms.or_else(|| (!self.is_empty()).then(|| self.idle_at_ms().saturating_add(1)));
        next_ms.map(|next_ms| next_ms.max(soonest_ms))
    }

    /// When nothing of it will matter any more, if nothing happens before.
    fn idle_at_ms(&self) -> u64 {
        let kept_until_ms = self.records.iter().map(IdempotencyRecord::ends_ms).max().unwrap_or(0);
        self.ledger.idle_at_ms().max(kept_until_ms).max(self.rejected_until_ms)
    }

    /// Whether nothing is left that would matter tomorrow: the storage can go.
    #[must_use]
    pub fn is_idle(&self, now_ms: u64) -> bool {
        self.generations.is_empty() && self.idle_at_ms() <= now_ms
    }

    /// Whether there is nothing at all on it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.generations.is_empty()
            && self.records.is_empty()
            && self.ledger == Ledger::default()
            && self.rejected_until_ms == 0
    }

    /// Forgets everything.
    pub fn clear(&mut self) -> WriteSet {
        *self = Self::default();
        WriteSet { clear: true, ..WriteSet::default() }
    }

    /// Which of the violated policies the event log has not been told of in this window; they count as told then.
    pub fn limits_to_log(
        &mut self,
        policies: &Policies,
        refusal: &Refusal,
        now_ms: u64,
    ) -> Vec<&'static str> {
        let mut fresh = Vec::new();
        for policy in &refusal.violated {
            let window_s = match *policy {
                BURST => policies.burst.window_s,
                GENERATIONS => policies.generations.window_s,
                ATTEMPTS => policies.attempts.window_s,
                CONCURRENT => CONCURRENT_WINDOW_S,
                _ => continue,
            };
            let window_ms = u64::from(window_s).saturating_mul(1000);
            let told = self.logged_limits.iter_mut().find(|(known, _)| known == policy);
            match told {
                Some((_, at_ms)) if now_ms.saturating_sub(*at_ms) < window_ms => continue,
                Some((_, at_ms)) => *at_ms = now_ms,
                None => self.logged_limits.push(((*policy).to_owned(), now_ms)),
            }
            fresh.push(*policy);
        }
        fresh
    }
}

/// How a generation ends that goes on no longer: with the complete cards that it has, else as a failure with `code`.
#[must_use]
pub fn broken_off(generation: &Generation, code: Code, attempts: u32, ended_ms: u64) -> Ending {
    let has_cards = !generation.candidates.is_empty();
    Ending {
        code: (!has_cards).then_some(code),
        partial: has_cards,
        usage: None,
        served_model: None,
        attempts,
        dropped: 0,
        ended_ms,
        retry_after_s: None,
        was_reused: None,
        is_blocked: false,
    }
}

/// For how long after its end a token may still be accepted.
fn leeway_ms() -> u64 {
    u64::try_from(LEEWAY_S).unwrap_or(0).saturating_mul(1000)
}

/// `concurrent` has no window of its own; its limit is told as often as that of `burst` by default.
const CONCURRENT_WINDOW_S: u32 = 60;

#[cfg(test)]
mod tests;
