//! Messages that come in: heads read header by header, bodies in bites as large as the reader wants.

use std::cell::Cell;

use js_sys::{ArrayBuffer, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::{
    AbortController, Headers, ReadableStream, ReadableStreamGetReaderOptions, ReadableStreamReaderMode,
};

use super::outgoing::IdentityTransformStream;
use crate::ports::{Body, Head, Inbound, Incoming, Unreachable};

#[wasm_bindgen]
extern "C" {
    /// `ReadableStreamBYOBReader` with workerd's `readAtLeast`, which waits for a whole bite:
    /// <https://developers.cloudflare.com/workers/runtime-apis/streams/readablestreambyobreader/>
    type BiteReader;

    #[wasm_bindgen(method, js_name = readAtLeast)]
    fn read_at_least(this: &BiteReader, at_least: u32, view: Uint8Array) -> js_sys::Promise<Bite>;

    #[wasm_bindgen(method, js_name = releaseLock)]
    fn release_lock(this: &BiteReader);

    #[wasm_bindgen(method)]
    fn cancel(this: &BiteReader) -> js_sys::Promise;

    type Bite;

    /// One that is smaller than asked for is the last; an empty one is the end, too.
    #[wasm_bindgen(method, getter)]
    fn value(this: &Bite) -> Option<Uint8Array>;
}

/// The room that is offered for a bite: no more is given at once.
const ROOM_BYTES: u32 = 16 * 1024;

thread_local! {
    /// The room of the last bite, for the next one of whichever body: a new one would have to be cleared, and collected.
    static ROOM: Cell<Option<ArrayBuffer>> = const { Cell::new(None) };
}

/// How often a body may turn from bites back to single pieces and to bites again: each time costs a copy more of all
/// that comes after.
const SPLITS_MAX: u32 = 8;

/// A body that is being read.
///
/// workerd gives a bite whole or not at all: what had come of one when the connection breaks, or when nobody waits for
/// it any longer, is lost with it. So the stream is split in two before the first bite. Bites are read from the one
/// branch, through a pipe; the other keeps, natively, a copy of what came, and is what is read from when a bite failed.
pub(super) struct StreamBody {
    stream: Option<ReadableStream>,
    reader: Option<BiteReader>,
    /// The other branch, while bites are read.
    spare: Option<ReadableStream>,
    splits: u32,
    /// How many bytes were taken since the split.
    taken: usize,
    /// How many of those still have to be passed over on the other branch.
    to_skip: usize,
    /// What is being read, and at least how much: goes on when its end is not waited for.
    reading: Option<(u32, JsFuture<Bite>)>,
}

impl StreamBody {
    pub(super) const fn new(stream: Option<ReadableStream>) -> Self {
        Self { stream, reader: None, spare: None, splits: 0, taken: 0, to_skip: 0, reading: None }
    }

    /// Splits the stream, so that bites can be read.
    fn split(&mut self) -> Result<(), JsValue> {
        let Some(stream) = self.stream.take() else { return Ok(()) };
        if let Some(reader) = self.reader.take() {
            reader.release_lock();
        }
        let branches = stream.tee();
        let (bites, spare) = (branches.get(0).unchecked_into(), branches.get(1).unchecked_into());
        let pipe = IdentityTransformStream::new()?;
        // A stream that breaks is noticed where it is read.
        forget(ReadableStream::pipe_to(&bites, &pipe.writable()));
        (self.stream, self.spare, self.taken) = (Some(pipe.readable()), Some(spare), 0);
        self.splits = self.splits.saturating_add(1);
        Ok(())
    }

    /// Goes on with the other branch, from where the last whole bite ended.
    fn fall_back(&mut self) -> Result<(), Unreachable> {
        self.stream = Some(self.spare.take().ok_or(Unreachable)?);
        if let Some(reader) = self.reader.take() {
            forget(reader.cancel());
        }
        (self.to_skip, self.reading) = (self.taken, None);
        Ok(())
    }

    /// The next bytes, or `None` at the end. Fewer than `at_least` are the last ones.
    async fn read(&mut self, at_least: u32) -> Result<Option<Vec<u8>>, Unreachable> {
        let Some(stream) = &self.stream else {
            return Ok(None);
        };
        let reader = self.reader.get_or_insert_with(|| {
            let options = ReadableStreamGetReaderOptions::new();
            options.set_mode(ReadableStreamReaderMode::Byob);
            stream.get_reader_with_options(&options).unchecked_into()
        });
        let (at_least, reading) = self.reading.get_or_insert_with(|| {
            let room = ROOM.take().unwrap_or_else(|| ArrayBuffer::new(ROOM_BYTES));
            (at_least, JsFuture::from(reader.read_at_least(at_least, Uint8Array::new(&room))))
        });
        let (at_least, bite) = (*at_least, reading.await);
        self.reading = None;
        let bytes = bite.map_err(|_| Unreachable)?.value().map(|bite| {
            ROOM.set(Some(bite.buffer()).filter(|room| room.byte_length() == ROOM_BYTES));
            bite.to_vec()
        });
        let bytes = bytes.unwrap_or_default();
        if bytes.len() < usize::try_from(at_least).unwrap_or(usize::MAX) {
            (self.reader, self.stream) = (None, None);
        }
        Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    /// Whether all of it was read.
    const fn is_over(&self) -> bool {
        self.stream.is_none()
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        // It would keep all that came until it is collected.
        if let Some(spare) = self.spare.take() {
            forget(spare.cancel());
        }
    }
}

/// What becomes of it is nobody's business.
pub(super) fn forget(promise: js_sys::Promise) {
    spawn_local(async move { drop(JsFuture::from(promise).await) });
}

impl Body for StreamBody {
    async fn next(&mut self, at_least: usize) -> Result<Option<Vec<u8>>, Unreachable> {
        // Nothing has come of a piece that is still waited for; of a larger bite something may have.
        if self.reading.as_ref().is_some_and(|(at_least, _)| *at_least > 1) {
            self.fall_back()?;
        }
        if at_least > 1 && self.spare.is_none() && self.splits < SPLITS_MAX && self.reading.is_none() {
            self.split().map_err(|_| Unreachable)?;
        }
        loop {
            let at_least = match u32::try_from(at_least) {
                Ok(at_least) if self.spare.is_some() => at_least.clamp(1, ROOM_BYTES),
                _ if self.spare.is_some() => ROOM_BYTES,
                _ => 1,
            };
            let bite = match self.read(at_least).await {
                Ok(Some(bite)) => bite,
                Err(Unreachable) if self.spare.is_some() => {
                    self.fall_back()?;
                    continue;
                }
                ended => return ended,
            };
            self.taken = self.taken.saturating_add(bite.len());
            let skipped = self.to_skip.min(bite.len());
            self.to_skip = self.to_skip.saturating_sub(skipped);
            match bite.get(skipped..) {
                Some(rest) if skipped > 0 && rest.is_empty() => {}
                Some(rest) if skipped > 0 => return Ok(Some(rest.to_vec())),
                _ => return Ok(Some(bite)),
            }
        }
    }

    async fn next_of_whole(&mut self) -> Result<Option<Vec<u8>>, Unreachable> {
        self.read(ROOM_BYTES).await
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

    async fn next_of_whole(&mut self) -> Result<Option<Vec<u8>>, Unreachable> {
        let request = &self.request;
        self.body.get_or_insert_with(|| StreamBody::new(request.body())).next_of_whole().await
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
        self.connection.ended |= matches!(bite, Ok(None));
        bite
    }

    async fn next_of_whole(&mut self) -> Result<Option<Vec<u8>>, Unreachable> {
        let bite = self.body.next_of_whole().await;
        self.connection.ended |= bite.is_ok() && self.body.is_over();
        bite
    }
}

impl Incoming for IncomingResponse {
    fn status(&self) -> u16 {
        self.status
    }
}
