//! The cache of signing keys: which key verifies a token, and when the keys are refreshed.
//!
//! ```text
//! age of the keys   0 ──────── 10 min ──────────────────────── 24 h ────►
//! kid is cached     use        use, refresh in the background  fetch and wait
//! kid is unknown    fetch and wait, at most once in 30 s; then the shared secret for HS256, else reject
//! no kid            the shared secret for HS256, else reject
//! ```
//! The key determines the algorithm: the shared secret verifies no token that names a published key, so the key set must
//! be loaded before a `kid` counts as unknown.
//!
//! One request of an isolate fetches; concurrent requests that need the keys wait for them.
//!
//! Not for: fetching (`supabase::keys`), and the Cache API, which is read before a fetch.

use super::Refused;
use super::jwk::{Algorithm, PublicKey};

/// The age up to which keys are used without a refresh: as long as Supabase's own edge caches them.
pub const FRESH_MS: u64 = 10 * 60 * 1000;
/// The contract's largest age of keys that cannot be refreshed.
pub const STALE_MS: u64 = 24 * 60 * 60 * 1000;
/// The least time between two refreshes that a caller can cause, so that forged tokens cause no traffic to the sign-in service.
pub const COOL_DOWN_MS: u64 = 30 * 1000;
/// The same without any key: short, because all tokens with a `kid` are rejected meanwhile.
pub const COOL_DOWN_EMPTY_MS: u64 = 1000;

/// The longest time of a refresh; one that has not ended by then was lost with its request. Longer than a fetch may take.
pub const REFRESH_MS_MAX: u64 = 10 * 1000;

/// The keys in the memory of this isolate.
#[derive(Debug, Default)]
pub struct KeyCache {
    keys: Vec<PublicKey>,
    fetched_ms: Option<u64>,
    /// The running refresh: its start, and whether there were usable keys.
    refresh: Option<(u64, bool)>,
    /// No new refresh before that.
    cool_down_until_ms: u64,
}

/// The means to verify a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verifier {
    /// A published key.
    Published(PublicKey),
    /// The project's shared secret, for a token with this `kid`.
    Secret(Option<String>),
}

/// How to get the key of a token.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Verify with this.
    Use(Verifier),
    /// Verify with this, and refresh the keys in the background.
    UseAndRefresh(Verifier),
    /// Fetch the keys, then look up again.
    Fetch,
    /// A refresh is running: wait, then look up again.
    Wait,
    /// Reject the token.
    Refuse(Refused),
}

impl KeyCache {
    /// Looks up the key that a token names.
    #[must_use]
    pub fn look_up(&self, key_id: Option<&str>, algorithm: Algorithm, now_ms: u64) -> Lookup {
        let is_hs256 = algorithm == Algorithm::Hs256;
        let is_usable = self.has_usable_keys(now_ms);
        let refused = match key_id {
            None if is_hs256 => return Lookup::Use(Verifier::Secret(None)),
            Some(_) if !is_usable => Refused::NoKeys,
            _ => Refused::Invalid,
        };
        let Some(key_id) = key_id else { return Lookup::Refuse(refused) };
        let known = self.keys.iter().find(|key| key.id == key_id && key.algorithm == algorithm);
        if let Some(key) = known.filter(|_| is_usable) {
            let verifier = Verifier::Published(key.clone());
            return if self.is_refresh_due(now_ms) {
                Lookup::UseAndRefresh(verifier)
            } else {
                Lookup::Use(verifier)
            };
        }
        if self.is_refreshing(now_ms) {
            Lookup::Wait
        } else if now_ms >= self.cool_down_until_ms {
            Lookup::Fetch
        } else if is_hs256 && self.lacks(key_id, now_ms) {
            Lookup::Use(Verifier::Secret(Some(key_id.to_owned())))
        } else {
            Lookup::Refuse(refused)
        }
    }

    /// Whether there is a usable set without a key of that id.
    fn lacks(&self, key_id: &str, now_ms: u64) -> bool {
        self.has_usable_keys(now_ms) && self.keys.iter().all(|key| key.id != key_id)
    }

