//! When `GET /health/ready` checks the dependencies: at most once in 30 s of an isolate, whatever the number of requests, so that
//! no caller can load them. Pure.

use crate::http::Response;

/// The validity of a result.
pub const VALID_MS: u64 = 30_000;
/// A check that has not ended by then was lost with the request that made it. Longer than a check may take.
pub const CHECKING_MS: u64 = 10_000;

/// The last result, and whether a check is in progress.
#[derive(Debug, Default)]
pub struct Readiness {
    last: Option<(u64, Response)>,
    checking_since_ms: Option<u64>,
}

/// The action for a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Send the last response again.
    Send(Response),
    /// Check the dependencies.
    Check,
    /// A check is in progress: wait a moment, then call again.
    Wait,
}

impl Readiness {
    /// Decides the action now. [`Next::Check`] is returned to one request.
    pub fn next(&mut self, now_ms: u64) -> Next {
        if let Some((at_ms, response)) = &self.last
            && now_ms.saturating_sub(*at_ms) < VALID_MS
        {
            return Next::Send(response.clone());
        }
        if self.checking_since_ms.is_some_and(|since_ms| now_ms.saturating_sub(since_ms) < CHECKING_MS) {
            return Next::Wait;
        }
        self.checking_since_ms = Some(now_ms);
        Next::Check
    }

    /// Stores the response of a check.
    pub fn checked(&mut self, response: Response, now_ms: u64) {
        self.last = Some((now_ms, response));
        self.checking_since_ms = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dependencies_are_checked_once_in_thirty_seconds() {
        let (t, response) = (1_800_000_000_000, Response::empty(200));
        let mut readiness = Readiness::default();
        assert_eq!(readiness.next(t), Next::Check);
        assert_eq!(readiness.next(t), Next::Wait);
        assert_eq!(readiness.next(t + CHECKING_MS - 1), Next::Wait);
        readiness.checked(response.clone(), t + 100);
        assert_eq!(readiness.next(t + 100 + VALID_MS - 1), Next::Send(response));
        assert_eq!(readiness.next(t + 100 + VALID_MS), Next::Check);
        assert_eq!(readiness.next(t + 100 + VALID_MS), Next::Wait);
    }

    #[test]
    fn a_lost_check_does_not_block_the_others() {
        let mut readiness = Readiness::default();
        assert_eq!(readiness.next(0), Next::Check);
        assert_eq!(readiness.next(CHECKING_MS), Next::Check);
    }
}
