//! The state of one user: the quota ledger, the idempotency records, and the generations in progress or not yet persisted.
//!
//! ```text
//!            admit                 advance(Ended)                 advance(Persisted)
//!  request ────────► in progress ───────────────► not persisted ────────────────────► removed
//!                       ▲  candidates, row             │  ▲
//!                       └── Resume (after a crash)     └──┘ Persist (retry)
//! ```
//! Pure: each decision changes the state and returns a [`WriteSet`], the writes of one transaction. Not for: running
//! generations (`user_object`), storage (the hosts).

pub mod generation;
pub mod idempotency;
pub mod stored;
mod write_set;

use std::rc::Rc;

use uuid::Uuid;

use crate::auth::claims::LEEWAY_S;
use crate::auth::credentials::Credentials;
use crate::http::problem::Code;
use crate::quota::{ATTEMPTS, BURST, CONCURRENT, GENERATIONS, Ledger, Policies, Refusal, SPEND};
use generation::{Accepted, Driver, Ending, Generation, RowState, SessionCandidate};
use idempotency::{IdempotencyRecord, Key, Outcome};
pub use write_set::{Write, WriteSet};

/// Between two alarms while a generation is in progress: after a crash it is resumed this late at most. workerd evicts an object
/// without requests after 70 to 140 s even while a fetch is pending. Each alarm is billed as a request, so not much shorter.
pub const HEARTBEAT_MS: u64 = 10_000;
/// A billed result that cannot be persisted is kept for this long.
pub const KEEP_NOT_PERSISTED_MS: u64 = 24 * 60 * 60 * 1000;
/// A failure that cannot be persisted is kept for this long: the user was not billed for it, and the owner's next GET ends its
/// row.
pub const KEEP_FAILURE_MS: u64 = 10 * 60 * 1000;
/// No alarm is set sooner than this from now. A decision without a job then costs one alarm a second at most, and the alarm
/// whose handler runs is never set to its own time (workerd deletes it when the handler ends).
pub const ALARM_MIN_MS: u64 = 1_000;
/// The most generations of one user that are not yet persisted. More of them are rows that the database keeps refusing, and
/// each keeps its candidates in memory.
pub const NOT_PERSISTED_MAX: usize = 20;
/// The most of them that are persisted at the same time.
const WRITES_MAX: usize = 2;
/// The most attempts at a write that the database refuses permanently: one more than a race with the owner's own writes needs.
const REFUSALS_MAX: u32 = 3;
/// The backoff between two attempts at a write: doubles from the first to the second.
const REWRITE_MS: std::ops::RangeInclusive<u64> = 2_000..=300_000;
/// With less than this before the deadline, no model call starts after a crash.
const CALL_MS_MIN: u64 = 1_000;
/// A lease expires this long after the deadline, in case that no code releases it.
const LEASE_GRACE_MS: u64 = 30_000;

/// The state of one user.
#[derive(Debug, Clone, Default)]
pub struct UserState {
    /// The quota that is used.
    pub ledger: Ledger,
    /// INVARIANT: in the order of their acceptance; each is in progress (no ending) or not yet persisted.
    pub generations: Vec<Generation>,
    /// When the limit of each policy was last written to the event log: one entry a policy.
    pub logged_limits: Vec<(String, u64)>,
    /// INVARIANT: at most one valid record of a key; at most one of a session.
    pub records: Vec<IdempotencyRecord>,
    /// Every request of the user is rejected until then, because the account does not exist; 0: it may exist.
    pub rejected_until_ms: u64,
}

/// A change of an accepted generation.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The state of its row has changed.
    Row(RowState),
    /// These candidates are complete.
    Candidates(Vec<Rc<SessionCandidate>>),
    /// It continues after a crash; one attempt counts as made, whether or not it was stored.
    Resumed,
    /// It has ended, and its ending has to be persisted.
    Ended(Ending),
    /// The database has its ending.
    Persisted,
    /// The write of its ending failed.
    NotPersisted,
    /// The database refused its ending in a way that no retry can change.
    Refused,
}

