//! Scans of bytes, eight at a time: in a module that is compiled for its size, the loops of the standard library take one at a time.

/// A byte of each kind in all places of a word.
const ONES: u64 = u64::MAX / 255;
const HIGH_BITS: u64 = ONES << 7;

/// Finds the first byte that is one of these two.
#[must_use]
pub fn find_either(bytes: &[u8], needles: [u8; 2]) -> Option<usize> {
    let [one, other] = needles.map(|needle| ONES.wrapping_mul(u64::from(needle)));
    find(bytes, |word| has_zero(word ^ one) || has_zero(word ^ other), |byte| needles.contains(&byte))
}

/// Finds the first byte that a JSON string contains only escaped (RFC 8259, section 7).
#[must_use]
pub fn find_escaped(bytes: &[u8]) -> Option<usize> {
    const QUOTES: u64 = ONES * 0x22;
    const BACKSLASHES: u64 = ONES * 0x5c;
    const SPACES: u64 = ONES * 0x20;
    let has_control = |word: u64| word.wrapping_sub(SPACES) & !word & HIGH_BITS != 0;
    find(
        bytes,
        |word| has_zero(word ^ QUOTES) || has_zero(word ^ BACKSLASHES) || has_control(word),
        |byte| byte < b' ' || matches!(byte, b'"' | b'\\'),
    )
}

/// Removes a prefix.
#[must_use]
pub fn strip_prefix<'a>(bytes: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = bytes.split_at_checked(prefix.len())?;
    is_equal(start, prefix).then_some(rest)
}

/// Removes a suffix.
#[must_use]
pub fn strip_suffix<'a>(bytes: &'a [u8], suffix: &[u8]) -> Option<&'a [u8]> {
    let (rest, end) = bytes.split_at_checked(bytes.len().checked_sub(suffix.len())?)?;
    is_equal(end, suffix).then_some(rest)
}

fn is_equal(one: &[u8], other: &[u8]) -> bool {
    let ((words, rest), (other_words, other_rest)) = (one.as_chunks::<8>(), other.as_chunks::<8>());
    let mut pairs = words.iter().zip(other_words);
    one.len() == other.len()
        && pairs.all(|(one, other)| u64::from_ne_bytes(*one) == u64::from_ne_bytes(*other))
        && rest == other_rest
}

fn find(bytes: &[u8], is_in_word: impl Fn(u64) -> bool, is_found: impl Fn(u8) -> bool) -> Option<usize> {
    let (words, _) = bytes.as_chunks::<8>();
    let before = words.iter().take_while(|word| !is_in_word(u64::from_ne_bytes(**word))).count();
    let start = before.saturating_mul(8);
    let found = bytes.get(start..)?.iter().position(|byte| is_found(*byte))?;
    Some(start.saturating_add(found))
}

/// Whether a byte of the word is zero.
const fn has_zero(word: u64) -> bool {
    word.wrapping_sub(ONES) & !word & HIGH_BITS != 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let near = prop::sample::select(b"\0\x01\t\n\x0b\r\x1f !\"#[\\]\x7f\x80\x9f\xa0\xff".to_vec());
        prop::collection::vec(prop_oneof![4 => Just(b'a'), 1 => near, 1 => any::<u8>()], 0..40)
    }

    proptest! {
        #[test]
        fn the_first_of_two_bytes_is_found(bytes in bytes(), needles in any::<[u8; 2]>()) {
            for needles in [needles, *b"\n\r", *b"\xff\0"] {
                let expected = bytes.iter().position(|byte| needles.contains(byte));
                prop_assert_eq!(find_either(&bytes, needles), expected);
            }
        }

        #[test]
        fn the_first_byte_that_needs_an_escape_is_found(bytes in bytes()) {
            let expected = bytes.iter().position(|byte| *byte < 0x20 || b"\"\\".contains(byte));
            prop_assert_eq!(find_escaped(&bytes), expected);
        }

        #[test]
        fn only_an_equal_prefix_or_suffix_is_removed(bytes in bytes(), other in bytes(), at in 0..40_usize) {
            let (start, end) = bytes.split_at(at.min(bytes.len()));
            prop_assert_eq!(strip_prefix(&bytes, start), Some(end));
            prop_assert_eq!(strip_suffix(&bytes, end), Some(start));
            for other in [other.as_slice(), &bytes, &[start, b"a"].concat(), &[end, b"a", start].concat()] {
                prop_assert_eq!(strip_prefix(&bytes, other), bytes.strip_prefix(other));
                prop_assert_eq!(strip_suffix(&bytes, other), bytes.strip_suffix(other));
            }
        }
    }
}
