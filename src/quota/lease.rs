//! Leases of the generations in flight. Each expires by itself, so that a crash blocks no later generation for ever.
//!
//! As JSON: `[[id, expires_ms], …]`. A clock that steps back makes a lease last longer by as much, never shorter.

use uuid::Uuid;

use crate::json::record::{FromJson, ToJson};

/// The leases of one user. INVARIANT: at most one for an id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leases(Vec<Lease>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Lease {
    id: Uuid,
    /// Milliseconds since the epoch; from then on the lease has ended.
    expires_ms: u64,
}

impl ToJson for Leases {
    fn write(&self, json: &mut String) {
        self.0.write(json);
    }
}

impl FromJson for Leases {
    fn read(json: &[u8]) -> Option<Self> {
        Vec::read(json).map(Self)
    }
}

impl ToJson for Lease {
    fn write(&self, json: &mut String) {
        (self.id, self.expires_ms).write(json);
    }
}

impl FromJson for Lease {
    fn read(json: &[u8]) -> Option<Self> {
        <(Uuid, u64)>::read(json).map(|(id, expires_ms)| Self { id, expires_ms })
    }
}

impl Leases {
    /// Takes a lease of `lease_ms` if fewer than `concurrent` others are in use; a lease of the same `id` is renewed.
    /// Returns whether it was taken.
    pub fn take(&mut self, concurrent: u32, id: Uuid, lease_ms: u64, now_ms: u64) -> bool {
        if self.available_at_ms(concurrent, id, now_ms).is_none_or(|at_ms| at_ms > now_ms) {
            return false;
        }
        self.0.retain(|lease| lease.expires_ms > now_ms && lease.id != id);
        self.0.push(Lease { id, expires_ms: now_ms.saturating_add(lease_ms) });
        true
    }

    /// Ends the lease of `id`; does nothing without one.
    pub fn release(&mut self, id: Uuid) {
        self.0.retain(|lease| lease.id != id);
    }

    /// Ends all leases but those of these ids.
    pub fn keep(&mut self, ids: &[Uuid]) {
        self.0.retain(|lease| ids.contains(&lease.id));
    }

    /// Returns the first time, `now_ms` or later, at which `id` can take a lease if none is released before; `None` when
    /// `concurrent` is 0.
    #[must_use]
    pub fn available_at_ms(&self, concurrent: u32, id: Uuid, now_ms: u64) -> Option<u64> {
        let concurrent = usize::try_from(concurrent).unwrap_or(usize::MAX);
        let ends_ms: Vec<u64> = self
            .0
            .iter()
            .filter(|lease| lease.id != id && lease.expires_ms > now_ms)
            .map(|lease| lease.expires_ms)
            .collect();
        if ends_ms.len() < concurrent {
            return Some(now_ms);
        }
        // A lease is available when the `concurrent`-th from the last has ended.
        let ends_after = |end_ms: u64| ends_ms.iter().filter(|other| **other > end_ms).count();
        ends_ms.iter().copied().filter(|end_ms| ends_after(*end_ms) < concurrent).min()
    }

    /// Returns the time at which the last lease ends; 0 when there is none.
    #[must_use]
    pub fn idle_at_ms(&self) -> u64 {
        self.0.iter().map(|lease| lease.expires_ms).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::counts::in_use;

    const A: Uuid = Uuid::from_u128(1);
    const B: Uuid = Uuid::from_u128(2);
    const C: Uuid = Uuid::from_u128(3);

    /// Leases of A until 5000 and of B until 9000.
    fn two() -> Leases {
        let mut leases = Leases::default();
        assert!(leases.take(2, A, 5_000, 0));
        assert!(leases.take(2, B, 8_000, 1_000));
        leases
    }

    #[test]
    fn leases_are_granted_up_to_the_limit() {
        let mut leases = two();
        assert!(!leases.take(2, C, 5_000, 1_000));
        assert_eq!(in_use(&leases, 1_000), 2);
        assert!(leases.take(3, C, 5_000, 1_000));
        assert_eq!(in_use(&leases, 1_000), 3);
    }

    #[test]
    fn a_lease_expires_at_its_time_and_not_before() {
        for (now_ms, count, is_taken) in
            [(4_999, 2, false), (5_000, 1, true), (8_999, 1, true), (9_000, 0, true)]
        {
            let mut leases = two();
            assert_eq!(in_use(&leases, now_ms), count, "{now_ms}");
            assert_eq!(leases.take(2, C, 1, now_ms), is_taken, "{now_ms}");
        }
    }

    #[test]
    fn a_lease_can_be_released_twice() {
        let mut leases = two();
        leases.release(A);
        leases.release(A);
        leases.release(C);
        assert_eq!(in_use(&leases, 1_000), 1);
        assert!(leases.take(2, C, 5_000, 1_000));
    }

    #[test]
    fn a_lease_that_is_taken_again_is_renewed() {
        let mut leases = two();
        assert!(leases.take(2, A, 5_000, 4_000));
        assert_eq!(in_use(&leases, 4_000), 2);
        assert_eq!(in_use(&leases, 8_999), 2);
        leases.release(A);
        assert_eq!(in_use(&leases, 4_000), 1);
    }

    #[test]
    fn a_lease_is_available_when_enough_have_ended() {
        for (concurrent, available_at_ms) in [(3, Some(1_000)), (2, Some(5_000)), (1, Some(9_000)), (0, None)]
        {
            assert_eq!(two().available_at_ms(concurrent, C, 1_000), available_at_ms, "{concurrent}");
            let mut other_order = two();
            other_order.release(A);
            assert!(other_order.take(2, A, 4_000, 1_000));
            assert_eq!(other_order.available_at_ms(concurrent, C, 1_000), available_at_ms, "{concurrent}");
        }
    }

    #[test]
    fn ended_leases_are_removed() {
        let mut leases = two();
        assert!(leases.take(2, C, 1, 9_000));
        assert_eq!(leases.0.len(), 1);
        assert_eq!(leases.idle_at_ms(), 9_001);
    }
}
