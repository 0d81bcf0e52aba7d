//! Requests to upstreams by `fetch`.

use js_sys::{Array, Uint8Array};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortController, RequestInit, RequestRedirect, Response, WorkerGlobalScope};

use crate::http::Request;
use crate::ports::Unreachable;

/// Sends a request. The connection has to be kept for as long as the response is read.
pub(crate) async fn send(request: Request) -> Result<(Response, Connection), Unreachable> {
    let init = RequestInit::new();
    init.set_method(request.method);
    init.set_headers(&header_pairs(request.headers.iter()));
    init.set_redirect(RequestRedirect::Manual);
    if !request.body.is_empty() {
        init.set_body(&Uint8Array::from(request.body.as_slice()));
    }
    let controller = AbortController::new().map_err(|_| Unreachable)?;
    init.set_signal(Some(&controller.signal()));
    let connection = Connection { controller, has_ended: false };
    let global: WorkerGlobalScope = js_sys::global().unchecked_into();
    let response = JsFuture::from(global.fetch_with_str_and_init(&request.url, &init)).await;
    let response = response.map_err(|_| Unreachable)?.dyn_into::<Response>().map_err(|_| Unreachable)?;
    Ok((response, connection))
}

/// Headers as the pairs that `RequestInit` and `ResponseInit` take.
pub(super) fn header_pairs<'a>(headers: impl Iterator<Item = &'a (&'static str, String)>) -> JsValue {
    let pairs = Array::new();
    for (name, value) in headers {
        pairs.push(&Array::of2(&JsValue::from(*name), &JsValue::from(value.as_str())));
    }
    pairs.into()
}

/// A connection to an upstream. Dropped before its end, it is closed.
pub(crate) struct Connection {
    controller: AbortController,
    has_ended: bool,
}

impl Connection {
    /// The response was read to its end.
    pub(crate) const fn end(&mut self) {
        self.has_ended = true;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.has_ended {
            self.controller.abort();
        }
    }
}
