//! Reads one document of a model API: an event of a stream, a whole completion, or an error.
//!
//! ```text
//! data: {"id":…,"model":…,"choices":[{"delta":{"content":"…"},"finish_reason":null}]}     a chunk
//! data: {…,"choices":[],"usage":{"prompt_tokens":…,"completion_tokens":…,"cost":…}}       the last one
//! data: {…,"error":{"code":502,"metadata":{"error_type":…}},"choices":[{…,"finish_reason":"error"}]}
//! data: [DONE]
//!
//! {"choices":[{"message":{"content":"…","refusal":null},"finish_reason":…,"error":{…}}],"usage":…}
//! "content":[{"type":"text","text":"…"},…]   "content":{"type":"text","text":"…"}   "content":{"candidates":…}
//! "tool_calls":[{"function":{"arguments":"…"}}]   "function_call":{"arguments":"…"}   "arguments":{"candidates":…}
//!
//! {"error":{"code":429,…}}   {"error":{"code":"429"}}   {"error":{"code":"word"}}   {"error":"…"}
//! {"error":{"availability":{"code":…,"retryable":…,"retry_after":…}}}
//! {"object":"error","code":400,"type":"…"}   {"code":400,"message":"…"}              the error itself
//! ```
//! Tolerant: a member of an unexpected type counts as missing, the last of duplicate members counts, unknown members are
//! skipped. Content is bytes, because the border of two chunks may split a character: UTF-8, with WTF-8 for lone surrogates.
//!
//! Not for: mapping failures ([`super::failure`]), joining chunks ([`super::response_reader`]).

use std::borrow::Cow;

use super::failure::{ErrorDetails, Failure};
use crate::generation::escapes;
use crate::generation::usage::Usage;
use crate::json::scan::{strip_prefix, strip_suffix};
use crate::json::{Cursor, Value};
use crate::money::nanodollars;

/// The data of the event that ends a stream.
pub const DONE: &[u8] = b"[DONE]";
/// The longest id or name.
const NAME_BYTES_MAX: usize = 128;

/// The content of one document.
#[derive(Debug, Default, PartialEq)]
pub struct Chunk<'a> {
    /// The generation's id at the model API.
    pub id: Option<&'a str>,
    /// The model that generated the answer.
    pub model: Option<&'a str>,
    /// The provider that ran the model.
    pub provider: Option<&'a str>,
    /// The next bytes of the content, the arguments of tool calls included.
    pub content: Cow<'a, [u8]>,
    /// The content was a number or another value without quotes: a token, or no content at all.
    pub has_odd_content: bool,
    /// The model refused.
    pub is_refusal: bool,
    /// Why the model stopped, if it did.
    pub finish: Option<Finish>,
    /// The usage, if it was sent.
    pub usage: Option<Usage>,
    /// The cost in nanodollars, if the usage has one.
    pub cost: Option<u64>,
    /// The failure, if there was one.
    pub failure: Option<Failure>,
    place: Place,
}

/// The members that may contain content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    #[default]
    None,
    /// One, a string: the number of its bytes, and of those after its closing quote.
    String { bytes: usize, bytes_after: usize },
    /// One that is no string, or several.
    Other,
}

/// The bytes around the content of a chunk, which most chunks of a stream have in common. A chunk with the same ones is read
/// without its other members.
///
/// INVARIANT: the chunk that they are of had neither finish nor usage nor failure, and one string with content.
#[derive(Debug, Clone)]
pub struct Frame {
    /// To the opening quote.
    before: Vec<u8>,
    /// From the closing quote.
    after: Vec<u8>,
}

impl Frame {
    /// The frame of a chunk that is the whole text; `None` where more than the content may differ in the next one.
    #[must_use]
    pub fn of(chunk: &Chunk<'_>, text: &[u8]) -> Option<Self> {
        let Place::String { bytes, bytes_after } = chunk.place else { return None };
        let is_plain = chunk.finish.is_none() && chunk.usage.is_none() && chunk.failure.is_none();
        let quote = text.len().checked_sub(bytes_after)?.checked_sub(1)?;
        let (before, after) = (text.get(..quote.checked_sub(bytes)?)?, text.get(quote..)?);
        is_plain.then(|| Self { before: before.to_vec(), after: after.to_vec() })
    }