    /// Whether an earlier verification by `verifier` still counts: its key is in the set, or no key has the id that the
    /// token names.
    #[must_use]
    pub fn is_current(&self, verifier: &Verifier, now_ms: u64) -> bool {
        match verifier {
            Verifier::Secret(None) => true,
            Verifier::Secret(Some(key_id)) => self.lacks(key_id, now_ms),
            Verifier::Published(key) => self.has_usable_keys(now_ms) && self.keys.contains(key),
        }
    }

    /// Whether the keys must be refreshed in the background.
    #[must_use]
    pub fn is_refresh_due(&self, now_ms: u64) -> bool {
        self.age_ms(now_ms).is_some_and(|age_ms| age_ms > FRESH_MS)
            && now_ms >= self.cool_down_until_ms
            && !self.is_refreshing(now_ms)
    }

    fn is_refreshing(&self, now_ms: u64) -> bool {
        self.refresh.is_some_and(|(at_ms, _)| now_ms.saturating_sub(at_ms) < REFRESH_MS_MAX)
    }

    fn has_usable_keys(&self, now_ms: u64) -> bool {
        self.age_ms(now_ms).is_some_and(|age_ms| age_ms <= STALE_MS)
    }

    /// The age of the keys; none without a fetch.
    #[must_use]
    pub fn age_ms(&self, now_ms: u64) -> Option<u64> {
        self.fetched_ms.map(|at_ms| now_ms.saturating_sub(at_ms))
    }

    /// Records the start of a refresh, before its fetch, so that concurrent requests start no other.
    pub fn start_refresh(&mut self, now_ms: u64) {
        self.refresh = Some((now_ms, self.has_usable_keys(now_ms)));
    }

    /// Records the end of a refresh, with or without keys. The refresh that fills an empty cache starts no cool-down: a key that
    /// is new right after it must work.
    pub fn end_refresh(&mut self, now_ms: u64) {
        let was_usable = self.refresh.take().is_some_and(|(_, was_usable)| was_usable);
        let cool_down_ms = match (was_usable, self.has_usable_keys(now_ms)) {
            (true, _) => COOL_DOWN_MS,
            (false, true) => 0,
            (false, false) => COOL_DOWN_EMPTY_MS,
        };
        self.cool_down_until_ms = now_ms.saturating_add(cool_down_ms);
    }

    /// Stores fetched keys. `fetched_ms` is when they left the sign-in service, which is earlier than now for keys from a cache.
    /// An empty set does not replace usable keys.
    pub fn store(&mut self, keys: Vec<PublicKey>, fetched_ms: u64) {
        let is_loss = keys.is_empty() && !self.keys.is_empty() && self.has_usable_keys(fetched_ms);
        if !is_loss && self.fetched_ms.is_none_or(|at_ms| fetched_ms >= at_ms) {
            self.keys = keys;
            self.fetched_ms = Some(fetched_ms);
        }
    }

    /// Whether no keys were ever stored, so that the cache of other isolates is worth a read.
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

    fn by(id: &str) -> Verifier {
        Verifier::Published(key(id))
    }

    fn warm() -> KeyCache {
        let mut cache = KeyCache::default();
        cache.start_refresh(T);
        cache.store(vec![key("a")], T);
        cache.end_refresh(T);
        cache
    }

    #[test]
    fn keys_are_fresh_then_stale_then_unusable() {
        let cache = warm();
        let look_up = |now_ms| cache.look_up(Some("a"), Algorithm::Es256, now_ms);
        assert_eq!(look_up(T), Lookup::Use(by("a")));
        assert_eq!(look_up(T + FRESH_MS), Lookup::Use(by("a")));
        assert_eq!(look_up(T + FRESH_MS + 1), Lookup::UseAndRefresh(by("a")));
        assert_eq!(look_up(T + STALE_MS), Lookup::UseAndRefresh(by("a")));
        assert_eq!(look_up(T + STALE_MS + 1), Lookup::Fetch);
    }

