//! `GET /openapi.json`: the contract for machines. Works without a configuration.

use crate::http::{Answer, JSON};

/// `src/answer/openapi.json` without its white space, by `build.rs`.
pub(super) const DOCUMENT: &str = include_str!(concat!(env!("OUT_DIR"), "/openapi.json"));

/// Always 200.
#[must_use]
pub fn openapi() -> Answer {
    Answer::new(200, JSON, DOCUMENT.into()).with("cache-control", "public, max-age=300")
}
