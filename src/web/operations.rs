//! Operations outside of the module (`operations.js`), as futures: each is one crossing to begin and one to end. All of them share
//! one callback; a callback for each promise would cost more than most of the operations.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use js_sys::{Function, Object, Promise};
use wasm_bindgen::prelude::*;
use web_sys::{CryptoKey, ReadableStream, Request, WritableStreamDefaultWriter};

use super::tasks::turn;

#[wasm_bindgen(module = "/src/web/operations.js")]
extern "C" {
    fn connect(receive: &Receive);
    fn abandon(id: u32);
    fn release(id: u32);
    fn timer(id: u32, ms: i32);
    fn wait_for(id: u32, promise: &Promise);
    fn write(id: u32, writer: &WritableStreamDefaultWriter, chunk: &[u8]);
    fn exchange(
        id: u32,
        method: &str,
        url: &str,
        headers: &str,
        body: &[u8],
        timeout_ms: u32,
        bytes_max: u32,
    );
    fn open(id: u32, method: &str, url: &str, headers: &str, body: &[u8], names: &str);
    fn verify(id: u32, key: &CryptoKey, algorithm: &Object, message: &[u8], signature: &[u8]);
    fn receive_response(id: u32, response: &Promise);
    fn receive_body(id: u32, request: &Request, bytes_max: u32);
    #[wasm_bindgen(js_name = turn_later)]
    fn call_later(id: u32);
    fn respond(resolve: &Function, status: u16, headers: &str, body: &[u8]);
    fn finish(resolve: &Function, status: u16, headers: &str, body: &JsValue);

    /// Detaches a promise.
    pub(crate) fn detach(promise: &Promise);
    /// The head of a client's request, in lines: method, URL, then a name and a value for each of the named headers that it has.
    pub(super) fn head_of(request: &Request, names: &str) -> String;
}

/// The end of an operation.
#[derive(Default)]
pub(crate) struct End {
    /// Of a response, or the success; 0: failed.
    pub(crate) status: u16,
    /// The named headers of a response, or another text.
    pub(crate) text: String,
    /// The whole body.
    pub(crate) bytes: Vec<u8>,
    /// The value of a promise, or the stream of a response's body.
    pub(crate) value: JsValue,
}

/// The callback of all operations, with the members of an [`End`] after the number.
type Receive = Closure<dyn FnMut(u32, u16, String, Vec<u8>, JsValue)>;

enum Slot {
    Free,
    InProgress(Option<Waker>),
    Ended(End),
}

struct Operations {
    /// JavaScript may call it for as long as this instance exists.
    receive: Option<Receive>,
    /// By the number of the operation.
    slots: Vec<Slot>,
    free: Vec<u32>,
}

thread_local! {
    static OPERATIONS: RefCell<Operations> =
        const { RefCell::new(Operations { receive: None, slots: Vec::new(), free: Vec::new() }) };
}

fn receive(id: u32, end: End) {
    let waker = OPERATIONS.with_borrow_mut(|operations| match operations.slot(id) {
        Some(Slot::InProgress(waker)) => {
            let waker = waker.take();
            if let Some(slot) = operations.slot(id) {
                *slot = Slot::Ended(end);
            }
            waker
        }
        _ => None,
    });
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Runs the tasks that are woken, in a turn of its own.
pub(super) fn turn_later() {
    OPERATIONS.with_borrow_mut(Operations::connect);
    call_later(NO_OPERATION);
}

/// The number of no operation.
const NO_OPERATION: u32 = u32::MAX;

impl Operations {
    fn slot(&mut self, id: u32) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(id).ok()?)
    }

    fn connect(&mut self) {
        if self.receive.is_none() {
            let callback = Closure::new(|id, status, text, bytes, value| {
                turn(|| receive(id, End { status, text, bytes, value }));
            });
            connect(&callback);
            self.receive = Some(callback);
        }
    }

    fn insert(&mut self) -> u32 {
        self.connect();
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::Free);
            u32::try_from(self.slots.len().saturating_sub(1)).unwrap_or(u32::MAX)
        });
        if let Some(slot) = self.slot(id) {
            *slot = Slot::InProgress(None);
        }
        id
    }

    /// Frees the number; returns what was there.
    fn remove(&mut self, id: u32) -> Slot {
        let Some(slot) = self.slot(id) else { return Slot::Free };
        let removed = std::mem::replace(slot, Slot::Free);
        self.free.push(id);
        removed
    }
}

/// An operation. Dropped before its end, it is cancelled.
pub(crate) struct Operation {
    id: u32,
    /// Whether it can be cancelled after its end, too.
    is_kept: bool,
}

impl Operation {
    fn begin(start: impl FnOnce(u32)) -> Self {
        let operation = Self { id: OPERATIONS.with_borrow_mut(Operations::insert), is_kept: false };
        start(operation.id);
        operation
    }

    /// Waits for some milliseconds.
    pub(super) fn timer(ms: u64) -> Self {
        Self::begin(|id| timer(id, i32::try_from(ms).unwrap_or(i32::MAX)))
    }

    /// Waits for a promise.
    pub(crate) fn of(promise: &Promise) -> Self {
        Self::begin(|id| wait_for(id, promise))
    }

