//! What a caller sends, and the rules that it has to meet. Pure.

pub mod new_session;
pub mod sanitize;
