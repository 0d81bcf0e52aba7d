//! Reads one response, from the bytes of the connection to candidates and the outcome.
//!
//! ```text
//! data: …   bytes → events → chunks → content → candidates   at once
//! {"…       bytes → documents → content → candidates         at the end: JSON, an error, or unreadable
//! ```
//! The first byte decides between the two; the media type counts only for other first bytes.
//!
//! Not for: time and connections (`user_object::generate`).

use super::chunk::{Chunk, DONE, DocumentContext, Finish, Frame};
use super::failure::{ErrorDetails, Failure};
use crate::generation::candidate_reader::{CandidateReader, OnFound};
use crate::generation::usage::Usage;
use crate::http::sse_reader::{Event, EventStream};

/// The longest response. A part of the content has a few bytes in a chunk of some 200: 4 MiB are 2000 candidates in parts of
/// 20 bytes.
pub const RAW_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The longest error document.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// The reader of one response.
#[derive(Debug)]
pub struct ResponseReader {
    context: DocumentContext,
    /// The media type is that of a stream.
    is_called_stream: bool,
    format: Format,
    raw_bytes: usize,
    is_too_large: bool,
    received: Received,
}

#[derive(Debug)]
enum Format {
    /// Only white space was received.
    Unknown,
    EventStream(EventStream),
    Document(Vec<u8>),
}

/// The content of all chunks so far.
#[derive(Debug, Default)]
struct Received {
    reader: CandidateReader,
    /// Of the last chunk in an event of its own.
    frame: Option<Frame>,
    finish: Option<Finish>,
    /// The last chunk with a `finish_reason` had no content, and no content followed it.
    is_finished: bool,
    failure: Option<Failure>,
    is_done: bool,
    is_refusal: bool,
    is_unreadable: bool,
    usage: Option<Usage>,
    cost: Option<u64>,
    model: Option<String>,
    provider: Option<String>,
    id: Option<String>,
}

/// The part of a response that is still worth reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remaining {
    /// Candidates.
    Candidates,
    /// Only the usage and the end after the candidates, or an error document: worth a short wait.
    Tail,
    /// Nothing: the connection can be closed.
    Nothing,
}

/// How the bytes ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Regularly, or because nothing remained to be read.
    Regular,
    /// The connection was cut.
    Cut,
    /// Nothing was received within the idle timeout.
    IdleTimeout,
    /// The deadline has passed.
    Deadline,
}

/// The outcome of a response.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    /// Why it failed or was cut off; `None` for a complete answer with a candidate.
    pub failure: Option<Failure>,
    /// The usage, if it was sent.
    pub usage: Option<Usage>,
    /// The cost in nanodollars, if it was sent.
    pub cost: Option<u64>,
    /// The model that generated the answer.
    pub model: Option<String>,
    /// Its provider.
    pub provider: Option<String>,
    /// The generation's id at the model API.
    pub id: Option<String>,
}

impl Outcome {
    /// Creates the outcome of an attempt without a response.
    #[must_use]
    pub const fn without_response(failure: Failure) -> Self {
        Self { failure: Some(failure), usage: None, cost: None, model: None, provider: None, id: None }
    }
}

impl ResponseReader {
    /// Creates a reader of a response with this head.
    #[must_use]
    pub fn new(status: u16, content_type: &str, retry_after: Option<&str>) -> Self {
        let is_success = (200..300).contains(&status);
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        Self {
            context: DocumentContext {
                http_status: (!is_success).then_some(status),
                // RFC 9110, section 10.2.3: seconds or a date; these APIs send no dates.
                retry_after_s: retry_after.and_then(|seconds| seconds.trim().parse().ok()),
                is_error: false,
            },
            is_called_stream: media_type.eq_ignore_ascii_case("text/event-stream"),
            format: if is_success { Format::Unknown } else { Format::Document(Vec::new()) },
            raw_bytes: 0,
            is_too_large: false,
            received: Received::default(),
        }
    }

    /// Processes the next bytes.
    pub fn push(&mut self, bytes: &[u8], on_found: &mut OnFound<'_>) {
        let bytes_max = if self.context.http_status.is_some() { ERROR_BYTES_MAX } else { RAW_BYTES_MAX };
        self.raw_bytes = self.raw_bytes.saturating_add(bytes.len());
        if self.raw_bytes > bytes_max {
            self.is_too_large = true;
            return;
        }
        let mut bytes = bytes;
        if matches!(self.format, Format::Unknown) {
            // White space and a byte order mark are ignored in both formats.
            let is_begun = |byte: &u8| !byte.is_ascii_whitespace() && !matches!(byte, 0xEF | 0xBB | 0xBF);
            let Some(start) = bytes.iter().position(is_begun) else { return };
            bytes = bytes.get(start..).unwrap_or_default();
            self.format = match bytes.first() {
                Some(b'{' | b'[') => Format::Document(Vec::new()),
                // A comment, or `data`, `error`, `event`, `id`, `retry`.
                Some(b':' | b'd' | b'e' | b'i' | b'r') => Format::EventStream(EventStream::default()),
                _ if self.is_called_stream => Format::EventStream(EventStream::default()),
                _ => Format::Document(Vec::new()),
            };
        }
        let received = &mut self.received;
        match &mut self.format {
            Format::EventStream(stream) => {
                if stream.push(bytes, &mut |event| received.read_event(event, on_found)).is_err() {
                    self.is_too_large = true;
                }
            }
            Format::Document(document) => document.extend_from_slice(bytes),
            Format::Unknown => {}
        }
    }

