//! The pseudonym of a user at the model API, whose abuse control distinguishes users by it.

use crate::keyed_hash::short_hash;

/// Separates these hashes from the other kinds that [`crate::keyed_hash`] makes with the same key.
const LABEL: &[u8] = b"ai-sessions/pseudonym\0";

/// Returns 32 hexadecimal digits: the same for the same user and key, and of no use to find the user without the key.
#[must_use]
pub fn pseudonym(key: &str, user_id: &str) -> String {
    short_hash(key, &[LABEL, user_id.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pseudonym_depends_on_the_user_and_the_key_alone() {
        let user = "018f3a3e-0000-7000-8000-000000000001";
        assert_eq!(pseudonym("key", user), "f67f8aa7248ef7652e9ed6d547319e82");
        assert_ne!(pseudonym("key", user), pseudonym("kez", user));
        assert_ne!(pseudonym("key", user), pseudonym("key", "018f3a3e-0000-7000-8000-000000000002"));
    }
}