/// Work that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// Resumes a generation that was in progress at a crash.
    Resume(Uuid),
    /// Retries the write of an ending.
    Persist(Uuid),
}

impl UserState {
    /// Builds the state from its stored parts. The consequences of an ending are not stored beside it: its lease is released,
    /// and its reservation is refunded or becomes final.
    #[must_use]
    pub fn from_parts(
        (mut ledger, logged_limits, rejected_until_ms): (Ledger, Vec<(String, u64)>, u64),
        records: Vec<IdempotencyRecord>,
        mut generations: Vec<Generation>,
    ) -> Self {
        for generation in generations.iter_mut().filter(|generation| generation.ending.is_some()) {
            generation.reservation = None;
        }
        let in_progress = |generation: &&Generation| generation.ending.is_none();
        let in_progress: Vec<Uuid> =
            generations.iter().filter(in_progress).map(|generation| generation.accepted.id).collect();
        ledger.leases.keep(&in_progress);
        Self { ledger, generations, logged_limits, records, rejected_until_ms }
    }

    /// Counts a request, valid or not.
    ///
    /// # Errors
    /// [`Refusal`] by `burst`; nothing is counted then.
    pub fn count(&mut self, policies: &Policies, now_ms: u64) -> Result<WriteSet, Refusal> {
        self.ledger.count_request(policies, now_ms)?;
        Ok(WriteSet::from([Write::Ledger]))
    }

    /// Accepts a generation: takes its reservation and its lease, and creates its idempotency record. To be called after
    /// [`UserState::count`], in the same transaction. A failure of the session that is not yet persisted is replaced by
    /// this run.
    ///
    /// # Errors
    /// [`Refusal`] by `generations`, `attempts`, `spend` or `concurrent` (also when too many are not yet persisted); nothing is
    /// reserved then, and no record is created.
    pub fn admit(
        &mut self,
        policies: &Policies,
        accepted: Accepted,
        key: Option<&Key>,
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
        let lease_ms = timeout_ms.saturating_add(LEASE_GRACE_MS);
        let reservation = self.ledger.reserve(policies, id, accepted.text_bytes(), lease_ms, now_ms)?;
        let mut writes = WriteSet::from([Write::Ledger]);
        if self.find(id).is_some() {
            // With the stop and the lease of the run before.
            writes.add(Write::RemoveGeneration(id));
            self.generations.retain(|generation| generation.accepted.id != id);
        }
        self.generations.push(Generation::new(accepted, reservation, timeout_ms, now_ms));
        writes.add(Write::Generation(id));
        if let Some(Key { key, fingerprint, request, .. }) = key {
            if self.records.iter().any(|record| !record.is_valid(now_ms)) {
                writes.add(Write::RemoveIdempotencyRecords(now_ms));
            }
            writes.add(Write::IdempotencyRecord(id));
            // A further run of the session keeps the time at which the record was created.
            let earlier = self.records.iter().find(|record| record.session_id == id);
            let created_ms = earlier.map_or(now_ms, |record| record.created_ms);
            self.records.retain(|record| record.is_valid(now_ms) && record.session_id != id);
            self.records.push(IdempotencyRecord {
                key: key.clone(),
                fingerprint: *fingerprint,
                session_id: id,
                run,
                request: *request,
                created_ms,
                outcome: None,
                is_final: false,
            });
        }
        Ok(writes)
    }

    /// The generation with that id, while it is in progress or not yet persisted.
    #[must_use]
    pub fn find(&self, id: Uuid) -> Option<&Generation> {
        self.generations.iter().find(|generation| generation.accepted.id == id)
    }

    /// Whether that run of a session is the one in the state, and this isolate may write it. A later run replaces an ended one.
    #[must_use]
    pub fn has_run(&self, id: Uuid, run: u32) -> bool {
        self.find(id).is_some_and(|found| found.accepted.run == run && !found.is_taken_over())
    }

