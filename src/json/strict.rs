//! Strict JSON (RFC 8259): bodies of requests, the parts of tokens, strings and numbers of records.
//!
//! ```text
//! bytes ─► check (a place where it is no JSON) ─► text ─► members, `Cursor` ─► decode
//! ```
//! Accepts what `serde_json` reads into a value: UTF-8, no lone surrogate, numbers within the range of `f64`, at most
//! [`DEPTH_MAX`] brackets, nothing after the end. Its readers of types would add 20 KB to the module, gzipped: texts of errors
//! that nothing shows, with the decimal form of each number in them.

use std::borrow::Cow;

use super::number::Decimal;
use super::scan::find_escaped;
use super::{Cursor, Value};

/// The most brackets around a value.
const DEPTH_MAX: usize = 127;

/// Checks a whole document.
///
/// # Errors
/// The number of bytes before the first that is no JSON.
pub fn check(document: &[u8]) -> Result<&str, usize> {
    let mut checker = Checker { bytes: document, at: 0, is_lenient: false };
    let is_json = checker.document().is_some() && checker.next().is_none();
    // JSON may contain any character in a string: the rest is ASCII.
    match std::str::from_utf8(document) {
        Ok(text) if is_json => Ok(text),
        Err(error) if error.valid_up_to() < checker.at => Err(error.valid_up_to()),
        _ => Err(checker.at),
    }
}

/// Whether a document follows the grammar, with numbers of any size, lone surrogates, any depth, and any bytes in its strings: for
/// documents of which only a part is read, or that are only copied.
#[must_use]
pub fn follows_grammar(document: &[u8]) -> bool {
    let mut checker = Checker { bytes: document, at: 0, is_lenient: true };
    checker.document().is_some() && checker.next().is_none()
}

/// Returns the members of an object of a checked text, with decoded names; `None` for another value.
#[must_use]
pub fn members(text: &str) -> Option<Vec<(Cow<'_, str>, Value<'_>)>> {
    let mut cursor = Cursor::new(text.as_bytes());
    let mut members = Vec::new();
    let is_object = cursor.first() == Some(b'{');
    cursor.object(&mut |name, cursor| members.push((decode(name), cursor.value())));
    is_object.then_some(members)
}

/// Reads a document that is one string.
#[must_use]
pub fn read_text(document: &[u8]) -> Option<String> {
    let text = check(document).ok()?;
    match Cursor::new(text.as_bytes()).value() {
        Value::Text(text) => Some(decode(text).into_owned()),
        _ => None,
    }
}

/// Reads a number, of any size that `f64` has.
#[must_use]
pub fn read_number(digits: &[u8]) -> Option<f64> {
    Decimal::read(digits)?.value()
}

/// Decodes the bytes between the quotes of a checked string; borrowed where nothing is escaped.
#[must_use]
pub fn decode(escaped: &[u8]) -> Cow<'_, str> {
    let mut rest = std::str::from_utf8(escaped).unwrap_or_default();
    if !rest.contains('\\') {
        return Cow::Borrowed(rest);
    }
    let mut text = String::with_capacity(rest.len());
    while let Some((plain, escape)) = rest.split_once('\\') {
        text.push_str(plain);
        let (char, length) = unescape(escape.as_bytes());
        text.push(char.unwrap_or(char::REPLACEMENT_CHARACTER));
        rest = escape.get(length..).unwrap_or_default();
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// The character of an escape, and the bytes after its backslash; `None` where it has none.
fn unescape(escape: &[u8]) -> (Option<char>, usize) {
    let char = match escape.first() {
        Some(b'u') => return unescape_unicode(escape),
        Some(byte @ (b'"' | b'\\' | b'/')) => char::from(*byte),
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        _ => return (None, 0),
    };
    (Some(char), 1)
}

/// `uXXXX`, or `uXXXX\uXXXX` of a surrogate pair.
fn unescape_unicode(escape: &[u8]) -> (Option<char>, usize) {
    const LENGTH: usize = 5;
    let unit = |escape: &[u8]| {
        let (digits, _) = escape.strip_prefix(b"u")?.split_first_chunk::<4>()?;
        digits.iter().try_fold(0_u32, |unit, digit| {
            let digit = char::from(*digit).to_digit(16)?;
            Some(unit << 4 | digit)
        })
    };
    let Some(first) = unit(escape) else { return (None, 0) };
    if !(0xD800..0xDC00).contains(&first) {
        return (char::from_u32(first), LENGTH);
    }
    let second = escape.get(LENGTH..).and_then(|rest| unit(rest.strip_prefix(b"\\")?));
    let Some(second) = second.filter(|unit| (0xDC00..0xE000).contains(unit)) else { return (None, LENGTH) };
    let char = 0x1_0000 + ((first & 0x3FF) << 10 | (second & 0x3FF));
    (char::from_u32(char), 2 * LENGTH + 1)
}

/// Follows the grammar; `at` is the number of bytes before the place where it ends, or fails.
struct Checker<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Whether the grammar alone is followed.
    is_lenient: bool,
}

