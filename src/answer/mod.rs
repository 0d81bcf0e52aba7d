//! What goes back to the caller: documents as JSON, and the headers that every answer has. Pure.

pub mod documents;
pub mod events;
pub mod form;
pub mod headers;
pub mod readiness;
pub mod session;
