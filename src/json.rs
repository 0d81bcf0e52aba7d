//! Reads the JSON that servers send, without copies: one pass, and no recursion into values that are skipped.
//!
//! Tolerant of careless servers: `NaN` and `Infinity` are literals, duplicate members and extra commas are accepted. An object
//! or a list that is not closed is broken.
//!
//! Not for: the text of the model (`generation::candidate_finder`), the service's own records ([`record`]).

mod number;
pub mod record;
pub mod scan;
pub mod strict;

/// Tracks strings and brackets, to find where a value ends. Outside of brackets a quote has no meaning.
#[derive(Debug, Default, Clone)]
pub struct Brackets {
    depth: u32,
    in_string: bool,
    is_escaped: bool,
}

impl Brackets {
    /// Processes one byte; true when the byte closes the outermost bracket.
    pub const fn closes(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = self.depth > 0,
            b'{' | b'[' => self.depth = self.depth.saturating_add(1),
            b'}' | b']' => {
                let was_open = self.depth > 0;
                self.depth = self.depth.saturating_sub(1);
                return was_open && self.depth == 0;
            }
            _ => {}
        }
        false
    }

    /// Processes many bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.closes(*byte);
        }
    }

    /// Whether a string is open.
    #[must_use]
    pub const fn is_in_text(&self) -> bool {
        self.in_string
    }

    /// Whether a bracket is open.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.depth > 0
    }
}

/// A value, borrowed from the text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Value<'a> {
    /// No value.
    #[default]
    Missing,
    /// The bytes between the quotes, with their escapes.
    Text(&'a [u8]),
    /// A number, `true`, `false`, `null`, or another word.
    Bare(&'a [u8]),
    /// With its braces.
    Object(&'a [u8]),
    /// With its brackets.
    List(&'a [u8]),
}

/// Reads one value after another.
#[derive(Debug)]
pub struct Cursor<'a> {
    rest: &'a [u8],
    is_broken: bool,
}

impl<'a> Cursor<'a> {
    /// Creates a cursor at the beginning of the text.
    #[must_use]
    pub const fn new(text: &'a [u8]) -> Self {
        Self { rest: text, is_broken: false }
    }

    /// Returns the bytes after the last value, or `None` if a value was no JSON.
    #[must_use]
    pub fn rest(&self) -> Option<&'a [u8]> {
        (!self.is_broken).then_some(self.rest)
    }

    /// Reads a value of any kind.
    pub fn value(&mut self) -> Value<'a> {
        match self.first() {
            Some(b'"') => Value::Text(self.text()),
            Some(b'{') => Value::Object(self.bracketed()),
            Some(b'[') => Value::List(self.bracketed()),
            _ => {
                let is_end = |byte: &u8| {
                    byte.is_ascii_whitespace() || matches!(byte, b',' | b':' | b'}' | b']' | b'"')
                };
                let length = self.rest.iter().position(is_end).unwrap_or(self.rest.len());
                if length == 0 {
                    return self.fail(Value::Missing);
                }
                Value::Bare(self.take(length))
            }
        }
    }

    /// Reads a value of any kind; returns it as it is written.
    fn raw(&mut self) -> &'a [u8] {
        self.first();
        let before = self.rest;
        self.value();
        before.get(..before.len().saturating_sub(self.rest.len())).unwrap_or_default()
    }

    /// Reads an object; `on_member` receives each name with its escapes and reads exactly one value. A value of another
    /// kind is skipped.
    pub fn object(&mut self, on_member: &mut dyn FnMut(&'a [u8], &mut Self)) {
        if self.first() != Some(b'{') {
            self.value();
            return;
        }
        self.take(1);
        loop {
            match self.first() {
                Some(b',') => {
                    self.take(1);
                }
                Some(b'"') => {
                    let name = self.text();
                    if self.first() != Some(b':') {
                        return self.fail(());
                    }
                    self.take(1);
                    on_member(name, self);
                }
                Some(b'}') => {
                    self.take(1);
                    return;
                }
                _ => return self.fail(()),
            }
        }
    }

    /// Reads a list; `on_item` reads exactly one value. A value of another kind is skipped.
    pub fn list(&mut self, on_item: &mut dyn FnMut(&mut Self)) {
        if self.first() != Some(b'[') {
            self.value();
            return;
        }
        self.take(1);
        loop {
            match self.first() {
                Some(b',') => {
                    self.take(1);
                }
                Some(b']') => {
                    self.take(1);
                    return;
                }
                Some(_) => on_item(self),
                None => return self.fail(()),
            }
        }
    }

    /// Returns the first byte of the next value.
    fn first(&mut self) -> Option<u8> {
        self.rest = self.rest.trim_ascii_start();
        self.rest.first().copied()
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, &[]));
        self.rest = rest;
        taken
    }

    fn text(&mut self) -> &'a [u8] {
        self.take(1);
        let mut is_escaped = false;
        let end = self.rest.iter().position(|byte| {
            let is_end = *byte == b'"' && !is_escaped;
            is_escaped = *byte == b'\\' && !is_escaped;
            is_end
        });
        let Some(end) = end else { return self.fail(&[]) };
        let text = self.take(end);
        self.take(1);
        text
    }

    fn bracketed(&mut self) -> &'a [u8] {
        let mut brackets = Brackets::default();
        match self.rest.iter().position(|byte| brackets.closes(*byte)) {
            Some(end) => self.take(end.saturating_add(1)),
            None => self.fail(&[]),
        }
    }

    /// Ends the reading.
    fn fail<T>(&mut self, nothing: T) -> T {
        self.is_broken = true;
        self.rest = &[];
        nothing
    }
}

