//! One reader of a generation: what it is told and when, and when it is let go.

#![expect(clippy::expect_used, reason = "a reader that was told nothing fails the test")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use ai_sessions::answer::events::{COMMENT_EVERY_MS, Position};
use ai_sessions::edge::session_events::{Follow, STALL_MS, write_events};
use ai_sessions::ports::{Clock, EventSink, Follower, News, Timer, Unreachable};
use ai_sessions::problem::Code;
use ai_sessions::user_state::record::{Accepted, Ending, Finished, Generation, Row, SessionCandidate};
use uuid::Uuid;

use crate::scripted_host::ScriptedHost;

const START_MS: u64 = 1_700_000_000_000;
const SESSION: Uuid = Uuid::from_u128(7);

fn cards(count: u128) -> Vec<SessionCandidate> {
    let card = |number: u128| SessionCandidate {
        id: Uuid::from_u128(number),
        front: format!("f{number}"),
        back: "b".to_owned(),
        prompt: "p".to_owned(),
    };
    (1..=count).map(card).collect()
}

/// How a generation with so many cards ended.
fn settled(count: u128, code: Option<Code>, written: bool) -> Step {
    let accepted = Accepted {
        id: SESSION,
        run: 1,
        user_id: Uuid::from_u128(1),
        input_text: String::new(),
        model: "a/1".to_owned(),
        token: String::new(),
        token_expires_ms: START_MS,
        origin: "https://cards.example".to_owned(),
        traceparent: None,
        no_cache: false,
    };
    let ending = Ending {
        code,
        partial: false,
        usage: None,
        served_model: None,
        attempts: 1,
        dropped: 0,
        ended_ms: START_MS,
        retry_after_s: None,
        was_reused: None,
        is_blocked: false,
    };
    let generation = Generation {
        accepted,
        started_ms: START_MS,
        deadline_ms: START_MS,
        unit: None,
        row: Row::Opened,
        attempts: 1,
        ending: Some(ending),
        writes: 0,
        refusals: 0,
        write_at_ms: START_MS,
        candidates: cards(count),
    };
    Step::Finished(Rc::new(Finished { generation, written, database_ms: 0 }))
}

#[derive(Clone)]
enum Step {
    /// There are so many cards now.
    Cards(u128),
    Finished(Rc<Finished>),
    Lost,
}

/// A generation that goes on by script: what there is from which moment on (milliseconds after the start).
struct Script {
    host: ScriptedHost,
    steps: Vec<(u64, Step)>,
}

impl Follower for Script {
    async fn news(&self, heard: usize) -> News {
        loop {
            let now_ms = self.host.now_ms() - START_MS;
            let news = |step: &Step| match step {
                Step::Cards(count) => cards(*count)
                    .get(heard..)
                    .filter(|new| !new.is_empty())
                    .map(|new| News::Cards(new.to_vec())),
                Step::Finished(settled) => Some(News::Finished(Rc::clone(settled))),
                Step::Lost => Some(News::Lost),
            };
            let (past, future): (Vec<_>, Vec<_>) = self.steps.iter().partition(|(at_ms, _)| *at_ms <= now_ms);
            if let Some(news) = past.last().and_then(|(_, step)| news(step)) {
                return news;
            }
            match future.first() {
                Some((at_ms, _)) => self.host.sleep(at_ms - now_ms).await,
                None => return std::future::pending().await,
            }
        }
    }
}

/// How a reader takes one piece.
#[derive(Clone, Copy)]
enum Takes {
    AfterMs(u64),
    Never,
    IsGone,
}

#[derive(Default)]
struct Told {
    /// Each piece, and when it was taken (milliseconds after the start).
    pieces: Vec<(u64, String)>,
    is_closed: bool,
}

/// A reader that takes the first pieces by script, and the others at once.
struct Reader {
    host: ScriptedHost,
    takes: VecDeque<Takes>,
    told: Rc<RefCell<Told>>,
}

impl EventSink for Reader {
    async fn write(&mut self, piece: &[u8]) -> Result<(), Unreachable> {
        match self.takes.pop_front().unwrap_or(Takes::AfterMs(0)) {
            Takes::AfterMs(ms) => self.host.sleep(ms).await,
            Takes::Never => std::future::pending().await,
            Takes::IsGone => return Err(Unreachable),
        }
        let text = String::from_utf8_lossy(piece).into_owned();
        self.told.borrow_mut().pieces.push((self.host.now_ms() - START_MS, text));
        Ok(())
    }

