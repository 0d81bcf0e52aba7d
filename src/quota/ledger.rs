//! The usage of one user under all policies, and the decision whether more is allowed.
//!
//! A request is admitted in two steps of one transaction: [`Ledger::count_request`] before its body is read, and
//! [`Ledger::reserve`] before it starts a generation, which counts the generation's first model call, too.
//! [`Ledger::count_attempt`] counts each further call. The end of the generation calls [`Ledger::release`],
//! [`Ledger::reconcile`], and [`Ledger::refund`] when it failed through no fault of the user's.
//!
//! As JSON: `[burst, generations, leases]`, see [`Window`] and [`Leases`]; missing members at the end are empty. `attempts` and
//! `spend` are stored beside the array, because the previous version reads three members and must read what this version
//! stores.

use uuid::Uuid;

use super::lease::Leases;
use super::spend::{Reported, Spend, SpendPolicy, SpendStatus};
use super::window::{Quota, Reservation, Window, seconds_until};
use crate::json::record::{FromJson, Items, ToJson, write_tuple};

/// The name of the policy for every request.
pub const BURST: &str = "burst";
/// The name of the policy for accepted generations.
pub const GENERATIONS: &str = "generations";
/// The name of the policy for model calls, retries included.
pub const ATTEMPTS: &str = "attempts";
/// The name of the policy for US dollars.
pub const SPEND: &str = "spend";
/// The name of the policy for generations in flight.
pub const CONCURRENT: &str = "concurrent";

/// The longest `Retry-After` when only `concurrent` refuses: most generations end well before their lease.
const CONCURRENT_WAIT_S_MAX: u64 = 10;

/// The configured policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policies {
    /// Authenticated requests.
    pub burst: Quota,
    /// Accepted generations.
    pub generations: Quota,
    /// Model calls, retries included; never refunded.
    pub attempts: Quota,
    /// Generations in flight; 1 or more. With 0 none is ever accepted.
    pub concurrent: u32,
    /// US dollars; `None`: not limited.
    pub spend: Option<SpendPolicy>,
}

/// Why a request is rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The names of the exceeded policies, in the order [`BURST`], [`GENERATIONS`],
    /// [`ATTEMPTS`], [`SPEND`], [`CONCURRENT`].
    pub violated: Vec<&'static str>,
    /// Whole seconds, 1 or more: a client that waits for exactly that long is admitted, one that waits for a second
    /// less is not. When only [`CONCURRENT`] is violated: an estimate of 1 to 10.
    pub retry_after_s: u64,
}

impl Refusal {
    /// Returns a refusal by [`CONCURRENT`] alone, for a limit that is not a lease.
    #[must_use]
    pub fn by_concurrent() -> Self {
        Self { violated: vec![CONCURRENT], retry_after_s: CONCURRENT_WAIT_S_MAX }
    }
}

/// The status of one policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyStatus {
    /// The remaining quota.
    pub remaining: u32,
    /// Whole seconds until it grows, rounded up; `None` while nothing is used.
    pub more_in_s: Option<u64>,
}

/// The status of the policies that have a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserQuota {
    /// [`BURST`], [`GENERATIONS`], [`ATTEMPTS`].
    pub counts: [PolicyStatus; 3],
    /// [`SPEND`], where it is configured.
    pub spend: Option<SpendStatus>,
}

/// The usage of one user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Requests.
    pub burst: Window,
    /// Accepted generations.
    pub generations: Window,
    /// Generations in flight.
    pub leases: Leases,
    /// Model calls.
    pub attempts: Window,
    /// US dollars.
    pub spend: Spend,
}

impl ToJson for PolicyStatus {
    fn write(&self, json: &mut String) {
        (self.remaining, self.more_in_s).write(json);
    }
}

impl FromJson for PolicyStatus {
    fn read(json: &[u8]) -> Option<Self> {
        <(u32, Option<u64>)>::read(json).map(|(remaining, more_in_s)| Self { remaining, more_in_s })
    }
}

/// A list; missing items at its end are empty.
impl ToJson for Ledger {
    fn write(&self, json: &mut String) {
        write_tuple(json, &[&self.burst, &self.generations, &self.leases]);
    }
}

