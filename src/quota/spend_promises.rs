//! The promises of `spend`, compared with a slow oracle that keeps every call with its times.

use proptest::prelude::*;
use proptest::sample::Index;
use uuid::Uuid;

use super::{Price, Reported, Spend, SpendPolicy};
use crate::json::record::{FromJson, to_json};

const NOON_MS: u64 = 1_785_585_600_000;
const LEASE_MS: u64 = 3_000;

/// A model call: what it was billed, at any moment between these two.
#[derive(Debug, Clone, Copy)]
struct Call {
    from_ms: u64,
    /// `None` while it may still be billed.
    until_ms: Option<u64>,
    billed: u64,
}

/// A generation in progress.
#[derive(Debug)]
struct Running {
    id: Uuid,
    expires_ms: u64,
    /// The number of the call at the oracle, and its reservation.
    calls: Vec<(usize, u64)>,
}

#[derive(Debug, Clone)]
enum Step {
    /// A generation starts; the bytes of its text.
    Start(usize),
    /// Another model call of it.
    Retry(Index),
    /// It ends: for each call the share of the reservation that is billed, in percent, and whether that is reported.
    End(Index, Vec<(u64, bool)>),
    /// Its end is never stored. All of it may have been billed.
    Crash(Index),
    /// The state is stored, and loaded again.
    Evict,
}

fn step() -> impl Strategy<Value = Step> {
    let shares =
        prop::collection::vec((prop_oneof![Just(0_u64), 0..=100_u64, Just(100)], any::<bool>()), 1..5);
    prop_oneof![
        8 => (0..400_usize).prop_map(Step::Start),
        3 => any::<Index>().prop_map(Step::Retry),
        6 => (any::<Index>(), shares).prop_map(|(which, shares)| Step::End(which, shares)),
        1 => any::<Index>().prop_map(Step::Crash),
        1 => Just(Step::Evict),
    ]
}

fn pause_ms() -> impl Strategy<Value = u64> {
    prop_oneof![4 => Just(0), 4 => 0..12_u64, 4 => 0..400_u64, 2 => 900..1_100_u64, 1 => 0..7_000_u64]
}

/// The largest call costs 76 to 228 nanodollars.
fn policy() -> impl Strategy<Value = SpendPolicy> {
    (228..2_000_u64, 1..6_u32, 1..4_u64, 1..4_u64).prop_map(|(limit, window_s, prompt, completion)| {
        SpendPolicy { limit, window_s, price: Price { prompt, completion }, answer_tokens_max: 25_000 }
    })
}

/// The user: the ledger's part and the oracle.
struct User {
    policy: SpendPolicy,
    now_ms: u64,
    spend: Spend,
    running: Vec<Running>,
    calls: Vec<Call>,
    next_id: u128,
    /// The moments and amounts of the reservations: those that a strict limit must count.
    counted: Vec<(u64, u64)>,
}

impl User {
    /// Returns the most that any dating of the calls can put into a window that ends now, closed at both ends.
    fn billed_in_window(&self) -> u64 {
        let since_ms = self.now_ms - u64::from(self.policy.window_s) * 1000;
        let is_in = |call: &&Call| call.until_ms.is_none_or(|until_ms| until_ms >= since_ms);
        self.calls.iter().filter(is_in).map(|call| call.billed).sum()
    }

    /// Returns the most that may count: costs leave a bucket after their window, reservations as long after their expiry.
    fn counted_at_most(&self) -> u64 {
        let window_ms = u64::from(self.policy.window_s) * 1000;
        let oldest_ms = self.now_ms - (window_ms + window_ms / 100 - 1);
        let reserved: u64 =
            self.running.iter().flat_map(|running| &running.calls).map(|(_, cost)| cost).sum();
        let is_in = |counted: &&(u64, u64)| counted.0 >= oldest_ms;
        reserved + self.counted.iter().filter(is_in).map(|(_, amount)| amount).sum::<u64>()
    }

    fn call(
        &mut self,
        id: Uuid,
        text_bytes: usize,
        expires_ms: u64,
    ) -> Result<Option<(usize, u64)>, TestCaseError> {
        let cost_max = self.policy.cost_max(text_bytes);
        let at_ms = self.spend.available_at_ms(&self.policy, cost_max, self.now_ms);
        if !self.spend.reserve(&self.policy, id, cost_max, expires_ms, self.now_ms) {
            prop_assert!(self.counted_at_most() + cost_max > self.policy.limit, "too strict");
            let mut earlier = self.spend.clone();
            prop_assert!(
                !earlier.reserve(&self.policy, Uuid::max(), cost_max, at_ms, at_ms - 1),
                "before its time"
            );
            let mut then = Spend::read(to_json(&self.spend).as_bytes()).expect("it reads");
            prop_assert!(then.reserve(&self.policy, Uuid::max(), cost_max, at_ms, at_ms), "not at its time");
            return Ok(None);
        }
        prop_assert_eq!(at_ms, self.now_ms);
        self.calls.push(Call { from_ms: self.now_ms, until_ms: None, billed: cost_max });
        Ok(Some((self.calls.len() - 1, cost_max)))
    }

    /// A generation whose end was not stored until its expiry counts from then on.
    fn expire(&mut self) {
        for running in self.running.extract_if(.., |running| running.expires_ms <= self.now_ms) {
            for (number, cost_max) in running.calls {
                self.calls[number].until_ms = Some(running.expires_ms);
                self.counted.push((running.expires_ms, cost_max));
            }
        }
    }

