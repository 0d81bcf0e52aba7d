//! One document of a model's answer, whichever it is: an event of a stream, a whole completion, an error.
//!
//! ```text
//! data: {"id":…,"model":…,"choices":[{"delta":{"content":"…"},"finish_reason":null}]}     a chunk
//! data: {…,"choices":[],"usage":{"prompt_tokens":…,"completion_tokens":…,"cost":…}}       the last one
//! data: {…,"error":{"code":502,"metadata":{"error_type":…}},"choices":[{…,"finish_reason":"error"}]}
//! data: [DONE]
//!
//! {"choices":[{"message":{"content":"…","refusal":null},"finish_reason":…,"error":{…}}],"usage":…}
//! {"choices":[{"message":{"content":[{"type":"text","text":"…"},…]}}]}
//!
//! {"error":{"code":429,…}}   {"error":{"code":"429"}}   {"error":{"code":"word"}}   {"error":"…"}
//! {"error":{"availability":{"code":…,"retryable":…,"retry_after":…}}}
//! ```
//! Tolerant: a member of another type than expected is as good as missing, one that nobody asked for is
//! skipped without being kept. Content is bytes: UTF-8, but for what the model broke (lone surrogates come as
//! WTF-8), because a character may be cut by the border of two chunks.
//!
//! Not for: judging failures ([`super::failure`]), joining chunks ([`super::reading`]).

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::failure::{Failure, Told};
use crate::generation::usage::Usage;

/// The data of the event that ends a stream.
pub const DONE: &[u8] = b"[DONE]";

/// What one document says.
#[derive(Debug, Default, PartialEq)]
pub struct Chunk<'a> {
    /// The generation's id, by which an operator finds it at the model API.
    pub id: Option<Cow<'a, str>>,
    /// The model that served.
    pub model: Option<Cow<'a, str>>,
    /// The next bytes of what the model says.
    pub content: Cow<'a, [u8]>,
    /// The model said that it refuses.
    pub is_refusal: bool,
    /// Why the model stopped, if it did.
    pub finish: Option<Finish>,
    /// What was used, if it is told.
    pub usage: Option<Usage>,
    /// What went wrong, if it did.
    pub failure: Option<Failure>,
}

/// `finish_reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// `stop`, `tool_calls`, or a word that is not known here: an end like any other. Whether the answer is
    /// whole is for its JSON to say.
    End,
    /// `length`.
    Length,
    /// `content_filter`.
    ContentFilter,
    /// `error`.
    Error,
}

