//! Reads the Server-Sent Events of a model API from chunks of bytes with any borders.
//!
//! ```text
//! EF BB BF            a byte order mark, only at the start
//! : OPENROUTER …⏎     a comment: ignored
//! event: error⏎       the event is an error; other names are ignored
//! data: {"a":⏎        one space after the colon is not part of the value
//! data:1}⏎            a line joins the one before it where that one is the beginning of an object
//! data: {"b":2}⏎      else it is an event of its own, with or without a blank line
//! error: {"code":1}⏎  the data of an error (llama.cpp)
//! {"error":{}}⏎       an object without a field is data
//! other: x⏎           another field: ignored
//! ⏎                   the event ends
//! ```
//! where ⏎ is LF, CR or CRLF. Works on bytes, so a border inside a multi-byte character is like any other (WHATWG HTML,
//! 9.2.6 "Interpreting an event stream", but for data lines without a blank line between them, which it joins: no JSON
//! is two objects).
//!
//! Not for: the content of the data, and reconnecting: a model's answer cannot be resumed.

use crate::json::Brackets;
use crate::json::scan::find_either;

/// The longest line, and the longest event. OpenRouter's chunks have some hundred bytes; a simple server may
/// send a whole answer in one event, and content has the same limit (`candidate_reader::CONTENT_BYTES_MAX`).
pub const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// A line or an event was longer than [`EVENT_BYTES_MAX`]; the rest of the stream cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// The data of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// The data lines, joined by LF.
    pub data: &'a [u8],
    /// The event has the name `error`, or the data is of a field `error`.
    pub is_error: bool,
}

/// The state between two chunks.
#[derive(Debug, Default)]
pub struct EventStream {
    /// The beginning of an incomplete line.
    line: Vec<u8>,
    /// The data lines of an incomplete event.
    data: Vec<u8>,
    /// Whether there was a data line: `data:` alone is an event with empty data.
    has_data: bool,
    /// The brackets of `data`, to detect the beginning of an object.
    brackets: Option<Brackets>,
    is_error: bool,
    /// The last byte was a CR: an LF that follows belongs to it.
    after_cr: bool,
    /// The first line is over, and a byte order mark with it.
    is_begun: bool,
}

/// The content of a line.
enum Line<'a> {
    Blank,
    Data(&'a [u8]),
    Error(&'a [u8]),
    Name { is_error: bool },
    Other,
}

impl EventStream {
    /// Processes the next bytes and emits each event that ends in them. Where an event has one data line, and this chunk contains
    /// that line and the end of the event, the data is borrowed from the chunk.
    ///
    /// # Errors
    /// [`TooLong`]; the stream must not be used any more.
    pub fn push(&mut self, chunk: &[u8], on_event: &mut dyn FnMut(Event<'_>)) -> Result<(), TooLong> {
        let mut rest = chunk;
        // INVARIANT: `held` is the only data line of its event so far; `self.data` has none beside it.
        let mut held: Option<&[u8]> = None;
        loop {
            if self.after_cr
                && let Some((first, tail)) = rest.split_first()
            {
                self.after_cr = false;
                if *first == b'\n' {
                    rest = tail;
                }
            }
            let Some(end) = find_either(rest, *b"\n\r") else { break };
            let (head, tail) = rest.split_at(end);
            if head.len() > EVENT_BYTES_MAX {
                return Err(TooLong);
            }
            self.after_cr = tail.starts_with(b"\r");
            rest = tail.get(1..).unwrap_or_default();

            if self.line.is_empty() {
                let line = self.read_line(head);
                if let Some(value) = self.take_line(line, &mut held, on_event)? {
                    held = Some(value);
                }
            } else {
                append(&mut self.line, head)?;
                let mut whole = std::mem::take(&mut self.line);
                let line = self.read_line(&whole);
                // It is the first line that ends in this chunk, so `held` is empty.
                let value = self.take_line(line, &mut None, on_event)?;
                self.keep(value)?;
                whole.clear();
                self.line = whole; // reuses its memory
            }
        }
        self.keep(held)?;
        append(&mut self.line, rest)
    }

    /// Ends the stream. A last event without its blank line is emitted, too, because gateways omit the last line end (the
    /// standard drops it); its JSON shows whether it is complete.
    pub fn finish(mut self, on_event: &mut dyn FnMut(Event<'_>)) {
        let whole = std::mem::take(&mut self.line);
        let line = self.read_line(&whole);
        match self.take_line(line, &mut None, on_event) {
            Ok(value) if self.keep(value).is_ok() => self.end_event(None, on_event),
            _ => {}
        }
    }

    fn read_line<'a>(&mut self, line: &'a [u8]) -> Line<'a> {
        let line = if self.is_begun { line } else { line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line) };
        self.is_begun = true;
        if line.is_empty() {
            return Line::Blank;
        }
        if line.starts_with(b"{\"") {
            return Line::Data(line);
        }
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        let value = line.get(name.len().saturating_add(1)..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => Line::Data(value),
            b"error" => Line::Error(value),
            b"event" => Line::Name { is_error: value.trim_ascii() == b"error" },
            _ => Line::Other,
        }
    }

    /// Processes a line; returns the value of a data line that is the first of its event.
    fn take_line<'a>(
        &mut self,
        line: Line<'a>,
        held: &mut Option<&[u8]>,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Option<&'a [u8]>, TooLong> {
        let (value, is_error) = match line {
            Line::Other => return Ok(None),
            Line::Data(value) if self.is_open(*held) => {
                self.keep(held.take())?;
                self.keep(Some(value))?;
                return Ok(None);
            }
            Line::Data(value) => (Some(value), None),
            Line::Error(value) => (Some(value), Some(true)),
            Line::Name { is_error } => (None, Some(is_error)),
            Line::Blank => (None, Some(false)),
        };
        self.end_event(held.take(), on_event);
        self.is_error = is_error.unwrap_or(self.is_error);
        Ok(value)
    }

    /// Whether the data so far begins an object and does not close it.
    fn is_open(&mut self, held: Option<&[u8]>) -> bool {
        let data = held.unwrap_or(&self.data);
        if !data.trim_ascii_start().starts_with(b"{") {
            return false;
        }
        self.brackets
            .get_or_insert_with(|| {
                let mut brackets = Brackets::default();
                brackets.push(data);
                brackets
            })
            .is_open()
    }

    fn keep(&mut self, value: Option<&[u8]>) -> Result<(), TooLong> {
        let Some(value) = value else { return Ok(()) };
        if self.has_data {
            append(&mut self.data, b"\n")?;
            if let Some(brackets) = &mut self.brackets {
                brackets.push(value);
            }
        }
        self.has_data = true;
        append(&mut self.data, value)
    }

    fn end_event(&mut self, held: Option<&[u8]>, on_event: &mut dyn FnMut(Event<'_>)) {
        let is_error = self.is_error;
        if let Some(data) = held {
            on_event(Event { data, is_error });
        } else if self.has_data {
            on_event(Event { data: &self.data, is_error });
            self.data.clear();
            self.has_data = false;
        } else {
            return;
        }
        self.brackets = None;
        self.is_error = false;
    }
}