    /// Removes the generation of that run, whose end the database has and whose row is still stored. Whether it was there.
    pub fn forget(&mut self, id: Uuid, run: u32) -> bool {
        let is_it = |generation: &Generation| generation.accepted.id == id && generation.accepted.run == run;
        let Some(index) = self.generations.iter().position(is_it) else { return false };
        self.generations.remove(index);
        self.ledger.release(id);
        true
    }

    /// Makes this isolate the driver of a generation.
    pub fn lease(&mut self, id: Uuid) -> WriteSet {
        let found = self.generations.iter_mut().find(|generation| generation.accepted.id == id);
        let Some(generation) = found else { return WriteSet::none() };
        generation.driver = Driver::Own;
        WriteSet::from([Write::Lease(id)])
    }

    /// Counts a model call of a generation before it starts; `attempt` is its 1-based number. Whether it may start. The first
    /// call was counted by [`UserState::admit`].
    pub fn begin_attempt(
        &mut self,
        policies: &Policies,
        id: Uuid,
        attempt: u32,
        now_ms: u64,
    ) -> (bool, WriteSet) {
        let Some(generation) = self.generations.iter_mut().find(|generation| generation.accepted.id == id)
        else {
            return (false, WriteSet::none());
        };
        if attempt <= 1 {
            generation.attempts = attempt;
            return (true, WriteSet::none()); // `Resumed` assumes it anyway
        }
        let text_bytes = generation.accepted.text_bytes();
        let expires_ms = generation.deadline_ms.saturating_add(LEASE_GRACE_MS);
        if !self.ledger.count_attempt(policies, id, text_bytes, expires_ms, now_ms) {
            return (false, WriteSet::none());
        }
        generation.attempts = attempt;
        (true, WriteSet::from([Write::Ledger, Write::Generation(id)]))
    }

    /// Rejects every request of the user until the token of this generation can no longer be accepted: the database says
    /// that the account does not exist.
    pub fn reject_user(&mut self, token_expires_ms: u64) -> WriteSet {
        let until_ms = token_expires_ms.saturating_add(leeway_ms());
        self.rejected_until_ms = self.rejected_until_ms.max(until_ms);
        WriteSet::from([Write::Ledger])
    }

    /// Whether the database has reported that the account does not exist.
    #[must_use]
    pub const fn is_rejected(&self, now_ms: u64) -> bool {
        now_ms <= self.rejected_until_ms && self.rejected_until_ms > 0
    }

    /// Applies a change of a generation.
    ///
    /// A reservation is refunded, and that of money replaced by the cost, with the ending, not later, so that the quota status of
    /// the reply includes it; only once, because only the first ending counts.
    pub fn advance(&mut self, id: Uuid, event: Event, now_ms: u64) -> WriteSet {
        let Some(index) = self.generations.iter().position(|generation| generation.accepted.id == id) else {
            return WriteSet::none();
        };
        let Some(generation) = self.generations.get_mut(index) else { return WriteSet::none() };
        match event {
            Event::Row(row) => {
                // Not a reason for a write: after a crash the completing function finds out.
                generation.row = row;
                WriteSet::none()
            }
            Event::Resumed => {
                generation.attempts = generation.attempts.max(1);
                WriteSet::from([Write::Generation(id)])
            }
            Event::Candidates(candidates) => {
                let from = generation.candidates.len();
                generation.candidates.extend(candidates);
                WriteSet::from([Write::Candidates(id, from)])
            }
            Event::Ended(ending) => self.end(index, id, ending, now_ms),
            Event::Persisted => {
                self.generations.remove(index);
                WriteSet::from([Write::RemoveGeneration(id)])
            }
            Event::NotPersisted => {
                generation.back_off(now_ms);
                let mut writes = WriteSet::from([Write::Generation(id)]);
                writes.extend(generation.release());
                writes
            }
            Event::Refused => {
                generation.refusals = generation.refusals.saturating_add(1);
                generation.back_off(now_ms);
                if generation.refusals >= REFUSALS_MAX {
                    return self.abandon(id);
                }
                let mut writes = WriteSet::from([Write::Generation(id)]);
                writes.extend(generation.release());
                writes
            }
        }
    }