impl FromJson for Ledger {
    fn read(json: &[u8]) -> Option<Self> {
        let items = Items::read(json)?;
        Some(Self {
            burst: items.get_or_default(0)?,
            generations: items.get_or_default(1)?,
            leases: items.get_or_default(2)?,
            attempts: Window::default(),
            spend: Spend::default(),
        })
    }
}

impl Ledger {
    /// Counts a request. A refused request is not counted.
    ///
    /// # Errors
    /// When `burst` is used up. The wait is for `burst` alone; see [`Ledger::refusal_of_generation`].
    pub fn count_request(&mut self, policies: &Policies, now_ms: u64) -> Result<(), Refusal> {
        if self.burst.take(policies.burst, now_ms).is_some() {
            return Ok(());
        }
        let burst_at_ms = self.burst.available_at_ms(policies.burst, now_ms);
        Err(Refusal { violated: vec![BURST], retry_after_s: seconds_until(burst_at_ms, now_ms) })
    }

    /// Extends a refusal by `burst` for a request that would start a generation for a text of so many bytes. It names all exceeded
    /// policies and waits for all of them, so that the client is not refused by the next policy after its wait.
    pub fn refusal_of_generation(
        &mut self,
        mut refusal: Refusal,
        policies: &Policies,
        text_bytes: usize,
        now_ms: u64,
    ) -> Refusal {
        self.advance(policies, now_ms);
        let (full, at_ms) = self.full_windows(policies, text_bytes, now_ms);
        refusal.violated.extend(full);
        refusal.retry_after_s = refusal.retry_after_s.max(seconds_until(at_ms, now_ms));
        refusal
    }

    /// Reserves a generation for a text of so many bytes, its first model call with the most that it can cost, and a lease of
    /// `lease_ms` for the generation `id`: all of them or none. The request itself has been counted before.
    ///
    /// # Errors
    /// When `generations`, `attempts`, `spend` or `concurrent` is used up. The wait is for `burst`, too, because the next request
    /// is counted there.
    pub fn reserve(
        &mut self,
        policies: &Policies,
        id: Uuid,
        text_bytes: usize,
        lease_ms: u64,
        now_ms: u64,
    ) -> Result<Reservation, Refusal> {
        self.advance(policies, now_ms);
        let (mut violated, windows_at_ms) = self.full_windows(policies, text_bytes, now_ms);
        let lease_at_ms = self.leases.available_at_ms(policies.concurrent, id, now_ms);
        let has_lease = lease_at_ms.is_some_and(|at_ms| at_ms <= now_ms);
        if violated.is_empty()
            && has_lease
            && let Some(reservation) = self.generations.take(policies.generations, now_ms)
        {
            self.attempts.take(policies.attempts, now_ms);
            if let Some(spend) = &policies.spend {
                let expires_ms = now_ms.saturating_add(lease_ms);
                self.spend.reserve(spend, id, spend.cost_max(text_bytes), expires_ms, now_ms);
            }
            self.leases.take(policies.concurrent, id, lease_ms, now_ms);
            return Ok(reservation);
        }
        let burst_at_ms = self.burst.available_at_ms(policies.burst, now_ms);
        let lease_at_ms =
            lease_at_ms.unwrap_or_else(|| now_ms.saturating_add(CONCURRENT_WAIT_S_MAX.saturating_mul(1000)));
        let wait_s = seconds_until(burst_at_ms.max(windows_at_ms).max(lease_at_ms), now_ms);
        if !has_lease {
            violated.push(CONCURRENT);
        }
        let is_estimate = violated == [CONCURRENT];
        let retry_after_s = if is_estimate { wait_s.clamp(1, CONCURRENT_WAIT_S_MAX) } else { wait_s };
        Err(Refusal { violated, retry_after_s })
    }

    /// Counts one more model call of the accepted generation `id`, for a text of so many bytes, and reserves the most that it can
    /// cost until `expires_ms`. Returns whether it may be made; a call that may not be made is not counted.
    pub fn count_attempt(
        &mut self,
        policies: &Policies,
        id: Uuid,
        text_bytes: usize,
        expires_ms: u64,
        now_ms: u64,
    ) -> bool {
        self.advance(policies, now_ms);
        if !self.has_attempt(policies, text_bytes, now_ms) {
            return false;
        }
        if let Some(spend) = &policies.spend {
            self.spend.reserve(spend, id, spend.cost_max(text_bytes), expires_ms, now_ms);
        }
        self.attempts.take(policies.attempts, now_ms).is_some()
    }

