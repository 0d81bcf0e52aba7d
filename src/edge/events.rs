//! A session as a list of Server-Sent Events.
//!
//! ```text
//! id: 1.0⏎ event: session⏎   data: {"id":"…"}⏎ ⏎
//! id: 1.1⏎ event: candidate⏎ data: {"index":0,"id":"…","front":"…",…}⏎ ⏎
//! :⏎ ⏎                                                              after 15 s without an event
//! id: 1.2⏎ event: done⏎      data: {"id":"…","count":1,"partial":false,"usage":{…},"coverage":0.8}⏎ ⏎
//! ```
//! or `error` in place of `done`, with the problem document. The same list has the same bytes for every client at any time, so a
//! stream that was cut can be resumed.

use std::pin::pin;
use std::rc::Rc;

use uuid::Uuid;

use super::failure::problem_of;
use crate::citation::record::Coverage;
use crate::generation::usage::Usage;
use crate::http::problem::ProblemContext;
use crate::http::sse::{COMMENT, EventId, write_event};
use crate::json::record::{ToJson, write_object};
use crate::ports::reusable_timer::ReusableTimer;
use crate::ports::{Clock, EventSink, Timer, Unreachable};
use crate::user_object::session_view::SessionView;
use crate::user_object::subscription::{Subscription, Update};
use crate::user_state::generation::SessionCandidate;

/// A comment is sent after this time without an event. Cloudflare cuts a response that is silent for 100 s (error 524), many a
/// proxy after 30 s.
pub const COMMENT_EVERY_MS: u64 = 15_000;
/// A client that reads nothing for this long is disconnected; it can resume with `Last-Event-ID`. As long as the silence that
/// Cloudflare tolerates in the other direction.
pub const STALL_MS: u64 = 100_000;

/// The terminal event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum End<'a> {
    /// The session is persisted with its candidates.
    Done {
        /// Whether the model's answer was cut.
        partial: bool,
        /// The billed usage.
        usage: Option<Usage>,
        /// The share of the text that has a candidate.
        coverage: Option<Coverage>,
    },
    /// It failed: the problem document.
    Failed(&'a [u8]),
    /// Its candidates are not yet persisted: the problem document. The list has another end later, so this event has the id of
    /// the event before it.
    NotPersisted(&'a [u8]),
}

/// The events of one session, written for one client.
#[derive(Debug)]
pub struct EventList {
    session_id: Uuid,
    run: u32,
    /// The index of the next event.
    next: u32,
}

impl EventList {
    /// For a client that has received the list up to `after`, or nothing of this run of the session.
    #[must_use]
    pub fn new(session_id: Uuid, run: u32, after: Option<EventId>) -> Self {
        let last = after.filter(|after| after.run == run);
        Self { session_id, run, next: last.map_or(0, |last| last.index.saturating_add(1)) }
    }

    /// How many candidates the client has received.
    #[must_use]
    pub fn received(&self) -> usize {
        usize::try_from(self.next.saturating_sub(1)).unwrap_or(usize::MAX)
    }

    /// Writes `session`, unless it was received.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if self.next == 0 {
            let session_id = self.session_id;
            self.write_members(out, "session", &[("id", &session_id)]);
        }
    }

    /// Writes a `candidate` for each; they follow those that were [`received`](Self::received).
    pub fn candidates(&mut self, out: &mut Vec<u8>, candidates: &[Rc<SessionCandidate>]) {
        for candidate in candidates {
            let index = self.next.saturating_sub(1);
            let mut members: Vec<(&str, &dyn ToJson)> = vec![("index", &index)];
            members.extend(candidate.members());
            self.write_members(out, "candidate", &members);
        }
    }

    /// Writes the terminal event of a list with so many candidates, unless it was received.
    pub fn end(&mut self, out: &mut Vec<u8>, count: usize, end: End<'_>) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if self.next > count.saturating_add(1) {
            return;
        }
        match end {
            End::Done { partial, usage, coverage } => {
                let session_id = self.session_id;
                let members: [(&str, &dyn ToJson); 5] = [
                    ("id", &session_id),
                    ("count", &count),
                    ("partial", &partial),
                    ("usage", &usage),
                    ("coverage", &coverage),
                ];
                self.write_members(out, "done", &members);
            }
            End::Failed(problem) => self.write(out, "error", problem),
            End::NotPersisted(problem) => {
                self.next = self.next.saturating_sub(1);
                self.write(out, "error", problem);
            }
        }
    }

    /// Writes the remaining events of a session that has ended.
    pub fn finish(&mut self, out: &mut Vec<u8>, session: &SessionView, context: &ProblemContext) {
        self.begin(out);
        self.candidates(out, session.candidates.get(self.received()..).unwrap_or_default());
        let problem = session.problem().map(|failure| problem_of(failure).to_json(context));
        let end = match &problem {
            None => End::Done { partial: session.partial, usage: session.usage, coverage: session.coverage },
            Some(problem) if session.failure.is_some() => End::Failed(problem),
            Some(problem) => End::NotPersisted(problem),
        };
        self.end(out, session.candidates.len(), end);
    }

    fn write_members(&mut self, out: &mut Vec<u8>, event: &str, members: &[(&str, &dyn ToJson)]) {
        let mut data = String::new();
        write_object(&mut data, members);
        self.write(out, event, data.as_bytes());
    }

    fn write(&mut self, out: &mut Vec<u8>, event: &str, data: &[u8]) {
        write_event(out, EventId { run: self.run, index: self.next }, event, data);
        self.next = self.next.saturating_add(1);
    }
}

