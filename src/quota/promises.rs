//! The promises of the contract, compared with a slow oracle that keeps the exact time of every reservation.
//!
//! "A window" here is closed at both ends: the strictest reading of "any window of that length".

use proptest::prelude::*;
use proptest::sample::Index;
use uuid::Uuid;

use super::counts::{in_use, reserved};
use super::*;
use crate::json::record::{FromJson, ToJson, to_json};

const NOON_MS: u64 = 1_785_585_600_000;
const LEASE_MS: u64 = 3_000;
const TEXT_BYTES: usize = 1_000;

/// The times of all reservations that were not refunded.
#[derive(Debug, Default)]
struct Oracle(Vec<u64>);

impl Oracle {
    /// Counts the reservations that are at most so old.
    fn as_old_as(&self, age_ms: u64, now_ms: u64) -> usize {
        self.0.iter().filter(|taken_ms| now_ms - **taken_ms <= age_ms).count()
    }

    /// Returns how many reservations must count, and how many may: a hundredth of the window later all have left.
    fn bounds(&self, quota: Quota, now_ms: u64) -> (usize, usize) {
        let window_ms = u64::from(quota.window_s) * 1000;
        (self.as_old_as(window_ms, now_ms), self.as_old_as(window_ms + window_ms / 100 - 1, now_ms))
    }

    fn refund(&mut self, taken_ms: u64) {
        let position = self.0.iter().position(|other_ms| *other_ms == taken_ms).expect("it was taken");
        self.0.remove(position);
    }
}

fn size(count: u32) -> usize {
    usize::try_from(count).expect("a small number")
}

/// Writes a value and reads it again.
fn stored<T: ToJson + FromJson>(value: &T) -> T {
    T::read(to_json(value).as_bytes()).expect("it reads")
}

/// Small windows, so that a few hundred steps see many of them.
fn quota() -> impl Strategy<Value = Quota> {
    (1..8_u32, 1..6_u32).prop_map(|(count, window_s)| Quota { count, window_s })
}

/// A limit of one to eight model calls.
fn spend() -> impl Strategy<Value = SpendPolicy> {
    (1..8_u64, 1..6_u32).prop_map(|(calls, window_s)| {
        let price = Price { prompt: 10, completion: 50 };
        let policy = SpendPolicy { limit: 0, window_s, price, answer_tokens_max: 9_000 };
        SpendPolicy { limit: calls * policy.cost_max(TEXT_BYTES), ..policy }
    })
}

/// The time between two steps, often 0.
fn pause_ms() -> impl Strategy<Value = u64> {
    prop_oneof![4 => Just(0), 4 => 0..12_u64, 4 => 0..400_u64, 2 => 900..1_100_u64, 1 => 0..7_000_u64]
}

fn assert_available_at_its_time(window: &Window, quota: Quota, now_ms: u64) -> Result<(), TestCaseError> {
    let available_at_ms = window.available_at_ms(quota, now_ms);
    prop_assert!(stored(window).take(quota, available_at_ms - 1).is_none(), "available before its time");
    prop_assert!(stored(window).take(quota, available_at_ms).is_some(), "not available at its time");
    Ok(())
}

