//! The money that a user's generations cost: a sliding window of amounts, and the reservations of the generations in progress.
//!
//! ```text
//!  reserve ──► in progress, at its maximum ── reconcile ──► a bucket, at its reported cost ── a window later ──► left
//!                         └── not reconciled until it expires ──► a bucket, at its maximum
//! ```
//! The maximum of every model call is reserved before the call. A reservation in progress has no date: it counts until it is
//! reconciled or expires, and a window longer. So the sum of all costs, dated at any moment of their generation, exceeds the
//! limit in no window of that length, whichever generations run at the same time, crash or report no cost. Only a cost above
//! its reservation could exceed it: it is counted as reported.
//!
//! Amounts are integers: nanodollars, and picodollars a token. As JSON:
//! `[window_s, [[index, 0, nanodollars], …], [[id, expires_ms, nanodollars, nanodollars of its last call], …]]`. The buckets, steps
//! of the clock and changes of the window are those of [`super::window`].
//!
//! Not for: the prices and sizes of a deployment ([`crate::config`]), what a response reports ([`crate::openrouter`]).

use uuid::Uuid;

use super::window::{Bucket, below_at_ms, bucket_ms, buckets_at, leaves_at_ms, seconds_until, total};
use crate::json::record::{FromJson, Items, ToJson, write_tuple};

/// The most tokens of a prompt besides its text: the rules and the schema (3000 bytes of the request, and a token has a byte or
/// more), and as many as that again for the model's chat template and a provider's own words around the schema.
pub const PROMPT_TOKENS_MAX: u64 = 6_000;
/// The most bytes of a text: 10000 characters of four. Each is a token at most.
pub const TEXT_BYTES_MAX: u64 = 40_000;
/// The bytes of a text for each byte of the numbers of its sentences: a sentence has 48 or more, and its number at most six (three
/// digits, a space, a line break in JSON).
pub const TEXT_BYTES_PER_BYTE_OF_NUMBERS: u64 = 8;

/// The most that a token costs, in picodollars: as many as dollars per million tokens with six decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    /// A token of the prompt; 1 or more.
    pub prompt: u64,
    /// A token of the answer, reasoning included; 1 or more.
    pub completion: u64,
}

/// The configured policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpendPolicy {
    /// Nanodollars; at least [`SpendPolicy::largest_cost`].
    pub limit: u64,
    /// Seconds; 1 to 2678400 (31 days). 0 is read as 1.
    pub window_s: u32,
    /// What the model API is allowed to charge.
    pub price: Price,
    /// The `max_tokens` of a model call. Reasoning counts in it.
    pub answer_tokens_max: u64,
}

impl SpendPolicy {
    /// Returns the most that one model call for a text of so many bytes can cost, in nanodollars, rounded up.
    #[must_use]
    pub fn cost_max(&self, text_bytes: usize) -> u64 {
        let text_bytes = u64::try_from(text_bytes).unwrap_or(u64::MAX);
        let text_tokens_max = text_bytes.saturating_add(text_bytes / TEXT_BYTES_PER_BYTE_OF_NUMBERS);
        let prompt = PROMPT_TOKENS_MAX.saturating_add(text_tokens_max).saturating_mul(self.price.prompt);
        let completion = self.answer_tokens_max.saturating_mul(self.price.completion);
        prompt.saturating_add(completion).div_ceil(1000)
    }

    /// Returns the most that one model call for the longest text can cost.
    #[must_use]
    pub fn largest_cost(&self) -> u64 {
        self.cost_max(usize::try_from(TEXT_BYTES_MAX).unwrap_or(usize::MAX))
    }

    const fn window_s(&self) -> u32 {
        if self.window_s == 0 { 1 } else { self.window_s }
    }
}

/// What the model calls of a generation reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reported {
    /// The calls whose cost was reported; the reservation of every other call stays.
    pub calls: u32,
    /// Their cost.
    pub nanodollars: u64,
}

