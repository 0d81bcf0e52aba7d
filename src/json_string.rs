//! A text as a JSON string: escaped once, then copied as it is into every JSON document that contains it.
//!
//! ```text
//! text   one "two"          NewSession, the model's message after its parsing
//! JSON   "one \"two\""      command, stored record, database row, model request
//! ```

use std::borrow::Cow;
use std::fmt;
use std::rc::Rc;

use crate::json::record::{FromJson, ToJson, quoted};
use crate::json::strict::{follows_grammar, read_text};

/// A JSON string (RFC 8259, section 7). Cloning does not copy it.
#[derive(Clone)]
pub struct JsonString {
    /// INVARIANT: a JSON string with its quotes.
    quoted: Rc<str>,
}

impl JsonString {
    /// Escapes a text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self { quoted: Rc::from(quoted(text)) }
    }

    /// Returns the escaped text, without its quotes. A part of a longer JSON string as it is.
    #[must_use]
    pub fn escaped(&self) -> &str {
        self.quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or_default()
    }

    /// Returns the text itself; borrowed where nothing is escaped. A lone surrogate, which no sanitized text has, leaves the
    /// text escaped.
    #[must_use]
    pub fn decoded(&self) -> Cow<'_, str> {
        let escaped = self.escaped();
        if !escaped.contains('\\') {
            return Cow::Borrowed(escaped);
        }
        read_text(self.quoted.as_bytes()).map_or(Cow::Borrowed(escaped), Cow::Owned)
    }

    /// Whether the text is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.escaped().is_empty()
    }
}

impl fmt::Debug for JsonString {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.quoted)
    }
}

impl PartialEq for JsonString {
    fn eq(&self, other: &Self) -> bool {
        self.quoted == other.quoted
    }
}

impl Eq for JsonString {}

impl ToJson for JsonString {
    fn write(&self, json: &mut String) {
        json.push_str(&self.quoted);
    }
}

impl FromJson for JsonString {
    fn read(json: &[u8]) -> Option<Self> {
        // A check that accepts a lone surrogate: the text is only copied.
        let quoted = std::str::from_utf8(json).ok()?.trim_ascii();
        (quoted.starts_with('"') && follows_grammar(json)).then(|| Self { quoted: Rc::from(quoted) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::json::record::{quoted, to_json};

    /// Text with every kind of character that JSON treats in its own way.
    fn texts() -> impl Strategy<Value = String> {
        let kinds = "\"\\/\u{8}\u{c}\n\r\t\0\u{1f}\u{7f}\u{85}\u{2028}\u{2029}\u{feff}\u{d7ff}\u{e000}\u{ffff}\u{1f600}\u{10ffff}ub0\u{e9}";
        let kind = prop::sample::select(kinds.chars().collect::<Vec<_>>());
        prop::collection::vec(prop_oneof![kind, any::<char>()], 0..40).prop_map(String::from_iter)
    }

    #[test]
    fn only_a_json_string_is_read() {
        for other in
            ["null", "7", "true", "[\"a\"]", "{\"a\":\"b\"}", "", "\"a", "\"a\nb\"", "\"\\x\"", "\"a\"b"]
        {
            assert!(JsonString::read(other.as_bytes()).is_none(), "{other}");
        }
        let read = JsonString::read(br#" "a \u00e9\/" "#).expect("it is a string");
        assert_eq!((read.escaped(), &*read.decoded()), ("a \\u00e9\\/", "a \u{e9}/"));
        assert!(matches!(JsonString::new("plain").decoded(), Cow::Borrowed("plain")));
        let lone = JsonString::read(br#""\ud83d""#).expect("it is a string");
        assert_eq!(lone.decoded(), "\\ud83d");
    }

    #[test]
    fn the_empty_text_is_empty() {
        assert!(JsonString::new("").is_empty());
        assert!(!JsonString::new("\0").is_empty());
    }

    #[test]
    fn a_text_is_quoted_as_by_serde_json() {
        for text in ('\0'..='\u{ff}').map(|char| format!("some text {char} more")) {
            assert_eq!(quoted(&text), serde_json::to_string(&text).expect("it is text"));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_quoted_as_by_serde_json(text in texts()) {
            prop_assert_eq!(quoted(&text), serde_json::to_string(&text)?);
        }

        #[test]
        fn a_text_is_written_as_serde_json_writes_it(text in texts()) {
            let expected = serde_json::to_string(&[&text, &text])?;
            let json = JsonString::new(&text);
            prop_assert_eq!(to_json(&vec![json.clone(), json.clone()]), expected);
            prop_assert_eq!(["\"", json.escaped(), "\""].concat(), serde_json::to_string(&text)?);
        }

        #[test]
        fn escaped_texts_are_concatenated_like_the_texts(one in texts(), two in texts()) {
            let joined = [JsonString::new(&one).escaped(), JsonString::new(&two).escaped()].concat();
            let whole = JsonString::new(&[one, two].concat());
            prop_assert_eq!(joined, whole.escaped());
        }

        #[test]
        fn a_written_text_is_read_back(text in texts()) {
            let json = JsonString::new(&text);
            let written = to_json(&(json.clone(), 1_u32));
            prop_assert_eq!(&written, &serde_json::to_string(&(&text, 1))?);
            let read = <(JsonString, u32)>::read(written.as_bytes()).map(|(read, _)| read);
            prop_assert_eq!(read.as_ref().map(JsonString::decoded), Some(Cow::Borrowed(text.as_str())));
            prop_assert_eq!(read, Some(json));
        }
    }
}
