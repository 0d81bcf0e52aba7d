//! The header `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07, section 2.1): a string of RFC 9651, in
//! quotes. One without quotes is accepted, too, because many clients send it so; both spellings are the same key.
//!
//! Not for: the records of keys (`user_state::idempotency`).

/// The longest key. A UUID has 36.
pub const KEY_CHARS_MAX: usize = 255;

/// The value is not a single key of 1 to [`KEY_CHARS_MAX`] visible ASCII characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoKey;

/// Reads the key from the header's value.
///
/// # Errors
/// [`NoKey`].
pub fn read(field: &str) -> Result<String, NoKey> {
    let field = field.trim_matches([' ', '\t']);
    let key = match field.strip_prefix('"') {
        Some(quoted) => unquote(quoted)?,
        None => field.to_owned(),
    };
    // A space separates several values in one field; a control character is in no key.
    let is_visible = key.bytes().all(|byte| byte.is_ascii_graphic());
    if is_visible && (1..=KEY_CHARS_MAX).contains(&key.len()) { Ok(key) } else { Err(NoKey) }
}

/// RFC 9651, section 4.2.5. Parameters may follow the closing quote; none is defined.
fn unquote(quoted: &str) -> Result<String, NoKey> {
    let mut key = String::new();
    let mut rest = quoted.chars();
    loop {
        match rest.next().ok_or(NoKey)? {
            '"' => break,
            '\\' => key.push(rest.next().filter(|c| matches!(c, '"' | '\\')).ok_or(NoKey)?),
            c => key.push(c),
        }
    }
    let rest = rest.as_str().trim_start_matches(' ');
    if rest.is_empty() || rest.starts_with(';') { Ok(key) } else { Err(NoKey) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_with_and_without_quotes() {
        let longest = "k".repeat(KEY_CHARS_MAX);
        for (field, key) in [
            ("\"8e03978e-40d5-43dd-bc93-6894a57f9324\"", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
            ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
            ("  \"a\"\t", "a"),
            ("\"a\"; p=1", "a"),
            (r#""a\"b\\c""#, r#"a"b\c"#),
            (r"a\b", r"a\b"),
            ("a,b", "a,b"),
            (&longest, &longest),
            (&format!("\"{longest}\""), &longest),
        ] {
            assert_eq!(read(field), Ok(key.to_owned()), "{field}");
        }
    }

    #[test]
    fn invalid_keys_are_rejected() {
        let too_long = "k".repeat(KEY_CHARS_MAX + 1);
        for field in [
            "",
            " ",
            "\"\"",
            "\"",
            "\"a",
            "\"a\\",
            "\"a\\b\"",
            "\"a\"b",
            "\"a\", \"b\"",
            "a, b",
            "a b",
            "\"a b\"",
            "\"a\u{7f}\"",
            "a\u{1}",
            "sch\u{fc}ssel",
            &too_long,
            &format!("\"{too_long}\""),
        ] {
            assert_eq!(read(field), Err(NoKey), "{field}");
        }
    }
}