/// The events of a session that has ended.
#[must_use]
pub fn stored_events(session: &SessionView, after: Option<EventId>, context: &ProblemContext) -> Vec<u8> {
    let (mut list, mut body) = (EventList::new(session.id, session.run, after), Vec::new());
    list.finish(&mut body, session, context);
    body
}

/// Writes the events of a subscription as they come, to the end.
///
/// # Errors
/// [`Unreachable`]: the client left, or reads nothing; or the storage failed. The client can resume a stream that is cut.
pub async fn write_events(
    host: &(impl Timer + Clock),
    subscription: &Subscription,
    context: &ProblemContext,
    mut sink: impl EventSink,
) -> Result<(), Unreachable> {
    let mut list = EventList::new(subscription.session_id, subscription.run, subscription.after);
    let mut timer = ReusableTimer::new(host);
    let (mut chunk, mut is_over) = (Vec::new(), false);
    list.begin(&mut chunk);
    loop {
        if !chunk.is_empty() {
            let due_ms = host.now_ms().saturating_add(STALL_MS);
            timer.until(due_ms, pin!(sink.write(&chunk))).await.unwrap_or(Err(Unreachable))?;
            chunk.clear();
        }
        if is_over {
            sink.close().await;
            return Ok(());
        }
        let due_ms = host.now_ms().saturating_add(COMMENT_EVERY_MS);
        match timer.until(due_ms, pin!(subscription.next(list.received()))).await {
            Some(Update::Candidates(candidates)) => list.candidates(&mut chunk, &candidates),
            Some(Update::Ended(session)) => {
                list.finish(&mut chunk, &session, context);
                is_over = true;
            }
            Some(Update::Lost) => return Err(Unreachable),
            None => chunk.extend_from_slice(COMMENT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::citation::check::{Citation, Note};
    use crate::citation::sentences::Passage;

    const SESSION: Uuid = Uuid::from_u128(1);

    fn candidate(number: u128) -> Rc<SessionCandidate> {
        let field = |name: &str| [name, &number.to_string()].concat();
        Rc::new(SessionCandidate {
            id: Uuid::from_u128(number),
            front: field("f\n"),
            back: field("b"),
            prompt: field("p"),
            citation: Citation {
                source: Some(Passage { start: 3, end: 7 }),
                supported: Some(true),
                notes: vec![Note::YesOrNo],
            },
        })
    }

    fn written(after: Option<EventId>, candidates: &[Rc<SessionCandidate>], end: End<'_>) -> String {
        let (mut list, mut out) = (EventList::new(SESSION, 2, after), Vec::new());
        list.begin(&mut out);
        list.candidates(&mut out, candidates.get(list.received()..).unwrap_or_default());
        list.end(&mut out, candidates.len(), end);
        String::from_utf8(out).expect("JSON and ASCII")
    }

    const DONE: End<'_> = End::Done { partial: true, usage: None, coverage: Some(Coverage(67)) };

    #[test]
    fn events_have_the_form_of_the_contract() {
        assert_eq!(
            written(None, &[candidate(10)], DONE),
            "id: 2.0\nevent: session\ndata: {\"id\":\"00000000-0000-0000-0000-000000000001\"}\n\n\
             id: 2.1\nevent: candidate\ndata: {\"index\":0,\"id\":\"00000000-0000-0000-0000-00000000000a\",\
             \"front\":\"f\\n10\",\"back\":\"b10\",\"prompt\":\"p10\",\
             \"source\":{\"start\":3,\"end\":7},\"supported\":true,\"notes\":[\"yes_or_no\"]}\n\n\
             id: 2.2\nevent: done\ndata: {\"id\":\"00000000-0000-0000-0000-000000000001\",\"count\":1,\
             \"partial\":true,\"usage\":null,\"coverage\":0.67}\n\n"
        );
        assert!(written(None, &[], End::Failed(b"{}")).ends_with("id: 2.1\nevent: error\ndata: {}\n\n"));
    }

    #[test]
    fn a_client_that_resumes_receives_exactly_the_rest() {
        let candidates: Vec<Rc<SessionCandidate>> = (1..=5).map(candidate).collect();
        for end in [DONE, End::Failed(b"{}")] {
            let whole = written(None, &candidates, end);
            let events: Vec<&str> = whole.split_inclusive("\n\n").collect();
            assert_eq!(events.len(), 7);
            for received in 1..=events.len() {
                let after = EventId { run: 2, index: u32::try_from(received - 1).expect("it is small") };
                assert_eq!(
                    written(Some(after), &candidates, end),
                    events[received..].concat(),
                    "after {after}"
                );
            }
            for (run, index) in [(1, 3), (3, 0), (0, 0)] {
                assert_eq!(written(Some(EventId { run, index }), &candidates, end), whole, "another run");
            }
        }
        let beyond = EventId { run: 2, index: u32::MAX };
        assert_eq!(written(Some(beyond), &candidates, DONE), "");
    }

    #[test]
    fn an_error_of_an_unpersisted_list_has_the_id_of_its_last_event() {
        let candidates = [candidate(1), candidate(2)];
        let first = written(None, &candidates, End::NotPersisted(b"{}"));
        assert!(first.ends_with("id: 2.2\nevent: error\ndata: {}\n\n"), "{first}");
        let later = written(Some(EventId { run: 2, index: 2 }), &candidates, DONE);
        assert!(later.starts_with("id: 2.3\nevent: done\n"), "{later}");
    }
}