    /// Whether one more model call for a text of so many bytes may be made now.
    #[must_use]
    pub fn has_attempt(&self, policies: &Policies, text_bytes: usize, now_ms: u64) -> bool {
        self.attempts.available_at_ms(policies.attempts, now_ms) <= now_ms
            && self.spend_at_ms(policies, text_bytes, now_ms) <= now_ms
    }

    /// Returns the time at which the most that a model call can cost is available.
    fn spend_at_ms(&self, policies: &Policies, text_bytes: usize, now_ms: u64) -> u64 {
        policies
            .spend
            .as_ref()
            .map_or(now_ms, |spend| self.spend.available_at_ms(spend, spend.cost_max(text_bytes), now_ms))
    }

    /// Returns the exceeded windows of a generation, and the time at which all of them are available.
    fn full_windows(&self, policies: &Policies, text_bytes: usize, now_ms: u64) -> (Vec<&'static str>, u64) {
        let (mut full, mut at_ms) = (Vec::new(), now_ms);
        for (name, available_at_ms) in [
            (GENERATIONS, self.generations.available_at_ms(policies.generations, now_ms)),
            (ATTEMPTS, self.attempts.available_at_ms(policies.attempts, now_ms)),
            (SPEND, self.spend_at_ms(policies, text_bytes, now_ms)),
        ] {
            if available_at_ms > now_ms {
                full.push(name);
                at_ms = at_ms.max(available_at_ms);
            }
        }
        (full, at_ms)
    }

    /// Advances the windows of a generation to `now_ms`. Also before a refusal: reservations that a step of the clock has moved
    /// stay moved, so that the wait stays true.
    fn advance(&mut self, policies: &Policies, now_ms: u64) {
        self.generations.advance(policies.generations, now_ms);
        self.attempts.advance(policies.attempts, now_ms);
        if let Some(spend) = &policies.spend {
            self.spend.advance(spend, now_ms);
        }
    }

    /// Refunds a reservation of `generations`. Does nothing when it was refunded before, or has left the window.
    pub fn refund(&mut self, reservation: Reservation) {
        self.generations.refund(reservation);
    }

    /// Replaces the reserved money of the generation `id` by its cost. Returns whether it had any.
    pub fn reconcile(&mut self, id: Uuid, reported: Reported, now_ms: u64) -> bool {
        self.spend.reconcile(id, reported, now_ms)
    }

    /// Ends the lease of the generation `id`; does nothing without one.
    pub fn release(&mut self, id: Uuid) {
        self.leases.release(id);
    }

    /// The status of each policy that has a window.
    #[must_use]
    pub fn status(&self, policies: &Policies, now_ms: u64) -> UserQuota {
        let windows = [
            (&self.burst, policies.burst),
            (&self.generations, policies.generations),
            (&self.attempts, policies.attempts),
        ];
        let counts = windows.map(|(window, quota)| {
            let status = window.status(quota, now_ms);
            let more_in_s = status.more_at_ms.map(|at_ms| seconds_until(at_ms, now_ms));
            PolicyStatus { remaining: status.remaining, more_in_s }
        });
        UserQuota { counts, spend: policies.spend.as_ref().map(|spend| self.spend.status(spend, now_ms)) }
    }

    /// Returns the first time at which more of a policy that has a window is available, if nothing happens before.
    #[must_use]
    pub fn grows_at_ms(&self, policies: &Policies, now_ms: u64) -> Option<u64> {
        let windows = [
            (&self.burst, policies.burst),
            (&self.generations, policies.generations),
            (&self.attempts, policies.attempts),
        ];
        windows.iter().filter_map(|(window, quota)| window.status(*quota, now_ms).more_at_ms).min()
    }