    /// Reads a chunk in this frame; `None` for another one. All but the content is left out: the reader has taken it from the
    /// frame's own chunk.
    #[must_use]
    pub fn read<'a>(&self, text: &'a [u8]) -> Option<Chunk<'a>> {
        let content = strip_suffix(strip_prefix(text, &self.before)?, &self.after)?;
        let content = is_within_string(content).then(|| escapes::decode_server_text(content))?;
        Some(Chunk { content, ..Chunk::default() })
    }
}

/// Whether a string with these bytes ends behind them.
fn is_within_string(bytes: &[u8]) -> bool {
    let mut is_escaped = false;
    let ends = bytes.iter().any(|byte| {
        let is_end = *byte == b'"' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        is_end
    });
    !ends && !is_escaped
}

/// `finish_reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// `stop`, `tool_calls`, or an unknown value. The JSON of the answer shows whether it is complete.
    End,
    /// `length`.
    Length,
    /// `content_filter`.
    ContentFilter,
    /// `error`.
    Error,
}

/// The context of a document.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DocumentContext {
    /// The status of the response, unless it is a success.
    pub http_status: Option<u16>,
    /// The header `Retry-After`, in seconds.
    pub retry_after_s: Option<u64>,
    /// The event stream marks the document as an error.
    pub is_error: bool,
}

impl<'a> Chunk<'a> {
    /// Reads the object at the beginning of a text and returns it with the rest of the text; `None` for no object or a broken
    /// one.
    #[must_use]
    pub fn read(text: &'a [u8], context: DocumentContext) -> Option<(Self, &'a [u8])> {
        let mut chunk = Self::default();
        let mut error = Value::Missing;
        let mut choice_error = Value::Missing;
        let mut code = Value::Missing;
        let mut kind = Value::Missing;
        let mut has_choices = false;
        let mut cursor = Cursor::new(text);
        if !text.trim_ascii_start().starts_with(b"{") {
            return None;
        }
        cursor.object(&mut |name, cursor| match name {
            b"id" => chunk.id = name_in(cursor.value()),
            b"model" => chunk.model = name_in(cursor.value()),
            b"provider" => chunk.provider = words_in(cursor.value()),
            b"usage" => {
                if let Some((usage, cost)) = usage_in(cursor) {
                    (chunk.usage, chunk.cost) = (Some(usage), cost.or(chunk.cost));
                }
            }
            b"error" => error = cursor.value(),
            b"code" => code = cursor.value(),
            b"object" | b"type" => kind = error_in(cursor.value(), kind),
            b"choices" => {
                let mut is_first = true;
                cursor.list(&mut |cursor| {
                    if std::mem::take(&mut is_first) {
                        has_choices = true;
                        choice_error = chunk.read_choice(cursor);
                    } else {
                        cursor.value();
                    }
                });
            }
            _ => {
                cursor.value();
            }
        });
        let rest = cursor.rest()?;
        let details = ErrorDetails {
            http_status: context.http_status,
            retry_after_s: context.retry_after_s,
            ..ErrorDetails::default()
        };
        let is_error = context.is_error || kind != Value::Missing;
        let has_error_code = code.whole().is_some_and(|code| (400..600).contains(&code));
        chunk.failure = if error.is_truthy() {
            // The code of an error that is a text is a member of the document.
            let error = if matches!(error, Value::Object(_)) { error } else { Value::Object(text) };
            Some(failure_in(error, details))
        } else if choice_error.is_truthy() {
            Some(failure_in(choice_error, details))
        } else if context.http_status.is_some() || is_error || (has_error_code && !has_choices) {
            Some(failure_in(Value::Object(text), details))
        } else {
            None
        };
        Some((chunk, rest))
    }

