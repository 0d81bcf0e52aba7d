//! The cache of verified tokens: a page sends the same token with every request, and the signature check is the most
//! expensive part of a small response. A verification counts only while its key does
//! ([`super::key_cache::KeyCache::is_current`]).
//!
//! The cache key is the SHA-256 of the whole token, so that no token is stored. It is computed only for a token that was verified or
//! whose last characters are those of a verified one, so a forged token costs no hash.

use std::collections::VecDeque;

use sha2::{Digest, Sha256};

use super::{User, bearer::BearerToken, claims::LEEWAY_S, key_cache::Verifier};

/// More than the users of one isolate at a time; some 300 bytes each.
const TOKENS_MAX: usize = 1024;

/// The last eight characters of a token: 48 bits of its signature.
fn mark_of(token: BearerToken<'_>) -> u64 {
    token.as_str().as_bytes().last_chunk().copied().map_or(0, u64::from_le_bytes)
}

fn hash_of(token: BearerToken<'_>) -> [u8; 32] {
    Sha256::digest(token.as_str().as_bytes()).into()
}

/// The tokens that were verified in this isolate.
#[derive(Debug, Default)]
pub struct VerifiedTokens {
    /// INVARIANT: the oldest first, at most `TOKENS_MAX`.
    known: VecDeque<([u8; 32], User, Verifier)>,
    /// INVARIANT: the mark of each in the same order. Apart from them, so that a search reads 8 KB and not 200.
    marks: VecDeque<u64>,
}

impl VerifiedTokens {
    /// Returns the user and the verifier of a token that was verified before and has not expired since. Of tokens with the same mark
    /// the newest is known.
    #[must_use]
    pub fn find(&self, token: BearerToken<'_>, now_ms: u64) -> Option<(&User, &Verifier)> {
        let mark = mark_of(token);
        let index = self.marks.iter().rposition(|known| *known == mark)?;
        let (_, user, verifier) = self.known.get(index).filter(|(known, ..)| *known == hash_of(token))?;
        let leeway_ms = u64::try_from(LEEWAY_S).unwrap_or(0).saturating_mul(1000);
        (now_ms <= user.expires_ms.saturating_add(leeway_ms)).then_some((user, verifier))
    }

    /// Stores a token; at the limit the oldest one is dropped.
    pub fn remember(&mut self, token: BearerToken<'_>, user: &User, verifier: Verifier) {
        if self.known.len() >= TOKENS_MAX {
            self.known.pop_front();
            self.marks.pop_front();
        }
        self.known.push_back((hash_of(token), user.clone(), verifier));
        self.marks.push_back(mark_of(token));
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const SECRET: Verifier = Verifier::Secret(None);

    fn token(header: &str) -> BearerToken<'_> {
        BearerToken::read(Some(header)).expect("it may be a token")
    }

    #[test]
    fn a_verified_token_is_found_until_it_expires() {
        let mut verified = VerifiedTokens::default();
        let user = User { id: Uuid::from_u128(1), expires_ms: 1_000_000 };
        verified.remember(token("Bearer a.b.c"), &user, SECRET);
        assert_eq!(verified.find(token("Bearer a.b.c"), 1_030_000), Some((&user, &SECRET)));
        assert_eq!(verified.find(token("Bearer a.b.c"), 1_030_001), None);
        assert_eq!(verified.find(token("Bearer a.b.d"), 0), None);
    }

    #[test]
    fn tokens_with_the_same_last_characters_are_distinguished() {
        let mut verified = VerifiedTokens::default();
        let user = |number| User { id: Uuid::from_u128(number), expires_ms: 1_000_000 };
        verified.remember(token("Bearer a.b.signature"), &user(1), SECRET);
        assert_eq!(verified.find(token("Bearer a.c.signature"), 0), None);
        verified.remember(token("Bearer a.c.signature"), &user(2), SECRET);
        assert_eq!(verified.find(token("Bearer a.b.signature"), 0), None, "it is verified again");
        assert_eq!(verified.find(token("Bearer a.c.signature"), 0), Some((&user(2), &SECRET)));
    }

    #[test]
    fn the_oldest_verified_token_is_dropped_at_the_limit() {
        let mut verified = VerifiedTokens::default();
        let header = |number: usize| format!("Bearer a.b.{number:08}");
        for number in 0..=TOKENS_MAX {
            let user = User { id: Uuid::from_u128(1), expires_ms: u64::MAX };
            verified.remember(token(&header(number)), &user, SECRET);
        }
        assert_eq!(verified.known.len(), TOKENS_MAX);
        assert_eq!(verified.find(token(&header(0)), 0), None);
        assert!(verified.find(token(&header(1)), 0).is_some());
        assert!(verified.find(token(&header(TOKENS_MAX)), 0).is_some());
    }
}