    /// Returns the time at which no decision depends on the ledger any more, if nothing happens before; 0 for an empty one. It
    /// can be deleted then, with every [`Reservation`] beside it (a new ledger numbers its reservations from the start).
    #[must_use]
    pub fn idle_at_ms(&self) -> u64 {
        let windows = [&self.burst, &self.generations, &self.attempts];
        let others_ms = self.leases.idle_at_ms().max(self.spend.idle_at_ms());
        windows.map(Window::idle_at_ms).into_iter().fold(others_ms, u64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::record::to_json;
    use crate::quota::Price;
    use crate::quota::counts::{in_use, reserved};

    const POLICIES: Policies = Policies {
        burst: Quota { count: 3, window_s: 60 },           // buckets of 600 ms
        generations: Quota { count: 2, window_s: 86_400 }, // buckets of 864 s
        attempts: Quota { count: 100, window_s: 86_400 },
        concurrent: 2,
        spend: None,
    };
    const LEASE_MS: u64 = 120_000;
    const TEXT_BYTES: usize = 1_000;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    /// Returns a ledger after so many requests and so many ended generations, all at the time 0.
    fn after(requests: u32, generations: u32) -> Ledger {
        let mut ledger = Ledger::default();
        for _ in 0..requests {
            ledger.count_request(&POLICIES, 0).expect("quota is available");
        }
        for _ in 0..generations {
            ledger.reserve(&POLICIES, id(0), TEXT_BYTES, LEASE_MS, 0).expect("quota is available");
            ledger.release(id(0));
        }
        ledger
    }

    /// Sends a request for a generation at `now_ms`.
    fn send(ledger: &Ledger, now_ms: u64) -> Result<(), Refusal> {
        let mut ledger = ledger.clone();
        ledger.count_request(&POLICIES, now_ms)?;
        ledger.reserve(&POLICIES, id(99), TEXT_BYTES, LEASE_MS, now_ms).map(|_| ())
    }

    #[test]
    fn a_client_that_waits_for_the_burst_is_admitted() {
        let mut ledger = after(3, 0);
        let refusal = ledger.count_request(&POLICIES, 500).expect_err("the burst is used up");
        // Available at 60600 ms.
        assert_eq!(refusal, Refusal { violated: vec![BURST], retry_after_s: 61 });
        assert!(send(&ledger, 60_500).is_err());
        assert_eq!(send(&ledger, 61_500), Ok(()));
    }

    #[test]
    fn a_rejected_request_is_not_counted() {
        let mut ledger = after(3, 0);
        for now_ms in 0..100 {
            ledger.count_request(&POLICIES, now_ms).expect_err("the burst is used up");
        }
        assert_eq!(ledger.burst, after(3, 0).burst);
        assert_eq!(reserved(&ledger.generations, POLICIES.generations, 99), 0);
        assert_eq!(in_use(&ledger.leases, 99), 0);
    }

    #[test]
    fn the_wait_for_the_burst_includes_the_generations() {
        let mut ledger = after(3, 2);
        let refusal = ledger.count_request(&POLICIES, 0).expect_err("the burst is used up");
        assert_eq!(
            refusal,
            Refusal { violated: vec![BURST], retry_after_s: 61 },
            "an invalid body waits for the burst alone"
        );
        let refusal = ledger.refusal_of_generation(refusal, &POLICIES, TEXT_BYTES, 0);
        assert_eq!(refusal, Refusal { violated: vec![BURST, GENERATIONS], retry_after_s: 101 * 864 });
    }

    #[test]
    fn the_wait_for_a_generation_includes_the_burst() {
        let mut ledger = after(0, 2);
        let at_ms = 101 * 864_000 - 1_000;
        for _ in 0..3 {
            ledger.count_request(&POLICIES, at_ms).expect("quota is available");
        }
        let refusal =
            ledger.reserve(&POLICIES, id(1), TEXT_BYTES, LEASE_MS, at_ms).expect_err("no generation is left");
        // A generation is available after 1 s, but the three requests leave the burst after 61 s at the latest.
        assert_eq!(refusal.violated, [GENERATIONS]);
        assert!((60..=61).contains(&refusal.retry_after_s), "{refusal:?}");
        assert!(send(&ledger, at_ms + (refusal.retry_after_s - 1) * 1000).is_err());
        assert_eq!(send(&ledger, at_ms + refusal.retry_after_s * 1000), Ok(()));
    }

    #[test]
    fn a_refusal_by_one_policy_reserves_nothing_of_another() {
        let mut full = after(0, 0);
        full.reserve(&POLICIES, id(1), TEXT_BYTES, LEASE_MS, 0).expect("quota is available");
        let one = Policies { concurrent: 1, ..POLICIES };
        let before = full.clone();
        full.reserve(&one, id(2), TEXT_BYTES, LEASE_MS, 0).expect_err("one is in flight");
        assert_eq!(full, before);

        let mut spent = after(0, 2);
        let before = spent.clone();
        spent.reserve(&POLICIES, id(1), TEXT_BYTES, LEASE_MS, 0).expect_err("no generation is left");
        assert_eq!(spent, before);
    }

    #[test]
    fn the_wait_for_a_lease_is_an_estimate_of_1_to_10_seconds() {
        for (now_ms, retry_after_s) in
            [(0, 10), (109_000, 10), (110_000, 10), (111_000, 9), (118_999, 2), (119_000, 1), (119_999, 1)]
        {
            let one = Policies { concurrent: 1, ..POLICIES };
            let mut ledger = Ledger::default();
            ledger.reserve(&one, id(1), TEXT_BYTES, LEASE_MS, 0).expect("quota is available");
            let refusal =
                ledger.reserve(&one, id(2), TEXT_BYTES, LEASE_MS, now_ms).expect_err("one is in flight");
            assert_eq!(refusal, Refusal { violated: vec![CONCURRENT], retry_after_s }, "{now_ms}");
        }
    }

    #[test]
    fn the_wait_for_generations_includes_the_lease() {
        let policies = Policies { generations: Quota { count: 2, window_s: 60 }, ..POLICIES };
        let mut ledger = Ledger::default();
        for number in [1, 2] {
            ledger.reserve(&policies, id(number), TEXT_BYTES, LEASE_MS, 0).expect("quota is available");
        }
        let refusal =
            ledger.reserve(&policies, id(3), TEXT_BYTES, LEASE_MS, 0).expect_err("two are in flight");
        assert_eq!(refusal, Refusal { violated: vec![GENERATIONS, CONCURRENT], retry_after_s: 120 });
    }

    #[test]
    fn the_wait_stays_true_after_a_step_of_the_clock() {
        let policies = Policies { generations: Quota { count: 2, window_s: 60 }, ..POLICIES };
        for (requests, running, violated) in [
            (3, 0, vec![BURST, GENERATIONS]),
            (2, 0, vec![GENERATIONS]),
            (2, 2, vec![GENERATIONS, CONCURRENT]),
        ] {
            let mut ledger = Ledger::default();
            for _ in 0..requests {
                ledger.count_request(&policies, 6_000).expect("quota is available");
            }
            for number in [1, 2] {
                ledger.reserve(&policies, id(number), TEXT_BYTES, 10_000, 6_000).expect("quota is available");
                if running == 0 {
                    ledger.release(id(number));
                }
            }
            let send = |ledger: &mut Ledger, now_ms| {
                if let Err(refusal) = ledger.count_request(&policies, now_ms) {
                    return Err(ledger.refusal_of_generation(refusal, &policies, TEXT_BYTES, now_ms));
                }
                ledger.reserve(&policies, id(3), TEXT_BYTES, 10_000, now_ms)
            };
            // All reservations are dated now: they leave at 60600 ms, not at 66600.
            let refusal = send(&mut ledger, 599).expect_err("no generation is left");
            assert_eq!(refusal, Refusal { violated, retry_after_s: 61 });
            assert!(send(&mut ledger.clone(), 60_599).is_err());
            assert!(send(&mut ledger, 61_599).is_ok());
        }
    }

    #[test]
    fn a_limit_of_zero_gives_a_finite_wait() {
        let none = Policies { concurrent: 0, ..POLICIES };
        let mut ledger = Ledger::default();
        let refusal =
            ledger.reserve(&none, id(1), TEXT_BYTES, LEASE_MS, u64::MAX).expect_err("none is allowed");
        assert_eq!(refusal, Refusal { violated: vec![CONCURRENT], retry_after_s: 1 });
        let refusal = ledger.reserve(&none, id(1), TEXT_BYTES, LEASE_MS, 0).expect_err("none is allowed");
        assert_eq!(refusal, Refusal { violated: vec![CONCURRENT], retry_after_s: 10 });
    }

    #[test]
    fn a_failed_generation_is_refunded_once_and_its_lease_released() {
        let mut ledger = Ledger::default();
        let failed = ledger.reserve(&POLICIES, id(1), TEXT_BYTES, LEASE_MS, 0).expect("quota is available");
        ledger.reserve(&POLICIES, id(2), TEXT_BYTES, LEASE_MS, 0).expect("quota is available");
        for _ in 0..2 {
            ledger.refund(failed);
            ledger.release(id(1));
        }
        assert_eq!(reserved(&ledger.generations, POLICIES.generations, 0), 1);
        assert_eq!(in_use(&ledger.leases, 0), 1);
        assert_eq!(send(&ledger, 0), Ok(()));
    }

    #[test]
    fn a_ledger_is_idle_when_its_last_reservation_has_left() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.idle_at_ms(), 0);
        ledger.count_request(&POLICIES, 0).expect("quota is available");
        assert_eq!(ledger.idle_at_ms(), 60_600);
        let reservation =
            ledger.reserve(&POLICIES, id(1), TEXT_BYTES, LEASE_MS, 0).expect("quota is available");
        assert_eq!(ledger.idle_at_ms(), 101 * 864_000);
        ledger.refund(reservation);
        assert_eq!(ledger.idle_at_ms(), 101 * 864_000, "its model call stays counted");
        ledger.attempts = Window::default();
        assert_eq!(ledger.idle_at_ms(), LEASE_MS);
    }

