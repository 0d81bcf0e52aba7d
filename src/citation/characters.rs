//! The classes of characters, and their folding, in short lists: the tables of Unicode in the standard library and in its crates
//! are larger than this folder (`docs/citation.md` has the figures). The tests compare them with those of the standard library.

use crate::lower_case::{lower_case, push_lower_case};

/// Returns the characters of a text: once for all that reads it, because decoding is a part of the time.
pub(super) fn characters(text: &str) -> Vec<char> {
    let mut characters = Vec::with_capacity(text.len());
    if text.is_ascii() {
        characters.extend(text.bytes().map(char::from));
    } else {
        characters.extend(text.chars());
    }
    characters
}

/// Whether the character is a lower-case letter of Latin, Greek, Cyrillic or Armenian, the scripts with two cases.
pub(super) fn is_lower_case(c: char) -> bool {
    match c {
        'a'..='z' => true,
        'ß'..='\u{24f}' | 'ͱ'..='\u{52f}' | 'ա'..='և' | '\u{1e00}'..='\u{1fff}' => {
            c != '÷' && lower_case(c).is_none() && !is_mark(c)
        }
        _ => false,
    }
}

/// Whether the character is an upper-case letter.
pub(super) fn is_upper_case(c: char) -> bool {
    // No look-up for the scripts without case and for small Cyrillic letters.
    let is_caseless =
        matches!(c, '\0'..='\u{7f}' | 'а'..='я' | '\u{590}'..='\u{109f}' | '\u{3000}'..='\u{9fff}');
    c.is_ascii_uppercase() || !is_caseless && lower_case(c).is_some()
}

/// Whether the character combines with the one before it: marks, joiners, variation selectors, emoji modifiers. Of Indic
/// scripts, whole columns of their blocks.
pub(super) fn is_mark(c: char) -> bool {
    match c {
        // Latin, Greek, Cyrillic; Chinese and Korean: first, because most letters are of these.
        '\0'..='\u{2ff}' | '\u{370}'..='\u{482}' | '\u{48a}'..='\u{590}' | '\u{3400}'..='\u{d7ff}' => false,
        '\u{900}'..='\u{dff}' => is_indic_mark(c),
        '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' // Latin, Cyrillic
        | '\u{591}'..='\u{5bd}' | '\u{5bf}' | '\u{5c1}' | '\u{5c2}' | '\u{5c4}' | '\u{5c5}' | '\u{5c7}' // Hebrew
        | '\u{610}'..='\u{61a}' | '\u{64b}'..='\u{65f}' | '\u{670}' | '\u{6d6}'..='\u{6dc}' | '\u{6df}'..='\u{6e4}' // Arabic
        | '\u{6e7}' | '\u{6e8}' | '\u{6ea}'..='\u{6ed}' | '\u{711}' | '\u{730}'..='\u{74a}' | '\u{7a6}'..='\u{7b0}'
        | '\u{e31}' | '\u{e34}'..='\u{e3a}' | '\u{e47}'..='\u{e4e}' // Thai
        | '\u{eb1}' | '\u{eb4}'..='\u{ebc}' | '\u{ec8}'..='\u{ece}' // Lao
        | '\u{f18}' | '\u{f19}' | '\u{f35}' | '\u{f37}' | '\u{f39}' | '\u{f3e}' | '\u{f3f}' | '\u{f71}'..='\u{f84}' // Tibetan
        | '\u{f86}' | '\u{f87}' | '\u{f8d}'..='\u{fbc}'
        | '\u{102b}'..='\u{103e}' | '\u{1056}'..='\u{1059}' | '\u{105e}'..='\u{1060}' | '\u{1062}'..='\u{1064}' // Burmese
        | '\u{1067}'..='\u{106d}' | '\u{1071}'..='\u{1074}' | '\u{1082}'..='\u{108d}' | '\u{108f}' | '\u{109a}'..='\u{109d}'
        | '\u{135d}'..='\u{135f}' | '\u{17b4}'..='\u{17d3}' | '\u{17dd}' | '\u{180b}'..='\u{180f}' // Ethiopic, Khmer, Mongolian
        | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{200c}' | '\u{200d}' | '\u{20d0}'..='\u{20f0}'
        | '\u{302a}'..='\u{302f}' | '\u{3099}' | '\u{309a}' | '\u{fe00}'..='\u{fe0f}' | '\u{fe20}'..='\u{fe2f}'
        | '\u{1f3fb}'..='\u{1f3ff}' | '\u{e0100}'..='\u{e01ef}' => true,
        _ => false,
    }
}

