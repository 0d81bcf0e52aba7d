//! The Worker's fetch handler.

#![expect(unreachable_pub, reason = "wasm-bindgen exports public functions only")]

use js_sys::Function;
use wasm_bindgen::prelude::*;
use web_sys::Request;

use super::edge_platform::{Context, WorkerRequest};
use crate::web::edge_host::{EdgeHost, respond};
use crate::web::messages::InboundRequest;
use crate::web::tasks::start;

/// Responds to a request, by a call of `resolve`.
#[wasm_bindgen]
pub fn fetch(request: Request, env: JsValue, context: JsValue, resolve: Function) {
    let host = EdgeHost::new(WorkerRequest::new(env, context.unchecked_into::<Context>()));
    start(Box::pin(async move {
        let outgoing = host.handle(InboundRequest::new(request, str::to_owned)).await;
        respond(&resolve, outgoing);
    }));
}