    #[test]
    fn a_ledger_is_stored_as_an_array() {
        let mut ledger = after(2, 1);
        ledger.reserve(&POLICIES, id(7), TEXT_BYTES, LEASE_MS, 0).expect("quota is available");
        let text = to_json(&ledger);
        assert_eq!(
            text,
            r#"[[60,2,[[0,0,2]],[]],[86400,2,[[0,0,2]],[]],[["00000000-0000-0000-0000-000000000007",120000]]]"#
        );
        let without_attempts = Ledger { attempts: Window::default(), ..ledger };
        assert_eq!(Ledger::read(text.as_bytes()).expect("it reads"), without_attempts);
        assert_eq!(Ledger::read(b"[]").expect("it reads"), Ledger::default());
    }

    #[test]
    fn a_model_call_is_counted_up_to_the_quota_and_never_refunded() {
        let policies = Policies { attempts: Quota { count: 3, window_s: 60 }, ..POLICIES };
        let mut ledger = Ledger::default();
        let reservation =
            ledger.reserve(&policies, id(1), TEXT_BYTES, LEASE_MS, 0).expect("quota is available");
        assert!(ledger.count_attempt(&policies, id(1), TEXT_BYTES, LEASE_MS, 0));
        assert!(ledger.count_attempt(&policies, id(1), TEXT_BYTES, LEASE_MS, 0));
        assert!(!ledger.count_attempt(&policies, id(1), TEXT_BYTES, LEASE_MS, 0));
        ledger.refund(reservation);
        ledger.release(id(1));
        let refusal =
            ledger.reserve(&policies, id(2), TEXT_BYTES, LEASE_MS, 0).expect_err("no model call is left");
        assert_eq!(refusal, Refusal { violated: vec![ATTEMPTS], retry_after_s: 61 });
        assert_eq!(reserved(&ledger.generations, policies.generations, 0), 0, "a refusal reserves nothing");
        assert!(!ledger.count_attempt(&policies, id(1), TEXT_BYTES, LEASE_MS, 60_599));
        assert!(ledger.reserve(&policies, id(2), TEXT_BYTES, LEASE_MS, 60_600).is_ok());
    }

