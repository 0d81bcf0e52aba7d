//! Host code of every web-standard runtime: the hosts of requests and of user objects, operations outside of the module (requests
//! to upstreams, responses, timers), streams, signatures, tasks, the clock, randomness, the log. Provides ports, makes no decision.
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
pub(crate) mod tasks;
pub(crate) mod timer;

use futures_util::future::LocalBoxFuture;
use js_sys::Promise;
use wasm_bindgen::JsValue;

use settings::Settings;
use tasks::spawn;

/// Marks the hosts: they get the ports of this folder.
pub(crate) trait WebHost {
    /// The settings of the deployment.
    fn settings(&self) -> &Settings;
}

/// Starts a task with a result.
pub(crate) fn promise_of(future: LocalBoxFuture<'static, Result<JsValue, JsValue>>) -> Promise {
    let mut future = Some(future);
    Promise::new(&mut |resolve, reject| {
        let Some(future) = future.take() else { return };
        spawn(Box::pin(async move {
            // The functions of a promise do not fail.
            let _ = match future.await {
                Ok(value) => resolve.call1(&JsValue::UNDEFINED, &value),
                Err(error) => reject.call1(&JsValue::UNDEFINED, &error),
            };
        }));
    })
}
