//! Flashcard candidates: the type, its limits, and the list of valid candidates.
//!
//! ```text
//! {"source": [3, 4], "front": "1 to 200", "back": "1 to 500", "prompt": "1 to 500", …}     characters; the numbers of the
//!                                                                       sentences are optional, other members ignored
//! ```
//! A candidate that is unreadable, empty, too long, of a wrong type or a duplicate is dropped alone and counted; it is never
//! shortened.
//!
//! Not for: finding the candidates ([`super::candidate_finder`]), and their ids (the session).

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::escapes;
use crate::citation::check::read_numbers;
use crate::input::sanitize::sanitize;
use crate::lower_case::push_lower_case;

/// The most characters (Unicode scalar values, after sanitizing) of each field; the least is 1. The checks in
/// `migrations/` repeat them.
pub const CHARS_MAX: [(&str, usize); 3] = [("front", 200), ("back", 500), ("prompt", 500)];

/// A flashcard that the model proposes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The question or cue; 1 to 200 characters.
    pub front: String,
    /// The answer; 1 to 500 characters.
    pub back: String,
    /// The tested knowledge, in one short sentence; 1 to 500 characters.
    pub prompt: String,
    /// The numbers of the sentences that it rests on, as the model names them: any number is possible, and none.
    pub sentences: Vec<usize>,
}

/// Why a candidate was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// It is no JSON object with the three members as strings, each once.
    Unreadable,
    /// A field is empty, or all have punctuation alone: the `"..."` of an example.
    Empty,
    /// A field is over its limit.
    TooLong,
    /// Its front equals that of an earlier candidate, except for case and white space.
    Duplicate,
    /// The maximum is reached.
    TooMany,
}

/// The number of dropped candidates, by the reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DroppedCounts {
    /// [`Dropped::Empty`].
    pub empty: u32,
    /// [`Dropped::TooLong`].
    pub too_long: u32,
    /// [`Dropped::Unreadable`].
    pub unreadable: u32,
    /// [`Dropped::Duplicate`].
    pub duplicate: u32,
    /// [`Dropped::TooMany`].
    pub too_many: u32,
}

impl DroppedCounts {
    const fn count(&mut self, reason: Dropped) {
        let count = match reason {
            Dropped::Empty => &mut self.empty,
            Dropped::TooLong => &mut self.too_long,
            Dropped::Unreadable => &mut self.unreadable,
            Dropped::Duplicate => &mut self.duplicate,
            Dropped::TooMany => &mut self.too_many,
        };
        *count = count.saturating_add(1);
    }

    /// In all.
    #[must_use]
    pub fn total(&self) -> u32 {
        let counts = [self.empty, self.too_long, self.unreadable, self.duplicate, self.too_many];
        counts.iter().fold(0, |total, count| total.saturating_add(*count))
    }
}

/// A candidate, or why it was dropped.
pub type Found = Result<Candidate, Dropped>;

impl Candidate {
    /// Reads the three strings as the model wrote them, with their escapes (also with broken UTF-8 or lone surrogates:
    /// each becomes one U+FFFD), and the numbers of the sentences, which are never a reason to drop it.
    ///
    /// # Errors
    /// [`Dropped`], when the candidate is invalid.
    pub fn read([front, back, prompt]: [&[u8]; 3], sentences: &[u8]) -> Found {
        let [(_, front_max), (_, back_max), (_, prompt_max)] = CHARS_MAX;
        let candidate = Self {
            front: check(front, front_max)?,
            back: check(back, back_max)?,
            prompt: check(prompt, prompt_max)?,
            sentences: read_numbers(sentences),
        };
        let texts = [&candidate.front, &candidate.back, &candidate.prompt];
        if texts.iter().any(|text| text.chars().any(is_of_word)) {
            Ok(candidate)
        } else {
            Err(Dropped::Empty)
        }
    }
}

/// The checks over the candidates of one answer: their number, and duplicates.
#[derive(Debug)]
pub struct Candidates {
    /// The folded front of each candidate so far.
    folded_fronts: BTreeSet<String>,
    count_max: usize,
    dropped: DroppedCounts,
}

