//! Invariants over any order of events. Each run stores its writes and loads them again.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::rows::Rows;
use super::*;

/// A picked generation of a list, where there is one.
fn id_of(generations: &[&Generation], which: u8) -> Option<Uuid> {
    let index = usize::from(which).checked_rem(generations.len())?;
    generations.get(index).map(|generation| generation.accepted.id)
}

/// The generations in progress, and those that are not yet persisted.
fn parts(state: &UserState) -> (Vec<&Generation>, Vec<&Generation>) {
    state.generations.iter().partition(|generation| generation.ending.is_none())
}

/// The ending of a generation by a failure, if it has no candidates, as the service makes it.
fn failure(generation: &Generation, code: Code, now_ms: u64) -> Ending {
    Ending::interrupted(!generation.candidates.is_empty(), code, generation.attempts, now_ms)
}

/// An event of a state without keys.
#[derive(Debug, Clone)]
enum Step {
    Admit,
    /// Of one in progress, whose row is not yet known.
    Row(u8, RowState),
    /// Of one in progress.
    Candidates(u8, u8),
    /// A further model call of one in progress.
    Attempt(u8),
    /// Ends any; whether it failed.
    End(u8, bool),
    /// Of one that has ended.
    Write(u8, bool),
    /// The process ends. The generations in progress are resumed.
    Crash,
    /// Milliseconds.
    Wait(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let row = prop_oneof![Just(RowState::Opened), Just(RowState::Refused)];
    let step = prop_oneof![
        3 => Just(Step::Admit),
        1 => (any::<u8>(), row).prop_map(|(which, row)| Step::Row(which, row)),
        2 => (any::<u8>(), 1..4_u8).prop_map(|(which, count)| Step::Candidates(which, count)),
        1 => any::<u8>().prop_map(Step::Attempt),
        3 => (any::<u8>(), any::<bool>()).prop_map(|(which, failed)| Step::End(which, failed)),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(which, persisted)| Step::Write(which, persisted)),
        1 => Just(Step::Crash),
        2 => any::<u16>().prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..80)
}

proptest! {
    /// INVARIANT: reservations = generations that are in progress, not yet persisted or persisted, less those that failed;
    /// leases in use = generations in progress. None is lost or counted twice in any order, also by a crash.
    #[test]
    fn no_reservation_and_no_lease_is_lost_or_counted_twice(steps in steps()) {
        let policies = Policies { generations: Quota { count: 1000, window_s: 2_678_400 }, ..policies() };
        let (mut state, mut rows, mut now_ms) = (UserState::default(), Rows::default(), T);
        let (mut next_id, mut used) = (1_u128, 0_u32);
        for step in steps {
            let (in_progress, ended) = parts(&state);
            let mut events = Vec::new();
            match step {
                Step::Admit => {
                    next_id += 1;
                    let ledger = state.ledger.clone();
                    match state.admit(&policies, accepted(next_id), None, TIMEOUT_MS, now_ms) {
                        Ok(writes) => {
                            rows.store(&state, &writes);
                            used += 1;
                        }
                        Err(_) => prop_assert_eq!(ledger.status(&policies, now_ms), state.ledger.status(&policies, now_ms)),
                    }
                }
                Step::Row(which, row) => {
                    let is_unknown = |id: &Uuid| state.find(*id).is_some_and(|found| found.row == RowState::Unknown);
                    events.extend(id_of(&in_progress, which).filter(is_unknown).map(|id| (id, Event::Row(row))));
                }
                Step::Candidates(which, count) => {
                    let candidates = (0..count).map(|number| candidate(u128::from(number))).collect();
                    events.extend(id_of(&in_progress, which).map(|id| (id, Event::Candidates(candidates))));
                }
                Step::Attempt(which) => {
                    if let Some(id) = id_of(&in_progress, which) {
                        let attempt = state.find(id).map_or(0, |found| found.attempts) + 1;
                        let (may_start, writes) = state.begin_attempt(&policies, id, attempt, now_ms);
                        prop_assert!(may_start);
                        rows.store(&state, &writes);
                    }
                }
                Step::End(which, failed) => {
                    let all: Vec<&Generation> = state.generations.iter().collect();
                    let code = failed.then_some(Code::AiTimeout);
                    events.extend(id_of(&all, which).map(|id| (id, Event::Ended(ending(code, now_ms)))));
                }
                Step::Write(which, persisted) => {
                    let event = if persisted { Event::Persisted } else { Event::NotPersisted };
                    events.extend(id_of(&ended, which).map(|id| (id, event)));
                }
                Step::Crash => {
                    state = rows.load();
                    let resumed = |found: &Generation| {
                        let ending = found.ending_after_crash(3, now_ms);
                        (found.accepted.id, ending.map_or(Event::Resumed, Event::Ended))
                    };
                    events.extend(parts(&state).0.into_iter().map(resumed));
                }
                Step::Wait(ms) => now_ms += u64::from(ms) % 1000,
            }
            for (id, event) in events {
                let is_first_ending = state.find(id).is_some_and(|found| found.ending.is_none());
                if matches!(&event, Event::Ended(ending) if ending.code.is_some()) && is_first_ending {
                    used -= 1;
                }
                let writes = state.advance(id, event, now_ms);
                rows.store(&state, &writes);
            }
            prop_assert_eq!(in_use(&state.ledger.leases, now_ms), parts(&state).0.len());
            prop_assert_eq!(reserved(&state.ledger.generations, policies.generations, now_ms), used);
            prop_assert!(state.generations.is_empty() || state.alarm_ms(|_| false, now_ms).is_some());
            rows.assert_stored(&state, &policies, now_ms);
        }
    }
}

