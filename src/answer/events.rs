//! A session as a list of events, and their form on the wire: Server-Sent Events (WHATWG HTML, section 9.2).
//!
//! ```text
//! id: 1.0⏎ event: session⏎   data: {"id":"…"}⏎ ⏎
//! id: 1.1⏎ event: candidate⏎ data: {"index":0,"id":"…","front":"…","back":"…","prompt":"…"}⏎ ⏎
//! :⏎ ⏎                                                              15 s in which nothing was said
//! id: 1.2⏎ event: done⏎      data: {"id":"…","count":1,"partial":false,"usage":{…}}⏎ ⏎
//! ```
//! or `error` in place of `done`, with the problem document. An id is the run of the session and the place in its
//! list. The same list has the same bytes whoever asks when, so a stream that was cut can be joined.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use super::documents::to_json;
use crate::generation::usage::Usage;
use crate::user_state::record::SessionCandidate;

/// The media type.
pub const EVENT_STREAM: &str = "text/event-stream";
/// A silence of this length is broken by a comment. Cloudflare cuts an answer that is silent for 100 s (error 524), and
/// many a proxy one of 30 s.
pub const COMMENT_EVERY_MS: u64 = 15_000;
/// The comment: an event without a field, which a reader drops.
pub const COMMENT: &[u8] = b":\n\n";

/// The place of an event: its `id` on the wire, and `Last-Event-ID` on the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The session's run, from 1.
    pub run: u32,
    /// 0 is `session`, 1 the first card; the end comes after the last one.
    pub place: u32,
}

impl Position {
    /// The place in its form on the wire.
    #[must_use]
    pub fn read(field: &str) -> Option<Self> {
        let (run, place) = field.trim_matches([' ', '\t']).split_once('.')?;
        let number = |text: &str| {
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| is_number)
        };
        Some(Self { run: number(run)?, place: number(place)? })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.run, self.place)
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.run, self.place).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <(u32, u32)>::deserialize(deserializer).map(|(run, place)| Self { run, place })
    }
}

/// How the list ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum End<'a> {
    /// The session is stored with its cards.
    Done {
        /// Whether the model's answer broke off.
        partial: bool,
        /// What was billed.
        usage: Option<Usage>,
    },
    /// It failed: the problem document.
    Failed(&'a [u8]),
    /// It has its cards and is not stored yet: the problem document. That is no end of the list, which has another one
    /// later: so its place is that of the event before it.
    NotStored(&'a [u8]),
}

/// The events of one session, written for one reader.
#[derive(Debug)]
pub struct EventList {
    session_id: Uuid,
    run: u32,
    /// The place of the next event.
    next: u32,
}

#[derive(Serialize)]
struct SessionData {
    id: Uuid,
}

#[derive(Serialize)]
struct CandidateData<'a> {
    index: u32,
    id: Uuid,
    front: &'a str,
    back: &'a str,
    prompt: &'a str,
}

#[derive(Serialize)]
struct DoneData {
    id: Uuid,
    count: u32,
    partial: bool,
    usage: Option<Usage>,
}

impl EventList {
    /// For a reader that has heard the list up to `after`, or nothing of this run of the session.
    #[must_use]
    pub fn new(session_id: Uuid, run: u32, after: Option<Position>) -> Self {
        let heard = after.filter(|after| after.run == run);
        Self { session_id, run, next: heard.map_or(0, |heard| heard.place.saturating_add(1)) }
    }

    /// How many cards the reader has had.
    #[must_use]
    pub fn cards_heard(&self) -> usize {
        usize::try_from(self.next.saturating_sub(1)).unwrap_or(usize::MAX)
    }