impl Candidates {
    /// Creates an empty list of at most `count_max`.
    #[must_use]
    pub const fn new(count_max: usize) -> Self {
        Self {
            folded_fronts: BTreeSet::new(),
            count_max,
            dropped: DroppedCounts { empty: 0, too_long: 0, unreadable: 0, duplicate: 0, too_many: 0 },
        }
    }

    /// Checks a candidate that the reader found.
    ///
    /// # Errors
    /// [`Dropped`], when it is invalid, a duplicate, or one too many; it is counted then.
    pub fn add(&mut self, found: Found) -> Found {
        let checked = found.and_then(|candidate| {
            let folded = fold(&candidate.front);
            if self.folded_fronts.contains(&folded) {
                return Err(Dropped::Duplicate);
            }
            if self.folded_fronts.len() >= self.count_max {
                return Err(Dropped::TooMany);
            }
            self.folded_fronts.insert(folded);
            Ok(candidate)
        });
        if let Err(reason) = checked {
            self.dropped.count(reason);
        }
        checked
    }

    /// Whether the list is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.folded_fronts.is_empty()
    }

    /// Returns the number of dropped candidates.
    #[must_use]
    pub const fn dropped(&self) -> DroppedCounts {
        self.dropped
    }
}

/// Whether the character may be a letter or a digit of some script, or an emoji or a bracket, which can be all that a text and
/// its candidates are made of: not other ASCII punctuation, and not in a block of punctuation and symbols alone.
/// (`char::is_alphanumeric` is exact; its tables would make the module 1.7 KB larger.)
const fn is_of_word(c: char) -> bool {
    match c {
        '\0'..='\u{a9}' => c.is_ascii_alphanumeric() || matches!(c, '(' | ')' | '<'..='>' | '['..=']' | '{'..='}'),
        '\u{ab}'..='\u{b1}' | '\u{b4}' | '\u{b6}'..='\u{b8}' | '\u{bb}' | '\u{bf}' | '\u{d7}' | '\u{f7}' // Latin-1
        | '\u{2000}'..='\u{206f}' | '\u{20a0}'..='\u{20ff}' // punctuation, currencies
        | '\u{2190}'..='\u{245f}' | '\u{2500}'..='\u{25ff}' | '\u{27c0}'..='\u{2bff}' // arrows, mathematics, shapes
        | '\u{2e00}'..='\u{2e2e}' | '\u{2e30}'..='\u{2e7f}' // more punctuation
        | '\u{3000}'..='\u{3004}' | '\u{3008}'..='\u{3020}' | '\u{3030}' | '\u{30fb}' // of Chinese and Japanese
        | '\u{fe00}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff0f}' | '\u{ff1a}'..='\u{ff20}' | '\u{ff3b}'..='\u{ff40}' // their wide forms
        | '\u{ff5b}'..='\u{ff65}' | '\u{ffe0}'..='\u{ffff}' => false,
        _ => true,
    }
}

fn check(raw: &[u8], chars_max: usize) -> Result<String, Dropped> {
    let text = escapes::decode_model_text(raw);
    let text = text_of(&text);
    let clean = sanitize(&text);
    if clean.is_empty() {
        return Err(Dropped::Empty);
    }
    if clean.chars().nth(chars_max).is_some() {
        return Err(Dropped::TooLong);
    }
    Ok(clean.into_owned())
}

/// Folds a front for comparison: white space, case, "ß" and "SS", "ς" and "σ" are equal.
fn fold(front: &str) -> String {
    let mut folded = String::with_capacity(front.len());
    for word in front.split_whitespace() {
        if !folded.is_empty() {
            folded.push(' ');
        }
        for c in word.chars() {
            // The two letters of living scripts whose full folding differs from their lower case.
            match c {
                'ß' | 'ẞ' => folded.push_str("ss"),
                'ς' => folded.push('σ'),
                _ => push_lower_case(&mut folded, c),
            }
        }
    }
    folded
}

