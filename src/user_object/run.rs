//! A run: a generation that this object drives now, with the tasks that wait for it. All tasks of one object share one thread.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use uuid::Uuid;

use crate::user_state::generation::{Finished, Generation, SessionCandidate};

/// A generation that is driven now, until its ending is persisted or left to a later job.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) id: Uuid,
    /// The 1-based number of the session's run.
    pub(super) number: u32,
    /// The candidates that are stored: a subscriber receives no other, so that a crash loses none of them.
    stored: RefCell<Vec<Rc<SessionCandidate>>>,
    finished: RefCell<Option<Rc<Finished>>>,
    has_ended: Cell<bool>,
    is_stopped: Cell<bool>,
    subscribers: Cell<usize>,
    /// The task that drives the run, while it waits.
    driver: RefCell<Option<Waker>>,
    /// The tasks that wait for an update.
    wakers: RefCell<Vec<Waker>>,
    /// How often all were woken: shows whether a waker is still registered.
    wakes: Cell<u64>,
}

impl Run {
    pub(super) fn new(generation: &Generation) -> Self {
        Self {
            id: generation.accepted.id,
            number: generation.accepted.run,
            stored: RefCell::new(generation.candidates.clone()),
            finished: RefCell::default(),
            has_ended: Cell::default(),
            is_stopped: Cell::default(),
            subscribers: Cell::default(),
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

    /// Ends the run; without a result when the storage failed.
    pub(super) fn end(&self, finished: Option<Finished>) {
        *self.finished.borrow_mut() = finished.map(Rc::new);
        self.has_ended.set(true);
        self.wake_all();
    }

    /// The result of the run: `None` before its end, `Some(None)` when the storage failed.
    pub(super) fn result(&self) -> Option<Option<Rc<Finished>>> {
        self.has_ended.get().then(|| self.finished.borrow().clone())
    }

    /// Waits for the end of the run.
    pub(super) async fn finished(&self) -> Option<Rc<Finished>> {
        self.until(|| self.result()).await
    }

    /// Stops the generation.
    pub(super) fn stop(&self) {
        self.is_stopped.set(true);
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    pub(super) const fn is_stopped(&self) -> bool {
        self.is_stopped.get()
    }

    /// Waits for the stop, in the one task that drives the run.
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

    pub(super) const fn subscribers(&self) -> usize {
        self.subscribers.get()
    }

    pub(super) fn subscribe(&self) {
        self.subscribers.set(self.subscribers.get().saturating_add(1));
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
