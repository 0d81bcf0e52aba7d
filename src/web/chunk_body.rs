//! Bodies chunk by chunk, by the web standard.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use js_sys::Uint8Array;
use wasm_bindgen::prelude::*;
use web_sys::ReadableStream;

use super::operations::{Operation, detach};
use crate::ports::{Body, Unreachable};

#[wasm_bindgen]
extern "C" {
    /// `ReadableStreamDefaultReader`, whose reads have a type here.
    type ChunkReader;

    #[wasm_bindgen(method)]
    fn read(this: &ChunkReader) -> js_sys::Promise;

    #[wasm_bindgen(method)]
    fn cancel(this: &ChunkReader) -> js_sys::Promise;

    type Chunk;

    /// `undefined` at the end.
    #[wasm_bindgen(method, getter)]
    fn value(this: &Chunk) -> Option<Uint8Array>;
}

/// A body that is being received. The chunks are gathered here until there are enough bytes.
pub(crate) struct ChunkBody {
    /// `None` after the end.
    reader: Option<ChunkReader>,
    /// The read in progress; it continues while nothing polls it.
    reading: Option<Operation>,
    gathered: Vec<u8>,
    /// The least number of bytes that the read in progress still waits for; 0 when there is none.
    wanted: usize,
    is_cut: bool,
}

impl ChunkBody {
    pub(super) fn new(stream: Option<ReadableStream>) -> Self {
        let reader = stream.map(|stream| stream.get_reader().unchecked_into());
        Self { reader, reading: None, gathered: Vec::new(), wanted: 0, is_cut: false }
    }

    /// Receives the next chunk, or `None` at the end.
    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Vec<u8>>, Unreachable>> {
        let Some(reader) = &self.reader else {
            return Poll::Ready(if self.is_cut { Err(Unreachable) } else { Ok(None) });
        };
        let reading = self.reading.get_or_insert_with(|| Operation::of(&reader.read()));
        let end = ready!(Pin::new(reading).poll(context));
        self.reading = None;
        self.is_cut = end.status == 0;
        let bytes = (!self.is_cut).then(|| end.value.unchecked_into::<Chunk>().value()).flatten();
        let bytes = bytes.map(|bytes| bytes.to_vec());
        if bytes.is_none() {
            self.reader = None;
        }
        Poll::Ready(if self.is_cut { Err(Unreachable) } else { Ok(bytes) })
    }

    /// Whether all of it was read, or it was cut.
    pub(super) const fn is_over(&self) -> bool {
        self.reader.is_none()
    }

    /// Ends the sender's work, unless all of it was read. Without this, Deno keeps an aborted connection open under load.
    pub(super) fn cancel(&mut self) {
        if let Some(reader) = self.reader.take() {
            detach(&reader.cancel());
        }
    }
}

impl Body for ChunkBody {
    fn poll_next(
        &mut self,
        at_least: usize,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Vec<u8>>, Unreachable>> {
        if self.wanted == 0 {
            self.wanted = at_least.max(1);
        }
        while self.gathered.len() < self.wanted {
            match ready!(self.poll_chunk(context)) {
                Ok(Some(chunk)) if self.gathered.is_empty() => self.gathered = chunk,
                Ok(Some(chunk)) => self.gathered.extend_from_slice(&chunk),
                // The end is returned by the next call.
                _ if !self.gathered.is_empty() => break,
                ended => return Poll::Ready(ended),
            }
        }
        self.wanted = 0;
        Poll::Ready(Ok(Some(std::mem::take(&mut self.gathered))))
    }

    fn look(&mut self) -> Vec<u8> {
        self.wanted = self.wanted.saturating_sub(self.gathered.len());
        std::mem::take(&mut self.gathered)
    }

    async fn next_of_whole(&mut self) -> Result<Option<Vec<u8>>, Unreachable> {
        poll_fn(|context| self.poll_next(1, context)).await
    }
}