    #[test]
    fn a_refusal_by_several_windows_waits_for_the_last_of_them() {
        let policies = Policies {
            burst: Quota { count: 1, window_s: 10 },
            generations: Quota { count: 1, window_s: 20 },
            attempts: Quota { count: 1, window_s: 30 },
            concurrent: 1,
            spend: None,
        };
        let mut ledger = Ledger::default();
        ledger.count_request(&policies, 0).expect("quota is available");
        ledger.reserve(&policies, id(1), TEXT_BYTES, 1_000, 0).expect("quota is available");
        let all = ledger.reserve(&policies, id(2), TEXT_BYTES, 1_000, 0).expect_err("nothing is left");
        let violated = vec![GENERATIONS, ATTEMPTS, CONCURRENT];
        assert_eq!(all, Refusal { violated, retry_after_s: 31 });
        let burst = ledger.count_request(&policies, 0).expect_err("nothing is left");
        let burst = ledger.refusal_of_generation(burst, &policies, TEXT_BYTES, 0);
        assert_eq!(burst, Refusal { violated: vec![BURST, GENERATIONS, ATTEMPTS], retry_after_s: 31 });
    }

    /// A limit of three calls for a text of [`TEXT_BYTES`].
    fn with_spend() -> (Policies, u64) {
        let price = Price { prompt: 1_000_000, completion: 5_000_000 };
        let spend = SpendPolicy { limit: 0, window_s: 60, price, answer_tokens_max: 9_000 };
        let cost_max = spend.cost_max(TEXT_BYTES);
        (Policies { spend: Some(SpendPolicy { limit: 3 * cost_max, ..spend }), ..POLICIES }, cost_max)
    }

