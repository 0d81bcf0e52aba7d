//! The functions that `supabase/functions/` calls.

#![expect(unreachable_pub, reason = "wasm-bindgen exports public functions only")]

use js_sys::{Function, Promise};
use wasm_bindgen::prelude::*;
use web_sys::Request;

use super::edge_platform::FunctionRequest;
use super::{background, objects, unread_body};
use crate::http::url::without_first_segment;
use crate::web::edge_host::EdgeHost;
use crate::web::messages::InboundRequest;
use crate::web::promise_of;

/// Responds to a request. `environment`: an object with the variables, and `ASSETS`, which has a `fetch(url)` that serves
/// `openapi.json` and `docs.html`. `wait_until(promise)` keeps the isolate until the promise has ended.
#[wasm_bindgen]
pub fn handle_request(request: Request, environment: JsValue, wait_until: Function) -> Promise {
    background::set_wait_until(wait_until);
    let responding = promise_of(Box::pin(async move {
        let host = EdgeHost::new(FunctionRequest::new(environment));
        // The first segment is the function's name.
        let url = without_first_segment(&request.url());
        let response = host.respond(InboundRequest::new(Clone::clone(&request), url)).await?;
        unread_body::drain(&request).await;
        Ok(response.into())
    }));
    // A command continues when its client leaves.
    background::keep_until(&responding);
    responding
}

/// Releases the leases of this isolate's runs, before its end.
#[wasm_bindgen]
pub fn release_leases() -> Promise {
    objects::release_leases()
}
