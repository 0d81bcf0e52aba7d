//! The stream of events to one client of a session that has ended: the chunks, their times, and the end of the connection.
//!
//! Not for: a session that runs, which a user object drives.

#![expect(clippy::expect_used, reason = "a stream without an event fails the test")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use ai_sessions::citation::check::Citation;
use ai_sessions::edge::events::{STALL_MS, stored_events, write_events};
use ai_sessions::http::problem::{Code, ProblemContext};
use ai_sessions::http::sse::EventId;
use ai_sessions::ports::{Clock, EventSink, Timer, Unreachable};
use ai_sessions::user_object::session_view::{SessionView, rfc3339};
use ai_sessions::user_object::subscription::Subscription;
use ai_sessions::user_state::generation::SessionCandidate;
use uuid::Uuid;

use crate::scripted_host::ScriptedHost;

const START_MS: u64 = 1_700_000_000_000;

fn candidates(count: u128) -> Vec<Rc<SessionCandidate>> {
    let candidate = |number: u128| SessionCandidate {
        id: Uuid::from_u128(number),
        front: format!("f{number}"),
        back: "b".to_owned(),
        prompt: "p".to_owned(),
        citation: Citation::default(),
    };
    (1..=count).map(|number| Rc::new(candidate(number))).collect()
}

/// A session with so many candidates that has ended.
fn ended(count: u128, failure: Option<Code>, is_persisted: bool) -> SessionView {
    let candidates = candidates(count);
    SessionView {
        id: Uuid::from_u128(7),
        run: 1,
        model: "a/1".into(),
        created_at: rfc3339(START_MS),
        ended_at: Some(rfc3339(START_MS)),
        failure,
        retry_after_s: None,
        partial: false,
        usage: None,
        was_reused: None,
        candidate_count: candidates.len(),
        candidates,
        coverage: None,
        is_persisted,
        is_blocked: false,
    }
}

/// How a client receives one chunk.
#[derive(Clone, Copy)]
enum Receives {
    AfterMs(u64),
    Never,
    HasLeft,
}

#[derive(Default)]
struct Received {
    /// Each chunk, and the milliseconds until it was received.
    chunks: Vec<(u64, String)>,
    is_closed: bool,
}

/// A client that receives the first chunks by script, and the others at once.
struct Client {
    host: ScriptedHost,
    receives: VecDeque<Receives>,
    received: Rc<RefCell<Received>>,
}

impl EventSink for Client {
    async fn write(&mut self, chunk: &[u8]) -> Result<(), Unreachable> {
        match self.receives.pop_front().unwrap_or(Receives::AfterMs(0)) {
            Receives::AfterMs(ms) => self.host.sleep(ms).await,
            Receives::Never => std::future::pending().await,
            Receives::HasLeft => return Err(Unreachable),
        }
        let text = String::from_utf8_lossy(chunk).into_owned();
        self.received.borrow_mut().chunks.push((self.host.now_ms() - START_MS, text));
        Ok(())
    }

    async fn close(self) {
        self.received.borrow_mut().is_closed = true;
    }
}

/// The chunks that a client has received, and the end of the stream.
struct Outcome {
    chunks: Vec<(u64, String)>,
    is_closed: bool,
    result: Result<(), Unreachable>,
    took_ms: u64,
}

impl Outcome {
    /// The time and the event ids of each chunk.
    fn ids(&self) -> Vec<(u64, String)> {
        let id = |event: &str| {
            let id = event.strip_prefix("id: ").and_then(|rest| rest.lines().next());
            id.expect("each event has an id").to_owned()
        };
        let ids = |text: &str| text.split_terminator("\n\n").map(id).collect::<Vec<_>>().join(" ");
        self.chunks.iter().map(|(at_ms, text)| (*at_ms, ids(text))).collect()
    }

    fn text(&self) -> String {
        self.chunks.iter().map(|(_, text)| text.as_str()).collect()
    }

    fn last_event(&self) -> String {
        self.text().split_terminator("\n\n").last().expect("an event was received").to_owned()
    }
}

fn context() -> ProblemContext {
    ProblemContext {
        origin: "https://cards.example".to_owned(),
        request_id: "018f3a3e-0000-7000-8000-00000000000a".to_owned(),
    }
}

fn streaming(
    session: &SessionView,
    after: Option<EventId>,
    receives: impl IntoIterator<Item = Receives>,
) -> Outcome {
    let host = ScriptedHost::new(START_MS);
    let received = Rc::new(RefCell::new(Received::default()));
    let client = Client {
        host: host.clone(),
        receives: receives.into_iter().collect(),
        received: Rc::clone(&received),
    };
    let subscription = Subscription::to_ended(session.clone(), after);
    let result = host.run(write_events(&host, &subscription, &context(), client));
    let Received { chunks, is_closed } = received.take();
    Outcome { chunks, is_closed, result, took_ms: host.now_ms() - START_MS }
}

fn at(chunks: &[(u64, &str)]) -> Vec<(u64, String)> {
    chunks.iter().map(|(at_ms, ids)| (*at_ms, (*ids).to_owned())).collect()
}

