//! When `GET /health/ready` checks the dependencies: at most once in 30 s of an isolate, whatever the number of requests, so that
//! no caller can load them. And since when each has been down, as far as this isolate has checked. Pure.

use crate::http::Response;

/// The validity of a result.
pub const VALID_MS: u64 = 30_000;
/// A check that has not ended by then was lost with the request that made it. Longer than a check may take.
pub const CHECKING_MS: u64 = 10_000;

/// The dependencies, in the order of their rows: the signing keys, the database, the model API.
pub const DEPENDENCIES: usize = 3;

/// The last result, and whether a check is in progress.
#[derive(Debug, Default)]
pub struct Readiness {
    last: Option<(u64, Response)>,
    checking_since_ms: Option<u64>,
    /// Of each dependency whose last check failed: the time of the first failed check since it was last available.
    down_since_ms: [Option<u64>; DEPENDENCIES],
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

    /// Records a check of all dependencies that began at `began_ms`. Returns since when each has been down; `None` for one that is
    /// available.
    pub fn since(&mut self, ok: [bool; DEPENDENCIES], began_ms: u64) -> [Option<u64>; DEPENDENCIES] {
        for (since_ms, ok) in self.down_since_ms.iter_mut().zip(ok) {
            *since_ms = if ok { None } else { since_ms.or(Some(began_ms)) };
        }
        self.down_since_ms
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
    fn a_dependency_is_down_since_its_first_failed_check() {
        let mut readiness = Readiness::default();
        // The first check ever fails; the next ones keep its time, and another dependency has a time of its own.
        assert_eq!(readiness.since([true, false, true], 1_000), [None, Some(1_000), None]);
        assert_eq!(readiness.since([true, false, true], 31_000), [None, Some(1_000), None]);
        assert_eq!(readiness.since([true, false, false], 61_000), [None, Some(1_000), Some(61_000)]);
        // Available again: the time is forgotten, and the next outage has its own.
        assert_eq!(readiness.since([true, true, false], 91_000), [None, None, Some(61_000)]);
        assert_eq!(readiness.since([true, false, false], 121_000), [None, Some(121_000), Some(61_000)]);
    }

    #[test]
    fn a_lost_check_does_not_block_the_others() {
        let mut readiness = Readiness::default();
        assert_eq!(readiness.next(0), Next::Check);
        assert_eq!(readiness.next(CHECKING_MS), Next::Check);
    }
}
