//! `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-11), as structured fields
//! (RFC 9651): a list of strings with integer parameters.
//!
//! ```text
//! RateLimit-Policy: "burst";q=10;w=60, "generations";q=50;w=86400, "attempts";q=150;w=86400, "spend";q=5;w=86400
//! RateLimit: "burst";r=9;t=6, "generations";r=49;t=512, "attempts";r=149;t=512, "spend";r=4;t=512
//! ```
//! The quota is `q` in any window of `w` seconds; `r` of it remain, and more is available in `t` seconds. `concurrent` has no
//! window and is left out; `spend` is there where it is configured.
//!
//! Quota units are "requests" unless `qu` names another one of the draft's registry, which has bytes and concurrent requests,
//! and no money. So `spend` is counted in requests, too: the generations that the amount allows if each costs the most that
//! one can cost.

use crate::quota::{
    ATTEMPTS, BURST, GENERATIONS, Policies, PolicyStatus, Quota, SPEND, SpendPolicy, UserQuota,
};

/// Returns both headers, their names in lower case.
#[must_use]
pub fn fields(quota: &UserQuota, policies: &Policies) -> [(&'static str, String); 2] {
    [("ratelimit-policy", rate_limit_policy(policies)), ("ratelimit", rate_limit(quota, policies))]
}

/// Returns the value of `RateLimit-Policy`.
#[must_use]
pub fn rate_limit_policy(policies: &Policies) -> String {
    let member = |name: &str, quota: Quota| format!("\"{name}\";q={};w={}", quota.count, quota.window_s);
    let mut members = vec![
        member(BURST, policies.burst),
        member(GENERATIONS, policies.generations),
        member(ATTEMPTS, policies.attempts),
    ];
    if let Some(spend) = &policies.spend {
        let count = generations(spend, spend.limit);
        members.push(member(SPEND, Quota { count, window_s: spend.window_s }));
    }
    members.join(", ")
}

/// Returns the generations that an amount allows if each costs the most.
fn generations(spend: &SpendPolicy, nanodollars: u64) -> u32 {
    u32::try_from(nanodollars / spend.largest_cost().max(1)).unwrap_or(u32::MAX)
}

/// Returns the value of `RateLimit`. `t` is the draft's "number of seconds until additional quota […] is made available",
/// rounded up; it is left out when nothing is used.
#[must_use]
pub fn rate_limit(quota: &UserQuota, policies: &Policies) -> String {
    let mut statuses = Vec::from(quota.counts);
    if let (Some(policy), Some(status)) = (&policies.spend, quota.spend) {
        let remaining = generations(policy, status.remaining);
        statuses.push(PolicyStatus { remaining, more_in_s: status.more_in_s });
    }
    let members = [BURST, GENERATIONS, ATTEMPTS, SPEND].iter().zip(statuses).map(|(name, status)| {
        let remaining = format!("\"{name}\";r={}", status.remaining);
        match status.more_in_s {
            Some(seconds) => format!("{remaining};t={seconds}"),
            None => remaining,
        }
    });
    members.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::quota::{Ledger, Price, Reported};

    fn rate_limit(ledger: &Ledger, policies: &Policies, now_ms: u64) -> String {
        super::rate_limit(&ledger.status(policies, now_ms), policies)
    }

    const POLICIES: Policies = Policies {
        burst: Quota { count: 10, window_s: 60 },
        generations: Quota { count: 50, window_s: 86_400 },
        attempts: Quota { count: 150, window_s: 86_400 },
        concurrent: 2,
        spend: None,
    };

    /// Five generations of 0.096 dollars.
    const SPEND_POLICY: SpendPolicy = SpendPolicy {
        limit: 500_000_000,
        window_s: 86_400,
        price: Price { prompt: 1_000_000, completion: 5_000_000 },
        answer_tokens_max: 9_000,
    };

    #[test]
    fn spend_is_counted_in_generations_of_the_largest_cost() {
        let policies = Policies { spend: Some(SPEND_POLICY), ..POLICIES };
        assert_eq!(
            rate_limit_policy(&policies),
            r#""burst";q=10;w=60, "generations";q=50;w=86400, "attempts";q=150;w=86400, "spend";q=5;w=86400"#
        );
        let mut ledger = Ledger::default();
        let spend = |ledger: &Ledger| {
            let field = rate_limit(ledger, &policies, 0);
            field.rsplit_once(", ").expect("a list").1.to_owned()
        };
        assert_eq!(spend(&ledger), r#""spend";r=5"#);
        ledger.reserve(&policies, Uuid::nil(), 1_000, 60_000, 0).expect("quota is available");
        // 0.448 dollars are left; those reserved are treated as staying until 60 s, and a window.
        assert_eq!(spend(&ledger), r#""spend";r=4;t=87264"#);
        ledger.reconcile(Uuid::nil(), Reported { calls: 1, nanodollars: 20_000_000 }, 0);
        assert_eq!(spend(&ledger), r#""spend";r=5"#);
        // Objects and edges of two deployments.
        assert_eq!(rate_limit(&ledger, &POLICIES, 0).matches("spend").count(), 0);
        let without = UserQuota { spend: None, ..ledger.status(&policies, 0) };
        assert_eq!(super::rate_limit(&without, &policies).matches("spend").count(), 0);
    }

    /// Parses the part of RFC 9651 that these fields use: a list of strings, each with integer parameters.
    fn read(field: &str) -> Vec<(String, Vec<(String, u64)>)> {
        let member = |member: &str| {
            let (name, parameters) = member.strip_prefix('"')?.split_once('"')?;
            let parameters = parameters.strip_prefix(';').into_iter().flat_map(|all| all.split(';'));
            let parameters = parameters.map(|parameter| {
                let (key, value) = parameter.split_once('=')?;
                let is_key = key.len() == 1 && key.starts_with(|c: char| c.is_ascii_lowercase());
                let is_integer = value.len() <= 15 && value.bytes().all(|b| b.is_ascii_digit());
                (is_key && is_integer).then_some((key.to_owned(), value.parse().ok()?))
            });
            let is_string = name.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'\\');
            is_string.then_some((name.to_owned(), parameters.collect::<Option<_>>()?))
        };
        field.split(", ").map(|text| member(text).expect(text)).collect()
    }

    #[test]
    fn the_policy_header_has_the_format_of_the_contract() {
        assert_eq!(
            rate_limit_policy(&POLICIES),
            r#""burst";q=10;w=60, "generations";q=50;w=86400, "attempts";q=150;w=86400"#
        );
    }

    #[test]
    fn the_limit_header_has_the_remaining_quota_and_its_reset() {
        let mut ledger = Ledger::default();
        assert_eq!(
            rate_limit(&ledger, &POLICIES, 0),
            r#""burst";r=10, "generations";r=50, "attempts";r=150"#
        );
        ledger.count_request(&POLICIES, 0).expect("quota is available");
        ledger.reserve(&POLICIES, Uuid::nil(), 0, 1, 0).expect("quota is available");
        for (now_ms, field) in [
            (0, r#""burst";r=9;t=61, "generations";r=49;t=87264, "attempts";r=149;t=87264"#), // 60.6 s
            (55_000, r#""burst";r=9;t=6, "generations";r=49;t=87209, "attempts";r=149;t=87209"#),
            (59_600, r#""burst";r=9;t=1, "generations";r=49;t=87205, "attempts";r=149;t=87205"#),
            (60_599, r#""burst";r=9;t=1, "generations";r=49;t=87204, "attempts";r=149;t=87204"#),
            (60_600, r#""burst";r=10, "generations";r=49;t=87204, "attempts";r=149;t=87204"#),
        ] {
            assert_eq!(rate_limit(&ledger, &POLICIES, now_ms), field, "{now_ms}");
        }
    }

    #[test]
    fn the_reset_time_equals_the_retry_after_of_a_refusal() {
        let mut ledger = Ledger::default();
        for now_ms in 0..10 {
            ledger.count_request(&POLICIES, now_ms * 1_000).expect("quota is available");
        }
        let refusal = ledger.count_request(&POLICIES, 10_000).expect_err("the burst is used up");
        assert_eq!(refusal.retry_after_s, 51);
        assert_eq!(
            rate_limit(&ledger, &POLICIES, 10_000),
            r#""burst";r=0;t=51, "generations";r=50, "attempts";r=150"#
        );
    }

    #[test]
    fn both_headers_are_structured_fields_at_the_largest_numbers() {
        let most = Quota { count: u32::MAX, window_s: u32::MAX };
        let spend = SpendPolicy { limit: u64::MAX, window_s: u32::MAX, ..SPEND_POLICY };
        let policies = Policies {
            burst: most,
            generations: most,
            attempts: most,
            concurrent: u32::MAX,
            spend: Some(spend),
        };
        let mut ledger = Ledger::default();
        ledger.count_request(&policies, u64::MAX / 2).expect("quota is available");
        let [(policy_name, policy), (name, left)] =
            fields(&ledger.status(&policies, u64::MAX / 2), &policies);
        assert_eq!((policy_name, name), ("ratelimit-policy", "ratelimit"));
        for (name, parameters) in read(&policy) {
            let most = u64::from(u32::MAX);
            assert_eq!(parameters, [("q".to_owned(), most), ("w".to_owned(), most)], "{name}");
        }
        let left = read(&left);
        assert_eq!(left[0].1.len(), 2);
        for (member, name) in left[1..].iter().zip(["generations", "attempts", "spend"]) {
            assert_eq!(*member, (name.to_owned(), vec![("r".to_owned(), u64::from(u32::MAX))]));
        }
    }
}