proptest! {
    #[test]
    fn no_window_exceeds_its_quota_or_is_stricter_by_a_hundredth(
        quota in quota(),
        pauses_ms in prop::collection::vec(pause_ms(), 1..300),
        offset_ms in 0..10_000_u64,
    ) {
        let (mut window, mut oracle, mut now_ms) = (Window::default(), Oracle::default(), NOON_MS + offset_ms);
        for pause_ms in pauses_ms {
            now_ms += pause_ms;
            let (at_least, at_most) = oracle.bounds(quota, now_ms);
            let used = size(reserved(&window, quota, now_ms));
            prop_assert!((at_least..=at_most).contains(&used), "{at_least} <= {used} <= {at_most}");
            if window.take(quota, now_ms).is_some() {
                prop_assert!(at_least < size(quota.count), "one too many");
                oracle.0.push(now_ms);
            } else {
                prop_assert!(at_most >= size(quota.count), "too strict");
                assert_available_at_its_time(&window, quota, now_ms)?;
            }
        }
    }

    #[test]
    fn the_stored_size_of_a_window_is_bounded(
        quota in (1_000..1_000_000_u32, 1..3_u32).prop_map(|(count, window_s)| Quota { count, window_s }),
        pauses_ms in prop::collection::vec(1..40_u64, 300..400),
    ) {
        let (mut window, mut now_ms) = (Window::default(), NOON_MS);
        for pause_ms in pauses_ms {
            now_ms += pause_ms;
            window.take(quota, now_ms);
        }
        let bytes = to_json(&window).len();
        // Index, number and count: at most 30 bytes for each of 101 buckets.
        prop_assert!(bytes < 101 * 30 + 40, "{bytes} bytes");
        let idle_at_ms = window.idle_at_ms();
        prop_assert_eq!(reserved(&window, quota, idle_at_ms), 0);
        prop_assert!(reserved(&window, quota, idle_at_ms - 1) > 0);
    }

    /// The oracle uses the true time; the clock lags behind it more and more.
    #[test]
    fn a_step_of_the_clock_admits_no_more_than_the_quota(
        quota in quota(),
        steps in prop::collection::vec((pause_ms(), prop_oneof![9 => Just(0_u64), 1 => 0..9_000_u64]), 1..300),
    ) {
        let (mut window, mut oracle) = (Window::default(), Oracle::default());
        let (mut true_ms, mut lag_ms) = (NOON_MS, 0);
        for (pause_ms, step_back_ms) in steps {
            true_ms += pause_ms;
            lag_ms += step_back_ms;
            let now_ms = true_ms - lag_ms;
            if window.take(quota, now_ms).is_some() {
                let (at_least, _) = oracle.bounds(quota, true_ms);
                prop_assert!(at_least < size(quota.count), "one too many");
                oracle.0.push(true_ms);
            } else {
                let wait_ms = window.available_at_ms(quota, now_ms) - now_ms;
                prop_assert!(wait_ms <= u64::from(quota.window_s) * 1010, "longer than a window and a bucket");
                assert_available_at_its_time(&window, quota, now_ms)?;
            }
        }
    }

    /// A reservation counts for as long as every quota since then would have counted it.
    #[test]
    fn a_changed_quota_ends_each_reservation_in_time(
        deployments in prop::collection::vec((quota(), prop::collection::vec(pause_ms(), 1..60)), 1..6),
    ) {
        let (mut window, mut now_ms) = (Window::default(), NOON_MS);
        let mut taken: Vec<(u64, u64)> = Vec::new(); // the time, the shortest window since
        for (quota, pauses_ms) in deployments {
            let window_ms = u64::from(quota.window_s) * 1000;
            for (_, shortest_ms) in &mut taken {
                *shortest_ms = window_ms.min(*shortest_ms);
            }
            for pause_ms in pauses_ms {
                now_ms += pause_ms;
                let at_least = taken.iter().filter(|(at_ms, shortest_ms)| now_ms - at_ms <= *shortest_ms).count();
                if window.take(quota, now_ms).is_some() {
                    prop_assert!(at_least < size(quota.count), "one too many");
                    taken.push((now_ms, window_ms));
                }
                prop_assert_eq!(reserved(&window, quota, now_ms + window_ms + window_ms / 100), 0);
            }
        }
    }

    #[test]
    fn a_ledger_keeps_every_promise_in_any_order_of_events(
        (burst, generations, attempts, concurrent) in (quota(), quota(), quota(), 1..4_u32),
        spend in prop::option::of(spend()),
        steps in prop::collection::vec((step(), pause_ms()), 1..200),
    ) {
        let mut user = User::new(Policies { burst, generations, attempts, concurrent, spend });
        for (step, pause_ms) in steps {
            user.now_ms += pause_ms;
            user.go(&step)?;
            user.assert_the_ledger_agrees()?;
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// A request for a generation.
    Generate,
    /// A request with an invalid body, which counts for `burst` alone.
    BadBody,
    /// A generation calls the model again.
    Retry,
    /// A generation fails: its reservation is refunded, its lease ends. Any earlier generation, so also twice.
    Fail(Index),
    /// A generation succeeds.
    End(Index),
    /// The object is evicted and loaded again.
    Evict,
    /// The alarm deletes the storage if the ledger is idle.
    Alarm,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Generate),
        2 => Just(Step::BadBody),
        2 => Just(Step::Retry),
        3 => any::<Index>().prop_map(Step::Fail),
        4 => any::<Index>().prop_map(Step::End),
        1 => Just(Step::Evict),
        1 => Just(Step::Alarm),
    ]
}

