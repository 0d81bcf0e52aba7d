//! Request bodies that were not read to their end. Deno closes a connection after such a response, and the client may then lose the
//! response; so the rest of the body is received and discarded, up to a bound.

use std::future::poll_fn;
use std::pin::pin;

use futures_util::future::{Either, select};
use web_sys::{ReadableStream, Request};

use super::background;
use crate::ports::Body;
use crate::web::stream_body::StreamBody;
use crate::web::timer::sleep;

/// The most bytes that are received: four times the largest body that the service reads. A client that sends more may lose the
/// response.
const BYTES_MAX: usize = 1024 * 1024;
/// For at most so long: a slower client may lose the response, too.
const DRAIN_MS: u64 = 5_000;
/// The response waits for so much of that time: a client that sends no end of its body gets it then.
const RESPONSE_DELAY_MS: u64 = 1_000;

/// Drains the body of a request, unless it was read to its end. Ends when the response can be sent.
pub(super) async fn drain(request: &Request) {
    // A stream that was read to its end is still locked by its reader.
    let Some(stream) = request.body().filter(|stream| !stream.locked()) else { return };
    let draining = Box::pin(drain_stream(stream));
    if let Either::Right((_, draining)) = select(draining, pin!(sleep(RESPONSE_DELAY_MS))).await {
        background::spawn(draining);
    }
}

async fn drain_stream(stream: ReadableStream) {
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
