//! Which key, and when to ask for new ones: fresh, stale, cool-down.
//!
//! ```text
//! age of the keys   0 ──────── 10 min ──────────────── 24 h ────►
//! kid is known      use        use, refresh behind     ask, wait
//! kid is unknown    ask and wait, at most once in 30 s
//! ```
//! Only one request of an isolate asks; those that come meanwhile and need the answer wait for it.
//!
//! Not for: fetching (`supabase::keys`), nor for the Cache API, which the host looks into before it asks.

use super::Refused;
use super::jwk::{Algorithm, PublicKey};

/// As long as Supabase's own edge keeps them.
pub const FRESH_MS: u64 = 10 * 60 * 1000;
/// The contract's limit for keys that cannot be refreshed.
pub const STALE_MS: u64 = 24 * 60 * 60 * 1000;
/// Between two refreshes that a caller can cause: forged tokens must not drive traffic to the sign-in service.
pub const COOL_DOWN_MS: u64 = 30 * 1000;
/// The same while there is no key at all: short, because nobody can come in meanwhile.
pub const COOL_DOWN_EMPTY_MS: u64 = 1000;

/// A question that has not been answered by then was lost with the process that asked it. Longer than a fetch may
/// take.
pub const ASKING_MS: u64 = 10 * 1000;

/// The keys that this isolate knows.
#[derive(Debug, Default)]
pub struct KeyCache {
    keys: Vec<PublicKey>,
    fetched_ms: Option<u64>,
    /// The question on its way: when it was put, and whether there were usable keys.
    asking: Option<(u64, bool)>,
    /// No new question before that.
    quiet_until_ms: u64,
}

/// What to do for a token's key.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Verify with this one.
    Use(PublicKey),
    /// Verify with this one, and refresh the keys behind the answer.
    UseAndRefresh(PublicKey),
    /// Ask for the keys, then look again.
    Ask,
    /// Somebody is asking: wait a moment, then look again.
    Wait,
    /// Nobody comes in.
    Refuse(Refused),
}

impl KeyCache {
    /// What to do for a token that claims to be signed with this key.
    #[must_use]
    pub fn look_up(&self, key_id: Option<&str>, algorithm: Algorithm, now_ms: u64) -> Lookup {
        let age_ms = self.age_ms(now_ms);
        let is_asking = self.asking.is_some_and(|(at_ms, _)| now_ms.saturating_sub(at_ms) < ASKING_MS);
        let may_ask = !is_asking && now_ms >= self.quiet_until_ms;
        match self.find(key_id, algorithm, now_ms) {
            Ok(key) if age_ms.is_some_and(|age_ms| age_ms > FRESH_MS) && may_ask => {
                Lookup::UseAndRefresh(key)
            }
            Ok(key) => Lookup::Use(key),
            Err(_) if is_asking => Lookup::Wait,
            Err(_) if may_ask => Lookup::Ask,
            Err(refused) => Lookup::Refuse(refused),
        }
    }

    fn has_usable_keys(&self, now_ms: u64) -> bool {
        self.age_ms(now_ms).is_some_and(|age_ms| age_ms <= STALE_MS)
    }

    fn find(&self, key_id: Option<&str>, algorithm: Algorithm, now_ms: u64) -> Result<PublicKey, Refused> {
        if !self.has_usable_keys(now_ms) {
            return Err(Refused::NoKeys);
        }
        let key_id = key_id.ok_or(Refused::Invalid)?;
        let key = self.keys.iter().find(|key| key.id == key_id && key.algorithm == algorithm);
        key.cloned().ok_or(Refused::Invalid)
    }

    fn age_ms(&self, now_ms: u64) -> Option<u64> {
        self.fetched_ms.map(|at_ms| now_ms.saturating_sub(at_ms))
    }

    /// Says that the keys are being asked for, before the question goes out: others that come meanwhile do not ask.
    pub fn asking(&mut self, now_ms: u64) {
        self.asking = Some((now_ms, self.has_usable_keys(now_ms)));
    }

    /// Says that the question is over, whether or not keys came. The one that fills an empty cache does not count
    /// as the refresh that an unknown key may cause: right after it, a new key must work.
    pub fn answered(&mut self, now_ms: u64) {
        let was_usable = self.asking.take().is_some_and(|(_, was_usable)| was_usable);
        let cool_down_ms = match (was_usable, self.has_usable_keys(now_ms)) {
            (true, _) => COOL_DOWN_MS,
            (false, true) => 0,
            (false, false) => COOL_DOWN_EMPTY_MS,
        };
        self.quiet_until_ms = now_ms.saturating_add(cool_down_ms);
    }

    /// Takes the keys that came. `fetched_ms` is when they left the sign-in service, which is earlier than now when
    /// they come from a cache. No keys at all are no reason to forget those that are known.
    pub fn learn(&mut self, keys: Vec<PublicKey>, fetched_ms: u64) {
        let is_loss = keys.is_empty() && !self.keys.is_empty();
        if !is_loss && self.fetched_ms.is_none_or(|at_ms| fetched_ms >= at_ms) {
            self.keys = keys;
            self.fetched_ms = Some(fetched_ms);
        }
    }

