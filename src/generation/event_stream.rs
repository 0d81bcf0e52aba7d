//! Server-Sent Events out of bytes, whatever the borders of the pieces that they come in.
//!
//! ```text
//! EF BB BF            a byte order mark, only at the start
//! : OPENROUTER …⏎     a comment: dropped (that it came was a sign of life)
//! event: x⏎           another field: dropped
//! data: {"a":⏎        one space after the colon is not part of the value
//! data:1}⏎            several data lines are joined by LF
//! ⏎                   the event ends: {"a":LF1}
//! ```
//! where ⏎ is LF, CR or CRLF. Works on bytes and looks at no character, so a border inside a multi-byte
//! character is like any other (WHATWG HTML, 9.2.6 "Interpreting an event stream").
//!
//! Not for: what is in the data, and reconnecting: a model's answer cannot be taken up in the middle.

/// The longest line, and the longest event. OpenRouter's chunks have some hundred bytes; a plain server may
/// put a whole answer into one event, and content is cut off at as much
/// (`candidate_reader::CONTENT_BYTES_MAX`).
pub const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// A line or an event was longer than [`EVENT_BYTES_MAX`]: nothing after it can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// The state between two pieces.
#[derive(Debug, Default)]
pub struct EventStream {
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    /// The data lines of an event whose blank line has not come yet.
    data: Vec<u8>,
    /// Whether there was a data line: `data:` alone is an event with empty data.
    has_data: bool,
    /// The last byte was a CR: an LF that follows belongs to it.
    after_cr: bool,
    /// The first line is over, and a byte order mark with it.
    is_begun: bool,
}

/// What a line says.
enum Line<'a> {
    Blank,
    Data(&'a [u8]),
    Other,
}

