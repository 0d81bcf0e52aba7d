//! The one sanitizer for stored text: the input of a learner, and every field of a candidate.
//!
//! CRLF and CR become LF. Control characters (C0, DEL, C1) except tab and newline are removed, and so are U+FEFF
//! and the Unicode tag characters (U+E0000 to U+E007F), which can hide text from a reader. Leading and trailing
//! white space is trimmed.
//!
//! The checks in `migrations/` repeat the rule, so that sanitized text can be stored.

use std::borrow::Cow;

/// Sanitizes a text; borrowed if no character within it had to be removed or replaced.
#[must_use]
pub fn sanitize(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(may_be_changed) {
        return Cow::Borrowed(text.trim());
    }
    let trimmed = text.trim_matches(|c: char| c.is_whitespace() || is_removed(c));
    if !trimmed.chars().any(|c| c == '\r' || is_removed(c)) {
        return Cow::Borrowed(trimmed);
    }
    let mut clean = String::with_capacity(trimmed.len());
    let mut after_cr = false;
    for c in trimmed.chars() {
        match c {
            '\r' => clean.push('\n'),
            '\n' if after_cr => {}
            c if is_removed(c) => {}
            c => clean.push(c),
        }
        after_cr = c == '\r';
    }
    Cow::Owned(clean)
}

/// Whether the first byte of a character that is removed or replaced can be this one.
const fn may_be_changed(byte: u8) -> bool {
    // C1 begins with C2, U+FEFF with EF, a tag character with F3.
    matches!(byte, 0..=8 | 0xb..=0x1f | 0x7f | 0xc2 | 0xef | 0xf3)
}

const fn is_removed(c: char) -> bool {
    matches!(c,
        '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' // C0 without tab, newline and CR
        | '\u{7f}'..='\u{9f}' // DEL and C1
        | '\u{feff}'
        | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_rule_of_the_sanitizer_applies() {
        for (text, clean) in [
            ("a\r\nb\rc\nd", "a\nb\nc\nd"),
            ("a\r\r\nb", "a\n\nb"),
            ("a\r\u{feff}\nb", "a\n\nb"),
            ("a\tb\0c\u{7f}d\u{85}e\u{9f}f\u{1b}g\u{c}h\u{b}i", "a\tbcdefghi"),
            ("\u{feff}a\u{feff}b", "ab"),
            ("a\u{e0041}\u{e007f}\u{e0000}b", "ab"),
            (" \u{3000}\u{a0}\n\ta b\r\n ", "a b"),
            (" \0 a \u{feff} \0 ", "a"),
            ("", ""),
            (" \r\n\0", ""),
            (
                "e\u{301} \u{1f468}\u{200d}\u{1f469} \u{202e}\u{200b}x",
                "e\u{301} \u{1f468}\u{200d}\u{1f469} \u{202e}\u{200b}x",
            ),
        ] {
            assert_eq!(sanitize(text), clean, "{text:?}");
        }
    }

    /// The contract's list, written a second time as numbers, so that an error in one of the two is detected.
    const LIST: [(u32, u32); 5] =
        [(0x00, 0x08), (0x0b, 0x1f), (0x7f, 0x9f), (0xfeff, 0xfeff), (0xe_0000, 0xe_007f)];

    fn is_listed(c: char) -> bool {
        LIST.iter().any(|(first, last)| (*first..=*last).contains(&u32::from(c)))
    }

    /// A simple, slow version of the sanitizer.
    fn sanitize_slowly(text: &str) -> String {
        let with_lf = text.replace("\r\n", "\n").replace('\r', "\n");
        let kept: String = with_lf.chars().filter(|c| !is_listed(*c)).collect();
        kept.trim().to_owned()
    }

    #[test]
    fn only_the_listed_characters_are_removed() {
        let all = || ('\0'..=char::MAX).filter(|c| *c != '\r');
        let between: String = all().flat_map(|c| [c, 'x']).collect();
        let kept: String =
            all().flat_map(|c| [Some(c).filter(|c| !is_listed(*c)), Some('x')]).flatten().collect();
        assert!(sanitize(&between) == kept, "compared whole: the texts are too long to be shown");
    }

    fn texts() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            Just("\r\n".to_owned()),
            prop::sample::select(
                "\r\n\t \u{a0}\u{2028}\u{3000}ab\u{301}\u{1f600}".chars().collect::<Vec<_>>()
            )
            .prop_map(String::from),
            prop::sample::select(LIST.iter().flat_map(|(first, last)| [*first, *last]).collect::<Vec<_>>())
                .prop_map(|number| char::from_u32(number).into_iter().collect()),
            any::<char>().prop_map(String::from),
        ];
        prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn sanitized_text_stays_unchanged(text in texts()) {
            let once = sanitize(&text).into_owned();
            prop_assert_eq!(sanitize(&once), once.as_str());
        }

        #[test]
        fn sanitized_text_is_never_longer(text in texts()) {
            let clean = sanitize(&text);
            prop_assert!(clean.len() <= text.len());
            prop_assert!(clean.chars().count() <= text.chars().count());
        }

        #[test]
        fn the_sanitizer_changes_only_what_its_rules_name(text in texts()) {
            prop_assert_eq!(sanitize(&text), sanitize_slowly(&text));
        }
    }
}
