//! The input of callers and its rules. Pure.

pub mod new_session;
pub mod page;
pub mod sanitize;
