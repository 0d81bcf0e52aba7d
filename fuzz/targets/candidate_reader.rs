//! The candidates in content: the same at any chunk borders, and for JSON exactly those that an oracle finds.
//!
//! The first two bytes of the input are the length of the chunks and the place of a gap.
#![no_main]

use std::fmt;

use ai_sessions::generation::candidate::{Candidate, Dropped, Found};
use ai_sessions::generation::candidate_finder::{CandidateFinder, Event};
use ai_sessions::generation::candidate_reader::CandidateReader;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [first, second] = data.first_chunk::<2>().copied().unwrap_or_default();
    let content = data.get(2..).unwrap_or_default();
    let size = usize::from(first) + 1;
    let (head, tail) = content.split_at(usize::from(second).min(content.len()));
    let whole = read(&[content], None);
    assert_eq!(read(&content.chunks(size).collect::<Vec<_>>(), None), whole, "by {size}");
    assert_eq!(read(&content.chunks(1).collect::<Vec<_>>(), None), whole, "byte by byte");
    assert_eq!(read(&[head, tail], None), whole, "at {second}");

    let gap = usize::from(first ^ second).min(content.len());
    let whole = read(&[content], Some(gap));
    assert_eq!(
        read(&content.chunks(size).collect::<Vec<_>>(), Some(gap)),
        whole,
        "by {size}, a gap at {gap}"
    );
    for front in whole.0.iter().flatten().map(|candidate| &candidate.front) {
        // Content is not joined over the gap: a text without escapes is on one of its sides.
        let stands_in = |side: &[u8]| side.windows(front.len()).any(|part| part == front.as_bytes());
        let (before, after) = content.split_at(gap);
        let is_plain = front.chars().all(|c| c.is_alphanumeric()) && !content.contains(&b'\\');
        assert!(!is_plain || std::str::from_utf8(content).is_err() || stands_in(before) || stands_in(after));
    }

    if !content.contains(&b'\\')
        && let Ok(root) = serde_json::from_slice::<Json>(content)
        && root.counts_as_root()
    {
        let mut there = Vec::new();
        root.candidates(&mut there);
        let mut found = Vec::new();
        CandidateFinder::default().push(content, &mut |event| {
            if let Event::Found(one) = event
                && one != Err(Dropped::Unreadable)
            {
                found.push(one.map(|candidate| Candidate { sentences: Vec::new(), ..candidate }));
            }
        });
        assert_eq!(found, there);
    }
});

/// Returns the findings, and whether the JSON was closed, with a gap before the byte at `gap`.
fn read(chunks: &[&[u8]], gap: Option<usize>) -> (Vec<Found>, bool) {
    let mut given: Vec<Found> = Vec::new();
    let mut take = |found: Found| {
        let is_taken = found.is_ok();
        given.push(found);
        is_taken
    };
    let mut reader = CandidateReader::default();
    let mut at = 0;
    for chunk in chunks {
        let middle = gap.and_then(|gap| gap.checked_sub(at)).filter(|middle| *middle < chunk.len());
        match middle {
            Some(middle) => {
                reader.push(&chunk[..middle], &mut take);
                reader.skip();
                reader.push(&chunk[middle..], &mut take);
            }
            None => reader.push(chunk, &mut take),
        }
        at += chunk.len();
    }
    reader.finish(&mut take);
    let (has_candidate, is_closed) = (reader.has_candidate(), reader.is_closed());
    assert_eq!(has_candidate, given.iter().any(Result::is_ok));
    (given, is_closed)
}

/// JSON with duplicate members.
enum Json {
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
    Other,
}

impl Json {
    /// A list that begins with something else may be prose.
    fn counts_as_root(&self) -> bool {
        match self {
            Self::Object(_) => true,
            Self::List(items) => matches!(items.first(), Some(Self::Object(_) | Self::List(_))),
            Self::Text(_) | Self::Other => false,
        }
    }

    /// Each object with the three members as strings, once each, in the order in which they are closed.
    fn candidates(&self, found: &mut Vec<Found>) {
        match self {
            Self::List(items) => items.iter().for_each(|item| item.candidates(found)),
            Self::Object(members) => {
                members.iter().for_each(|(_, value)| value.candidates(found));
                let texts = ["front", "back", "prompt"].map(|wanted| {
                    let mut values =
                        members.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value);
                    match (values.next(), values.next()) {
                        (Some(Self::Text(text)), None) => Some(text.as_bytes()),
                        _ => None,
                    }
                });
                if let [Some(front), Some(back), Some(prompt)] = texts {
                    found.push(Candidate::read([front, back, prompt], &[]));
                }
            }
            Self::Text(_) | Self::Other => {}
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Json;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("anything")
            }
            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Other)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
                Ok(Json::Other)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Json, E> {
                Ok(Json::Other)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
                Ok(Json::Other)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
                Ok(Json::Other)
            }
            fn visit_str<E>(self, text: &str) -> Result<Json, E> {
                Ok(Json::Text(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Json::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
                let mut object = Vec::new();
                while let Some(member) = members.next_entry()? {
                    object.push(member);
                }
                Ok(Json::Object(object))
            }
        }
        deserializer.deserialize_any(Any)
    }
}
