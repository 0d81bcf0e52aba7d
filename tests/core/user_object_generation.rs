//! The step of a generation over any order of inputs, beside a simple model of what it must do.

use ai_sessions::user_object::generate::step::{
    Action, Ended, HOLD_MS, Input, ModelEnd, ModelHead, OPEN_GRACE_MS, STOP_MS, Step, StepSettings,
    TOGETHER_MS,
};
use proptest::prelude::*;

use crate::scripted_model::{candidate, delta};
use crate::scripted_world::START_MS;

const DEADLINE_MS: u64 = START_MS + 30_000;
const CANDIDATES_MAX: usize = 4;
const ATTEMPTS_MAX: u32 = 3;

/// What happens while the generation waits.
#[derive(Debug, Clone)]
enum Happening {
    Row(bool),
    Head(u16),
    /// The next candidate; the first one with the begin of the answer.
    Candidate,
    /// The same, in a read that has not ended by the moment of the wait.
    CandidateAtLook,
    /// The end of the JSON.
    Closing,
    Comment,
    ModelEnded(ModelEnd),
    Stop,
    /// So much time passes, or as much as the wait allows.
    Time(u64),
    Subscribed(bool),
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let happening = prop_oneof![
        2 => any::<bool>().prop_map(Happening::Row),
        6 => prop_oneof![5 => Just(200_u16), 1 => Just(503), 1 => Just(402), 1 => Just(429)].prop_map(Happening::Head),
        8 => Just(Happening::Candidate),
        3 => Just(Happening::CandidateAtLook),
        2 => Just(Happening::Closing),
        2 => Just(Happening::Comment),
        3 => prop_oneof![Just(ModelEnd::Regular), Just(ModelEnd::Cut)].prop_map(Happening::ModelEnded),
        1 => Just(Happening::Stop),
        8 => prop_oneof![0..300_u64, 0..16_000_u64].prop_map(Happening::Time),
        1 => any::<bool>().prop_map(Happening::Subscribed),
    ];
    proptest::collection::vec(happening, 0..60)
}

/// The connection to the model API, as the driver has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connection {
    Closed,
    Sent,
    Open { status: u16, has_begun: bool, is_closed: bool },
}

/// What has happened, without the step.
struct Model {
    now_ms: u64,
    connection: Connection,
    candidates: usize,
    /// The candidates that arrived, and when.
    arrived: Vec<(String, u64)>,
    stored: Vec<String>,
    /// When candidates were last stored.
    stored_ms: Option<u64>,
    sends: u32,
    is_attempt_over: bool,
    row: Option<bool>,
    stopped_ms: Option<u64>,
    has_subscriber: bool,
}

