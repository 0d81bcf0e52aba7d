//! The way out: requests to neighbours, and the form in which answers leave.

use js_sys::{Array, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    AbortController, ReadableStream, RequestInit, RequestRedirect, Response, ResponseInit, TransformStream,
    WorkerGlobalScope, WritableStreamDefaultWriter,
};

use super::incoming::{Connection, IncomingResponse, forget};
use super::platform::OnWorkers;
use crate::http::Request;
use crate::ports::{EventSink, Fetch, Unreachable};

impl<T: OnWorkers> Fetch for T {
    type Incoming = IncomingResponse;

    async fn fetch(&self, request: Request) -> Result<IncomingResponse, Unreachable> {
        let init = RequestInit::new();
        init.set_method(request.method);
        init.set_headers(&header_pairs(request.headers.iter()));
        init.set_redirect(RequestRedirect::Manual);
        if !request.body.is_empty() {
            init.set_body(&Uint8Array::from(request.body.as_slice()));
        }
        let controller = AbortController::new().map_err(|_| Unreachable)?;
        init.set_signal(Some(&controller.signal()));
        let connection = Connection::new(controller);
        let global: WorkerGlobalScope = js_sys::global().unchecked_into();
        let response = JsFuture::from(global.fetch_with_str_and_init(&request.url, &init)).await;
        let response = response.map_err(|_| Unreachable)?.dyn_into::<Response>().map_err(|_| Unreachable)?;
        Ok(IncomingResponse::new(&response, connection))
    }
}

/// Headers as the pairs that `RequestInit` and `ResponseInit` take.
fn header_pairs<'a>(headers: impl Iterator<Item = &'a (&'static str, String)>) -> JsValue {
    let pairs = Array::new();
    for (name, value) in headers {
        pairs.push(&Array::of2(&JsValue::from(*name), &JsValue::from(value.as_str())));
    }
    pairs.into()
}

#[wasm_bindgen]
extern "C" {
    /// workerd's own pipe: it passes bytes on without JavaScript, and a write ends when the reader has taken it:
    /// <https://developers.cloudflare.com/workers/runtime-apis/streams/transformstream/#identitytransformstream>
    #[wasm_bindgen(extends = TransformStream)]
    pub(super) type IdentityTransformStream;

    #[wasm_bindgen(constructor, catch)]
    pub(super) fn new() -> Result<IdentityTransformStream, JsValue>;
}

/// The end of a pipe that is written into.
pub(super) struct PipeSink {
    writer: WritableStreamDefaultWriter,
    is_closed: bool,
}

/// A body, and where it comes from.
pub(super) fn pipe() -> Result<(PipeSink, ReadableStream), JsValue> {
    let pipe = IdentityTransformStream::new()?;
    Ok((PipeSink { writer: pipe.writable().get_writer()?, is_closed: false }, pipe.readable()))
}

impl EventSink for PipeSink {
    async fn write(&mut self, piece: &[u8]) -> Result<(), Unreachable> {
        let written = JsFuture::from(self.writer.write_with_chunk(&Uint8Array::from(piece))).await;
        written.map(drop).map_err(|_| Unreachable)
    }

    async fn close(mut self) {
        self.is_closed = true;
        // A reader that leaves now has all of it.
        let _ = JsFuture::from(self.writer.close()).await;
    }
}

impl Drop for PipeSink {
    fn drop(&mut self) {
        if !self.is_closed {
            let aborted = self.writer.abort();
            // Whether it was open still is nobody's business any more.
            forget(aborted);
        }
    }
}

/// What an answer's body is made of.
pub(super) enum OutgoingBody {
    /// These bytes; none: no body.
    Bytes(Vec<u8>),
    /// Passed on as it comes.
    Stream(Option<ReadableStream>),
}

/// An answer in the platform's form.
pub(super) fn response(
    status: u16,
    headers: &[(&'static str, String)],
    body: OutgoingBody,
) -> worker::Result<Response> {
    let init = ResponseInit::new();
    init.set_status(status);
    init.set_headers(&header_pairs(headers.iter()));
    let response = match body {
        OutgoingBody::Stream(Some(stream)) => {
            Response::new_with_opt_readable_stream_and_init(Some(&stream), &init)
        }
        OutgoingBody::Bytes(bytes) if !bytes.is_empty() => {
            Response::new_with_opt_js_u8_array_and_init(Some(&Uint8Array::from(bytes.as_slice())), &init)
        }
        OutgoingBody::Stream(None) | OutgoingBody::Bytes(_) => {
            Response::new_with_opt_str_and_init(None, &init)
        }
    };
    Ok(response?)
}
