//! A sliding window over time buckets: never more reservations than the quota in *any* window of its length, never
//! stricter than that by more than a hundredth of the window, in bounded space.
//!
//! ```text
//!  a hundred buckets to a window             now
//!  ├──┬──┬──┬ … ┬──┬──┤                       │     a reservation leaves when its whole bucket
//!  │ 3│  │ 1│   │  │ 2│                       │     is a window old: at most a bucket after
//!  └──┴──┴──┴ … ┴──┴──┘                       │     its exact time
//! ```
//! At most 101 buckets contain a reservation that counts; empty ones are not stored. GCRA would need one number, but admits
//! up to twice the quota in one window; a timestamp per reservation would be exact, but needs a million of them for a quota
//! of a million.
//!
//! As JSON: `[window_s, next, [[index, first, count], …], [refunded, …]]`.
//!
//! Special cases:
//! - *The clock steps back.* No reservation can be later than now, so one in a later bucket moves into the present bucket. It
//!   seems younger than it is: no more is admitted, and no client waits longer than a window and a bucket. (A step forward
//!   cannot be distinguished from time that has passed.)
//! - *The quota's count changes* between deployments: the reservations are compared with the new count.
//! - *The window's length changes*: the reservations of each old bucket are dated at its last millisecond (or now, if that is
//!   earlier), so they stay at most one old bucket too long, and never leave too early. Those that had left a shorter window
//!   do not return in a longer one.

use crate::json::record::{FromJson, Items, ToJson, write_tuple};

/// Buckets per window. 100 is the contract's "never stricter than by a hundredth of the window".
const BUCKETS_PER_WINDOW: u64 = 100;

/// The number of refunds that are stored, so that a second refund of the same reservation does nothing. A refund happens when
/// a generation ends; its repetition follows at once or at the next alarm, not 64 failures later.
const REFUNDED_MAX: usize = 64;

/// A maximum in any window of a length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Reservations; 1 to 1000000. With 0 none is ever available.
    pub count: u32,
    /// Seconds; 1 to 2678400 (31 days). 0 is read as 1.
    pub window_s: u32,
}

impl Quota {
    const fn window_s(self) -> u32 {
        if self.window_s == 0 { 1 } else { self.window_s }
    }
}

/// One reservation in a window, for [`Window::refund`]. It stays valid across clock steps and changes of the quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation(u64);

/// The status of a quota at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaStatus {
    /// Reservations that are available now.
    pub remaining: u32,
    /// The time (ms since the epoch) at which `remaining` grows, if nothing happens before; `None` when nothing is used.
    pub more_at_ms: Option<u64>,
}

/// The reservations of the last window, counted by bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Window {
    /// The length by which the indices below are counted; 0 before the first reservation.
    window_s: u32,
    /// The number of the next reservation. INVARIANT: reservations are numbered in their order.
    next: u64,
    /// INVARIANT: indices and numbers ascend, no count is 0.
    buckets: Vec<Bucket>,
    /// The numbers of refunded reservations whose bucket may still exist, oldest first.
    refunded: Vec<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    /// Time since the epoch in bucket lengths.
    pub(super) index: u64,
    /// The number of its first reservation; it contains those up to the next bucket's first. A [`Reservation`] finds its bucket
    /// by number, not by time, so that buckets can be moved and merged. 0 in a window of amounts.
    pub(super) first: u64,
    /// Reservations without a refund, or an amount.
    pub(super) count: u64,
}

impl ToJson for Reservation {
    fn write(&self, json: &mut String) {
        self.0.write(json);
    }
}

impl FromJson for Reservation {
    fn read(json: &[u8]) -> Option<Self> {
        u64::read(json).map(Self)
    }
}

/// A list, not an object: the ledger is written with every request. Missing items at its end are empty.
impl ToJson for Window {
    fn write(&self, json: &mut String) {
        write_tuple(json, &[&self.window_s, &self.next, &self.buckets, &self.refunded]);
    }
}