    #[test]
    fn a_failing_refresh_is_not_repeated_for_every_request() {
        let mut cache = warm();
        let stale = T + FRESH_MS + 1;
        cache.start_refresh(stale);
        assert_eq!(
            cache.look_up(Some("a"), Algorithm::Es256, stale),
            Lookup::Use(by("a")),
            "a cached key is used at once"
        );
        cache.end_refresh(stale);
        assert_eq!(
            cache.look_up(Some("a"), Algorithm::Es256, stale + COOL_DOWN_MS - 1),
            Lookup::Use(by("a"))
        );
        assert_eq!(
            cache.look_up(Some("a"), Algorithm::Es256, stale + COOL_DOWN_MS),
            Lookup::UseAndRefresh(by("a"))
        );
    }

    #[test]
    fn unknown_keys_cause_one_fetch_in_thirty_seconds() {
        let mut cache = warm();
        let unknown = |cache: &KeyCache, now_ms| cache.look_up(Some("b"), Algorithm::Es256, now_ms);
        assert_eq!(
            unknown(&cache, T),
            Lookup::Fetch,
            "a key that is new right after the first fetch must work"
        );
        cache.start_refresh(T);
        assert_eq!(unknown(&cache, T + 1), Lookup::Wait, "a concurrent request waits for the same refresh");
        cache.end_refresh(T + 2);
        assert_eq!(unknown(&cache, T + 2), Lookup::Refuse(Refused::Invalid));
        assert_eq!(unknown(&cache, T + 1 + COOL_DOWN_MS), Lookup::Refuse(Refused::Invalid));
        assert_eq!(unknown(&cache, T + 2 + COOL_DOWN_MS), Lookup::Fetch);
        cache.store(vec![key("a"), key("b")], T + 3);
        assert_eq!(unknown(&cache, T + 3), Lookup::Use(by("b")));
    }

    #[test]
    fn a_refresh_that_never_ends_is_started_again() {
        let mut cache = KeyCache::default();
        cache.start_refresh(T);
        let look_up = |now_ms| cache.look_up(Some("a"), Algorithm::Es256, now_ms);
        assert_eq!(look_up(T + REFRESH_MS_MAX - 1), Lookup::Wait);
        assert_eq!(look_up(T + REFRESH_MS_MAX), Lookup::Fetch);
    }

    #[test]
    fn a_key_verifies_only_its_own_algorithm() {
        let mut cache = warm();
        cache.start_refresh(T);
        cache.end_refresh(T);
        // HS256 too: the shared secret verifies no token that names a published key.
        for algorithm in [Algorithm::Hs256, Algorithm::Rs256, Algorithm::EdDsa] {
            assert_eq!(cache.look_up(Some("a"), algorithm, T), Lookup::Refuse(Refused::Invalid));
        }
        assert_eq!(cache.look_up(None, Algorithm::Es256, T), Lookup::Refuse(Refused::Invalid));
    }

    #[test]
    fn without_keys_tokens_are_rejected_and_a_fetch_follows_soon() {
        let mut cache = KeyCache::default();
        let look_up = |cache: &KeyCache, now_ms| cache.look_up(Some("a"), Algorithm::Es256, now_ms);
        assert_eq!(look_up(&cache, T), Lookup::Fetch);
        cache.start_refresh(T);
        assert_eq!(look_up(&cache, T + 1), Lookup::Wait);
        cache.end_refresh(T + 2);
        assert_eq!(look_up(&cache, T + 2), Lookup::Refuse(Refused::NoKeys));
        assert_eq!(look_up(&cache, T + 1 + COOL_DOWN_EMPTY_MS), Lookup::Refuse(Refused::NoKeys));
        assert_eq!(look_up(&cache, T + 2 + COOL_DOWN_EMPTY_MS), Lookup::Fetch);
    }

