//! The time and randomness.

use super::WebHost;
use crate::ports::Random;

/// The time of this machine, in milliseconds since the Unix epoch.
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "JavaScript's clock gives whole milliseconds since 1970 as a float"
)]
pub(crate) fn now_ms() -> u64 {
    js_sys::Date::now() as u64
}

/// 128 bits from the platform's cryptographic generator.
pub(crate) fn random_bits() -> u128 {
    let mut bytes = [0; 16];
    #[expect(clippy::disallowed_methods, reason = "this is the host: the one place that gives randomness")]
    let filled = getrandom::fill(&mut bytes);
    // `crypto.getRandomValues` does not fail for 16 bytes; without it no host could run.
    debug_assert!(filled.is_ok());
    u128::from_ne_bytes(bytes)
}

impl<T: WebHost> Random for T {
    fn random_bits(&self) -> u128 {
        random_bits()
    }
}
