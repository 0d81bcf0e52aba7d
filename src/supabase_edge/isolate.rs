//! The isolate as a sharer of user states: its id, and the database's clock.

use std::rc::Rc;

use uuid::Uuid;

use crate::supabase::user_store::Isolate;
use crate::web::clock;

thread_local! {
    static ISOLATE: Rc<Isolate> = Rc::new(Isolate::new(Uuid::from_u128(clock::random_bits())));
}

/// This isolate.
pub(super) fn isolate() -> Rc<Isolate> {
    ISOLATE.with(Rc::clone)
}

/// The time by the database's clock, in milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    ISOLATE.with(|isolate| isolate.now_ms(clock::now_ms()))
}