    fn go(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Start(text_bytes) => {
                self.next_id += 1;
                let (id, expires_ms) = (Uuid::from_u128(self.next_id), self.now_ms + LEASE_MS);
                if let Some(call) = self.call(id, *text_bytes, expires_ms)? {
                    self.running.push(Running { id, expires_ms, calls: vec![call] });
                }
            }
            Step::Retry(which) if !self.running.is_empty() => {
                let number = which.index(self.running.len());
                let (id, expires_ms) = (self.running[number].id, self.running[number].expires_ms);
                // All calls of a generation have the same maximum.
                let text_bytes =
                    (0..400).find(|bytes| self.policy.cost_max(*bytes) == self.running[number].calls[0].1);
                if let Some(call) = self.call(id, text_bytes.expect("it was reserved"), expires_ms)? {
                    self.running[number].calls.push(call);
                }
            }
            Step::End(which, shares) if !self.running.is_empty() => {
                let running = self.running.swap_remove(which.index(self.running.len()));
                let mut reported = Reported::default();
                for (index, (number, cost_max)) in running.calls.iter().enumerate() {
                    let (percent, is_reported) = shares[index % shares.len()];
                    let billed = cost_max * percent / 100;
                    self.calls[*number].billed = billed;
                    self.calls[*number].until_ms = Some(self.now_ms);
                    reported.add(is_reported.then_some(billed));
                    self.counted.push((self.now_ms, if is_reported { billed } else { *cost_max }));
                }
                prop_assert!(self.spend.reconcile(running.id, reported, self.now_ms));
            }
            Step::Crash(_) | Step::Evict | Step::Retry(_) | Step::End(..) => {
                self.spend = Spend::read(to_json(&self.spend).as_bytes()).expect("it reads");
            }
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn no_window_costs_more_than_the_limit_and_no_call_is_refused_early(
        policy in policy(),
        steps in prop::collection::vec((step(), pause_ms()), 1..300),
    ) {
        let mut user = User {
            policy, now_ms: NOON_MS, spend: Spend::default(), running: Vec::new(), calls: Vec::new(), next_id: 0, counted: Vec::new(),
        };
        let mut crashed = Vec::new();
        for (step, pause_ms) in steps {
            user.now_ms += pause_ms;
            user.expire();
            crashed.retain(|id| user.running.iter().any(|running| running.id == *id));
            let step = match step {
                // A generation that has crashed neither ends nor calls again.
                Step::Crash(which) if !user.running.is_empty() => {
                    crashed.push(user.running[which.index(user.running.len())].id);
                    Step::Evict
                }
                Step::End(which, _) | Step::Retry(which)
                    if user.running.is_empty() || crashed.contains(&user.running[which.index(user.running.len())].id) => Step::Evict,
                step => step,
            };
            user.go(&step)?;
            let billed = user.billed_in_window();
            prop_assert!(billed <= policy.limit, "{billed} of {}", policy.limit);
            let used = policy.limit - user.spend.status(&policy, user.now_ms).remaining;
            prop_assert!((billed..=user.counted_at_most()).contains(&used), "{billed} <= {used} <= {}", user.counted_at_most());
            prop_assert!(user.calls.iter().all(|call| call.from_ms <= user.now_ms));
            let idle_at_ms = user.spend.idle_at_ms();
            let idle = Spend::read(to_json(&user.spend).as_bytes()).expect("it reads");
            prop_assert_eq!(idle.status(&policy, idle_at_ms.max(user.now_ms)).remaining, policy.limit);
        }
    }

    /// The oracle uses the true time; the clock lags behind it more and more.
    #[test]
    fn a_step_of_the_clock_spends_no_more_than_the_limit(
        policy in policy(),
        steps in prop::collection::vec((pause_ms(), prop_oneof![9 => Just(0_u64), 1 => 0..9_000_u64], 0..=100_u64), 1..300),
    ) {
        let (mut spend, mut true_ms, mut lag_ms, mut next_id) = (Spend::default(), NOON_MS, 0, 0);
        let (mut billed, mut running) = (Vec::<(u64, u64)>::new(), None);
        for (pause_ms, step_back_ms, percent) in steps {
            true_ms += pause_ms;
            lag_ms += step_back_ms;
            let now_ms = true_ms - lag_ms;
            if let Some((id, cost_max)) = running.take() {
                let cost = cost_max * percent / 100;
                if spend.reconcile(id, Reported { calls: 1, nanodollars: cost }, now_ms) {
                    billed.push((true_ms, cost));
                }
            }
            next_id += 1;
            let (id, cost_max) = (Uuid::from_u128(next_id), policy.cost_max(usize::try_from(percent).expect("small")));
            if spend.reserve(&policy, id, cost_max, now_ms + 1_000_000, now_ms) {
                running = Some((id, cost_max));
            }
            let since_ms = true_ms - u64::from(policy.window_s) * 1000;
            let sum: u64 = billed.iter().filter(|(at_ms, _)| *at_ms >= since_ms).map(|(_, cost)| cost).sum();
            let reserved = running.map_or(0, |(_, cost_max)| cost_max);
            prop_assert!(sum + reserved <= policy.limit, "{sum} and {reserved} of {}", policy.limit);
        }
    }
}