impl Checker<'_> {
    /// Returns the first byte after white space.
    fn next(&mut self) -> Option<u8> {
        loop {
            let byte = self.byte()?;
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.advance(1);
        }
    }

    fn byte(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    const fn advance(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes);
    }

    fn expect(&mut self, expected: u8) -> Option<()> {
        self.next().filter(|byte| *byte == expected)?;
        self.advance(1);
        Some(())
    }

    /// A value with all that is in it.
    fn document(&mut self) -> Option<()> {
        // The ends of the brackets that are open.
        let mut open = Vec::new();
        loop {
            match self.next()? {
                b'"' => self.string()?,
                bracket @ (b'{' | b'[') => {
                    if !self.is_lenient && open.len() >= DEPTH_MAX {
                        return None;
                    }
                    self.advance(1);
                    let close = if bracket == b'{' { b'}' } else { b']' };
                    open.push(close);
                    if self.next()? != close {
                        self.name(close)?;
                        continue;
                    }
                }
                b't' => self.word(b"true")?,
                b'f' => self.word(b"false")?,
                b'n' => self.word(b"null")?,
                _ => self.number()?,
            }
            loop {
                let Some(close) = open.last().copied() else { return Some(()) };
                if self.next()? != close {
                    self.expect(b',')?;
                    self.name(close)?;
                    break;
                }
                self.advance(1);
                open.pop();
            }
        }
    }

    /// The name of a member, before a value in an object.
    fn name(&mut self, close: u8) -> Option<()> {
        if close == b'}' {
            self.next().filter(|byte| *byte == b'"')?;
            self.string()?;
            self.expect(b':')?;
        }
        Some(())
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.rest().starts_with(word).then_some(())?;
        self.advance(word.len());
        Some(())
    }

    fn number(&mut self) -> Option<()> {
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let rest = self.rest();
        let length = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
        let number = Decimal::read(rest.get(..length)?)?;
        if !self.is_lenient {
            number.value()?;
        }
        self.advance(length);
        Some(())
    }

    fn string(&mut self) -> Option<()> {
        self.advance(1);
        loop {
            self.advance(find_escaped(self.rest())?);
            match self.byte()? {
                b'"' => break,
                b'\\' => {
                    let (char, length) = unescape(self.rest().get(1..)?);
                    if char.is_none() && !(self.is_lenient && length > 0) {
                        return None;
                    }
                    self.advance(length.saturating_add(1));
                }
                _ => return None,
            }
        }
        self.advance(1);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;
    use serde_json::Value as Json;

    use super::*;

    /// The results of the oracle.
    fn is_grammatical(document: &[u8]) -> bool {
        serde_json::from_slice::<IgnoredAny>(document).is_ok()
    }

    fn is_json(document: &[u8]) -> bool {
        serde_json::from_slice::<Json>(document).is_ok()
    }

    /// Documents that are almost JSON.
    fn documents() -> impl Strategy<Value = Vec<u8>> {
        let part = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\\",
            "\\u",
            "d83d",
            "\\ude00",
            "00e9",
            "\\n",
            "\"a\":",
            "\"b\"",
            "null",
            "true",
            "false",
            "-",
            "0",
            "12",
            ".5",
            "e9",
            "E+400",
            "+1",
            "01",
            " ",
            "\n",
            "\r\t",
            "\u{e9}",
            "\u{1f600}",
            "\0",
            "\u{c}",
            "\u{feff}",
        ]);
        prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat().into_bytes())
    }

    fn values() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            any::<f64>().prop_map(Json::from),
            any::<String>().prop_map(Json::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
                prop::collection::vec((any::<String>(), inner), 0..4)
                    .prop_map(|members| Json::from(members.into_iter().collect::<serde_json::Map<_, _>>())),
            ]
        })
    }

    #[test]
    fn strict_json_alone_is_accepted() {
        for document in [
            "",
            " ",
            "nul",
            "True",
            "NaN",
            "-",
            "01",
            "1.",
            ".5",
            "1e",
            "1e400",
            "-1e400",
            "+1",
            "1 2",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":1,}",
            "{a:1}",
            "{1:1}",
            "\"\n\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\ud83d\"",
            "\"\\ud83d\\n\"",
            "\"\\ude00\"",
            "\"\\ud83d\\u0041\"",
            "\u{feff}1",
            "\u{c}1",
            "\"a",
            "[1",
            "{\"a\":1",
            "[1}",
        ] {
            assert!(check(document.as_bytes()).is_err(), "{document:?}");
            assert!(!is_json(document.as_bytes()), "{document:?}");
        }
        for document in [
            "0",
            "-0",
            " 1.5e-7 ",
            "\"\\ud83d\\ude00\\u00E9\\/\"",
            "{}",
            "[ ]",
            "{\"a\":[{}]}\n",
            "1e-400",
            "18446744073709551616",
        ] {
            assert_eq!(check(document.as_bytes()), Ok(document), "{document:?}");
            assert!(is_json(document.as_bytes()), "{document:?}");
        }
    }

    #[test]
    fn the_place_of_an_error_is_the_first_byte_that_is_no_json() {
        for (document, at) in [
            (&b""[..], 0),
            (b"{\"a\":1,}", 7),
            (b"[1] x", 4),
            (b"\"a\xff\"", 2),
            (b"\"\xff", 1),
            (b"[tru]", 1),
            (b"[1e999]", 1),
            (b"\"a\nb\"", 2),
        ] {
            assert_eq!(check(document), Err(at), "{}", String::from_utf8_lossy(document));
        }
    }

    #[test]
    fn brackets_are_bounded() {
        for (depth, is_accepted) in [(127, true), (128, false), (100_000, false)] {
            let document = ["[".repeat(depth), "]".repeat(depth)].concat();
            assert_eq!(check(document.as_bytes()).is_ok(), is_accepted, "{depth}");
            assert_eq!(is_json(document.as_bytes()), is_accepted, "{depth}");
            assert!(follows_grammar(document.as_bytes()), "{depth}");
        }
    }

    proptest! {
        #[test]
        fn almost_json_is_accepted_as_by_serde_json(document in documents()) {
            prop_assert_eq!(check(&document).is_ok(), is_json(&document), "{:?}", String::from_utf8_lossy(&document));
            prop_assert_eq!(follows_grammar(&document), is_grammatical(&document));
            let quoted = [b"\"", document.as_slice(), b"\""].concat();
            prop_assert_eq!(follows_grammar(&quoted), is_grammatical(&quoted));
        }

        #[test]
        fn any_bytes_are_accepted_as_by_serde_json(bytes in prop::collection::vec(any::<u8>(), 0..8)) {
            prop_assert_eq!(check(&bytes).is_ok(), is_json(&bytes));
            let quoted = [b"\"", bytes.as_slice(), b"\""].concat();
            prop_assert_eq!(read_text(&quoted), serde_json::from_slice::<String>(&quoted).ok());
            prop_assert_eq!(follows_grammar(&bytes), is_grammatical(&bytes));
            prop_assert_eq!(follows_grammar(&quoted), is_grammatical(&quoted));
        }

        #[test]
        fn any_json_is_accepted(value in values()) {
            for form in [value.to_string(), format!("{value:#}")] {
                prop_assert_eq!(check(form.as_bytes()), Ok(form.as_str()));
            }
        }

        #[test]
        fn a_text_is_read_as_by_serde_json(document in documents()) {
            let quoted = [b"\"", document.as_slice(), b"\""].concat();
            prop_assert_eq!(read_text(&quoted), serde_json::from_slice::<String>(&quoted).ok());
            prop_assert_eq!(read_text(&document), serde_json::from_slice::<String>(&document).ok());
        }

        #[test]
        fn names_are_decoded(names in prop::collection::vec(any::<String>(), 0..4)) {
            let json: Vec<String> = names.iter().map(|name| format!("{}:[1]", Json::from(name.as_str()))).collect();
            let text = format!(" {{{}}}", json.join(","));
            let read = members(&text).expect("it is an object");
            prop_assert_eq!(read.iter().map(|(name, _)| name.as_ref()).collect::<Vec<_>>(), names);
            prop_assert!(read.iter().all(|(_, value)| *value == Value::List(b"[1]")));
        }
    }
}
