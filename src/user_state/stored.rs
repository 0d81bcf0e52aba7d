//! The stored form of the user state: JSON records, which a host keeps in rows.
//!
//! ```text
//! ledger       one row       {"version":1,"ledger":[…],"attempts":[…],"spend":[…],"told_limited":[…],"rejected_until_ms":…}
//! generations  id            {"version":1,"accepted":{…},…}, and beside it the ending: null or {"version":1,…}
//! candidates   id, position  a batch: [{"id":…,"front":…,"back":…,"prompt":…,"source":…,…},…]
//! claims       session       {"version":1,"key":…,…}: the idempotency records
//! ```
//! A record without a version is of version 0, which has the same members. Members may be added without a new version; a
//! record of a later version than this one is not read.

use std::rc::Rc;

use uuid::Uuid;

use super::UserState;
use super::generation::{Driver, Ending, Generation, SessionCandidate};
use super::idempotency::IdempotencyRecord;
use crate::json::record::{FromJson, Members, ToJson, to_json, write_object};
use crate::quota::Ledger;

/// The version of the records that are stored.
pub const VERSION: u32 = 1;

/// A record that cannot be read or written: no decision may rest on the state then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotReadable;

/// Every row of a user.
#[derive(Debug, Default)]
pub struct StoredRows {
    /// The ledger's record.
    pub ledger: Option<String>,
    /// In the order of `started_ms`.
    pub generations: Vec<StoredGeneration>,
    /// The generation's id and the batch, by ascending position.
    pub candidates: Vec<(String, String)>,
    /// The idempotency records.
    pub idempotency_records: Vec<String>,
}

/// The row of a generation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredGeneration {
    /// The record.
    pub record: String,
    /// The record of its ending.
    pub ending: Option<String>,
    /// The isolate that drives it.
    pub driver: Driver,
    /// Whether another isolate has requested a stop.
    pub is_stop_requested: bool,
}

/// Builds the state from its rows.
///
/// # Errors
/// [`NotReadable`].
pub fn load(rows: &StoredRows) -> Result<UserState, NotReadable> {
    let (mut ledger, mut logged_limits, mut rejected_until_ms) = StoredLedger::default();
    if let Some(record) = &rows.ledger {
        (ledger, logged_limits, rejected_until_ms) = read_ledger(record).ok_or(NotReadable)?;
    }
    let records = rows.idempotency_records.iter().map(|record| read::<IdempotencyRecord>(record));
    let mut generations = Vec::new();
    for stored in &rows.generations {
        let mut generation: Generation = read(&stored.record)?;
        generation.ending = stored.ending.as_deref().map(read_ending).transpose()?;
        (generation.driver, generation.is_stop_requested) = (stored.driver, stored.is_stop_requested);
        generations.push(generation);
    }
    for (id, batch) in &rows.candidates {
        let id = Uuid::try_parse(id).map_err(|_| NotReadable)?;
        let generation = generations.iter_mut().find(|generation| generation.accepted.id == id);
        if let Some(generation) = generation {
            generation.candidates.extend(read_batch(batch)?);
        }
    }
    let records = records.collect::<Result<_, _>>()?;
    Ok(UserState::from_parts((ledger, logged_limits, rejected_until_ms), records, generations))
}

/// The usage of the user, the limits that the event log has, and `rejected_until_ms`.
type StoredLedger = (Ledger, Vec<(String, u64)>, u64);

fn read_ledger(record: &str) -> Option<StoredLedger> {
    let members = read_versioned(record.as_bytes())?;
    let attempts = members.get_or_default("attempts")?;
    let spend = members.get_or_default("spend")?;
    let ledger = Ledger { attempts, spend, ..members.get("ledger")? };
    Some((ledger, members.get("told_limited")?, members.get_or_default("rejected_until_ms")?))
}

