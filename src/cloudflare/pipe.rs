//! Bodies that are written chunk by chunk, through workerd's own pipe.

use js_sys::Uint8Array;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{ReadableStream, TransformStream, WritableStreamDefaultWriter};

use super::stream_body::forget;
use crate::ports::{EventSink, Unreachable};

#[wasm_bindgen]
extern "C" {
    /// workerd's own pipe: it forwards bytes without JavaScript, and a write ends when the client has received it:
    /// <https://developers.cloudflare.com/workers/runtime-apis/streams/transformstream/#identitytransformstream>
    #[wasm_bindgen(extends = TransformStream)]
    pub(super) type IdentityTransformStream;

    #[wasm_bindgen(constructor, catch)]
    pub(super) fn new() -> Result<IdentityTransformStream, JsValue>;
}

/// The end of a pipe that is written to.
pub(super) struct PipeSink {
    writer: WritableStreamDefaultWriter,
    is_closed: bool,
}

/// A pipe: the end that is written to, and the body.
pub(super) fn pipe() -> Result<(PipeSink, ReadableStream), JsValue> {
    let pipe = IdentityTransformStream::new()?;
    Ok((PipeSink { writer: pipe.writable().get_writer()?, is_closed: false }, pipe.readable()))
}

impl EventSink for PipeSink {
    async fn write(&mut self, chunk: &[u8]) -> Result<(), Unreachable> {
        let written = JsFuture::from(self.writer.write_with_chunk(&Uint8Array::from(chunk))).await;
        written.map(drop).map_err(|_| Unreachable)
    }

    async fn close(mut self) {
        self.is_closed = true;
        // A client that leaves now has received everything.
        let _ = JsFuture::from(self.writer.close()).await;
    }
}

impl Drop for PipeSink {
    fn drop(&mut self) {
        if !self.is_closed {
            forget(self.writer.abort());
        }
    }
}
