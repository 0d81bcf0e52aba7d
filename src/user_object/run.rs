//! A run: a generation that this object drives or follows now, with the tasks that wait for it. All tasks of one object share one
//! thread.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use uuid::Uuid;

use super::reply::LogFields;
use super::session_view::SessionView;
use crate::user_state::generation::{Generation, SessionCandidate};

/// A generation that is driven now, until its ending is persisted or left to a later job; or one that another isolate drives,
/// and that this one follows.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) id: Uuid,
    /// The 1-based number of the session's run.
    pub(super) number: u32,
    role: Cell<Role>,
    /// Whether a decision that makes this object the driver is being stored.
    is_reserved: Cell<bool>,
    /// How often this object became the driver.
    drives: Cell<u32>,
    /// The candidates that are stored: a subscriber receives no other, so that a crash loses none of them.
    stored: RefCell<Vec<Rc<SessionCandidate>>>,
    result: RefCell<Option<Rc<RunResult>>>,
    has_ended: Cell<bool>,
    is_stopped: Cell<bool>,
    /// Whether it was in progress at a crash, and the database has to be checked before it continues.
    is_resumed: Cell<bool>,
    /// Whether its trace is sampled, as far as its stages have seen.
    is_traced: Cell<bool>,
    /// When its answer ended, which the database gets now.
    ended_ms: Cell<Option<u64>>,
    /// No other isolate can have taken the run over before this moment and 10 s.
    leased_ms: Cell<u64>,
    /// Whether another isolate drives it: this one must not continue.
    is_lost: Cell<bool>,
    subscribers: Cell<usize>,
    /// When the store last said whether another isolate has requested a stop.
    checked_ms: Cell<u64>,
    /// The task that drives or follows the run, while it waits.
    driver: RefCell<Option<Waker>>,
    /// The tasks that wait for an update.
    wakers: RefCell<Vec<Waker>>,
    /// How often all were woken: shows whether a waker is still registered.
    wakes: Cell<u64>,
}

/// The part of this object in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It drives the run.
    Driver,
    /// It polls what the driver, in another isolate, has stored.
    Follower,
}

/// The result of a run.
#[derive(Debug)]
pub(super) struct RunResult {
    /// The session with its end.
    pub(super) session: SessionView,
    /// The log fields of a request that has waited for the end.
    pub(super) log: LogFields,
}

impl Run {
    pub(super) fn new(generation: &Generation, role: Role) -> Self {
        Self {
            id: generation.accepted.id,
            number: generation.accepted.run,
            role: Cell::new(role),
            is_reserved: Cell::default(),
            drives: Cell::default(),
            stored: RefCell::new(generation.candidates.clone()),
            result: RefCell::default(),
            has_ended: Cell::default(),
            is_stopped: Cell::default(),
            is_resumed: Cell::default(),
            is_traced: Cell::new(true),
            ended_ms: Cell::default(),
            leased_ms: Cell::default(),
            is_lost: Cell::default(),
            subscribers: Cell::default(),
            checked_ms: Cell::default(),
            driver: RefCell::default(),
            wakers: RefCell::default(),
            wakes: Cell::default(),
        }
    }

    /// Adds candidates that are stored.
    pub(super) fn add_stored(&self, candidates: Vec<Rc<SessionCandidate>>) {
        self.stored.borrow_mut().extend(candidates);
        self.wake_all();
    }

    /// The stored candidates from a position on.
    pub(super) fn stored_from(&self, position: usize) -> Vec<Rc<SessionCandidate>> {
        self.stored.borrow().get(position..).unwrap_or_default().to_vec()
    }

    /// Replaces the candidates by all that are stored: a follower that becomes the driver may have received fewer.
    pub(super) fn set_stored(&self, candidates: &[Rc<SessionCandidate>]) {
        *self.stored.borrow_mut() = candidates.to_vec();
        self.wake_all();
    }

    /// The number of the stored candidates.
    pub(super) fn stored_count(&self) -> usize {
        self.stored.borrow().len()
    }

    pub(super) fn is_driver(&self) -> bool {
        self.role.get() == Role::Driver
    }

    pub(super) fn set_role(&self, role: Role) {
        self.role.set(role);
    }

    pub(super) const fn is_reserved(&self) -> bool {
        self.is_reserved.get()
    }

