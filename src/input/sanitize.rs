//! The one rule for text that is kept: what a learner sent, and every field of a card.
//!
//! CRLF and CR become LF. Control characters (C0, DEL, C1) except tab and newline are removed, and so are U+FEFF
//! and the Unicode tag characters (U+E0000 to U+E007F), which can hide text from a reader. Leading and trailing
//! white space is trimmed. Nothing else changes.
//!
//! The checks in `migrations/` repeat the rule, so what comes out of here can be stored.

use std::borrow::Cow;

/// The text by the rule above; borrowed where nothing had to be taken out of the middle.
#[must_use]
pub fn sanitize(text: &str) -> Cow<'_, str> {
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
    fn each_line_of_the_rule() {
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

    proptest! {
        #[test]
        fn what_is_clean_stays_as_it_is(text in any::<String>()) {
            let once = sanitize(&text).into_owned();
            prop_assert_eq!(sanitize(&once), once.as_str());
        }

        #[test]
        fn nothing_gets_longer_and_only_what_is_listed_goes(text in "[ \\t\\r\\n\\PC\u{0}\u{1b}\u{85}\u{feff}\u{e0041}a-c]{0,64}") {
            let clean = sanitize(&text).into_owned();
            prop_assert!(clean.len() <= text.len());
            let kept = |text: &str| text.chars().filter(|c| !c.is_whitespace() && !is_removed(*c)).collect::<String>();
            prop_assert_eq!(kept(&clean), kept(&text));
        }
    }
}
