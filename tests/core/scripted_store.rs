//! A store of user states that keeps JSON records, as the hosts do, and fails by script.
//!
//! In the mode [`Mode::Rows`] each transaction and each read loads the state from the records, as a host whose store is a
//! database. In the mode [`Mode::Memory`] the state stays in memory between two transactions, as in an object that alone
//! changes it.

#![expect(clippy::expect_used, reason = "a record that cannot be written or read fails the test")]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use ai_sessions::auth::credentials::Credentials;
use ai_sessions::json::record::to_json;
use ai_sessions::ports::{Clock, Lease, Polled, StoreError, Timer};
use ai_sessions::user_state::generation::Driver;
use ai_sessions::user_state::stored::{
    StoredGeneration, StoredRows, batch, ledger_record, load, read_batch, read_ending, record_without_token,
};
use ai_sessions::user_state::{UserState, Write, WriteSet};
use serde_json::Value;
use uuid::Uuid;

use crate::scripted_host::ScriptedHost;

/// Where the state is between two transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// In the records alone.
    Rows,
    /// In memory, too.
    Memory,
    /// In the records, which several isolates share, with a lease for each generation.
    Shared,
}

/// The lease that an isolate gets.
pub(crate) const LEASE_MS: u64 = 15_000;

/// The end of a released lease, which no renewal brings back.
const RELEASED_MS: u64 = 0;

/// A failure of one attempt at a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Another transaction was faster: the decision is dropped, and made again.
    Conflict,
    /// The state cannot be loaded.
    BeforeDecision,
    /// No write is stored.
    AfterDecision,
    /// The transaction fails after half of its writes.
    Halfway,
    /// It is stored, and its reply is lost for good.
    LostReply,
}

/// The row of a generation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct GenerationRow {
    record: String,
    ending: Option<String>,
    /// The isolate, and when its lease expires.
    runner: Option<(usize, u64)>,
    is_stop_requested: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Rows {
    ledger: Option<String>,
    generations: BTreeMap<Uuid, GenerationRow>,
    candidates: BTreeMap<(Uuid, usize), String>,
    /// When it expires, and the record.
    idempotency: BTreeMap<Uuid, (u64, String)>,
}

/// A clone is the same store, for the same isolate.
#[derive(Clone)]
pub(crate) struct ScriptedStore(Rc<Shared>, usize);

struct Shared {
    host: ScriptedHost,
    mode: Mode,
    rows: RefCell<Rows>,
    version: Cell<u64>,
    memory: RefCell<Option<UserState>>,
    /// The credentials that an isolate has of a generation; the records have none in the mode [`Mode::Shared`].
    credentials: RefCell<BTreeMap<(usize, Uuid), Credentials>>,
    /// By the number of the transaction.
    faults: RefCell<BTreeMap<usize, VecDeque<Fault>>>,
    has_failed: Cell<bool>,
    is_down: Cell<bool>,
    is_read_only: Cell<bool>,
    poll_delay_ms: Cell<u64>,
    has_no_polls: Cell<bool>,
    stop_requests: Cell<usize>,
    cut_off: RefCell<BTreeSet<usize>>,
    transactions: Cell<usize>,
    commits: Cell<usize>,
    decisions: Cell<usize>,
    peek_faults: Cell<usize>,
    alarm_faults: Cell<usize>,
    delete_faults: Cell<usize>,
    /// Between the decision and its commit.
    delays_ms: RefCell<VecDeque<u64>>,
    /// By the isolate that is to run it.
    alarms_ms: RefCell<BTreeMap<usize, u64>>,
    /// Each alarm that was set: when, and for when.
    alarms: RefCell<Vec<(u64, u64)>>,
    deletions: Cell<usize>,
}

impl ScriptedStore {
    /// An empty store.
    pub(crate) fn new(host: &ScriptedHost, mode: Mode) -> Self {
        Self(
            Rc::new(Shared {
                host: host.clone(),
                mode,
                rows: RefCell::default(),
                version: Cell::default(),
                memory: RefCell::default(),
                credentials: RefCell::default(),
                faults: RefCell::default(),
                has_failed: Cell::default(),
                is_down: Cell::default(),
                is_read_only: Cell::default(),
                has_no_polls: Cell::default(),
                poll_delay_ms: Cell::default(),
                stop_requests: Cell::default(),
                cut_off: RefCell::default(),
                transactions: Cell::default(),
                commits: Cell::default(),
                decisions: Cell::default(),
                peek_faults: Cell::default(),
                alarm_faults: Cell::default(),
                delete_faults: Cell::default(),
                delays_ms: RefCell::default(),
                alarms_ms: RefCell::default(),
                alarms: RefCell::default(),
                deletions: Cell::default(),
            }),
            0,
        )
    }

