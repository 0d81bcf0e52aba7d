//! The records that this service writes for itself: messages between its parts, and rows of its storage.
//!
//! ```text
//! write    [("run", &run), ("model", &model)]  ─►  {"run":1,"model":"…"}
//! read     Members::read(json)?.get("run")?    ─►  a value of the member's type, or `None`: no decision rests on a broken record
//! ```
//! Strict, unlike `Cursor`: one comma between two members, no duplicate member, nothing after the end. Unknown members are
//! skipped, so that a later version may add one.
//!
//! Also for rows of the database and published keys, whose servers write standard JSON. Not for: the body of a request.
//! A serde type for each would make the module 20 KB larger, gzipped.

use std::fmt::Write as _;
use std::rc::Rc;

use uuid::Uuid;

use super::Cursor;
use super::scan::find_escaped;
use super::strict::{read_number, read_text};

/// A value that a record can contain, as JSON.
pub trait ToJson {
    /// Appends the value.
    fn write(&self, json: &mut String);
}

/// A value of a record.
pub trait FromJson: Sized {
    /// Reads the value; `None` for JSON of another type.
    fn read(json: &[u8]) -> Option<Self>;

    /// The value of a member that a record lacks; `None` for one that it must have.
    #[must_use]
    fn missing() -> Option<Self> {
        None
    }
}

/// Returns a value as JSON.
#[must_use]
pub fn to_json(value: &dyn ToJson) -> String {
    let mut json = String::new();
    value.write(&mut json);
    json
}

/// Appends an object.
pub fn write_object(json: &mut String, members: &[(&str, &dyn ToJson)]) {
    json.push('{');
    for (index, (name, value)) in members.iter().enumerate() {
        for part in [if index == 0 { "\"" } else { ",\"" }, name, "\":"] {
            json.push_str(part);
        }
        value.write(json);
    }
    json.push('}');
}

/// Appends a list.
fn write_list(json: &mut String, items: &mut dyn Iterator<Item = &dyn ToJson>) {
    json.push('[');
    for (index, item) in items.enumerate() {
        if index > 0 {
            json.push(',');
        }
        item.write(json);
    }
    json.push(']');
}

/// Appends a list of a few items of different types.
pub fn write_tuple(json: &mut String, items: &[&dyn ToJson]) {
    write_list(json, &mut items.iter().copied());
}

/// The members of an object: each name, and its value as it is written.
#[derive(Debug)]
pub struct Members<'a>(Vec<(&'a [u8], &'a [u8])>);

impl<'a> Members<'a> {
    /// Reads an object.
    #[must_use]
    pub fn read(json: &'a [u8]) -> Option<Self> {
        let mut members: Vec<(&[u8], &[u8])> = Vec::new();
        read_items(json, *b"{}", &mut |cursor| {
            cursor.first().filter(|byte| *byte == b'"')?;
            let name = cursor.text();
            cursor.first().filter(|byte| *byte == b':')?;
            cursor.take(1);
            let is_new = members.iter().all(|(known, _)| *known != name);
            members.push((name, cursor.raw()));
            is_new.then_some(())
        })?;
        Some(Self(members))
    }

    /// Returns a member; `None` where it has another type, or is missing although it must be there.
    #[must_use]
    pub fn get<T: FromJson>(&self, name: &str) -> Option<T> {
        self.find(name).map_or_else(T::missing, T::read)
    }

    /// Returns a member that records of an earlier version lack.
    #[must_use]
    pub fn get_or_default<T: FromJson + Default>(&self, name: &str) -> Option<T> {
        self.find(name).map_or_else(|| Some(T::default()), T::read)
    }

    /// Whether there is a member of that name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    fn find(&self, name: &str) -> Option<&'a [u8]> {
        self.0.iter().find(|(known, _)| *known == name.as_bytes()).map(|(_, json)| *json)
    }
}

/// The items of a list, as they are written.
#[derive(Debug)]
pub struct Items<'a>(Vec<&'a [u8]>);

impl<'a> Items<'a> {
    /// Reads a list.
    #[must_use]
    pub fn read(json: &'a [u8]) -> Option<Self> {
        let mut items = Vec::new();
        read_items(json, *b"[]", &mut |cursor| {
            items.push(cursor.raw());
            Some(())
        })?;
        Some(Self(items))
    }