    async fn close(self) {
        self.told.borrow_mut().is_closed = true;
    }
}

/// What a reader was told, and when its task ended.
struct Outcome {
    pieces: Vec<(u64, String)>,
    is_closed: bool,
    ended: Result<(), Unreachable>,
    took_ms: u64,
}

impl Outcome {
    /// The moment and the ids of the events of each piece; `:` stands for a comment.
    fn ids(&self) -> Vec<(u64, String)> {
        let ids = |text: &str| {
            let blocks = text.split_terminator("\n\n").map(|block| {
                block.strip_prefix("id: ").and_then(|rest| rest.lines().next()).unwrap_or(block).to_owned()
            });
            blocks.collect::<Vec<_>>().join(" ")
        };
        self.pieces.iter().map(|(at_ms, text)| (*at_ms, ids(text))).collect()
    }

    fn last_event(&self) -> &str {
        let (_, text) = self.pieces.last().expect("something was told");
        text.split_terminator("\n\n").last().expect("a piece is not empty")
    }
}

fn reading(
    steps: impl IntoIterator<Item = (u64, Step)>,
    after: Option<Position>,
    takes: impl IntoIterator<Item = Takes>,
) -> Outcome {
    let host = ScriptedHost::new(START_MS);
    let told = Rc::new(RefCell::new(Told::default()));
    let follow = Follow {
        id: SESSION,
        run: 1,
        after,
        origin: "https://cards.example".to_owned(),
        request_id: "018f3a3e-0000-7000-8000-00000000000a".to_owned(),
    };
    let script = Script { host: host.clone(), steps: steps.into_iter().collect() };
    let reader = Reader { host: host.clone(), takes: takes.into_iter().collect(), told: Rc::clone(&told) };
    let ended = host.run(write_events(&host, &follow, &script, reader));
    let told = told.take();
    Outcome { pieces: told.pieces, is_closed: told.is_closed, ended, took_ms: host.now_ms() - START_MS }
}

fn at(moments: &[(u64, &str)]) -> Vec<(u64, String)> {
    moments.iter().map(|(at_ms, ids)| (*at_ms, (*ids).to_owned())).collect()
}

#[test]
fn each_card_is_told_when_it_is_there_and_the_end_is_the_last_thing() {
    let steps = [(100, Step::Cards(1)), (200, Step::Cards(3)), (900, settled(3, None, true))];
    let outcome = reading(steps, None, []);
    assert_eq!(outcome.ids(), at(&[(0, "1.0"), (100, "1.1"), (200, "1.2 1.3"), (900, "1.4")]));
    assert!(outcome.last_event().contains("\nevent: done\n"), "{}", outcome.last_event());
    assert_eq!((outcome.ended, outcome.is_closed), (Ok(()), true));
}

#[test]
fn a_generation_that_has_ended_is_told_in_two_pieces() {
    let outcome = reading([(0, settled(3, None, true))], None, []);
    assert_eq!(outcome.ids(), at(&[(0, "1.0"), (0, "1.1 1.2 1.3 1.4")]));
    assert!(outcome.is_closed);
}

#[test]
fn a_reader_that_comes_back_hears_the_rest_and_a_reader_of_everything_only_the_end_of_the_connection() {
    let steps = || [(0, Step::Cards(2)), (500, settled(2, None, true))];
    for (place, pieces) in [
        (0, &[(0, "1.1 1.2"), (500, "1.3")][..]),
        (1, &[(0, "1.2"), (500, "1.3")]),
        (2, &[(500, "1.3")]),
        (3, &[]),
        (99, &[]),
    ] {
        let outcome = reading(steps(), Some(Position { run: 1, place }), []);
        assert_eq!(outcome.ids(), at(pieces), "after {place}");
        assert_eq!((outcome.ended, outcome.is_closed), (Ok(()), true));
        assert_eq!(outcome.took_ms, 500);
    }
}

