//! HMAC-SHA-256 with the service's secret, for pseudonyms, delimiters and session ids. Each kind has its own label, so that no
//! hash of one kind equals one of another.

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Computes the hash of all parts in their order; the first is the label.
#[must_use]
pub fn keyed_hash(key: &str, parts: &[&[u8]]) -> [u8; 32] {
    #[expect(clippy::expect_used, reason = "RFC 2104, section 2: \"the key can be of any length\"")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Computes the first 128 bits of the hash, enough against collisions, as 32 hexadecimal digits.
#[must_use]
pub fn short_hash(key: &str, parts: &[&[u8]]) -> String {
    let mut hash = hex(&keyed_hash(key, parts));
    hash.truncate(32);
    hash
}

/// Whether two hashes are equal. Compares hashes of them, so that the time of the comparison says nothing about either.
#[must_use]
pub fn is_equal(key: &str, one: &str, other: &str) -> bool {
    keyed_hash(key, &[one.as_bytes()]) == keyed_hash(key, &[other.as_bytes()])
}

/// Formats bytes in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        for half in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(half), 16).unwrap_or('0'));
        }
    }
    text
}

/// Reads bytes in hexadecimal; `None` for anything else.
#[must_use]
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |digit: &u8| char::from(*digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(pair.first()?)? << 4 | digit(pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_hmac_sha_256() {
        // RFC 4231, test case 2.
        assert_eq!(
            hex(&keyed_hash("Jefe", &[b"what do ya want ", b"for nothing?"])),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn hexadecimal_digits_are_read_as_they_are_written() {
        let bytes: Vec<u8> = (0..=u8::MAX).collect();
        assert_eq!(from_hex(&hex(&bytes)), Some(bytes));
        assert_eq!(from_hex(""), Some(Vec::new()));
        for broken in ["0", "0g", "g0", "001", "\u{e9}0", " 0", "+1"] {
            assert_eq!(from_hex(broken), None, "{broken}");
        }
    }

    #[test]
    fn equal_hashes_are_equal() {
        assert!(is_equal("key", "one", "one"));
        for (one, other) in [("one", "onf"), ("one", ""), ("one", "one "), ("", "one")] {
            assert!(!is_equal("key", one, other));
        }
    }
}