fn is_indic_mark(c: char) -> bool {
    matches!(u32::from(c) & 0x7f, 0..=3 | 0x3a..=0x3c | 0x3e..=0x4f | 0x51..=0x57 | 0x62 | 0x63)
        || matches!(c, '\u{a70}' | '\u{a71}' | '\u{a75}' | '\u{afa}'..='\u{aff}' | '\u{dca}'..='\u{ddf}' | '\u{df2}' | '\u{df3}')
}

/// What a character is to the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// A letter of a word.
    Letter,
    /// A letter of a script that writes no spaces between words.
    Spaceless,
    /// A decimal digit, of any script.
    Digit(u8),
    /// A digit above or below the line.
    RaisedDigit(u8),
    /// White space, punctuation, a symbol.
    Other,
}

/// Returns the class of a character.
pub(super) fn class(c: char) -> Class {
    match c {
        'a'..='z' | 'A'..='Z' => Class::Letter,
        '0'..='9' => digit(c, '0'),
        // Letters of Latin, Greek, Cyrillic, Arabic, the Indic scripts and Chinese: first, because most characters are of these.
        'À'..='Ö' | 'Ø'..='ö' | 'ø'..='\u{37d}' | '\u{388}'..='\u{559}' | '\u{620}'..='\u{65f}' => {
            Class::Letter
        }
        '\u{900}'..='\u{963}' => Class::Letter,
        '\u{4e00}'..='\u{9fff}' => Class::Spaceless,
        '\0'..='\u{a9}' | '\u{ab}'..='\u{b1}' | '\u{b4}'..='\u{b8}' | '\u{bb}'..='\u{bf}' | '×' | '÷' => {
            Class::Other
        }
        '²' => Class::RaisedDigit(2),
        '³' => Class::RaisedDigit(3),
        '¹' => Class::RaisedDigit(1),
        '⁰'..='⁹' => raised(c, '⁰'),
        '₀'..='₉' => raised(c, '₀'),
        '\u{660}'..='\u{669}' => digit(c, '\u{660}'),
        '\u{6f0}'..='\u{6f9}' => digit(c, '\u{6f0}'),
        // The digits of each Indic block are in the same column.
        '\u{900}'..='\u{dff}' if matches!(u32::from(c) & 0x7f, 0x66..=0x6f) => digit(c, '\u{6}'),
        '\u{e50}'..='\u{e59}' => digit(c, '\u{e50}'),
        '\u{1040}'..='\u{1049}' => digit(c, '\u{1040}'),
        '\u{17e0}'..='\u{17e9}' => digit(c, '\u{17e0}'),
        '０'..='９' => digit(c, '０'),
        '\u{e01}'..='\u{e3a}'
        | '\u{e40}'..='\u{e4e}'
        | '\u{e81}'..='\u{ece}'
        | '\u{1000}'..='\u{103f}'
        | '\u{1050}'..='\u{109d}'
        | '\u{1780}'..='\u{17d3}'
        | '々'
        | '〇'
        | '\u{3041}'..='\u{3096}'
        | '\u{3400}'..='\u{4dbf}'
        | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}' => Class::Spaceless,
        // Punctuation of living scripts within their blocks.
        '\u{37e}'
        | '\u{387}'
        | '\u{55a}'..='\u{55f}'
        | '\u{589}'
        | '\u{58a}'
        | '\u{5be}'
        | '\u{5c0}'
        | '\u{5c3}'
        | '\u{5f3}'
        | '\u{5f4}'
        | '\u{600}'..='\u{60f}'
        | '\u{61b}'..='\u{61f}'
        | '\u{66a}'..='\u{66d}'
        | '\u{6d4}'
        | '\u{700}'..='\u{70d}'
        | '\u{964}'
        | '\u{965}'
        | '\u{970}'
        | '\u{e3f}'
        | '\u{e4f}'
        | '\u{e5a}'
        | '\u{e5b}'
        | '\u{104a}'..='\u{104f}'
        | '\u{10fb}'
        | '\u{1361}'..='\u{1368}'
        | '\u{1680}'
        | '\u{17d4}'..='\u{17db}'
        | '\u{2000}'..='\u{200b}'
        | '\u{200e}'..='\u{206f}'
        | '\u{20a0}'..='\u{20cf}'
        | '\u{2190}'..='\u{245f}'
        | '\u{2500}'..='\u{2bff}'
        | '\u{2e00}'..='\u{2e7f}'
        | '\u{3000}'..='\u{3004}'
        | '\u{3008}'..='\u{3020}'
        | '\u{3030}'
        | '\u{30a0}'
        | '\u{30fb}'
        | '\u{e000}'..='\u{f8ff}'
        | '\u{fe10}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff0f}'
        | '\u{ff1a}'..='\u{ff20}'
        | '\u{ff3b}'..='\u{ff40}'
        | '\u{ff5b}'..='\u{ff65}'
        | '\u{ffe0}'..='\u{ffff}'
        | '\u{1f000}'..='\u{1faff}' => Class::Other,
        _ => Class::Letter,
    }
}