#[test]
fn an_ended_session_is_sent_in_two_chunks() {
    let outcome = streaming(&ended(3, None, true), None, []);
    assert_eq!(outcome.ids(), at(&[(0, "1.0"), (0, "1.1 1.2 1.3 1.4")]));
    assert!(outcome.last_event().contains("\nevent: done\n"), "{}", outcome.last_event());
    assert_eq!((outcome.result, outcome.is_closed), (Ok(()), true));
}

#[test]
fn a_client_that_resumes_receives_only_the_remaining_events() {
    for (index, chunks) in
        [(0, &[(0, "1.1 1.2 1.3")][..]), (1, &[(0, "1.2 1.3")]), (2, &[(0, "1.3")]), (3, &[]), (99, &[])]
    {
        let outcome = streaming(&ended(2, None, true), Some(EventId { run: 1, index }), []);
        assert_eq!(outcome.ids(), at(chunks), "after {index}");
        assert_eq!((outcome.result, outcome.is_closed), (Ok(()), true));
        assert_eq!(outcome.took_ms, 0);
    }
}

#[test]
fn a_client_that_received_another_run_receives_the_whole_stream() {
    for (run, index) in [(0, 1), (2, 0), (2, 3)] {
        let outcome = streaming(&ended(2, None, true), Some(EventId { run, index }), []);
        assert_eq!(outcome.ids(), at(&[(0, "1.0"), (0, "1.1 1.2 1.3")]), "{run}.{index}");
        assert!(outcome.is_closed);
    }
}

#[test]
fn a_failure_is_an_error_event_in_place_of_done() {
    for (session, id, code) in [
        (ended(0, Some(Code::AiRefused), true), "1.1", "ai_refused"),
        (ended(0, Some(Code::AiTimeout), false), "1.1", "ai_timeout"),
        // The id of the last candidate: the terminal event is still to come.
        (ended(2, None, false), "1.2", "database_error"),
    ] {
        let outcome = streaming(&session, None, []);
        let event = outcome.last_event();
        assert!(event.starts_with(&format!("id: {id}\nevent: error\ndata: {{")), "{event}");
        assert!(event.contains(&format!("\"code\":\"{code}\"")), "{event}");
        assert!(event.contains("\"request_id\":\"018f3a3e-0000-7000-8000-00000000000a\""), "{event}");
        assert!(outcome.is_closed);
    }
}

#[test]
fn a_client_resumes_a_session_that_was_not_yet_persisted() {
    let before = streaming(&ended(2, None, false), None, []);
    assert_eq!(before.ids(), at(&[(0, "1.0"), (0, "1.1 1.2 1.2")]));
    let after = streaming(&ended(2, None, true), Some(EventId { run: 1, index: 2 }), []);
    assert!(after.last_event().starts_with("id: 1.3\nevent: done\n"), "{}", after.last_event());
}

#[test]
fn the_database_and_the_user_object_send_the_same_bytes() {
    for session in [
        ended(3, None, true),
        ended(0, Some(Code::AiRefused), true),
        ended(2, Some(Code::DatabaseError), true),
        ended(2, None, false),
    ] {
        let positions = (0..5).map(|index| Some(EventId { run: 1, index }));
        for after in positions.chain([None, Some(EventId { run: 2, index: 1 })]) {
            let stored = stored_events(&session, after, &context());
            assert_eq!(streaming(&session, after, []).text().as_bytes(), stored, "{after:?}");
        }
    }
}

#[test]
fn a_slow_client_receives_everything() {
    let receives = [Receives::AfterMs(5_000), Receives::AfterMs(STALL_MS - 1)];
    let outcome = streaming(&ended(3, None, true), None, receives);
    let second_ms = 5_000 + STALL_MS - 1;
    assert_eq!(outcome.ids(), at(&[(5_000, "1.0"), (second_ms, "1.1 1.2 1.3 1.4")]));
    assert_eq!((outcome.result, outcome.is_closed), (Ok(()), true));
}

#[test]
fn a_client_that_receives_nothing_is_disconnected() {
    for received in [0, 1] {
        let receives = std::iter::repeat_n(Receives::AfterMs(0), received).chain([Receives::Never]);
        let outcome = streaming(&ended(1, None, true), None, receives);
        assert_eq!((outcome.result, outcome.is_closed), (Err(Unreachable), false), "after {received}");
        assert_eq!((outcome.chunks.len(), outcome.took_ms), (received, STALL_MS));
    }
}

#[test]
fn a_stream_ends_when_its_client_has_left() {
    for received in [0, 1] {
        let receives = std::iter::repeat_n(Receives::AfterMs(0), received).chain([Receives::HasLeft]);
        let outcome = streaming(&ended(1, None, true), None, receives);
        assert_eq!((outcome.result, outcome.is_closed), (Err(Unreachable), false), "after {received}");
        assert_eq!((outcome.chunks.len(), outcome.took_ms), (received, 0));
    }
}