impl EventStream {
    /// Takes the next bytes and gives the data of each event that ends in them. Where an event has one data
    /// line, and that line and the blank one lie within this piece, the data is given as it lies there,
    /// uncopied.
    ///
    /// # Errors
    /// [`TooLong`]; the stream is of no more use then.
    pub fn push(&mut self, piece: &[u8], mut on_data: impl FnMut(&[u8])) -> Result<(), TooLong> {
        let mut rest = piece;
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
            let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else { break };
            let (head, tail) = rest.split_at(end);
            if head.len() > EVENT_BYTES_MAX {
                return Err(TooLong);
            }
            self.after_cr = tail.starts_with(b"\r");
            rest = tail.get(1..).unwrap_or_default();

            if self.line.is_empty() {
                match self.read_line(head) {
                    Line::Blank => self.end_event(held.take(), &mut on_data),
                    Line::Data(value) if held.is_none() && !self.has_data => held = Some(value),
                    Line::Data(value) => {
                        self.keep(held.take())?;
                        self.keep(Some(value))?;
                    }
                    Line::Other => {}
                }
            } else {
                append(&mut self.line, head)?;
                let mut line = std::mem::take(&mut self.line);
                // It is the first line that ends in this piece, so nothing is held yet.
                match self.read_line(&line) {
                    Line::Blank => self.end_event(None, &mut on_data),
                    Line::Data(value) => self.keep(Some(value))?,
                    Line::Other => {}
                }
                line.clear();
                self.line = line; // its memory serves the next line that is cut
            }
        }
        self.keep(held)?;
        append(&mut self.line, rest)
    }

    /// The connection has ended. A last event without its blank line is given all the same: whether it is
    /// whole is for the JSON in it to say. (The standard drops it; models' gateways forget the last line
    /// end.)
    pub fn finish(mut self, mut on_data: impl FnMut(&[u8])) {
        let line = std::mem::take(&mut self.line);
        if let Line::Data(value) = self.read_line(&line)
            && self.keep(Some(value)).is_err()
        {
            return;
        }
        self.end_event(None, &mut on_data);
    }

    fn read_line<'a>(&mut self, line: &'a [u8]) -> Line<'a> {
        let line = if self.is_begun { line } else { line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line) };
        self.is_begun = true;
        if line.is_empty() {
            return Line::Blank;
        }
        match line.strip_prefix(b"data") {
            Some([]) => Line::Data(&[]),
            Some([b':', b' ', value @ ..] | [b':', value @ ..]) => Line::Data(value),
            _ => Line::Other,
        }
    }

    fn keep(&mut self, value: Option<&[u8]>) -> Result<(), TooLong> {
        let Some(value) = value else { return Ok(()) };
        if self.has_data {
            append(&mut self.data, b"\n")?;
        }
        self.has_data = true;
        append(&mut self.data, value)
    }

    fn end_event(&mut self, held: Option<&[u8]>, on_data: &mut impl FnMut(&[u8])) {
        if let Some(value) = held {
            on_data(value);
        } else if self.has_data {
            on_data(&self.data);
            self.data.clear();
            self.has_data = false;
        }
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

    fn events_of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
        let mut events = Vec::new();
        let mut stream = EventStream::default();
        for piece in pieces {
            stream.push(piece, |data| events.push(data.to_vec())).expect("no event here is too long");
        }
        stream.finish(|data| events.push(data.to_vec()));
        events
    }

    const STREAMS: &[(&[u8], &[&[u8]])] = &[
        (b"data: a\n\ndata: b\n\n", &[b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", &[b"a", b"b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", &[b"a", b"b"]),
        (b"data: a\r\n\ndata: b\n\r\n", &[b"a", b"b"]),
        (b"data: a\r\ndata: b\r\n\r\n", &[b"a\nb"]),
        (b"data: a\rdata: b\r\ndata: c\ndata: d\n\n", &[b"a\nb\nc\nd"]),
        (b"data:a\n\ndata:  b \n\n", &[b"a", b" b "]),
        (b"data: a\ndata:\ndata\ndata: b\n\n", &[b"a\n\n\nb"]),
        (b"\xEF\xBB\xBFdata: a\n\n\xEF\xBB\xBFdata: b\n\n", &[b"a"]),
        (b"\xEF\xBB\xBF\n\ndata: a\n\n", &[b"a"]),
        (b": OPENROUTER PROCESSING\n\n:\n\nevent: x\nid: 1\nretry\ndata: a\nfoo: bar\n\n", &[b"a"]),
        (b"data: a", &[b"a"]),
        (b"data: a\n", &[b"a"]),
        (b"data: a\r", &[b"a"]),
        (b"data: a\ndata: b\n: c", &[b"a\nb"]),
        (b"\n\n\r\r\n: x\n\nevent: x\n\n", &[]),
        (b"data:\n\n", &[b""]),
        (b"", &[]),
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
    fn a_border_may_be_anywhere() {
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
    fn an_event_is_given_as_soon_as_its_blank_line_is_there() {
        let mut stream = EventStream::default();
        let mut count = 0;
        for (byte, expected) in
            b"data: a\r\r\ndata: b\n\n".iter().zip([0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2])
        {
            stream.push(&[*byte], |_| count += 1).expect("it is short");
            assert_eq!(count, expected);
        }
    }

    #[test]
    fn data_within_a_piece_is_not_copied() {
        let piece = b"data: abc\n\n";
        let mut lies_within = false;
        EventStream::default()
            .push(piece, |data| lies_within = piece.as_ptr_range().contains(&data.as_ptr()))
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
            for piece in line.chunks(4096) {
                outcome = outcome.and(stream.push(piece, |_| {}));
            }
            assert_eq!(outcome, expected);
        }
    }

    #[test]
    fn many_lines_of_one_event_are_limited_together() {
        let mut stream = EventStream::default();
        let line = [b"data:".as_slice(), &[b'x'; 1023], b"\n"].concat();
        let pushed = (0..2000).take_while(|_| stream.push(&line, |_| {}).is_ok()).count();
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
            let mut pieces = Vec::new();
            for size in sizes.iter().cycle() {
                if rest.is_empty() { break; }
                let (head, tail) = rest.split_at((*size).min(rest.len()));
                pieces.push(head);
                rest = tail;
            }
            prop_assert_eq!(events_of(pieces), whole);
        }
    }
}