impl<'a> Chunk<'a> {
    /// Reads a document; `None` when it is no JSON object. `http_status` is that of the answer, unless it was
    /// a success; `retry_after_s` is its header.
    #[must_use]
    pub fn read(json: &'a [u8], http_status: Option<u16>, retry_after_s: Option<u64>) -> Option<Self> {
        let Object(document) = serde_json::from_slice::<Object<Document<'a>>>(json).ok()?;
        let document = document?;
        let choice = document.choices.0.unwrap_or_default();
        let told = Told { http_status, retry_after_s, ..Told::default() };
        let finish = choice.finish_reason.word().map(|word| match word {
            "length" => Finish::Length,
            "content_filter" => Finish::ContentFilter,
            "error" => Finish::Error,
            _ => Finish::End,
        });
        let failure = match document.error.0.or(choice.error.0) {
            Some(error) => Some(error.failure(told)),
            None if http_status.is_some() => Some(Failure::told(&told)),
            None if finish == Some(Finish::Error) => Some(Failure::ERROR),
            None => None,
        };
        let message = choice.delta.0.or(choice.message.0).unwrap_or_default();
        Some(Self {
            id: document.id.name(),
            model: document.model.name(),
            content: message.content.0,
            is_refusal: !message.refusal.0.is_empty(),
            finish,
            usage: document.usage.0.and_then(|usage| usage.read()),
            failure,
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Document<'a> {
    #[serde(borrow)]
    id: Scalar<'a>,
    #[serde(borrow)]
    model: Scalar<'a>,
    #[serde(borrow)]
    choices: First<Choice<'a>>,
    #[serde(borrow)]
    usage: Object<Used<'a>>,
    #[serde(borrow)]
    error: Object<Wrong<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Choice<'a> {
    #[serde(borrow)]
    delta: Object<Message<'a>>,
    #[serde(borrow)]
    message: Object<Message<'a>>,
    #[serde(borrow)]
    finish_reason: Scalar<'a>,
    #[serde(borrow)]
    error: Object<Wrong<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Message<'a> {
    #[serde(borrow)]
    content: Text<'a>,
    #[serde(borrow)]
    refusal: Text<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Piece<'a> {
    #[serde(borrow)]
    r#type: Scalar<'a>,
    #[serde(borrow)]
    text: Text<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Used<'a> {
    #[serde(borrow)]
    prompt_tokens: Scalar<'a>,
    #[serde(borrow)]
    completion_tokens: Scalar<'a>,
    #[serde(borrow)]
    cost: Scalar<'a>,
}

impl Used<'_> {
    fn read(&self) -> Option<Usage> {
        let (prompt, completion) = (self.prompt_tokens.whole(), self.completion_tokens.whole());
        prompt.or(completion)?;
        let cost = self.cost.real().unwrap_or(0.0);
        let usage =
            Usage { prompt_tokens: prompt.unwrap_or(0), completion_tokens: completion.unwrap_or(0), cost };
        Some(usage.bounded())
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wrong<'a> {
    #[serde(borrow)]
    code: Scalar<'a>,
    #[serde(borrow)]
    metadata: Object<Metadata<'a>>,
    #[serde(borrow)]
    availability: Object<Availability<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata<'a> {
    #[serde(borrow)]
    error_type: Scalar<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Availability<'a> {
    #[serde(borrow)]
    code: Scalar<'a>,
    #[serde(borrow)]
    retryable: Scalar<'a>,
    #[serde(borrow)]
    retry_after: Scalar<'a>,
}

impl Wrong<'_> {
    fn failure(&self, told: Told<'_>) -> Failure {
        let metadata = self.metadata.0.as_ref();
        let availability = self.availability.0.as_ref();
        Failure::told(&Told {
            error_type: metadata.and_then(|metadata| metadata.error_type.word()),
            availability_code: availability.and_then(|availability| availability.code.word()),
            code_word: self.code.word(),
            code_number: self.code.whole(),
            retryable: availability.and_then(|availability| match availability.retryable {
                Scalar::Truth(truth) => Some(truth),
                _ => None,
            }),
            retry_after_s: told
                .retry_after_s
                .or(availability.and_then(|availability| availability.retry_after.whole())),
            ..told
        })
    }
}

/// A number, a word, a truth value; anything else is nothing.
#[derive(Debug, Default, PartialEq)]
enum Scalar<'a> {
    #[default]
    Nothing,
    Truth(bool),
    Whole(u64),
    Real(f64),
    Word(Cow<'a, str>),
}

impl<'a> Scalar<'a> {
    fn word(&self) -> Option<&str> {
        match self {
            Self::Word(word) => Some(word),
            _ => None,
        }
    }

    /// Not negative; rounded up, so that a wait is never shorter than asked for.
    fn whole(&self) -> Option<u64> {
        match self {
            Self::Whole(number) => Some(*number),
            #[expect(
                clippy::as_conversions,
                reason = "from a real number there is no other way, and this one saturates"
            )]
            Self::Real(number) if *number >= 0.0 => Some(number.ceil() as u64),
            Self::Word(digits) => digits.trim().parse().ok(),
            _ => None,
        }
    }

    /// Not negative.
    fn real(&self) -> Option<f64> {
        match self {
            Self::Whole(number) => u32::try_from(*number).ok().map(f64::from),
            Self::Real(number) if *number >= 0.0 => Some(*number),
            _ => None,
        }
    }