impl FromJson for Window {
    fn read(json: &[u8]) -> Option<Self> {
        let items = Items::read(json)?;
        Some(Self {
            window_s: items.get_or_default(0)?,
            next: items.get_or_default(1)?,
            buckets: items.get_or_default(2)?,
            refunded: items.get_or_default(3)?,
        })
    }
}

impl ToJson for Bucket {
    fn write(&self, json: &mut String) {
        (self.index, self.first, self.count).write(json);
    }
}

impl FromJson for Bucket {
    fn read(json: &[u8]) -> Option<Self> {
        <(u64, u64, u64)>::read(json).map(|(index, first, count)| Self { index, first, count })
    }
}

impl Window {
    /// Makes one reservation, or returns `None` when the quota is used up.
    pub fn take(&mut self, quota: Quota, now_ms: u64) -> Option<Reservation> {
        self.advance(quota, now_ms);
        if total(&self.buckets) >= u64::from(quota.count) {
            return None;
        }
        let reservation = Reservation(self.next);
        self.next = self.next.saturating_add(1);
        let index = now_ms / bucket_ms(quota.window_s());
        match self.buckets.last_mut() {
            Some(newest) if newest.index >= index => newest.count = newest.count.saturating_add(1),
            _ => self.buckets.push(Bucket { index, first: reservation.0, count: 1 }),
        }
        Some(reservation)
    }

    /// Refunds one reservation. Does nothing after a first refund, or when the reservation has left the window.
    pub fn refund(&mut self, reservation: Reservation) {
        if reservation.0 >= self.next || self.refunded.contains(&reservation.0) {
            return;
        }
        let Some(bucket) = self.buckets.iter_mut().rfind(|bucket| bucket.first <= reservation.0) else {
            return;
        };
        bucket.count = bucket.count.saturating_sub(1);
        self.buckets.retain(|bucket| bucket.count > 0);
        self.refunded.push(reservation.0);
        let surplus = self.refunded.len().saturating_sub(REFUNDED_MAX);
        self.refunded.drain(..surplus);
    }

    /// Returns the first time, `now_ms` or later, at which one more reservation is available if nothing happens before.
    /// With a quota of 0, where none ever is: a window from now.
    #[must_use]
    pub fn available_at_ms(&self, quota: Quota, now_ms: u64) -> u64 {
        below_at_ms(&self.buckets_at(quota, now_ms), quota.window_s(), u64::from(quota.count), now_ms)
            .unwrap_or_else(|| now_ms.saturating_add(u64::from(quota.window_s()).saturating_mul(1000)))
    }

    /// Returns the remaining quota, and when it grows.
    #[must_use]
    pub fn status(&self, quota: Quota, now_ms: u64) -> QuotaStatus {
        let buckets = self.buckets_at(quota, now_ms);
        let (used, count) = (total(&buckets), u64::from(quota.count));
        QuotaStatus {
            remaining: u32::try_from(count.saturating_sub(used)).unwrap_or(quota.count),
            more_at_ms: below_at_ms(&buckets, quota.window_s(), used.min(count), now_ms),
        }
    }

    /// Returns the time at which the last reservation has left; 0 when there is none.
    #[must_use]
    pub fn idle_at_ms(&self) -> u64 {
        self.buckets.last().map_or(0, |newest| leaves_at_ms(newest.index, self.window_s))
    }

    /// Advances the window to `now_ms` and to the present length of the quota.
    pub(super) fn advance(&mut self, quota: Quota, now_ms: u64) {
        self.buckets = self.buckets_at(quota, now_ms);
        self.window_s = quota.window_s();
        let oldest = self.buckets.first().map_or(self.next, |bucket| bucket.first);
        self.refunded.retain(|number| *number >= oldest);
    }

    /// Returns the buckets that count at `now_ms`, by the present length of the quota.
    fn buckets_at(&self, quota: Quota, now_ms: u64) -> Vec<Bucket> {
        buckets_at(&self.buckets, self.window_s, quota.window_s(), now_ms)
    }
}