impl Reported {
    /// Adds a call; `None`: it reported no cost.
    pub const fn add(&mut self, nanodollars: Option<u64>) {
        if let Some(nanodollars) = nanodollars {
            self.calls = self.calls.saturating_add(1);
            self.nanodollars = self.nanodollars.saturating_add(nanodollars);
        }
    }
}

/// The status of the policy at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpendStatus {
    /// Nanodollars that are available now.
    pub remaining: u64,
    /// Whole seconds until one more generation of the largest cost is available, rounded up; `None` when all of them are.
    pub more_in_s: Option<u64>,
}

/// The costs of the last window, and the reservations in progress.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spend {
    /// The length by which the indices below are counted; 0 before the first reservation.
    window_s: u32,
    /// INVARIANT: indices ascend, no amount is 0.
    buckets: Vec<Bucket>,
    /// INVARIANT: at most one of an id.
    in_progress: Vec<InProgress>,
}

/// The reservations of a generation in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct InProgress {
    id: Uuid,
    /// From then on it counts as a cost of this moment.
    expires_ms: u64,
    /// The sum over its model calls.
    nanodollars: u64,
    /// That of its last call.
    last: u64,
}

impl ToJson for Reported {
    fn write(&self, json: &mut String) {
        (self.calls, self.nanodollars).write(json);
    }
}

impl FromJson for Reported {
    fn read(json: &[u8]) -> Option<Self> {
        <(u32, u64)>::read(json).map(|(calls, nanodollars)| Self { calls, nanodollars })
    }
}

impl ToJson for SpendStatus {
    fn write(&self, json: &mut String) {
        (self.remaining, self.more_in_s).write(json);
    }
}

impl FromJson for SpendStatus {
    fn read(json: &[u8]) -> Option<Self> {
        <(u64, Option<u64>)>::read(json).map(|(remaining, more_in_s)| Self { remaining, more_in_s })
    }
}

/// A list; missing items at its end are empty.
impl ToJson for Spend {
    fn write(&self, json: &mut String) {
        write_tuple(json, &[&self.window_s, &self.buckets, &self.in_progress]);
    }
}

impl FromJson for Spend {
    fn read(json: &[u8]) -> Option<Self> {
        let items = Items::read(json)?;
        Some(Self {
            window_s: items.get_or_default(0)?,
            buckets: items.get_or_default(1)?,
            in_progress: items.get_or_default(2)?,
        })
    }
}

impl ToJson for InProgress {
    fn write(&self, json: &mut String) {
        write_tuple(json, &[&self.id, &self.expires_ms, &self.nanodollars, &self.last]);
    }
}

impl FromJson for InProgress {
    fn read(json: &[u8]) -> Option<Self> {
        let items = Items::read(json)?;
        Some(Self {
            id: items.get(0)?,
            expires_ms: items.get(1)?,
            nanodollars: items.get(2)?,
            last: items.get(3)?,
        })
    }
}

impl Spend {
    /// Reserves the maximum of one model call of the generation `id`, until it is reconciled or expires. Returns whether that was
    /// possible.
    pub fn reserve(
        &mut self,
        policy: &SpendPolicy,
        id: Uuid,
        cost_max: u64,
        expires_ms: u64,
        now_ms: u64,
    ) -> bool {
        self.advance(policy, now_ms);
        if self.available_at_ms(policy, cost_max, now_ms) > now_ms {
            return false;
        }
        match self.in_progress.iter_mut().find(|reserved| reserved.id == id) {
            Some(reserved) => {
                reserved.nanodollars = reserved.nanodollars.saturating_add(cost_max);
                reserved.last = cost_max;
                reserved.expires_ms = reserved.expires_ms.max(expires_ms);
            }
            None => {
                self.in_progress.push(InProgress { id, expires_ms, nanodollars: cost_max, last: cost_max });
            }
        }
        true
    }