    /// A word that can go into a log: printable ASCII, at most 128 bytes.
    fn name(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Word(word)
                if (1..=128).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_graphic()) =>
            {
                Some(word)
            }
            _ => None,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Scalar<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("anything")
            }
            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(Scalar::Nothing)
            }
            fn visit_bool<E: Error>(self, truth: bool) -> Result<Self::Value, E> {
                Ok(Scalar::Truth(truth))
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
                Ok(Scalar::Whole(number))
            }
            fn visit_i64<E: Error>(self, _negative: i64) -> Result<Self::Value, E> {
                Ok(Scalar::Nothing)
            }
            fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
                Ok(Scalar::Real(number))
            }
            fn visit_borrowed_str<E: Error>(self, word: &'de str) -> Result<Self::Value, E> {
                Ok(Scalar::Word(Cow::Borrowed(word)))
            }
            fn visit_str<E: Error>(self, word: &str) -> Result<Self::Value, E> {
                Ok(Scalar::Word(Cow::Owned(word.to_owned())))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
                IgnoredAny.visit_seq(list).map(|_| Scalar::Nothing)
            }
            fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
                IgnoredAny.visit_map(object).map(|_| Scalar::Nothing)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// An object; anything else is nothing. But a word stands for an object that says no more: `"error": "model
/// not found"`.
struct Object<T>(Option<T>);

impl<T> Default for Object<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de> + Default> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de> + Default> Visitor<'de> for Any<T> {
            type Value = Object<T>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("anything")
            }
            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(Object(None))
            }
            fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Object(None))
            }
            fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
                Ok(Object(None))
            }
            fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
                Ok(Object(None))
            }
            fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
                Ok(Object(None))
            }
            fn visit_str<E: Error>(self, word: &str) -> Result<Self::Value, E> {
                Ok(Object((!word.is_empty()).then(T::default)))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
                IgnoredAny.visit_seq(list).map(|_| Object(None))
            }
            fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(object)).map(|object| Object(Some(object)))
            }
        }
        deserializer.deserialize_any(Any(PhantomData))
    }
}

/// The first element of a list, if it is an object.
struct First<T>(Option<T>);

impl<T> Default for First<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de> + Default> Deserialize<'de> for First<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de> + Default> Visitor<'de> for Any<T> {
            type Value = First<T>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list or null")
            }
            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(First(None))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let first = list.next_element::<Object<T>>()?.unwrap_or_default();
                IgnoredAny.visit_seq(list)?;
                Ok(First(first.0))
            }
        }
        deserializer.deserialize_any(Any(PhantomData))
    }
}