/// Returns the buckets that count at `now_ms` in a window of `window_s`; those given are of a window of `old_window_s`.
pub(super) fn buckets_at(all: &[Bucket], old_window_s: u32, window_s: u32, now_ms: u64) -> Vec<Bucket> {
    let (old_ms, new_ms) = (bucket_ms(old_window_s), bucket_ms(window_s));
    let mut buckets: Vec<Bucket> = Vec::with_capacity(all.len());
    for bucket in all {
        // The latest possible time of its reservations. Within one length and without a clock step the index stays the
        // same.
        let last_ms = bucket.index.saturating_add(1).saturating_mul(old_ms).saturating_sub(1).min(now_ms);
        let index = last_ms / new_ms;
        if leaves_at_ms(index, window_s) <= now_ms {
            continue;
        }
        match buckets.last_mut() {
            Some(newest) if newest.index >= index => {
                newest.count = newest.count.saturating_add(bucket.count);
            }
            _ => buckets.push(Bucket { index, ..*bucket }),
        }
    }
    buckets
}

/// Returns the seconds until `at_ms`, rounded up: a client that waits for them has reached `at_ms`.
pub(super) const fn seconds_until(at_ms: u64, now_ms: u64) -> u64 {
    at_ms.saturating_sub(now_ms).div_ceil(1000)
}

/// Returns the length of a bucket: exact, because a window is whole seconds, and never 0.
pub(super) fn bucket_ms(window_s: u32) -> u64 {
    u64::from(window_s.max(1)).saturating_mul(1000 / BUCKETS_PER_WINDOW)
}

/// Returns the end of the bucket plus a window.
pub(super) fn leaves_at_ms(index: u64, window_s: u32) -> u64 {
    index.saturating_add(1).saturating_add(BUCKETS_PER_WINDOW).saturating_mul(bucket_ms(window_s))
}

/// Returns what is left in `buckets`.
pub(super) fn total(buckets: &[Bucket]) -> u64 {
    buckets.iter().fold(0, |sum, bucket| sum.saturating_add(bucket.count))
}

