//! Takes cards out of a model's content while it comes: each card the moment its closing brace is there, in
//! one pass.
//!
//! ```text
//! Sure! Here they are:     prose: anything but an opening (code fences too)
//! { "note": "…",           the root: `{` and then `"` or `}`; or `[` and then `{`
//!   "candidates": [        an array directly in the root, whatever its name (or the root itself)
//!     {"front": …},        a card: up to the brace that closes it, given as it is
//!     null,                no card: given as nothing, so that it is counted
//!   ] }                    the root is closed: the answer is whole
//! I hope this helps        not looked at any more
//! ```
//! Bytes are JSON if they follow the root's grammar; where they do not (`{name}` in prose, `{"a" and`), it was
//! prose, and the search goes on from there. Within a card only strings and depth are followed: whether it is
//! JSON is for [`super::candidate`] to say, so that a broken card costs no other. No byte of a character beyond
//! ASCII means anything here, so content may hold broken UTF-8 and may be cut anywhere.
//!
//! Not for: judging cards. The caller says of each whether it took it.

/// The longest content. Twenty cards have some 8 KB; what is longer is a model that runs in circles.
pub const CONTENT_BYTES_MAX: usize = 1024 * 1024;
/// The longest card. 1200 characters of three fields at 12 bytes each (`\uXXXX\uXXXX`) are 14 KB; the rest is
/// for members that nobody asked for. A longer one is given as nothing.
pub const CARD_BYTES_MAX: usize = 64 * 1024;

/// The state between two pieces of content.
#[derive(Debug, Default)]
pub struct CandidateReader {
    place: Place,
    within: Within,
    /// The beginning of a card whose end has not come yet.
    card: Vec<u8>,
    card_is_too_long: bool,
    root: Root,
    /// Whether any card was taken, in whichever root.
    has_card: bool,
    is_closed: bool,
    content_bytes: usize,
}

#[derive(Debug, Default)]
struct Root {
    is_array: bool,
    has_array: bool,
    has_card: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Outside of JSON, as far as is known.
    #[default]
    Prose,
    /// After a `{` in prose, and white space.
    Brace,
    /// After a `[` in prose, and white space.
    Bracket,
    /// After a `{` after that, and white space.
    FirstCard,
    /// In the root object, where a member or the end may come.
    Member,
    /// After a member's name.
    Colon,
    /// After the colon.
    Value,
    /// In a number, `true`, `false`, `null`.
    Literal,
    /// After a member's value.
    AfterValue,
    /// In the array, where an element or the end may come.
    Element,
    /// In an element that is no object, no array and no string.
    OddLiteral,
    /// In something that ends by itself: a string, an object, an array.
    Within(Part),
    /// The root that held the cards is closed.
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Name,
    Value,
    Card,
    OddElement,
}

/// Where in something that ends by itself.
#[derive(Debug, Default)]
struct Within {
    depth: u32,
    in_string: bool,
    is_escaped: bool,
}

