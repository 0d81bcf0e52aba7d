//! Requests of clients and responses of upstreams: their heads and their bodies.

use std::task::{Context, Poll};

use web_sys::Headers;

use super::WebHost;
use super::fetch::{Connection, send};
use super::stream_body::StreamBody;
use crate::http::Request;
use crate::ports::{Body, Fetch, Head, Inbound, Incoming, Unreachable};

/// The request of a client.
pub(crate) struct InboundRequest {
    method: String,
    url: String,
    headers: Headers,
    request: web_sys::Request,
    body: Option<StreamBody>,
}

impl InboundRequest {
    /// `url`: as the routes are to see it.
    pub(crate) fn new(request: web_sys::Request, url: String) -> Self {
        Self { method: request.method(), url, headers: request.headers(), request, body: None }
    }

    fn body(&mut self) -> &mut StreamBody {
        let request = &self.request;
        self.body.get_or_insert_with(|| StreamBody::new(request.body()))
    }
}

impl Head for InboundRequest {
    fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name).ok().flatten()
    }
}

impl Body for InboundRequest {
    fn poll_next(
        &mut self,
        at_least: usize,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Vec<u8>>, Unreachable>> {
        self.body().poll_next(at_least, context)
    }

    fn look(&mut self) -> Vec<u8> {
        self.body().look()
    }

    async fn next_of_whole(&mut self) -> Result<Option<Vec<u8>>, Unreachable> {
        self.body().next_of_whole().await
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

impl Drop for InboundRequest {
    fn drop(&mut self) {
        if let Some(body) = &mut self.body {
            body.release();
        }
    }
}

/// The response of an upstream.
pub struct IncomingResponse {
    status: u16,
    headers: Headers,
    body: StreamBody,
    connection: Connection,
}

impl<T: WebHost> Fetch for T {
    type Incoming = IncomingResponse;

    async fn fetch(&self, request: Request) -> Result<IncomingResponse, Unreachable> {
        let (response, connection) = send(request).await?;
        Ok(IncomingResponse {
            status: response.status(),
            headers: response.headers(),
            body: StreamBody::new(response.body()),
            connection,
        })
    }
}

impl Head for IncomingResponse {
    fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name).ok().flatten()
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
            self.connection.end();
        }
        bytes
    }

    fn look(&mut self) -> Vec<u8> {
        self.body.look()
    }

    async fn next_of_whole(&mut self) -> Result<Option<Vec<u8>>, Unreachable> {
        let batch = self.body.next_of_whole().await;
        if batch.is_ok() && self.body.is_over() {
            self.connection.end();
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
