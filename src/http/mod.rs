//! HTTP as plain values: requests to an upstream, responses to the caller, and the headers of both.
//!
//! Not for: reading a message. Its head and its body are read through [`crate::ports::Head`] and [`crate::ports::Body`], because
//! each read costs a crossing between Wasm and JavaScript.

pub mod cors;
pub mod idempotency_key;
pub mod problem;
pub mod rate_limit;
pub mod response_mode;
pub mod sse;
pub mod sse_reader;
pub mod traceparent;
pub mod url;

use serde::Serialize;

/// A request to an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// In capitals, as on the wire.
    pub method: &'static str,
    /// Absolute.
    pub url: String,
    /// Names in lower case, in the order of sending.
    pub headers: Vec<(&'static str, String)>,
    /// Empty: no body is sent.
    pub body: Vec<u8>,
}

/// A response to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// 100 to 599.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// Empty: no body is sent.
    pub body: Vec<u8>,
}

/// The media type of every document that is not an error.
pub const JSON: &str = "application/json";
/// RFC 9457, section 3: the media type of every error.
pub const PROBLEM_JSON: &str = "application/problem+json";

impl Response {
    /// A response with a body of `content_type`.
    #[must_use]
    pub fn new(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        Self { status, headers: vec![("content-type", content_type.to_owned())], body }
    }

    /// A response without a body.
    #[must_use]
    pub const fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// The same response with one more header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The first header of that name (lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| *header == name).map(|(_, value)| value.as_str())
    }
}

/// A document as JSON.
#[must_use]
pub fn to_json(document: &impl Serialize) -> Vec<u8> {
    // Structs of strings and numbers: serde_json has nothing that could fail in them.
    serde_json::to_vec(document).unwrap_or_default()
}
