//! Idempotency keys (draft-ietf-httpapi-idempotency-key-header-07): which session a key stands for, and what a
//! request finds that comes with it.
//!
//! ```text
//! nobody has claimed it ──► New ── admitted ──► Joins ──┬─► Stored   it has cards, or failed for good
//!                                   ▲                   │
//!                                   └────── Again ◄─────┘            it failed in a way that can pass (a firewall's
//!                                                                    refusal is none, whatever its code)
//! ```
//! Not for: reading the header (`input::idempotency_key`).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::UserState;
use super::record::Ending;
use crate::keyed_hash::keyed_hash;
use crate::problem::Code;

/// For how long a key stands for its session, from its claim on: the contract's 24 h.
pub const KEEP_RECORD_MS: u64 = 24 * 60 * 60 * 1000;

/// Says what the hash is for, so that no hash of one kind can be passed off as one of another.
const SESSION_LABEL: &[u8] = b"ai-sessions/session-id\0";

/// A key as a request brings it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// 1 to 255 visible characters.
    pub key: String,
    /// Of the body: the same for the same sanitized text and model, and for no other.
    pub fingerprint: Uuid,
    /// Which request brings it: [`super::ask::Generate::id`].
    pub started_by: Uuid,
    /// Its answer was lost on the way, and it is put again.
    pub is_repeated: bool,
}

impl Key {
    /// The key of a request with that body, which is put for the first time.
    #[must_use]
    pub fn new(key: String, model: &str, input_text: &str, started_by: Uuid) -> Self {
        // No model's name has a NUL in it, and no sanitized text has one.
        let body = [model, "\0", input_text].concat();
        let fingerprint = Uuid::new_v5(&Uuid::NAMESPACE_OID, body.as_bytes());
        Self { key, fingerprint, started_by, is_repeated: false }
    }
}

/// A key that was claimed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyRecord {
    /// As the caller sent it.
    pub key: String,
    /// Of the body that it came with first.
    pub fingerprint: Uuid,
    /// What it stands for.
    pub session_id: Uuid,
    /// How many times the session was tried.
    pub run: u32,
    /// The request that tried it last.
    #[serde(default, rename = "asked_by")]
    pub started_by: Uuid,
    /// When it was claimed.
    #[serde(rename = "claimed_ms")]
    pub created_ms: u64,
    /// How the last try ended; `None` while it runs.
    pub outcome: Option<Outcome>,
    /// It failed, and no other try can help, whatever the code says. Beside the outcome, so that the version before reads it.
    #[serde(default)]
    pub is_final: bool,
}

/// How a claimed session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// With cards.
    Completed,
    /// Without.
    Failed(Code),
}

impl Outcome {
    /// Of an ending.
    #[must_use]
    pub const fn of(ending: &Ending) -> Self {
        match ending.code {
            Some(code) => Self::Failed(code),
            None => Self::Completed,
        }
    }
}

/// What a request with a key finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nobody has claimed the key.
    New,
    /// It was claimed with another body.
    Reused,
    /// Its session is on the state: it runs, or is not written yet.
    Joins(Uuid),
    /// Its session has ended for good, and the database has it.
    Stored(Uuid),
    /// Its session failed in a way that can pass: this is the so-manieth run.
    Again(Uuid, u32),
}

impl Found {
    /// The session, where there is one.
    #[must_use]
    pub const fn id(self) -> Option<Uuid> {
        match self {
            Self::New | Self::Reused => None,
            Self::Joins(id) | Self::Stored(id) | Self::Again(id, _) => Some(id),
        }
    }
}

impl IdempotencyRecord {
    /// Whether it still stands.
    #[must_use]
    pub const fn holds(&self, now_ms: u64) -> bool {
        now_ms < self.ends_ms()
    }

    /// When it stands no longer.
    #[must_use]
    pub const fn ends_ms(&self) -> u64 {
        self.created_ms.saturating_add(KEEP_RECORD_MS)
    }
}

impl UserState {
    /// How the session ended for which a key stands, if it failed.
    #[must_use]
    pub fn failure_of(&self, session_id: Uuid) -> Option<Code> {
        let record = self.records.iter().find(|record| record.session_id == session_id)?;
        match record.outcome {
            Some(Outcome::Failed(code)) => Some(code),
            _ => None,
        }
    }

    /// What a request finds that comes with this key.
    ///
    /// Whoever comes while the first answer is still on its way joins it, whatever it turns out to be. A failure
    /// that nobody is busy with any more frees the key, but not for the request that started it: that is to be told of it.
    #[must_use]
    pub fn find_session(&self, key: &Key, is_busy: impl Fn(Uuid) -> bool, now_ms: u64) -> Found {
        let record = self.records.iter().find(|record| record.key == key.key && record.holds(now_ms));
        let Some(record) = record else { return Found::New };
        if record.fingerprint != key.fingerprint {
            return Found::Reused;
        }
        let id = record.session_id;
        let is_retryable =
            |outcome| matches!(outcome, Outcome::Failed(code) if code.retryable() == Some(true));
        let can_pass = record.outcome.is_some_and(is_retryable) && !record.is_final;
        let has_started_it = key.is_repeated && key.started_by == record.started_by;
        match record.outcome {
            Some(_) if can_pass && !is_busy(id) && !has_started_it => {
                Found::Again(id, record.run.saturating_add(1))
            }
            Some(_) if self.find(id).is_none() => Found::Stored(id),
            _ => Found::Joins(id),
        }
    }

