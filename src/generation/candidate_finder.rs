//! Finds candidates in text: each object with the three members as strings, at any depth of any JSON, at its
//! closing brace. One pass, a bounded stack, no recursion over the text.
//!
//! ```text
//! Here: { "cards": [         a root: a `{` and then `"` or `}`; or a `[` and then `{`, `[`, `]` or such a string
//!   {"front": …, },          an object: a candidate when its three strings are complete; an extra comma is ignored
//!   null,                    another element of a list of candidates: reported as unreadable, so that it is counted
//!   "[{\"front\": …}]",      JSON within a string: read with the string
//! ] }                        the root ends
//! ```
//! A candidate may name the sentences that it rests on in one more member, of any type.
//!
//! Bytes are JSON if a root follows the grammar; one that does not (`{name}` in prose, `{"a" and`) is prose, and the search
//! continues there. An object within a root that does not follow it is broken; the others are not affected. Outside of
//! strings no byte beyond ASCII has a meaning, so text may contain broken UTF-8 and chunk borders may be anywhere.
//!
//! Not for: which of several roots is the answer ([`super::candidate_reader`]).

use super::candidate::{Candidate, Dropped, Found};
use super::escapes;
use crate::json::Brackets;

/// The deepest nesting in which candidates are found. A list in a few envelopes has less than ten; a stream that repeats its
/// beginning in each chunk has more, and is no answer.
const DEPTH_MAX: usize = 128;
/// The most strings around JSON; each level is read by its own finder.
const STRINGS_MAX: u8 = 3;
/// The longest string of a candidate, with its escapes. 500 characters at 12 bytes each (`\uXXXX\uXXXX`) have 6000; the
/// rest is for white space and control characters, which do not count.
const FIELD_BYTES_MAX: usize = 16 * 1024;
/// The longest value of [`SENTENCES`] that is kept; further numbers are ignored. More than `citation` reads of one candidate.
const SENTENCES_BYTES_MAX: usize = 256;
/// The most white space at the beginning of a string that may contain JSON.
const INDENT_BYTES_MAX: usize = 64;

/// A finding.
#[derive(Debug)]
pub enum Event {
    /// An object with the three members, or another element of a list of candidates.
    Found(Found),
    /// A root is closed.
    Closed(Root),
    /// A root, or the JSON in a string of it, is no JSON. Its candidates stay reported.
    Abandoned,
}

/// A root that is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// The root contains a list of candidates.
    List,
    /// The root is a candidate, or contains candidates outside of lists: more roots may follow, one a line.
    Single,
    /// The root contains a list and no candidate.
    EmptyList,
    /// The root contains neither.
    Other,
}

/// Receives the findings.
pub type OnEvent<'a> = dyn FnMut(Event) + 'a;

/// The state between two chunks of text.
#[derive(Debug, Default)]
pub struct CandidateFinder {
    /// INVARIANT: at most [`DEPTH_MAX`].
    open: Vec<Open>,
    place: Place,
    /// The stored part of the open string.
    text: Vec<u8>,
    is_escaped: bool,
    is_too_long: bool,
    inner: Inner,
    /// The root has a member, or an object with one: an error in it does not make it prose.
    is_json: bool,
    has_list: bool,
    has_list_of_candidates: bool,
    /// The number of strings around this JSON.
    strings: u8,
}

/// An object or a list that is not closed.
#[derive(Debug)]
enum Open {
    Object(Object),
    List(List),
}

#[derive(Debug, Default)]
struct Object {
    expects: Expects,
    /// The index of the open member among the three.
    member: Option<usize>,
    /// The three strings with their escapes.
    values: [Option<Vec<u8>>; 3],
    /// Whether the open member is [`SENTENCES`].
    is_naming_sentences: bool,
    /// The words and strings of that member, each with a space before it.
    sentences: Vec<u8>,
    has: [bool; 3],
    is_broken: bool,
    is_too_long: bool,
    has_found: bool,
}

