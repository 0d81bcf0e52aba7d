//! Request bodies that were not read to their end: Deno may not send a response before it has received the whole request.

use std::future::poll_fn;
use std::pin::pin;

use futures_util::future::select;
use web_sys::{ReadableStream, Request};

use crate::ports::Body;
use crate::web::stream_body::StreamBody;
use crate::web::timer::sleep;

/// The most bytes that are received: four times the largest body that the service reads. A client that sends more may lose the
/// response.
const BYTES_MAX: usize = 1024 * 1024;
/// For at most so long: a slower client may lose the response, too.
const DRAIN_MS: u64 = 5_000;

/// The body, unless it was read to its end: then its reader still locks it.
pub(super) fn of(request: &Request) -> Option<ReadableStream> {
    request.body().filter(|stream| !stream.locked())
}

/// Receives and discards the rest of a body, up to a bound.
pub(super) async fn drain(stream: ReadableStream) {
    let mut body = StreamBody::new(Some(stream));
    let reading = async {
        let mut received: usize = 0;
        // Ends at the end of the body, too, and when the client has left.
        while let Ok(Some(chunk)) = poll_fn(|context| body.poll_next(1, context)).await {
            received = received.saturating_add(chunk.len());
            if received > BYTES_MAX {
                return;
            }
        }
    };
    select(pin!(reading), pin!(sleep(DRAIN_MS))).await;
    body.cancel();
}
