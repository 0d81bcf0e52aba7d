//! The functions that `supabase/functions/` calls.

#![expect(unreachable_pub, reason = "wasm-bindgen exports public functions only")]

use js_sys::{Function, Promise};
use wasm_bindgen::prelude::*;
use web_sys::Request;

use super::edge_platform::FunctionRequest;
use super::{background, objects, unread_body};
use crate::http::url::without_first_segment;
use crate::web::edge_host::{EdgeHost, respond};
use crate::web::messages::InboundRequest;
use crate::web::tasks::start;

/// Responds to a request, by a call of `resolve`. `environment`: an object with the variables, and `ASSETS`, which has a `fetch(url)` that serves
/// `openapi.json` and `docs.html`. `wait_until(promise)` keeps the isolate until the promise has ended, for work that outlives the response.
#[wasm_bindgen]
pub fn handle_request(request: Request, environment: JsValue, wait_until: Function, resolve: Function) {
    background::set_wait_until(wait_until);
    start(Box::pin(async move {
        let host = EdgeHost::new(FunctionRequest::new(environment));
        // The first segment is the function's name.
        let outgoing = host.handle(InboundRequest::new(Clone::clone(&request), without_first_segment)).await;
        unread_body::drain(&request).await;
        respond(&resolve, outgoing);
    }));
}

/// Releases the leases of this isolate's runs, before its end.
#[wasm_bindgen]
pub fn release_leases() -> Promise {
    objects::release_leases()
}