    /// The n-th transaction from now (0: the next) fails so, each attempt at it by the next of these.
    pub(crate) fn fail(&self, ahead: usize, faults: &[Fault]) {
        let number = self.0.transactions.get() + ahead;
        self.0.faults.borrow_mut().insert(number, faults.iter().copied().collect());
    }

    /// Every transaction and every read fails, or none.
    pub(crate) fn set_down(&self, is_down: bool) {
        self.0.is_down.set(is_down);
    }

    /// The database is read-only, as Supabase makes it when the disk is full: every write is refused with 25006.
    pub(crate) fn set_read_only(&self, is_read_only: bool) {
        self.0.is_read_only.set(is_read_only);
    }

    /// Every poll fails, or none.
    pub(crate) fn fail_polls(&self, fails: bool) {
        self.0.has_no_polls.set(fails);
    }

    /// The reply to a poll takes so long.
    pub(crate) fn set_poll_delay(&self, ms: u64) {
        self.0.poll_delay_ms.set(ms);
    }

    /// As [`ScriptedStore::set_poll_delay`].
    pub(crate) fn poll_delay_ms(&self) -> u64 {
        self.0.poll_delay_ms.get()
    }

    /// This isolate alone cannot reach the store, or can again.
    pub(crate) fn set_cut_off(&self, is_cut_off: bool) {
        let mut cut_off = self.0.cut_off.borrow_mut();
        if is_cut_off {
            cut_off.insert(self.1)
        } else {
            cut_off.remove(&self.1)
        };
    }

    fn is_down(&self) -> bool {
        self.0.is_down.get() || self.0.cut_off.borrow().contains(&self.1)
    }

    /// Everything that is stored, as text.
    pub(crate) fn text(&self) -> String {
        format!("{:?}", self.0.rows.borrow())
    }

    /// So many of the next reads fail.
    pub(crate) fn fail_peeks(&self, count: usize) {
        self.0.peek_faults.set(count);
    }

    /// So many of the next alarms cannot be set.
    pub(crate) fn fail_alarms(&self, count: usize) {
        self.0.alarm_faults.set(count);
    }

    /// So many of the next deletions fail.
    pub(crate) fn fail_deletions(&self, count: usize) {
        self.0.delete_faults.set(count);
    }

    /// The next transactions take so long between decision and commit.
    pub(crate) fn delay(&self, delays_ms: &[u64]) {
        self.0.delays_ms.borrow_mut().extend(delays_ms);
    }

    /// How many transactions began.
    pub(crate) fn transactions(&self) -> usize {
        self.0.transactions.get()
    }

    /// How many transactions stored something.
    pub(crate) fn commits(&self) -> usize {
        self.0.commits.get()
    }

    /// How many rows there are of generations, and of their candidates.
    pub(crate) fn row_counts(&self) -> (usize, usize) {
        let rows = self.0.rows.borrow();
        (rows.generations.len(), rows.candidates.len())
    }

    /// How many decisions were made, those that were dropped included.
    pub(crate) fn decisions(&self) -> usize {
        self.0.decisions.get()
    }

    /// How often the storage was deleted.
    pub(crate) fn deletions(&self) -> usize {
        self.0.deletions.get()
    }

    /// Whether a fault of [`ScriptedStore::fail`] has occurred.
    pub(crate) fn has_failed(&self) -> bool {
        self.0.has_failed.get()
    }

    /// Whether nothing is stored.
    pub(crate) fn is_empty(&self) -> bool {
        *self.0.rows.borrow() == Rows::default()
    }

    /// Whether the stored state is no longer needed.
    pub(crate) fn is_idle(&self) -> bool {
        self.state().is_idle(self.0.host.now_ms())
    }

    /// The stored state.
    pub(crate) fn state(&self) -> UserState {
        self.0.rows.borrow().load(self.1, self.0.host.now_ms())
    }

