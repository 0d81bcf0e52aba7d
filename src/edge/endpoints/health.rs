//! `GET /health`: the module runs. Touches nothing, not even the configuration.

use crate::edge::documents::Health;
use crate::http::{JSON, Response, to_json};

/// Always 200.
#[must_use]
pub fn health() -> Response {
    let document = Health { status: "ok", version: env!("CARGO_PKG_VERSION") };
    Response::new(200, JSON, to_json(&document)).with("cache-control", "no-store")
}
