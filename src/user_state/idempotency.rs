//! Idempotency keys (draft-ietf-httpapi-idempotency-key-header-07): the record of a key, and the plan for a request with it.
//!
//! ```text
//! no record ──► Start ── admitted ──► Join ──┬─► ReadStored   it is completed, or its failure is final
//!                 ▲                          │
//!                 └─────── StartAgain ◄──────┘                its failure is retryable (a firewall's refusal is not,
//!                                                             whatever its code)
//! ```
//! Not for: reading the header (`http::idempotency_key`).

use uuid::Uuid;

use super::UserState;
use super::generation::{Ending, Generation};
use super::stored::{VERSION_MEMBER, read_versioned};
use crate::http::problem::Code;
use crate::json::record::{FromJson, Members, ToJson, write_object};
use crate::json_string::JsonString;
use crate::keyed_hash::keyed_hash;

/// For how long a record is valid, from its creation: the contract's 24 h.
pub const KEEP_RECORD_MS: u64 = 24 * 60 * 60 * 1000;

/// Names the purpose of the hash, so that no hash of one kind is valid as one of another.
const SESSION_LABEL: &[u8] = b"ai-sessions/session-id\0";

/// An idempotency key with the request that it came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// 1 to 255 visible characters.
    pub key: String,
    /// Of the body: the same for the same sanitized text and model, and for no other.
    pub fingerprint: Uuid,
    /// The id that the edge gave this request; a repeated delivery has the same.
    pub request: Uuid,
}

impl Key {
    /// The key of a request with that body.
    #[must_use]
    pub fn new(key: String, model: &str, input_text: &JsonString, request: Uuid) -> Self {
        // No model's name has a NUL in it, and no sanitized text has one.
        let body = [model, "\0", &input_text.decoded()].concat();
        let fingerprint = Uuid::new_v5(&Uuid::NAMESPACE_OID, body.as_bytes());
        Self { key, fingerprint, request }
    }
}

/// An idempotency record: a key in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyRecord {
    /// As the caller sent it.
    pub key: String,
    /// Of the body that it came with first.
    pub fingerprint: Uuid,
    /// The session of the key.
    pub session_id: Uuid,
    /// The 1-based number of the session's last run.
    pub run: u32,
    /// The request that started this run.
    pub request: Uuid,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// How the last run ended; `None` while it is in progress.
    pub outcome: Option<Outcome>,
    /// Whether its failure is final, whatever the code. Beside the outcome, so that the version before can read it.
    pub is_final: bool,
}

impl ToJson for IdempotencyRecord {
    fn write(&self, json: &mut String) {
        let members: [(&str, &dyn ToJson); 9] = [
            VERSION_MEMBER,
            ("key", &self.key),
            ("fingerprint", &self.fingerprint),
            ("session_id", &self.session_id),
            ("run", &self.run),
            ("asked_by", &self.request),
            ("claimed_ms", &self.created_ms),
            ("outcome", &self.outcome),
            ("is_final", &self.is_final),
        ];
        write_object(json, &members);
    }
}

impl FromJson for IdempotencyRecord {
    fn read(json: &[u8]) -> Option<Self> {
        let members = read_versioned(json)?;
        Some(Self {
            key: members.get("key")?,
            fingerprint: members.get("fingerprint")?,
            session_id: members.get("session_id")?,
            run: members.get("run")?,
            request: members.get_or_default("asked_by")?,
            created_ms: members.get("claimed_ms")?,
            outcome: members.get("outcome")?,
            is_final: members.get_or_default("is_final")?,
        })
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With candidates.
    Completed,
    /// Without.
    Failed(Code),
}

impl Outcome {
    /// The outcome of an ending.
    #[must_use]
    pub const fn of(ending: &Ending) -> Self {
        match ending.code {
            Some(code) => Self::Failed(code),
            None => Self::Completed,
        }
    }
}

impl ToJson for Outcome {
    fn write(&self, json: &mut String) {
        match self {
            Self::Completed => "Completed".write(json),
            Self::Failed(code) => write_object(json, &[("Failed", code)]),
        }
    }
}

impl FromJson for Outcome {
    fn read(json: &[u8]) -> Option<Self> {
        if json == br#""Completed""# {
            return Some(Self::Completed);
        }
        Members::read(json)?.get("Failed").map(Self::Failed)
    }
}