    /// Reads the first choice, and returns the error in it.
    fn read_choice(&mut self, cursor: &mut Cursor<'a>) -> Value<'a> {
        let mut error = Value::Missing;
        cursor.object(&mut |name, cursor| match name {
            b"delta" | b"message" => self.read_message(cursor),
            b"finish_reason" => self.finish = finish_in(cursor.value()),
            // An API of completions without messages.
            b"text" => {
                self.place = Place::Other;
                let text = text_in(cursor.value());
                if self.content.is_empty() {
                    self.content = text;
                }
            }
            b"error" => error = cursor.value(),
            _ => {
                cursor.value();
            }
        });
        error
    }

    fn read_message(&mut self, cursor: &mut Cursor<'a>) {
        let mut content = Cow::Borrowed([].as_slice());
        let mut arguments = Cow::Borrowed([].as_slice());
        cursor.object(&mut |name, cursor| match name {
            b"content" => {
                let value = cursor.value();
                self.place = match (self.place, value, cursor.rest()) {
                    (Place::None, Value::Text(text), Some(rest)) => {
                        Place::String { bytes: text.len(), bytes_after: rest.len() }
                    }
                    _ => Place::Other,
                };
                self.has_odd_content |= matches!(value, Value::Bare(_)) && value != Value::Bare(b"null");
                content = text_in(value);
            }
            b"refusal" => self.is_refusal |= !text_in(cursor.value()).is_empty(),
            b"function_call" => {
                self.place = Place::Other;
                arguments = arguments_in(cursor);
            }
            b"tool_calls" => cursor.list(&mut |cursor| {
                self.place = Place::Other;
                cursor.object(&mut |name, cursor| match name {
                    b"function" => append(&mut arguments, arguments_in(cursor)),
                    _ => {
                        cursor.value();
                    }
                });
            }),
            _ => {
                cursor.value();
            }
        });
        append(&mut content, arguments);
        if !content.is_empty() {
            self.content = content;
        }
    }
}

fn append<'a>(text: &mut Cow<'a, [u8]>, more: Cow<'a, [u8]>) {
    if text.is_empty() {
        *text = more;
    } else if !more.is_empty() {
        text.to_mut().extend_from_slice(&more);
    }
}

fn arguments_in<'a>(cursor: &mut Cursor<'a>) -> Cow<'a, [u8]> {
    let mut arguments = Cow::Borrowed([].as_slice());
    cursor.object(&mut |name, cursor| match (name, cursor.value()) {
        (b"arguments", Value::Text(text)) => arguments = escapes::decode_server_text(text),
        // Some servers send the JSON itself.
        (b"arguments", Value::Object(json) | Value::List(json)) => arguments = Cow::Borrowed(json),
        _ => {}
    });
    arguments
}

/// Returns the text of a string, of a part, or of a list of them; JSON in place of text as it is.
fn text_in(value: Value<'_>) -> Cow<'_, [u8]> {
    match value {
        Value::Text(text) => escapes::decode_server_text(text),
        Value::Object(json) => text_of_part(json).unwrap_or(Cow::Borrowed(json)),
        Value::List(json) => {
            let mut text = Cow::Borrowed([].as_slice());
            let mut has_part = false;
            let mut has_other = false;
            Cursor::new(json).list(&mut |cursor| match cursor.value() {
                Value::Text(part) => append(&mut text, escapes::decode_server_text(part)),
                Value::Object(part) => match text_of_part(part) {
                    Some(part) => {
                        has_part = true;
                        append(&mut text, part);
                    }
                    None => has_other = true,
                },
                _ => {}
            });
            if has_other && !has_part && text.is_empty() { Cow::Borrowed(json) } else { text }
        }
        Value::Missing | Value::Bare(_) => Cow::Borrowed(&[]),
    }
}

/// Returns the text of a part of a message; empty for a part of another type (reasoning, an image) and for one without
/// members, `None` for another object.
fn text_of_part(json: &[u8]) -> Option<Cow<'_, [u8]>> {
    let (mut kind, mut text) = (Value::Missing, None);
    if !json.contains(&b'"') {
        return Some(Cow::Borrowed(&[]));
    }
    Cursor::new(json).object(&mut |name, cursor| match name {
        b"type" => kind = cursor.value(),
        b"text" => {
            text = match cursor.value() {
                Value::Text(text) => Some(escapes::decode_server_text(text)),
                _ => Some(Cow::Borrowed([].as_slice())),
            }
        }
        _ => {
            cursor.value();
        }
    });
    match kind.as_str() {
        // The type of a JSON schema: the model filled it in.
        None | Some("text" | "output_text" | "object") => text,
        Some(_) => Some(Cow::Borrowed(&[])),
    }
}

/// Returns an id or name of printable ASCII, for the log.
fn name_in(value: Value<'_>) -> Option<&str> {
    words_in(value).filter(|word| !word.contains(' '))
}

/// The same with spaces, as in `Google AI Studio`.
fn words_in(value: Value<'_>) -> Option<&str> {
    value.as_str().filter(|words| {
        (1..=NAME_BYTES_MAX).contains(&words.len())
            && words.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
    })
}

/// Returns the value if it marks the document as an error.
fn error_in<'a>(value: Value<'a>, before: Value<'a>) -> Value<'a> {
    if value.as_str() == Some("error") { value } else { before }
}

