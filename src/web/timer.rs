//! Waiting.

use super::WebHost;
use super::operations::Operation;
use crate::ports::Timer;

impl<T: WebHost> Timer for T {
    async fn sleep(&self, ms: u64) {
        sleep(ms).await;
    }
}

/// Ends after `ms` milliseconds, never before.
pub(crate) async fn sleep(ms: u64) {
    Operation::timer(ms).await;
}
