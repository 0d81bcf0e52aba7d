//! Requests of clients and responses of upstreams: their heads and their bodies.

use std::task::{Context, Poll};

use wasm_bindgen::JsCast;
use web_sys::ReadableStream;

use super::WebHost;
use super::operations::{Operation, head_of, header_in};
use super::stream_body::StreamBody;
use crate::http::Request;
use crate::ports::{Body, BodyError, Fetch, Head, Inbound, Incoming, Limits, Unreachable, WholeResponse};

/// The headers of a client's request that the service reads.
const REQUEST_HEADERS: &str = "x-request-id traceparent origin authorization content-type content-length accept prefer \
     cache-control idempotency-key last-event-id";
/// The headers of a response that the service reads.
const RESPONSE_HEADERS: &str = "content-type retry-after x-openrouter-cache-status x-generation-id";

/// The request of a client.
pub(crate) struct InboundRequest {
    method: String,
    url: String,
    /// In lines.
    headers: String,
    request: web_sys::Request,
}

impl InboundRequest {
    /// `url_of` makes of the URL the one that the routes are to see.
    pub(crate) fn new(request: web_sys::Request, url_of: fn(&str) -> String) -> Self {
        let head = head_of(&request, REQUEST_HEADERS);
        let (method, rest) = head.split_once('\n').unwrap_or_default();
        let (url, headers) = rest.split_once('\n').unwrap_or_default();
        Self { method: method.to_owned(), url: url_of(url), headers: headers.to_owned(), request }
    }
}

impl Head for InboundRequest {
    fn header(&self, name: &str) -> Option<String> {
        debug_assert!(REQUEST_HEADERS.split(' ').any(|known| known == name), "{name} is not received");
        header_in(&self.headers, name)
    }
}

impl Inbound for InboundRequest {
    fn method(&self) -> &str {
        &self.method
    }

    fn url(&self) -> &str {
        &self.url
    }

    async fn whole_body(&mut self, bytes_max: usize) -> Result<Vec<u8>, BodyError> {
        let end = Operation::receive_body(&self.request, bytes_max).await;
        match end.status {
            1 => Ok(end.bytes),
            2 => Err(BodyError::TooLarge),
            _ => Err(BodyError::Cut),
        }
    }
}

/// The response of an upstream.
pub struct IncomingResponse {
    status: u16,
    /// In lines.
    headers: String,
    body: StreamBody,
    connection: Operation,
}

impl<T: WebHost> Fetch for T {
    type Incoming = IncomingResponse;

    async fn fetch(&self, request: Request) -> Result<IncomingResponse, Unreachable> {
        let mut connection = Operation::open(&request, RESPONSE_HEADERS);
        let head = (&mut connection).await;
        if head.status == 0 {
            return Err(Unreachable);
        }
        let body = StreamBody::new(head.value.dyn_into::<ReadableStream>().ok());
        Ok(IncomingResponse { status: head.status, headers: head.text, body, connection })
    }

    async fn fetch_whole(&self, request: Request, limits: Limits) -> Result<WholeResponse, Unreachable> {
        let end = Operation::exchange(&request, limits.timeout_ms, limits.bytes_max).await;
        if end.status == 0 {
            return Err(Unreachable);
        }
        Ok(WholeResponse { status: end.status, body: end.bytes })
    }
}

impl Head for IncomingResponse {
    fn header(&self, name: &str) -> Option<String> {
        debug_assert!(RESPONSE_HEADERS.split(' ').any(|known| known == name), "{name} is not received");
        header_in(&self.headers, name)
    }
}

impl Body for IncomingResponse {
    fn poll_next(
        &mut self,
        at_least: usize,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Vec<u8>>, Unreachable>> {
        let bytes = self.body.poll_next(at_least, context);
        if matches!(bytes, Poll::Ready(Ok(_))) && self.body.is_over() {
            self.connection.release();
        }
        bytes
    }

    fn look(&mut self) -> Vec<u8> {
        self.body.look()
    }

    async fn next_of_whole(&mut self) -> Result<Option<Vec<u8>>, Unreachable> {
        let batch = self.body.next_of_whole().await;
        if batch.is_ok() && self.body.is_over() {
            self.connection.release();
        }
        batch
    }
}

impl Incoming for IncomingResponse {
    fn status(&self) -> u16 {
        self.status
    }
}

impl Drop for IncomingResponse {
    fn drop(&mut self) {
        self.body.cancel();
    }
}