/// Converts bytes to text. Two halves of a surrogate pair as WTF-8 become their character; a single half, and any other
/// sequence that is no UTF-8, becomes one U+FFFD.
fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(chunk) = rest.utf8_chunks().next() {
        text.push_str(chunk.valid());
        rest = rest.get(chunk.valid().len()..).unwrap_or_default();
        let (c, length) = match (surrogate(rest), rest.get(3..).and_then(surrogate)) {
            _ if rest.is_empty() => break,
            (Some(high @ 0xD800..=0xDBFF), Some(low @ 0xDC00..=0xDFFF)) => {
                (char::from_u32(0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00)), 6)
            }
            (Some(_), _) => (None, 3),
            (None, _) => (None, chunk.invalid().len()),
        };
        text.push(c.unwrap_or(char::REPLACEMENT_CHARACTER));
        rest = rest.get(length..).unwrap_or_default();
    }
    Cow::Owned(text)
}

/// Returns the surrogate at the beginning of the bytes: three bytes that would be UTF-8 if surrogates were characters.
fn surrogate(bytes: &[u8]) -> Option<u32> {
    match *bytes {
        [0xED, second @ 0xA0..=0xBF, third @ 0x80..=0xBF, ..] => {
            Some(0xD000 | (u32::from(second & 0x3F) << 6) | u32::from(third & 0x3F))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::generation::candidate_finder::{CandidateFinder, Event};

    fn candidate_json(front: &str, back: &str, prompt: &str) -> Vec<u8> {
        serde_json::to_vec(&serde_json::json!({ "front": front, "back": back, "prompt": prompt }))
            .expect("it is JSON")
    }

    /// Finds at most one candidate in a text.
    fn found_in(json: &[u8]) -> Found {
        let mut found = Err(Dropped::Unreadable);
        CandidateFinder::default().push(json, &mut |event| {
            if let Event::Found(one) = event {
                found = one;
            }
        });
        found
    }

    fn accepted(json: &[u8]) -> Result<Candidate, Dropped> {
        Candidates::new(20).add(found_in(json))
    }

    #[test]
    fn a_valid_candidate_is_accepted_unchanged() {
        let text = str::to_owned;
        let expected =
            Candidate { front: text("f"), back: text("b"), prompt: text("p"), sentences: Vec::new() };
        for json in [
            r#"{"front":"f","back":"b","prompt":"p"}"#,
            r#" { "prompt" : "p" , "extra" : { "front": [1, "x", {}] } , "back" : "b" , "front" : "f" , "n" : null } "#,
            r#"{"\u0066ront":"\u0066","back":" b\r\n","prompt":"\u0000p\u0000"}"#,
            "{\"front\":\"\n f\",\"back\":\"b\",\"prompt\":\"\u{feff}p\"}",
            r#"{,"front":"f",,"back":"b","prompt":"p",}"#,
        ] {
            assert_eq!(accepted(json.as_bytes()), Ok(expected.clone()), "{json}");
        }
    }

    #[test]
    fn an_invalid_candidate_is_dropped_with_its_reason() {
        for (json, reason) in [
            (r#"{"front":"f","back":"b"}"#, Dropped::Unreadable),
            (r#"{"front":"f","back":"b","prompt":null}"#, Dropped::Unreadable),
            (r#"{"front":1,"back":"b","prompt":"p"}"#, Dropped::Unreadable),
            (r#"{"front":["f"],"back":"b","prompt":"p"}"#, Dropped::Unreadable),
            (r#"{"front":[102],"back":"b","prompt":"p"}"#, Dropped::Unreadable),
            (r#"{"front":{"a":"f"},"back":"b","prompt":"p"}"#, Dropped::Unreadable),
            (r#"{"front":true,"back":"b","prompt":"p"}"#, Dropped::Unreadable),
            (r#"{"front":"f","front":"g","back":"b","prompt":"p"}"#, Dropped::Unreadable),
            (r#"{"Front":"f","back":"b","prompt":"p"}"#, Dropped::Unreadable),
            (r#"{"front":"f","back":"b","prompt":"p""#, Dropped::Unreadable),
            (r#"{"front":"f" "back":"b","prompt":"p"}"#, Dropped::Unreadable),
            (r#"{"front":"f","back":"b","prompt":"p" x}"#, Dropped::Unreadable),
            (r#"{}"#, Dropped::Unreadable),
            ("", Dropped::Unreadable),
            (r#"{"front":"...","back":"...","prompt":"..."}"#, Dropped::Empty),
            ("{\"front\":\"\u{2026}\",\"back\":\"\u{2192}\",\"prompt\":\"?!\"}", Dropped::Empty),
            (r#"{"front":"","back":"b","prompt":"p"}"#, Dropped::Empty),
            (r#"{"front":"f","back":" \u0000\n\ufeff","prompt":"p"}"#, Dropped::Empty),
        ] {
            assert_eq!(accepted(json.as_bytes()), Err(reason), "{json}");
        }
    }

    #[test]
    fn a_candidate_needs_more_than_punctuation_in_one_field() {
        for (front, back, prompt) in [
            ("\u{2192}", "\u{2192}", "7"),
            ("\u{1f600}", "...", "..."),
            ("...", "...", "\u{2764}\u{fe0f}"),
            ("{}", "\"", "..."),
            ("\u{6c34}", "...", "..."),
            ("...", "\u{5de}", "..."),
            ("\u{3bb}", "\u{2260}", "?"),
        ] {
            assert!(accepted(&candidate_json(front, back, prompt)).is_ok(), "{front} {back} {prompt}");
        }
    }

    #[test]
    fn letters_and_digits_count_as_words_and_punctuation_does_not() {
        for c in (0..=0x10_FFFF).filter_map(char::from_u32).filter(|c| c.is_alphanumeric()) {
            assert!(is_of_word(c), "{}", c.escape_unicode());
        }
        for c in "...\u{2026}?!-\u{2013}\u{2014}\u{bf}\u{a1}\u{ab}\u{bb}\u{201c}\u{2192}\u{2260}\u{221e}\u{25a1}\u{3002}\u{3001}\u{30fb}\u{ff1f}\u{fe0f}\u{fffd}_*`".chars() {
            assert!(!is_of_word(c), "{}", c.escape_unicode());
        }
    }

    #[test]
    fn a_field_is_limited_to_its_maximum_of_characters() {
        for c in ["x", "\u{1f600}", "\u{301}"] {
            let of = |count: usize| c.repeat(count);
            assert!(accepted(&candidate_json(&of(200), &of(500), &["p", &of(499)].concat())).is_ok());
            assert!(accepted(&candidate_json(&[" ", &of(200), "\n"].concat(), "b", "p")).is_ok());
            assert_eq!(accepted(&candidate_json(&of(201), "b", "p")), Err(Dropped::TooLong));
            assert_eq!(accepted(&candidate_json("f", &of(501), "p")), Err(Dropped::TooLong));
            assert_eq!(accepted(&candidate_json("f", "b", &of(501))), Err(Dropped::TooLong));
        }
    }

    #[test]
    fn fronts_that_are_equal_after_folding_are_duplicates() {
        for (first, second, reason) in [
            ("What is it?", "what  IS\n it?", Err(Dropped::Duplicate)),
            ("Stra\u{df}e", "STRASSE", Err(Dropped::Duplicate)),
            (
                "\u{3a3}\u{3af}\u{3c3}\u{3c5}\u{3c6}\u{3bf}\u{3c2}",
                "\u{3a3}\u{38a}\u{3a3}\u{3a5}\u{3a6}\u{39f}\u{3a3}",
                Err(Dropped::Duplicate),
            ),
            ("a\u{a0}b", "A B", Err(Dropped::Duplicate)),
            ("a b", "ab", Ok(())),
            ("What is it?", "What is it", Ok(())),
        ] {
            let mut candidates = Candidates::new(20);
            candidates.add(found_in(&candidate_json(first, "b", "p"))).expect("the first is accepted");
            assert_eq!(
                candidates.add(found_in(&candidate_json(second, "c", "q"))).map(|_| ()),
                reason,
                "{first} {second}"
            );
        }
    }

    #[test]
    fn candidates_over_the_maximum_are_dropped_and_counted() {
        let mut candidates = Candidates::new(2);
        assert!(candidates.is_empty());
        let outcomes = ["a", "", "A", "b", "c", "a", "d"].map(|front| {
            candidates.add(found_in(&candidate_json(front, "b", "p"))).map(|candidate| candidate.front)
        });
        assert_eq!(
            outcomes,
            [
                Ok("a".to_owned()),
                Err(Dropped::Empty),
                Err(Dropped::Duplicate),
                Ok("b".to_owned()),
                Err(Dropped::TooMany),
                Err(Dropped::Duplicate),
                Err(Dropped::TooMany),
            ]
        );
        let dropped = DroppedCounts { empty: 1, duplicate: 2, too_many: 2, ..DroppedCounts::default() };
        assert_eq!((candidates.dropped(), dropped.total()), (dropped, 5));
        assert!(!candidates.is_empty());
    }

    #[test]
    fn invalid_utf_8_becomes_replacement_characters() {
        for (front, expected) in [
            (b"a\\ud83db".as_slice(), "a\u{fffd}b"),
            (b"a\\ude00b", "a\u{fffd}b"),
            (b"\\ud83d\\ud83d\\ude00\\ude00", "\u{fffd}\u{1f600}\u{fffd}"),
            (b"\\ud83d\\n", "\u{fffd}"),
            (b"\\ud83d\\ude00", "\u{1f600}"),
            (b"\xED\xA0\xBD\xED\xB8\x80", "\u{1f600}"),
            (b"\xED\xA0\x80\xED\xB0\x80\xED\xAF\xBF\xED\xBF\xBF", "\u{10000}\u{10ffff}"),
            (b"\xED\xA0\xBD\\ude00", "\u{1f600}"),
            (b"\\ud83d\xED\xB8\x80", "\u{1f600}"),
            (b"a\xED\xA0\xBDb", "a\u{fffd}b"),
            (b"\xED\xB8\x80\xED\xA0\xBD", "\u{fffd}\u{fffd}"),
            (b"a\xFFb", "a\u{fffd}b"),
            (b"a\xE6\x97b\xC3", "a\u{fffd}b\u{fffd}"),
            (b"\xF0\x9F\x98\x80\xC3\xA9\xFF", "\u{1f600}\u{e9}\u{fffd}"),
        ] {
            let json = [b"{\"front\":\"".as_slice(), front, b"\",\"back\":\"b\",\"prompt\":\"p\"}"].concat();
            assert_eq!(
                accepted(&json).map(|candidate| candidate.front),
                Ok(expected.to_owned()),
                "{}",
                front.escape_ascii()
            );
        }
    }

    proptest! {
        #[test]
        fn the_utf_16_halves_of_a_character_are_joined(text in any::<String>()) {
            let mut halves = Vec::new();
            for unit in text.encode_utf16() {
                match char::from_u32(u32::from(unit)) {
                    Some(c) => halves.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                    None => halves.extend([0xED, 0x80 | u8::try_from(unit >> 6 & 0x3F)?, 0x80 | u8::try_from(unit & 0x3F)?]),
                }
            }
            prop_assert_eq!(text_of(&halves), text.as_str());
            prop_assert_eq!(text_of(text.as_bytes()), text.as_str());
        }

        #[test]
        fn bytes_without_surrogates_decode_as_in_the_standard_library(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 0xC0u8..=0xFF], 0..40)
                .prop_filter("no surrogate", |bytes| !bytes.windows(2).any(|two| two[0] == 0xED && two[1] >= 0xA0)),
        ) {
            prop_assert_eq!(text_of(&bytes), String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn accepted_candidates_hold_to_the_contract(json in proptest::collection::vec(any::<u8>(), 0..200)) {
            let framed = [b"{\"front\":\"".as_slice(), &json, b"\",\"back\":\"b\",\"prompt\":\"p\"}"].concat();
            for json in [&json, &framed] {
                if let Ok(candidate) = accepted(json) {
                    prop_assert!((1..=200).contains(&candidate.front.chars().count()));
                    prop_assert_eq!(sanitize(&candidate.front), candidate.front.as_str());
                }
            }
        }
    }
}