#[derive(Debug, Default)]
struct List {
    has_element: bool,
    has_found: bool,
    /// Other elements before the first candidate.
    others: u32,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Expects {
    /// A name, a comma or the end.
    #[default]
    Name,
    Colon,
    Value,
    /// A comma or the end.
    Comma,
}

#[derive(Debug, Default)]
enum Place {
    /// Outside of strings and words; without an open bracket: in prose.
    #[default]
    Between,
    /// After a quote in prose: the beginning of JSON in a string, or not.
    Quote,
    /// In a string.
    Text(Text),
    /// In a number, `null`, or anything else without quotes.
    Word,
    /// In a value that is nested too deep.
    TooDeep(Brackets),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Name,
    Member(usize),
    /// Of the member with the sentences.
    Sentences,
    Other,
}

/// The content of a string that is no member of a candidate.
#[derive(Debug, Default)]
enum Inner {
    /// Only white space so far.
    #[default]
    Unknown,
    Text,
    Json(Box<Within>),
}

#[derive(Debug, Default)]
struct Within {
    finder: CandidateFinder,
    has_found: bool,
    has_list: bool,
}

const NAMES: [&[u8]; 3] = [b"front", b"back", b"prompt"];
/// The member with the numbers of the sentences that a candidate rests on: a list, one number, or anything else.
const SENTENCES: &[u8] = b"source";

impl CandidateFinder {
    /// Processes the next bytes of text.
    pub fn push(&mut self, chunk: &[u8], on_event: &mut OnEvent<'_>) {
        let mut rest = chunk;
        while let Some((&byte, tail)) = rest.split_first() {
            match &mut self.place {
                Place::Between => {
                    self.step(byte, on_event);
                    rest = tail;
                }
                Place::Text(text) => {
                    let text = *text;
                    let length = self.push_text(text, rest, on_event);
                    rest = rest.get(length..).unwrap_or_default();
                }
                Place::Word if is_of_word(byte) => {
                    let end = rest.iter().position(|byte| !is_of_word(*byte)).unwrap_or(rest.len());
                    let (word, after) = rest.split_at_checked(end).unwrap_or_default();
                    self.push_sentences(word);
                    rest = after;
                }
                Place::Word => self.end_value(false, on_event),
                Place::Quote if matches!(byte, b'{' | b'[' | b'\\') => self.begin_text(Text::Other),
                Place::Quote => self.place = Place::Between,
                Place::TooDeep(brackets) => {
                    if brackets.closes(byte) {
                        self.end_value(false, on_event);
                    }
                    rest = tail;
                }
            }
        }
    }

    /// Whether no JSON is open.
    #[must_use]
    pub fn is_in_prose(&self) -> bool {
        self.open.is_empty() && !self.is_in_text()
    }

    /// Whether a candidate may be open: not in prose, and not between the elements of a list.
    #[must_use]
    pub fn is_in_candidate(&self) -> bool {
        let is_between = matches!(self.place, Place::Between);
        !(is_between && matches!(self.open.last(), None | Some(Open::List(_))))
    }

    /// Whether a string is open.
    #[must_use]
    pub const fn is_in_text(&self) -> bool {
        matches!(self.place, Place::Text(_))
    }

    /// Drops the open root: the bytes that follow do not continue it.
    pub fn reset(&mut self) {
        self.open.clear();
        self.place = Place::Between;
        self.is_json = false;
        self.has_list = false;
        self.has_list_of_candidates = false;
    }