    fn end(&mut self, index: usize, id: Uuid, ending: Ending, now_ms: u64) -> WriteSet {
        let Some(generation) = self.generations.get_mut(index).filter(|found| found.ending.is_none()) else {
            return WriteSet::none();
        };
        let mut writes = WriteSet::from([Write::Ending(id)]);
        let is_refunded = ending.code.is_some_and(|code| code != Code::AiRefused);
        if let Some(reservation) = generation.reservation.take().filter(|_| is_refunded) {
            self.ledger.refund(reservation);
            writes.add(Write::Ledger);
        }
        if self.ledger.reconcile(id, ending.reported, now_ms) {
            writes.add(Write::Ledger);
        }
        // Not a reason to store the ledger: see `from_parts`.
        self.ledger.release(id);
        if let Some(record) = self.records.iter_mut().find(|record| record.session_id == id) {
            record.outcome = Some(Outcome::of(&ending));
            record.is_final = ending.is_blocked;
            writes.add(Write::IdempotencyRecord(id));
        }
        generation.ending = Some(ending);
        writes
    }

    /// Removes a generation whose end the database does not have. Its idempotency key can be used again.
    pub fn abandon(&mut self, id: Uuid) -> WriteSet {
        self.generations.retain(|generation| generation.accepted.id != id);
        self.ledger.release(id);
        let mut writes = WriteSet::from([Write::RemoveGeneration(id)]);
        let has_not_failed = |record: &&mut IdempotencyRecord| {
            record.session_id == id && !matches!(record.outcome, Some(Outcome::Failed(_)))
        };
        if let Some(record) = self.records.iter_mut().find(has_not_failed) {
            record.outcome = Some(Outcome::Failed(Code::DatabaseError));
            writes.add(Write::IdempotencyRecord(id));
        }
        writes
    }

    /// Abandons the generations that were not persisted in the time for which they are kept, and those that could not be resumed
    /// in it. Returns them, each worth an error in the log.
    pub fn abandon_expired(
        &mut self,
        is_running: impl Fn(Uuid) -> bool,
        now_ms: u64,
    ) -> (Vec<Generation>, WriteSet) {
        let is_expired = |generation: &&Generation| {
            let id = generation.accepted.id;
            let is_driven = is_running(id) || generation.is_driven_elsewhere();
            let is_kept = generation.ending.is_none() && !generation.has_token();
            !is_kept && generation.keep_until_ms() <= now_ms && !is_driven
        };
        let expired: Vec<Generation> = self.generations.iter().filter(is_expired).cloned().collect();
        let mut writes = WriteSet::none();
        for generation in &expired {
            writes.extend(self.abandon(generation.accepted.id));
        }
        (expired, writes)
    }

