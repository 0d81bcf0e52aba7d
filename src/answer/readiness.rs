//! When `GET /health/ready` asks the dependencies, and when it says what it said before: at most once in 30 s of an
//! isolate, however many ask, so that nobody can use it to load them. Pure.

use crate::http::Answer;

/// For how long an answer holds.
pub const HOLDS_MS: u64 = 30_000;
/// A check that has not ended by then was lost with the request that made it. Longer than a check may take.
pub const CHECKING_MS: u64 = 10_000;

/// The last answer, and whether a new one is on its way.
#[derive(Debug, Default)]
pub struct Readiness {
    last: Option<(u64, Answer)>,
    checking_since_ms: Option<u64>,
}

/// What to do for somebody who asks.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Say this again.
    Say(Answer),
    /// Ask the dependencies.
    Check,
    /// Somebody is asking them: wait a moment, then look again.
    Wait,
}

impl Readiness {
    /// What to do now. [`Next::Check`] is said to one.
    pub fn next(&mut self, now_ms: u64) -> Next {
        if let Some((at_ms, answer)) = &self.last
            && now_ms.saturating_sub(*at_ms) < HOLDS_MS
        {
            return Next::Say(answer.clone());
        }
        if self.checking_since_ms.is_some_and(|since_ms| now_ms.saturating_sub(since_ms) < CHECKING_MS) {
            return Next::Wait;
        }
        self.checking_since_ms = Some(now_ms);
        Next::Check
    }

    /// Keeps an answer.
    pub fn checked(&mut self, answer: Answer, now_ms: u64) {
        self.last = Some((now_ms, answer));
        self.checking_since_ms = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dependencies_are_asked_once_in_thirty_seconds() {
        let (t, answer) = (1_800_000_000_000, Answer::empty(200));
        let mut readiness = Readiness::default();
        assert_eq!(readiness.next(t), Next::Check);
        assert_eq!(readiness.next(t), Next::Wait);
        assert_eq!(readiness.next(t + CHECKING_MS - 1), Next::Wait);
        readiness.checked(answer.clone(), t + 100);
        assert_eq!(readiness.next(t + 100 + HOLDS_MS - 1), Next::Say(answer));
        assert_eq!(readiness.next(t + 100 + HOLDS_MS), Next::Check);
        assert_eq!(readiness.next(t + 100 + HOLDS_MS), Next::Wait);
    }

    #[test]
    fn a_check_whose_request_died_does_not_hold_up_the_others() {
        let mut readiness = Readiness::default();
        assert_eq!(readiness.next(0), Next::Check);
        assert_eq!(readiness.next(CHECKING_MS), Next::Check);
    }
}
