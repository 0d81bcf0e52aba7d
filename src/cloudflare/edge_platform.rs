//! A request from a client on Workers: its user object in a Durable Object, the Cache API, Analytics Engine.

use futures_util::future::LocalBoxFuture;
use js_sys::{Array, Function, Object, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{Cache, RequestInit};
use worker::{Context, Env};

use crate::config::Platform;
use crate::edge::execute::{Received, UserObjectError};
use crate::edge::wire::{read_reply, write_command};
use crate::http::problem::ProblemContext;
use crate::ports::Point;
use crate::user_object::command::Command;
use crate::web::clock::now_ms;
use crate::web::edge_host::{EdgePlatform, Execution, bytes_of};
use crate::web::response::{OutgoingBody, response};
use crate::web::settings::{Settings, settings};

/// The header of an object's reply. One header: each is a crossing on either side.
pub(super) const REPLY_HEADER: &str = "x-reply";

pub(super) struct WorkerRequest {
    env: Env,
    context: Context,
    settings: Settings,
}

impl WorkerRequest {
    pub(super) fn new(env: Env, context: Context) -> Self {
        let settings = settings(Platform::Cloudflare, &env);
        Self { env, context, settings }
    }

    async fn send(&self, command: &Command, context: &ProblemContext) -> worker::Result<web_sys::Response> {
        let stub = self.env.durable_object("USER_SESSIONS")?.get_by_name(&command.user_id.to_string())?;
        let init = RequestInit::new();
        init.set_method("POST");
        // As bytes: a string would be converted to UTF-16 and back, on both sides.
        init.set_body(&Uint8Array::from(write_command(command, context).as_slice()));
        let request = web_sys::Request::new_with_str_and_init("https://user-object/", &init)?;
        Ok(stub.fetch_with_request(request.into()).await?.into())
    }

    async fn execute(&self, command: &Command, context: &ProblemContext) -> Execution {
        let response = self.send(command, context).await.map_err(|error| {
            let is_overloaded = Reflect::get(&JsValue::from(error), &"overloaded".into());
            let is_overloaded = is_overloaded.is_ok_and(|overloaded| overloaded.is_truthy());
            if is_overloaded { UserObjectError::Overloaded } else { UserObjectError::Unreachable }
        })?;
        // Each reply of the object has the header; without it the platform has responded.
        let reply = response.headers().get(REPLY_HEADER).ok().flatten();
        let executed = reply.and_then(|reply| read_reply(&reply)).ok_or(UserObjectError::Unreachable)?;
        Ok(Received { executed, body: OutgoingBody::Stream(response.body()) })
    }

    fn try_measure(&self, point: &Point<'_>) -> Result<(), JsValue> {
        let dataset = Reflect::get(&self.env, &"METRICS".into())?;
        if !dataset.is_object() {
            return Ok(());
        }
        let [route, ..] = point.texts;
        let columns = Object::new();
        Reflect::set(&columns, &"indexes".into(), &Array::of1(&route.into()))?;
        Reflect::set(
            &columns,
            &"blobs".into(),
            &point.texts.iter().map(|text| JsValue::from(*text)).collect::<Array>(),
        )?;
        let figures = point.figures.iter().map(|figure| JsValue::from(*figure)).collect::<Array>();
        Reflect::set(&columns, &"doubles".into(), &figures)?;
        let write: Function = Reflect::get(&dataset, &"writeDataPoint".into())?.dyn_into()?;
        write.call1(&dataset, &columns)?;
        Ok(())
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
        self.context.wait_until(task);
    }

    fn execute<'a>(
        &'a self,
        command: &'a Command,
        context: &'a ProblemContext,
    ) -> LocalBoxFuture<'a, Execution> {
        Box::pin(self.execute(command, context))
    }

    fn cached<'a>(&'a self, url: &'a str) -> LocalBoxFuture<'a, Option<Vec<u8>>> {
        Box::pin(async move { bytes_of(default_cache()?.match_with_str(url)).await.map(|(_, bytes)| bytes) })
    }

    fn cache<'a>(&'a self, url: &'a str, document: &'a [u8], max_age_s: u64) -> LocalBoxFuture<'a, ()> {
        Box::pin(async move {
            let Some(cache) = default_cache() else { return };
            let headers = [("cache-control", ["public, max-age=", &max_age_s.to_string()].concat())];
            let Ok(kept) = response(200, &headers, OutgoingBody::Bytes(document.to_vec())) else { return };
            // A failed write to the cache costs another fetch.
            let _ = JsFuture::from(cache.put_with_str(url, &kept)).await;
        })
    }

    /// Writes to the optional binding `METRICS`, an Analytics Engine dataset.
    fn measure(&self, point: &Point<'_>) {
        // A missing binding or a refused point does not fail the request.
        let _ = self.try_measure(point);
    }
}