    /// Iterates over the items, as they are written.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().copied()
    }

    /// Returns an item; `None` where it has another type or is missing.
    #[must_use]
    pub fn get<T: FromJson>(&self, index: usize) -> Option<T> {
        self.0.get(index).and_then(|json| T::read(json))
    }

    /// Returns an item that shorter lists lack.
    #[must_use]
    pub fn get_or_default<T: FromJson + Default>(&self, index: usize) -> Option<T> {
        self.0.get(index).map_or_else(|| Some(T::default()), |json| T::read(json))
    }
}

/// Reads what is between two brackets; `on_item` reads one item.
fn read_items<'a>(
    json: &'a [u8],
    [open, close]: [u8; 2],
    on_item: &mut dyn FnMut(&mut Cursor<'a>) -> Option<()>,
) -> Option<()> {
    let mut cursor = Cursor::new(json);
    cursor.first().filter(|byte| *byte == open)?;
    cursor.take(1);
    if cursor.first() != Some(close) {
        loop {
            on_item(&mut cursor)?;
            if cursor.first() != Some(b',') {
                break;
            }
            cursor.take(1);
        }
    }
    cursor.first().filter(|byte| *byte == close)?;
    cursor.take(1);
    cursor.rest().filter(|rest| rest.trim_ascii().is_empty()).map(|_| ())
}

/// Writes a text as a JSON string.
pub fn write_quoted(json: &mut String, text: &str) {
    json.reserve(text.len().saturating_add(2));
    json.push('"');
    let mut rest = text;
    while let Some((plain, escaped)) = find_escaped(rest.as_bytes()).and_then(|at| rest.split_at_checked(at))
    {
        json.push_str(plain);
        let mut chars = escaped.chars();
        match chars.next() {
            Some('\n') => json.push_str("\\n"),
            Some('\r') => json.push_str("\\r"),
            Some('\t') => json.push_str("\\t"),
            Some('\u{8}') => json.push_str("\\b"),
            Some('\u{c}') => json.push_str("\\f"),
            Some(char) if char < ' ' => {
                json.push_str(if char < '\u{10}' { "\\u000" } else { "\\u001" });
                json.extend(char::from_digit(u32::from(char) & 15, 16));
            }
            char => {
                json.push('\\');
                json.extend(char);
            }
        }
        rest = chars.as_str();
    }
    json.push_str(rest);
    json.push('"');
}

/// Returns a text as a JSON string.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut json = String::new();
    write_quoted(&mut json, text);
    json
}

macro_rules! whole_numbers {
    ($($number:ty)+) => {$(
        impl ToJson for $number {
            fn write(&self, json: &mut String) {
                // Writing to a string does not fail.
                let _ = write!(json, "{self}");
            }
        }

        impl FromJson for $number {
            fn read(json: &[u8]) -> Option<Self> {
                whole(json).and_then(|number| Self::try_from(number).ok())
            }
        }
    )+};
}

whole_numbers!(u32 u64 usize);

fn whole(json: &[u8]) -> Option<u64> {
    // `parse` would accept a plus sign.
    let digits = std::str::from_utf8(json).ok().filter(|json| !json.starts_with('+'))?;
    digits.parse().ok()
}

impl ToJson for f64 {
    fn write(&self, json: &mut String) {
        json.push_str(&serde_json::to_string(self).unwrap_or_default());
    }
}

impl FromJson for f64 {
    fn read(json: &[u8]) -> Option<Self> {
        read_number(json)
    }
}

impl ToJson for bool {
    fn write(&self, json: &mut String) {
        json.push_str(if *self { "true" } else { "false" });
    }
}

impl FromJson for bool {
    fn read(json: &[u8]) -> Option<Self> {
        match json {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        }
    }
}

impl ToJson for str {
    fn write(&self, json: &mut String) {
        write_quoted(json, self);
    }
}

impl<T: ToJson + ?Sized> ToJson for &T {
    fn write(&self, json: &mut String) {
        (**self).write(json);
    }
}

impl ToJson for String {
    fn write(&self, json: &mut String) {
        self.as_str().write(json);
    }
}

impl FromJson for String {
    fn read(json: &[u8]) -> Option<Self> {
        read_text(json)
    }
}

impl FromJson for Rc<str> {
    fn read(json: &[u8]) -> Option<Self> {
        String::read(json).map(Self::from)
    }
}