    /// Whether a candidate is stored.
    pub(crate) fn has_candidate(&self, id: &str) -> bool {
        self.0.rows.borrow().candidates.values().any(|batch| batch.contains(id))
    }

    /// The moment of the alarm.
    pub(crate) fn alarm_ms(&self) -> Option<u64> {
        self.0.alarms_ms.borrow().get(&self.1).copied()
    }

    /// Each alarm that was set: when, and for when.
    pub(crate) fn alarms(&self) -> Vec<(u64, u64)> {
        self.0.alarms.borrow().clone()
    }

    /// The alarm goes off.
    pub(crate) fn take_alarm(&self) -> Option<u64> {
        self.0.alarms_ms.borrow_mut().remove(&self.1)
    }

    /// Everything is lost.
    pub(crate) fn clear(&self) {
        self.0.rows.take();
        self.0.memory.take();
        self.0.alarms_ms.take();
    }

    /// The process ends, and with it the state in memory, and an alarm that no platform keeps.
    pub(crate) fn forget(&self) {
        self.0.memory.take();
        self.0.credentials.borrow_mut().retain(|(isolate, _), _| *isolate != self.1);
        if self.is_shared() {
            self.take_alarm();
        }
    }

    /// The same store, for another isolate.
    pub(crate) fn for_isolate(&self, isolate: usize) -> Self {
        Self(Rc::clone(&self.0), isolate)
    }

    fn load(&self) -> UserState {
        let memory = if self.0.mode == Mode::Memory { self.0.memory.take() } else { None };
        let mut state = memory.unwrap_or_else(|| self.state());
        for generation in state.generations.iter_mut().filter(|generation| !generation.has_token()) {
            if let Some(known) = self.0.credentials.borrow().get(&(self.1, generation.accepted.id)) {
                generation.accepted.credentials = known.clone();
            }
        }
        state
    }

    fn remember(&self, state: &UserState) {
        for generation in state.generations.iter().filter(|generation| generation.has_token()) {
            let credentials = generation.accepted.credentials.clone();
            self.0.credentials.borrow_mut().insert((self.1, generation.accepted.id), credentials);
        }
    }

    fn fault(&self, number: usize) -> Option<Fault> {
        let fault = self.0.faults.borrow_mut().get_mut(&number).and_then(VecDeque::pop_front);
        self.0.has_failed.set(self.0.has_failed.get() || fault.is_some());
        fault
    }

    /// As [`ai_sessions::ports::UserStore::transact`].
    pub(crate) async fn transact(
        &self,
        decide: &mut dyn FnMut(&mut UserState) -> WriteSet,
    ) -> Result<(), StoreError> {
        let shared = &*self.0;
        let number = shared.transactions.replace(shared.transactions.get() + 1);
        let delay_ms = shared.delays_ms.borrow_mut().pop_front().unwrap_or(0);
        loop {
            let fault = self.fault(number);
            if fault == Some(Fault::BeforeDecision) || self.is_down() {
                shared.memory.take();
                return Err(StoreError);
            }
            let version = shared.version.get();
            let mut state = self.load();
            shared.decisions.set(shared.decisions.get() + 1);
            let writes = decide(&mut state);
            if delay_ms > 0 && shared.mode != Mode::Memory {
                shared.host.sleep(delay_ms).await;
            }
            if shared.is_read_only.get() && !writes.is_empty() {
                shared.memory.take();
                return Err(StoreError);
            }
            if fault == Some(Fault::Conflict) || (shared.version.get() != version && !writes.is_empty()) {
                shared.memory.take();
                continue;
            }
            let mut rows = shared.rows.borrow().clone();
            let now_ms = shared.host.now_ms();
            let half = writes.writes().len() / 2;
            let is_last = |write: &Write| writes.writes().last() == Some(write);
            assert!(
                !writes.writes().contains(&Write::RemoveAll) || is_last(&Write::RemoveAll),
                "no table is there after everything was removed"
            );
            for (index, write) in writes.writes().iter().enumerate() {
                if fault == Some(Fault::Halfway) && index >= half {
                    break;
                }
                rows.write(&state, *write, (shared.mode, self.1), now_ms);
            }
            if matches!(fault, Some(Fault::AfterDecision | Fault::Halfway)) {
                return Err(StoreError);
            }
            if !writes.is_empty() {
                shared.version.set(version + 1);
                shared.commits.set(shared.commits.get() + 1);
                *shared.rows.borrow_mut() = rows;
            }
            if fault == Some(Fault::LostReply) {
                shared.memory.take();
                return Err(StoreError);
            }
            self.remember(&state);
            *shared.memory.borrow_mut() = Some(state);
            return Ok(());
        }
    }

