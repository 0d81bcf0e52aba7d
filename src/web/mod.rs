//! Host code of every web-standard runtime: the hosts of requests and of user objects, fetch, streams, responses, signatures, the
//! timer, the clock, randomness, the log. Provides ports, makes no decision.
//!
//! [`edge::handle`](crate::edge::handle) and the user object are generic over their host. Each of the two has one host type here,
//! whatever the platform, so that the module contains their code once: a platform implements [`EdgePlatform`](edge_host::EdgePlatform)
//! and [`ObjectPlatform`](object_host::ObjectPlatform).

mod batch_body;
mod chunk_body;
pub(crate) mod clock;
mod crypto;
pub(crate) mod edge_host;
mod fetch;
mod log;
pub(crate) mod messages;
pub(crate) mod object_host;
pub(crate) mod pipe;
pub(crate) mod response;
pub(crate) mod settings;
pub(crate) mod stream_body;
pub(crate) mod timer;

use wasm_bindgen_futures::{JsFuture, spawn_local};

use settings::Settings;

/// Marks the hosts: they get the ports of this folder.
pub(crate) trait WebHost {
    /// The settings of the deployment.
    fn settings(&self) -> &Settings;
}

/// Detaches the promise.
fn forget(promise: js_sys::Promise) {
    spawn_local(async move { drop(JsFuture::from(promise).await) });
}