fn append(buffer: &mut Vec<u8>, bytes: &[u8]) -> Result<(), TooLong> {
    if buffer.len().saturating_add(bytes.len()) > EVENT_BYTES_MAX {
        return Err(TooLong);
    }
    buffer.extend_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events_of<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
        let mut events = Vec::new();
        let mut stream = EventStream::default();
        for chunk in chunks {
            stream
                .push(chunk, &mut |event| events.push(event.data.to_vec()))
                .expect("no event here is too long");
        }
        stream.finish(&mut |event| events.push(event.data.to_vec()));
        events
    }

    const STREAMS: &[(&[u8], &[&[u8]])] = &[
        (b"data: a\n\ndata: b\n\n", &[b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", &[b"a", b"b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", &[b"a", b"b"]),
        (b"data: a\r\n\ndata: b\n\r\n", &[b"a", b"b"]),
        (b"data: a\r\ndata: b\r\n\r\n", &[b"a", b"b"]),
        (b"data: {a\rdata: b\r\ndata: [c\ndata: ]}\n\n", &[b"{a\nb\n[c\n]}"]),
        (b"data:a\n\ndata:  b \n\n", &[b"a", b" b "]),
        (b"data: {\ndata:\ndata\ndata: }\n\n", &[b"{\n\n\n}"]),
        // Without blank lines.
        (b"data: {\"a\":1}\ndata: {\"b\":2}\ndata: [DONE]\n", &[b"{\"a\":1}", b"{\"b\":2}", b"[DONE]"]),
        (
            b"data: {}\ndata: ping\nevent: x\ndata: {}\ndata:\ndata: {\ndata: }\n",
            &[b"{}", b"ping", b"{}", b"", b"{\n}"],
        ),
        (b"data: {\"a\":\"}\ndata: \"}\ndata: {}\n\n", &[b"{\"a\":\"}\n\"}", b"{}"]),
        (b"\xEF\xBB\xBFdata: a\n\n\xEF\xBB\xBFdata: b\n\n", &[b"a"]),
        (b"\xEF\xBB\xBF\n\ndata: a\n\n", &[b"a"]),
        (b": OPENROUTER PROCESSING\n\n:\n\nevent: x\nid: 1\nretry\ndata: a\nfoo: bar\n\n", &[b"a"]),
        (b"data: a", &[b"a"]),
        (b"data: a\n", &[b"a"]),
        (b"data: a\r", &[b"a"]),
        (b"data: {a\ndata: b\n: c", &[b"{a\nb"]),
        (b"\n\n\r\r\n: x\n\nevent: x\n\n", &[]),
        (b"data:\n\n", &[b""]),
        (b"", &[]),
        (b": x\n\n{\"a\":1}\n{\"b\":2}\ndata: {\ndata: }\n{}\n", &[b"{\"a\":1}", b"{\"b\":2}", b"{\n}"]),
        (b"database: a\nDATA: b\n data: c\n\n", &[]),
        (
            "data: caf\u{e9} \u{1f600}\r\n\r\n: \u{1f600}\ndata: \u{65e5}\n\n".as_bytes(),
            &[b"caf\xC3\xA9 \xF0\x9F\x98\x80", b"\xE6\x97\xA5"],
        ),
        (b"data: \xFF\xC3\n\ndata: \xED\xA0\x80\n\n", &[b"\xFF\xC3", b"\xED\xA0\x80"]),
        (b"data: {\"a\":1}\n\ndata: [DONE]\n\n", &[b"{\"a\":1}", b"[DONE]"]),
    ];

    #[test]
    fn a_stream_read_whole_gives_its_events() {
        for (bytes, expected) in STREAMS {
            assert_eq!(events_of([*bytes]), *expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn events_are_read_across_any_chunk_border() {
        for (bytes, expected) in STREAMS {
            for size in 1..=bytes.len() {
                assert_eq!(events_of(bytes.chunks(size)), *expected, "{} by {size}", bytes.escape_ascii());
            }
            for at in 0..=bytes.len() {
                let (head, tail) = bytes.split_at(at);
                assert_eq!(events_of([head, b"", tail]), *expected, "{} at {at}", bytes.escape_ascii());
            }
        }
    }

    #[test]
    fn an_event_is_an_error_by_its_name_or_by_its_field() {
        let stream = b"event: error\ndata: {1\ndata: }\n\ndata: 2\n\nerror: 3\nerror:4\ndata: 5\n\nevent:error\n\ndata: 6\nevent: error\ndata: 7\ndata: 8\n";
        for size in 1..=stream.len() {
            let mut errors = Vec::new();
            let mut events = EventStream::default();
            let mut take = |event: Event<'_>| {
                errors.push((String::from_utf8_lossy(event.data).into_owned(), event.is_error))
            };
            for chunk in stream.chunks(size) {
                events.push(chunk, &mut take).expect("it is short");
            }
            events.finish(&mut take);
            let expected = [
                ("{1\n}", true),
                ("2", false),
                ("3", true),
                ("4", true),
                ("5", false),
                ("6", false),
                ("7", true),
                ("8", false),
            ];
            assert_eq!(errors, expected.map(|(data, is_error)| (data.to_owned(), is_error)), "by {size}");
        }
    }

    #[test]
    fn an_event_is_emitted_at_its_blank_line() {
        let mut stream = EventStream::default();
        let mut count = 0;
        for (byte, expected) in
            b"data: a\r\r\ndata: b\n\n".iter().zip([0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2])
        {
            stream.push(&[*byte], &mut |_| count += 1).expect("it is short");
            assert_eq!(count, expected);
        }
    }

    #[test]
    fn data_within_one_chunk_is_not_copied() {
        let chunk = b"data: abc\n\n";
        let mut lies_within = false;
        EventStream::default()
            .push(chunk, &mut |event| lies_within = chunk.as_ptr_range().contains(&event.data.as_ptr()))
            .expect("it is short");
        assert!(lies_within);
    }

    #[test]
    fn a_line_at_the_limit_is_read_and_one_byte_more_is_not() {
        for (value_bytes, expected) in [(EVENT_BYTES_MAX - 5, Ok(())), (EVENT_BYTES_MAX - 4, Err(TooLong))] {
            let mut line = b"data:".to_vec();
            line.resize(5 + value_bytes, b'x');
            let mut stream = EventStream::default();
            let mut outcome = Ok(());
            for chunk in line.chunks(4096) {
                outcome = outcome.and(stream.push(chunk, &mut |_| {}));
            }
            assert_eq!(outcome, expected);
        }
    }

    #[test]
    fn many_lines_of_one_event_are_limited_together() {
        let mut stream = EventStream::default();
        let line = [b"data:{".as_slice(), &[b'x'; 1022], b"\n"].concat();
        let pushed = (0..2000).take_while(|_| stream.push(&line, &mut |_| {}).is_ok()).count();
        assert_eq!(pushed, EVENT_BYTES_MAX / 1024);
    }

    proptest! {
        #[test]
        fn no_splitting_changes_the_events(
            bytes in proptest::collection::vec(prop_oneof![
                Just(b"data: ".to_vec()), Just(b"data".to_vec()), Just(b"\r".to_vec()), Just(b"\n".to_vec()),
                Just(b":".to_vec()), Just(b"\xEF\xBB\xBF".to_vec()), Just(b"\n\n".to_vec()), any::<u8>().prop_map(|b| vec![b]),
            ], 0..40).prop_map(|parts| parts.concat()),
            sizes in proptest::collection::vec(1usize..9, 1..9),
        ) {
            let whole = events_of([bytes.as_slice()]);
            let mut rest = bytes.as_slice();
            let mut chunks = Vec::new();
            for size in sizes.iter().cycle() {
                if rest.is_empty() { break; }
                let (head, tail) = rest.split_at((*size).min(rest.len()));
                chunks.push(head);
                rest = tail;
            }
            prop_assert_eq!(events_of(chunks), whole);
        }
    }
}
