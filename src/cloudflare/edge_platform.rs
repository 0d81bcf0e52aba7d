//! A request from a client on Workers: its user object in a Durable Object, the Cache API, Analytics Engine.

use futures_util::future::LocalBoxFuture;
use js_sys::{Promise, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;
use web_sys::{Cache, Headers, Response, ResponseInit};

use super::metrics::write_point;
use crate::config::Platform;
use crate::edge::execute::{Received, UserObjectError};
use crate::edge::wire::{read_reply, write_command};
use crate::http::problem::ProblemContext;
use crate::points::Point;
use crate::user_object::command::Command;
use crate::web::clock::now_ms;
use crate::web::edge_host::{EdgePlatform, Execution, bytes_of};
use crate::web::operations::{Operation, OutgoingBody, value_of};
use crate::web::promise_of;
use crate::web::settings::{Settings, settings};

#[wasm_bindgen(module = "/src/cloudflare/operations.js")]
extern "C" {
    fn execute(id: u32, environment: &JsValue, name: &str, command: &[u8]);
}

#[wasm_bindgen]
extern "C" {
    /// The context of a request.
    pub(super) type Context;

    #[wasm_bindgen(method, js_name = waitUntil)]
    fn wait_until(this: &Context, task: &Promise);
}

pub(super) struct WorkerRequest {
    env: JsValue,
    context: Context,
    settings: Settings,
}

impl WorkerRequest {
    pub(super) fn new(env: JsValue, context: Context) -> Self {
        let settings = settings(Platform::Cloudflare, &env);
        Self { env, context, settings }
    }

    async fn execute(&self, command: &Command, context: &ProblemContext) -> Execution {
        let message = write_command(command, context);
        let name = command.user_id.to_string();
        let end = Operation::other(|id| execute(id, &self.env, &name, &message)).await;
        let executed = match end.status {
            2 => return Err(UserObjectError::Overloaded),
            // Without a valid reply the platform has responded, or nothing.
            _ => read_reply(&end.text).ok_or(UserObjectError::Unreachable)?,
        };
        Ok(Received { executed, body: OutgoingBody::Forwarded(end.value) })
    }
}

/// `caches.default`, which `web-sys` does not declare.
fn default_cache() -> Option<Cache> {
    let caches = Reflect::get(&js_sys::global(), &"caches".into()).ok()?;
    Reflect::get(&caches, &"default".into()).ok()?.dyn_into().ok()
}

impl EdgePlatform for WorkerRequest {
    fn environment(&self) -> &JsValue {
        &self.env
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn now_ms(&self) -> u64 {
        now_ms()
    }

    fn after_response(&self, task: LocalBoxFuture<'static, ()>) {
        self.context.wait_until(&promise_of(Box::pin(async {
            task.await;
            Ok(JsValue::UNDEFINED)
        })));
    }

    fn execute<'a>(
        &'a self,
        command: &'a Command,
        context: &'a ProblemContext,
    ) -> LocalBoxFuture<'a, Execution> {
        Box::pin(self.execute(command, context))
    }

    fn cached<'a>(&'a self, url: &'a str) -> LocalBoxFuture<'a, Option<Vec<u8>>> {
        Box::pin(async move { bytes_of(&default_cache()?.match_with_str(url)).await.map(|(_, bytes)| bytes) })
    }

    fn cache<'a>(&'a self, url: &'a str, document: &'a [u8], max_age_s: u64) -> LocalBoxFuture<'a, ()> {
        Box::pin(async move {
            let Some(cache) = default_cache() else { return };
            let kept = || {
                let headers = Headers::new()?;
                headers.set("cache-control", &["public, max-age=", &max_age_s.to_string()].concat())?;
                let init = ResponseInit::new();
                init.set_headers(&headers);
                Response::new_with_opt_js_u8_array_and_init(Some(&Uint8Array::from(document)), &init)
            };
            let Ok(kept) = kept() else { return };
            // A failed write to the cache costs another fetch.
            let _ = value_of(&cache.put_with_str(url, &kept)).await;
        })
    }

    fn measure(&self, point: &Point<'_>) {
        write_point(&self.env, point);
    }
}