    /// Uses the credentials of a request for the generations that could not be resumed or persisted with older ones, and makes
    /// one write due whatever its backoff: that of the session which the request names, if it is one of these, else the oldest.
    /// Other credentials are stored, so that each later job has them, too; a due time alone is not. A store outside of the service
    /// has no token: there, every generation gets the credentials.
    pub fn use_credentials(
        &mut self,
        credentials: &Credentials,
        named: Option<Uuid>,
        now_ms: u64,
    ) -> WriteSet {
        let mut writes = WriteSet::none();
        for generation in self.generations.iter_mut().filter(|generation| !generation.has_token()) {
            generation.accepted.credentials = Credentials {
                traceparent: generation.accepted.credentials.traceparent.clone(),
                ..credentials.clone()
            };
            generation.write_at_ms = generation.write_at_ms.min(now_ms);
        }
        // One in progress has a backoff after a resumption that failed.
        let can_wait = |generation: &&Generation| {
            let has_failed = generation.writes > 0 || !generation.has_valid_token(now_ms);
            generation.ending.is_some() || has_failed
        };
        let mut waiting = self.generations.iter().filter(can_wait);
        let is_named = |generation: &&Generation| named == Some(generation.accepted.id);
        let hurried = waiting.clone().find(is_named).or_else(|| waiting.next());
        let hurried = hurried.map(|generation| generation.accepted.id);
        for generation in self.generations.iter_mut().filter(|generation| can_wait(&&**generation)) {
            let could_write = generation.has_valid_token(now_ms);
            let current = &mut generation.accepted.credentials;
            if credentials.expires_ms > current.expires_ms {
                current.token = Rc::clone(&credentials.token);
                current.expires_ms = credentials.expires_ms;
                writes.add(Write::Generation(generation.accepted.id));
            }
            if !could_write || hurried == Some(generation.accepted.id) {
                generation.write_at_ms = generation.write_at_ms.min(now_ms);
            }
        }
        writes
    }

    /// The due jobs, without those of the generations that run now. The named session comes first.
    #[must_use]
    pub fn due_jobs(&self, is_running: impl Fn(Uuid) -> bool, named: Option<Uuid>, now_ms: u64) -> Vec<Job> {
        let mut jobs = Vec::new();
        let mut writes_left = self.writes_left(&is_running);
        let is_named = |generation: &&Generation| named == Some(generation.accepted.id);
        let first = self.generations.iter().filter(is_named);
        for generation in first.chain(self.generations.iter().filter(|generation| !is_named(generation))) {
            let id = generation.accepted.id;
            if is_running(id) || generation.is_driven_elsewhere() {
                continue;
            }
            if !generation.can_be_written(now_ms) {
                continue;
            }
            if generation.ending.is_none() {
                jobs.push(Job::Resume(id));
            } else if writes_left > 0 {
                writes_left = writes_left.saturating_sub(1);
                jobs.push(Job::Persist(id));
            }
        }
        jobs
    }

    /// How many more endings may be written now.
    #[must_use]
    pub fn writes_left(&self, is_running: impl Fn(Uuid) -> bool) -> usize {
        let is_written_now = |generation: &&Generation| {
            let is_driven = is_running(generation.accepted.id) || generation.is_driven_elsewhere();
            generation.ending.is_some() && is_driven
        };
        WRITES_MAX.saturating_sub(self.generations.iter().filter(is_written_now).count())
    }

    /// The latest moment of the next alarm: no sooner than [`ALARM_MIN_MS`] from now. If nothing happens before, that
    /// is the time of a job of [`UserState::due_jobs`], of a heartbeat, or of removing a state that is no longer needed.
    #[must_use]
    pub fn alarm_ms(&self, is_running: impl Fn(Uuid) -> bool, now_ms: u64) -> Option<u64> {
        let heartbeat_ms = now_ms.saturating_add(HEARTBEAT_MS);
        let soonest_ms = now_ms.saturating_add(ALARM_MIN_MS);
        let can_write = self.writes_left(&is_running) > 0;
        let of_one = |generation: &Generation| {
            let is_running = is_running(generation.accepted.id);
            if generation.is_driven_elsewhere() || !is_running && !generation.has_token() {
                return None; // the other isolate, or the owner's next request
            }
            if is_running {
                return Some(heartbeat_ms);
            }
            let write_at_ms = generation.write_at_ms.max(soonest_ms);
            let keep_until_ms = generation.keep_until_ms();
            // While two writes run, the end of one of them sets the next alarm.
            let can_run = can_write || generation.ending.is_none();
            if can_run && generation.can_be_written(write_at_ms) {
                return Some(write_at_ms.min(keep_until_ms));
            }
            Some(keep_until_ms)
        };
        if !self.generations.is_empty() {
            let next_ms = self.generations.iter().filter_map(of_one).min();
            return next_ms.map(|next_ms| next_ms.max(soonest_ms));
        }
        // A millisecond later, because a window's last one still counts.
        (!self.is_empty()).then(|| self.idle_at_ms().saturating_add(1).max(soonest_ms))
    }

