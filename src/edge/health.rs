//! `GET /health`: the module runs. Touches nothing, not even the configuration.

use crate::answer::documents::{Health, to_json};
use crate::http::{Answer, JSON};

/// Always 200.
#[must_use]
pub fn health() -> Answer {
    let document = Health { status: "ok", version: env!("CARGO_PKG_VERSION") };
    Answer::new(200, JSON, to_json(&document)).with("cache-control", "no-store")
}
