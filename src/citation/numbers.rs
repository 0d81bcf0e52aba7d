//! The value of a written number: digits of any script, groups of three, decimals.
//!
//! ```text
//! 1000  1,000  1.000  1 000  1'000  ١٠٠٠     1000        "1,000" and "1.000" have a second reading: 1.000
//! 2,5  2.5  2½                               2.5
//! 12.05.1990  1.2.3                          12, and the rest on its own
//! ```

use super::characters::{Class, class};

/// More digits than any number of a learner's text; a longer run is read up to here.
const CHARS_MAX: usize = 40;

/// A number in its decimal form.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Number {
    first: String,
    /// Where one separator before three digits can mean either.
    second: Option<String>,
}

impl Number {
    /// Iterates over the one or two readings.
    pub(super) fn readings(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.first.as_str()).chain(self.second.as_deref())
    }
}

/// Reads the number at the beginning of the characters; returns it and its length. The first character is a digit.
pub(super) fn read_number(chars: &[char]) -> (Number, usize) {
    let chars = chars.get(..CHARS_MAX.min(chars.len())).unwrap_or_default();
    let whole = digits(chars);
    let mut groups = vec![whole.clone()];
    let mut separators: Vec<char> = Vec::new();
    let mut length = whole.len();
    // The length after each group.
    let mut lengths = vec![length];
    while let Some(separator) = chars.get(length).copied().and_then(separator) {
        let group = digits(chars.get(length.saturating_add(1)..).unwrap_or_default());
        // A space separates groups of three digits only, and no number in words.
        let is_group = group.len() == 3 && groups.first().is_some_and(|first| first.len() <= 3);
        if group.is_empty()
            || separator == ' ' && !(is_group && separators.iter().all(|before| *before == ' '))
        {
            break;
        }
        length = length.saturating_add(1).saturating_add(group.len());
        separators.push(separator);
        groups.push(group);
        lengths.push(length);
    }
    // The last group has three digits, those before it three, or two as in India.
    let are_threes = |groups: &[String]| {
        groups.last().is_some_and(|last| last.len() == 3)
            && groups.iter().skip(1).all(|group| matches!(group.len(), 2 | 3))
            && groups.first().is_some_and(|first| first.len() <= 3 && !first.starts_with('0'))
    };
    let is_decimal = |separator: char| matches!(separator, '.' | ',');
    let alone = |number: String| Number { first: number, second: None };
    let (number, length) = match (separators.as_slice(), groups.split_last()) {
        ([], _) | (_, None) => (alone(whole_number(&whole)), length),
        ([separator], Some((last, _))) if are_threes(&groups) => {
            let second = is_decimal(*separator).then(|| [&whole_number(&whole), ".", last].concat());
            (Number { first: groups.concat(), second }, length)
        }
        ([separator], Some((last, _))) if is_decimal(*separator) => (alone(decimal(&whole, last)), length),
        ([first, others @ ..], _) if others.iter().all(|other| other == first) && are_threes(&groups) => {
            (alone(groups.concat()), length)
        }
        ([first, others @ .., point], Some((last, front)))
            if is_decimal(*point)
                && point != first
                && others.iter().all(|other| other == first)
                && are_threes(front) =>
        {
            (alone(decimal(&front.concat(), last)), length)
        }
        // A date, a version, a list: one number, and the others on their own.
        _ => (alone(whole_number(&whole)), lengths.first().copied().unwrap_or(length)),
    };
    match chars.get(length).copied().and_then(half) {
        Some(fraction) if number.second.is_none() && !number.first.contains('.') => {
            (alone([&number.first, fraction].concat()), length.saturating_add(1))
        }
        _ => (number, length),
    }
}

/// Returns the digits at the beginning, as ASCII.
fn digits(chars: &[char]) -> String {
    let digit = |c: &char| match class(*c) {
        Class::Digit(digit) => char::from_digit(digit.into(), 10),
        _ => None,
    };
    chars.iter().map_while(digit).collect()
}

/// Returns the kind of a separator: a space, or the character itself.
const fn separator(c: char) -> Option<char> {
    Some(match c {
        ' ' | '\u{a0}' | '\u{202f}' | '\u{2009}' => ' ',
        '.' | '٫' => '.',
        ',' | '٬' | '，' => ',',
        '\'' | '’' => '\'',
        _ => return None,
    })
}

fn whole_number(digits: &str) -> String {
    let significant = digits.trim_start_matches('0');
    if significant.is_empty() { "0".to_owned() } else { significant.to_owned() }
}

fn decimal(whole: &str, part: &str) -> String {
    let part = part.trim_end_matches('0');
    let whole = whole_number(whole);
    if part.is_empty() { whole } else { [&whole, ".", part].concat() }
}

/// Returns the decimals of a fraction after a whole number.
const fn half(c: char) -> Option<&'static str> {
    Some(match c {
        '½' => ".5",
        '¼' => ".25",
        '¾' => ".75",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<String>, usize) {
        let (number, length) = read_number(&text.chars().collect::<Vec<_>>());
        (number.readings().map(str::to_owned).collect(), length)
    }

    #[test]
    fn one_value_has_many_forms() {
        for (text, readings, length) in [
            ("1000", &["1000"][..], 4),
            ("1,000", &["1000", "1.000"], 5),
            ("1.000 km", &["1000", "1.000"], 5),
            ("1 000 km", &["1000"], 5),
            ("1\u{a0}000\u{202f}000", &["1000000"], 9),
            ("1'000", &["1000"], 5),
            ("١٠٠٠", &["1000"], 4),
            ("１０００", &["1000"], 4),
            ("१,०००", &["1000", "1.000"], 5),
            ("1,000,000.50", &["1000000.5"], 12),
            ("1.234.567,8", &["1234567.8"], 11),
            ("2,5", &["2.5"], 3),
            ("2.50", &["2.5"], 4),
            ("2½", &["2.5"], 2),
            ("0.50", &["0.5"], 4),
            ("0,500", &["0.5"], 5),
            ("007", &["7"], 3),
            ("0", &["0"], 1),
            ("3.1416", &["3.1416"], 6),
            ("12.05.1990", &["12"], 2),
            ("1.2.3", &["1"], 1),
            ("1,2,3", &["1"], 1),
            ("1990. Then", &["1990"], 4),
            ("2000 300", &["2000"], 4),
            ("5 km", &["5"], 1),
            ("20,000", &["20000", "20.000"], 6),
            ("10,00,000", &["1000000"], 9),
        ] {
            assert_eq!(read(text), (readings.iter().map(|r| (*r).to_owned()).collect(), length), "{text}");
        }
        assert_eq!(read(&"9".repeat(99)).1, CHARS_MAX);
    }
}