/// Runs a step to its end. `answers` are the results of the checks and counts, in turn.
fn drive(happenings: &[Happening], attempts_made: u32, answers: &[bool]) -> Result<Model, TestCaseError> {
    let settings = StepSettings {
        attempts_max: ATTEMPTS_MAX,
        candidates_max: CANDIDATES_MAX,
        idle_timeout_ms: 5_000,
        deadline_ms: DEADLINE_MS,
        allows_reuse: true,
    };
    let mut step = Step::new(settings, attempts_made, START_MS);
    let mut model = Model {
        now_ms: START_MS,
        connection: Connection::Closed,
        candidates: 0,
        arrived: Vec::new(),
        stored: Vec::new(),
        stored_ms: None,
        sends: 0,
        is_attempt_over: true,
        row: None,
        stopped_ms: None,
        has_subscriber: false,
    };
    let mut answers = answers.iter().copied().cycle();
    let mut happenings = happenings.iter();
    let (mut actions, mut timers_at_once) = (0, 0);
    loop {
        actions += 1;
        prop_assert!(actions < 2_000, "it never ends");
        match step.next(model.has_subscriber, model.now_ms) {
            Action::Store(candidates) => {
                prop_assert!(!candidates.is_empty());
                model.stored_ms = Some(model.now_ms);
                model.stored.extend(candidates.into_iter().map(|candidate| candidate.front));
                let arrived = model.arrived.iter().map(|(front, _)| front);
                prop_assert!(model.stored.iter().eq(arrived.take(model.stored.len())), "in order, and once");
            }
            Action::CheckQuota => {
                model.is_attempt_over = true;
                prop_assert!(model.arrived.is_empty(), "no attempt follows a candidate");
                let has_quota = answers.next().unwrap_or(true);
                let random_bits = u128::from(model.now_ms);
                step.handle(Input::QuotaChecked { has_quota, random_bits }, model.now_ms);
            }
            Action::CountAttempt(attempt) => {
                prop_assert_eq!(attempt, attempts_made + model.sends + 1);
                prop_assert!(attempt <= ATTEMPTS_MAX);
                prop_assert_eq!(model.stopped_ms, None, "no attempt follows a stop");
                // The first attempt of all is never refused.
                let may_start = answers.next().unwrap_or(true) || attempt == 1;
                step.handle(Input::AttemptCounted(may_start), model.now_ms);
            }
            Action::Send(may_reuse) => {
                prop_assert!(model.is_attempt_over, "the attempt before is over");
                prop_assert_eq!(model.stopped_ms, None, "no attempt follows a stop");
                prop_assert_eq!(may_reuse, model.sends == 0);
                prop_assert!(model.now_ms < DEADLINE_MS);
                prop_assert_ne!(model.row, Some(false));
                model.sends += 1;
                model.is_attempt_over = false;
                model.connection = Connection::Sent;
            }
            Action::AbandonRow => {
                prop_assert_eq!(model.row, None);
                prop_assert!(model.now_ms >= DEADLINE_MS + OPEN_GRACE_MS);
                model.row = Some(false);
                step.handle(Input::RowOpened(false), model.now_ms);
            }
            Action::End(ended, held) => {
                if let Some((_, arrived_ms)) = model.arrived.get(model.stored.len()) {
                    prop_assert!(held.until_ms <= arrived_ms + HOLD_MS);
                }
                prop_assert!(held.until_ms <= model.now_ms + HOLD_MS);
                model.stored.extend(held.candidates.into_iter().map(|candidate| candidate.front));
                let all: Vec<_> = model.arrived.iter().map(|(front, _)| front.clone()).collect();
                prop_assert_eq!(
                    &model.stored,
                    &all,
                    "every complete candidate is stored, or held at the end"
                );
                check_end(&ended, &model, attempts_made)?;
                return Ok(model);
            }
            Action::Wait { at_least, until_ms } => {
                if at_least.is_none() {
                    model.connection = Connection::Closed;
                }
                check_wait(&model, at_least, until_ms)?;
                let happening = happenings.next().cloned().unwrap_or(Happening::Time(u64::MAX));
                let before_ms = model.now_ms;
                if let Some(input) = model.happen(&happening, until_ms) {
                    step.handle(input, model.now_ms);
                }
                timers_at_once = if model.now_ms > before_ms { 0 } else { timers_at_once + 1 };
                prop_assert!(timers_at_once < 100, "it waits for a moment that has passed");
            }
        }
    }
}

fn check_wait(model: &Model, at_least: Option<usize>, until_ms: u64) -> Result<(), TestCaseError> {
    prop_assert!(until_ms > model.now_ms, "it waits for a moment that has passed");
    prop_assert!(until_ms <= DEADLINE_MS + OPEN_GRACE_MS);
    prop_assert_eq!(at_least.is_some_and(|bytes| bytes == 0), false);
    if at_least.is_some() {
        prop_assert_ne!(model.connection, Connection::Closed, "there is something to read");
    }
    if let Some((_, arrived_ms)) = model.arrived.get(model.stored.len()) {
        let together_ms = model.stored_ms.map_or(0, |stored_ms| stored_ms + TOGETHER_MS);
        prop_assert!(!model.has_subscriber || until_ms <= together_ms, "a subscriber gets it soon");
        prop_assert!(until_ms <= arrived_ms + HOLD_MS, "a candidate is stored soon");
    }
    if let Some(stopped_ms) = model.stopped_ms {
        prop_assert!(until_ms <= stopped_ms + STOP_MS, "a stop takes effect soon");
        prop_assert!(at_least.is_none_or(|bytes| bytes == 1) || until_ms <= stopped_ms + STOP_MS);
    }
    Ok(())
}

fn check_end(ended: &Ended, model: &Model, attempts_made: u32) -> Result<(), TestCaseError> {
    let made = attempts_made + model.sends;
    match ended {
        Ended::Answered(answer) => {
            // An attempt that a stop prevented was counted.
            prop_assert_eq!(answer.attempts, made);
            prop_assert_eq!(answer.outcome.is_ok(), !model.arrived.is_empty());
        }
        Ended::Stopped(attempts) => {
            prop_assert!(model.stopped_ms.is_some());
            prop_assert!(*attempts == made || *attempts == made + 1);
        }
        Ended::RowFailed(attempts) => {
            prop_assert_eq!(model.row, Some(false));
            prop_assert!(model.arrived.is_empty(), "nothing is lost");
            prop_assert_eq!(*attempts, made);
        }
    }
    Ok(())
}

