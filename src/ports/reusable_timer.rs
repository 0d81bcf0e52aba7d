//! Waiting until a moment, with few timers of the host: each is a crossing and back, and a response arrives in hundreds of chunks
//! that each move the moment a little.
//!
//! A timer is set anew only when it has to fire *earlier*; when it fires too early it is set to the remaining time.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::{Clock, Timer};

type Sleep<'h> = Pin<Box<dyn Future<Output = ()> + 'h>>;

/// A timer for one wait after another.
pub struct ReusableTimer<'h, H> {
    host: &'h H,
    /// The moment at which it ends.
    timer: Option<(u64, Sleep<'h>)>,
}

impl<H> fmt::Debug for ReusableTimer<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReusableTimer").finish_non_exhaustive()
    }
}

impl<'h, H: Clock + Timer> ReusableTimer<'h, H> {
    /// No timer yet.
    #[must_use]
    pub const fn new(host: &'h H) -> Self {
        Self { host, timer: None }
    }

    /// Ready at `due_ms` (milliseconds since the Unix epoch), never before.
    pub fn poll(&mut self, due_ms: u64, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let (at_ms, mut timer) = match self.timer.take() {
                Some((at_ms, timer)) if at_ms <= due_ms => (at_ms, timer),
                _ => {
                    let host = self.host;
                    let left_ms = due_ms.saturating_sub(host.now_ms());
                    let timer: Sleep<'h> = Box::pin(host.sleep(left_ms));
                    (due_ms, timer)
                }
            };
            if timer.as_mut().poll(context).is_pending() {
                self.timer = Some((at_ms, timer));
                return Poll::Pending;
            }
            if self.host.now_ms() >= due_ms {
                return Poll::Ready(());
            }
        }
    }

    /// The result of `work`, or `None` when it has none at `due_ms`. `work` is polled first: a result counts, however late.
    pub async fn until<W: Future>(&mut self, due_ms: u64, mut work: Pin<&mut W>) -> Option<W::Output> {
        poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending => self.poll(due_ms, context).map(|()| None),
        })
        .await
    }
}