fn finish_in(value: Value<'_>) -> Option<Finish> {
    match value.as_str()?.trim() {
        "" => None,
        "length" => Some(Finish::Length),
        "content_filter" => Some(Finish::ContentFilter),
        "error" => Some(Finish::Error),
        _ => Some(Finish::End),
    }
}

/// Reads the usage, and the cost in nanodollars where it is plausible.
fn usage_in(cursor: &mut Cursor<'_>) -> Option<(Usage, Option<u64>)> {
    let (mut prompt, mut completion, mut cost) = (None, None, None);
    cursor.object(&mut |name, cursor| match name {
        b"prompt_tokens" => prompt = cursor.value().whole(),
        b"completion_tokens" => completion = cursor.value().whole(),
        b"cost" => cost = cursor.value().number(),
        _ => {
            cursor.value();
        }
    });
    prompt.or(completion)?;
    let usage = Usage {
        prompt_tokens: prompt.unwrap_or(0),
        completion_tokens: completion.unwrap_or(0),
        cost: cost.unwrap_or(0.0),
    };
    let usage = usage.bounded();
    let reported = cost.filter(|cost| *cost <= usage.cost).map(nanodollars);
    Some((usage, reported))
}

/// Reads an error object; an error of another type adds no details.
fn failure_in(error: Value<'_>, details: ErrorDetails<'_>) -> Failure {
    let Value::Object(json) = error else { return Failure::from_details(&details) };
    let mut found = details;
    let mut retry_after_s = None;
    Cursor::new(json).object(&mut |name, cursor| match name {
        b"code" => {
            let code = cursor.value();
            found.code_text = code.as_str();
            found.code_number = code.whole().or(found.code_number);
        }
        b"status" | b"status_code" => found.code_number = found.code_number.or(cursor.value().whole()),
        b"type" => found.kind = cursor.value().as_str(),
        b"metadata" => cursor.object(&mut |name, cursor| {
            let value = cursor.value();
            if name == b"error_type" {
                found.error_type = value.as_str();
            }
        }),
        b"availability" => cursor.object(&mut |name, cursor| {
            let value = cursor.value();
            match name {
                b"code" => found.availability_code = value.as_str(),
                b"retryable" => {
                    found.retryable = match value {
                        Value::Bare(b"true") => Some(true),
                        Value::Bare(b"false") => Some(false),
                        _ => None,
                    }
                }
                b"retry_after" => retry_after_s = value.whole(),
                _ => {}
            }
        }),
        _ => {
            cursor.value();
        }
    });
    found.retry_after_s = details.retry_after_s.or(retry_after_s);
    Failure::from_details(&found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::problem::Code;

    fn chunk(json: &str) -> Chunk<'_> {
        Chunk::read(json.as_bytes(), DocumentContext::default()).expect("it is an object").0
    }

    #[test]
    fn content_is_found_in_every_format() {
        for (json, content) in [
            (r#"{"choices":[{"delta":{"content":"a\n\u00e9"}}]}"#, "a\n\u{e9}".as_bytes()),
            (r#"{"choices":[{"message":{"role":"assistant","content":"a"}}]}"#, b"a"),
            (
                r#"{"choices":[{"message":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"x"}]},{"type":"text","text":"a"},7,{"text":"b"},{"type":"image"}]}}]}"#,
                b"ab",
            ),
            (r#"{"choices":[{"delta":{"content":null}}]}"#, b""),
            (r#"{"choices":[{"delta":{}}]}"#, b""),
            (r#"{"choices":[{"delta":null}]}"#, b""),
            (r#"{"choices":[{"delta":{"content":"a"}},{"delta":{"content":"b"}}]}"#, b"a"),
            (r#"{"choices":[{"delta":{"content":{"type":"text","text":"a"}}}]}"#, b"a"),
            (r#"{"choices":[{"delta":{"content":{"type":"thinking","text":"a"}}}]}"#, b""),
            (r#"{"choices":[{"delta":{"content":["a",{"type":"output_text","text":"b"}]}}]}"#, b"ab"),
            (r#"{"choices":[{"message":{"content":{"candidates":[]}}}]}"#, br#"{"candidates":[]}"#),
            (
                r#"{"choices":[{"delta":{"content":null,"tool_calls":[{"index":0,"function":{"name":"f","arguments":"a\"}"}},{"function":{"arguments":"b"}}]}}]}"#,
                br#"a"}b"#,
            ),
            (r#"{"choices":[{"delta":{"tool_calls":null}}]}"#, b""),
            (
                r#"{"choices":[{"message":{"content":"a ","function_call":{"name":"f","arguments":"b"}}}]}"#,
                b"a b",
            ),
            (
                r#"{"choices":[{"message":{"tool_calls":[{"function":{"arguments":{"a":[1]}}}]}}]}"#,
                br#"{"a":[1]}"#,
            ),
            (
                r#"{"choices":[{"message":{"tool_calls":[{"function":{"arguments":[{"a":1}]}}]}}]}"#,
                br#"[{"a":1}]"#,
            ),
            (
                r#"{"choices":[{"message":{"content":[{"front":"f"},{"front":"g"}]}}]}"#,
                br#"[{"front":"f"},{"front":"g"}]"#,
            ),
            (r#"{"choices":[{"message":{"content":[{"a":1},{"type":"thinking","text":"a"}]}}]}"#, b""),
            (
                r#"{"choices":[{"message":{"content":{"type":"object","properties":{"a":[]}}}}]}"#,
                br#"{"type":"object","properties":{"a":[]}}"#,
            ),
            (r#"{"choices":[{"delta":{"content":{}}}]}"#, b""),
            (r#"{"choices":[{"delta":{"content":[{}]}}]}"#, b""),
            (r#"{"choices":[{"text":"a","index":0}]}"#, b"a"),
            (r#"{"choices":[{"delta":{"content":"a"},"text":""}]}"#, b"a"),
            (r#"{"choices":[{"text":null,"delta":{"content":"a"}}]}"#, b"a"),
            // Invalid JSON, but accepted.
            (
                r#"{"choices":[{"delta":{"content":"x","content":"a"},"delta":{"role":null}}],"usage":NaN,"usage":-Infinity,}"#,
                b"a",
            ),
            (
                r#"{"id":1,"id":[],"choices":[{"logprobs":{"a":[NaN,-Infinity]},"delta":{"reasoning":"r","reasoning":"r","content":"a"}}]}"#,
                b"a",
            ),
            (r#"{"choices":7}"#, b""),
            (r#"{"choices":[{"delta":{"content":7}}]}"#, b""),
            (r#"{"choices":[{"delta":"a"}]}"#, b""),
            (r#"{"type":"ping"}"#, b""),
            ("{}", b""),
            (r#"{"choices":[]}"#, b""),
            (r#"{"choices":null}"#, b""),
            (r#"{"choices":["a"]}"#, b""),
            (r#"{"choices":[{"delta":{"content":"\ud83d"}}]}"#, b"\xED\xA0\xBD"),
            (r#"{"choices":[{"delta":{"content":"\ude00\ud83d\ude00"}}]}"#, b"\xED\xB8\x80\xF0\x9F\x98\x80"),
            ("{\"choices\":[{\"delta\":{\"content\":\"a\u{0}\n\"}}]}", b"a\0\n"),
            (
                r#"{"x":[{"y":"\ud83d"}],"choices":[{"index":0,"logprobs":{"a":[]},"delta":{"reasoning":"r","content":"a"}}],"z":1e300}"#,
                b"a",
            ),
        ] {
            assert_eq!(&*chunk(json).content, content, "{json}");
        }
        let broken = Chunk::read(
            b"{\"choices\":[{\"delta\":{\"content\":\"a\xFF\xC3\"}}]}",
            DocumentContext::default(),
        );
        assert_eq!(broken.map(|(chunk, _)| chunk.content.into_owned()), Some(b"a\xFF\xC3".to_vec()));
    }

    #[test]
    fn content_without_quotes_is_marked_as_odd() {
        for (json, is_odd) in [
            (r#"{"choices":[{"delta":{"content":7}}]}"#, true),
            (r#"{"choices":[{"delta":{"content":true}}]}"#, true),
            (r#"{"choices":[{"delta":"a"}]}"#, false),
            (r#"{"choices":"a"}"#, false),
            (r#"{"choices":[{"delta":{"content":null}}]}"#, false),
            (r#"{"choices":[{"delta":null}]}"#, false),
            (r#"{"choices":null}"#, false),
            (r#"{"choices":[]}"#, false),
            (r#"{"choices":[{"delta":{"content":["a"]}}]}"#, false),
            (r#"{"usage":7,"id":[]}"#, false),
        ] {
            assert_eq!(chunk(json).has_odd_content, is_odd, "{json}");
        }
    }

    #[test]
    fn content_without_escapes_is_not_copied() {
        let json = r#"{"model":"m","choices":[{"delta":{"content":"abc"}}]}"#;
        assert!(matches!(chunk(json), Chunk { content: Cow::Borrowed(b"abc"), model: Some("m"), .. }));
    }

    #[test]
    fn only_an_object_is_read_as_a_chunk() {
        for json in [
            "",
            " ",
            "null",
            "7",
            "[]",
            "[{\"choices\":[]}]",
            "{",
            "{\"choices\":[",
            "{\"choices\":[{\"delta\":{\"content\":\"a",
            "{\"choices\":[{\"delta\":{\"content\":\"a\"}}",
            "{choices:[]}",
            "<html>",
            "[DONE]",
        ] {
            assert_eq!(Chunk::read(json.as_bytes(), DocumentContext::default()), None, "{json}");
        }
    }

    #[test]
    fn each_finish_reason_is_read() {
        for (json, finish) in [
            (r#""stop""#, Some(Finish::End)),
            (r#""tool_calls""#, Some(Finish::End)),
            (r#""STOP""#, Some(Finish::End)),
            (r#""length""#, Some(Finish::Length)),
            (r#""content_filter""#, Some(Finish::ContentFilter)),
            (r#""error""#, Some(Finish::Error)),
            (r#""""#, None),
            ("null", None),
            ("7", None),
        ] {
            let json = [r#"{"choices":[{"finish_reason":"#, json, "}]}"].concat();
            assert_eq!(chunk(&json).finish, finish, "{json}");
        }
    }

    #[test]
    fn an_empty_refusal_is_no_refusal() {
        for (refusal, is_refusal) in
            [("null", false), (r#""""#, false), (r#""I cannot""#, true), (r#""\ud83d""#, true)]
        {
            for place in ["delta", "message"] {
                let json = [r#"{"choices":[{""#, place, r#"":{"refusal":"#, refusal, "}}]}"].concat();
                assert_eq!(chunk(&json).is_refusal, is_refusal, "{json}");
            }
        }
    }

    #[test]
    fn a_cost_is_reported_or_not() {
        for (usage, cost) in [
            (r#"{"prompt_tokens":7,"cost":0.00012}"#, Some(120_000)),
            (r#"{"prompt_tokens":7,"cost":0}"#, Some(0)),
            (r#"{"prompt_tokens":7,"cost":"0.5"}"#, Some(500_000_000)),
            (r#"{"prompt_tokens":7,"cost":1e-10}"#, Some(1)),
            (r#"{"prompt_tokens":7}"#, None),
            (r#"{"prompt_tokens":7,"cost":null}"#, None),
            (r#"{"prompt_tokens":7,"cost":-0.1}"#, None),
            (r#"{"prompt_tokens":7,"cost":1000000.5}"#, None),
            (r#"{"prompt_tokens":7,"cost":"free"}"#, None),
        ] {
            assert_eq!(chunk(&[r#"{"usage":"#, usage, "}"].concat()).cost, cost, "{usage}");
        }
    }

    #[test]
    fn only_plausible_usage_figures_are_read() {
        let usage =
            |prompt_tokens, completion_tokens, cost| Some(Usage { prompt_tokens, completion_tokens, cost });
        for (json, expected) in [
            (
                r#"{"prompt_tokens":7,"completion_tokens":9,"total_tokens":16,"cost":0.00012,"prompt_tokens_details":{"cached_tokens":0}}"#,
                usage(7, 9, 0.00012),
            ),
            (r#"{"prompt_tokens":7,"completion_tokens":9,"cost":1}"#, usage(7, 9, 1.0)),
            (r#"{"prompt_tokens":7}"#, usage(7, 0, 0.0)),
            (r#"{"completion_tokens":"9","cost":null}"#, usage(0, 9, 0.0)),
            (r#"{"prompt_tokens":7.0,"completion_tokens":-1,"cost":-3.5}"#, usage(7, 0, 0.0)),
            (r#"{"prompt_tokens":0,"completion_tokens":0,"cost":0}"#, usage(0, 0, 0.0)),
            (
                r#"{"prompt_tokens":18446744073709551615,"completion_tokens":1e30}"#,
                usage(2_147_483_647, 2_147_483_647, 0.0),
            ),
            (r#"{"cost":1}"#, None),
            ("{}", None),
            ("null", None),
            (r#""7""#, None),
            ("[7]", None),
        ] {
            assert_eq!(chunk(&[r#"{"usage":"#, json, "}"].concat()).usage, expected, "{json}");
        }
    }

    #[test]
    fn ids_and_models_are_read_only_as_printable_ascii() {
        let long = ["\"", &"x".repeat(129), "\""].concat();
        for (json, name) in [
            (r#""openai/gpt-4o-mini""#, Some("openai/gpt-4o-mini")),
            (r#""a\u002fb""#, None),
            (r#""a b""#, None),
            (r#""a\nb""#, None),
            (r#""""#, None),
            ("7", None),
            ("null", None),
            (&long, None),
        ] {
            let json = [r#"{"id":"#, json, r#","model":"#, json, "}"].concat();
            let chunk = chunk(&json);
            assert_eq!((chunk.id, chunk.model), (name, name), "{json}");
        }
    }

    #[test]
    fn a_provider_is_read_only_as_printable_ascii() {
        for (json, provider) in [
            (r#""OpenAI""#, Some("OpenAI")),
            (r#""Google AI Studio""#, Some("Google AI Studio")),
            (r#""a\u0000b""#, None),
            ("\"a\u{1f}b\"", None),
            ("\"caf\u{e9}\"", None),
            (r#""""#, None),
            (r#"{"order":["OpenAI"]}"#, None),
            ("null", None),
        ] {
            assert_eq!(chunk(&[r#"{"provider":"#, json, "}"].concat()).provider, provider, "{json}");
        }
    }

    #[test]
    fn errors_of_every_format_are_failures() {
        use Code::{AiMisconfigured, AiRefused, AiTimeout, AiUnavailable};
        for (error, code, may_retry, retry_after_s) in [
            (r#"{"code":429,"message":"m"}"#, AiUnavailable, true, None),
            (r#"{"code":"429","message":"m"}"#, AiUnavailable, true, None),
            (r#"{"code":"rate_limit_exceeded","message":"m"}"#, AiUnavailable, true, None),
            (r#"{"code":402,"message":"m","metadata":null}"#, AiMisconfigured, false, None),
            (
                r#"{"code":403,"message":"m","metadata":{"reasons":["x"],"flagged_input":"y"}}"#,
                AiRefused,
                false,
                None,
            ),
            (r#"{"code":504,"message":"m"}"#, AiTimeout, true, None),
            (r#"{"code":500,"metadata":{"error_type":"refusal"}}"#, AiRefused, false, None),
            (r#"{"code":200,"metadata":{"error_type":"timeout"}}"#, AiTimeout, true, None),
            (
                r#"{"message":"m","availability":{"code":"provider_overloaded","retryable":true,"retry_after":7}}"#,
                AiUnavailable,
                true,
                Some(7),
            ),
            (
                r#"{"availability":{"code":"new","retryable":true,"retry_after":1.2}}"#,
                AiUnavailable,
                true,
                Some(2),
            ),
            (
                r#"{"availability":{"code":"new","retryable":false,"retry_after":"x"}}"#,
                AiUnavailable,
                false,
                None,
            ),
            (
                r#"{"availability":{"code":"constraint_filtered","retryable":true}}"#,
                AiMisconfigured,
                false,
                None,
            ),
            (r#"{"code":null,"message":"m","type":"server_error"}"#, AiUnavailable, true, None),
            (r#"{"code":{"a":1},"metadata":["x"],"availability":"x"}"#, AiUnavailable, true, None),
            (r#"{"code":null,"type":"invalid_request_error"}"#, AiMisconfigured, false, None),
            (r#"{"code":"x","type":"permission_error"}"#, AiRefused, false, None),
            (r#"{"code":500,"type":"invalid_request_error"}"#, AiUnavailable, true, None),
            (r#"{"code":400,"type":"exceed_context_size_error"}"#, AiMisconfigured, false, None),
            (r#""model not found""#, AiUnavailable, true, None),
        ] {
            for json in [
                [r#"{"error":"#, error, "}"].concat(),
                [r#"{"error":"#, error, r#","choices":[{"delta":{"content":""},"finish_reason":"error"}]}"#]
                    .concat(),
                [r#"{"choices":[{"message":{"content":"x"},"error":"#, error, "}]}"].concat(),
            ] {
                let failure = chunk(&json).failure.expect(&json);
                assert_eq!(
                    (failure.code, failure.may_retry, failure.retry_after_s),
                    (code, may_retry, retry_after_s),
                    "{json}"
                );
            }
        }
        for (json, code) in [
            (r#"{"error":"m","code":400}"#, AiMisconfigured),
            (r#"{"status":400,"error":"Bad Request"}"#, AiMisconfigured),
            (r#"{"error":{"status_code":402,"message":"m"}}"#, AiMisconfigured),
            (r#"{"error":{"status":"INVALID_ARGUMENT","code":400,"status_code":500}}"#, AiMisconfigured),
            (r#"{"error":{"code":"model_not_found","message":"m"}}"#, AiMisconfigured),
            (r#"{"error":{"code":"invalid_request_error"}}"#, AiMisconfigured),
        ] {
            let failure = chunk(json).failure.expect(json);
            assert_eq!((failure.code, failure.may_retry), (code, false), "{json}");
        }
        for none in ["null", "false", "0", "[]", r#""""#, "{}", r#"{"code":null,"message":""}"#] {
            assert_eq!(chunk(&[r#"{"error":"#, none, "}"].concat()).failure, None, "{none}");
        }
        assert_eq!(
            chunk(r#"{"choices":[{"finish_reason":"error"}]}"#).failure,
            None,
            "a reason alone is no error"
        );
    }

    #[test]
    fn a_document_that_is_itself_an_error_is_a_failure() {
        use Code::{AiMisconfigured, AiUnavailable};
        for (json, code) in [
            (
                r#"{"object":"error","message":"m","type":"BadRequestError","param":null,"code":400}"#,
                AiMisconfigured,
            ),
            (r#"{"object":"error","message":"m","type":"NotFoundError","code":null}"#, AiMisconfigured),
            (r#"{"type":"error","message":"m","code":503}"#, AiUnavailable),
            (r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#, AiUnavailable),
            (r#"{"code":400,"message":"m","type":"x"}"#, AiMisconfigured),
        ] {
            assert_eq!(chunk(json).failure.map(|failure| failure.code), Some(code), "{json}");
        }
        for json in
            [r#"{"code":7}"#, r#"{"code":400,"choices":[{"delta":{}}]}"#, r#"{"detail":[{"msg":"m"}]}"#]
        {
            assert_eq!(chunk(json).failure, None, "{json}");
        }
        let by_event = DocumentContext { is_error: true, ..DocumentContext::default() };
        let failure = |json: &str| {
            Chunk::read(json.as_bytes(), by_event).and_then(|(chunk, _)| chunk.failure).expect(json)
        };
        assert_eq!(failure(r#"{"code":402,"message":"m"}"#).code, AiMisconfigured);
        assert_eq!(failure(r#"{"error":{"code":402}}"#).code, AiMisconfigured);
        assert_eq!(failure(r#"{"message":"m"}"#), Failure::ERROR);
    }

    #[test]
    fn a_code_outranks_the_status_and_the_header_outranks_the_body() {
        let failure = |json: &str| {
            let context = DocumentContext { http_status: Some(503), retry_after_s: Some(3), is_error: false };
            Chunk::read(json.as_bytes(), context).and_then(|(chunk, _)| chunk.failure).expect(json)
        };
        assert_eq!(failure("{}").note(), "status 503");
        assert_eq!(failure(r#"{"error":{"message":"m"}}"#).note(), "status 503");
        assert_eq!(failure(r#"{"error":{"code":502}}"#).note(), "status 502");
        assert_eq!(failure(r#"{"error":{"availability":{"retry_after":9}}}"#).retry_after_s, Some(3));
    }

    proptest! {
        #[test]
        fn a_chunk_of_arbitrary_bytes_is_read_without_panic(
            parts in proptest::collection::vec(prop_oneof![
                Just("{"), Just("}"), Just("["), Just("]"), Just("\"choices\":"), Just("\"error\":"), Just("\"delta\":"), Just("\"content\":"),
                Just("\"code\":"), Just("\"usage\":"), Just("null"), Just("\"x\""), Just(","), Just("1e99"), Just("-7"), Just("true"), Just("\"\\ud800\""),
            ], 0..30),
            noise in proptest::collection::vec(any::<u8>(), 0..8),
        ) {
            let json = [parts.concat().as_bytes(), &noise].concat();
            let read = Chunk::read(&json, DocumentContext::default());
            let is_json = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&json).is_ok();
            prop_assert!(!is_json || read.is_some_and(|(_, rest)| rest.is_empty()));
        }
    }
}
