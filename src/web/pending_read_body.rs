//! Bodies that workerd reads into a buffer: one read in progress, whose bytes can be taken before it ends.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use wasm_bindgen::prelude::*;
use web_sys::ReadableStream;

use crate::ports::{Body, Unreachable};

#[wasm_bindgen(module = "/src/web/pending_read.js")]
extern "C" {
    type PendingRead;

    #[wasm_bindgen(constructor, catch)]
    fn new(stream: &ReadableStream, ended: &JsValue) -> Result<PendingRead, JsValue>;

    #[wasm_bindgen(method)]
    fn begin(this: &PendingRead, at_least: u32);

    #[wasm_bindgen(method)]
    fn arrived(this: &PendingRead) -> u32;

    #[wasm_bindgen(method)]
    fn take(this: &PendingRead, into: &mut [u8]) -> u32;

    #[wasm_bindgen(method)]
    fn abandon(this: &PendingRead);
}

/// The body ends with the bytes of this read.
const END: u32 = 1;
/// The connection was cut.
const CUT: u32 = 2;

/// Whether the read in progress has ended.
#[derive(Default)]
struct State {
    has_ended: bool,
    waker: Option<Waker>,
}

/// The reader of a stream. Dropped, it leaves the read in progress without a callback.
struct Reader {
    read: PendingRead,
    is_reading: bool,
    state: Rc<RefCell<State>>,
    _ended: Closure<dyn FnMut()>,
}

impl Reader {
    fn new(stream: &ReadableStream) -> Result<Self, JsValue> {
        let state: Rc<RefCell<State>> = Rc::default();
        let ended = {
            let state = Rc::clone(&state);
            Closure::new(move || {
                let mut state = state.borrow_mut();
                state.has_ended = true;
                let waker = state.waker.take();
                drop(state);
                if let Some(waker) = waker {
                    waker.wake();
                }
            })
        };
        let read = PendingRead::new(stream, ended.as_ref())?;
        Ok(Self { read, is_reading: false, state, _ended: ended })
    }

    /// The end of the read in progress, or of one that begins.
    fn poll_end(&mut self, at_least: usize, context: &Context<'_>) -> Poll<()> {
        if !self.is_reading {
            self.is_reading = true;
            self.read.begin(u32::try_from(at_least).unwrap_or(u32::MAX).max(1));
        }
        let mut state = self.state.borrow_mut();
        if !std::mem::take(&mut state.has_ended) {
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        self.is_reading = false;
        Poll::Ready(())
    }

    /// The bytes that have arrived since the last time, and the outcome of the read.
    fn take(&self) -> (Vec<u8>, u32) {
        let mut bytes = vec![0; usize::try_from(self.read.arrived()).unwrap_or_default()];
        let outcome = self.read.take(&mut bytes);
        (bytes, outcome)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.is_reading {
            self.read.abandon();
        }
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
                None => self.reader.insert(Reader::new(stream).map_err(|_| Unreachable)?),
            };
            if reader.poll_end(at_least, context).is_pending() {
                return Poll::Pending;
            }
            let (bytes, outcome) = reader.take();
            if outcome == END || outcome == CUT {
                self.close(outcome == CUT);
            }
            // A look may have taken the last bytes of a full buffer: then the next read follows.
            if !bytes.is_empty() {
                return Poll::Ready(Ok(Some(bytes)));
            }
        }
        Poll::Ready(if self.is_cut { Err(Unreachable) } else { Ok(None) })
    }

    fn look(&mut self) -> Vec<u8> {
        let reader = self.reader.as_ref().filter(|reader| reader.is_reading);
        reader
            .filter(|reader| !reader.state.borrow().has_ended)
            .map(|reader| reader.take().0)
            .unwrap_or_default()
    }

    async fn next_of_whole(&mut self) -> Result<Option<Vec<u8>>, Unreachable> {
        poll_fn(|context| self.poll_next(usize::MAX, context)).await
    }
}