    /// Processes one byte outside of strings and words.
    fn step(&mut self, byte: u8, on_event: &mut OnEvent<'_>) {
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            return;
        }
        let is_root = self.open.len() == 1;
        if let Some(sentences) = self.open_sentences() {
            match byte {
                b'"' => return self.begin_text(Text::Sentences),
                // The first byte of a word.
                _ if is_of_word(byte) => sentences.extend([b' ', byte]),
                _ => {}
            }
        }
        match self.open.last_mut() {
            None => match byte {
                b'{' | b'[' => self.open(byte),
                b'"' => self.place = Place::Quote,
                _ => {}
            },
            Some(Open::List(list)) => match byte {
                b'{' | b'[' => self.open(byte),
                b'"' => self.begin_text(Text::Other),
                b']' => self.close(on_event),
                b',' | b':' | b'}' => {}
                _ if is_root && !list.has_element => self.abandon(byte, on_event),
                _ => self.place = Place::Word,
            },
            Some(Open::Object(object)) => match (object.expects, byte) {
                (Expects::Name, b'"') => {
                    self.is_json |= !is_root;
                    self.begin_text(Text::Name);
                }
                (Expects::Name | Expects::Comma, b',') => object.expects = Expects::Name,
                (Expects::Name | Expects::Comma, b'}') => self.close(on_event),
                // An extra bracket is ignored, as an extra comma is.
                (Expects::Comma, b']') => {}
                (Expects::Colon, b':') => {
                    object.expects = Expects::Value;
                    self.is_json = true;
                }
                (Expects::Value, b'"') => {
                    let text = object.member.map_or(Text::Other, Text::Member);
                    self.begin_text(text);
                }
                (Expects::Value, b'{' | b'[') => self.open(byte),
                (Expects::Value, _) if is_of_word(byte) => self.place = Place::Word,
                _ if is_root || !self.is_json => self.abandon(byte, on_event),
                // An error in an object within a root drops that object alone.
                (_, byte) => {
                    object.is_broken = true;
                    match byte {
                        b'"' => self.begin_text(Text::Name),
                        b'{' | b'[' => self.open(byte),
                        b'}' => self.close(on_event),
                        b':' => object.expects = Expects::Value,
                        b',' => object.expects = Expects::Name,
                        _ => {}
                    }
                }
            },
        }
    }

    /// The numbers of the candidate whose member with the sentences is open: its value is next, or an element of its list.
    fn open_sentences(&mut self) -> Option<&mut Vec<u8>> {
        let (last, others) = self.open.split_last_mut()?;
        let object = match (last, others.last_mut()) {
            (Open::Object(object), _) if object.expects == Expects::Value => object,
            (Open::List(_), Some(Open::Object(object))) => object,
            _ => return None,
        };
        let is_open = object.is_naming_sentences && object.sentences.len() < SENTENCES_BYTES_MAX;
        is_open.then_some(&mut object.sentences)
    }

    fn push_sentences(&mut self, bytes: &[u8]) {
        if let Some(sentences) = self.open_sentences() {
            let left = SENTENCES_BYTES_MAX.saturating_sub(sentences.len());
            sentences.extend_from_slice(bytes.get(..left).unwrap_or(bytes));
        }
    }

    fn open(&mut self, bracket: u8) {
        if self.open.is_empty() {
            self.reset();
        }
        if self.open.len() >= DEPTH_MAX {
            let mut brackets = Brackets::default();
            brackets.closes(bracket);
            self.place = Place::TooDeep(brackets);
            return;
        }
        self.has_list |= bracket == b'[';
        self.open.push(if bracket == b'[' {
            Open::List(List::default())
        } else {
            Open::Object(Object::default())
        });
    }

    fn close(&mut self, on_event: &mut OnEvent<'_>) {
        let has_found = match self.open.pop() {
            None => false,
            Some(Open::List(list)) => {
                self.has_list_of_candidates |= list.has_found;
                list.has_found
            }
            Some(Open::Object(object)) => {
                let has_found = object.has_found;
                object.found().map(|found| on_event(Event::Found(found))).is_some() || has_found
            }
        };
        self.end_value(has_found, on_event);
    }