/// The plan for a request for a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Starts a session.
    Start,
    /// Starts another run of this session, whose failure is retryable; the 1-based number of the run.
    StartAgain(Uuid, u32),
    /// Joins this session, which is in progress or not yet persisted.
    Join(Uuid),
    /// Reads this session, which has ended, from the database; whether its failure is final whatever its code.
    ReadStored(Uuid, bool),
    /// Looks in the database first: a repeated delivery without a key, whose first one may have been admitted.
    CheckDatabase,
    /// Is rejected: the key was used with another body.
    RejectReused,
}

impl Plan {
    /// The session, where there is one already.
    #[must_use]
    pub const fn session_id(self) -> Option<Uuid> {
        match self {
            Self::Start | Self::CheckDatabase | Self::RejectReused => None,
            Self::StartAgain(id, _) | Self::Join(id) | Self::ReadStored(id, _) => Some(id),
        }
    }
}

/// Classifies a request. `id` is the session's id without a key; `is_repeated` says that the first delivery of the
/// request had no reply.
///
/// A request joins a run that is in progress, whatever its outcome will be. After a retryable failure the key starts
/// another run, but not for a repeated delivery of the request that started the failed one: that one gets the failure.
#[must_use]
pub fn classify(
    state: &UserState,
    key: Option<&Key>,
    id: Uuid,
    is_repeated: bool,
    is_running: impl Fn(Uuid) -> bool,
    now_ms: u64,
) -> Plan {
    let Some(key) = key else {
        return match state.find(id) {
            Some(_) => Plan::Join(id),
            None if is_repeated => Plan::CheckDatabase,
            None => Plan::Start,
        };
    };
    let record = state.records.iter().find(|record| record.key == key.key && record.is_valid(now_ms));
    let Some(record) = record else { return Plan::Start };
    if record.fingerprint != key.fingerprint {
        return Plan::RejectReused;
    }
    let id = record.session_id;
    let is_retryable = |outcome| matches!(outcome, Outcome::Failed(code) if code.retryable() == Some(true));
    let may_pass = record.outcome.is_some_and(is_retryable) && !record.is_final;
    let is_own_failure = is_repeated && key.request == record.request;
    let is_driven = is_running(id) || state.find(id).is_some_and(Generation::is_driven_elsewhere);
    match record.outcome {
        Some(_) if may_pass && !is_driven && !is_own_failure => {
            Plan::StartAgain(id, record.run.saturating_add(1))
        }
        Some(_) if state.find(id).is_none() => Plan::ReadStored(id, record.is_final),
        _ => Plan::Join(id),
    }
}

impl IdempotencyRecord {
    /// Whether it is valid at that moment.
    #[must_use]
    pub const fn is_valid(&self, now_ms: u64) -> bool {
        now_ms < self.expires_ms()
    }

    /// The moment from which on it is not valid.
    #[must_use]
    pub const fn expires_ms(&self) -> u64 {
        self.created_ms.saturating_add(KEEP_RECORD_MS)
    }
}

impl UserState {
    /// The failure of a session with an idempotency record; `None` where it did not fail.
    #[must_use]
    pub fn failure_of(&self, session_id: Uuid) -> Option<Code> {
        let record = self.records.iter().find(|record| record.session_id == session_id)?;
        match record.outcome {
            Some(Outcome::Failed(code)) => Some(code),
            _ => None,
        }
    }
}