    #[test]
    fn a_generation_reserves_the_most_that_its_call_can_cost() {
        let (policies, cost_max) = with_spend();
        let mut ledger = Ledger::default();
        let remaining = |ledger: &Ledger| ledger.status(&policies, 0).spend.expect("configured").remaining;
        ledger.reserve(&policies, id(1), TEXT_BYTES, LEASE_MS, 0).expect("quota is available");
        assert!(ledger.count_attempt(&policies, id(1), TEXT_BYTES, LEASE_MS, 0));
        assert_eq!(remaining(&ledger), cost_max);
        ledger.reserve(&policies, id(2), TEXT_BYTES, LEASE_MS, 0).expect("quota is available");
        let before = ledger.clone();
        assert!(!ledger.has_attempt(&policies, TEXT_BYTES, 0));
        assert!(!ledger.count_attempt(&policies, id(2), TEXT_BYTES, LEASE_MS, 0), "no retry over the limit");
        assert_eq!(ledger, before, "it counts for no policy");
        // The second call of the first generation reported its cost, the first did not.
        assert!(ledger.reconcile(id(1), Reported { calls: 1, nanodollars: 7 }, 0));
        assert_eq!(remaining(&ledger), cost_max - 7);
        assert_eq!(Ledger::default().status(&POLICIES, 0).spend, None);
    }

    #[test]
    fn a_refund_of_a_generation_refunds_no_money() {
        let (policies, cost_max) = with_spend();
        let mut ledger = Ledger::default();
        let failed = ledger.reserve(&policies, id(1), TEXT_BYTES, LEASE_MS, 0).expect("quota is available");
        ledger.refund(failed);
        ledger.release(id(1));
        ledger.reconcile(id(1), Reported::default(), 0);
        assert_eq!(reserved(&ledger.generations, policies.generations, 0), 0);
        assert_eq!(ledger.status(&policies, 0).spend.expect("configured").remaining, 2 * cost_max);
    }

    #[test]
    fn a_client_that_waits_for_the_money_is_admitted() {
        let (policies, cost_max) = with_spend();
        let policies = Policies { concurrent: 100, generations: POLICIES.attempts, ..policies };
        let mut ledger = Ledger::default();
        for number in 1..=3 {
            ledger.reserve(&policies, id(number), TEXT_BYTES, LEASE_MS, 0).expect("quota is available");
        }
        let refused = |ledger: &Ledger, text_bytes| {
            let mut ledger = ledger.clone();
            ledger.reserve(&policies, id(9), text_bytes, LEASE_MS, 0).expect_err("the limit is reached")
        };
        // The reservations stay until 120 s, and a window and a bucket more.
        assert_eq!(refused(&ledger, 0), Refusal { violated: vec![SPEND], retry_after_s: 181 });
        ledger.reconcile(id(1), Reported { calls: 1, nanodollars: cost_max - 1 }, 0);
        let refusal = refused(&ledger, TEXT_BYTES);
        assert_eq!(refusal, Refusal { violated: vec![SPEND], retry_after_s: 61 });
        let send = |now_ms| ledger.clone().reserve(&policies, id(9), TEXT_BYTES, LEASE_MS, now_ms);
        assert!(send(60_599).is_err());
        assert!(send(60_600).is_ok());
        let burst = Refusal { violated: vec![BURST], retry_after_s: 7 };
        let burst = ledger.clone().refusal_of_generation(burst, &policies, TEXT_BYTES, 0);
        assert_eq!(burst, Refusal { violated: vec![BURST, SPEND], retry_after_s: 61 });
        assert_eq!(ledger.idle_at_ms(), 101 * 864_000);
    }
}
