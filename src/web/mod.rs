//! Host code of every web-standard runtime: the hosts of requests and of user objects, operations outside of the module (requests
//! to upstreams, responses, timers), streams, signatures, the clock, randomness, the log. Provides ports, makes no decision.
//!
//! [`edge::handle`](crate::edge::handle) and the user object are generic over their host. Each of the two has one host type here,
//! whatever the platform, so that the module contains their code once: a platform implements [`EdgePlatform`](edge_host::EdgePlatform)
//! and [`ObjectPlatform`](object_host::ObjectPlatform).

mod chunk_body;
pub(crate) mod clock;
mod crypto;
pub(crate) mod edge_host;
mod log;
pub(crate) mod messages;
pub(crate) mod object_host;
pub(crate) mod operations;
mod pending_read_body;
pub(crate) mod pipe;
pub(crate) mod settings;
pub(crate) mod stream_body;
pub(crate) mod timer;

use std::panic::AssertUnwindSafe;

use futures_util::future::LocalBoxFuture;
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::future_to_promise;

use settings::Settings;

/// Marks the hosts: they get the ports of this folder.
pub(crate) trait WebHost {
    /// The settings of the deployment.
    fn settings(&self) -> &Settings;
}

/// Starts a future. Not generic: the code that connects a future with a promise is long.
pub(crate) fn promise_of(future: LocalBoxFuture<'static, Result<JsValue, JsValue>>) -> js_sys::Promise {
    future_to_promise(AssertUnwindSafe(future))
}