/// The record of the ledger.
#[must_use]
pub fn ledger_record(state: &UserState) -> String {
    let mut record = String::new();
    let members: [(&str, &dyn ToJson); 6] = [
        VERSION_MEMBER,
        ("ledger", &state.ledger),
        ("attempts", &state.ledger.attempts),
        ("spend", &state.ledger.spend),
        ("told_limited", &state.logged_limits),
        ("rejected_until_ms", &state.rejected_until_ms),
    ];
    write_object(&mut record, &members);
    record
}

/// The first member of each record.
pub(super) const VERSION_MEMBER: (&str, &dyn ToJson) = ("version", &VERSION);

/// Reads the members of a record, if it is not of a later version.
pub(super) fn read_versioned(record: &[u8]) -> Option<Members<'_>> {
    let members = Members::read(record)?;
    let version: u32 = members.get_or_default("version")?;
    (version <= VERSION).then_some(members)
}

/// The record of a generation for a store outside of the service: without the owner's token, which the owner's next request
/// provides.
#[must_use]
pub fn record_without_token(generation: &Generation) -> String {
    let mut generation = generation.clone();
    let credentials = &mut generation.accepted.credentials;
    (credentials.token, credentials.expires_ms) = (Rc::from(""), 0);
    to_json(&generation)
}

/// The batch of a generation's candidates from a position on.
#[must_use]
pub fn batch(generation: &Generation, from: usize) -> String {
    let mut batch = String::new();
    generation.candidates.get(from..).unwrap_or_default().write(&mut batch);
    batch
}

/// Reads the record of an ending.
///
/// # Errors
/// [`NotReadable`].
pub fn read_ending(record: &str) -> Result<Ending, NotReadable> {
    read(record)
}

/// Reads a batch of candidates.
///
/// # Errors
/// [`NotReadable`].
pub fn read_batch(batch: &str) -> Result<Vec<Rc<SessionCandidate>>, NotReadable> {
    read(batch)
}

