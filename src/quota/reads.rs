//! The policy `reads`: GET, DELETE and `/events` of each user, in the memory of the isolate that serves them. The limit protects
//! the isolate and the database from one user. It is not exact across isolates, so it needs no call of the user's object and
//! no commit.

use uuid::Uuid;

use super::ledger::Refusal;
use super::window::{Quota, Window, seconds_until};

/// The name of the policy.
pub const READS: &str = "reads";
/// More users at a time than one isolate sees; each has 3 KB at most.
const USERS_MAX: usize = 1024;

/// The reads of each user.
#[derive(Debug, Default)]
pub struct Reads {
    /// INVARIANT: at most `USERS_MAX`, one per user. A linear search: a tree would make the module 4 KB larger.
    users: Vec<(Uuid, Window)>,
}

impl Reads {
    /// Counts a read. A refused read is not counted.
    ///
    /// # Errors
    /// When the quota is used up.
    pub fn count(&mut self, user_id: Uuid, quota: Quota, now_ms: u64) -> Result<(), Refusal> {
        let known = self.users.iter().position(|(known, _)| *known == user_id);
        if known.is_none() {
            if self.users.len() >= USERS_MAX {
                self.users.retain(|(_, window)| window.idle_at_ms() > now_ms);
            }
            if self.users.len() >= USERS_MAX {
                self.users.remove(0);
            }
        }
        let window = match known.and_then(|index| self.users.get_mut(index)) {
            Some((_, window)) => window,
            None => &mut self.users.push_mut((user_id, Window::default())).1,
        };
        if window.take(quota, now_ms).is_some() {
            return Ok(());
        }
        let available_at_ms = window.available_at_ms(quota, now_ms);
        Err(Refusal { violated: vec![READS], retry_after_s: seconds_until(available_at_ms, now_ms) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTA: Quota = Quota { count: 3, window_s: 60 };
    const ONE: Uuid = Uuid::from_u128(1);

    #[test]
    fn a_client_that_waits_retry_after_can_read_again() {
        let mut reads = Reads::default();
        for _ in 0..3 {
            assert_eq!(reads.count(ONE, QUOTA, 0), Ok(()));
        }
        let refusal = reads.count(ONE, QUOTA, 0).expect_err("the quota is used up");
        assert_eq!(refusal, Refusal { violated: vec![READS], retry_after_s: 61 });
        assert!(reads.count(ONE, QUOTA, 60_000).is_err());
        assert_eq!(reads.count(ONE, QUOTA, 61_000), Ok(()));
    }

    #[test]
    fn each_user_has_a_quota_of_their_own() {
        let mut reads = Reads::default();
        for _ in 0..3 {
            assert_eq!(reads.count(ONE, QUOTA, 0), Ok(()));
        }
        assert_eq!(reads.count(Uuid::from_u128(2), QUOTA, 0), Ok(()));
        assert!(reads.count(ONE, QUOTA, 0).is_err());
    }

    #[test]
    fn idle_users_are_dropped_first_at_the_limit() {
        let mut reads = Reads::default();
        for number in 0..2_000_u128 {
            let now_ms = if number == 1_500 { 0 } else { 61_000 };
            assert_eq!(reads.count(Uuid::from_u128(number), QUOTA, now_ms), Ok(()));
            assert!(reads.users.len() <= USERS_MAX);
        }
        let mut reads = Reads::default();
        for number in 0..1_024_u128 {
            let now_ms = if number == 1_023 { 0 } else { 61_000 };
            assert_eq!(reads.count(Uuid::from_u128(number), QUOTA, now_ms), Ok(()));
        }
        assert_eq!(reads.count(Uuid::from_u128(5_000), QUOTA, 61_000), Ok(()));
        assert!(!reads.users.iter().any(|(user_id, _)| *user_id == Uuid::from_u128(1_023)));
        assert_eq!(reads.users.len(), USERS_MAX);
    }
}