    /// Replaces the reservations of a generation that has ended by its cost: as reported, and at its maximum for each call that
    /// reported none. An end after the expiry counts at the expiry, because no call is made later. Returns whether it had any.
    pub fn reconcile(&mut self, id: Uuid, reported: Reported, now_ms: u64) -> bool {
        let Some(position) = self.in_progress.iter().position(|reserved| reserved.id == id) else {
            return false;
        };
        let reserved = self.in_progress.remove(position);
        let not_spent = reserved.last.saturating_mul(u64::from(reported.calls));
        let nanodollars = reserved.nanodollars.saturating_sub(not_spent);
        insert(
            &mut self.buckets,
            now_ms.min(reserved.expires_ms) / bucket_ms(self.window_s),
            nanodollars.saturating_add(reported.nanodollars),
        );
        true
    }

    /// Returns the first time, `now_ms` or later, at which so much can be reserved if nothing happens before: reservations in
    /// progress stay until they expire, and a window longer. Above the limit, where that is never: a window from now.
    #[must_use]
    pub fn available_at_ms(&self, policy: &SpendPolicy, cost_max: u64, now_ms: u64) -> u64 {
        let left = policy.limit.checked_sub(cost_max).and_then(|limit| {
            let counted = self.counted_at(policy.window_s(), now_ms);
            below_at_ms(&counted, policy.window_s(), limit.saturating_add(1), now_ms)
        });
        left.unwrap_or_else(|| now_ms.saturating_add(u64::from(policy.window_s()).saturating_mul(1000)))
    }

    /// Returns the remaining amount, and when one more generation of the largest cost is available.
    #[must_use]
    pub fn status(&self, policy: &SpendPolicy, now_ms: u64) -> SpendStatus {
        let counted = self.counted_at(policy.window_s(), now_ms);
        let remaining = policy.limit.saturating_sub(total(&counted));
        let largest = policy.largest_cost().max(1);
        // So much of it must remain.
        let next = (remaining / largest).checked_add(1).and_then(|count| count.checked_mul(largest));
        let more_at_ms = next.and_then(|next| {
            let limit = policy.limit.checked_sub(next)?;
            below_at_ms(&counted, policy.window_s(), limit.saturating_add(1), now_ms)
        });
        let more_in_s = more_at_ms.map(|at_ms| seconds_until(at_ms, now_ms));
        SpendStatus { remaining, more_in_s }
    }

    /// Advances the window to `now_ms` and to the present length of the policy.
    pub(super) fn advance(&mut self, policy: &SpendPolicy, now_ms: u64) {
        let window_s = policy.window_s();
        let mut buckets = buckets_at(&self.buckets, self.window_s, window_s, now_ms);
        self.in_progress.retain(|reserved| {
            let is_in_progress = reserved.expires_ms > now_ms;
            if !is_in_progress {
                count(&mut buckets, reserved, window_s, now_ms);
            }
            is_in_progress
        });
        (self.buckets, self.window_s) = (buckets, window_s);
    }

    /// Returns the buckets that count at `now_ms`, with the reservations in progress in the buckets of their expiry.
    fn counted_at(&self, window_s: u32, now_ms: u64) -> Vec<Bucket> {
        let mut buckets = buckets_at(&self.buckets, self.window_s, window_s, now_ms);
        for reserved in &self.in_progress {
            count(&mut buckets, reserved, window_s, now_ms);
        }
        buckets
    }

    /// Returns the time at which the last amount has left; 0 when there is none.
    #[must_use]
    pub fn idle_at_ms(&self) -> u64 {
        let newest = self.buckets.last().map(|bucket| bucket.index);
        let expires = self.in_progress.iter().map(|reserved| reserved.expires_ms / bucket_ms(self.window_s));
        newest.into_iter().chain(expires).max().map_or(0, |index| leaves_at_ms(index, self.window_s))
    }
}

/// Adds a reservation at its expiry, unless it has left.
fn count(buckets: &mut Vec<Bucket>, reserved: &InProgress, window_s: u32, now_ms: u64) {
    let index = reserved.expires_ms / bucket_ms(window_s);
    if leaves_at_ms(index, window_s) > now_ms {
        insert(buckets, index, reserved.nanodollars);
    }
}