    /// Ends a value; with `has_found` the value is a candidate or contains one.
    fn end_value(&mut self, has_found: bool, on_event: &mut OnEvent<'_>) {
        self.place = Place::Between;
        match self.open.last_mut() {
            Some(Open::Object(object)) => {
                object.expects = Expects::Comma;
                object.has_found |= has_found;
            }
            Some(Open::List(list)) => {
                list.has_element = true;
                list.has_found |= has_found;
                list.others = list.others.saturating_add(u32::from(!has_found));
                if list.has_found {
                    for _ in 0..std::mem::take(&mut list.others) {
                        on_event(Event::Found(Err(Dropped::Unreadable)));
                    }
                }
            }
            None => {
                let root = match (has_found, self.has_list_of_candidates, self.has_list) {
                    (true, true, _) => Root::List,
                    (true, false, _) => Root::Single,
                    (false, _, true) => Root::EmptyList,
                    (false, _, false) => Root::Other,
                };
                on_event(Event::Closed(root));
                self.reset();
            }
        }
    }

    /// Drops a root that is prose; this byte may open another.
    fn abandon(&mut self, byte: u8, on_event: &mut OnEvent<'_>) {
        self.reset();
        on_event(Event::Abandoned);
        self.step(byte, on_event);
    }

    fn begin_text(&mut self, text: Text) {
        if self.open.is_empty() {
            self.reset();
        }
        self.place = Place::Text(text);
        self.text.clear();
        self.is_escaped = false;
        self.is_too_long = false;
        self.inner = Inner::Unknown;
    }

    /// Processes bytes of a string; returns their number, the closing quote included.
    fn push_text(&mut self, text: Text, bytes: &[u8], on_event: &mut OnEvent<'_>) -> usize {
        let end = bytes.iter().position(|byte| {
            let is_end = *byte == b'"' && !self.is_escaped;
            self.is_escaped = *byte == b'\\' && !self.is_escaped;
            is_end
        });
        let kept = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
        if text == Text::Other {
            self.push_inner(kept, on_event);
        } else {
            self.is_too_long |= self.text.len().saturating_add(kept.len()) > FIELD_BYTES_MAX;
            if !self.is_too_long {
                self.text.extend_from_slice(kept);
            }
        }
        if end.is_some() {
            self.end_text(text, on_event);
        }
        kept.len().saturating_add(1).min(bytes.len())
    }

    fn end_text(&mut self, text: Text, on_event: &mut OnEvent<'_>) {
        match (text, self.open.last_mut()) {
            (Text::Name, Some(Open::Object(object))) => {
                let name = escapes::decode_server_text(&self.text);
                object.member = NAMES.iter().position(|known| *known == &*name);
                object.is_naming_sentences = &*name == SENTENCES;
                object.expects = Expects::Colon;
                // A duplicate member is ambiguous.
                if let Some(has) = object.member.and_then(|member| object.has.get_mut(member)) {
                    object.is_broken |= std::mem::replace(has, true);
                }
                self.place = Place::Between;
            }
            (Text::Member(member), Some(Open::Object(object))) => {
                object.is_too_long |= self.is_too_long;
                if let Some(value) = object.values.get_mut(member) {
                    *value = Some(std::mem::take(&mut self.text));
                }
                self.end_value(false, on_event);
            }
            (Text::Sentences, _) => {
                let text = std::mem::take(&mut self.text);
                self.push_sentences(b" ");
                self.push_sentences(&text);
                self.end_value(false, on_event);
            }
            _ => self.end_other_text(on_event),
        }
    }

    /// Ends a string that may contain JSON. A root that begins with a string without JSON is prose.
    fn end_other_text(&mut self, on_event: &mut OnEvent<'_>) {
        let is_first = match self.open.as_slice() {
            [] => true,
            [Open::List(list)] => !list.has_element,
            _ => false,
        };
        match std::mem::take(&mut self.inner) {
            Inner::Json(within) => {
                if within.has_found && !within.finder.is_in_prose() {
                    // The string is closed, and the JSON in it is not.
                    on_event(Event::Abandoned);
                }
                self.has_list_of_candidates |= within.has_list;
                self.end_value(within.has_found, on_event);
            }
            _ if is_first => {
                self.reset();
                on_event(Event::Abandoned);
            }
            _ => self.end_value(false, on_event),
        }
    }

