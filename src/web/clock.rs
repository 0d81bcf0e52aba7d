//! The time and randomness.

use std::cell::{Cell, RefCell};

use super::WebHost;
use crate::ports::Random;

/// The time in a turn.
#[derive(Clone, Copy)]
enum TurnTime {
    /// No turn runs.
    None,
    /// Not yet read.
    Unread,
    Read(u64),
}

thread_local! {
    static TURN_TIME: Cell<TurnTime> = const { Cell::new(TurnTime::None) };
}

/// Runs a turn of a task, in which the clock stands: it is read once. On Workers the platform's clock stands, too.
pub(super) fn in_turn<T>(work: impl FnOnce() -> T) -> T {
    TURN_TIME.set(TurnTime::Unread);
    let result = work();
    TURN_TIME.set(TurnTime::None);
    result
}

/// The time of this machine, in milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    match TURN_TIME.get() {
        TurnTime::Read(now_ms) => now_ms,
        TurnTime::None => read_clock(),
        TurnTime::Unread => {
            let now_ms = read_clock();
            TURN_TIME.set(TurnTime::Read(now_ms));
            now_ms
        }
    }
}

#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "JavaScript's clock gives whole milliseconds since 1970 as a float"
)]
fn read_clock() -> u64 {
    js_sys::Date::now() as u64
}

/// The values of one call of the platform's generator: a generation needs one for each candidate, and each call is a crossing.
const RANDOM_VALUES: usize = 32;

thread_local! {
    /// Values that nothing has used yet; each is used once.
    static RANDOM: RefCell<Vec<u128>> = const { RefCell::new(Vec::new()) };
}

/// 128 bits from the platform's cryptographic generator.
pub(crate) fn random_bits() -> u128 {
    RANDOM.with_borrow_mut(|values| {
        if let Some(value) = values.pop() {
            return value;
        }
        let mut bytes = [0; 16 * RANDOM_VALUES];
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the host: the one place that gives randomness"
        )]
        let filled = getrandom::fill(&mut bytes);
        // `crypto.getRandomValues` does not fail for 512 bytes; without it no host could run.
        debug_assert!(filled.is_ok());
        let (chunks, _) = bytes.as_chunks::<16>();
        values.extend(chunks.iter().map(|chunk| u128::from_ne_bytes(*chunk)));
        values.pop().unwrap_or_default()
    })
}

impl<T: WebHost> Random for T {
    fn random_bits(&self) -> u128 {
        random_bits()
    }
}