/// The session id of a key whose record is created at that moment: a UUIDv5 (RFC 9562, section 5.5), so that the database's
/// primary key guards the same promise a second time. It cannot be guessed (`secret`), else a user could create a row with
/// it past the service. It changes with the day, and a record is valid for a day: so it never is the id of an earlier record.
#[must_use]
pub fn session_id(secret: &str, user_id: Uuid, key: &str, now_ms: u64) -> Uuid {
    let day = now_ms.checked_div(KEEP_RECORD_MS).unwrap_or_default();
    let hash = keyed_hash(secret, &[SESSION_LABEL, &day.to_be_bytes(), key.as_bytes()]);
    Uuid::new_v5(&user_id, &hash)
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::auth::credentials::Credentials;
    use crate::json::record::to_json;
    use crate::quota::{Quota, Window};
    use crate::user_state::generation::Accepted;

    const T: u64 = 1_800_000_000_000;

    #[test]
    fn a_session_id_depends_on_secret_user_key_and_day() {
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

    /// A record of the key "k", created at T by the request 77.
    fn record(outcome: Option<Outcome>, is_final: bool) -> IdempotencyRecord {
        IdempotencyRecord {
            key: "k".to_owned(),
            fingerprint: key("text", 77).fingerprint,
            session_id: Uuid::from_u128(1),
            run: 3,
            request: Uuid::from_u128(77),
            created_ms: T,
            outcome,
            is_final,
        }
    }

    fn key(text: &str, request: u128) -> Key {
        Key::new("k".to_owned(), "a/one", &JsonString::new(text), Uuid::from_u128(request))
    }

    /// A generation of that session, in progress or ended.
    fn generation(id: Uuid, ending: Option<Ending>) -> Generation {
        let accepted = Accepted {
            id,
            run: 3,
            user_id: Uuid::from_u128(7),
            input_text: JsonString::new("text"),
            model: Rc::from("a/one"),
            credentials: Credentials { token: Rc::from("token"), expires_ms: T, traceparent: None },
            referer: Rc::from(""),
            no_cache: false,
        };
        let reservation =
            Window::default().take(Quota { count: 1, window_s: 60 }, T).expect("one is available");
        Generation { ending, ..Generation::new(accepted, reservation, 60_000, T) }
    }

    #[test]
    fn a_record_is_valid_for_a_day_to_the_millisecond() {
        let record = record(None, false);
        for (now_ms, is_valid) in [
            (T - 1, true), // a clock that steps back
            (T, true),
            (T + KEEP_RECORD_MS - 1, true),
            (T + KEEP_RECORD_MS, false),
        ] {
            assert_eq!(record.is_valid(now_ms), is_valid, "{now_ms}");
        }
    }

    #[test]
    fn a_request_without_a_key_is_classified_by_its_session() {
        let id = Uuid::from_u128(1);
        let ended = Ending::failed(Code::AiTimeout, 1, T);
        for (found, is_repeated, expected) in [
            (None, false, Plan::Start),
            (None, true, Plan::CheckDatabase),
            (Some(None), false, Plan::Join(id)),
            (Some(None), true, Plan::Join(id)),
            (Some(Some(ended.clone())), false, Plan::Join(id)),
            (Some(Some(ended)), true, Plan::Join(id)),
        ] {
            let generations: Vec<_> = found.map(|ending| generation(id, ending)).into_iter().collect();
            // Another request's key and generation are not its own.
            let state = UserState {
                records: vec![record(None, false)],
                generations: [generations, vec![generation(Uuid::from_u128(2), None)]].concat(),
                ..UserState::default()
            };
            for is_running in [false, true] {
                let plan = classify(&state, None, id, is_repeated, |_| is_running, T);
                assert_eq!(plan, expected, "{found:?} {is_repeated} {is_running}", found = state.find(id));
            }
        }
    }

    /// Where a session is.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Stage {
        InProgress,
        NotPersisted,
        Persisted,
    }

    #[test]
    fn a_request_with_a_key_is_classified_by_its_record() {
        use Stage::{InProgress, NotPersisted, Persisted};
        let id = Uuid::from_u128(1);
        let (join, again) = (Plan::Join(id), Plan::StartAgain(id, 4));
        let (read, read_final) = (Plan::ReadStored(id, false), Plan::ReadStored(id, true));
        let (completed, timeout) = (Some(Outcome::Completed), Some(Outcome::Failed(Code::AiTimeout)));
        let (refused, database) =
            (Some(Outcome::Failed(Code::AiRefused)), Some(Outcome::Failed(Code::DatabaseError)));
        // The stage, the outcome and whether it is final; the plan while it is running, for the repeated delivery of the
        // request that started the run, and for every other request.
        for (stage, outcome, is_final, while_running, own_delivery, others) in [
            (InProgress, None, false, join, join, join),
            (NotPersisted, completed, false, join, join, join),
            (NotPersisted, timeout, false, join, join, again),
            (NotPersisted, refused, false, join, join, join),
            (NotPersisted, database, true, join, join, join),
            (Persisted, completed, false, read, read, read),
            (Persisted, timeout, false, read, read, again),
            (Persisted, refused, false, read, read, read),
            (Persisted, database, false, read, read, again),
            (Persisted, database, true, read_final, read_final, read_final),
        ] {
            let code = match outcome {
                Some(Outcome::Failed(code)) => Some(code),
                _ => None,
            };
            let ended = Ending { code, is_blocked: is_final, ..Ending::failed(Code::Internal, 1, T) };
            let generations = match stage {
                InProgress => vec![generation(id, None)],
                NotPersisted => vec![generation(id, Some(ended))],
                Persisted => Vec::new(),
            };
            let state =
                UserState { records: vec![record(outcome, is_final)], generations, ..UserState::default() };
            let note = format!("{stage:?} {outcome:?} {is_final}");
            for (request, is_repeated) in [(77, false), (77, true), (78, false), (78, true)] {
                let plan_of = |text, is_running: bool, now_ms| {
                    let key = key(text, request);
                    classify(&state, Some(&key), Uuid::nil(), is_repeated, |_| is_running, now_ms)
                };
                let is_own_delivery = (request, is_repeated) == (77, true);
                let expected = if is_own_delivery { own_delivery } else { others };
                assert_eq!(plan_of("text", false, T), expected, "{note} {request} {is_repeated}");
                assert_eq!(
                    plan_of("text", true, T),
                    while_running,
                    "{note} {request} {is_repeated}, running"
                );
                for is_running in [false, true] {
                    assert_eq!(plan_of("another text", is_running, T), Plan::RejectReused, "{note}");
                    assert_eq!(
                        plan_of("text", is_running, T + KEEP_RECORD_MS),
                        Plan::Start,
                        "{note}, expired"
                    );
                    assert_eq!(
                        plan_of("another text", is_running, T + KEEP_RECORD_MS),
                        Plan::Start,
                        "{note}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_key_without_a_record_starts_a_session() {
        let other = IdempotencyRecord { key: "other".to_owned(), ..record(None, false) };
        let state = UserState { records: vec![other], ..UserState::default() };
        for (is_repeated, is_running) in [(false, false), (false, true), (true, false), (true, true)] {
            let plan = classify(&state, Some(&key("text", 77)), Uuid::nil(), is_repeated, |_| is_running, T);
            assert_eq!(plan, Plan::Start, "{is_repeated} {is_running}");
        }
    }

    #[test]
    fn a_failure_that_a_firewall_caused_is_not_retried() {
        let key = key("text", 78);
        let id = Uuid::from_u128(1);
        let plan = |outcome, is_final| {
            let stored = to_json(&record(Some(outcome), is_final));
            let records = vec![IdempotencyRecord::read(stored.as_bytes()).expect("it is what was stored")];
            let state = UserState { records, ..UserState::default() };
            classify(&state, Some(&key), Uuid::nil(), false, |_| false, T)
        };
        let code = Code::DatabaseError;
        assert_eq!(plan(Outcome::Failed(code), false), Plan::StartAgain(id, 4));
        assert_eq!(plan(Outcome::Failed(code), true), Plan::ReadStored(id, true));
        assert_eq!(plan(Outcome::Completed, false), Plan::ReadStored(id, false));
    }

    #[test]
    fn a_plan_has_the_id_of_its_session() {
        let id = Uuid::from_u128(1);
        for plan in [Plan::StartAgain(id, 2), Plan::Join(id), Plan::ReadStored(id, true)] {
            assert_eq!(plan.session_id(), Some(id));
        }
        for plan in [Plan::Start, Plan::CheckDatabase, Plan::RejectReused] {
            assert_eq!(plan.session_id(), None);
        }
    }

    #[test]
    fn a_key_with_an_expired_record_has_another_session_id() {
        let midnight_ms = T.next_multiple_of(KEEP_RECORD_MS);
        for created_ms in [T, midnight_ms - 1, midnight_ms, midnight_ms + 1] {
            let of = |now_ms| session_id("secret", Uuid::from_u128(7), "key", now_ms);
            for expired_ms in [created_ms + KEEP_RECORD_MS, created_ms + KEEP_RECORD_MS + 1] {
                assert_ne!(of(created_ms), of(expired_ms), "{created_ms} {expired_ms}");
            }
        }
    }

    #[test]
    fn a_fingerprint_is_that_of_the_text_without_escapes() {
        let text = "A \"text\",\n\\ \u{e9}\u{2028}\u{1f600}";
        let expected = Uuid::new_v5(&Uuid::NAMESPACE_OID, ["a/one\0", text].concat().as_bytes());
        assert_eq!(key(text, 77).fingerprint, expected);
    }

    #[test]
    fn a_fingerprint_depends_on_model_and_text() {
        let of =
            |model, text| Key::new("k".to_owned(), model, &JsonString::new(text), Uuid::nil()).fingerprint;
        assert_eq!(of("a/one", "text"), of("a/one", "text"));
        for other in [of("a/one", "texts"), of("a/onet", "ext"), of("a/two", "text")] {
            assert_ne!(of("a/one", "text"), other);
        }
    }
}