    /// Whether the session of that id failed, and no other try of its key can help.
    #[must_use]
    pub fn has_failed_for_good(&self, id: Uuid) -> bool {
        self.records.iter().any(|record| record.session_id == id && record.is_final)
    }
}

/// The id of the session for which a key stands, when it is claimed at that moment: a UUIDv5 (RFC 9562, section 5.5),
/// so that the database's primary key guards the key's promise a second time. It cannot be guessed (`secret`), else a
/// user could open a row of that id past the service. It changes with the day, and a key is free again a day after its
/// claim: so it never is the id of an earlier claim.
#[must_use]
pub fn session_id(secret: &str, user_id: Uuid, key: &str, now_ms: u64) -> Uuid {
    let day = now_ms.checked_div(KEEP_RECORD_MS).unwrap_or_default();
    let hash = keyed_hash(secret, &[SESSION_LABEL, &day.to_be_bytes(), key.as_bytes()]);
    Uuid::new_v5(&user_id, &hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: u64 = 1_800_000_000_000;

    #[test]
    fn a_session_id_is_that_of_user_key_and_day_and_of_no_other() {
        let user = Uuid::from_u128(7);
        let id = session_id("secret", user, "key", T);
        assert_eq!(id, session_id("secret", user, "key", T));
        assert_eq!(id.get_version_num(), 5);
        for other in [
            session_id("secret", user, "key", T + KEEP_RECORD_MS),
            session_id("secret", user, "other", T),
            session_id("secret", Uuid::from_u128(8), "key", T),
            session_id("other", user, "key", T),
        ] {
            assert_ne!(id, other);
        }
    }

    #[test]
    fn a_claim_holds_for_a_day_to_the_millisecond() {
        let record = IdempotencyRecord {
            key: "k".to_owned(),
            fingerprint: Uuid::nil(),
            session_id: Uuid::nil(),
            run: 1,
            started_by: Uuid::nil(),
            created_ms: T,
            outcome: None,
            is_final: false,
        };
        for (now_ms, holds) in [
            (T - 1, true), // a clock that steps back
            (T, true),
            (T + KEEP_RECORD_MS - 1, true),
            (T + KEEP_RECORD_MS, false),
        ] {
            assert_eq!(record.holds(now_ms), holds, "{now_ms}");
        }
    }

    #[test]
    fn a_failure_that_a_firewall_caused_does_not_free_its_key() {
        let key = Key::new("k".to_owned(), "a/one", "text", Uuid::nil());
        let session_id = Uuid::from_u128(1);
        let found = |outcome, is_final| {
            let record = IdempotencyRecord {
                key: key.key.clone(),
                fingerprint: key.fingerprint,
                session_id,
                run: 1,
                started_by: Uuid::nil(),
                created_ms: T,
                outcome: Some(outcome),
                is_final,
            };
            let stored = serde_json::to_string(&record).expect("it is JSON");
            let records = vec![serde_json::from_str(&stored).expect("it is what was stored")];
            let state = UserState { records, ..UserState::default() };
            (state.find_session(&key, |_| false, T), state.has_failed_for_good(session_id))
        };
        let code = Code::DatabaseError;
        assert_eq!(found(Outcome::Failed(code), false), (Found::Again(session_id, 2), false));
        assert_eq!(found(Outcome::Failed(code), true), (Found::Stored(session_id), true));
        assert_eq!(found(Outcome::Completed, false), (Found::Stored(session_id), false));
    }

    #[test]
    fn a_key_that_is_free_again_stands_for_another_session() {
        let midnight_ms = T.next_multiple_of(KEEP_RECORD_MS);
        for created_ms in [T, midnight_ms - 1, midnight_ms, midnight_ms + 1] {
            let of = |now_ms| session_id("secret", Uuid::from_u128(7), "key", now_ms);
            for free_ms in [created_ms + KEEP_RECORD_MS, created_ms + KEEP_RECORD_MS + 1] {
                assert_ne!(of(created_ms), of(free_ms), "{created_ms} {free_ms}");
            }
        }
    }

    #[test]
    fn a_fingerprint_is_that_of_text_and_model() {
        let of = |model, text| Key::new("k".to_owned(), model, text, Uuid::nil()).fingerprint;
        assert_eq!(of("a/one", "text"), of("a/one", "text"));
        for other in [of("a/one", "texts"), of("a/onet", "ext"), of("a/two", "text")] {
            assert_ne!(of("a/one", "text"), other);
        }
    }
}
