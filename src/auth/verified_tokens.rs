//! The cache of verified tokens: a page sends the same token with every request, and the signature check is the most
//! expensive part of a small response. A verification counts only while its key does
//! ([`super::key_cache::KeyCache::is_current`]).
//!
//! The cache key is the SHA-256 of the whole token, so that no token is stored.

use std::collections::VecDeque;

use sha2::{Digest, Sha256};

use super::{User, bearer::BearerToken, claims::LEEWAY_S, key_cache::Verifier};

/// More than the users of one isolate at a time; some 300 bytes each.
const TOKENS_MAX: usize = 1024;

/// The SHA-256 of a whole token, computed once for each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Computes the hash of a token.
    #[must_use]
    pub fn of(token: BearerToken<'_>) -> Self {
        Self(Sha256::digest(token.as_str().as_bytes()).into())
    }
}

/// The tokens that were verified in this isolate.
#[derive(Debug, Default)]
pub struct VerifiedTokens {
    /// INVARIANT: the oldest first, at most `TOKENS_MAX`.
    known: VecDeque<(TokenHash, User, Verifier)>,
}

impl VerifiedTokens {
    /// Returns the user and the verifier of a token that was verified before and has not expired since.
    #[must_use]
    pub fn find(&self, hash: TokenHash, now_ms: u64) -> Option<(&User, &Verifier)> {
        let (_, user, verifier) = self.known.iter().rev().find(|(known, ..)| *known == hash)?;
        let leeway_ms = u64::try_from(LEEWAY_S).unwrap_or(0).saturating_mul(1000);
        (now_ms <= user.expires_ms.saturating_add(leeway_ms)).then_some((user, verifier))
    }

    /// Stores a token; at the limit the oldest one is dropped.
    pub fn remember(&mut self, hash: TokenHash, user: &User, verifier: Verifier) {
        if self.known.len() >= TOKENS_MAX {
            self.known.pop_front();
        }
        self.known.push_back((hash, user.clone(), verifier));
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const SECRET: Verifier = Verifier::Secret(None);

    fn token(header: &str) -> TokenHash {
        TokenHash::of(BearerToken::read(Some(header)).expect("it may be a token"))
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
    fn the_oldest_verified_token_is_dropped_at_the_limit() {
        let mut verified = VerifiedTokens::default();
        let header = |number: usize| format!("Bearer a.b.{number}");
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