    /// When a generation is due to be continued if no isolate drives it any more; `lease_ms` is the time for which a driver is
    /// taken to run after this decision. `None` without a generation that can be continued without a request of its owner.
    #[must_use]
    pub fn wake_at_ms(&self, lease_ms: u64, now_ms: u64) -> Option<u64> {
        let of_one = |generation: &Generation| {
            let soonest_ms =
                if generation.ending.is_none() { now_ms.saturating_add(lease_ms) } else { now_ms };
            let write_at_ms = generation.write_at_ms.max(soonest_ms);
            generation.has_valid_token(write_at_ms).then_some(write_at_ms)
        };
        self.generations.iter().filter_map(of_one).min()
    }

    /// The moment at which the state is no longer needed, if nothing happens before.
    fn idle_at_ms(&self) -> u64 {
        let kept_until_ms = self.records.iter().map(IdempotencyRecord::expires_ms).max().unwrap_or(0);
        self.ledger.idle_at_ms().max(kept_until_ms).max(self.rejected_until_ms)
    }

    /// Whether no decision depends on the state any more: the storage can be deleted.
    #[must_use]
    pub fn is_idle(&self, now_ms: u64) -> bool {
        self.generations.is_empty() && self.idle_at_ms() <= now_ms
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.generations.is_empty()
            && self.records.is_empty()
            && self.ledger == Ledger::default()
            && self.rejected_until_ms == 0
    }

    /// Removes everything.
    pub fn clear(&mut self) -> WriteSet {
        *self = Self::default();
        WriteSet::from([Write::RemoveAll])
    }

    /// Returns the violated policies whose limit is not yet in the event log of this window, and marks them as logged.
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
                SPEND => policies.spend.map_or(0, |spend| spend.window_s),
                CONCURRENT => CONCURRENT_WINDOW_S,
                _ => continue,
            };
            let window_ms = u64::from(window_s).saturating_mul(1000);
            let logged = self.logged_limits.iter_mut().find(|(name, _)| name == policy);
            match logged {
                Some((_, at_ms)) if now_ms.saturating_sub(*at_ms) < window_ms => continue,
                Some((_, at_ms)) => *at_ms = now_ms,
                None => self.logged_limits.push(((*policy).to_owned(), now_ms)),
            }
            fresh.push(*policy);
        }
        fresh
    }

    /// The time for which each further request of the user is refused like this one, a request for a generation, whatever it
    /// contains; `None` where that is not known. A user with a generation has pending work, or may get a refund; with `spend`, a
    /// longer text may be refused by that policy, too.
    #[must_use]
    pub fn refusal_lasts_ms(&self, policies: &Policies, refusal: &Refusal, now_ms: u64) -> Option<u64> {
        if refusal.violated != [BURST] || !self.generations.is_empty() || policies.spend.is_some() {
            return None;
        }
        let logged = self.logged_limits.iter().find(|(name, _)| name == BURST);
        let window_ms = u64::from(policies.burst.window_s).saturating_mul(1000);
        let logged_again_ms = logged.map(|(_, at_ms)| at_ms.saturating_add(window_ms));
        let grows_ms = self.ledger.grows_at_ms(policies, now_ms);
        Some(grows_ms?.min(logged_again_ms?).saturating_sub(now_ms))
    }
}

/// For how long after its expiry a token may still be accepted.
fn leeway_ms() -> u64 {
    u64::try_from(LEEWAY_S).unwrap_or(0).saturating_mul(1000)
}

/// `concurrent` has no window of its own; its limit is logged as often as that of `burst` by default.
const CONCURRENT_WINDOW_S: u32 = 60;

#[cfg(test)]
mod tests;