    /// As [`ai_sessions::ports::UserStore::peek`].
    pub(crate) fn peek(&self, look: &mut dyn FnMut(&UserState)) -> Result<(), StoreError> {
        if count_down(&self.0.peek_faults) || self.is_down() {
            return Err(StoreError);
        }
        let state = self.load();
        look(&state);
        *self.0.memory.borrow_mut() = Some(state);
        Ok(())
    }

    /// As [`ai_sessions::ports::UserStore::set_alarm`].
    pub(crate) fn set_alarm(&self, at_ms: u64, now_ms: u64) -> Result<(), StoreError> {
        if count_down(&self.0.alarm_faults) {
            return Err(StoreError);
        }
        self.0.alarms_ms.borrow_mut().insert(self.1, at_ms);
        self.0.alarms.borrow_mut().push((now_ms, at_ms));
        Ok(())
    }

    /// As [`ai_sessions::ports::UserStore::delete`].
    pub(crate) fn delete(&self) -> Result<(), StoreError> {
        if count_down(&self.0.delete_faults) {
            return Err(StoreError);
        }
        let shared = &*self.0;
        assert!(self.state().is_empty(), "only an empty state is deleted");
        shared.rows.take();
        shared.memory.take();
        shared.alarms_ms.take();
        shared.deletions.set(shared.deletions.get() + 1);
        Ok(())
    }
}

impl ScriptedStore {
    /// As [`ai_sessions::ports::UserStore::is_shared`].
    pub(crate) fn is_shared(&self) -> bool {
        self.0.mode == Mode::Shared
    }

    /// As [`ai_sessions::ports::UserStore::renew`].
    pub(crate) fn renew(&self, id: Uuid) -> Result<Lease, StoreError> {
        if self.is_down() || self.0.is_read_only.get() {
            return Err(StoreError);
        }
        let now_ms = self.0.host.now_ms();
        let mut rows = self.0.rows.borrow_mut();
        let row = rows.generations.get_mut(&id);
        let is_own = |row: &&mut GenerationRow| {
            row.runner.is_some_and(|(runner, until_ms)| runner == self.1 && until_ms > RELEASED_MS)
        };
        let Some(row) = row.filter(is_own) else { return Ok(Lease::Lost) };
        row.runner = Some((self.1, now_ms + LEASE_MS));
        Ok(Lease::Renewed { is_stop_requested: row.is_stop_requested })
    }

    /// As [`ai_sessions::ports::UserStore::poll`].
    pub(crate) fn poll(&self, id: Uuid, from: usize) -> Result<Option<Polled>, StoreError> {
        // The database reads a position as `integer`.
        if self.is_down() || self.0.has_no_polls.get() || i32::try_from(from).is_err() {
            return Err(StoreError);
        }
        let rows = self.0.rows.borrow();
        let Some(row) = rows.generations.get(&id) else { return Ok(None) };
        let batches = rows.candidates.range((id, from)..=(id, usize::MAX));
        let candidates = batches.flat_map(|(_, batch)| read_batch(batch).expect("a batch is readable"));
        Ok(Some(Polled {
            started_ms: row.started_ms(),
            ending: row.ending.as_deref().map(|ending| read_ending(ending).expect("an ending is readable")),
            driver: row.driver(self.1, self.0.host.now_ms()),
            is_stop_requested: row.is_stop_requested,
            candidates: candidates.collect(),
        }))
    }

    /// As [`ai_sessions::ports::UserStore::request_stop`].
    pub(crate) fn request_stop(&self, id: Uuid, started_ms: u64) -> Result<bool, StoreError> {
        self.0.stop_requests.set(self.0.stop_requests.get() + 1);
        assert!(self.0.stop_requests.get() < 1_000, "a thousand requests for a stop");
        if self.is_down() || self.0.is_read_only.get() {
            return Err(StoreError);
        }
        let state = self.state();
        let is_in_progress =
            state.find(id).is_some_and(|found| found.started_ms == started_ms && found.ending.is_none());
        if is_in_progress && let Some(row) = self.0.rows.borrow_mut().generations.get_mut(&id) {
            row.is_stop_requested = true;
        }
        Ok(is_in_progress)
    }
}