#[test]
fn a_failure_is_told_as_an_error_and_so_is_what_is_not_stored_in_the_place_of_the_last_card() {
    for (step, id, code) in [
        (settled(0, Some(Code::AiRefused), true), "1.1", "ai_refused"),
        (settled(0, Some(Code::AiTimeout), false), "1.1", "ai_timeout"),
        (settled(2, None, false), "1.2", "database_error"),
    ] {
        let outcome = reading([(10, step)], None, []);
        let event = outcome.last_event();
        assert!(event.starts_with(&format!("id: {id}\nevent: error\ndata: {{")), "{event}");
        assert!(event.contains(&format!("\"code\":\"{code}\"")), "{event}");
        assert!(event.contains("\"request_id\":\"018f3a3e-0000-7000-8000-00000000000a\""), "{event}");
        assert!(outcome.is_closed);
    }
}

#[test]
fn silence_is_broken_by_a_comment_and_only_silence() {
    let steps = [
        (COMMENT_EVERY_MS - 1, Step::Cards(1)),
        (COMMENT_EVERY_MS * 4, Step::Cards(2)),
        (COMMENT_EVERY_MS * 4 + 1, settled(2, None, true)),
    ];
    let outcome = reading(steps, None, []);
    let since_ms = COMMENT_EVERY_MS - 1;
    assert_eq!(
        outcome.ids(),
        at(&[
            (0, "1.0"),
            (since_ms, "1.1"),
            (since_ms + COMMENT_EVERY_MS, ":"),
            (since_ms + 2 * COMMENT_EVERY_MS, ":"),
            (since_ms + 3 * COMMENT_EVERY_MS, ":"),
            (COMMENT_EVERY_MS * 4, "1.2"),
            (COMMENT_EVERY_MS * 4 + 1, "1.3"),
        ])
    );
}

#[test]
fn a_slow_reader_gets_what_came_meanwhile_in_one_piece() {
    let steps = [
        (10, Step::Cards(1)),
        (20, Step::Cards(2)),
        (30, Step::Cards(5)),
        (COMMENT_EVERY_MS * 2, settled(5, None, true)),
    ];
    let outcome =
        reading(steps, None, [Takes::AfterMs(0), Takes::AfterMs(5_000), Takes::AfterMs(STALL_MS - 1)]);
    let taken_ms = 10 + 5_000;
    assert_eq!(
        outcome.ids(),
        at(&[
            (0, "1.0"),
            (taken_ms, "1.1"),
            (taken_ms + STALL_MS - 1, "1.2 1.3 1.4 1.5"),
            (taken_ms + STALL_MS - 1, "1.6"),
        ])
    );
    assert_eq!((outcome.ended, outcome.is_closed), (Ok(()), true));
}

#[test]
fn a_reader_that_takes_nothing_is_let_go_wherever_it_is() {
    let steps = || [(10, Step::Cards(1)), (20, settled(1, None, true))];
    for (heard, took_ms) in [(0, STALL_MS), (1, 10 + STALL_MS), (2, 20 + STALL_MS)] {
        let takes = std::iter::repeat_n(Takes::AfterMs(0), heard).chain([Takes::Never]);
        let outcome = reading(steps(), None, takes);
        assert_eq!((outcome.ended, outcome.is_closed), (Err(Unreachable), false), "after {heard} pieces");
        assert_eq!((outcome.pieces.len(), outcome.took_ms), (heard, took_ms));
    }
}

#[test]
fn a_reader_that_left_is_let_go_at_the_next_thing_to_tell() {
    let never_settled = [(10, Step::Cards(1))];
    let outcome = reading(never_settled.clone(), None, [Takes::AfterMs(0), Takes::IsGone]);
    assert_eq!((outcome.ended, outcome.is_closed, outcome.took_ms), (Err(Unreachable), false, 10));
    // A comment is one.
    let outcome = reading(never_settled, None, [Takes::AfterMs(0), Takes::AfterMs(0), Takes::IsGone]);
    assert_eq!((outcome.ended, outcome.took_ms), (Err(Unreachable), 10 + COMMENT_EVERY_MS));
}

#[test]
fn a_storage_that_fails_breaks_the_stream_off_for_its_reader_to_come_back() {
    let outcome = reading([(10, Step::Cards(1)), (20, Step::Lost)], None, []);
    assert_eq!(outcome.ids(), at(&[(0, "1.0"), (10, "1.1")]));
    assert_eq!((outcome.ended, outcome.is_closed, outcome.took_ms), (Err(Unreachable), false, 20));
}