    /// Whether nothing was ever learned: the moment to look into a cache that other isolates filled.
    #[must_use]
    pub const fn is_cold(&self) -> bool {
        self.fetched_ms.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: u64 = 1_800_000_000_000;

    fn key(id: &str) -> PublicKey {
        PublicKey { id: id.to_owned(), algorithm: Algorithm::Es256, jwk: id.to_owned() }
    }

    fn warm() -> KeyCache {
        let mut cache = KeyCache::default();
        cache.asking(T);
        cache.learn(vec![key("a")], T);
        cache.answered(T);
        cache
    }

    #[test]
    fn keys_are_fresh_then_stale_then_gone() {
        let cache = warm();
        let look_up = |now_ms| cache.look_up(Some("a"), Algorithm::Es256, now_ms);
        assert_eq!(look_up(T), Lookup::Use(key("a")));
        assert_eq!(look_up(T + FRESH_MS), Lookup::Use(key("a")));
        assert_eq!(look_up(T + FRESH_MS + 1), Lookup::UseAndRefresh(key("a")));
        assert_eq!(look_up(T + STALE_MS), Lookup::UseAndRefresh(key("a")));
        assert_eq!(look_up(T + STALE_MS + 1), Lookup::Ask);
    }

    #[test]
    fn a_failing_refresh_is_not_repeated_for_every_request() {
        let mut cache = warm();
        let stale = T + FRESH_MS + 1;
        cache.asking(stale);
        assert_eq!(cache.look_up(Some("a"), Algorithm::Es256, stale), Lookup::Use(key("a")), "nobody waits");
        cache.answered(stale);
        assert_eq!(
            cache.look_up(Some("a"), Algorithm::Es256, stale + COOL_DOWN_MS - 1),
            Lookup::Use(key("a"))
        );
        assert_eq!(
            cache.look_up(Some("a"), Algorithm::Es256, stale + COOL_DOWN_MS),
            Lookup::UseAndRefresh(key("a"))
        );
    }

    #[test]
    fn an_unknown_key_asks_at_most_once_in_thirty_seconds() {
        let mut cache = warm();
        let unknown = |cache: &KeyCache, now_ms| cache.look_up(Some("b"), Algorithm::Es256, now_ms);
        assert_eq!(unknown(&cache, T), Lookup::Ask, "a key that came right after the first fetch must work");
        cache.asking(T);
        assert_eq!(unknown(&cache, T + 1), Lookup::Wait, "who comes meanwhile waits for the same answer");
        cache.answered(T + 2);
        assert_eq!(unknown(&cache, T + 2), Lookup::Refuse(Refused::Invalid));
        assert_eq!(unknown(&cache, T + 1 + COOL_DOWN_MS), Lookup::Refuse(Refused::Invalid));
        assert_eq!(unknown(&cache, T + 2 + COOL_DOWN_MS), Lookup::Ask);
        cache.learn(vec![key("a"), key("b")], T + 3);
        assert_eq!(unknown(&cache, T + 3), Lookup::Use(key("b")));
    }

    #[test]
    fn a_question_whose_asker_died_does_not_hold_up_the_others() {
        let mut cache = KeyCache::default();
        cache.asking(T);
        let look_up = |now_ms| cache.look_up(Some("a"), Algorithm::Es256, now_ms);
        assert_eq!(look_up(T + ASKING_MS - 1), Lookup::Wait);
        assert_eq!(look_up(T + ASKING_MS), Lookup::Ask);
    }

    #[test]
    fn a_key_is_only_for_its_algorithm() {
        let mut cache = warm();
        cache.asking(T);
        cache.answered(T);
        for algorithm in [Algorithm::Hs256, Algorithm::Rs256, Algorithm::EdDsa] {
            assert_eq!(cache.look_up(Some("a"), algorithm, T), Lookup::Refuse(Refused::Invalid));
        }
        assert_eq!(cache.look_up(None, Algorithm::Es256, T), Lookup::Refuse(Refused::Invalid));
    }

    #[test]
    fn without_any_key_nobody_comes_in_and_the_service_is_asked_again_soon() {
        let mut cache = KeyCache::default();
        let look_up = |cache: &KeyCache, now_ms| cache.look_up(Some("a"), Algorithm::Es256, now_ms);
        assert_eq!(look_up(&cache, T), Lookup::Ask);
        cache.asking(T);
        assert_eq!(look_up(&cache, T + 1), Lookup::Wait);
        cache.answered(T + 2);
        assert_eq!(look_up(&cache, T + 2), Lookup::Refuse(Refused::NoKeys));
        assert_eq!(look_up(&cache, T + 1 + COOL_DOWN_EMPTY_MS), Lookup::Refuse(Refused::NoKeys));
        assert_eq!(look_up(&cache, T + 2 + COOL_DOWN_EMPTY_MS), Lookup::Ask);
    }

    #[test]
    fn an_older_or_empty_answer_does_not_replace_known_keys() {
        let mut cache = warm();
        cache.learn(vec![key("old")], T - 1);
        cache.learn(Vec::new(), T + 1);
        assert_eq!(cache.look_up(Some("a"), Algorithm::Es256, T), Lookup::Use(key("a")));
    }
}
