//! What a caller sends, and the rules that it has to meet. Pure.

pub mod idempotency_key;
pub mod new_session;
pub mod page;
pub mod sanitize;