/// Whether one is left, which is used then.
fn count_down(count: &Cell<usize>) -> bool {
    let left = count.get();
    count.set(left.saturating_sub(1));
    left > 0
}

impl GenerationRow {
    fn started_ms(&self) -> u64 {
        let record: Value = serde_json::from_str(&self.record).expect("a record is JSON");
        record.get("started_ms").and_then(Value::as_u64).expect("a record has the start of its run")
    }

    fn driver(&self, isolate: usize, now_ms: u64) -> Driver {
        match self.runner {
            None => Driver::None,
            Some((runner, _)) if runner == isolate => Driver::Own,
            Some((_, until_ms)) if until_ms > now_ms => Driver::Other,
            Some(_) => Driver::Lapsed,
        }
    }

    fn stored(&self, isolate: usize, now_ms: u64) -> StoredGeneration {
        StoredGeneration {
            record: self.record.clone(),
            ending: self.ending.clone(),
            driver: self.driver(isolate, now_ms),
            is_stop_requested: self.is_stop_requested,
        }
    }
}

impl Rows {
    fn load(&self, isolate: usize, now_ms: u64) -> UserState {
        let mut generations: Vec<&GenerationRow> = self.generations.values().collect();
        generations.sort_by_key(|row| row.started_ms());
        let candidates = self.candidates.iter().map(|((id, _), batch)| (id.to_string(), batch.clone()));
        let rows = StoredRows {
            ledger: self.ledger.clone(),
            generations: generations.into_iter().map(|row| row.stored(isolate, now_ms)).collect(),
            candidates: candidates.collect(),
            idempotency_records: self.idempotency.values().map(|(_, record)| record.clone()).collect(),
        };
        load(&rows).expect("the records are readable")
    }

    /// As each host writes; the primary keys are the same.
    fn write(&mut self, state: &UserState, write: Write, (mode, isolate): (Mode, usize), now_ms: u64) {
        match write {
            Write::Ledger => self.ledger = Some(ledger_record(state)),
            Write::Generation(id) => {
                let Some(generation) = state.find(id) else { return };
                let is_shared = mode == Mode::Shared;
                let written = if is_shared { record_without_token(generation) } else { to_json(generation) };
                let row = self.generations.entry(id).or_default();
                row.record = written;
                row.ending = generation.ending.as_ref().map(|ending| to_json(ending));
            }
            Write::Ending(id) => {
                let ending = state.find(id).and_then(|generation| generation.ending.as_ref());
                let (Some(ending), Some(row)) = (ending, self.generations.get_mut(&id)) else { return };
                row.ending = Some(to_json(ending));
            }
            Write::Lease(_) | Write::Release(_) if mode != Mode::Shared => {}
            Write::Lease(id) => {
                let row = self.generations.get_mut(&id).expect("a generation with a lease is stored");
                row.runner = Some((isolate, now_ms + LEASE_MS));
            }
            Write::Release(id) => {
                let row = self.generations.get_mut(&id).expect("a generation with a lease is stored");
                row.runner = Some((isolate, RELEASED_MS));
            }
            Write::Candidates(id, from) => {
                let Some(generation) = state.find(id) else { return };
                let earlier = self.candidates.insert((id, from), batch(generation, from));
                assert_eq!(earlier, None, "a position is written once");
            }
            Write::RemoveGeneration(id) => {
                self.generations.remove(&id);
                self.candidates.retain(|(generation, _), _| *generation != id);
            }
            Write::IdempotencyRecord(id) => {
                let Some(found) = state.records.iter().find(|record| record.session_id == id) else { return };
                let json = to_json(found);
                self.idempotency.insert(id, (found.expires_ms(), json));
            }
            Write::RemoveIdempotencyRecords(until_ms) => {
                self.idempotency.retain(|_, (expires_ms, _)| *expires_ms > until_ms);
            }
            Write::RemoveAll => *self = Self::default(),
        }
    }
}
