//! The wait before the next attempt at the model: exponential backoff with full jitter, within the deadline.
//!
//! Not for: whether a failure may be retried (`openrouter::failure::Failure::may_retry`).

/// The upper bound of the first wait. Shorter than a person notices, longer than the bursts that a provider answers with 429.
pub const BASE_MS: u64 = 500;
/// The longest wait without a `Retry-After`: with a deadline of a minute a longer one costs the last attempt.
pub const CAP_MS: u64 = 8_000;
/// The least time before the deadline for another attempt: a model's first candidate takes about as long.
pub const ATTEMPT_MS_MIN: u64 = 1_000;

/// A failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed {
    /// Attempts so far, this one included; 1 or more.
    pub attempts: u32,
    /// The most attempts.
    pub attempts_max: u32,
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// The end of the generation, on the same clock.
    pub deadline_ms: u64,
    /// The `Retry-After` of the model API, in seconds.
    pub retry_after_s: Option<u64>,
}

/// Returns the milliseconds before the next attempt, or `None` if there is none: all are used up, or the time until the
/// deadline is too short. `random_bits` distributes the wait evenly from 0 to its upper bound ("full jitter"), so that requests
/// that failed together are not repeated together; a `Retry-After` is waited for in full, with the jitter after it.
#[must_use]
pub fn wait_ms(failed: Failed, random_bits: u128) -> Option<u64> {
    if failed.attempts >= failed.attempts_max {
        return None;
    }
    let longest_ms = failed.deadline_ms.checked_sub(failed.now_ms)?.checked_sub(ATTEMPT_MS_MIN)?;
    let requested_ms = failed.retry_after_s.unwrap_or(0).saturating_mul(1000);
    if requested_ms > longest_ms {
        return None;
    }
    let doublings = failed.attempts.saturating_sub(1).min(16);
    let upper_ms = BASE_MS.saturating_mul(1 << doublings).min(CAP_MS);
    let jitter_ms = u64::try_from(random_bits % (u128::from(upper_ms) + 1)).unwrap_or(upper_ms);
    Some(requested_ms.saturating_add(jitter_ms).min(longest_ms))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: Failed = Failed {
        attempts: 1,
        attempts_max: 3,
        now_ms: 1_000_000,
        deadline_ms: 1_060_000,
        retry_after_s: None,
    };

    #[test]
    fn the_wait_is_random_up_to_a_bound_that_doubles_to_the_cap() {
        for (attempts, upper_ms) in
            [(1, 500), (2, 1_000), (3, 2_000), (5, 8_000), (6, 8_000), (u32::MAX - 1, 8_000)]
        {
            let failed = Failed { attempts, attempts_max: u32::MAX, ..FIRST };
            assert_eq!(wait_ms(failed, 0), Some(0));
            assert_eq!(wait_ms(failed, upper_ms), Some(u64::try_from(upper_ms).unwrap()));
            assert_eq!(wait_ms(failed, upper_ms + 1), Some(0));
        }
    }

    #[test]
    fn no_attempt_follows_the_last_one() {
        for (attempts, attempts_max, again) in
            [(1, 1, false), (1, 2, true), (2, 2, false), (3, 2, false), (2, 3, true)]
        {
            assert_eq!(wait_ms(Failed { attempts, attempts_max, ..FIRST }, 7).is_some(), again);
        }
    }

    #[test]
    fn no_wait_goes_past_the_deadline() {
        for (left_ms, random_bits, expected) in [
            (1_000, 400, Some(0)),
            (999, 0, None),
            (0, 0, None),
            (1_300, 400, Some(300)),
            (1_300, 200, Some(200)),
        ] {
            let failed = Failed { deadline_ms: FIRST.now_ms + left_ms, ..FIRST };
            assert_eq!(wait_ms(failed, random_bits), expected, "{left_ms}");
        }
        assert_eq!(wait_ms(Failed { deadline_ms: FIRST.now_ms - 1, ..FIRST }, 0), None);
    }

    #[test]
    fn a_retry_after_is_waited_in_full_or_not_at_all() {
        for (retry_after_s, random_bits, expected) in [
            (0, 3, Some(3)),
            (7, 0, Some(7_000)),
            (7, 250, Some(7_250)),
            (59, 250, Some(59_000)),
            (60, 0, None),
            (u64::MAX, 0, None),
        ] {
            let failed = Failed { retry_after_s: Some(retry_after_s), ..FIRST };
            assert_eq!(wait_ms(failed, random_bits), expected, "{retry_after_s}");
        }
    }

    proptest! {
        #[test]
        fn every_wait_leaves_time_for_an_attempt(
            attempts in 1u32..20, now_ms in any::<u64>(), deadline_ms in any::<u64>(),
            retry_after_s in proptest::option::of(0u64..100), random_bits in any::<u128>(),
        ) {
            let failed = Failed { attempts, attempts_max: 20, now_ms, deadline_ms, retry_after_s };
            if let Some(wait_ms) = wait_ms(failed, random_bits) {
                prop_assert!(now_ms + wait_ms + ATTEMPT_MS_MIN <= deadline_ms);
                prop_assert!(wait_ms >= retry_after_s.unwrap_or(0) * 1000);
            }
        }
    }
}