impl Model {
    /// The bytes of the next candidate; `None` after the closed JSON.
    fn next_candidate(&mut self) -> Option<Vec<u8>> {
        let mut text = String::new();
        if let Connection::Open { status: 200, has_begun, is_closed } = &mut self.connection {
            if *is_closed {
                return None;
            }
            if !std::mem::replace(has_begun, true) {
                text = "{\"candidates\":[".to_owned();
            } else {
                text.push(',');
            }
        }
        self.candidates += 1;
        text.push_str(&candidate(self.candidates));
        let is_read = matches!(self.connection, Connection::Open { status: 200, .. });
        if is_read && self.arrived.len() < CANDIDATES_MAX {
            self.arrived.push((format!("front {}", self.candidates), self.now_ms));
        }
        Some(delta(&text).into_bytes())
    }

    /// The input that a happening is for the step; `None` where it cannot happen now.
    fn happen(&mut self, happening: &Happening, until_ms: u64) -> Option<Input> {
        Some(match happening {
            Happening::Row(is_ok) => {
                if self.row.is_some() {
                    return None;
                }
                self.row = Some(*is_ok);
                Input::RowOpened(*is_ok)
            }
            Happening::Head(status) => {
                let head = ModelHead {
                    status: *status,
                    content_type: "text/event-stream".to_owned(),
                    ..ModelHead::default()
                };
                if self.connection == Connection::Sent {
                    self.connection =
                        Connection::Open { status: *status, has_begun: false, is_closed: false };
                }
                // Where it was not waited for, it is ignored.
                Input::ModelHead(head)
            }
            Happening::Candidate => Input::ModelBytes(self.next_candidate()?),
            Happening::CandidateAtLook => {
                let Connection::Open { .. } = self.connection else { return None };
                self.now_ms = until_ms;
                Input::Timer(self.next_candidate().unwrap_or_default())
            }
            Happening::Closing => {
                if let Connection::Open { status: 200, has_begun, is_closed } = &mut self.connection
                    && (!*has_begun || std::mem::replace(is_closed, true))
                {
                    return None; // prose, not JSON
                }
                Input::ModelBytes(delta("]}").into_bytes())
            }
            Happening::Comment => Input::ModelBytes(b": OPENROUTER PROCESSING\n\n".to_vec()),
            Happening::ModelEnded(end) => {
                self.connection = Connection::Closed;
                Input::ModelEnded(*end)
            }
            Happening::Stop => {
                self.stopped_ms.get_or_insert(self.now_ms);
                Input::Stop
            }
            Happening::Time(ms) => {
                self.now_ms = self.now_ms.saturating_add(*ms).min(until_ms);
                if self.now_ms < until_ms {
                    return None;
                }
                Input::Timer(Vec::new())
            }
            Happening::Subscribed(has_subscriber) => {
                self.has_subscriber = *has_subscriber;
                return None;
            }
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// INVARIANT: every complete candidate is stored exactly once, in order, before the end; no attempt is made beyond the
    /// allowed ones, beside another, after a candidate or after a stop; the end is reached, without a busy loop.
    #[test]
    fn a_step_keeps_its_promises_in_any_order_of_inputs(
        happenings in happenings(),
        attempts_made in 0..=ATTEMPTS_MAX,
        answers in proptest::collection::vec(prop::bool::weighted(0.8), 1..8),
    ) {
        let model = drive(&happenings, attempts_made, &answers)?;
        prop_assert!(attempts_made + model.sends <= ATTEMPTS_MAX);
        prop_assert!(model.now_ms <= DEADLINE_MS + OPEN_GRACE_MS);
    }
}

#[test]
fn a_stop_between_the_count_and_the_request_prevents_it() {
    let settings = StepSettings {
        attempts_max: ATTEMPTS_MAX,
        candidates_max: CANDIDATES_MAX,
        idle_timeout_ms: 5_000,
        deadline_ms: DEADLINE_MS,
        allows_reuse: false,
    };
    for is_row_opened in [true, false] {
        let mut step = Step::new(settings, 0, START_MS);
        assert_eq!(step.next(false, START_MS), Action::CountAttempt(1));
        step.handle(Input::AttemptCounted(true), START_MS);
        if is_row_opened {
            step.handle(Input::RowOpened(true), START_MS);
        }
        step.handle(Input::Stop, START_MS);
        if !is_row_opened {
            // The opening of the row has the time of the stop.
            let until_ms = START_MS + STOP_MS;
            assert_eq!(step.next(false, START_MS), Action::Wait { at_least: None, until_ms });
            step.handle(Input::Timer(Vec::new()), until_ms);
        }
        let ended = step.next(false, if is_row_opened { START_MS } else { START_MS + STOP_MS });
        assert!(matches!(ended, Action::End(Ended::Stopped(_), _)), "{ended:?}");
    }
}