    /// Returns the part that is still worth reading.
    ///
    /// Neither a `finish_reason` nor the usage ends the answer while JSON is open or content follows: some servers send both
    /// with each chunk.
    #[must_use]
    pub fn remaining(&self) -> Remaining {
        let received = &self.received;
        let is_whole =
            received.reader.is_closed() && received.reader.has_candidate() && !received.reader.may_continue();
        let is_complete = received.finish.is_some() && received.usage.is_some();
        if received.failure.is_some()
            || received.is_done
            || self.is_too_large
            || received.reader.is_full()
            || (is_whole && is_complete)
        {
            Remaining::Nothing
        } else if is_whole
            || received.is_refusal
            || self.context.http_status.is_some()
            || (received.is_finished && !received.reader.is_open())
        {
            Remaining::Tail
        } else {
            Remaining::Candidates
        }
    }

    /// Ends the response.
    pub fn end(self, end: End, on_found: &mut OnFound<'_>) -> Outcome {
        let mut received = self.received;
        let mut is_stream = self.is_called_stream && self.context.http_status.is_none();
        match self.format {
            Format::Unknown => received.is_unreadable = !is_stream && end == End::Regular,
            Format::EventStream(stream) => {
                is_stream = true;
                if !self.is_too_large {
                    // A last event that is no JSON was cut off.
                    let was_unreadable = received.is_unreadable;
                    stream.finish(&mut |event| received.read_event(event, on_found));
                    received.is_unreadable = was_unreadable;
                }
            }
            Format::Document(document) => {
                is_stream = false;
                if !self.is_too_large {
                    let rest = received.read_documents(&document, self.context, on_found);
                    let is_read = rest.len() < document.trim_ascii().len();
                    if is_read && !rest.is_empty() {
                        // A stream after a first document, or documents with other lines between them.
                        let mut stream = EventStream::default();
                        if stream.push(rest, &mut |event| received.read_event(event, on_found)).is_ok() {
                            stream.finish(&mut |event| received.read_event(event, on_found));
                        }
                    }
                    // A cut is the failure of a document that cannot be read; one that can be read is complete.
                    received.is_unreadable = !is_read && end == End::Regular;
                }
            }
        }
        received.reader.finish(on_found);
        let by_status = self.context.http_status.map(|status| {
            let http_status = Some(status);
            Failure::from_details(&ErrorDetails {
                http_status,
                retry_after_s: self.context.retry_after_s,
                ..ErrorDetails::default()
            })
        });
        let failure = if received.reader.is_closed() && received.reader.has_candidate() {
            None
        } else if by_status.is_some() {
            received.failure.or(by_status)
        } else {
            Some(received.failure(end, self.is_too_large, is_stream))
        };
        Outcome {
            failure,
            usage: received.usage,
            cost: received.cost,
            model: received.model,
            provider: received.provider,
            id: received.id,
        }
    }
}

impl Received {
    fn read_event(&mut self, event: Event<'_>, on_found: &mut OnFound<'_>) {
        let mut data = event.data.trim_ascii();
        // A relay repeats the field name before each line.
        while let Some(rest) = data.strip_prefix(b"data:") {
            data = rest.trim_ascii_start();
        }
        if data.is_empty() || self.is_done || self.failure.is_some() {
            return;
        }
        if data == DONE {
            self.is_done = true;
            return;
        }
        if !event.is_error
            && let Some(chunk) = self.frame.as_ref().and_then(|frame| frame.read(data))
        {
            self.take_chunk(&chunk, on_found);
            return;
        }
        let context = DocumentContext { is_error: event.is_error, ..DocumentContext::default() };
        let rest = self.read_documents(data, context, on_found);
        if rest.is_empty() {
            return;
        }
        if event.is_error {
            self.failure = self.failure.or(Some(Failure::ERROR));
        } else if rest.contains(&b'\n') {
            // One of the lines only looked like the beginning of an object.
            for data in rest.split(|byte| *byte == b'\n') {
                self.read_event(Event { data, ..event }, on_found);
            }
        } else if matches!(rest, [b'{'] | [b'{', b'"' | b' ' | b'\t' | b'{', ..])
            || (rest.starts_with(b"{") && rest.windows(7).any(|word| word == b"choices"))
        {
            // A chunk that is cut or broken: its content is missing.
            self.is_unreadable = true;
            self.reader.skip();
        }
    }

