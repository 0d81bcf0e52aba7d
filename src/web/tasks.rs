//! The tasks of this isolate. The end of an operation runs the tasks that it wakes in the same call of JavaScript: a queue of the
//! platform would cost two crossings and a microtask each time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use futures_util::future::LocalBoxFuture;

use super::clock::in_turn;
use super::operations::turn_later;

struct Task {
    /// `None` while it is polled.
    future: Option<LocalBoxFuture<'static, ()>>,
    waker: Waker,
}

#[derive(Default)]
struct Tasks {
    /// By number.
    tasks: Vec<Option<Task>>,
    free: Vec<usize>,
    /// The numbers of the tasks that were woken. One of a task that has ended wakes the next one with its number for nothing.
    woken: VecDeque<usize>,
    /// Whether a turn runs.
    is_running: bool,
}

thread_local! {
    static TASKS: RefCell<Tasks> = RefCell::default();
}

/// The waker of the task with this number.
struct Number(usize);

impl Wake for Number {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let is_outside = TASKS.with_borrow_mut(|tasks| {
            if !tasks.woken.contains(&self.0) {
                tasks.woken.push_back(self.0);
            }
            !tasks.is_running
        });
        // By a promise that is no operation.
        if is_outside {
            turn_later();
        }
    }
}

impl Tasks {
    fn insert(&mut self, future: LocalBoxFuture<'static, ()>) -> Waker {
        let number = self.free.pop().unwrap_or_else(|| {
            self.tasks.push(None);
            self.tasks.len().saturating_sub(1)
        });
        let waker = Waker::from(Arc::new(Number(number)));
        if let Some(slot) = self.tasks.get_mut(number) {
            *slot = Some(Task { future: Some(future), waker: waker.clone() });
        }
        waker
    }

    /// The next task that was woken, taken out for its poll.
    fn next(&mut self) -> Option<(usize, LocalBoxFuture<'static, ()>, Waker)> {
        while let Some(number) = self.woken.pop_front() {
            if let Some(Some(task)) = self.tasks.get_mut(number)
                && let Some(future) = task.future.take()
            {
                return Some((number, future, task.waker.clone()));
            }
        }
        None
    }

    fn put_back(&mut self, number: usize, future: LocalBoxFuture<'static, ()>) {
        if let Some(Some(task)) = self.tasks.get_mut(number) {
            task.future = Some(future);
        }
    }

    fn remove(&mut self, number: usize) {
        if let Some(slot) = self.tasks.get_mut(number) {
            *slot = None;
            self.free.push(number);
        }
    }
}

/// Starts a task, later in this turn or in one of its own.
pub(crate) fn spawn(future: LocalBoxFuture<'static, ()>) {
    TASKS.with_borrow_mut(|tasks| tasks.insert(future)).wake();
}

/// Starts a task for a call from the platform, in a turn of this call.
pub(crate) fn start(future: LocalBoxFuture<'static, ()>) {
    // No turn calls the platform's entry: an exception of JavaScript has left the one before.
    TASKS.with_borrow_mut(|tasks| tasks.is_running = false);
    turn(|| spawn(future));
}

/// A turn: wakes tasks, and runs all that are woken. Within another turn, that one runs them.
pub(super) fn turn(wake: impl FnOnce()) {
    let is_within = TASKS.with_borrow_mut(|tasks| std::mem::replace(&mut tasks.is_running, true));
    wake();
    if !is_within {
        run();
    }
}

fn run() {
    while let Some((number, mut future, waker)) = TASKS.with_borrow_mut(Tasks::next) {
        if in_turn(|| future.as_mut().poll(&mut Context::from_waker(&waker))).is_pending() {
            TASKS.with_borrow_mut(|tasks| tasks.put_back(number, future));
        } else {
            drop(future); // may wake others
            TASKS.with_borrow_mut(|tasks| tasks.remove(number));
        }
    }
    TASKS.with_borrow_mut(|tasks| tasks.is_running = false);
}
