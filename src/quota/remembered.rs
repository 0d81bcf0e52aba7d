//! Refusals by `burst` alone that an isolate remembers. A client that repeats its request too early then costs no call of the
//! user's object: a refused request is not counted, so each further one gets the same refusal until the time that the object has
//! sent with it ([`crate::user_state::UserState::refusal_lasts_ms`]).

use uuid::Uuid;

use super::ledger::{BURST, Refusal, UserQuota};

/// More refused users at a time than one isolate sees; some 140 bytes each.
const USERS_MAX: usize = 1024;

/// The refusal of each user that is at the limit.
#[derive(Debug, Default)]
pub struct RememberedRefusals {
    /// INVARIANT: at most `USERS_MAX`, one per user.
    users: Vec<Remembered>,
}

#[derive(Debug)]
struct Remembered {
    user_id: Uuid,
    retry_after_s: u64,
    quota: UserQuota,
    received_ms: u64,
    until_ms: u64,
}

impl RememberedRefusals {
    /// Remembers the refusal of a command that was sent and replied to at these times. It ends `lasts_ms` after the command was
    /// sent, which is no later than in the object.
    pub fn remember(
        &mut self,
        user_id: Uuid,
        (refusal, quota): (&Refusal, UserQuota),
        (sent_ms, received_ms): (u64, u64),
        lasts_ms: u64,
    ) {
        self.users.retain(|known| known.user_id != user_id && known.until_ms > received_ms);
        if self.users.len() >= USERS_MAX {
            self.users.remove(0);
        }
        let (retry_after_s, until_ms) = (refusal.retry_after_s, sent_ms.saturating_add(lasts_ms));
        self.users.push(Remembered { user_id, retry_after_s, quota, received_ms, until_ms });
    }

    /// The refusal of a user's next request, and the status of the quotas. Times are counted from the receipt, so that a client
    /// which waits for them waits for no less than the object requires.
    #[must_use]
    pub fn find(&self, user_id: Uuid, now_ms: u64) -> Option<(Refusal, UserQuota)> {
        let known = self.users.iter().find(|known| known.user_id == user_id)?;
        // A clock that has stepped back says nothing about the time that has passed.
        if now_ms >= known.until_ms || now_ms < known.received_ms {
            return None;
        }
        let passed_s = now_ms.saturating_sub(known.received_ms) / 1000;
        let left_s = |seconds: u64| seconds.saturating_sub(passed_s).max(1);
        let refusal = Refusal { violated: vec![BURST], retry_after_s: left_s(known.retry_after_s) };
        let mut quota = known.quota;
        for status in &mut quota.counts {
            status.more_in_s = status.more_in_s.map(left_s);
        }
        Some((refusal, quota))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::PolicyStatus;

    const ONE: Uuid = Uuid::from_u128(1);
    const T: u64 = 1_800_000_000_000;

    fn quota(more_in_s: u64) -> UserQuota {
        let status = |remaining, more_in_s| PolicyStatus { remaining, more_in_s };
        let counts = [status(0, Some(more_in_s)), status(49, Some(86_400)), status(150, None)];
        UserQuota { counts, spend: None }
    }

    fn refusal(retry_after_s: u64) -> Refusal {
        Refusal { violated: vec![BURST], retry_after_s }
    }

    /// Of a command that was sent at `T` and replied to 300 ms later.
    fn remembered(lasts_ms: u64) -> RememberedRefusals {
        let mut refusals = RememberedRefusals::default();
        refusals.remember(ONE, (&refusal(61), quota(61)), (T, T + 300), lasts_ms);
        refusals
    }

    #[test]
    fn a_refusal_is_repeated_with_the_seconds_that_are_left() {
        let refusals = remembered(60_600);
        for (now_ms, seconds) in
            [(T + 300, 61), (T + 1_299, 61), (T + 1_300, 60), (T + 59_300, 2), (T + 60_599, 1)]
        {
            let (found, UserQuota { counts: [burst, generations, attempts], .. }) =
                refusals.find(ONE, now_ms).expect("it is remembered");
            assert_eq!((found, burst.more_in_s), (refusal(seconds), Some(seconds)), "{now_ms}");
            assert_eq!((burst.remaining, generations.remaining, attempts.remaining), (0, 49, 150));
            assert_eq!((generations.more_in_s, attempts.more_in_s), (Some(86_400 - 61 + seconds), None));
        }
    }

    #[test]
    fn a_refusal_ends_no_later_than_in_the_object() {
        // The object has decided between the two times.
        let refusals = remembered(60_600);
        assert_eq!(refusals.find(ONE, T + 60_600), None);
        assert_eq!(refusals.find(ONE, T + 299), None, "the clock has stepped back");
        assert_eq!(refusals.find(Uuid::from_u128(2), T + 300), None);
    }

    #[test]
    fn a_client_that_waits_for_a_repeated_refusal_is_admitted() {
        // The latest time at which the object can have decided is that of the receipt.
        let available_ms = T + 300 + 60_600;
        let refusals = remembered(60_600);
        for now_ms in (T + 300..T + 60_600).step_by(7) {
            let (found, _) = refusals.find(ONE, now_ms).expect("it is remembered");
            assert!(now_ms + found.retry_after_s * 1_000 >= available_ms, "{now_ms}");
        }
    }

    #[test]
    fn ended_refusals_are_dropped_first_at_the_limit() {
        let mut refusals = RememberedRefusals::default();
        for number in 0..2_000_u128 {
            let user_id = Uuid::from_u128(number);
            refusals.remember(user_id, (&refusal(61), quota(61)), (T, T), 60_000);
            assert!(refusals.users.len() <= USERS_MAX);
            assert!(refusals.find(user_id, T).is_some());
        }
        assert_eq!(refusals.find(Uuid::from_u128(0), T), None);
        refusals.remember(ONE, (&refusal(61), quota(61)), (T + 60_000, T + 60_000), 60_000);
        assert_eq!(refusals.users.len(), 1);
        refusals.remember(ONE, (&refusal(1), quota(1)), (T + 119_900, T + 119_900), 500);
        let (found, left) = refusals.find(ONE, T + 120_000).expect("it is remembered");
        assert_eq!((found, left.counts[0].more_in_s), (refusal(1), Some(1)));
    }
}