    /// Processes bytes of a string that may contain JSON.
    fn push_inner(&mut self, bytes: &[u8], on_event: &mut OnEvent<'_>) {
        if matches!(self.inner, Inner::Text) {
            return;
        }
        self.text.extend_from_slice(bytes);
        if matches!(self.inner, Inner::Unknown) {
            self.inner = match begins_json(self.text.get(..INDENT_BYTES_MAX).unwrap_or(&self.text)) {
                None if self.text.len() < INDENT_BYTES_MAX => return,
                Some(true) if self.strings < STRINGS_MAX => {
                    let strings = self.strings.saturating_add(1);
                    let finder = Self { strings, ..Self::default() };
                    Inner::Json(Box::new(Within { finder, ..Within::default() }))
                }
                _ => Inner::Text,
            };
        }
        if let Inner::Json(within) = &mut self.inner {
            let Within { finder, has_found, has_list } = &mut **within;
            let mut text = Vec::with_capacity(self.text.len());
            let consumed = escapes::decode_model_chunk(&self.text, &mut text);
            self.text.drain(..consumed);
            finder.push(&text, &mut |event| match event {
                Event::Found(found) => {
                    *has_found = true;
                    on_event(Event::Found(found));
                }
                Event::Closed(root) => *has_list |= root == Root::List,
                Event::Abandoned => {}
            });
        }
    }
}

impl Object {
    /// Reads the object as a candidate; `None` without the three members.
    fn found(self) -> Option<Found> {
        let [Some(front), Some(back), Some(prompt)] = self.values else { return None };
        match (self.is_broken, self.is_too_long) {
            (true, _) => None,
            (false, true) => Some(Err(Dropped::TooLong)),
            (false, false) => Some(Candidate::read([&front, &back, &prompt], &self.sentences)),
        }
    }
}

/// Whether the byte is part of a number, `null`, or another word without quotes.
const fn is_of_word(byte: u8) -> bool {
    !matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',' | b':' | b'{' | b'}' | b'[' | b']' | b'"')
}