fn read<T: FromJson>(record: &str) -> Result<T, NotReadable> {
    T::read(record.as_bytes()).ok_or(NotReadable)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::auth::credentials::Credentials;
    use crate::citation::check::{Citation, Note};
    use crate::citation::sentences::Passage;
    use crate::generation::usage::Usage;
    use crate::http::problem::Code;
    use crate::json_string::JsonString;
    use crate::quota::{Policies, Price, Quota, Reported, Reservation, Spend, SpendPolicy, Window};
    use crate::user_state::generation::{Accepted, Ending, RowState};
    use crate::user_state::idempotency::{Key, Outcome, Plan, classify};

    const T: u64 = 1_800_000_000_000;
    const ONE: Uuid = Uuid::from_u128(1);
    const TWO: Uuid = Uuid::from_u128(2);

    // As the service wrote them before records had a version, with every member set.
    const LEDGER: &str = include_str!("../../tests/fixtures/stored/ledger.json");
    const GENERATION: &str = include_str!("../../tests/fixtures/stored/generation.json");
    const ENDING: &str = include_str!("../../tests/fixtures/stored/ending.json");
    const CANDIDATES: &str = include_str!("../../tests/fixtures/stored/candidates.json");
    /// As the service writes them since candidates have a source.
    const CITED_CANDIDATES: &str = include_str!("../../tests/fixtures/stored/candidates_cited.json");
    const IDEMPOTENCY_RECORD: &str = include_str!("../../tests/fixtures/stored/idempotency_record.json");

    fn policies() -> Policies {
        Policies {
            burst: Quota { count: 10, window_s: 60 },
            generations: Quota { count: 3, window_s: 3600 },
            attempts: Quota { count: 1000, window_s: 3600 },
            concurrent: 2,
            spend: Some(SpendPolicy {
                limit: 1_000_000_000,
                window_s: 3600,
                price: Price { prompt: 1_000_000, completion: 5_000_000 },
                answer_tokens_max: 9_000,
            }),
        }
    }

    /// The ledger of the fixture, and its second reservation: two requests and two generations, of which the first has ended
    /// and was refunded, and the second has made two model calls.
    fn ledger() -> (Ledger, Reservation) {
        let (mut ledger, policies) = (Ledger::default(), policies());
        for at_ms in [T, T + 30_000] {
            ledger.count_request(&policies, at_ms).expect("within the burst");
        }
        let first = ledger.reserve(&policies, ONE, 1_000, 90_000, T).expect("within the limits");
        let second = ledger.reserve(&policies, TWO, 1_000, 90_000, T).expect("within the limits");
        ledger.refund(first);
        ledger.release(ONE);
        ledger.reconcile(ONE, Reported { calls: 1, nanodollars: 1_250_000 }, T);
        assert!(ledger.count_attempt(&policies, TWO, 1_000, T + 90_000, T + 30_000));
        (ledger, second)
    }

    fn generation() -> Generation {
        let candidate = |number: u128| SessionCandidate {
            id: Uuid::from_u128(number),
            front: format!("front {number}"),
            back: "back".to_owned(),
            prompt: "prompt".to_owned(),
            citation: Citation::default(),
        };
        let accepted = Accepted {
            id: TWO,
            run: 2,
            user_id: Uuid::from_u128(7),
            input_text: JsonString::new("A text with \"quotes\",\n\u{e9} and \u{1f600}."),
            model: Rc::from("a/one"),
            credentials: Credentials {
                token: Rc::from("header.claims.signature"),
                expires_ms: T + 3_600_000,
                traceparent: Some(Rc::from("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")),
            },
            referer: Rc::from("https://cards.example"),
            no_cache: true,
        };
        Generation {
            row: RowState::Opened,
            attempts: 2,
            writes: 2,
            refusals: 1,
            write_at_ms: T + 34_000,
            candidates: vec![Rc::new(candidate(11)), Rc::new(candidate(12))],
            ..Generation::new(accepted, ledger().1, 60_000, T)
        }
    }

    fn ending() -> Ending {
        Ending {
            code: Some(Code::AiRefused),
            partial: true,
            usage: Some(Usage { prompt_tokens: 1200, completion_tokens: 340, cost: 0.001_25 }),
            served_model: Some("a/one-2026".to_owned()),
            attempts: 2,
            dropped: 3,
            ended_ms: T + 40_000,
            retry_after_s: Some(30),
            was_reused: Some(false),
            is_blocked: true,
            reported: Reported { calls: 1, nanodollars: 1_250_000 },
            coverage_percent: Some(67),
        }
    }

    fn key() -> Key {
        Key::new("key-1".to_owned(), "a/one", &JsonString::new("text"), Uuid::from_u128(77))
    }

    fn idempotency_record() -> IdempotencyRecord {
        IdempotencyRecord {
            key: "key-1".to_owned(),
            fingerprint: key().fingerprint,
            session_id: ONE,
            run: 2,
            request: Uuid::from_u128(77),
            created_ms: T,
            outcome: Some(Outcome::Failed(Code::DatabaseError)),
            is_final: true,
        }
    }

    /// The rows of the fixtures, with or without the ending.
    fn fixtures(ending: Option<&str>) -> StoredRows {
        StoredRows {
            ledger: Some(LEDGER.to_owned()),
            generations: vec![row(GENERATION.to_owned(), ending.map(str::to_owned))],
            candidates: vec![(TWO.to_string(), CANDIDATES.to_owned())],
            idempotency_records: vec![IDEMPOTENCY_RECORD.to_owned()],
        }
    }

    fn row(record: String, ending: Option<String>) -> StoredGeneration {
        StoredGeneration { record, ending, ..StoredGeneration::default() }
    }

    /// The rows as they are written now.
    fn rows_of(state: &UserState) -> StoredRows {
        let rows = |generation: &Generation| {
            let ending = generation.ending.as_ref().map(|ending| to_json(ending));
            row(to_json(generation), ending)
        };
        let batch = |generation: &Generation| (generation.accepted.id.to_string(), batch(generation, 0));
        StoredRows {
            ledger: Some(ledger_record(state)),
            generations: state.generations.iter().map(rows).collect(),
            candidates: state.generations.iter().map(batch).collect(),
            idempotency_records: state.records.iter().map(|found| to_json(found)).collect(),
        }
    }

    /// Every record of the rows that has a version.
    fn records_of(rows: &StoredRows) -> Vec<&String> {
        let generations = rows.generations.iter().flat_map(|row| [Some(&row.record), row.ending.as_ref()]);
        generations.flatten().chain(&rows.ledger).chain(&rows.idempotency_records).collect()
    }

    fn assert_complete(state: &UserState, is_ended: bool) {
        let (mut ledger, reservation) = ledger();
        let mut expected = generation();
        assert_eq!(expected.reservation, Some(reservation));
        if is_ended {
            // The consequences of an ending are not stored.
            ledger.release(TWO);
            expected = Generation { ending: Some(ending()), reservation: None, ..expected };
        }
        assert_eq!(state.ledger, ledger);
        assert_eq!(state.generations, [expected]);
        assert_eq!(state.records, [idempotency_record()]);
        let logged = ["burst", "concurrent"].map(|policy| (policy.to_owned(), T + 30_000));
        assert_eq!(state.logged_limits, logged);
        assert_eq!(state.rejected_until_ms, T + 30_000);
    }

    #[test]
    fn records_without_a_version_are_loaded_completely() {
        assert_complete(&load(&fixtures(None)).expect("readable"), false);
        assert_complete(&load(&fixtures(Some(ENDING))).expect("readable"), true);
    }

    #[test]
    fn records_of_this_version_are_loaded_completely() {
        for ending in [None, Some(ENDING)] {
            let state = load(&fixtures(ending)).expect("readable");
            let rows = rows_of(&state);
            for record in records_of(&rows) {
                assert!(record.starts_with(r#"{"version":1,""#), "{record}");
            }
            assert_complete(&load(&rows).expect("readable"), ending.is_some());
        }
    }

    #[test]
    fn a_record_has_the_members_of_version_0_beside_its_version() {
        let rows = rows_of(&load(&fixtures(Some(ENDING))).expect("readable"));
        let mut records = records_of(&rows).into_iter();
        for before in [GENERATION, ENDING, LEDGER, IDEMPOTENCY_RECORD] {
            let mut before: Value = serde_json::from_str(before).expect("it is JSON");
            before["version"] = json!(1);
            let mut now: Value =
                serde_json::from_str(records.next().expect("four records")).expect("it is JSON");
            // Removed and released with the ending.
            if let Some(reservation) = now.get_mut("unit") {
                *reservation = json!(1);
            }
            if let Some(leases) = now.pointer_mut("/ledger/2") {
                *leases = before["ledger"][2].clone();
            }
            assert_eq!(now, before);
        }
        assert_eq!(records.next(), None);
    }

    #[test]
    fn a_source_and_notes_are_stored_with_their_candidate() {
        let candidates = vec![(TWO.to_string(), CITED_CANDIDATES.to_owned())];
        let state = load(&StoredRows { candidates, ..fixtures(None) }).expect("readable");
        let cited = Citation {
            source: Some(Passage { start: 0, end: 29 }),
            supported: Some(false),
            notes: vec![Note::YesOrNo, Note::ListAnswer],
        };
        let citations: Vec<_> =
            state.generations[0].candidates.iter().map(|candidate| candidate.citation.clone()).collect();
        assert_eq!(citations, [cited, Citation::default()]);
        assert_eq!(batch(&state.generations[0], 0), CITED_CANDIDATES);
    }

    #[test]
    fn no_rows_are_an_empty_state() {
        assert!(load(&StoredRows::default()).expect("readable").is_empty());
    }

    /// Each row of the fixtures replaced in turn by `change` of it.
    fn changed(change: impl Fn(&str) -> String) -> Vec<(&'static str, StoredRows)> {
        let all = || fixtures(Some(ENDING));
        vec![
            ("ledger", StoredRows { ledger: Some(change(LEDGER)), ..all() }),
            ("generation", StoredRows { generations: vec![row(change(GENERATION), None)], ..all() }),
            (
                "ending",
                StoredRows { generations: vec![row(GENERATION.to_owned(), Some(change(ENDING)))], ..all() },
            ),
            (
                "idempotency record",
                StoredRows { idempotency_records: vec![change(IDEMPOTENCY_RECORD)], ..all() },
            ),
        ]
    }

    fn with_version(version: &str) -> impl Fn(&str) -> String {
        move |record| record.replacen('{', &["{\"version\":", version, ","].concat(), 1)
    }

    #[test]
    fn a_record_of_a_later_version_is_refused() {
        for (version, is_readable) in
            [("0", true), ("1", true), ("2", false), ("4294967296", false), ("\"1\"", false)]
        {
            for (name, rows) in changed(with_version(version)) {
                assert_eq!(load(&rows).is_ok(), is_readable, "{name} {version}");
            }
        }
    }

    #[test]
    fn a_broken_record_is_refused() {
        for broken in [
            |_: &str| String::new(),
            |_: &str| "{}".to_owned(),
            |_: &str| "[]".to_owned(),
            |_: &str| "null".to_owned(),
            |record: &str| record[..record.len() - 1].to_owned(),
            |record: &str| [record, "}"].concat(),
            |record: &str| record.replacen(':', "", 1),
        ] {
            for (name, rows) in changed(broken) {
                assert_eq!(load(&rows).err(), Some(NotReadable), "{name} {rows:?}");
            }
            let candidates = vec![(TWO.to_string(), broken(&CANDIDATES[1..CANDIDATES.len() - 1]))];
            let rows = StoredRows { candidates, ..fixtures(None) };
            assert_eq!(load(&rows).is_ok(), rows.candidates[0].1 == "[]", "{rows:?}");
        }
        let candidates = vec![("no id".to_owned(), CANDIDATES.to_owned())];
        assert_eq!(load(&StoredRows { candidates, ..fixtures(None) }).err(), Some(NotReadable));
    }

    #[test]
    fn candidates_are_appended_batch_by_batch() {
        let batches = [11, 12, 13].map(|number| {
            let candidate =
                json!({ "id": Uuid::from_u128(number), "front": "f", "back": "b", "prompt": "p" });
            (TWO.to_string(), json!([candidate]).to_string())
        });
        let another = (ONE.to_string(), CANDIDATES.to_owned());
        let rows = StoredRows { candidates: [vec![another], batches.to_vec()].concat(), ..fixtures(None) };
        let state = load(&rows).expect("readable");
        let ids: Vec<_> =
            state.generations[0].candidates.iter().map(|candidate| candidate.id.as_u128()).collect();
        assert_eq!(ids, [11, 12, 13]);
        assert_eq!(state.generations.len(), 1, "a batch without its generation is ignored");
        let rest = read_batch(&batch(&state.generations[0], 1)).expect("readable");
        let ids: Vec<_> = rest.iter().map(|candidate| candidate.id.as_u128()).collect();
        assert_eq!(ids, [12, 13]);
        assert_eq!(batch(&state.generations[0], 4), "[]");
    }

    fn without(record: &str, members: &[&str]) -> String {
        let mut record: Value = serde_json::from_str(record).expect("it is JSON");
        for member in members {
            let removed = record.as_object_mut().and_then(|record| record.remove(*member));
            assert!(removed.is_some(), "{member}");
        }
        record.to_string()
    }

    #[test]
    fn a_record_from_before_a_member_existed_is_loaded() {
        let rows = StoredRows {
            ledger: Some(without(LEDGER, &["attempts", "spend", "rejected_until_ms"])),
            generations: vec![row(
                without(GENERATION, &["refusals"]),
                Some(without(ENDING, &["was_reused", "is_blocked", "reported", "coverage_percent"])),
            )],
            candidates: Vec::new(),
            idempotency_records: vec![without(IDEMPOTENCY_RECORD, &["asked_by", "is_final"])],
        };
        let state = load(&rows).expect("readable");
        assert_eq!((state.ledger.attempts, state.rejected_until_ms), (Window::default(), 0));
        assert_eq!(state.ledger.spend, Spend::default());
        let found = &state.generations[0];
        assert_eq!(found.refusals, 0);
        let expected = Ending {
            was_reused: None,
            is_blocked: false,
            reported: Reported::default(),
            coverage_percent: None,
            ..ending()
        };
        assert_eq!(found.ending, Some(expected));
        let expected = IdempotencyRecord { request: Uuid::nil(), is_final: false, ..idempotency_record() };
        assert_eq!(state.records, [expected]);
    }

    #[test]
    fn records_from_before_spend_are_loaded() {
        let rows = StoredRows {
            ledger: Some(include_str!("../../tests/fixtures/stored/ledger_before_spend.json").to_owned()),
            generations: vec![row(
                GENERATION.to_owned(),
                Some(include_str!("../../tests/fixtures/stored/ending_before_spend.json").to_owned()),
            )],
            ..StoredRows::default()
        };
        let state = load(&rows).expect("readable");
        let expected = Ledger { spend: Spend::default(), leases: state.ledger.leases.clone(), ..ledger().0 };
        assert_eq!(state.ledger, expected);
        let expected = Ending { reported: Reported::default(), coverage_percent: None, ..ending() };
        assert_eq!(state.generations[0].ending, Some(expected));
        // The version before reads these three items of the array, and ignores members that are new.
        let stored: Value = serde_json::from_str(&ledger_record(&load(&fixtures(None)).expect("readable")))
            .expect("it is JSON");
        assert_eq!(stored["ledger"].as_array().map(Vec::len), Some(3));
        assert!(stored["spend"].is_array());
    }

    #[test]
    fn a_record_without_its_request_is_found_by_a_repeated_delivery() {
        let stored =
            without(IDEMPOTENCY_RECORD, &["asked_by"]).replace(r#"{"Failed":"database_error"}"#, "null");
        let mut in_progress: Value = serde_json::from_str(GENERATION).expect("it is JSON");
        in_progress["accepted"]["id"] = json!(ONE);
        let rows = StoredRows {
            generations: vec![row(in_progress.to_string(), None)],
            idempotency_records: vec![stored],
            ..StoredRows::default()
        };
        let state = load(&rows).expect("readable");
        assert_eq!(classify(&state, Some(&key()), Uuid::nil(), true, |_| true, T), Plan::Join(ONE));
    }

    fn any_text() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), "[\"\\\\/\u{0}-\u{20}\u{7f}-\u{a0}a-c]{0,20}"]
    }

    /// Writes a record, compares it with that of serde, and reads it again, also with other white space.
    fn assert_stored<T>(value: &T, expected: &Value) -> Result<(), TestCaseError>
    where
        T: FromJson + ToJson + PartialEq + std::fmt::Debug,
    {
        let written = to_json(value);
        prop_assert_eq!(&serde_json::from_str::<Value>(&written).expect("it is JSON"), expected);
        for form in [written, expected.to_string(), format!("{expected:#}")] {
            let read = T::read(form.as_bytes());
            prop_assert_eq!(read.as_ref(), Some(value), "{}", form);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn an_ending_is_stored_as_serde_writes_it(
            code in prop::option::of(prop::sample::select(Code::ALL)), texts in prop::option::of(any_text()),
            numbers in any::<(u32, u32, u64, Option<u64>)>(), coverage_percent in any::<Option<u32>>(), switches in any::<(bool, bool, Option<bool>)>(),
            usage in prop::option::of((any::<u64>(), any::<u64>(), 0..1_000_000_000_u32)),
            (calls, nanodollars) in any::<(u32, u64)>(),
        ) {
            let usage = usage.map(|(prompt_tokens, completion_tokens, billionths)| {
                Usage { prompt_tokens, completion_tokens, cost: f64::from(billionths) / 1e9 }
            });
            let ending = Ending {
                code, partial: switches.0, usage, served_model: texts, attempts: numbers.0, dropped: numbers.1,
                ended_ms: numbers.2, retry_after_s: numbers.3, was_reused: switches.2, is_blocked: switches.1,
                reported: Reported { calls, nanodollars },
                coverage_percent,
            };
            let expected = json!({ "version": 1, "code": code.map(Code::name), "partial": ending.partial, "usage": usage,
                "served_model": ending.served_model, "attempts": ending.attempts, "dropped": ending.dropped,
                "ended_ms": ending.ended_ms, "retry_after_s": ending.retry_after_s, "was_reused": ending.was_reused,
                "is_blocked": ending.is_blocked, "reported": [calls, nanodollars], "coverage_percent": coverage_percent });
            assert_stored(&ending, &expected)?;
        }

        #[test]
        fn a_generation_is_stored_as_serde_writes_it(
            [text, model, token, referer] in [any_text(), any_text(), any_text(), any_text()],
            traceparent in prop::option::of(any_text()), no_cache in any::<bool>(),
            numbers in any::<[u32; 4]>(), moments in any::<[u64; 4]>(),
            (row, name) in prop::sample::select(vec![
                (RowState::Unknown, "Unknown"), (RowState::Opened, "Opened"), (RowState::Refused, "Refused"),
            ]),
        ) {
            let credentials = Credentials {
                token: Rc::from(token), expires_ms: moments[0], traceparent: traceparent.map(Rc::from),
            };
            let accepted = Accepted {
                id: ONE, run: numbers[0], user_id: TWO, input_text: JsonString::new(&text), model: Rc::from(model), credentials,
                referer: Rc::from(referer), no_cache,
            };
            let stored = Generation {
                deadline_ms: moments[2], reservation: None, row, attempts: numbers[1], writes: numbers[2],
                refusals: numbers[3], write_at_ms: moments[3],
                ..Generation::new(accepted.clone(), ledger().1, 0, moments[1])
            };
            let Credentials { token, expires_ms, traceparent } = &accepted.credentials;
            let expected = json!({
                "version": 1,
                "accepted": { "id": ONE, "run": accepted.run, "user_id": TWO, "input_text": accepted.input_text.decoded(),
                    "model": *accepted.model, "token": **token, "token_expires_ms": expires_ms,
                    "origin": *accepted.referer, "traceparent": traceparent.as_deref(), "no_cache": no_cache },
                "started_ms": moments[1], "deadline_ms": moments[2], "unit": null, "row": name, "attempts": numbers[1],
                "writes": numbers[2], "refusals": numbers[3], "write_at_ms": moments[3],
            });
            assert_stored(&stored, &expected)?;
        }

        #[test]
        fn an_idempotency_record_is_stored_as_serde_writes_it(
            key in any_text(), run in any::<u32>(), created_ms in any::<u64>(), is_final in any::<bool>(),
            code in prop::option::of(prop::sample::select(Code::ALL)), is_ended in any::<bool>(),
        ) {
            let outcome = is_ended.then(|| code.map_or(Outcome::Completed, Outcome::Failed));
            let record = IdempotencyRecord { key, run, created_ms, outcome, is_final, ..idempotency_record() };
            let expected = json!({ "version": 1, "key": record.key, "fingerprint": record.fingerprint,
                "session_id": record.session_id, "run": run, "asked_by": record.request, "claimed_ms": created_ms,
                "outcome": is_ended.then(|| code.map_or(json!("Completed"), |code| json!({ "Failed": code.name() }))),
                "is_final": is_final });
            assert_stored(&record, &expected)?;
        }
    }
}
