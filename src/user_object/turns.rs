//! A lock whose waiters get it in the order of their arrival.
//!
//! `futures_util::lock::Mutex` wakes any of its waiters, and one that arrives meanwhile may be faster: under a continuous load of
//! one user, some requests waited for as long as the load.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// The lock. All tasks that wait for it share one thread.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// INVARIANT: true while a [`Turn`] exists, so only then is there a waiter.
    is_taken: Cell<bool>,
    waiters: RefCell<VecDeque<Rc<Waiter>>>,
}

#[derive(Debug, Default)]
struct Waiter {
    has_turn: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// The turn of one task; its drop passes it on.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let Some(next) = self.0.waiters.borrow_mut().pop_front() else {
            self.0.is_taken.set(false);
            return;
        };
        next.has_turn.set(true);
        if let Some(waker) = next.waker.take() {
            waker.wake();
        }
    }
}

/// A place among the waiters, until it has become a turn.
struct Place<'a> {
    turns: &'a Turns,
    waiter: Rc<Waiter>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.waiter.has_turn.get() {
            drop(Turn(self.turns)); // passed to a task that has stopped waiting
        } else {
            self.turns.waiters.borrow_mut().retain(|waiter| !Rc::ptr_eq(waiter, &self.waiter));
        }
    }
}

impl Turns {
    /// Waits for the turns of all tasks that have called it before.
    pub(super) async fn next(&self) -> Turn<'_> {
        if !self.is_taken.replace(true) {
            return Turn(self);
        }
        let place = Place { turns: self, waiter: Rc::default() };
        self.waiters.borrow_mut().push_back(Rc::clone(&place.waiter));
        poll_fn(|context| {
            if place.waiter.has_turn.take() {
                return Poll::Ready(());
            }
            *place.waiter.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
        Turn(self)
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn turns_are_in_the_order_of_arrival() {
        let turns = Turns::default();
        let first = turns.next().now_or_never().expect("it is free");
        let mut context = std::task::Context::from_waker(Waker::noop());
        let (mut second, mut third) = (pin!(turns.next()), pin!(turns.next()));
        assert!(second.as_mut().poll(&mut context).is_pending());
        assert!(third.as_mut().poll(&mut context).is_pending());
        drop(first);
        assert!(turns.next().now_or_never().is_none(), "a later task waits");
        assert!(third.as_mut().poll(&mut context).is_pending());
        let Poll::Ready(turn) = second.as_mut().poll(&mut context) else { panic!("it is the second's turn") };
        drop(turn);
        assert!(third.as_mut().poll(&mut context).is_ready());
        assert!(turns.next().now_or_never().is_some(), "it is free again");
    }

    #[test]
    fn a_task_that_stops_waiting_passes_its_turn_on() {
        for has_turn in [false, true] {
            let turns = Turns::default();
            let first = turns.next().now_or_never().expect("it is free");
            let mut context = std::task::Context::from_waker(Waker::noop());
            let mut second = Box::pin(turns.next());
            let mut third = pin!(turns.next());
            assert!(second.as_mut().poll(&mut context).is_pending());
            assert!(third.as_mut().poll(&mut context).is_pending());
            if has_turn {
                drop(first);
                drop(second);
            } else {
                drop(second);
                drop(first);
            }
            assert!(third.as_mut().poll(&mut context).is_ready(), "{has_turn}");
        }
    }
}
