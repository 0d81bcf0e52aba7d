//! Cards out of content: the same at any borders, and of a content that is JSON exactly those that are in it.
//!
//! The first two bytes of the input say how long the pieces are.
#![no_main]

use std::fmt;

use ai_sessions::generation::candidate_reader::CandidateReader;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [first, second] = data.first_chunk::<2>().copied().unwrap_or_default();
    let content = data.get(2..).unwrap_or_default();
    for takes_all in [true, false] {
        let whole = read(&[content], takes_all);
        let size = usize::from(first) + 1;
        let (head, tail) = content.split_at(usize::from(second).min(content.len()));
        assert_eq!(read(&content.chunks(size).collect::<Vec<_>>(), takes_all), whole, "by {size}");
        assert_eq!(read(&content.chunks(1).collect::<Vec<_>>(), takes_all), whole, "byte by byte");
        assert_eq!(read(&[head, tail], takes_all), whole, "at {second}");
        for card in &whole.0 {
            // Whether the right bracket closes it is for the reader of the card to say.
            let is_bracketed = card.starts_with(b"{") && matches!(card.last(), Some(b'}' | b']'));
            assert!(card.is_empty() || is_bracketed && card.len() <= content.len());
        }
    }
    if let Some(elements) = elements_of_json(content) {
        let (cards, is_closed) = read(&[content], true);
        let found: Vec<Value> =
            cards.iter().map(|card| serde_json::from_slice(card).unwrap_or(Value::Null)).collect();
        let there: Vec<Value> = elements
            .into_iter()
            .map(|element| if element.is_object() { element } else { Value::Null })
            .collect();
        assert_eq!(found, there);
        assert!(is_closed || !there.iter().any(Value::is_object));
    }
});

/// The cards, and whether the JSON was closed.
fn read(pieces: &[&[u8]], takes_all: bool) -> (Vec<Vec<u8>>, bool) {
    let mut cards: Vec<Vec<u8>> = Vec::new();
    let mut reader = CandidateReader::default();
    for piece in pieces {
        reader.push(piece, |card| {
            cards.push(card.to_vec());
            !card.is_empty() && (takes_all || card.contains(&b'f'))
        });
    }
    let has_card = cards.iter().any(|card| !card.is_empty() && (takes_all || card.contains(&b'f')));
    assert_eq!(reader.has_card(), has_card);
    (cards, reader.is_closed())
}

/// Of a content that is one JSON document with a root that counts: the elements of all arrays directly in it.
fn elements_of_json(content: &[u8]) -> Option<Vec<Value>> {
    match serde_json::from_slice::<Root>(content).ok()? {
        // An array counts as a root from its first element on, which must be an object.
        Root::Array(elements) => elements.first().is_some_and(Value::is_object).then_some(elements),
        Root::Object(elements) => Some(elements),
    }
}

enum Root {
    Array(Vec<Value>),
    Object(Vec<Value>),
}

impl<'de> Deserialize<'de> for Root {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Root;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a root")
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Root, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = items.next_element()? {
                    elements.push(element);
                }
                Ok(Root::Array(elements))
            }
            // By hand, because a map would keep one of two members with the same name.
            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Root, A::Error> {
                let mut elements = Vec::new();
                while let Some((_, value)) = members.next_entry::<String, Value>()? {
                    if let Value::Array(more) = value {
                        elements.extend(more);
                    }
                }
                Ok(Root::Object(elements))
            }
        }
        deserializer.deserialize_any(Members)
    }
}
