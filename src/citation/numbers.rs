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
    // The digits of all groups, and where each group ends in them.
    let mut digits = String::new();
    push_digits(&mut digits, chars);
    let whole = digits.len();
    let mut ends = vec![whole];
    let mut separators: Vec<char> = Vec::new();
    while let Some(rest) = chars.get(digits.len().saturating_add(separators.len())..)
        && let Some((c, rest)) = rest.split_first()
        && let Some(separator) = separator(*c)
    {
        let before = digits.len();
        push_digits(&mut digits, rest);
        let count = digits.len().saturating_sub(before);
        // A space separates groups of three digits only, and no number in words.
        let is_group = count == 3 && whole <= 3 && separators.iter().all(|before| *before == ' ');
        if count == 0 || separator == ' ' && !is_group {
            digits.truncate(before);
            break;
        }
        separators.push(separator);
        ends.push(digits.len());
    }
    // The last group has three digits, those before it three, or two as in India.
    let are_threes = |ends: &[usize]| {
        let sizes = || ends.iter().zip(ends.iter().skip(1)).map(|(start, end)| end.saturating_sub(*start));
        sizes().all(|size| matches!(size, 2 | 3))
            && sizes().next_back() == Some(3)
            && whole <= 3
            && !digits.starts_with('0')
    };
    let is_decimal = |separator: char| matches!(separator, '.' | ',');
    let alone = |first: String| Number { first, second: None };
    let length = digits.len().saturating_add(separators.len());
    let whole_digits = digits.get(..whole).unwrap_or_default();
    let front = ends.get(..separators.len()).unwrap_or_default();
    let (front_digits, last) =
        digits.split_at_checked(front.last().copied().unwrap_or(whole)).unwrap_or_default();
    let (number, length) = match separators.as_slice() {
        [] => (alone(decimal(whole_digits, "")), length),
        [separator] if are_threes(&ends) => {
            let second = is_decimal(*separator).then(|| decimal(whole_digits, last));
            (Number { first: digits.clone(), second }, length)
        }
        [separator] if is_decimal(*separator) => {
            (alone(decimal(whole_digits, last.trim_end_matches('0'))), length)
        }
        [first, others @ ..] if others.iter().all(|other| other == first) && are_threes(&ends) => {
            (alone(digits.clone()), length)
        }
        [first, others @ .., point]
            if is_decimal(*point)
                && point != first
                && others.iter().all(|other| other == first)
                && are_threes(front) =>
        {
            (alone(decimal(front_digits, last.trim_end_matches('0'))), length)
        }
        // A date, a version, a list: one number, and the others on their own.
        _ => (alone(decimal(whole_digits, "")), whole),
    };
    match chars.get(length).copied().and_then(half) {
        Some(fraction) if number.second.is_none() && !number.first.contains('.') => {
            (alone(number.first + fraction), length.saturating_add(1))
        }
        _ => (number, length),
    }
}

/// Appends the digits at the beginning, as ASCII.
fn push_digits(digits: &mut String, chars: &[char]) {
    for c in chars {
        let Class::Digit(digit) = class(*c) else { return };
        digits.push(char::from(b'0'.saturating_add(digit)));
    }
}

/// Returns a number without leading zeros.
fn decimal(whole: &str, part: &str) -> String {
    let mut number = whole.trim_start_matches('0').to_owned();
    if number.is_empty() {
        number.push('0');
    }
    if !part.is_empty() {
        number.push('.');
        number.push_str(part);
    }
    number
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