impl ToJson for Uuid {
    fn write(&self, json: &mut String) {
        for part in ["\"", self.hyphenated().encode_lower(&mut Self::encode_buffer()), "\""] {
            json.push_str(part);
        }
    }
}

impl FromJson for Uuid {
    fn read(json: &[u8]) -> Option<Self> {
        Self::try_parse_ascii(json.strip_prefix(b"\"")?.strip_suffix(b"\"")?).ok()
    }
}

impl<T: ToJson + ?Sized> ToJson for Rc<T> {
    fn write(&self, json: &mut String) {
        (**self).write(json);
    }
}

impl<T: FromJson> FromJson for Rc<T> {
    fn read(json: &[u8]) -> Option<Self> {
        T::read(json).map(Self::new)
    }
}

impl<T: ToJson> ToJson for Option<T> {
    fn write(&self, json: &mut String) {
        match self {
            Some(value) => value.write(json),
            None => json.push_str("null"),
        }
    }
}

impl<T: FromJson> FromJson for Option<T> {
    fn read(json: &[u8]) -> Option<Self> {
        if json == b"null" { Some(None) } else { T::read(json).map(Some) }
    }

    fn missing() -> Option<Self> {
        Some(None)
    }
}

impl<T: ToJson> ToJson for [T] {
    fn write(&self, json: &mut String) {
        write_list(
            json,
            &mut self.iter().map(|item| {
                let item: &dyn ToJson = item;
                item
            }),
        );
    }
}

impl<T: ToJson> ToJson for Vec<T> {
    fn write(&self, json: &mut String) {
        self.as_slice().write(json);
    }
}

impl<T: FromJson> FromJson for Vec<T> {
    fn read(json: &[u8]) -> Option<Self> {
        Items::read(json)?.iter().map(T::read).collect()
    }
}

impl<A: ToJson, B: ToJson> ToJson for (A, B) {
    fn write(&self, json: &mut String) {
        write_tuple(json, &[&self.0, &self.1]);
    }
}

impl<A: ToJson, B: ToJson, C: ToJson> ToJson for (A, B, C) {
    fn write(&self, json: &mut String) {
        write_tuple(json, &[&self.0, &self.1, &self.2]);
    }
}

impl<A: FromJson, B: FromJson, C: FromJson> FromJson for (A, B, C) {
    fn read(json: &[u8]) -> Option<Self> {
        let items = Items::read(json)?;
        Some((items.get(0)?, items.get(1)?, items.get(2)?))
    }
}