impl Within {
    /// Takes one byte; true when it is the last one.
    fn ends_with(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => {
                    self.in_string = false;
                    return self.depth == 0;
                }
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth = self.depth.saturating_add(1),
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

impl CandidateReader {
    /// Takes the next bytes of content and gives the JSON of each card that ends in them; what is no object,
    /// or too long to be a card, is given as no bytes at all. `on_card` says whether it took the card: the
    /// first root with a card that was taken is the answer, roots before it (an example, an empty try) are
    /// not.
    pub fn push(&mut self, piece: &[u8], mut on_card: impl FnMut(&[u8]) -> bool) {
        let room = CONTENT_BYTES_MAX.saturating_sub(self.content_bytes);
        let piece = piece.get(..room).unwrap_or(piece);
        self.content_bytes = self.content_bytes.saturating_add(piece.len());

        // Where in `piece` the card begins that is being read; 0 when it began in a piece before.
        let mut card_start = 0;
        for (at, &byte) in piece.iter().enumerate() {
            if self.place == Place::Done {
                return;
            }
            if self.place == Place::FirstCard && matches!(byte, b'"' | b'}') {
                self.open_root(true);
                self.keep(b"{");
                self.place = self.enter(Part::Card, b'{');
                card_start = at;
            }
            if let Place::Within(part) = self.place {
                if self.within.ends_with(byte) {
                    if part == Part::Card {
                        self.end_card(piece.get(card_start..=at).unwrap_or_default(), &mut on_card);
                    }
                    self.place = match part {
                        Part::Name => Place::Colon,
                        Part::Value => Place::AfterValue,
                        Part::Card | Part::OddElement => Place::Element,
                    };
                }
                continue;
            }
            let was = self.place;
            if !self.step(byte) {
                // No JSON: what came from the root on was prose, and this byte may be an opening of its own.
                self.place = Place::Prose;
                self.step(byte);
            }
            match self.place {
                Place::Within(Part::Card) => card_start = at,
                Place::Within(Part::OddElement) | Place::OddLiteral if self.place != was => {
                    on_card(&[]);
                }
                _ => {}
            }
        }
        if self.place == Place::Within(Part::Card) {
            self.keep(piece.get(card_start..).unwrap_or_default());
        }
    }

    /// Whether the JSON was closed: the answer is whole then, however the stream ends.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Whether a card was taken.
    #[must_use]
    pub const fn has_card(&self) -> bool {
        self.has_card
    }

    /// Whether [`CONTENT_BYTES_MAX`] is reached: nothing more is taken.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.content_bytes >= CONTENT_BYTES_MAX
    }

    /// One byte outside of what ends by itself. False when it cannot be part of JSON at this place.
    fn step(&mut self, byte: u8) -> bool {
        let is_space = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        self.place = match (self.place, byte) {
            (Place::Prose, b'{') => Place::Brace,
            (Place::Prose, b'[') => Place::Bracket,
            (Place::Prose | Place::Done, _) => self.place,

            (Place::Literal, _) if is_space => Place::AfterValue,
            (Place::OddLiteral, _) if is_space => Place::Element,
            (_, _) if is_space => self.place,

            (Place::Brace, b'"') => {
                self.open_root(false);
                self.enter(Part::Name, byte)
            }
            (Place::Bracket, b'{') => Place::FirstCard,

            (Place::Member, b'"') => self.enter(Part::Name, byte),
            (Place::Colon, b':') => Place::Value,
            (Place::Value, b'[') => {
                self.root.has_array = true;
                Place::Element
            }
            (Place::Value, b'"' | b'{') => self.enter(Part::Value, byte),
            (Place::Value, b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => Place::Literal,
            (Place::Literal, b'0'..=b'9' | b'a'..=b'z' | b'E' | b'+' | b'-' | b'.') => Place::Literal,
            (Place::Literal | Place::AfterValue, b',') => Place::Member,
            // A comma before the end is forgiven, here and in the array.
            (Place::Literal | Place::AfterValue | Place::Member, b'}') => self.close_root(),

            (Place::Element | Place::OddLiteral, b',') => Place::Element,
            (Place::Element | Place::OddLiteral, b'{') => self.enter(Part::Card, byte),
            (Place::Element | Place::OddLiteral, b'"' | b'[') => self.enter(Part::OddElement, byte),
            (Place::Element | Place::OddLiteral, b']') if self.root.is_array => self.close_root(),
            (Place::Element | Place::OddLiteral, b']') => Place::AfterValue,
            (Place::Element | Place::OddLiteral, _) => Place::OddLiteral,

            (
                Place::Brace
                | Place::Bracket
                | Place::FirstCard
                | Place::Member
                | Place::Colon
                | Place::Value
                | Place::Literal
                | Place::AfterValue
                | Place::Within(_),
                _,
            ) => return false,
        };
        true
    }

    fn open_root(&mut self, is_array: bool) {
        self.root = Root { is_array, has_array: is_array, has_card: false };
        self.is_closed = false;
    }

    /// The root ends. It was the answer if it gave a card; an empty list is an answer too, as long as no
    /// better one comes.
    fn close_root(&mut self) -> Place {
        self.is_closed = self.root.has_card || (self.root.has_array && !self.has_card);
        if self.root.has_card { Place::Done } else { Place::Prose }
    }

    fn enter(&mut self, part: Part, opening: u8) -> Place {
        self.within = Within::default();
        self.within.ends_with(opening);
        Place::Within(part)
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.card_is_too_long |= self.card.len().saturating_add(bytes.len()) > CARD_BYTES_MAX;
        if !self.card_is_too_long {
            self.card.extend_from_slice(bytes);
        }
    }

    /// `end`: the card's bytes in this piece; the whole card where none came before, and then it is given
    /// uncopied.
    fn end_card(&mut self, end: &[u8], on_card: &mut impl FnMut(&[u8]) -> bool) {
        let is_taken = if self.card.is_empty() && !self.card_is_too_long && end.len() <= CARD_BYTES_MAX {
            on_card(end)
        } else {
            self.keep(end);
            on_card(if self.card_is_too_long { &[] } else { &self.card })
        };
        self.root.has_card |= is_taken;
        self.has_card |= is_taken;
        self.card.clear();
        self.card_is_too_long = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The cards of a content that comes in these pieces (those with an `f` in them are taken), and whether
    /// it was closed.
    fn cards_of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<String>, bool) {
        let mut cards = Vec::new();
        let mut reader = CandidateReader::default();
        for piece in pieces {
            reader.push(piece, |card| {
                cards.push(String::from_utf8_lossy(card).into_owned());
                card.contains(&b'f')
            });
        }
        (cards, reader.is_closed())
    }

    const A: &str = r#"{"f":"a"}"#;
    const B: &str = r#"{"f":"b"}"#;

    const CONTENTS: &[(&str, &[&str], bool)] = &[
        (r#"{"candidates":[{"f":"a"},{"f":"b"}]}"#, &[A, B], true),
        (" {\n \"candidates\" :\t[ {\"f\":\"a\"} , {\"f\":\"b\"} ] }\r\n", &[A, B], true),
        (r#"[{"f":"a"},{"f":"b"}]"#, &[A, B], true),
        (r#" [ {"f":"a"},{"f":"b"} ] "#, &[A, B], true),
        (
            "Sure! Here you go:\n```json\n{\"candidates\":[{\"f\":\"a\"}]}\n```\nAnything {\"else\": [{\"f\":\"b\"}]}?",
            &[A],
            true,
        ),
        (r#"{"flashcards":[{"f":"a"}]}"#, &[A], true),
        (
            r#"{"note":"x {[\"","n":-1.5e+3,"t":true,"o":{"candidates":[{"f":"x"}]},"z":null,"candidates":[{"f":"a"}]}"#,
            &[A],
            true,
        ),
        (r#"{"candidates":[{"f":"a"}],"tags":["f"],"n":1}"#, &[A, ""], true),
        (r#"{"candidates":[{"f":"a"}],"n":1 , }"#, &[A], true),
        // What is in a card is the card's.
        (r#"[{"f":"}{][\\\"","x":{"y":[{}]}},{"f":"b"}]"#, &[r#"{"f":"}{][\\\"","x":{"y":[{}]}}"#, B], true),
        ("[{\"f\":\"\u{e9}\u{1f600}\u{65e5}\n\"}]", &["{\"f\":\"\u{e9}\u{1f600}\u{65e5}\n\"}"], true),
        // What is no card is counted; a broken card costs no other.
        (
            r#"[{"f":1},null,"f]}",["f",{"f":2}],-1,{},{"f":3},]"#,
            &[r#"{"f":1}"#, "", "", "", "", "{}", r#"{"f":3}"#],
            true,
        ),
        (r#"[{"f" "a"} {f:'b'}, ... {"f":"b"}]"#, &[r#"{"f" "a"}"#, "{f:'b'}", "", B], true),
        // Cut.
        (r#"{"candidates":[{"f":"a"},{"f":"b"}]"#, &[A, B], false),
        (r#"{"candidates":[{"f":"a"},{"f":"b"}"#, &[A, B], false),
        (r#"{"candidates":[{"f":"a"},{"f":"b""#, &[A], false),
        (r#"[{"f":"a"},{"f":"\"#, &[A], false),
        (r#"[{"f":"a"}"#, &[A], false),
        (r#"{"candi"#, &[], false),
        (r#"{"candidates":"#, &[], false),
        ("", &[], false),
        ("I cannot help with that.", &[], false),
        // Prose with brackets of its own.
        (
            r#"Use {front} and [back], {"a" or 1}, [{], {{, [1], - [ ] x, {}, [], {"n": 1}: {"candidates":[{"f":"a"}]}"#,
            &[A],
            true,
        ),
        (r#"{{"candidates":[{"f":"a"}]}}"#, &[A], true),
        (r#"[[{"f":"a"}]]"#, &[A], true),
        (r#"[ {x} ] {"e": x} {"candidates" [{"f":"a"}]"#, &[A], true),
        (r#"a quote {" too many: {"candidates":[{"f":"a"},{"f":"b"}]}"#, &[A, B], true),
        // An example, an empty try, and then the answer.
        (
            r#"As in {"candidates":[{"x":1}]} or {"candidates":[]}: {"candidates":[{"f":"a"}]}"#,
            &[r#"{"x":1}"#, A],
            true,
        ),
        (r#"{"candidates":[]}"#, &[], true),
        (r#"{"candidates":[ ]} {"candidates":["#, &[], false),
        (r#"{"candidates":[{"f":"a"}] oops {"x":[]}"#, &[A], false),
        (r#"{"candidates":[{"f":"a"}],,"#, &[A], false),
    ];

    #[test]
    fn cards_are_found_in_all_that_models_write() {
        for (content, cards, is_closed) in CONTENTS {
            let (found, closed) = cards_of([content.as_bytes()]);
            assert_eq!(found, *cards, "{content}");
            assert_eq!(closed, *is_closed, "{content}");
        }
    }

    #[test]
    fn a_border_may_be_anywhere() {
        for (content, _, _) in CONTENTS {
            let whole = cards_of([content.as_bytes()]);
            for size in 1..=content.len() {
                assert_eq!(cards_of(content.as_bytes().chunks(size)), whole, "{content} by {size}");
            }
            for at in 0..=content.len() {
                let (head, tail) = content.as_bytes().split_at(at);
                assert_eq!(cards_of([head, b"", tail]), whole, "{content} at {at}");
            }
        }
    }

    #[test]
    fn a_card_is_given_the_moment_its_brace_arrives() {
        let content = r#"x {"candidates":[{"f":{"}":1}},{"f":2}]}"#;
        let ends = [30, 38];
        let mut reader = CandidateReader::default();
        let mut count = 0;
        for (at, byte) in content.bytes().enumerate() {
            reader.push(&[byte], |_| {
                count += 1;
                true
            });
            assert_eq!(count, ends.iter().filter(|end| **end <= at + 1).count(), "{at}");
            assert_eq!(reader.is_closed(), at + 1 == content.len());
        }
    }

    #[test]
    fn a_card_within_one_piece_is_not_copied() {
        let piece = br#"{"candidates":[{"f":"a"},{"f":"b"}]}"#;
        let mut count = 0;
        CandidateReader::default().push(piece, |card| {
            count += usize::from(piece.as_ptr_range().contains(&card.as_ptr()));
            true
        });
        assert_eq!(count, 2);
    }

    #[test]
    fn a_card_may_be_as_long_as_its_limit_and_not_one_byte_longer() {
        for (card_bytes, given_bytes) in [(CARD_BYTES_MAX, CARD_BYTES_MAX), (CARD_BYTES_MAX + 1, 0)] {
            let card = [br#"{"f":""#.as_slice(), &vec![b'x'; card_bytes - 8], br#""}"#].concat();
            let content = [b"[", card.as_slice(), b",{\"f\":1}]"].concat();
            for size in [1, 1000, content.len()] {
                let mut given = Vec::new();
                let mut reader = CandidateReader::default();
                for piece in content.chunks(size) {
                    reader.push(piece, |card| {
                        given.push(card.len());
                        true
                    });
                }
                assert_eq!(given, [given_bytes, 7], "{card_bytes} by {size}");
                assert!(reader.card.capacity() <= 2 * CARD_BYTES_MAX);
            }
        }
    }

    #[test]
    fn content_beyond_the_limit_is_cut_off() {
        let mut reader = CandidateReader::default();
        let mut count = 0;
        let mut push = |reader: &mut CandidateReader, piece: &[u8]| {
            reader.push(piece, |_| {
                count += 1;
                true
            });
            count
        };
        push(&mut reader, b"[");
        let filler = vec![b' '; CONTENT_BYTES_MAX - 1 - 7];
        push(&mut reader, &filler);
        assert!(!reader.is_full());
        assert_eq!(push(&mut reader, b"{\"f\":1},{\"f\":2}]"), 1);
        assert!(reader.is_full());
        assert!(!reader.is_closed());
        assert_eq!(push(&mut reader, b",{\"f\":3}]"), 1);
    }

    #[test]
    fn deep_nesting_is_followed_without_recursion() {
        let deep = [b"[{\"f\":".as_slice(), &[b'['; 400_000], &[b']'; 400_000], b"},{\"f\":1}]"].concat();
        let (cards, is_closed) = cards_of([deep.as_slice()]);
        assert_eq!(cards, ["", "{\"f\":1}"]);
        assert!(is_closed);
    }

    proptest! {
        #[test]
        fn no_splitting_changes_the_cards(
            content in proptest::collection::vec(prop_oneof![
                Just("{"), Just("}"), Just("["), Just("]"), Just("\""), Just("\\"), Just(":"), Just(","), Just(" "), Just("f"),
                Just("null"), Just("12"), Just("{\"f\":\"a\"}"), Just("{\"candidates\":["), Just("]}"), Just("\u{e9}"),
            ], 0..60).prop_map(|parts| parts.concat()),
            sizes in proptest::collection::vec(1usize..9, 1..9),
        ) {
            let whole = cards_of([content.as_bytes()]);
            let mut rest = content.as_bytes();
            let mut pieces = Vec::new();
            for size in sizes.iter().cycle() {
                if rest.is_empty() { break; }
                let (head, tail) = rest.split_at((*size).min(rest.len()));
                pieces.push(head);
                rest = tail;
            }
            prop_assert_eq!(cards_of(pieces), whole);
        }

        #[test]
        fn any_json_with_cards_in_any_prose_gives_its_cards(
            before in "[^{}\\[\\]]{0,40}",
            texts in proptest::collection::vec(any::<String>(), 1..6),
            after in any::<String>(),
            pretty in any::<bool>(),
        ) {
            let cards: Vec<_> = texts.iter().map(|text| serde_json::json!({ "f": text })).collect();
            let root = serde_json::json!({ "candidates": cards });
            let json = if pretty { serde_json::to_string_pretty(&root) } else { serde_json::to_string(&root) }?;
            let (found, is_closed) = cards_of([[before.as_str(), &json, &after].concat().as_bytes()]);
            let found: Vec<serde_json::Value> =
                found.iter().map(|card| serde_json::from_str(card)).collect::<Result<_, _>>()?;
            prop_assert_eq!(found, cards);
            prop_assert!(is_closed);
        }

        #[test]
        fn arbitrary_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (whole, split) = (cards_of([bytes.as_slice()]), cards_of(bytes.chunks(1)));
            prop_assert_eq!(whole, split);
        }
    }
}
