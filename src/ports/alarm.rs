//! Waiting for something until a moment, with as few timers as can be: each timer is a crossing to the host
//! and back, and an answer comes in hundreds of pieces that each push the moment a little further away.
//!
//! So a timer is set anew only when it has to ring *earlier*; when it rings too early it is set to what is
//! left.

use std::pin::Pin;

use futures_util::future::{Either, select};

use super::{Clock, Timer};

type Sleep<'h> = Pin<Box<dyn Future<Output = ()> + 'h>>;

/// A timer for one wait after the other.
pub struct Alarm<'h, H> {
    host: &'h H,
    /// When it rings, and the timer.
    timer: Option<(u64, Sleep<'h>)>,
}

impl<'h, H: Clock + Timer> Alarm<'h, H> {
    /// No timer yet.
    #[must_use]
    pub const fn new(host: &'h H) -> Self {
        Self { host, timer: None }
    }

    /// What `work` comes to, or `None` when it has not come to an end at `due_ms` (milliseconds since the
    /// Unix epoch). `work` is looked at first: what is there counts, however late it is.
    pub async fn until<W: Future>(&mut self, due_ms: u64, mut work: Pin<&mut W>) -> Option<W::Output> {
        loop {
            let (rings_ms, timer) = match self.timer.take() {
                Some((rings_ms, timer)) if rings_ms <= due_ms => (rings_ms, timer),
                _ => {
                    let host = self.host;
                    let left_ms = due_ms.saturating_sub(host.now_ms());
                    let timer: Sleep<'h> = Box::pin(host.sleep(left_ms));
                    (due_ms, timer)
                }
            };
            match select(work.as_mut(), timer).await {
                Either::Left((output, timer)) => {
                    self.timer = Some((rings_ms, timer));
                    return Some(output);
                }
                Either::Right(((), _)) if self.host.now_ms() >= due_ms => return None,
                Either::Right(((), _)) => {}
            }
        }
    }
}
