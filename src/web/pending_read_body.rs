//! Bodies that workerd reads into a buffer: one read in progress, whose bytes can be taken before it ends.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use wasm_bindgen::prelude::*;
use web_sys::ReadableStream;

use super::operations::{End, Operation};
use crate::ports::{Body, Unreachable};

#[wasm_bindgen(module = "/src/web/pending_read.js")]
extern "C" {
    type PendingRead;

    #[wasm_bindgen(constructor, catch)]
    fn new(stream: &ReadableStream) -> Result<PendingRead, JsValue>;

    #[wasm_bindgen(method)]
    fn begin(this: &PendingRead, id: u32, at_least: u32);

    #[wasm_bindgen(method)]
    fn look(this: &PendingRead) -> Vec<u8>;
}

/// The connection was cut.
const CUT: u16 = 0;
/// The body ends with the bytes of this read.
const END: u16 = 2;

/// The reader of a stream, and its read in progress.
struct Reader {
    read: PendingRead,
    reading: Option<Operation>,
}

impl Reader {
    /// The end of the read in progress, or of one that begins: the outcome, and the bytes that no look has taken.
    fn poll_end(&mut self, at_least: usize, context: &mut Context<'_>) -> Poll<End> {
        let reading = self.reading.get_or_insert_with(|| {
            let at_least = u32::try_from(at_least).unwrap_or(u32::MAX).max(1);
            Operation::other(|id| self.read.begin(id, at_least))
        });
        let end = ready!(Pin::new(reading).poll(context));
        self.reading = None;
        Poll::Ready(end)
    }
}

/// A body that is being received on workerd.
pub(crate) struct PendingReadBody {
    /// `None` once it is read.
    stream: Option<ReadableStream>,
    reader: Option<Reader>,
    is_cut: bool,
}

impl PendingReadBody {
    pub(super) const fn new(stream: Option<ReadableStream>) -> Self {
        Self { stream, reader: None, is_cut: false }
    }

    /// Whether all of it was read, or it was cut.
    pub(super) const fn is_over(&self) -> bool {
        self.stream.is_none()
    }

    fn close(&mut self, is_cut: bool) {
        (self.stream, self.reader, self.is_cut) = (None, None, is_cut);
    }
}

impl Body for PendingReadBody {
    fn poll_next(
        &mut self,
        at_least: usize,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Vec<u8>>, Unreachable>> {
        while let Some(stream) = &self.stream {
            let reader = match &mut self.reader {
                Some(reader) => reader,
                None => {
                    let read = PendingRead::new(stream).map_err(|_| Unreachable)?;
                    self.reader.insert(Reader { read, reading: None })
                }
            };
            let End { status, bytes, .. } = ready!(reader.poll_end(at_least, context));
            if status == END || status == CUT {
                self.close(status == CUT);
            }
            // A look may have taken the last bytes of a full buffer: then the next read follows.
            if !bytes.is_empty() {
                return Poll::Ready(Ok(Some(bytes)));
            }
        }
        Poll::Ready(if self.is_cut { Err(Unreachable) } else { Ok(None) })
    }

    fn look(&mut self) -> Vec<u8> {
        let reader = self.reader.as_ref().filter(|reader| reader.reading.is_some());
        reader.map(|reader| reader.read.look()).unwrap_or_default()
    }

    async fn next_of_whole(&mut self) -> Result<Option<Vec<u8>>, Unreachable> {
        poll_fn(|context| self.poll_next(usize::MAX, context)).await
    }
}