/// Returns the first time, `now_ms` or later, at which less than `limit` is left in `buckets`.
pub(super) fn below_at_ms(buckets: &[Bucket], window_s: u32, limit: u64, now_ms: u64) -> Option<u64> {
    let mut left = total(buckets);
    if left < limit {
        return Some(now_ms);
    }
    for bucket in buckets {
        left = left.saturating_sub(bucket.count);
        if left < limit {
            return Some(leaves_at_ms(bucket.index, window_s));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::record::to_json;
    use crate::quota::counts::reserved;

    const MINUTE: Quota = Quota { count: 2, window_s: 60 }; // buckets of 600 ms
    const MONTH: Quota = Quota { count: 1_000_000, window_s: 31 * 86_400 };

    /// Returns a window with reservations at those times.
    fn taken(quota: Quota, moments_ms: &[u64]) -> (Window, Vec<Reservation>) {
        let mut window = Window::default();
        let reservations =
            moments_ms.iter().map(|at_ms| window.take(quota, *at_ms).expect("quota is available")).collect();
        (window, reservations)
    }

    #[test]
    fn a_window_admits_its_quota_and_no_more() {
        let (mut window, _) = taken(MINUTE, &[0, 0]);
        assert_eq!(window.take(MINUTE, 0), None);
        assert_eq!(reserved(&window, MINUTE, 0), 2);
    }

    #[test]
    fn a_reservation_leaves_when_its_bucket_is_a_window_old() {
        for (taken_ms, available_at_ms) in [(0, 60_600), (599, 60_600), (600, 61_200), (1_199, 61_200)] {
            let (window, _) = taken(MINUTE, &[taken_ms, 30_000]);
            assert_eq!(window.available_at_ms(MINUTE, 30_000), available_at_ms);
            for (now_ms, is_admitted) in
                [(taken_ms + 60_000, false), (available_at_ms - 1, false), (available_at_ms, true)]
            {
                assert_eq!(window.clone().take(MINUTE, now_ms).is_some(), is_admitted, "{taken_ms} {now_ms}");
            }
        }
    }

    #[test]
    fn an_unused_quota_is_available_now() {
        let (window, _) = taken(MINUTE, &[0]);
        assert_eq!(window.available_at_ms(MINUTE, 7), 7);
        assert_eq!(Window::default().available_at_ms(MINUTE, 7), 7);
    }

    #[test]
    fn a_quota_of_zero_is_never_available() {
        let never = Quota { count: 0, window_s: 60 };
        let mut window = Window::default();
        assert_eq!(window.take(never, 0), None);
        assert_eq!(window.available_at_ms(never, 5), 60_005);
        assert_eq!(window.status(never, 5), QuotaStatus { remaining: 0, more_at_ms: None });
    }

    #[test]
    fn the_status_has_the_remaining_quota_and_when_it_grows() {
        let (window, _) = taken(MINUTE, &[0, 30_000]);
        for (now_ms, remaining, more_at_ms) in
            [(30_000, 0, Some(60_600)), (60_600, 1, Some(90_600)), (90_600, 2, None)]
        {
            assert_eq!(window.status(MINUTE, now_ms), QuotaStatus { remaining, more_at_ms }, "{now_ms}");
        }
    }

    #[test]
    fn a_lowered_quota_is_available_when_enough_have_left() {
        let (window, _) = taken(Quota { count: 3, ..MINUTE }, &[0, 10_000, 20_000]);
        assert_eq!(window.status(MINUTE, 20_000), QuotaStatus { remaining: 0, more_at_ms: Some(70_200) });
        assert_eq!(window.available_at_ms(MINUTE, 20_000), 70_200);
        assert_eq!(window.clone().take(MINUTE, 70_199), None);
        assert!(window.clone().take(MINUTE, 70_200).is_some());
    }

    #[test]
    fn a_reservation_is_refunded_once() {
        let (mut window, reservations) = taken(MINUTE, &[0, 0]);
        window.refund(reservations[0]);
        window.refund(reservations[0]);
        assert_eq!(reserved(&window, MINUTE, 0), 1);
        window.take(MINUTE, 0).expect("one was refunded");
        window.refund(reservations[0]);
        assert_eq!(window.take(MINUTE, 0), None);
    }

    #[test]
    fn a_second_refund_does_not_touch_a_later_reservation() {
        let (mut window, reservations) = taken(MINUTE, &[0]);
        window.refund(reservations[0]);
        assert_eq!(window.idle_at_ms(), 0);
        window.take(MINUTE, 0).expect("it was refunded");
        window.refund(reservations[0]);
        assert_eq!(reserved(&window, MINUTE, 0), 1);
    }

    #[test]
    fn a_reservation_that_has_left_is_not_refunded() {
        let (mut window, reservations) = taken(MINUTE, &[0, 30_000]);
        window.take(MINUTE, 60_600).expect("the first has left");
        window.refund(reservations[0]);
        assert_eq!(reserved(&window, MINUTE, 60_600), 2);
    }

    #[test]
    fn a_reservation_of_another_window_is_not_refunded() {
        let (_, foreign) = taken(MINUTE, &[0, 0]);
        let (mut window, _) = taken(MINUTE, &[0]);
        window.refund(foreign[1]);
        assert_eq!(reserved(&window, MINUTE, 0), 1);
    }

    #[test]
    fn the_list_of_refunds_is_bounded() {
        let quota = Quota { count: 1000, window_s: 60 };
        let (mut window, reservations) = taken(quota, &[0; 1000]);
        for reservation in reservations {
            window.refund(reservation);
        }
        assert_eq!(reserved(&window, quota, 0), 0);
        assert_eq!(window.refunded.len(), REFUNDED_MAX);
        window.advance(quota, 0);
        assert_eq!(window.refunded.len(), 0);
    }

    #[test]
    fn a_step_of_the_clock_makes_no_wait_longer_than_a_window() {
        let (mut window, reservations) = taken(MINUTE, &[10_000_000, 10_000_000]);
        assert_eq!(window.take(MINUTE, 1_000), None);
        assert_eq!(window.available_at_ms(MINUTE, 1_000), 61_200);
        assert_eq!(window.take(MINUTE, 61_199), None);
        window.refund(reservations[1]);
        assert_eq!(reserved(&window, MINUTE, 61_199), 1);
        assert_eq!(reserved(&window, MINUTE, 61_200), 0);
    }

    #[test]
    fn a_longer_window_keeps_earlier_reservations() {
        let hour = Quota { count: 2, window_s: 3_600 };
        let (window, _) = taken(MINUTE, &[1_000, 2_000]);
        // Read as 1199 and 2399 ms, both in the first bucket of 36 s.
        assert_eq!(reserved(&window, hour, 3_000), 2);
        assert_eq!(window.available_at_ms(hour, 3_000), 3_636_000);
    }

    #[test]
    fn a_shorter_window_dates_old_buckets_at_their_end_or_now() {
        let (window, _) = taken(Quota { count: 2, window_s: 3_600 }, &[1_000, 40_000]);
        // The first bucket ends at 36 s; the second has not ended, so its reservations are dated now.
        assert_eq!(window.available_at_ms(MINUTE, 41_000), 96_000);
        assert_eq!(window.idle_at_ms(), 102 * 36_000);
        let mut advanced = window;
        advanced.advance(MINUTE, 41_000);
        assert_eq!(advanced.idle_at_ms(), 101_400);
    }

    #[test]
    fn a_reservation_survives_a_change_of_the_window() {
        let (mut window, reservations) = taken(Quota { count: 2, window_s: 3_600 }, &[1_000, 40_000]);
        assert_eq!(window.take(MINUTE, 41_000), None);
        window.refund(reservations[1]);
        assert_eq!(window.available_at_ms(MINUTE, 41_000), 41_000);
        assert_eq!(window.idle_at_ms(), 96_000);
    }

    #[test]
    fn a_million_reservations_are_stored_in_three_kilobytes() {
        let (oldest, counts) = (1_700_000_000_000 / bucket_ms(MONTH.window_s), [10_000; 100]);
        let mut window = Window { window_s: MONTH.window_s, next: 1_000_000, ..Window::default() };
        for (index, count) in (oldest..).zip(counts) {
            let first = (index - oldest) * 10_000;
            window.buckets.push(Bucket { index, first, count });
        }
        // The 101st bucket, the most that can count at once: one reservation is refunded and made again.
        window.refund(Reservation(0));
        let now_ms = (oldest + 101) * bucket_ms(MONTH.window_s) - 1;
        window.take(MONTH, now_ms).expect("one was refunded");
        assert_eq!(window.buckets.len(), 101);
        assert_eq!(reserved(&window, MONTH, now_ms), 1_000_000);
        assert_eq!(window.take(MONTH, now_ms), None);
        assert!(to_json(&window).len() < 3_000);
    }

    #[test]
    fn a_window_is_stored_as_an_array() {
        let (mut window, reservations) = taken(MINUTE, &[0, 700]);
        window.refund(reservations[0]);
        let text = to_json(&window);
        assert_eq!(text, "[60,2,[[1,1,1]],[0]]");
        assert_eq!(Window::read(text.as_bytes()).expect("it reads"), window);
        assert_eq!(Window::read(b"[]").expect("it reads"), Window::default());
    }

    #[test]
    fn extreme_times_and_stored_states_do_not_panic() {
        let odd =
            "[4294967295,18446744073709551615,[[18446744073709551615,0,4294967295],[0,0,4294967295]],[9]]";
        for text in ["[]", odd] {
            for now_ms in [0, 1, u64::MAX] {
                for window_s in [0, 1, u32::MAX] {
                    let quota = Quota { count: u32::MAX, window_s };
                    let mut window = Window::read(text.as_bytes()).expect("it reads");
                    window.refund(Reservation(u64::MAX));
                    window.refund(Reservation(3));
                    assert!(window.available_at_ms(quota, now_ms) >= now_ms);
                    window.take(quota, now_ms);
                    assert!(window.buckets.len() <= 2);
                }
            }
        }
    }
}
