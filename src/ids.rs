//! UUIDv7 (RFC 9562, section 5.7): the ids of requests, sessions and candidates.

use uuid::Uuid;

/// A new id of that moment.
#[must_use]
pub fn new_id(now_ms: u64, random_bits: u128) -> Uuid {
    let mut random_bytes = [0; 10];
    for (to, from) in random_bytes.iter_mut().zip(random_bits.to_be_bytes()) {
        *to = from;
    }
    uuid::Builder::from_unix_timestamp_millis(now_ms, &random_bytes).into_uuid()
}