    /// Writes `session`, unless it was heard.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if self.next == 0 {
            self.write(out, "session", &to_json(&SessionData { id: self.session_id }));
        }
    }

    /// Writes a `candidate` for each, which are those after [`Self::cards_heard`].
    pub fn cards(&mut self, out: &mut Vec<u8>, candidates: &[SessionCandidate]) {
        for candidate in candidates {
            let index = self.next.saturating_sub(1);
            let SessionCandidate { id, front, back, prompt } = candidate;
            self.write(out, "candidate", &to_json(&CandidateData { index, id: *id, front, back, prompt }));
        }
    }

    /// Writes the end of a list with so many cards, unless it was heard.
    pub fn end(&mut self, out: &mut Vec<u8>, count: usize, end: End<'_>) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if self.next > count.saturating_add(1) {
            return;
        }
        match end {
            End::Done { partial, usage } => {
                let data = to_json(&DoneData { id: self.session_id, count, partial, usage });
                self.write(out, "done", &data);
            }
            End::Failed(problem) => self.write(out, "error", problem),
            End::NotStored(problem) => {
                self.next = self.next.saturating_sub(1);
                self.write(out, "error", problem);
            }
        }
    }

    /// JSON has no line break outside of its strings and none inside, so each document is one line.
    fn write(&mut self, out: &mut Vec<u8>, event: &str, data: &[u8]) {
        let id = Position { run: self.run, place: self.next }.to_string();
        for part in ["id: ", &id, "\nevent: ", event, "\ndata: "] {
            out.extend_from_slice(part.as_bytes());
        }
        out.extend_from_slice(data);
        out.extend_from_slice(b"\n\n");
        self.next = self.next.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: Uuid = Uuid::from_u128(1);

    fn card(number: u128) -> SessionCandidate {
        let field = |name: &str| [name, &number.to_string()].concat();
        SessionCandidate {
            id: Uuid::from_u128(number),
            front: field("f\n"),
            back: field("b"),
            prompt: field("p"),
        }
    }

    fn told(after: Option<Position>, candidates: &[SessionCandidate], end: End<'_>) -> String {
        let (mut list, mut out) = (EventList::new(SESSION, 2, after), Vec::new());
        list.begin(&mut out);
        list.cards(&mut out, candidates.get(list.cards_heard()..).unwrap_or_default());
        list.end(&mut out, candidates.len(), end);
        String::from_utf8(out).expect("JSON and ASCII")
    }

    const DONE: End<'_> = End::Done { partial: true, usage: None };

    #[test]
    fn a_list_has_its_form() {
        assert_eq!(
            told(None, &[card(10)], DONE),
            "id: 2.0\nevent: session\ndata: {\"id\":\"00000000-0000-0000-0000-000000000001\"}\n\n\
             id: 2.1\nevent: candidate\ndata: {\"index\":0,\"id\":\"00000000-0000-0000-0000-00000000000a\",\
             \"front\":\"f\\n10\",\"back\":\"b10\",\"prompt\":\"p10\"}\n\n\
             id: 2.2\nevent: done\ndata: {\"id\":\"00000000-0000-0000-0000-000000000001\",\"count\":1,\
             \"partial\":true,\"usage\":null}\n\n"
        );
        assert!(told(None, &[], End::Failed(b"{}")).ends_with("id: 2.1\nevent: error\ndata: {}\n\n"));
    }

    #[test]
    fn whoever_comes_back_hears_exactly_the_rest() {
        let cards: Vec<SessionCandidate> = (1..=5).map(card).collect();
        for end in [DONE, End::Failed(b"{}")] {
            let whole = told(None, &cards, end);
            let events: Vec<&str> = whole.split_inclusive("\n\n").collect();
            assert_eq!(events.len(), 7);
            for heard in 1..=events.len() {
                let after = Position { run: 2, place: u32::try_from(heard - 1).expect("it is small") };
                assert_eq!(told(Some(after), &cards, end), events[heard..].concat(), "after {after}");
            }
            for (run, place) in [(1, 3), (3, 0), (0, 0)] {
                assert_eq!(told(Some(Position { run, place }), &cards, end), whole, "another run");
            }
        }
        let beyond = Position { run: 2, place: u32::MAX };
        assert_eq!(told(Some(beyond), &cards, DONE), "");
    }

    #[test]
    fn what_is_not_stored_yet_is_asked_for_again_from_the_card_before() {
        let cards = [card(1), card(2)];
        let told_first = told(None, &cards, End::NotStored(b"{}"));
        assert!(told_first.ends_with("id: 2.2\nevent: error\ndata: {}\n\n"), "{told_first}");
        let later = told(Some(Position { run: 2, place: 2 }), &cards, DONE);
        assert!(later.starts_with("id: 2.3\nevent: done\n"), "{later}");
    }

    #[test]
    fn a_position_is_read_as_it_is_written() {
        for (field, position) in [
            ("1.0", Some((1, 0))),
            (" 12.345 ", Some((12, 345))),
            ("4294967295.4294967295", Some((u32::MAX, u32::MAX))),
            ("4294967296.0", None),
            ("1", None),
            ("1.", None),
            (".1", None),
            ("1.+1", None),
            ("-1.1", None),
            ("1.1.1", None),
            ("a.b", None),
            ("", None),
        ] {
            let position = position.map(|(run, place)| Position { run, place });
            assert_eq!(Position::read(field), position, "{field}");
        }
    }
}