/// An event between two alarms.
#[derive(Debug, Clone)]
enum AlarmStep {
    /// A generation is admitted, with a token that is valid for so many seconds.
    Admit(u16),
    End(u8, Option<Code>),
    Persist(u8),
    FailToPersist(u8),
    Refuse(u8),
    /// A request of the owner, with a token that is valid for so many seconds.
    Request(u16),
    /// A generation begins to be driven, or stops being driven.
    Toggle(u8),
    /// The process ends.
    Crash,
    /// Milliseconds.
    Wait(u32),
}

fn alarm_steps() -> impl Strategy<Value = Vec<AlarmStep>> {
    let code = prop_oneof![Just(None), Just(Some(Code::AiTimeout)), Just(Some(Code::AiRefused))];
    let step = prop_oneof![
        4 => (0..120_u16).prop_map(AlarmStep::Admit),
        4 => (any::<u8>(), code).prop_map(|(which, code)| AlarmStep::End(which, code)),
        1 => any::<u8>().prop_map(AlarmStep::Persist),
        4 => any::<u8>().prop_map(AlarmStep::FailToPersist),
        2 => any::<u8>().prop_map(AlarmStep::Refuse),
        1 => (0..4_000_u16).prop_map(AlarmStep::Request),
        4 => any::<u8>().prop_map(AlarmStep::Toggle),
        1 => Just(AlarmStep::Crash),
        2 => (0..3_000_u32).prop_map(AlarmStep::Wait),
        1 => (0..200_000_000_u32).prop_map(AlarmStep::Wait),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    /// INVARIANT: at the moment of the alarm a job is due, however late the alarm goes off; and none is due a second or more
    /// before it.
    #[test]
    fn a_job_is_due_at_the_time_of_every_alarm(steps in alarm_steps(), late_ms in prop_oneof![Just(0_u64), 0..7_200_000_u64]) {
        let any = Quota { count: 1000, window_s: 60 };
        let policies = Policies { burst: any, generations: any, attempts: any, concurrent: 100, spend: None };
        let (mut state, mut rows, mut now_ms) = (UserState::default(), Rows::default(), T);
        let (mut running, mut next_id) = (BTreeSet::new(), 0_u128);
        for step in steps {
            let all: Vec<&Generation> = state.generations.iter().collect();
            match step {
                AlarmStep::Admit(token_s) => {
                    next_id += 1;
                    let token = credentials("old", now_ms + u64::from(token_s) * 1000);
                    let accepted = Accepted { credentials: token, ..accepted(next_id) };
                    if let Ok(writes) = state.admit(&policies, accepted, None, TIMEOUT_MS, now_ms) {
                        rows.store(&state, &writes);
                    }
                    running.insert(Uuid::from_u128(next_id));
                }
                AlarmStep::End(which, code) => {
                    if let Some(id) = id_of(&all, which) {
                        let writes = state.advance(id, Event::Ended(ending(code, now_ms)), now_ms);
                        rows.store(&state, &writes);
                    }
                }
                AlarmStep::Persist(which) | AlarmStep::FailToPersist(which) | AlarmStep::Refuse(which) => {
                    let event = match step {
                        AlarmStep::Persist(_) => Event::Persisted,
                        AlarmStep::Refuse(_) => Event::Refused,
                        _ => Event::NotPersisted,
                    };
                    if let Some(id) = id_of(&all, which).filter(|id| state.find(*id).is_some_and(|found| found.ending.is_some())) {
                        let writes = state.advance(id, event, now_ms);
                        rows.store(&state, &writes);
                        running.remove(&id);
                    }
                }
                AlarmStep::Request(token_s) => {
                    let token = credentials("new", now_ms + u64::from(token_s) * 1000);
                    state.use_credentials(&token, None, now_ms);
                }
                AlarmStep::Toggle(which) => {
                    if let Some(id) = id_of(&all, which) && !running.remove(&id) {
                        running.insert(id);
                    }
                }
                AlarmStep::Crash => {
                    running.clear();
                    state = rows.load();
                }
                AlarmStep::Wait(ms) => now_ms += u64::from(ms),
            }
            let mut loaded = rows.assert_stored(&state, &policies, now_ms);
            let is_running = |id| running.contains(&id);
            let Some(alarm_ms) = state.alarm_ms(is_running, now_ms) else {
                prop_assert!(state.is_empty());
                continue;
            };
            prop_assert!(alarm_ms >= now_ms + ALARM_MIN_MS);
            let is_expired = |found: &Generation, at_ms| {
                !is_running(found.accepted.id) && found.keep_until_ms() <= at_ms
            };
            let expires = |at_ms| state.generations.iter().any(|found| is_expired(found, at_ms));
            let has_heartbeat = state.generations.iter().any(|found| is_running(found.accepted.id));
            let has_job = |at_ms| {
                has_heartbeat || state.is_idle(at_ms) || expires(at_ms) || !state.due_jobs(is_running, None, at_ms).is_empty()
            };
            prop_assert!(has_job(alarm_ms), "no job at {}", alarm_ms - now_ms);
            prop_assert_eq!(!loaded.abandon_expired(is_running, alarm_ms).0.is_empty(), expires(alarm_ms));
            // Late, a token may have expired; then the next one is at a time at which a job is due.
            let late_alarm_ms = alarm_ms + late_ms;
            if !has_job(late_alarm_ms) {
                let next_ms = state.alarm_ms(is_running, late_alarm_ms).expect("it is not empty");
                prop_assert!(next_ms >= late_alarm_ms + ALARM_MIN_MS && has_job(next_ms));
            }
            if !has_heartbeat {
                for at_ms in (now_ms + ALARM_MIN_MS..alarm_ms).step_by(997).take(100) {
                    prop_assert_eq!(state.due_jobs(is_running, None, at_ms), Vec::new(), "due before the alarm");
                    prop_assert!(!expires(at_ms), "expired before the alarm");
                }
            }
        }
    }
}

/// An event of a state whose user sends keys.
#[derive(Debug, Clone)]
enum KeyedStep {
    /// One of a few keys, with one of two bodies.
    Request(u8, bool),
    /// Of one in progress.
    Candidates(u8),
    /// Ends one in progress; whether a firewall blocked it.
    End(u8, Option<Code>, bool),
    /// Of one that has ended.
    Write(u8, bool),
    /// The database refuses the ending of one.
    Refuse(u8),
    /// The process ends.
    Crash,
    /// Minutes. Each generation in progress meets its deadline meanwhile.
    Wait(u16),
}

fn keyed_steps() -> impl Strategy<Value = Vec<KeyedStep>> {
    let code = prop_oneof![
        Just(None),
        Just(Some(Code::AiUnavailable)),
        Just(Some(Code::AiRefused)),
        Just(Some(Code::Cancelled)),
        Just(Some(Code::DatabaseError)),
    ];
    let step = prop_oneof![
        6 => (0..3_u8, any::<bool>()).prop_map(|(key, body)| KeyedStep::Request(key, body)),
        2 => any::<u8>().prop_map(KeyedStep::Candidates),
        4 => (any::<u8>(), code, proptest::bool::weighted(0.2))
            .prop_map(|(which, code, is_blocked)| KeyedStep::End(which, code, is_blocked && code.is_some())),
        3 => (any::<u8>(), any::<bool>()).prop_map(|(which, persisted)| KeyedStep::Write(which, persisted)),
        2 => any::<u8>().prop_map(KeyedStep::Refuse),
        1 => Just(KeyedStep::Crash),
        1 => (0..600_u16).prop_map(KeyedStep::Wait),
    ];
    proptest::collection::vec(step, 0..80)
}

/// The history of a session with a key.
#[derive(Debug)]
struct History {
    key: u8,
    fingerprint: Uuid,
    created_ms: u64,
    /// Runs, each of which is billed.
    runs: u32,
    /// Those of them that ended with a retryable failure.
    retryable: u32,
}

proptest! {
    /// INVARIANT: a key has at most one valid record and at most one generation in progress; it starts one only where all
    /// before it ended with a retryable failure; reservations and leases are those of the generations, as without keys; and
    /// a restart loses nothing. In any order.
    #[test]
    fn a_key_is_billed_once_in_any_order_of_events(steps in keyed_steps()) {
        let policies = Policies { generations: Quota { count: 1000, window_s: 2_678_400 }, ..policies() };
        let user_id = Uuid::from_u128(7);
        let (mut state, mut rows, mut now_ms, mut used) = (UserState::default(), Rows::default(), T, 0_u32);
        let (mut histories, mut running) = (BTreeMap::<Uuid, History>::new(), BTreeSet::<Uuid>::new());
        for step in steps {
            let (in_progress, ended) = parts(&state);
            let events: Vec<(Uuid, Event)> = match &step {
                KeyedStep::Candidates(which) => {
                    id_of(&in_progress, *which).map(|id| (id, Event::Candidates(vec![candidate(1)]))).into_iter().collect()
                }
                KeyedStep::End(which, code, is_blocked) => {
                    let found = id_of(&in_progress, *which).and_then(|id| state.find(id));
                    let end = |found: &Generation| {
                        let ending = code.map_or_else(|| ending(None, now_ms), |code| failure(found, code, now_ms));
                        (found.accepted.id, Event::Ended(Ending { is_blocked: *is_blocked && ending.code.is_some(), ..ending }))
                    };
                    found.map(end).into_iter().collect()
                }
                KeyedStep::Wait(_) => {
                    let end = |found: &&Generation| (found.accepted.id, Event::Ended(failure(found, Code::AiTimeout, now_ms)));
                    in_progress.iter().map(end).collect()
                }
                KeyedStep::Write(which, persisted) => {
                    let event = if *persisted { Event::Persisted } else { Event::NotPersisted };
                    id_of(&ended, *which).map(|id| (id, event)).into_iter().collect()
                }
                KeyedStep::Refuse(which) => id_of(&ended, *which).map(|id| (id, Event::Refused)).into_iter().collect(),
                KeyedStep::Request(..) | KeyedStep::Crash => Vec::new(),
            };
            for (id, event) in events {
                let was_completed = state.find(id).and_then(|found| found.ending.as_ref()).is_some_and(|ending| ending.code.is_none());
                let is_refused = event == Event::Refused;
                if matches!(&event, Event::Persisted | Event::NotPersisted | Event::Refused) {
                    running.remove(&id);
                }
                let mut may_pass = false;
                if let Event::Ended(ending) = &event {
                    used -= u32::from(ending.code.is_some_and(|code| code != Code::AiRefused));
                    may_pass = ending.code.and_then(Code::retryable) == Some(true) && !ending.is_blocked;
                }
                let writes = state.advance(id, event, now_ms);
                rows.store(&state, &writes);
                // The candidates of an abandoned generation are lost: another run may start.
                may_pass |= is_refused && was_completed && state.find(id).is_none();
                histories.entry(id).and_modify(|history| history.retryable += u32::from(may_pass));
            }
            match step {
                KeyedStep::Request(name, body) => {
                    let is_running = |id| running.contains(&id);
                    let (_, mut writes) = state.abandon_expired(is_running, now_ms);
                    let text = if body { "text" } else { "another" };
                    let key = Key::new(name.to_string(), "a/one", &JsonString::new(text), Uuid::from_u128(77));
                    let fingerprint = key.fingerprint;
                    let valid = histories.iter().find(|(_, history)| {
                        history.key == name && now_ms < history.created_ms + KEEP_RECORD_MS
                    });
                    let plan = classify(&state, Some(&key), Uuid::nil(), false, is_running, now_ms);
                    let starts = match (plan, valid) {
                        (Plan::Start, None) => {
                            let id = session_id("secret", user_id, &name.to_string(), now_ms);
                            prop_assert!(!histories.contains_key(&id), "a new record is a new session");
                            Some((id, 1))
                        }
                        (Plan::StartAgain(id, run), Some((known, history))) => {
                            prop_assert_eq!((id, run), (*known, history.runs + 1));
                            prop_assert!(history.runs == history.retryable && !is_running(id), "there is nothing to join");
                            Some((id, run))
                        }
                        (Plan::RejectReused, Some((_, history))) => {
                            prop_assert_ne!(history.fingerprint, fingerprint);
                            None
                        }
                        (Plan::Join(id), Some((known, history))) => {
                            prop_assert_eq!((id, fingerprint), (*known, history.fingerprint));
                            prop_assert!(state.find(id).is_some(), "there is a generation to join");
                            None
                        }
                        (Plan::ReadStored(id, _), Some((known, history))) => {
                            prop_assert_eq!((id, fingerprint), (*known, history.fingerprint));
                            prop_assert_eq!(history.runs, history.retryable + 1, "there is a session to read");
                            None
                        }
                        (plan, valid) => {
                            prop_assert!(false, "{plan:?} {valid:?}");
                            None
                        }
                    };
                    if let Some((id, run)) = starts
                        && let accepted = (Accepted { id, run, ..accepted(0) })
                        && let Ok(more) = state.admit(&policies, accepted, Some(&key), TIMEOUT_MS, now_ms)
                    {
                        writes.extend(more);
                        running.insert(id);
                        used += 1;
                        let first = History { key: name, fingerprint, created_ms: now_ms, runs: 0, retryable: 0 };
                        histories.entry(id).or_insert(first).runs += 1;
                    }
                    rows.store(&state, &writes);
                }
                KeyedStep::Crash => {
                    running.clear();
                    state = rows.load();
                }
                KeyedStep::Wait(minutes) => now_ms += u64::from(minutes) * 60_000,
                _ => {}
            }

            let in_progress = parts(&state).0;
            let keys: BTreeSet<_> = in_progress.iter().filter_map(|found| histories.get(&found.accepted.id)).map(|history| history.key).collect();
            prop_assert_eq!(keys.len(), in_progress.len(), "one in progress of a key");
            prop_assert_eq!(in_use(&state.ledger.leases, now_ms), in_progress.len());
            prop_assert_eq!(reserved(&state.ledger.generations, policies.generations, now_ms), used);
            for name in 0..3_u8 {
                let valid = state.records.iter().filter(|record| record.key == name.to_string() && record.is_valid(now_ms));
                prop_assert!(valid.count() <= 1, "one valid record of a key");
            }
            let sessions: BTreeSet<_> = state.records.iter().map(|record| record.session_id).collect();
            prop_assert_eq!(sessions.len(), state.records.len(), "one record of a session");
            rows.assert_stored(&state, &policies, now_ms);
        }
    }
}