impl<A: FromJson, B: FromJson> FromJson for (A, B) {
    fn read(json: &[u8]) -> Option<Self> {
        let items = Items::read(json)?;
        Some((items.get(0)?, items.get(1)?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn object(members: &[(&str, &dyn ToJson)]) -> String {
        let mut json = String::new();
        write_object(&mut json, members);
        json
    }

    #[test]
    fn a_broken_object_is_not_read() {
        for broken in [
            "",
            "{",
            "}",
            "null",
            "[]",
            "\"{}\"",
            "{a:1}",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a" 1}"#,
            r#"{"a":1"#,
            r#"{"a":1,}"#,
            r#"{,"a":1}"#,
            r#"{"a":1,,"b":2}"#,
            r#"{"a":1 "b":2}"#,
            r#"{"a":1}}"#,
            r#"{"a":1} x"#,
            r#"{"a":1,"a":1}"#,
            r#"{"a":[1}"#,
            r#"{"a":"b}"#,
        ] {
            assert!(Members::read(broken.as_bytes()).is_none(), "{broken}");
        }
        for whole in ["{}", " { } ", r#"{"a":1}"#, "\n{ \"a\" : 1 , \"b\" : [ ] }\n"] {
            assert!(Members::read(whole.as_bytes()).is_some(), "{whole}");
        }
    }

    #[test]
    fn a_broken_list_is_not_read() {
        for broken in ["", "[", "]", "{}", "[1", "[1,]", "[,1]", "[1,,2]", "[1 2]", "[1]]", "[[1]", "[:]"] {
            assert!(Vec::<u32>::read(broken.as_bytes()).is_none(), "{broken}");
        }
        for (whole, items) in [("[]", vec![]), (" [ 1 , 2 ] ", vec![1, 2])] {
            assert_eq!(Vec::<u32>::read(whole.as_bytes()), Some(items), "{whole}");
        }
    }

    #[test]
    fn a_value_of_another_type_is_not_read() {
        for other in ["", "null", "true", "-1", "+1", "1.5", "1e3", "\"1\"", "4294967296", "[1]", "{}", "0x1"]
        {
            assert_eq!(u32::read(other.as_bytes()), None, "{other}");
        }
        for other in ["", "null", "1", "\"true\"", "True"] {
            assert_eq!(bool::read(other.as_bytes()), None, "{other}");
        }
        for other in ["null", "\"1\"", "NaN", "1e400", "true"] {
            assert_eq!(f64::read(other.as_bytes()), None, "{other}");
        }
        for other in ["1", "null", "\"", "\"\\x\"", "\"\\ud800\"", "\"\n\"", "[\"a\"]"] {
            assert_eq!(String::read(other.as_bytes()), None, "{other}");
        }
        assert_eq!(String::read(b"\"\xff\""), None);
        for other in ["\"\"", "00000000-0000-0000-0000-000000000001", "\"x\"", "1"] {
            assert_eq!(Uuid::read(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_missing_member_is_none_only_where_it_is_optional() {
        let members = Members::read(br#"{"a":null}"#).expect("an object");
        assert_eq!(members.get::<Option<u32>>("a"), Some(None));
        assert_eq!(members.get::<Option<u32>>("b"), Some(None));
        assert_eq!(members.get::<u32>("b"), None);
        assert_eq!(members.get_or_default::<u32>("b"), Some(0));
        assert_eq!(members.get_or_default::<u32>("a"), None, "null is no number");
    }

    proptest! {
        #[test]
        fn a_written_record_is_the_json_that_serde_writes(
            text in any::<String>(), small in any::<u32>(), large in any::<u64>(), billionths in any::<u32>(),
            switch in any::<bool>(), id in any::<u128>(), list in prop::collection::vec(any::<(u64, u32)>(), 0..4),
        ) {
            let (id, real) = (Uuid::from_u128(id), f64::from(billionths) / 1e9);
            let (some, none) = (Some(text.clone()), None::<u32>);
            let written = object(&[("text", &text), ("small", &small), ("large", &large), ("real", &real),
                ("switch", &switch), ("id", &id), ("list", &list), ("some", &some), ("none", &none)]);
            let expected = json!({ "text": text, "small": small, "large": large, "real": real, "switch": switch,
                "id": id, "list": list, "some": some, "none": none });
            prop_assert_eq!(serde_json::from_str::<Value>(&written).expect("it is JSON"), expected);
            for end in 0..written.len() {
                prop_assert!(Members::read(&written.as_bytes()[..end]).is_none());
            }
            let members = Members::read(written.as_bytes()).expect("an object");
            prop_assert_eq!(members.get("text"), Some(text));
            prop_assert_eq!(members.get("small"), Some(small));
            prop_assert_eq!(members.get("large"), Some(large));
            prop_assert_eq!(members.get::<f64>("real"), serde_json::from_str(&real.to_string()).ok());
            prop_assert_eq!(members.get("switch"), Some(switch));
            prop_assert_eq!(members.get("id"), Some(id));
            prop_assert_eq!(members.get("list"), Some(list));
            prop_assert_eq!(members.get("some"), Some(some));
            prop_assert_eq!(members.get("none"), Some(none));
        }

        #[test]
        fn the_json_that_serde_writes_is_read(text in any::<String>(), number in any::<u64>()) {
            let value = json!({ "number": number, "other": { "text": [&text] }, "text": text });
            for form in [value.to_string(), format!(" {value:#}\n")] {
                let members = Members::read(form.as_bytes()).expect("an object");
                prop_assert_eq!(members.get("text"), Some(text.clone()));
                prop_assert_eq!(members.get("number"), Some(number));
            }
        }

        #[test]
        fn arbitrary_bytes_are_read_without_panic(bytes in prop::collection::vec(prop_oneof![
            Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b'"'), Just(b'\\'), Just(b':'), Just(b','), Just(b'a'), any::<u8>(),
        ], 0..24)) {
            if let Some(members) = Members::read(&bytes) {
                let _ = (members.get::<String>("a"), members.get::<Vec<Uuid>>("a"), members.get::<(u32, f64)>("a"));
            }
        }
    }
}
