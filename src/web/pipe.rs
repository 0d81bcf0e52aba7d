//! Bodies that are written chunk by chunk, through a pipe.

use js_sys::Reflect;
use wasm_bindgen::prelude::*;
use web_sys::{ReadableStream, TransformStream, WritableStreamDefaultWriter};

use super::operations::{Operation, detach, value_of};
use crate::ports::{EventSink, Unreachable};

#[wasm_bindgen]
extern "C" {
    /// workerd's own pipe: it forwards bytes without JavaScript, and a write ends when the client has received it:
    /// <https://developers.cloudflare.com/workers/runtime-apis/streams/transformstream/#identitytransformstream>
    #[wasm_bindgen(extends = TransformStream)]
    type IdentityTransformStream;

    #[wasm_bindgen(constructor, catch)]
    fn new() -> Result<IdentityTransformStream, JsValue>;
}

thread_local! {
    /// Whether the runtime has workerd's streams.
    static HAS_IDENTITY: bool =
        Reflect::has(&js_sys::global(), &"IdentityTransformStream".into()).unwrap_or(false);
}

/// Whether the runtime has workerd's streams, which forward and gather bytes natively.
pub(super) fn has_native_streams() -> bool {
    HAS_IDENTITY.with(|has| *has)
}

/// A stream that forwards what is written to it. The standard one has room for no chunk at its readable end: a write ends when the
/// reader requests the next chunk, so that a client that does not read holds the writer up.
pub(super) fn transform() -> Result<TransformStream, JsValue> {
    if has_native_streams() { Ok(IdentityTransformStream::new()?.into()) } else { TransformStream::new() }
}

/// The end of a pipe that is written to.
pub(crate) struct PipeSink {
    writer: WritableStreamDefaultWriter,
    is_closed: bool,
}

/// A pipe: the end that is written to, and the body.
pub(crate) fn pipe() -> Result<(PipeSink, ReadableStream), JsValue> {
    let pipe = transform()?;
    Ok((PipeSink { writer: pipe.writable().get_writer()?, is_closed: false }, pipe.readable()))
}

impl EventSink for PipeSink {
    async fn write(&mut self, chunk: &[u8]) -> Result<(), Unreachable> {
        let written = Operation::write(&self.writer, chunk).await;
        if written.status == 0 { Err(Unreachable) } else { Ok(()) }
    }

    async fn close(mut self) {
        self.is_closed = true;
        // A client that leaves now has received everything.
        let _ = value_of(&self.writer.close()).await;
    }
}

impl Drop for PipeSink {
    fn drop(&mut self) {
        if !self.is_closed {
            detach(&self.writer.abort());
        }
    }
}