    #[test]
    fn an_older_or_empty_set_does_not_replace_usable_keys() {
        let mut cache = warm();
        cache.store(vec![key("old")], T - 1);
        cache.store(Vec::new(), T + 1);
        assert_eq!(cache.look_up(Some("a"), Algorithm::Es256, T), Lookup::Use(by("a")));
    }

    #[test]
    fn an_empty_set_replaces_keys_that_are_too_old() {
        let mut cache = warm();
        let late_ms = T + STALE_MS + 1;
        cache.start_refresh(late_ms);
        cache.store(Vec::new(), late_ms);
        cache.end_refresh(late_ms);
        cache.start_refresh(late_ms);
        cache.end_refresh(late_ms);
        let secret = Lookup::Use(Verifier::Secret(Some("b".to_owned())));
        assert_eq!(cache.look_up(Some("b"), Algorithm::Hs256, late_ms), secret);
    }

    #[test]
    fn the_secret_verifies_tokens_that_name_no_published_key() {
        let secret = |key_id: Option<&str>| Lookup::Use(Verifier::Secret(key_id.map(str::to_owned)));
        let look_up = |cache: &KeyCache, key_id, now_ms| cache.look_up(key_id, Algorithm::Hs256, now_ms);
        let mut cache = KeyCache::default();
        assert_eq!(look_up(&cache, None, T), secret(None), "no key set is needed");
        assert_eq!(look_up(&cache, Some("b"), T), Lookup::Fetch, "the set is not loaded yet");
        cache.start_refresh(T);
        assert_eq!(look_up(&cache, Some("b"), T), Lookup::Wait);
        cache.end_refresh(T);
        assert_eq!(look_up(&cache, Some("b"), T), Lookup::Refuse(Refused::NoKeys));
        assert_eq!(look_up(&cache, None, T), secret(None));

        let mut cache = warm();
        assert_eq!(look_up(&cache, Some("b"), T), Lookup::Fetch);
        cache.start_refresh(T);
        cache.end_refresh(T);
        assert_eq!(look_up(&cache, Some("b"), T), secret(Some("b")));
        assert_eq!(look_up(&cache, None, T), secret(None));
        assert_eq!(look_up(&cache, Some("a"), T), Lookup::Refuse(Refused::Invalid));
        assert_eq!(look_up(&cache, Some(""), T), secret(Some("")));

        let mut cache = KeyCache::default();
        cache.start_refresh(T);
        cache.store(Vec::new(), T);
        cache.end_refresh(T);
        cache.start_refresh(T);
        cache.end_refresh(T);
        assert_eq!(look_up(&cache, Some("b"), T), secret(Some("b")), "an empty set is a set");
    }

    #[test]
    fn a_verification_counts_while_the_set_has_its_key() {
        let mut cache = warm();
        let same_name = Verifier::Published(PublicKey { jwk: "other".to_owned(), ..key("a") });
        let other_use = Verifier::Published(PublicKey { algorithm: Algorithm::EdDsa, ..key("a") });
        let secret = |key_id: &str| Verifier::Secret(Some(key_id.to_owned()));
        for (verifier, is_current) in [
            (by("a"), true),
            (by("b"), false),
            (same_name, false),
            (other_use, false),
            (secret("a"), false),
            (secret("b"), true),
            (Verifier::Secret(None), true),
        ] {
            assert_eq!(cache.is_current(&verifier, T + STALE_MS), is_current, "{verifier:?}");
            let needs_no_set = verifier == Verifier::Secret(None);
            assert_eq!(
                cache.is_current(&verifier, T + STALE_MS + 1),
                needs_no_set,
                "{verifier:?} without a set"
            );
            assert_eq!(
                KeyCache::default().is_current(&verifier, T),
                needs_no_set,
                "{verifier:?} on a cold isolate"
            );
        }
        cache.store(vec![key("b")], T + 1);
        assert!(!cache.is_current(&by("a"), T + 1) && cache.is_current(&by("b"), T + 1));
        assert!(cache.is_current(&secret("a"), T + 1) && !cache.is_current(&secret("b"), T + 1));
    }
}
