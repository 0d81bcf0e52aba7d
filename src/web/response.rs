//! Responses to clients.

use js_sys::Uint8Array;
use wasm_bindgen::JsValue;
use web_sys::{ReadableStream, Response, ResponseInit};

use super::fetch::header_pairs;

/// The body of a response.
pub(crate) enum OutgoingBody {
    /// These bytes; empty: no body.
    Bytes(Vec<u8>),
    /// A stream, forwarded untouched.
    Stream(Option<ReadableStream>),
}

/// Makes the platform's response.
pub(crate) fn response(
    status: u16,
    headers: &[(&'static str, String)],
    body: OutgoingBody,
) -> Result<Response, JsValue> {
    let init = ResponseInit::new();
    init.set_status(status);
    init.set_headers(&header_pairs(headers.iter()));
    match body {
        OutgoingBody::Stream(Some(stream)) => {
            Response::new_with_opt_readable_stream_and_init(Some(&stream), &init)
        }
        OutgoingBody::Bytes(bytes) if !bytes.is_empty() => {
            Response::new_with_opt_js_u8_array_and_init(Some(&Uint8Array::from(bytes.as_slice())), &init)
        }
        OutgoingBody::Stream(None) | OutgoingBody::Bytes(_) => {
            Response::new_with_opt_str_and_init(None, &init)
        }
    }
}