/// Whether an escaped string begins as JSON does; `None` when it is too short to decide.
fn begins_json(raw: &[u8]) -> Option<bool> {
    match raw.trim_ascii_start() {
        [] | [b'\\'] => None,
        [b'{' | b'[', ..] | [b'\\', b'"', ..] => Some(true),
        [b'\\', b'n' | b'r' | b't', rest @ ..] => begins_json(rest),
        _ => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the findings in a text of these chunks: the front of each candidate, `-` for an unreadable one, and the ends of
    /// the roots.
    fn found_in<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let mut found = Vec::new();
        let mut finder = CandidateFinder::default();
        for chunk in chunks {
            finder.push(chunk, &mut |event| {
                found.push(match event {
                    Event::Found(Ok(candidate)) => candidate.front,
                    Event::Found(Err(_)) => "-".to_owned(),
                    Event::Closed(Root::List) => "]".to_owned(),
                    Event::Closed(Root::Single) => ".".to_owned(),
                    Event::Closed(Root::EmptyList) => "[]".to_owned(),
                    Event::Closed(Root::Other) => "{}".to_owned(),
                    Event::Abandoned => return,
                });
            });
        }
        found
    }

    const A: &str = r#"{"front":"a","back":"b","prompt":"p"}"#;
    const B: &str = r#"{"front":"b","back":"b","prompt":"p"}"#;

    /// Replaces `A` and `B` by candidates.
    fn with_candidates(text: &str) -> String {
        text.replace('A', A).replace('B', B)
    }

    const TEXTS: &[(&str, &[&str])] = &[
        (r#"{"candidates":[A,B]}"#, &["a", "b", "]"]),
        (" {\n \"candidates\" :\t[ A , B ] }\r\n", &["a", "b", "]"]),
        ("[A,B]", &["a", "b", "]"]),
        // At any depth.
        ("A", &["a", "."]),
        ("A\nB\n", &["a", ".", "b", "."]),
        (r#"{"card":A}"#, &["a", "."]),
        (r#"{"1":A,"2":B}"#, &["a", "b", "."]),
        (r#"{"x":{"y":[{"z":A},{"z":B}]}}"#, &["a", "b", "]"]),
        (
            r#"{"type":"object","properties":{"candidates":[A]},"required":["front","back","prompt"]}"#,
            &["a", "]"],
        ),
        ("[A,[B]]", &["a", "b", "]"]),
        (r#"[[A,B]]"#, &["a", "b", "]"]),
        (r#"{"front":{"type":"string"},"back":{"type":"string"},"prompt":{"type":"string"}}"#, &["{}"]),
        // In a string.
        (
            r#"{"candidates":"[{\"front\": \"a\", \"back\": \"b\", \"prompt\": \"p\"}, {\"front\":\"\\n\\\"b\",\"back\":\"b\",\"prompt\":\"p\"}]"}"#,
            &["a", "\"b", "]"],
        ),
        (r#""{\"candidates\":[{\"front\":\"a\",\"back\":\"b\",\"prompt\":\"p\"}]}""#, &["a", "]"]),
        (r#"{"c":"\n [\n{\"front\":\"\\frac\",\"back\":\"b\",\"prompt\":\"p\"}]"}"#, &["\\frac", "]"]),
        (r#"["{\"front\":\"a\",\"back\":\"b\",\"prompt\":\"p\"}"]"#, &["a", "]"]),
        (
            r#"{"c":"\"[{\\\"front\\\":\\\"a\\\",\\\"back\\\":\\\"b\\\",\\\"prompt\\\":\\\"p\\\"}]\""}"#,
            &["a", "]"],
        ),
        // An extra comma.
        (r#"{,"candidates":[,A,,B,],,}"#, &["a", "b", "]"]),
        (
            r#"[{"front":"a",,"back":"b","prompt":"p",},{,"front":"b","back":"b","prompt":"p"}]"#,
            &["a", "b", "]"],
        ),
        (r#"{"candidates":[A,B]],"n":1]}"#, &["a", "b", "]"]),
        // Other elements count in a list of candidates; a broken one does not affect the others.
        (r#"[{},A,null,"f]}",["f",{"f":2}],-1,{},B]"#, &["a", "-", "-", "-", "-", "-", "-", "b", "]"]),
        ("[null,A,B]", &["a", ".", "b", "."]),
        (r#"{"candidates":[A],"tags":["f"],"n":1}"#, &["a", "]"]),
        (r#"[A,{"front" "a","back":"b","prompt":"p"} {f:'b'}, ... B]"#, &["a", "-", "-", "-", "b", "]"]),
        (r#"[{"front":"f "x" y","back":"b","prompt":"p"},A]"#, &["a", "-", "]"]),
        (r#"[{"front":"f","front":"g","back":"b","prompt":"p"},A]"#, &["a", "-", "]"]),
        (r#"[{"front":"f","back":"b","prompt":"p","prompt":1},A]"#, &["a", "-", "]"]),
        (r#"[A,{"front":"f","back":"b"},{"front":7,"back":"b","prompt":"p"}]"#, &["a", "-", "-", "]"]),
        // Cut.
        (r#"{"candidates":[A,B]"#, &["a", "b"]),
        (r#"{"candidates":[A,{"front":"b","back":"b","prompt":"p""#, &["a"]),
        (r#"[A,{"f":"\"#, &["a"]),
        (r#"{"candidates":"[{\"front\":\"a\",\"back\":\"b\",\"prompt\":\"p\"},{\"fr"#, &["a"]),
        ("", &[]),
        // Prose with brackets of its own.
        (
            r#"Use {front} and [back], {"a" or 1}, [{], {{, [1], - [ ] x, {}, [], {"n": 1}: {"candidates":[A]}"#,
            &["[]", "{}", "[]", "{}", "a", "]"],
        ),
        (r#"{{"candidates":[A]}}"#, &["a", "]"]),
        ("{\n\n{\n\"candidates\": [A]\n}\n", &["a", "]"]),
        (r#"[ {x} ] {"e" x} {"candidates" [A]"#, &["a", "]"]),
        (r#"a quote {" too many: {"candidates":[A,B]}"#, &["a", "b", "]"]),
        ("{\u{201c}candidates\u{201d}:[A,B]}", &["a", "b", "]"]),
        (r#"{'candidates': [{'front': 'a', 'back': "b's", 'prompt': 'p'}]} "#, &[]),
        // A text that starts again within itself.
        (r#"{"candidates":[A{"candidates":[A,B{"candidates":[A,B]}"#, &["a", "a", "b", "a", "b"]),
    ];

    #[test]
    fn candidates_are_found_in_all_that_models_write() {
        for (text, expected) in TEXTS {
            let text = with_candidates(text);
            assert_eq!(found_in([text.as_bytes()]), *expected, "{text}");
        }
    }

    /// Returns the numbers of sentences of each candidate in a text of these chunks.
    fn sentences_in<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<usize>> {
        let (mut found, mut finder) = (Vec::new(), CandidateFinder::default());
        for chunk in chunks {
            finder.push(chunk, &mut |event| {
                if let Event::Found(candidate) = event {
                    found.push(candidate.expect("no candidate is dropped").sentences);
                }
            });
        }
        found
    }

    #[test]
    fn sentence_numbers_of_any_type_are_read_and_drop_no_candidate() {
        for (value, expected) in [
            ("[3, 4]", &[3, 4][..]),
            ("[ 12 ]", &[12]),
            ("7", &[7]),
            ("\"7\"", &[7]),
            (r#"["3","4"]"#, &[3, 4]),
            (r#""3-5""#, &[3, 5]),
            (r#""[3, 4]""#, &[3, 4]),
            ("[]", &[]),
            ("null", &[]),
            ("true", &[]),
            ("\"\"", &[]),
            ("{}", &[]),
            (r#"{"n":3}"#, &[]),
            (r#"[{"n":3}]"#, &[]),
            (r#"[{"front":"f"},null,"x"]"#, &[]),
            ("[0, 99999, 123456]", &[0, 99_999]),
            ("[3,,4,]", &[3, 4]),
        ] {
            for text in [
                format!(r#"[{{"front":"f","back":"b","prompt":"p","source":{value}}},A]"#),
                format!(r#"{{"c":[{{"source" : {value} , "front":"f","back":"b 9","prompt":"p"}},A]}}"#),
                format!(r#"[{{"front":"f","n":8,"source":{value},"m":[9],"back":"b","prompt":"p"}},A]"#),
            ] {
                let text = with_candidates(&text);
                assert_eq!(sentences_in([text.as_bytes()]), [expected, &[]], "{text}");
                assert_eq!(sentences_in(text.as_bytes().chunks(1)), [expected, &[]], "{text}");
            }
        }
    }

    #[test]
    fn the_value_with_the_sentence_numbers_is_bounded() {
        for value in [
            ["[", &"7,".repeat(100_000), "7]"].concat(),
            "8".repeat(100_000),
            ["\"", &"9 ".repeat(7_000), "\""].concat(),
        ] {
            let text = format!(r#"[{{"source":{value},"front":"f","back":"b","prompt":"p"}}]"#);
            for chunk in [1, 1000, text.len()] {
                let found = sentences_in(text.as_bytes().chunks(chunk));
                assert_eq!(found.len(), 1);
                assert!(found.iter().flatten().all(|number| [7, 9].contains(number)), "{found:?}");
            }
        }
    }

    #[test]
    fn candidates_are_found_across_any_chunk_border() {
        for (text, expected) in TEXTS {
            let text = with_candidates(text);
            for size in 1..=text.len() {
                assert_eq!(found_in(text.as_bytes().chunks(size)), *expected, "{text} by {size}");
            }
        }
    }

    #[test]
    fn content_is_not_joined_over_a_gap() {
        let whole = with_candidates(r#"{"candidates":[A,B,A]}"#);
        for from in 0..whole.len() {
            for to in from..whole.len() {
                let mut fronts = Vec::new();
                let mut finder = CandidateFinder::default();
                let mut take = |event| {
                    if let Event::Found(Ok(candidate)) = event {
                        assert_eq!((candidate.back.as_str(), candidate.prompt.as_str()), ("b", "p"));
                        fronts.push(candidate.front);
                    }
                };
                finder.push(&whole.as_bytes()[..from], &mut take);
                finder.reset();
                finder.push(&whole.as_bytes()[to..], &mut take);
                assert!(
                    fronts.iter().all(|front| front == "a" || front == "b"),
                    "{from} to {to}: {fronts:?}"
                );
                // The candidates that are complete before or after the gap are all found.
                let there =
                    whole[..from].matches("\"p\"}").count() + whole[to..].matches("{\"front\":\"").count();
                assert_eq!(fronts.len(), there, "{from} to {to}: {fronts:?}");
            }
        }
    }

    #[test]
    fn a_string_over_the_limit_is_no_candidate() {
        let text =
            ["[{\"front\":\"", &" ".repeat(FIELD_BYTES_MAX), "f\",\"back\":\"b\",\"prompt\":\"p\"},", A, "]"]
                .concat();
        assert_eq!(found_in([text.as_bytes()]), ["-", "a", "]"]);
    }

    #[test]
    fn deep_nesting_is_read_without_recursion() {
        for deep in [
            ["[{\"f\":", &"[".repeat(400_000), &"]".repeat(400_000), "},", A, "]"].concat(),
            ["[[", &"{\"a\":".repeat(1000), "1", &"}".repeat(1000), "],", A, "]"].concat(),
        ] {
            assert_eq!(found_in([deep.as_bytes()]), ["a", "-", "]"]);
            assert_eq!(found_in(deep.as_bytes().chunks(1000)), ["a", "-", "]"]);
        }
        let strings = (0..10).fold(A.to_owned(), |text, _| serde_json::to_string(&text).expect("it is text"));
        assert_eq!(found_in([strings.as_bytes()]), ["{}"]);
    }

    proptest! {
        #[test]
        fn no_splitting_changes_what_is_found(
            text in proptest::collection::vec(prop_oneof![
                Just("{"), Just("}"), Just("["), Just("]"), Just("\""), Just("\\"), Just(":"), Just(","), Just(" "), Just("f"),
                Just("null"), Just("12"), Just(A), Just("{\"candidates\":["), Just("]}"), Just("\u{e9}"), Just("\"front\":\"a\""),
                Just("\"["), Just("\\\"front\\\":\\\"a\\\""), Just("\\n"),
            ], 0..60).prop_map(|parts| parts.concat()),
            size in 1usize..9,
        ) {
            prop_assert_eq!(found_in(text.as_bytes().chunks(size)), found_in([text.as_bytes()]));
        }

        #[test]
        fn any_candidates_in_any_prose_are_found(
            before in "[^{}\\[\\]\"]{0,40}",
            fronts in proptest::collection::vec("[a-z]{1,8}[ -~\u{a1}-\u{2fff}]{0,20}[a-z]", 1..6),
            pretty in any::<bool>(),
        ) {
            let candidates: Vec<_> =
                fronts.iter().map(|front| serde_json::json!({ "front": front, "back": "b", "prompt": "p" })).collect();
            let root = serde_json::json!({ "candidates": candidates });
            let json = if pretty { serde_json::to_string_pretty(&root) } else { serde_json::to_string(&root) }?;
            let mut found = found_in([[before.as_str(), &json].concat().as_bytes()]);
            let end = found.pop();
            prop_assert_eq!(end.as_deref(), Some("]"));
            prop_assert_eq!(found, fronts);
        }

        #[test]
        fn the_finder_reads_arbitrary_bytes_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(found_in([bytes.as_slice()]), found_in(bytes.chunks(1)));
        }
    }
}
