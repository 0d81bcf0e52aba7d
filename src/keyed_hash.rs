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
}
