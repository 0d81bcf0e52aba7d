//! `GET /docs`: the contract for people, made from the one for machines. Each code has an anchor, to which the `type` of
//! a problem leads. Works without a configuration, and without JavaScript.

use super::openapi::DOCUMENT;
use crate::http::Answer;

/// Made by `build.rs`, which says how it is kept: between its own texts stand references to the document.
const PARTS: &str = include_str!(concat!(env!("OUT_DIR"), "/docs.html"));

/// The style stands in the page; nothing else is let in, from nowhere.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Always 200.
#[must_use]
pub fn docs() -> Answer {
    Answer::new(200, "text/html; charset=utf-8", page().into())
        .with("cache-control", "public, max-age=300")
        .with("content-security-policy", POLICY)
        .with("x-content-type-options", "nosniff")
}

fn page() -> String {
    let parts = PARTS.split('\u{1}').enumerate();
    parts.map(|(n, part)| if n % 2 == 0 { part } else { quoted(part).unwrap_or_default() }).collect()
}

/// What a reference stands for.
fn quoted(reference: &str) -> Option<&'static str> {
    let (at, length) = reference.split_once(' ')?;
    DOCUMENT.get(at.parse().ok()?..)?.get(..length.parse().ok()?)
}