fn digit(c: char, zero: char) -> Class {
    Class::Digit(distance(zero, c))
}

fn raised(c: char, zero: char) -> Class {
    Class::RaisedDigit(distance(zero, c))
}

/// Returns the distance between two characters in the column of 16 or 10 that has the digits.
fn distance(zero: char, c: char) -> u8 {
    let distance = u32::from(c).wrapping_sub(u32::from(zero)) & 0xf;
    u8::try_from(distance).unwrap_or_default()
}

/// The letters without diacritics of U+00E0 to U+017F.
const LATIN: &str = "aaaaaaaceeeeiiiidnooooo/ouuuuytyaaaaaaccccccccddddeeeeeeeeeegggggggghhhhiiiiiiiiiiiijjkkkllllllllllnnnnnnnnnoooooooorrrrrrssssssssttttttuuuuuuuuuuuuwwyyyzzzzzzs";
/// The same of U+1EA0 to U+1EF9 (Vietnamese).
const LATIN_ADDITIONAL: &str =
    "aaaaaaaaaaaaaaaaaaaaaaaaeeeeeeeeeeeeeeeeiiiioooooooooooooooooooooooouuuuuuuuuuuuuuyyyyyyyy";

/// Appends a letter without case, diacritics and variants; nothing for a mark that is one. Vowel signs of Indic scripts are no
/// diacritics.
pub(super) fn push_folded(text: &mut String, c: char) {
    let plain = |table: &str, first: char| {
        let index = usize::try_from(u32::from(c).saturating_sub(u32::from(first))).ok()?;
        table.as_bytes().get(index).map(|byte| char::from(*byte))
    };
    let folded = match c {
        '\0'..='\u{7f}' => Some(c.to_ascii_lowercase()),
        'ß' | 'ẞ' => {
            text.push('s');
            Some('s')
        }
        'À'..='ß' => plain(LATIN, 'À'),
        'à'..='ſ' => plain(LATIN, 'à'),
        'Ạ'..='ỹ' => plain(LATIN_ADDITIONAL, 'Ạ'),
        'ơ' | 'Ơ' => Some('o'),
        'ư' | 'Ư' => Some('u'),
        'ș' | 'Ș' => Some('s'),
        'ț' | 'Ț' => Some('t'),
        'ё' | 'Ё' => Some('е'),
        'й' | 'Й' => Some('и'),
        'ά' | 'Ά' => Some('α'),
        'έ' | 'Έ' => Some('ε'),
        'ή' | 'Ή' => Some('η'),
        'ί' | 'ϊ' | 'ΐ' | 'Ί' => Some('ι'),
        'ό' | 'Ό' => Some('ο'),
        'ύ' | 'ϋ' | 'ΰ' | 'Ύ' => Some('υ'),
        'ώ' | 'Ώ' => Some('ω'),
        'ς' => Some('σ'),
        'а'..='я' => Some(c),
        'А'..='Я' => char::from_u32(u32::from(c).saturating_add(32)),
        'أ' | 'إ' | 'آ' | 'ٱ' => Some('ا'),
        'ى' | 'ی' | 'ئ' => Some('ي'),
        'ؤ' => Some('و'),
        'ة' => Some('ه'),
        'ک' => Some('ك'),
        '\u{621}'..='\u{63a}' | '\u{641}'..='\u{64a}' | '゠'..='ヿ' => Some(c),
        // Devanagari: the precomposed letters with a dot, the two nasal signs, and the dot itself.
        '\u{958}' => Some('क'),
        '\u{959}' => Some('ख'),
        '\u{95a}' => Some('ग'),
        '\u{95b}' => Some('ज'),
        '\u{95c}' => Some('ड'),
        '\u{95d}' => Some('ढ'),
        '\u{95e}' => Some('फ'),
        '\u{95f}' => Some('य'),
        '\u{901}' => Some('\u{902}'),
        '\u{93c}' | '\u{640}' => None,
        '\u{900}'..='\u{dff}' => Some(c),
        '\u{ff21}'..='\u{ff3a}' | '\u{ff41}'..='\u{ff5a}' => {
            char::from_u32(u32::from(c).saturating_sub(0xfee0)).map(|c| c.to_ascii_lowercase())
        }
        _ if is_mark(c) && !is_vowel_sign(c) => None,
        _ => {
            push_lower_case(text, c);
            None
        }
    };
    if let Some(c) = folded {
        text.push(c);
    }
}