/// Adds an amount in its order.
fn insert(buckets: &mut Vec<Bucket>, index: u64, nanodollars: u64) {
    if nanodollars == 0 {
        return;
    }
    let position = buckets.partition_point(|bucket| bucket.index < index);
    match buckets.get_mut(position).filter(|bucket| bucket.index == index) {
        Some(bucket) => bucket.count = bucket.count.saturating_add(nanodollars),
        None => buckets.insert(position, Bucket { index, first: 0, count: nanodollars }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::record::to_json;

    /// A limit of 1000 nanodollars in buckets of 600 ms; the largest call costs 400.
    const MINUTE: SpendPolicy = SpendPolicy {
        limit: 1_000,
        window_s: 60,
        price: Price { prompt: 4, completion: 49 },
        answer_tokens_max: 4_000,
    };
    const A: Uuid = Uuid::from_u128(1);
    const B: Uuid = Uuid::from_u128(2);

    /// Reserves so much until 5000 ms.
    fn reserve(spend: &mut Spend, id: Uuid, cost_max: u64, now_ms: u64) -> bool {
        spend.reserve(&MINUTE, id, cost_max, 5_000, now_ms)
    }

    fn reported(calls: u32, nanodollars: u64) -> Reported {
        Reported { calls, nanodollars }
    }

    /// Returns what counts.
    fn used(spend: &Spend, now_ms: u64) -> u64 {
        MINUTE.limit - spend.status(&MINUTE, now_ms).remaining
    }

    #[test]
    fn the_maximum_of_a_call_is_its_tokens_at_the_highest_price() {
        let policy = SpendPolicy {
            limit: 500_000_000,
            window_s: 86_400,
            price: Price { prompt: 1_000_000, completion: 5_000_000 },
            answer_tokens_max: 9_000,
        };
        // (6000 + 1000 + 125 tokens) at 1 dollar and 9000 tokens at 5 dollars for a million of them.
        assert_eq!(policy.cost_max(1_000), 7_125_000 + 45_000_000);
        assert_eq!(policy.largest_cost(), 51_000_000 + 45_000_000);
        let fraction = SpendPolicy { price: Price { prompt: 1, completion: 1 }, ..policy };
        assert_eq!(fraction.cost_max(1), 16, "15.001, rounded up");
        assert_eq!(MINUTE.largest_cost(), 400);
        let most = SpendPolicy { price: Price { prompt: u64::MAX, completion: u64::MAX }, ..policy };
        assert_eq!(most.cost_max(usize::MAX), u64::MAX.div_ceil(1000));
    }

    #[test]
    fn calls_are_reserved_up_to_the_limit_and_no_further() {
        let mut spend = Spend::default();
        assert!(reserve(&mut spend, A, 600, 0));
        let before = spend.clone();
        assert!(!reserve(&mut spend, B, 401, 0));
        assert_eq!(spend, before, "a refusal reserves nothing");
        assert!(reserve(&mut spend, B, 400, 0));
        assert!(!reserve(&mut spend, A, 1, 0));
        assert_eq!(used(&spend, 0), 1_000);
    }

    #[test]
    fn a_reservation_is_replaced_by_the_reported_cost() {
        for (calls, reports, expected) in [
            (1, reported(1, 50), 50),
            (1, reported(1, 0), 0),
            (1, reported(0, 0), 300),
            (1, reported(1, 900), 900),
            (3, reported(1, 50), 650),
            (3, reported(3, 150), 150),
            (3, reported(0, 0), 900),
        ] {
            let mut spend = Spend::default();
            for _ in 0..calls {
                assert!(reserve(&mut spend, A, 300, 0));
            }
            assert!(spend.reconcile(A, reports, 1_000));
            assert_eq!(used(&spend, 1_000), expected, "{calls} {reports:?}");
            assert!(!spend.reconcile(A, reports, 1_000), "it is reconciled once");
            assert_eq!(used(&spend, 1_000), expected);
        }
    }

    #[test]
    fn a_cost_leaves_when_the_bucket_of_its_end_is_a_window_old() {
        let mut spend = Spend::default();
        assert!(reserve(&mut spend, A, 1_000, 0));
        spend.reconcile(A, reported(1, 700), 1_000); // the bucket from 600 to 1200 ms
        assert_eq!(spend.available_at_ms(&MINUTE, 300, 1_000), 1_000);
        assert_eq!(spend.available_at_ms(&MINUTE, 301, 1_000), 61_200);
        for (now_ms, is_admitted) in [(61_199, false), (61_200, true)] {
            assert_eq!(reserve(&mut spend.clone(), B, 301, now_ms), is_admitted);
        }
        assert_eq!(spend.idle_at_ms(), 61_200);
    }

    #[test]
    fn an_expired_reservation_counts_at_its_maximum_for_a_window() {
        let mut spend = Spend::default();
        assert!(reserve(&mut spend, A, 1_000, 0));
        // It expires at 5000 ms, in the bucket from 4800 to 5400 ms.
        assert_eq!(spend.available_at_ms(&MINUTE, 1, 0), 65_400);
        assert_eq!(spend.idle_at_ms(), 65_400);
        for now_ms in [4_999, 5_000, 65_399] {
            assert!(!reserve(&mut spend.clone(), B, 1, now_ms), "{now_ms}");
        }
        assert!(reserve(&mut spend.clone(), B, 1_000, 65_400));
        // Its end comes late: it was reconciled by then, unless a decision has counted it.
        assert!(spend.clone().reconcile(A, reported(1, 10), 6_000));
        assert!(!reserve(&mut spend, B, 1, 5_000));
        assert!(!spend.reconcile(A, reported(1, 10), 6_000));
        assert_eq!(used(&spend, 6_000), 1_000);
    }

    #[test]
    fn an_end_after_the_expiry_makes_no_wait_longer() {
        let mut spend = Spend::default();
        assert!(reserve(&mut spend, A, 1_000, 0));
        // The wait of a request that was refused while it was in progress.
        let available_ms = spend.available_at_ms(&MINUTE, 1, 4_000);
        assert!(spend.reconcile(A, reported(0, 0), 30_000));
        assert_eq!(spend.available_at_ms(&MINUTE, 1, 30_000), available_ms);
        assert!(reserve(&mut spend, B, 1, available_ms));
    }

    #[test]
    fn the_wait_is_for_the_oldest_amounts_that_suffice() {
        let mut spend = Spend::default();
        for (id, end_ms, nanodollars) in [(1, 0, 100), (2, 10_000, 200), (3, 20_000, 300)] {
            let id = Uuid::from_u128(id);
            assert!(spend.reserve(&MINUTE, id, 400, 90_000, end_ms));
            spend.reconcile(id, reported(1, nanodollars), end_ms);
        }
        assert!(spend.reserve(&MINUTE, A, 400, 90_000, 20_000));
        for (cost_max, available_at_ms) in [
            (0, 20_000),
            (1, 60_600),
            (100, 60_600),
            (101, 70_200),
            (300, 70_200),
            (600, 80_400),
            (601, 150_600),
        ] {
            assert_eq!(spend.available_at_ms(&MINUTE, cost_max, 20_000), available_at_ms, "{cost_max}");
        }
    }

    #[test]
    fn the_status_counts_generations_of_the_largest_cost() {
        let mut spend = Spend::default();
        let status = |remaining, more_in_s| SpendStatus { remaining, more_in_s };
        assert_eq!(spend.status(&MINUTE, 0), status(1_000, None));
        assert!(reserve(&mut spend, A, 200, 0));
        // Two of 400 are available, as at first.
        assert_eq!(spend.status(&MINUTE, 0), status(800, None));
        assert!(reserve(&mut spend, B, 1, 0));
        assert_eq!(spend.status(&MINUTE, 0), status(799, Some(66)), "both are treated as staying");
        spend.reconcile(A, reported(1, 200), 0);
        assert_eq!(spend.status(&MINUTE, 0), status(799, Some(61)));
    }

    #[test]
    fn an_amount_above_the_limit_has_a_finite_wait() {
        assert_eq!(Spend::default().available_at_ms(&MINUTE, 1_001, 5), 60_005);
        assert!(!reserve(&mut Spend::default(), A, 1_001, 5));
    }

    #[test]
    fn a_step_of_the_clock_keeps_every_cost() {
        let mut spend = Spend::default();
        assert!(spend.reserve(&MINUTE, A, 1_000, 10_005_000, 10_000_000));
        spend.reconcile(A, reported(1, 600), 10_000_000);
        assert!(!reserve(&mut spend, B, 401, 1_000));
        assert_eq!(spend.available_at_ms(&MINUTE, 401, 1_000), 61_200);
        assert!(reserve(&mut spend, B, 400, 1_000));
        spend.reconcile(B, reported(1, 100), 1_000);
        assert_eq!(used(&spend, 61_199), 700);
        assert_eq!(used(&spend, 61_200), 0);
    }

    #[test]
    fn a_change_of_the_window_keeps_costs_and_reservations() {
        let hour = SpendPolicy { window_s: 3_600, ..MINUTE };
        let mut spend = Spend::default();
        assert!(reserve(&mut spend, A, 400, 1_000));
        spend.reconcile(A, reported(1, 100), 1_000);
        assert!(reserve(&mut spend, B, 400, 2_000));
        // Both in the first bucket of 36 s.
        assert_eq!(spend.available_at_ms(&hour, 501, 3_000), 3_636_000);
        assert!(spend.reserve(&hour, A, 500, 50_000, 3_000));
        assert_eq!(spend.idle_at_ms(), 102 * 36_000);
        spend.advance(&MINUTE, 50_000);
        assert_eq!(used(&spend, 50_000), 1_000);
        assert_eq!(used(&spend, 110_400), 0);
    }

    #[test]
    fn a_lowered_limit_is_available_when_enough_has_left() {
        let mut spend = Spend::default();
        assert!(reserve(&mut spend, A, 1_000, 0));
        spend.reconcile(A, reported(1, 900), 0);
        let lower = SpendPolicy { limit: 500, ..MINUTE };
        assert_eq!(spend.status(&lower, 0).remaining, 0);
        assert_eq!(spend.available_at_ms(&lower, 1, 0), 60_600);
    }

    #[test]
    fn amounts_are_stored_as_an_array() {
        let mut spend = Spend::default();
        assert!(reserve(&mut spend, A, 400, 0));
        spend.reconcile(A, reported(1, 30), 700);
        assert!(reserve(&mut spend, B, 300, 700));
        assert!(reserve(&mut spend, B, 200, 700));
        let text = to_json(&spend);
        assert_eq!(text, r#"[60,[[1,0,30]],[["00000000-0000-0000-0000-000000000002",5000,500,200]]]"#);
        assert_eq!(Spend::read(text.as_bytes()), Some(spend));
        assert_eq!(Spend::read(b"[]"), Some(Spend::default()));
        for broken in ["", "{}", "[1,2]", "[60,[[1]]]", r#"[60,[],[["x",1,2,3]]]"#] {
            assert_eq!(Spend::read(broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn extreme_times_and_stored_states_do_not_panic() {
        let most = u64::MAX;
        let odd = format!(
            r#"[4294967295,[[{most},0,{most}],[0,0,{most}]],[["00000000-0000-0000-0000-000000000001",{most},{most},{most}]]]"#
        );
        for text in ["[]", &odd] {
            for now_ms in [0, 1, most] {
                for (limit, window_s) in [(0, 0), (1, 1), (most, u32::MAX)] {
                    let policy = SpendPolicy { limit, window_s, ..MINUTE };
                    let mut spend = Spend::read(text.as_bytes()).expect("it reads");
                    assert!(spend.available_at_ms(&policy, 1, now_ms) >= now_ms);
                    assert!(spend.status(&policy, now_ms).remaining <= limit);
                    spend.reserve(&policy, B, most, most, now_ms);
                    spend.reconcile(A, reported(u32::MAX, most), now_ms);
                    spend.advance(&policy, now_ms);
                    assert!(spend.buckets.len() <= 3);
                    let is_empty = spend.buckets.is_empty() && spend.in_progress.is_empty();
                    assert_eq!(spend.idle_at_ms() == 0, is_empty);
                }
            }
        }
    }
}
