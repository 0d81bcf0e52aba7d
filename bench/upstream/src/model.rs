//! The model's answers, composed once for each list name and response format.

use std::collections::HashMap;
use std::rc::Rc;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::settings::Settings;

/// An answer, ready to be written.
pub enum Answer {
    /// HTTP chunks, each with the number of cards that it closes.
    Stream(Vec<(Vec<u8>, usize)>),
    /// A completion, and the chunks that a stream would have had.
    Whole { body: Vec<u8>, chunks: u32 },
}

/// The composed answers, by the name of the list in the root and whether it is a stream. To be dropped when the settings
/// change.
#[derive(Default)]
pub struct Answers(HashMap<(Cards, bool), Rc<Answer>>);

/// The form of the cards that a request's schema describes.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Cards {
    /// The member of the answer's root that contains them.
    list: String,
    /// Whether each names its sentences.
    has_source: bool,
}

impl Default for Cards {
    fn default() -> Self {
        Self { list: "candidates".to_owned(), has_source: false }
    }
}

/// The parts of a request that decide the answer.
#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    stream: bool,
    response_format: Option<ResponseFormat>,
}

#[derive(Deserialize)]
struct ResponseFormat {
    json_schema: Option<JsonSchema>,
}

#[derive(Deserialize)]
struct JsonSchema {
    schema: Value,
}

impl Answers {
    /// `None` when the request is no JSON.
    pub fn find(&mut self, settings: &Settings, body: &[u8]) -> Option<Rc<Answer>> {
        let request: Request = serde_json::from_slice(body).ok()?;
        let form = request.response_format.and_then(|format| format.json_schema).and_then(cards_of);
        let (form, stream) = (form.unwrap_or_default(), request.stream);
        let compose = |(form, stream): &(Cards, bool)| {
            let message = message(form, settings.cards);
            let chunks = chunks_of(&message, settings.chunk_bytes.max(1));
            Rc::new(if *stream { stream_of(&chunks) } else { whole(&message, chunks.len()) })
        };
        let key = (form, stream);
        Some(Rc::clone(self.0.entry(key.clone()).or_insert_with(|| compose(&key))))
    }
}

/// The form of the cards: the schema's first list.
fn cards_of(format: JsonSchema) -> Option<Cards> {
    let properties = format.schema.get("properties")?.as_object()?;
    let (list, schema) =
        properties.iter().find(|(_, schema)| schema.get("type").is_some_and(|kind| kind == "array"))?;
    let has_source = schema.pointer("/items/properties/source").is_some();
    Some(Cards { list: list.clone(), has_source })
}

/// The sentences of the text.
const SENTENCES: usize = 23;

/// The message: cards of some 220 bytes, as a model writes them of a page about the water cycle.
fn message(Cards { list, has_source }: &Cards, cards: usize) -> String {
    let cards: Vec<String> = (1..=cards)
        .map(|number| {
            let mut card = json!({
                "front": format!("{number}. What carries water from the sea into the air?"),
                "back": "Evaporation: the sun's heat turns surface water into vapour, which rises with warm air.",
                "prompt": format!("Tests step {number} of the way of water through sea, air and land."),
            });
            if *has_source {
                card["source"] = json!([number % SENTENCES + 1]);
            }
            card.to_string()
        })
        .collect();
    format!("{{\"{list}\":[{}]}}", cards.join(","))
}

/// The chunks of the message, which is ASCII, each with the number of cards that end in it.
fn chunks_of(message: &str, bytes: usize) -> Vec<(&str, usize)> {
    let chunks = message.as_bytes().chunks(bytes).map(|chunk| str::from_utf8(chunk).unwrap_or_default());
    // The last brace is the root's.
    let last = message.len() - 1;
    let mut end = 0;
    chunks
        .map(|chunk| {
            let start = end;
            end += chunk.len();
            let braces = chunk.bytes().enumerate().filter(|(at, byte)| *byte == b'}' && start + at != last);
            (chunk, braces.count())
        })
        .collect()
}

const MODEL: &str = "bench/model";

fn usage() -> Value {
    json!({ "prompt_tokens": 600, "completion_tokens": 400, "total_tokens": 1000, "cost": 0.00033,
            "prompt_tokens_details": { "cached_tokens": 0 }, "completion_tokens_details": { "reasoning_tokens": 0 } })
}

fn stream_of(parts: &[(&str, usize)]) -> Answer {
    let event = |data: &str| http_chunk(&format!("data: {data}\n\n"));
    let chunk = |delta: Value, finish_reason: Option<&str>| {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish_reason, "native_finish_reason": finish_reason });
        event(&head("chat.completion.chunk", &json!({ "choices": [choice] })))
    };
    let mut chunks = vec![
        (http_chunk(": OPENROUTER PROCESSING\n\n"), 0),
        (chunk(json!({ "role": "assistant", "content": "" }), None), 0),
    ];
    chunks.extend(
        parts
            .iter()
            .map(|(part, closed)| (chunk(json!({ "role": "assistant", "content": part }), None), *closed)),
    );
    chunks.push((chunk(json!({ "role": "assistant", "content": "" }), Some("stop")), 0));
    chunks.push((event(&head("chat.completion.chunk", &json!({ "choices": [], "usage": usage() }))), 0));
    chunks.push((event("[DONE]"), 0));
    Answer::Stream(chunks)
}

fn whole(message: &str, chunks: usize) -> Answer {
    let choice = json!({ "index": 0, "message": { "role": "assistant", "content": message, "refusal": null },
                         "finish_reason": "stop", "native_finish_reason": "stop" });
    let body = head("chat.completion", &json!({ "choices": [choice], "usage": usage() }));
    Answer::Whole { body: body.into_bytes(), chunks: u32::try_from(chunks).unwrap_or(u32::MAX) }
}

/// The first members of every document of the model API.
fn head(object: &str, more: &Value) -> String {
    let mut document = json!({ "id": "gen-1795500000-bench", "provider": "Bench", "model": MODEL, "object": object, "created": 1_795_500_000 });
    if let (Some(document), Some(more)) = (document.as_object_mut(), more.as_object()) {
        document.extend(more.clone());
    }
    document.to_string()
}

fn http_chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}
