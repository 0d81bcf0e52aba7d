//! Messages that come in: heads read header by header, bodies in bites as large as the reader wants.

use js_sys::{Reflect, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    AbortController, Headers, ReadableStream, ReadableStreamGetReaderOptions, ReadableStreamReaderMode,
};

use crate::ports::{Body, Head, Inbound, Incoming, Unreachable};

#[wasm_bindgen]
extern "C" {
    /// `ReadableStreamBYOBReader` with workerd's `readAtLeast`, which waits for a whole bite:
    /// <https://developers.cloudflare.com/workers/runtime-apis/streams/readablestreambyobreader/>
    type BiteReader;

    #[wasm_bindgen(method, js_name = readAtLeast)]
    fn read_at_least(this: &BiteReader, at_least: u32, view: Uint8Array) -> js_sys::Promise;
}

/// The largest bite, and the room that is offered for one.
const BITE_BYTES_MAX: usize = 16 * 1024;

/// A body that is being read.
pub(super) struct StreamBody {
    reader: Option<BiteReader>,
}

impl StreamBody {
    pub(super) fn new(stream: Option<ReadableStream>) -> Self {
        let reader = stream.map(|stream| {
            let options = ReadableStreamGetReaderOptions::new();
            options.set_mode(ReadableStreamReaderMode::Byob);
            stream.get_reader_with_options(&options).unchecked_into()
        });
        Self { reader }
    }
}

impl Body for StreamBody {
    async fn next(&mut self, at_least: usize) -> Result<Option<Vec<u8>>, Unreachable> {
        let Some(reader) = &self.reader else { return Ok(None) };
        let at_least = at_least.clamp(1, BITE_BYTES_MAX);
        let (room, least) = (u32::try_from(BITE_BYTES_MAX), u32::try_from(at_least));
        let (Ok(room), Ok(least)) = (room, least) else { return Err(Unreachable) };
        let view = Uint8Array::new_with_length(room);
        let read = JsFuture::from(reader.read_at_least(least, view)).await.map_err(|_| Unreachable)?;
        // At the end there may be a last bite that is smaller than asked for; `done` comes with the next read.
        let bite =
            Reflect::get(&read, &"value".into()).ok().and_then(|value| value.dyn_into::<Uint8Array>().ok());
        let bite = bite.filter(|bite| bite.length() > 0).map(|bite| bite.to_vec());
        if bite.is_none() {
            self.reader = None;
        }
        Ok(bite)
    }
}

/// A request from outside.
pub(super) struct InboundRequest {
    method: String,
    url: String,
    headers: Headers,
    request: web_sys::Request,
    body: Option<StreamBody>,
}

impl InboundRequest {
    pub(super) fn new(request: web_sys::Request) -> Self {
        Self { method: request.method(), url: request.url(), headers: request.headers(), request, body: None }
    }
}

impl Head for InboundRequest {
    fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name).ok().flatten()
    }
}

impl Body for InboundRequest {
    async fn next(&mut self, at_least: usize) -> Result<Option<Vec<u8>>, Unreachable> {
        let request = &self.request;
        self.body.get_or_insert_with(|| StreamBody::new(request.body())).next(at_least).await
    }
}

impl Inbound for InboundRequest {
    fn method(&self) -> &str {
        &self.method
    }

    fn url(&self) -> &str {
        &self.url
    }
}

/// Closes a connection that nobody reads to its end.
pub(super) struct Connection {
    controller: AbortController,
    ended: bool,
}

impl Connection {
    pub(super) const fn new(controller: AbortController) -> Self {
        Self { controller, ended: false }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.ended {
            self.controller.abort();
        }
    }
}

/// A neighbour's answer.
pub struct IncomingResponse {
    status: u16,
    headers: Headers,
    body: StreamBody,
    connection: Connection,
}

impl IncomingResponse {
    pub(super) fn new(response: &web_sys::Response, connection: Connection) -> Self {
        Self {
            status: response.status(),
            headers: response.headers(),
            body: StreamBody::new(response.body()),
            connection,
        }
    }
}

impl Head for IncomingResponse {
    fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name).ok().flatten()
    }
}

impl Body for IncomingResponse {
    async fn next(&mut self, at_least: usize) -> Result<Option<Vec<u8>>, Unreachable> {
        let bite = self.body.next(at_least).await;
        if matches!(bite, Ok(None)) {
            self.connection.ended = true;
        }
        bite
    }
}

impl Incoming for IncomingResponse {
    fn status(&self) -> u16 {
        self.status
    }
}