/// Text as bytes: a string, or a list of parts of which those of text count; null is empty.
#[derive(Default)]
struct Text<'a>(Cow<'a, [u8]>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl<'de> Visitor<'de> for Bytes {
            type Value = Text<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string, a list of parts or null")
            }
            fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
                Ok(Text::default())
            }
            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
                deserializer.deserialize_bytes(self)
            }
            fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(bytes)))
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(bytes.to_vec())))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut text = Vec::new();
                while let Some(Object(piece)) = list.next_element::<Object<Piece<'de>>>()? {
                    if let Some(piece) = piece
                        && piece.r#type.word().is_none_or(|kind| matches!(kind, "text" | "output_text"))
                    {
                        text.extend_from_slice(&piece.text.0);
                    }
                }
                Ok(Text(Cow::Owned(text)))
            }
        }
        deserializer.deserialize_option(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::problem::Code;

    fn chunk(json: &str) -> Chunk<'_> {
        Chunk::read(json.as_bytes(), None, None).expect("it is an object")
    }

    #[test]
    fn content_is_found_in_every_form() {
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
        let broken = Chunk::read(b"{\"choices\":[{\"delta\":{\"content\":\"a\xFF\xC3\"}}]}", None, None);
        assert_eq!(broken.map(|chunk| chunk.content.into_owned()), Some(b"a\xFF\xC3".to_vec()));
    }

    #[test]
    fn content_without_escapes_is_not_copied() {
        let json = r#"{"model":"m","choices":[{"delta":{"content":"abc"}}]}"#;
        assert!(matches!(
            chunk(json),
            Chunk { content: Cow::Borrowed(b"abc"), model: Some(Cow::Borrowed("m")), .. }
        ));
    }

    #[test]
    fn what_is_no_object_is_no_chunk() {
        for json in [
            "",
            " ",
            "null",
            "7",
            "[]",
            "[{\"choices\":[]}]",
            "{",
            "{\"choices\":[",
            "{} {}",
            "<html>",
            "[DONE]",
            "{\"choices\":7}",
        ] {
            assert_eq!(Chunk::read(json.as_bytes(), None, None), None, "{json}");
        }
    }

    #[test]
    fn the_end_is_told_by_its_reason() {
        for (json, finish) in [
            (r#""stop""#, Some(Finish::End)),
            (r#""tool_calls""#, Some(Finish::End)),
            (r#""STOP""#, Some(Finish::End)),
            (r#""length""#, Some(Finish::Length)),
            (r#""content_filter""#, Some(Finish::ContentFilter)),
            (r#""error""#, Some(Finish::Error)),
            ("null", None),
            ("7", None),
        ] {
            let json = [r#"{"choices":[{"finish_reason":"#, json, "}]}"].concat();
            assert_eq!(chunk(&json).finish, finish, "{json}");
        }
    }

    #[test]
    fn a_refusal_is_one_only_with_words_in_it() {
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
    fn usage_is_read_as_far_as_it_makes_sense() {
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
    fn names_are_taken_only_if_a_log_can_hold_them() {
        let long = ["\"", &"x".repeat(129), "\""].concat();
        for (json, name) in [
            (r#""openai/gpt-4o-mini""#, Some("openai/gpt-4o-mini")),
            (r#""a\u002fb""#, Some("a/b")),
            (r#""a b""#, None),
            (r#""a\nb""#, None),
            (r#""""#, None),
            ("7", None),
            ("null", None),
            (&long, None),
        ] {
            let json = [r#"{"id":"#, json, r#","model":"#, json, "}"].concat();
            let chunk = chunk(&json);
            assert_eq!((chunk.id.as_deref(), chunk.model.as_deref()), (name, name), "{json}");
        }
    }

    #[test]
    fn every_form_of_error_is_a_failure() {
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
            ("{}", AiUnavailable, true, None),
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
        for none in ["null", "false", "0", "[]", r#""""#] {
            assert_eq!(chunk(&[r#"{"error":"#, none, "}"].concat()).failure, None, "{none}");
        }
        assert_eq!(chunk(r#"{"choices":[{"finish_reason":"error"}]}"#).failure, Some(Failure::ERROR));
    }

    #[test]
    fn the_status_counts_where_the_document_says_no_more_and_the_header_is_the_first_to_say_how_long() {
        let failure = |json: &str| {
            Chunk::read(json.as_bytes(), Some(503), Some(3)).and_then(|chunk| chunk.failure).expect(json)
        };
        assert_eq!(failure("{}").note(), "status 503");
        assert_eq!(failure(r#"{"error":{"message":"m"}}"#).note(), "status 503");
        assert_eq!(failure(r#"{"error":{"code":502}}"#).note(), "status 502");
        assert_eq!(failure(r#"{"error":{"availability":{"retry_after":9}}}"#).retry_after_s, Some(3));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_survived(
            parts in proptest::collection::vec(prop_oneof![
                Just("{"), Just("}"), Just("["), Just("]"), Just("\"choices\":"), Just("\"error\":"), Just("\"delta\":"), Just("\"content\":"),
                Just("\"code\":"), Just("\"usage\":"), Just("null"), Just("\"x\""), Just(","), Just("1e99"), Just("-7"), Just("true"), Just("\"\\ud800\""),
            ], 0..30),
            noise in proptest::collection::vec(any::<u8>(), 0..8),
        ) {
            let json = [parts.concat().as_bytes(), &noise].concat();
            let read = Chunk::read(&json, None, None);
            prop_assert!(read.is_none() || serde_json::from_slice::<IgnoredAny>(&json).is_ok());
        }
    }
}