    /// Another host's operation, with the number that it passes to JavaScript.
    pub(crate) fn other(start: impl FnOnce(u32)) -> Self {
        Self::begin(start)
    }

    pub(super) fn write(writer: &WritableStreamDefaultWriter, chunk: &[u8]) -> Self {
        Self::begin(|id| write(id, writer, chunk))
    }

    /// Checks a signature: status 1 when it is valid.
    pub(super) fn verify(key: &CryptoKey, algorithm: &Object, message: &[u8], signature: &[u8]) -> Self {
        Self::begin(|id| verify(id, key, algorithm, message, signature))
    }

    /// Sends a request and receives the whole response.
    pub(super) fn exchange(request: &crate::http::Request, timeout_ms: u64, bytes_max: usize) -> Self {
        let headers = lines(&request.headers);
        Self::begin(|id| {
            let timeout_ms = u32::try_from(timeout_ms).unwrap_or(u32::MAX);
            exchange(id, request.method, &request.url, &headers, &request.body, timeout_ms, limit(bytes_max));
        })
    }

    /// Sends a request up to the head of the response, with the headers of these names. The connection is open until the
    /// operation is dropped, or [released](Self::release).
    pub(super) fn open(request: &crate::http::Request, names: &str) -> Self {
        let headers = lines(&request.headers);
        let mut opening = Self::begin(|id| {
            open(id, request.method, &request.url, &headers, &request.body, names);
        });
        opening.is_kept = true;
        opening
    }

    /// Receives a response of the platform to its end.
    pub(super) fn receive_response(response: &Promise) -> Self {
        Self::begin(|id| receive_response(id, response))
    }

    /// Receives the body of a client's request.
    pub(super) fn receive_body(request: &Request, bytes_max: usize) -> Self {
        Self::begin(|id| receive_body(id, request, limit(bytes_max)))
    }

    /// Ends a connection that was read to its end.
    pub(super) fn release(&mut self) {
        if std::mem::take(&mut self.is_kept) {
            release(self.id);
        }
    }
}

fn limit(bytes_max: usize) -> u32 {
    u32::try_from(bytes_max).unwrap_or(u32::MAX)
}

/// Its end; polled after that, it has no other.
impl Future for Operation {
    type Output = End;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<End> {
        // A waker is dropped outside of the borrow: it may be the last owner of a task with operations of its own.
        let (polled, _replaced) = OPERATIONS.with_borrow_mut(|operations| match operations.slot(self.id) {
            Some(Slot::InProgress(Some(known))) if known.will_wake(context.waker()) => (Poll::Pending, None),
            Some(Slot::InProgress(waker)) => (Poll::Pending, waker.replace(context.waker().clone())),
            Some(Slot::Ended(end)) => (Poll::Ready(std::mem::take(end)), None),
            _ => (Poll::Ready(End::default()), None),
        });
        polled
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        let removed = OPERATIONS.with_borrow_mut(|operations| operations.remove(self.id));
        if self.is_kept || matches!(removed, Slot::InProgress(_)) {
            abandon(self.id);
        }
    }
}

/// The value of a promise.
///
/// # Errors
/// `undefined` when it was rejected: no decision depends on the reason.
pub(crate) async fn value_of(promise: &Promise) -> Result<JsValue, JsValue> {
    let end = Operation::of(promise).await;
    if end.status == 0 { Err(JsValue::UNDEFINED) } else { Ok(end.value) }
}

/// The body of a response.
pub(crate) enum OutgoingBody {
    /// These bytes; empty: no body.
    Bytes(Vec<u8>),
    /// A stream or bytes of JavaScript, forwarded untouched.
    Forwarded(JsValue),
}

impl OutgoingBody {
    /// A stream, forwarded untouched.
    pub(crate) fn stream(stream: ReadableStream) -> Self {
        Self::Forwarded(stream.into())
    }
}

/// Resolves a call of JavaScript with a response.
pub(super) fn respond_to(
    resolve: &Function,
    status: u16,
    headers: &[(&'static str, String)],
    body: &OutgoingBody,
) {
    match body {
        OutgoingBody::Bytes(bytes) => respond(resolve, status, &lines(headers), bytes),
        OutgoingBody::Forwarded(value) => finish(resolve, status, &lines(headers), value),
    }
}

/// Headers, two lines each: the name and the value.
fn lines(headers: &[(&'static str, String)]) -> String {
    let bytes = headers.iter().map(|(name, value)| name.len().saturating_add(value.len()).saturating_add(2));
    let mut lines = String::with_capacity(bytes.sum());
    for (name, value) in headers {
        lines.push_str(name);
        lines.push('\n');
        // A line break in a value: the platform refuses the one as it does the other.
        if value.contains('\n') {
            lines.push_str(&value.replace('\n', "\r"));
        } else {
            lines.push_str(value);
        }
        lines.push('\n');
    }
    lines
}

/// The value of a header in such lines.
pub(super) fn header_in(lines: &str, name: &str) -> Option<String> {
    let mut lines = lines.lines();
    while let (Some(found), Some(value)) = (lines.next(), lines.next()) {
        if found == name {
            return Some(value.to_owned());
        }
    }
    None
}
