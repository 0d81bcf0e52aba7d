//! Server-Sent Events (WHATWG HTML, section 9.2): the ids of this service's events, and the writer.
//!
//! ```text
//! id: 1.2⏎ event: candidate⏎ data: {…}⏎ ⏎
//! :⏎ ⏎                                        a comment
//! ```
//! Not for: which events a session has (`edge::events`), reading the model's stream (`http::sse_reader`).

use std::fmt;

use crate::json::record::{FromJson, ToJson};

/// The media type.
pub const EVENT_STREAM: &str = "text/event-stream";
/// A comment: an event without a field, which a client ignores.
pub const COMMENT: &[u8] = b":\n\n";

/// The id of an event, also in `Last-Event-ID`: `run.index`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventId {
    /// The 1-based number of the session's run.
    pub run: u32,
    /// 0 is `session`, 1 the first candidate; the terminal event follows the last one.
    pub index: u32,
}

impl EventId {
    /// Reads an id; `None` when it is not one of this service.
    #[must_use]
    pub fn read(field: &str) -> Option<Self> {
        let (run, index) = field.trim_matches([' ', '\t']).split_once('.')?;
        let number = |text: &str| {
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| is_number)
        };
        Some(Self { run: number(run)?, index: number(index)? })
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.run, self.index)
    }
}

impl ToJson for EventId {
    fn write(&self, json: &mut String) {
        (self.run, self.index).write(json);
    }
}

impl FromJson for EventId {
    fn read(json: &[u8]) -> Option<Self> {
        <(u32, u32)>::read(json).map(|(run, index)| Self { run, index })
    }
}

/// Writes an event. JSON has no line break outside of its strings and none inside, so each document is one line.
pub fn write_event(out: &mut Vec<u8>, id: EventId, event: &str, data: &[u8]) {
    for part in ["id: ", &id.to_string(), "\nevent: ", event, "\ndata: "] {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(data);
    out.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written() {
        for (field, id) in [
            ("1.0", Some((1, 0))),
            (" 2.17\t", Some((2, 17))),
            ("4294967295.4294967295", Some((u32::MAX, u32::MAX))),
            ("", None),
            ("1", None),
            (".", None),
            ("1.", None),
            (".1", None),
            ("1.2.3", None),
            ("+1.2", None),
            ("1.-2", None),
            ("4294967296.0", None),
            ("a.b", None),
        ] {
            let expected = id.map(|(run, index)| EventId { run, index });
            assert_eq!(EventId::read(field), expected, "{field}");
            if let Some(id) = expected {
                assert_eq!(EventId::read(&id.to_string()), Some(id));
            }
        }
    }
}