struct Generation {
    id: Uuid,
    reservation: Reservation,
    started_ms: u64,
    was_refunded: bool,
    was_released: bool,
}

/// A user: the ledger and its oracles.
struct User {
    policies: Policies,
    now_ms: u64,
    ledger: Ledger,
    requests: Oracle,
    started: Oracle,
    calls: Oracle,
    /// The stored generations, which are deleted with the storage.
    generations: Vec<Generation>,
}

impl User {
    fn new(policies: Policies) -> Self {
        Self {
            policies,
            now_ms: NOON_MS,
            ledger: Ledger::default(),
            requests: Oracle::default(),
            started: Oracle::default(),
            calls: Oracle::default(),
            generations: Vec::new(),
        }
    }

    fn go(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Generate => {
                if self.count_request()? {
                    self.reserve()?;
                }
            }
            Step::BadBody => {
                self.count_request()?;
            }
            Step::Retry => {
                let (at_least, at_most) = self.calls.bounds(self.policies.attempts, self.now_ms);
                let has_money = self.has_money();
                let id = self.generations.last().map_or(Uuid::nil(), |generation| generation.id);
                let expires_ms = self.now_ms + LEASE_MS;
                if self.ledger.count_attempt(&self.policies, id, TEXT_BYTES, expires_ms, self.now_ms) {
                    prop_assert!(has_money, "one model call over the limit");
                    prop_assert!(at_least < size(self.policies.attempts.count), "one model call too many");
                    self.calls.0.push(self.now_ms);
                } else {
                    prop_assert!(!has_money || at_most >= size(self.policies.attempts.count), "too strict");
                }
            }
            Step::Fail(which) if !self.generations.is_empty() => {
                let number = which.index(self.generations.len());
                let generation = &mut self.generations[number];
                self.ledger.refund(generation.reservation);
                self.ledger.release(generation.id);
                self.ledger.reconcile(generation.id, Reported::default(), self.now_ms);
                if !generation.was_refunded {
                    self.started.refund(generation.started_ms);
                }
                (generation.was_refunded, generation.was_released) = (true, true);
            }
            Step::End(which) if !self.generations.is_empty() => {
                let number = which.index(self.generations.len());
                self.ledger.release(self.generations[number].id);
                let reported = Reported { calls: 1, nanodollars: 10 };
                self.ledger.reconcile(self.generations[number].id, reported, self.now_ms);
                self.generations[number].was_released = true;
            }
            Step::Alarm if self.ledger.idle_at_ms() <= self.now_ms => {
                self.ledger = Ledger::default();
                self.generations.clear();
            }
            Step::Fail(_) | Step::End(_) | Step::Evict | Step::Alarm => self.ledger = self.stored_ledger(),
        }
        Ok(())
    }

    /// Writes the ledger and reads it again; `attempts` and `spend` are stored beside it.
    fn stored_ledger(&self) -> Ledger {
        let Ledger { attempts, spend, .. } = &self.ledger;
        Ledger { attempts: stored(attempts), spend: stored(spend), ..stored(&self.ledger) }
    }

    /// Whether the most that a model call can cost remains.
    fn has_money(&self) -> bool {
        let remaining = self.ledger.status(&self.policies, self.now_ms).spend.map(|spend| spend.remaining);
        let needed = self.policies.spend.map(|spend| spend.cost_max(TEXT_BYTES));
        remaining >= needed
    }

    fn count_request(&mut self) -> Result<bool, TestCaseError> {
        let (at_least, at_most) = self.requests.bounds(self.policies.burst, self.now_ms);
        match self.ledger.count_request(&self.policies, self.now_ms) {
            Ok(()) => {
                prop_assert!(at_least < size(self.policies.burst.count), "one request too many");
                self.requests.0.push(self.now_ms);
                Ok(true)
            }
            Err(refusal) => {
                prop_assert!(at_most >= size(self.policies.burst.count), "too strict");
                prop_assert_eq!(&refusal.violated, &[BURST]);
                let refusal =
                    self.ledger.refusal_of_generation(refusal, &self.policies, TEXT_BYTES, self.now_ms);
                prop_assert!(!refusal.violated.contains(&CONCURRENT));
                self.assert_the_wait_is_exact(&refusal)?;
                Ok(false)
            }
        }
    }

    fn reserve(&mut self) -> Result<(), TestCaseError> {
        let (at_least, at_most) = self.started.bounds(self.policies.generations, self.now_ms);
        let (calls_at_least, calls_at_most) = self.calls.bounds(self.policies.attempts, self.now_ms);
        let has_lease = self.running() < size(self.policies.concurrent);
        let has_money = self.has_money();
        let id = Uuid::from_u128(u128::try_from(self.generations.len()).expect("a small number"));
        match self.ledger.reserve(&self.policies, id, TEXT_BYTES, LEASE_MS, self.now_ms) {
            Ok(reservation) => {
                prop_assert!(at_least < size(self.policies.generations.count), "one generation too many");
                prop_assert!(calls_at_least < size(self.policies.attempts.count), "one model call too many");
                prop_assert!(has_lease, "one too many in flight");
                prop_assert!(has_money, "one model call over the limit");
                self.calls.0.push(self.now_ms);
                let (started_ms, was_refunded, was_released) = (self.now_ms, false, false);
                self.started.0.push(started_ms);
                self.generations.push(Generation { id, reservation, started_ms, was_refunded, was_released });
            }
            Err(refusal) => {
                prop_assert_eq!(refusal.violated.contains(&CONCURRENT), !has_lease);
                prop_assert_eq!(refusal.violated.contains(&SPEND), !has_money);
                if refusal.violated.contains(&GENERATIONS) {
                    prop_assert!(at_most >= size(self.policies.generations.count), "too strict");
                }
                if refusal.violated.contains(&ATTEMPTS) {
                    prop_assert!(calls_at_most >= size(self.policies.attempts.count), "too strict");
                }
                prop_assert!(!refusal.violated.is_empty());
                self.assert_the_wait_is_exact(&refusal)?;
            }
        }
        Ok(())
    }

    fn running(&self) -> usize {
        let runs = |generation: &&Generation| {
            !generation.was_released && generation.started_ms + LEASE_MS > self.now_ms
        };
        self.generations.iter().filter(runs).count()
    }

    /// Sends a request for a generation at that time, with nothing in between.
    fn send_at(&self, leases: &Leases, now_ms: u64) -> Result<(), Refusal> {
        let mut ledger = Ledger { leases: leases.clone(), ..self.stored_ledger() };
        ledger.count_request(&self.policies, now_ms)?;
        ledger.reserve(&self.policies, Uuid::max(), TEXT_BYTES, LEASE_MS, now_ms).map(|_| ())
    }

    fn assert_the_wait_is_exact(&self, refusal: &Refusal) -> Result<(), TestCaseError> {
        if refusal.violated == [CONCURRENT] {
            prop_assert!((1..=10).contains(&refusal.retry_after_s));
            return Ok(());
        }
        // Without a refusal by `concurrent` the wait ignores it: the running generations have ended meanwhile.
        let is_waited_for = refusal.violated.contains(&CONCURRENT);
        let leases = if is_waited_for { self.ledger.leases.clone() } else { Leases::default() };
        let back_ms = self.now_ms + refusal.retry_after_s * 1000;
        prop_assert!(self.send_at(&leases, back_ms - 1000).is_err(), "a second less is enough");
        prop_assert_eq!(self.send_at(&leases, back_ms), Ok(()));
        Ok(())
    }

    /// Also after a refusal, which reserves nothing.
    fn assert_the_ledger_agrees(&self) -> Result<(), TestCaseError> {
        for (window, quota, oracle) in [
            (&self.ledger.burst, self.policies.burst, &self.requests),
            (&self.ledger.generations, self.policies.generations, &self.started),
            (&self.ledger.attempts, self.policies.attempts, &self.calls),
        ] {
            let (at_least, at_most) = oracle.bounds(quota, self.now_ms);
            let used = size(reserved(window, quota, self.now_ms));
            prop_assert!((at_least..=at_most).contains(&used), "{at_least} <= {used} <= {at_most}");
            prop_assert_eq!(reserved(window, quota, self.ledger.idle_at_ms().max(self.now_ms)), 0);
        }
        prop_assert_eq!(in_use(&self.ledger.leases, self.now_ms), self.running());
        Ok(())
    }
}
