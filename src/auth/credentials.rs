//! The access credentials of a request: everything that a call to the database on behalf of the user needs.

use std::rc::Rc;

/// The user's access token, verified, with its expiry and the request's trace context. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user's own access token.
    pub token: Rc<str>,
    /// `exp`, in milliseconds since the Unix epoch.
    pub expires_ms: u64,
    /// `traceparent` of W3C Trace Context, where the caller sent a valid one; forwarded.
    pub traceparent: Option<Rc<str>>,
}
