//! What goes back to the caller: documents as JSON, and the headers that every answer has. Pure.

pub mod documents;
pub mod headers;
pub mod readiness;