    /// Reads one document after another; returns the rest, which is no document.
    fn read_documents<'a>(
        &mut self,
        text: &'a [u8],
        context: DocumentContext,
        on_found: &mut OnFound<'_>,
    ) -> &'a [u8] {
        let mut rest = text.trim_ascii();
        while self.failure.is_none()
            && let Some((chunk, more)) = Chunk::read(rest, context)
        {
            self.take_chunk(&chunk, on_found);
            self.frame = if more.is_empty() { Frame::of(&chunk, rest) } else { None };
            rest = more.trim_ascii_start();
        }
        rest
    }

    fn take_chunk(&mut self, chunk: &Chunk<'_>, on_found: &mut OnFound<'_>) {
        if chunk.has_odd_content {
            self.reader.skip_within_candidate();
        }
        self.reader.push(&chunk.content, on_found);
        self.is_refusal |= chunk.is_refusal;
        if !chunk.content.is_empty() {
            self.is_finished = false;
        } else if chunk.finish.is_some() {
            self.is_finished = self.reader.is_begun();
        }
        self.finish = chunk.finish.or(self.finish);
        self.failure = chunk.failure;
        self.usage = chunk.usage.or(self.usage);
        self.cost = chunk.cost.or(self.cost);
        if self.model.is_none() {
            self.model = chunk.model.map(str::to_owned);
        }
        if self.provider.is_none() {
            self.provider = chunk.provider.map(str::to_owned);
        }
        if self.id.is_none() {
            self.id = chunk.id.map(str::to_owned);
        }
    }

    /// Returns the failure of an answer that is incomplete or has no candidate.
    fn failure(&self, end: End, is_too_large: bool, is_stream: bool) -> Failure {
        if self.is_refusal || self.finish == Some(Finish::ContentFilter) {
            return Failure::REFUSED;
        }
        if self.reader.is_closed() {
            return Failure::NO_CANDIDATE;
        }
        if let Some(failure) = self.failure {
            return failure;
        }
        if is_too_large || self.reader.is_full() {
            return Failure::TOO_LARGE;
        }
        match end {
            End::Deadline => Failure::DEADLINE,
            _ if self.finish == Some(Finish::Error) => Failure::ERROR,
            _ if self.finish == Some(Finish::Length) => Failure::LENGTH,
            End::Cut => Failure::CUT,
            End::IdleTimeout => Failure::IDLE_TIMEOUT,
            End::Regular if self.is_unreadable => Failure::UNREADABLE,
            End::Regular if is_stream && !self.is_done && self.finish.is_none() => Failure::CUT,
            End::Regular if self.reader.has_candidate() => Failure::NOT_CLOSED,
            End::Regular => Failure::NO_CANDIDATE,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::generation::candidate::{Candidates, Found};
    use crate::http::problem::Code;

    /// Returns the fronts of the accepted candidates, and the outcome.
    fn read<'a>(
        content_type: &str,
        chunks: impl IntoIterator<Item = &'a [u8]>,
        end: End,
    ) -> (Vec<String>, Outcome) {
        let mut candidates = Candidates::new(20);
        let mut fronts = Vec::new();
        let mut take = |found: Found| {
            let added = candidates.add(found).map(|candidate| fronts.push(candidate.front));
            added.is_ok()
        };
        let mut reader = ResponseReader::new(200, content_type, None);
        for chunk in chunks {
            reader.push(chunk, &mut take);
        }
        let outcome = reader.end(end, &mut take);
        (fronts, outcome)
    }

    const STREAM: &str = "text/event-stream";
    const CONTENT: &str = concat!(
        "Sure:\n```json\n{\"candidates\":[{\"front\":\"caf\u{e9} \u{1f600}\",\"back\":\"}\\\"{\",\"prompt\":\"p\"},",
        "{\"front\":\"\\ud83d\\ude00\\n\u{65e5}\",\"back\":\"b\",\"prompt\":\"p\"}]}\n```",
    );
    const FRONTS: [&str; 2] = ["caf\u{e9} \u{1f600}", "\u{1f600}\n\u{65e5}"];

    /// Writes a stream with content in parts of so many UTF-16 units; separated halves of pairs are escapes.
    fn stream_of(content: &str, units: usize, line_end: &str) -> Vec<u8> {
        let mut stream = [": OPENROUTER PROCESSING", line_end, line_end].concat();
        let units_of_content: Vec<u16> = content.encode_utf16().collect();
        for chunk in units_of_content.chunks(units) {
            let mut quoted = String::new();
            for unit in char::decode_utf16(chunk.iter().copied()) {
                match unit {
                    Ok('"') => quoted.push_str("\\\""),
                    Ok('\\') => quoted.push_str("\\\\"),
                    Ok('\n') => quoted.push_str("\\n"),
                    Ok(c) => quoted.push(c),
                    Err(half) => quoted.push_str(&format!("\\u{:04x}", half.unpaired_surrogate())),
                }
            }
            let event = [
                r#"data: {"id":"gen-1","model":"m/served","choices":[{"index":0,"delta":{"role":"assistant","content":""#,
                &quoted,
                r#""},"finish_reason":null}]}"#,
            ];
            stream.push_str(&[&event.concat(), line_end, line_end].concat());
        }
        let last = r#"data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":9,"cost":0.5}}"#;
        stream.push_str(&[last, line_end, line_end, "data: [DONE]", line_end, line_end].concat());
        stream.into_bytes()
    }

    #[test]
    fn a_response_is_read_across_any_chunk_border() {
        for units in [1, 2, 3, 7, 20, usize::MAX] {
            let stream = stream_of(CONTENT, units, "\r\n");
            let (fronts, whole) = read(STREAM, [stream.as_slice()], End::Regular);
            assert_eq!(fronts, FRONTS, "{units}");
            assert_eq!(whole.failure, None);
            assert_eq!(whole.usage, Some(Usage { prompt_tokens: 7, completion_tokens: 9, cost: 0.5 }));
            assert_eq!((whole.model.as_deref(), whole.id.as_deref()), (Some("m/served"), Some("gen-1")));
            for size in (1..=12).chain([64, 333, 1000]) {
                let (split_fronts, split) = read(STREAM, stream.chunks(size), End::Regular);
                assert_eq!((&split_fronts, &split), (&fronts, &whole), "{units} by {size}");
            }
        }
        let stream = stream_of(CONTENT, 20, "\n");
        let whole = read(STREAM, [stream.as_slice()], End::Regular);
        for at in 0..=stream.len() {
            let (head, tail) = stream.split_at(at);
            assert_eq!(read(STREAM, [head, tail], End::Regular), whole, "{at}");
        }
    }

    #[test]
    fn a_stream_cut_at_any_byte_keeps_its_complete_candidates() {
        const CONTENT: &str =
            r#"[{"front":"a","back":"\u00e9","prompt":"p"},{"front":"b","back":"b","prompt":"p"}]"#;
        let chunks: Vec<_> = CONTENT.split_inclusive(|_| true).map(delta).collect();
        let stream = chunks.concat().into_bytes();
        let mut counts = Vec::new();
        for at in 0..=stream.len() {
            for end in [End::Cut, End::Regular, End::IdleTimeout, End::Deadline] {
                let (fronts, outcome) = read(STREAM, [&stream[..at]], end);
                assert_eq!(fronts, ["a", "b"][..fronts.len()]);
                let failure = match end {
                    End::Cut | End::Regular => Failure::CUT,
                    End::IdleTimeout => Failure::IDLE_TIMEOUT,
                    End::Deadline => Failure::DEADLINE,
                };
                if fronts.len() < 2 {
                    assert_eq!(outcome.failure, Some(failure), "{at}");
                } else {
                    assert!(outcome.failure.is_none() || outcome.failure == Some(failure), "{at}");
                }
                if end == End::Cut {
                    counts.push((fronts.len(), outcome.failure.is_none()));
                }
            }
        }
        counts.dedup();
        assert_eq!(counts, [(0, false), (1, false), (2, false), (2, true)]);
    }

    const CANDIDATE: &str = r#"{"front":"f","back":"b","prompt":"p"}"#;

    fn event(value: &serde_json::Value) -> String {
        format!("data: {value}\n\n")
    }

    fn delta(content: &str) -> String {
        event(&json!({ "choices": [{ "delta": { "content": content } }] }))
    }

    fn stopped(reason: &str) -> String {
        event(&json!({ "choices": [{ "delta": {}, "finish_reason": reason }] }))
    }

    #[test]
    fn each_end_of_a_stream_has_its_own_failure() {
        let done = "data: [DONE]\n\n";
        let closed = delta(&["[", CANDIDATE, "]"].concat());
        let open = delta(&["{\"candidates\":[", CANDIDATE].concat());
        let empty = delta("{\"candidates\":[]}");
        let error = event(&json!({ "error": { "code": 502, "message": "m" }, "choices": [] }));
        let overloaded = Failure { status: Some(502), ..Failure::local("status", Code::AiUnavailable, true) };
        for (stream, count, failure) in [
            (vec![&*closed, done], 1, None),
            (vec![&closed], 1, None),
            (vec![&closed, &error], 1, None),
            (vec![&closed, &stopped("length")], 1, None),
            (vec![&closed, &stopped("content_filter")], 1, None),
            (vec![&closed, "data: <html>\n\n"], 1, None),
            (vec![&open, &stopped("stop"), done], 1, Some(Failure::NOT_CLOSED)),
            (vec![&open, &stopped("length"), done], 1, Some(Failure::LENGTH)),
            (vec![&open, &stopped("content_filter"), done], 1, Some(Failure::REFUSED)),
            (vec![&open, &error], 1, Some(overloaded)),
            (vec![&open, "data: {\"choices\n\n", &closed], 1, Some(Failure::UNREADABLE)),
            (vec![&open, "data: {\"choices"], 1, Some(Failure::CUT)),
            (vec![&open], 1, Some(Failure::CUT)),
            (vec![&stopped("stop"), done], 0, Some(Failure::NO_CANDIDATE)),
            (vec![&stopped("tool_calls")], 0, Some(Failure::NO_CANDIDATE)),
            (vec![&stopped("length"), done], 0, Some(Failure::LENGTH)),
            (vec![&stopped("content_filter"), done], 0, Some(Failure::REFUSED)),
            (vec![&stopped("error"), done], 0, Some(Failure::ERROR)),
            (vec![&empty, done], 0, Some(Failure::NO_CANDIDATE)),
            (vec![&empty], 0, Some(Failure::NO_CANDIDATE)),
            (vec![&delta("I cannot."), done], 0, Some(Failure::NO_CANDIDATE)),
            (vec![&delta("I cannot.")], 0, Some(Failure::CUT)),
            (vec![done], 0, Some(Failure::NO_CANDIDATE)),
            (vec![": OPENROUTER PROCESSING\n\n"], 0, Some(Failure::CUT)),
            (vec![], 0, Some(Failure::CUT)),
            (vec![&error], 0, Some(overloaded)),
            (
                vec![
                    &*event(&json!({ "choices": [{ "delta": { "refusal": "I can't" } }] })),
                    &stopped("stop"),
                    done,
                ],
                0,
                Some(Failure::REFUSED),
            ),
            (vec![done, &closed], 0, Some(Failure::NO_CANDIDATE)),
        ] {
            let stream = stream.concat();
            let (fronts, outcome) = read(STREAM, [stream.as_bytes()], End::Regular);
            assert_eq!((fronts.len(), outcome.failure), (count, failure), "{stream}");
        }
    }

    #[test]
    fn a_document_in_place_of_a_stream_is_read_too() {
        let candidates = ["Here: {\"candidates\":[", CANDIDATE, "]}"].concat();
        let cut = ["{\"candidates\":[", CANDIDATE, ",{\"fro"].concat();
        let usage = json!({ "prompt_tokens": 1, "completion_tokens": 2 });
        for (document, count, failure) in [
            (
                json!({ "choices": [{ "message": { "content": candidates }, "finish_reason": "stop" }], "usage": usage }),
                1,
                None,
            ),
            (
                json!({ "choices": [{ "message": { "content": [{ "type": "text", "text": candidates }] } }] }),
                1,
                None,
            ),
            (
                json!({ "choices": [{ "message": { "content": cut }, "finish_reason": "length" }] }),
                1,
                Some(Failure::LENGTH),
            ),
            (
                json!({ "choices": [{ "message": { "content": cut }, "finish_reason": "stop" }] }),
                1,
                Some(Failure::NOT_CLOSED),
            ),
            (
                json!({ "choices": [{ "message": { "content": cut }, "finish_reason": "error", "error": { "code": 502 } }] }),
                1,
                Some(Failure { status: Some(502), ..Failure::local("status", Code::AiUnavailable, true) }),
            ),
            (
                json!({ "choices": [{ "message": { "content": null, "refusal": "no" } }] }),
                0,
                Some(Failure::REFUSED),
            ),
            (
                json!({ "choices": [{ "message": { "content": "no" }, "finish_reason": "content_filter" }] }),
                0,
                Some(Failure::REFUSED),
            ),
            (json!({ "choices": [] }), 0, Some(Failure::NO_CANDIDATE)),
            (json!({}), 0, Some(Failure::NO_CANDIDATE)),
            (json!({ "error": "model not found" }), 0, Some(Failure::ERROR)),
            (json!([candidates]), 0, Some(Failure::UNREADABLE)),
        ] {
            for content_type in ["application/json", "application/json; charset=utf-8", "text/plain", ""] {
                let (fronts, outcome) =
                    read(content_type, document.to_string().as_bytes().chunks(7), End::Regular);
                assert_eq!((fronts.len(), outcome.failure), (count, failure), "{document}");
            }
            let json = document.to_string();
            let (fronts, outcome) = read("", [json.as_bytes()], End::Cut);
            assert_eq!((fronts.len(), outcome.failure.is_none()), (count, failure.is_none()), "{document}");
            let (fronts, outcome) = read("", [&json.as_bytes()[..json.len() - 1]], End::Cut);
            assert_eq!((fronts.len(), outcome.failure), (0, Some(Failure::CUT)), "{document}");
        }
        for html in ["<!doctype html><title>502</title>", "", "Service down", "[{}]", "{\"choices\":"] {
            assert_eq!(
                read("text/html", [html.as_bytes()], End::Regular).1.failure,
                Some(Failure::UNREADABLE),
                "{html}"
            );
        }
    }

    #[test]
    fn chunks_are_read_with_other_lines_around_them() {
        let chunks = ["[", CANDIDATE, ",", r#"{"front":"g","back":"b","prompt":"p"}"#, "]"].map(delta);
        let stream = chunks.concat();
        let with = |between: &str| [between, &chunks.join(between), "data: [DONE]\n\n"].concat();
        for (name, body) in [
            ("the field twice", stream.replace("data: ", "data: data: ")),
            ("no field behind a comment", [": x\n\n", &stream.replace("data: ", "")].concat()),
            ("a document first", ["{\"status\":\"ok\"}\n\n", &stream].concat()),
            ("documents and words", with("ping\n").replace("data: ", "").replacen("ping\n", "", 1)),
            ("an event that is no object", with("data: {ping}\n\n")),
            ("an event of Python", with("data: {'type': 'ping'}\n\n")),
            (
                "content without members",
                with(r#"data: {"choices":[{"delta":{"content":{}}}]}"#).replace("]}data", "]}\n\ndata"),
            ),
        ] {
            for size in [1, 7, usize::MAX] {
                let (fronts, outcome) = read(STREAM, body.as_bytes().chunks(size), End::Regular);
                assert_eq!((fronts, outcome.failure), (vec!["f".to_owned(), "g".to_owned()], None), "{name}");
            }
        }
        // Content is missing where a chunk is broken, and nothing is joined over it.
        let halves = [delta("[{\"front\":\"in 19"), delta("\",\"back\":\"b\",\"prompt\":\"p\"}]")];
        for lost in
            ["data: {\"choices\n\n", "data: {\n\n", "data: {'choices': [{'delta': {'content': '45'}}]}\n\n"]
        {
            assert_eq!(read(STREAM, [halves.join(lost).as_bytes()], End::Regular).0.len(), 0, "{lost}");
        }
        let error = ": x\n\n{\"error\":{\"code\":402}}\n";
        let (_, outcome) = read(STREAM, [error.as_bytes()], End::Regular);
        assert_eq!(outcome.failure.map(|failure| failure.code), Some(Code::AiMisconfigured));
    }

    #[test]
    fn the_media_type_is_read_in_any_case_and_with_parameters() {
        let stream = [&*delta(&["[", CANDIDATE, "]"].concat()), "data: [DONE]\n\n"].concat();
        for content_type in [
            "text/event-stream",
            "Text/Event-Stream; charset=utf-8",
            "text/event-stream;x=y",
            " text/event-stream ",
        ] {
            assert_eq!(read(content_type, [stream.as_bytes()], End::Regular).0.len(), 1, "{content_type}");
        }
    }

    #[test]
    fn an_error_document_outranks_its_status() {
        let read = |status: u16, retry_after: Option<&str>, document: &str, end| {
            let mut reader = ResponseReader::new(status, "application/json", retry_after);
            assert_eq!(reader.remaining(), Remaining::Tail, "an error document is only a tail");
            let mut take = |_: Found| panic!("an error has no candidate");
            reader.push(document.as_bytes(), &mut take);
            reader.end(end, &mut take).failure.expect("it is a failure")
        };
        let document =
            r#"{"error":{"code":400,"message":"m","metadata":{"error_type":"content_policy_violation"}}}"#;
        assert_eq!(read(400, None, document, End::Regular).code, Code::AiRefused);
        assert_eq!(read(400, None, document, End::Cut).code, Code::AiRefused);
        assert_eq!(read(400, None, &document[1..], End::Cut).code, Code::AiMisconfigured);
        for document in ["", "<html>", "{\"err", "{}", "[]", "null"] {
            for (status, code) in [
                (401, Code::AiMisconfigured),
                (403, Code::AiRefused),
                (408, Code::AiTimeout),
                (500, Code::AiUnavailable),
            ] {
                assert_eq!(read(status, None, document, End::Regular).code, code, "{status} {document}");
            }
        }
        for (retry_after, seconds) in [
            ("7", Some(7)),
            (" 7 ", Some(7)),
            ("Wed, 21 Oct 2026 07:28:00 GMT", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(
                read(429, Some(retry_after), "{}", End::Regular).retry_after_s,
                seconds,
                "{retry_after}"
            );
            assert_eq!(
                read(503, Some(retry_after), "<html>", End::Regular).retry_after_s,
                seconds,
                "{retry_after}"
            );
        }
    }

    #[test]
    fn the_last_usage_that_was_sent_counts() {
        let used = |tokens: u64| event(&json!({ "choices": [], "usage": { "prompt_tokens": tokens } }));
        let stream =
            [used(1), delta(&["[", CANDIDATE].concat()), used(7), delta("]"), "data: [DONE]\n\n".to_owned()];
        let (_, outcome) = read(STREAM, [stream.concat().as_bytes()], End::Regular);
        assert_eq!(outcome.usage, Some(Usage { prompt_tokens: 7, ..Usage::default() }));
    }

    #[test]
    fn only_the_tail_remains_after_the_candidates() {
        let mut reader = ResponseReader::new(200, STREAM, None);
        let mut take = |_: Found| true;
        for (event, remaining) in [
            (": OPENROUTER PROCESSING\n\n", Remaining::Candidates),
            (&*delta("{\"candidates\":[]} "), Remaining::Candidates),
            (&delta(&["[", CANDIDATE].concat()), Remaining::Candidates),
            (&delta("]"), Remaining::Tail),
            (&stopped("stop"), Remaining::Tail),
            (&event(&json!({ "choices": [], "usage": { "prompt_tokens": 1 } })), Remaining::Nothing),
        ] {
            reader.push(event.as_bytes(), &mut take);
            assert_eq!(reader.remaining(), remaining, "{event}");
        }
        for (last, remaining) in [
            ("data: [DONE]\n\n", Remaining::Nothing),
            ("data: {\"error\":{\"code\":1}}\n\n", Remaining::Nothing),
            ("error: {\"code\":1}\n\n", Remaining::Nothing),
            ("data: {\"error\":{}}\n\n", Remaining::Candidates),
            ("data: <html>\n\n", Remaining::Candidates),
            ("data: {\"choices\n\n", Remaining::Candidates),
        ] {
            let mut reader = ResponseReader::new(200, STREAM, None);
            reader.push(last.as_bytes(), &mut take);
            assert_eq!(reader.remaining(), remaining, "{last}");
        }
    }

    #[test]
    fn neither_a_reason_nor_usage_ends_an_open_answer() {
        let chunk = |content: &str, reason: &str| {
            event(&json!({
                "choices": [{ "delta": { "content": content }, "finish_reason": reason }],
                "usage": { "prompt_tokens": 1, "completion_tokens": 1 },
            }))
        };
        let mut take = |_: Found| true;
        for reason in ["", "stop", "length", "content_filter", "error", "tool_calls"] {
            let mut reader = ResponseReader::new(200, STREAM, None);
            for content in ["[", CANDIDATE, "", ",", CANDIDATE, ""] {
                reader.push(chunk(content, reason).as_bytes(), &mut take);
                assert_eq!(reader.remaining(), Remaining::Candidates, "{reason} {content}");
            }
            reader.push(chunk("]", reason).as_bytes(), &mut take);
            let remaining = if reason.is_empty() { Remaining::Tail } else { Remaining::Nothing };
            assert_eq!(reader.remaining(), remaining, "{reason}");
        }
        // Content that is read at its end, and single objects: only a chunk without content is an end.
        for chunks in [
            ["<think>", "[", "]</think>", "[", CANDIDATE, "]"],
            [CANDIDATE, "\n", CANDIDATE, "\n", CANDIDATE, "\n"],
        ] {
            let mut reader = ResponseReader::new(200, STREAM, None);
            for content in chunks {
                reader.push(chunk(content, "stop").as_bytes(), &mut take);
                assert_eq!(reader.remaining(), Remaining::Candidates, "{content}");
            }
            reader.push(chunk("", "stop").as_bytes(), &mut take);
            assert_eq!(reader.remaining(), Remaining::Tail);
            reader.push(chunk("{", "").as_bytes(), &mut take);
            assert_eq!(reader.remaining(), Remaining::Candidates);
        }
    }

    #[test]
    fn an_endless_response_fails_as_too_large() {
        let comment = [b": ".as_slice(), &[b'x'; 1022]].concat();
        for (content_type, chunk) in [
            (STREAM, comment.as_slice()),
            (STREAM, delta(&"x".repeat(1000)).as_bytes()),
            (STREAM, &b": x\n\n".repeat(50)),
            ("application/json", &[b' '; 1000]),
        ] {
            let mut reader = ResponseReader::new(200, content_type, None);
            let mut bytes = 0;
            while reader.remaining() == Remaining::Candidates {
                reader.push(chunk, &mut |_| true);
                bytes += chunk.len();
                assert!(bytes <= RAW_BYTES_MAX + chunk.len());
            }
            assert_eq!(reader.end(End::Regular, &mut |_| true).failure, Some(Failure::TOO_LARGE));
        }
    }

    /// The events of a stream: content in one chunk after another, each like the first but for the changes.
    fn similar_events() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let chunk = prop::sample::select(vec![
            r#"{"id":"g","model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"@"},"finish_reason":null}]}"#,
            r#"{"choices":[{"delta":{"content":"@","refusal":null,"tool_calls":[]}}]}"#,
            r#"{"choices":[{"delta":{"content":"@","content":"b"}}]}"#,
            r#"{"choices":[{"delta":{"content":"a","content":"@"}}]}"#,
            r#"{"choices":[{"delta":{"content":"@"},"message":{"content":"b"}}]}"#,
            r#"{"choices":[{"text":"@"}]}"#,
            r#"{"choices":[{"delta":{"content":"@"},"text":"b"}]}"#,
            r#"{"choices":[{"text":"b","delta":{"content":"@"}}]}"#,
            r#"{"choices":[{"delta":{"content":"@","tool_calls":[{"function":{"arguments":"b"}}]}}]}"#,
            r#"{"choices":[{"delta":{"content":"@","function_call":{"arguments":"b"}}}]}"#,
            r#"{"choices":[{"delta":{"content":["@"]}}]}"#,
            r#"{"choices":[{"delta":{"content":7,"reasoning":"@"}}]}"#,
            r#"{"choices":[{"delta":{"content":"@","refusal":"no"}}]}"#,
            r#"{"choices":[{"delta":{"content":"@"},"finish_reason":"length"}]}"#,
            r#"{"choices":[{"delta":{"content":"@"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}"#,
            r#"{"choices":[{"delta":{"content":"@"}}],"usage":{"prompt_tokens":1}}"#,
            r#"{"choices":[{"delta":{"content":"@"}}],"error":{"code":502}}"#,
            r#"{"choices":[{"delta":{"content":"@"},"error":{"code":502}}]}"#,
            r#"{"choices":[{"delta":{"content":"@"}}]}{"choices":[{"delta":{"content":"b"}}]}"#,
            r#"{"choices":[{"delta":{"content":"@"}},{"delta":{"content":"b"}}]}"#,
            r#"{"choices":[{"delta":{"content":"@"}}]} rest"#,
            r#"{"choices":[{"delta":{"content":"@"}}"#,
            r#"{"choices":[],"a":"@"}"#,
        ]);
        let content = prop_oneof![
            prop::sample::select(vec![
                "[",
                "{",
                "}",
                "]",
                ",",
                ":",
                " ",
                "front",
                "back",
                "prompt",
                "\\\"",
                "\\\\",
                "\\n",
                "\\u007b",
                "\\ud83d",
                "\\ude00",
                "\\",
                "\"",
                "\u{e9}",
                "f",
                "7",
                "",
                "\\\"front\\\":\\\"f\\\",\\\"back\\\":\\\"b\\\",\\\"prompt\\\":\\\"p\\\"",
                "\"},\"finish_reason\":\"stop\"}]}",
                "\"}}],\"error\":{\"code\":502}}",
            ])
            .prop_map(str::to_owned),
            "[ -~]{0,9}",
        ];
        let contents = prop::collection::vec(prop::collection::vec(content, 0..4), 1..12);
        let change = (any::<prop::sample::Index>(), 0..4_u8, any::<u8>(), any::<prop::sample::Index>());
        let changes = prop::collection::vec(change, 0..3);
        (chunk, contents, changes).prop_map(|(chunk, contents, changes)| {
            let json = contents.iter().map(|content| chunk.replacen('@', &content.concat(), 1).into_bytes());
            let mut events: Vec<_> = json.collect();
            for (event, kind, byte, place) in changes {
                let index = event.index(events.len());
                let Some(event) = events.get_mut(index) else { continue };
                let place = place.index(event.len());
                match kind {
                    0 => event[place] = byte,
                    1 => event.insert(place, byte),
                    2 => drop(event.remove(place)),
                    _ => event.insert(0, b' '),
                }
            }
            events
        })
    }

    /// Reads the events one by one, and returns everything that can be observed. Without frames each chunk is read whole.
    fn observe(events: &[Vec<u8>], prefix: &str, has_frames: bool) -> (Vec<String>, usize, Outcome) {
        let (mut observed, mut framed) = (Vec::new(), 0);
        let mut reader = ResponseReader::new(200, STREAM, None);
        for event in events {
            if !has_frames {
                reader.received.frame = None;
            }
            let is_framed = |frame: &Frame| frame.read(event).is_some();
            framed += usize::from(reader.received.frame.as_ref().is_some_and(is_framed));
            let mut take = |found: Found| {
                observed.push(format!("{found:?}"));
                found.is_ok()
            };
            reader.push(&[prefix.as_bytes(), event, b"\n\n"].concat(), &mut take);
            let Received {
                frame: _,
                reader: content,
                finish,
                failure,
                is_unreadable,
                is_refusal,
                is_finished,
                ..
            } = &reader.received;
            let state =
                (content, finish, failure, is_unreadable, is_refusal, is_finished, reader.remaining());
            observed.push(format!("{state:?}"));
        }
        let outcome = reader.end(End::Regular, &mut |found| found.is_ok());
        (observed, framed, outcome)
    }

    #[test]
    fn a_chunk_that_differs_in_its_content_alone_is_read_in_the_frame_of_the_last() {
        let frame = r#"{"id":"g","choices":[{"delta":{"content":"@"},"finish_reason":null}]}"#;
        let events: Vec<_> = ["{", "", "\\\"a\\\":1", "\\u00e9\\\\", "}"]
            .iter()
            .map(|content| frame.replace('@', content).into_bytes())
            .collect();
        let (with, framed, outcome) = observe(&events, "data: ", true);
        assert_eq!(framed, 4);
        assert_eq!((with, 0, outcome), observe(&events, "data: ", false));
        for other in [
            frame.replace('@', "a\\"),
            frame.replace('@', "a\"b"),
            frame.replace("null", "\"stop\""),
            frame.replace("\"g\"", "\"h\""),
            [frame, "{}"].concat(),
        ] {
            let events = [frame.as_bytes().to_vec(), other.clone().into_bytes()];
            assert_eq!(observe(&events, "data: ", true).1, 0, "{other}");
        }
    }

    proptest! {
        #[test]
        fn a_frame_changes_no_result(events in similar_events(), prefix in prop_oneof![
            8 => Just("data: "), 1 => Just("data: data: "), 1 => Just("event: error\ndata: "), 1 => Just("error: "),
        ]) {
            let (with, _, outcome) = observe(&events, prefix, true);
            let (without, _, whole) = observe(&events, prefix, false);
            prop_assert_eq!(with, without);
            prop_assert_eq!(outcome, whole);
        }

        #[test]
        fn no_splitting_changes_how_arbitrary_bytes_are_read(
            stream in proptest::collection::vec(prop_oneof![
                Just(b"data: {\"choices\":[{\"delta\":{\"content\":\"".to_vec()), Just(b"\"}}]}\n\n".to_vec()), Just(b"data: ".to_vec()),
                Just(b"[{\\\"front\\\":\\\"f\\\",\\\"back\\\":\\\"b\\\",\\\"prompt\\\":\\\"p\\\"}]".to_vec()), Just(b"\n\n".to_vec()),
                Just(b"{\"error\":{\"code\":".to_vec()), Just(b"}}".to_vec()), Just(b"[DONE]".to_vec()), any::<u8>().prop_map(|byte| vec![byte]),
            ], 0..30).prop_map(|parts| parts.concat()),
            size in 1usize..50,
            content_type in prop_oneof![Just(STREAM), Just("application/json")],
        ) {
            let whole = read(content_type, [stream.as_slice()], End::Regular);
            prop_assert_eq!(read(content_type, stream.chunks(size), End::Regular), whole);
        }
    }
}