    pub(super) fn set_reserved(&self, is_reserved: bool) {
        self.is_reserved.set(is_reserved);
        self.wake_all();
    }

    /// Counts another start of the driver.
    pub(super) fn count_drive(&self) -> u32 {
        self.is_lost.set(false);
        self.drives.set(self.drives.get().saturating_add(1));
        self.drives.get()
    }

    /// Whether no later driver was started.
    pub(super) fn is_last_drive(&self, drive: u32) -> bool {
        self.drives.get() == drive
    }

    /// Ends the run; without a result when the storage failed.
    pub(super) fn end(&self, result: Option<RunResult>) {
        *self.result.borrow_mut() = result.map(Rc::new);
        self.has_ended.set(true);
        self.wake_all();
    }

    /// The result of the run: `None` before its end, `Some(None)` when the storage failed.
    pub(super) fn result(&self) -> Option<Option<Rc<RunResult>>> {
        self.has_ended.get().then(|| self.result.borrow().clone())
    }

    /// Waits for the end of the run.
    pub(super) async fn finished(&self) -> Option<Rc<RunResult>> {
        self.until(|| self.result()).await
    }

    /// Stops the generation.
    pub(super) fn stop(&self) {
        self.is_stopped.set(true);
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    /// Ends the driver of this isolate, because another isolate has taken the run over.
    pub(super) fn lose(&self) {
        self.is_lost.set(true);
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    pub(super) const fn is_lost(&self) -> bool {
        self.is_lost.get()
    }

    pub(super) const fn is_stopped(&self) -> bool {
        self.is_stopped.get()
    }

    /// Waits for the stop, in the one task that drives or follows the run.
    pub(super) fn poll_stop(&self, context: &Context<'_>) -> Poll<()> {
        if self.is_stopped() {
            return Poll::Ready(());
        }
        let mut driver = self.driver.borrow_mut();
        if !driver.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
            *driver = Some(context.waker().clone());
        }
        Poll::Pending
    }

    pub(super) fn set_resumed(&self) {
        self.is_resumed.set(true);
    }

    /// Whether it has to be resumed; only once.
    pub(super) fn take_resumed(&self) -> bool {
        self.is_resumed.take()
    }

    pub(super) const fn is_traced(&self) -> bool {
        self.is_traced.get()
    }

    pub(super) fn set_traced(&self, is_traced: bool) {
        self.is_traced.set(is_traced);
    }

    pub(super) const fn ended_ms(&self) -> Option<u64> {
        self.ended_ms.get()
    }

    pub(super) fn set_ended_ms(&self, ended_ms: Option<u64>) {
        self.ended_ms.set(ended_ms);
    }

    pub(super) const fn leased_ms(&self) -> u64 {
        self.leased_ms.get()
    }

    pub(super) fn set_leased_ms(&self, now_ms: u64) {
        self.leased_ms.set(now_ms);
    }

    pub(super) const fn checked_ms(&self) -> u64 {
        self.checked_ms.get()
    }

    pub(super) fn set_checked_ms(&self, now_ms: u64) {
        self.checked_ms.set(now_ms);
    }

    pub(super) const fn subscribers(&self) -> usize {
        self.subscribers.get()
    }

    /// Counts a subscriber. The driver stores what it holds, so that it is sent.
    pub(super) fn subscribe(&self) {
        self.subscribers.set(self.subscribers.get().saturating_add(1));
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    pub(super) fn unsubscribe(&self) {
        self.subscribers.set(self.subscribers.get().saturating_sub(1));
    }

    /// Waits until `look` returns a value; it is called again after each change.
    pub(super) async fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        let mut registered: Option<(u64, Waker)> = None;
        poll_fn(|context| {
            if let Some(found) = look() {
                return Poll::Ready(found);
            }
            // A task that something else has woken is not registered twice.
            let (wakes, waker) = (self.wakes.get(), context.waker());
            let is_registered = |(at, known): &(u64, Waker)| *at == wakes && known.will_wake(waker);
            if !registered.as_ref().is_some_and(is_registered) {
                self.wakers.borrow_mut().push(waker.clone());
                registered = Some((wakes, waker.clone()));
            }
            Poll::Pending
        })
        .await
    }

    fn wake_all(&self) {
        self.wakes.set(self.wakes.get().wrapping_add(1));
        for waker in self.wakers.take() {
            waker.wake();
        }
    }
}