/// Whether the mark is a vowel of Thai, Lao, Burmese, Khmer or Tibetan.
const fn is_vowel_sign(c: char) -> bool {
    matches!(c, '\u{e31}'..='\u{109d}' | '\u{17b4}'..='\u{17d3}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(text: &str) -> String {
        let mut folded = String::new();
        text.chars().for_each(|c| push_folded(&mut folded, c));
        folded
    }

    #[test]
    fn case_diacritics_and_variants_are_folded() {
        for (text, expected) in [
            ("ÀÉÎÕÜ ÿ Ññ Çç Åå Øø Łódź Żółć Šťastný Őr", "aeiou y nn cc aa oo lodz zolc stastny or"),
            ("Straße STRASSE ẞ", "strasse strasse ss"),
            ("Việt Ầ Ơ", "viet a o"),
            ("e\u{301}\u{327}", "e"),
            ("Ёлка Йод", "елка иод"),
            ("Ώς", "ωσ"),
            ("أَحْمَد مدرسة مستشفى قـــهوة", "احمد مدرسه مستشفي قهوه"),
            ("हाँ हां ज़ीरो ज\u{93c}ीरो", "हां हां जीरो जीरो"),
            ("ＡＢｃ", "abc"),
            ("น้ำ", "น้ำ"),
        ] {
            assert_eq!(folded(text), expected);
        }
    }

    #[test]
    fn digits_of_every_script_have_their_value() {
        for (digits, expected) in [
            ("0123456789", 0..10),
            ("٠١٢٣٤٥٦٧٨٩", 0..10),
            ("०१२३४५६७८९", 0..10),
            ("০১", 0..2),
            ("０１２３４５６７８９", 0..10),
            ("๐๑", 0..2),
        ] {
            let values: Vec<Class> = digits.chars().map(class).collect();
            assert_eq!(values, expected.map(Class::Digit).collect::<Vec<_>>());
        }
        for (digits, expected) in [("⁰¹²³⁴⁵⁶⁷⁸⁹", 0..10), ("₀₁₂₃₄₅₆₇₈₉", 0..10)]
        {
            let values: Vec<Class> = digits.chars().map(class).collect();
            assert_eq!(values, expected.map(Class::RaisedDigit).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_classes_agree_with_the_standard_library() {
        // Of the scripts in use; numbers and rare symbols differ.
        for c in ('\0'..='\u{2fff}').chain('\u{3000}'..='\u{9fff}') {
            let found = class(c);
            if c.is_whitespace() || c.is_control() {
                assert_eq!(found, Class::Other, "{}", c.escape_unicode());
            }
            if c.is_alphabetic()
                && !matches!(c, '\u{17d7}' | '\u{17dc}')
                && !c.is_numeric()
                && !is_mark(c)
                && !('\u{2070}'..='\u{2fff}').contains(&c)
            {
                let is_letter = matches!(found, Class::Letter | Class::Spaceless);
                assert!(is_letter || matches!(c, 'ª' | 'µ' | 'º'), "{}", c.escape_unicode());
            }
        }
    }

    #[test]
    fn lower_and_upper_case_agree_with_the_standard_library() {
        for c in ('\0'..='\u{24f}')
            .chain('\u{386}'..='\u{3ce}')
            .chain('\u{400}'..='\u{556}')
            .chain('\u{1e00}'..='\u{1eff}')
        {
            let has_case = c.is_alphabetic() && (c.is_lowercase() || c.is_uppercase());
            if has_case
                && !matches!(
                    c,
                    'ª' | 'µ' | 'º' | '\u{1c5}' | '\u{1c8}' | '\u{1cb}' | '\u{1f2}' | '\u{250}'
                        ..='\u{370}' | 'İ'
                )
            {
                assert_eq!(
                    (is_lower_case(c), is_upper_case(c)),
                    (c.is_lowercase(), c.is_uppercase()),
                    "{}",
                    c.escape_unicode()
                );
            }
        }
    }
}
