//! HTTP as plain values: what goes out to a neighbour, what goes back to the caller.
//!
//! Not for: reading. What comes in is read through [`crate::ports::Head`] and [`crate::ports::Body`], header by
//! header and piece by piece, because each look costs a crossing between Wasm and JavaScript.

/// A request to a neighbour.
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

/// An answer to the caller, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 100 to 599.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// Empty: no body is sent.
    pub body: Vec<u8>,
}

/// The media type of every plain answer that is not an error.
pub const JSON: &str = "application/json";
/// RFC 9457, section 3: the media type of every error.
pub const PROBLEM_JSON: &str = "application/problem+json";

impl Answer {
    /// An answer with a body of `content_type`.
    #[must_use]
    pub fn new(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        Self { status, headers: vec![("content-type", content_type.to_owned())], body }
    }

    /// An answer without a body.
    #[must_use]
    pub const fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// The same answer with one more header.
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
