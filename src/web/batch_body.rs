//! Bodies in batches, which workerd gathers.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use js_sys::{ArrayBuffer, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{ReadableStream, ReadableStreamGetReaderOptions, ReadableStreamReaderMode};

use super::forget;
use super::pipe::transform;
use crate::ports::{Body, Unreachable};

#[wasm_bindgen]
extern "C" {
    /// `ReadableStreamBYOBReader` with workerd's `readAtLeast`, which waits for a whole batch:
    /// <https://developers.cloudflare.com/workers/runtime-apis/streams/readablestreambyobreader/>
    type BatchReader;

    #[wasm_bindgen(method, js_name = readAtLeast)]
    fn read_at_least(this: &BatchReader, at_least: u32, view: Uint8Array) -> js_sys::Promise<Batch>;

    #[wasm_bindgen(method, js_name = releaseLock)]
    fn release_lock(this: &BatchReader);

    #[wasm_bindgen(method)]
    fn cancel(this: &BatchReader) -> js_sys::Promise;

    type Batch;

    /// A batch that is smaller than requested is the last; an empty one is the end, too.
    #[wasm_bindgen(method, getter)]
    fn value(this: &Batch) -> Option<Uint8Array>;
}

/// The buffer of a read: no more is returned at once.
const BUFFER_BYTES: u32 = 16 * 1024;

thread_local! {
    /// The buffer of the last read, for the next one of any body: a new one would have to be cleared, and collected.
    static BUFFER: Cell<Option<ArrayBuffer>> = const { Cell::new(None) };
}

/// The most changes of a body from batches to single chunks: each costs another copy of the rest.
const SPLITS_MAX: u32 = 8;

/// A body that is being received on workerd.
///
/// workerd returns a whole batch or nothing: the bytes of an unfilled batch are lost when the connection is cut, or when the read
/// is cancelled. So the stream is split in two before the first batch. Batches are read from one branch, through a pipe; the
/// other keeps, natively, a copy of the bytes, and is read when a batch has failed.
pub(crate) struct BatchBody {
    stream: Option<ReadableStream>,
    reader: Option<BatchReader>,
    /// The other branch, while batches are read.
    spare: Option<ReadableStream>,
    splits: u32,
    /// The number of bytes that were read since the split.
    taken: usize,
    /// The number of those that still have to be skipped on the other branch.
    to_skip: usize,
    /// The read in progress, and its least number of bytes; it continues while nothing polls it.
    reading: Option<(u32, JsFuture<Batch>)>,
}

impl BatchBody {
    pub(super) const fn new(stream: Option<ReadableStream>) -> Self {
        Self { stream, reader: None, spare: None, splits: 0, taken: 0, to_skip: 0, reading: None }
    }

    /// Splits the stream, so that batches can be read.
    fn split(&mut self) -> Result<(), JsValue> {
        let Some(stream) = self.stream.take() else { return Ok(()) };
        if let Some(reader) = self.reader.take() {
            reader.release_lock();
        }
        let branches = stream.tee();
        let (batches, spare) = (branches.get(0).unchecked_into(), branches.get(1).unchecked_into());
        let pipe = transform()?;
        // A cut stream is noticed where it is read.
        forget(ReadableStream::pipe_to(&batches, &pipe.writable()));
        (self.stream, self.spare, self.taken) = (Some(pipe.readable()), Some(spare), 0);
        self.splits = self.splits.saturating_add(1);
        Ok(())
    }

    /// Continues with the other branch, after the last whole batch.
    fn fall_back(&mut self) -> Result<(), Unreachable> {
        self.stream = Some(self.spare.take().ok_or(Unreachable)?);
        if let Some(reader) = self.reader.take() {
            forget(reader.cancel());
        }
        (self.to_skip, self.reading) = (self.taken, None);
        Ok(())
    }

    /// Receives the next bytes, or `None` at the end. Fewer than `at_least` are the last ones.
    fn poll_read(
        &mut self,
        at_least: u32,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Vec<u8>>, Unreachable>> {
        let Some(stream) = &self.stream else {
            return Poll::Ready(Ok(None));
        };
        let reader = self.reader.get_or_insert_with(|| {
            let options = ReadableStreamGetReaderOptions::new();
            options.set_mode(ReadableStreamReaderMode::Byob);
            stream.get_reader_with_options(&options).unchecked_into()
        });
        let (at_least, reading) = self.reading.get_or_insert_with(|| {
            let buffer = BUFFER.take().unwrap_or_else(|| ArrayBuffer::new(BUFFER_BYTES));
            (at_least, JsFuture::from(reader.read_at_least(at_least, Uint8Array::new(&buffer))))
        });
        let at_least = *at_least;
        let Poll::Ready(batch) = Pin::new(reading).poll(context) else { return Poll::Pending };
        self.reading = None;
        let Ok(batch) = batch else { return Poll::Ready(Err(Unreachable)) };
        let bytes = batch.value().map(|batch| {
            BUFFER.set(Some(batch.buffer()).filter(|buffer| buffer.byte_length() == BUFFER_BYTES));
            batch.to_vec()
        });
        let bytes = bytes.unwrap_or_default();
        if bytes.len() < usize::try_from(at_least).unwrap_or(usize::MAX) {
            (self.reader, self.stream) = (None, None);
        }
        Poll::Ready(Ok(Some(bytes).filter(|bytes| !bytes.is_empty())))
    }

    /// Whether all of it was read.
    pub(super) const fn is_over(&self) -> bool {
        self.stream.is_none()
    }
}

impl Drop for BatchBody {
    fn drop(&mut self) {
        // It would keep all bytes until it is collected.
        if let Some(spare) = self.spare.take() {
            forget(spare.cancel());
        }
    }
}

impl Body for BatchBody {
    fn poll_next(
        &mut self,
        at_least: usize,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Vec<u8>>, Unreachable>> {
        let wanted = u32::try_from(at_least).unwrap_or(u32::MAX).clamp(1, BUFFER_BYTES);
        // A batch that is no longer waited for: some of its bytes may have arrived.
        if self.reading.as_ref().is_some_and(|(reading, _)| *reading > wanted) {
            self.fall_back()?;
        }
        if wanted > 1 && self.spare.is_none() && self.splits < SPLITS_MAX && self.reading.is_none() {
            self.split().map_err(|_| Unreachable)?;
        }
        loop {
            let at_least = if self.spare.is_some() { wanted } else { 1 };
            let batch = match ready!(self.poll_read(at_least, context)) {
                Ok(Some(batch)) => batch,
                Err(Unreachable) if self.spare.is_some() => {
                    self.fall_back()?;
                    continue;
                }
                ended => return Poll::Ready(ended),
            };
            self.taken = self.taken.saturating_add(batch.len());
            let skipped = self.to_skip.min(batch.len());
            self.to_skip = self.to_skip.saturating_sub(skipped);
            match batch.get(skipped..) {
                Some(rest) if skipped > 0 && rest.is_empty() => {}
                Some(rest) if skipped > 0 => return Poll::Ready(Ok(Some(rest.to_vec()))),
                _ => return Poll::Ready(Ok(Some(batch))),
            }
        }
    }

    async fn next_of_whole(&mut self) -> Result<Option<Vec<u8>>, Unreachable> {
        poll_fn(|context| self.poll_read(BUFFER_BYTES, context)).await
    }
}