impl<'a> Value<'a> {
    /// Returns a number that is not negative; also one in quotes.
    #[must_use]
    pub fn number(self) -> Option<f64> {
        let (Self::Bare(digits) | Self::Text(digits)) = self else { return None };
        strict::read_number(digits.trim_ascii()).filter(|number| *number >= 0.0)
    }

    /// Returns the number rounded up, so that a wait is never shorter than requested.
    #[must_use]
    pub fn whole(self) -> Option<u64> {
        #[expect(
            clippy::as_conversions,
            reason = "from a real number there is no other way, and this one saturates"
        )]
        self.number().map(|number| number.ceil() as u64)
    }

    /// Returns a text without escapes: the names and codes of an API have none.
    #[must_use]
    pub fn as_str(self) -> Option<&'a str> {
        let Self::Text(word) = self else { return None };
        std::str::from_utf8(word).ok().filter(|word| !word.contains('\\'))
    }

    /// Whether the value contains anything but null, false, 0 and empty values.
    #[must_use]
    pub fn is_truthy(self) -> bool {
        match self {
            Self::Missing => false,
            Self::Text(text) => !text.trim_ascii().is_empty(),
            Self::Bare(word) => !matches!(word, b"null" | b"false" | b"0" | b"NaN"),
            Self::Object(text) => {
                let mut has_truthy = false;
                Cursor::new(text).object(&mut |_, cursor| has_truthy |= cursor.value().is_truthy_within());
                has_truthy
            }
            Self::List(_) => self.is_truthy_within(),
        }
    }

    /// Like `is_truthy`, for a nested value of any depth: a letter or a digit is enough.
    fn is_truthy_within(self) -> bool {
        match self {
            Self::Object(text) | Self::List(text) => text.iter().any(u8::is_ascii_alphanumeric),
            other => other.is_truthy(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The members of an object, as far as they can be read, and whether it is whole.
    fn members(text: &str) -> (Vec<(&str, Value<'_>)>, bool) {
        let mut found = Vec::new();
        let mut cursor = Cursor::new(text.as_bytes());
        cursor.object(&mut |name, cursor| {
            found.push((std::str::from_utf8(name).expect("the names here are text"), cursor.value()));
        });
        (found, cursor.rest().is_some())
    }

    #[test]
    fn an_object_is_read_member_by_member() {
        assert_eq!(
            members(r#" {"a": "x\"}" , "b":-1.5e3,"c":[1,{"d":"]"}],"e":{"f":{}},,"a":NaN ,"g":null}, "#),
            (
                vec![
                    ("a", Value::Text(br#"x\"}"#)),
                    ("b", Value::Bare(b"-1.5e3")),
                    ("c", Value::List(br#"[1,{"d":"]"}]"#)),
                    ("e", Value::Object(br#"{"f":{}}"#)),
                    ("a", Value::Bare(b"NaN")),
                    ("g", Value::Bare(b"null")),
                ],
                true
            )
        );
    }

    #[test]
    fn an_object_that_is_not_closed_or_no_json_is_broken() {
        for text in [
            "{",
            r#"{"a"#,
            r#"{"a""#,
            r#"{"a":"#,
            r#"{"a":1"#,
            r#"{"a":"b"#,
            r#"{"a":[1}"#,
            r#"{"a" 1}"#,
            "{a:1}",
            r#"{"a":}"#,
        ] {
            assert!(!members(text).1, "{text}");
        }
        for other in ["null", "7", "[1]", "\"a\"", "ping"] {
            assert_eq!(members(other), (vec![], true), "{other}");
        }
    }

    #[test]
    fn null_false_zero_and_empty_values_are_not_truthy() {
        let value = |text: &'static str| Cursor::new(text.as_bytes()).value();
        for nothing in [
            "null",
            "false",
            "0",
            "NaN",
            "\"\"",
            "\" \"",
            "{}",
            "[]",
            "[{}]",
            r#"{"code":null,"message":""}"#,
            r#"{"a":{}}"#,
        ] {
            assert!(!value(nothing).is_truthy(), "{nothing}");
        }
        for something in
            ["true", "1", "\"x\"", "[1]", r#"{"code":1}"#, r#"{"a":{"b":1}}"#, r#"{"message":"m"}"#]
        {
            assert!(value(something).is_truthy(), "{something}");
        }
    }

    proptest! {
        #[test]
        fn valid_json_is_read_to_its_end(text in "[ -~]{0,40}") {
            let json = serde_json::json!({ "a": [&text, { &text: text }], "b": text }).to_string();
            let (found, is_whole) = members(&json);
            prop_assert!(is_whole);
            prop_assert_eq!(found.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["a", "b"]);
        }

        #[test]
        fn the_cursor_reads_arbitrary_bytes_without_panic(bytes in proptest::collection::vec(prop_oneof![
            Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b'"'), Just(b'\\'), Just(b':'), Just(b','), any::<u8>(),
        ], 0..60)) {
            let mut cursor = Cursor::new(&bytes);
            cursor.object(&mut |_, cursor| cursor.list(&mut |cursor| { cursor.value(); }));
            prop_assert!(cursor.rest().is_none_or(|rest| rest.len() <= bytes.len()));
        }
    }
}
