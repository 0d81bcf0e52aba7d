//! The edge: the only layer that knows HTTP. Reads a request, sends a command to the user object, renders the reply.
//!
//! [`handle`] takes every request, [`routes`] has the table, [`endpoints`] a file per endpoint.

pub mod authenticate;
pub mod documents;
pub mod endpoints;
pub mod events;
pub mod execute;
pub mod failure;
pub mod handle;
pub mod log;
pub mod render;
pub mod routes;
pub mod wire;

use std::rc::Rc;

use crate::auth::User;
use crate::auth::credentials::Credentials;
use crate::http::problem::ProblemContext;
use crate::ports::{Assets, Log, Random};
use authenticate::AuthHost;
use execute::UserObjects;

/// Everything that a request at the edge needs of its host.
pub trait EdgeHost: AuthHost + UserObjects + Assets + Random + Log {}
impl<H: AuthHost + UserObjects + Assets + Random + Log> EdgeHost for H {}

/// A request at the edge.
#[derive(Debug)]
pub struct Request<I> {
    /// The request as the host represents it.
    pub inbound: I,
    /// The start of the request, in milliseconds since the Unix epoch.
    pub began_ms: u64,
    /// The context of a problem document: the service's own URL and the request's id.
    pub context: ProblemContext,
    /// W3C Trace Context, when the caller sent a valid one.
    pub traceparent: Option<Rc<str>>,
}

/// A verified caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub user: User,
    /// The user's access credentials.
    pub credentials: Credentials,
}
