//! The optional binding `METRICS`, an Analytics Engine dataset.

use std::cell::Cell;

use wasm_bindgen::prelude::*;

use crate::points::Point;

#[wasm_bindgen(module = "/src/cloudflare/operations.js")]
extern "C" {
    fn measure(environment: &JsValue, texts: &str, figures: &[f64]) -> bool;
}

thread_local! {
    /// Whether the deployment has the binding, as far as a request has seen: a new deployment gets new isolates.
    static HAS_METRICS: Cell<bool> = const { Cell::new(true) };
}

/// Writes a point, where there is a dataset.
pub(super) fn write_point(environment: &JsValue, point: &Point<'_>) {
    if HAS_METRICS.get() {
        HAS_METRICS.set(measure(environment, &point.texts.join("\u{1f}"), point.figures));
    }
}
