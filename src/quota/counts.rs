//! Counts for tests, computed through the interface of the service.

use uuid::Uuid;

use super::{Leases, Quota, Window};

/// The reservations that count against the quota.
pub(crate) fn reserved(window: &Window, quota: Quota, now_ms: u64) -> u32 {
    quota.count - window.status(quota, now_ms).remaining
}

/// The leases that have not ended: the largest limit at which one more must wait.
pub(crate) fn in_use(leases: &Leases, now_ms: u64) -> usize {
    let must_wait = |limit: &u32| leases.available_at_ms(*limit, Uuid::max(), now_ms) != Some(now_ms);
    (1..).take_while(must_wait).count()
}
