//! The host at the edge: the ports of a request from a client.

use std::cell::RefCell;
use std::rc::Rc;

use js_sys::{Array, Function, Object, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{Cache, ReadableStream, RequestInit};
use worker::{Context, Env};

use super::platform::settings;
use crate::edge::execute::{Received, UserObjectError, UserObjects};
use crate::edge::wire::{read_reply, write_command};
use crate::http::problem::ProblemContext;
use crate::ports::{
    Assets, Background, IsolateMemory, Memory, Metrics, Point, SharedCache, VerifyKey, VerifySignature,
};
use crate::user_object::command::Command;
use crate::web::response::{OutgoingBody, response};
use crate::web::{Settings, WebHost, crypto};

/// The header of an object's reply. One header: each is a crossing on either side.
pub(super) const REPLY_HEADER: &str = "x-reply";

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

/// Cheap to clone: each task that continues after the response has a clone.
#[derive(Clone)]
pub(super) struct EdgeHost(Rc<Inner>);

struct Inner {
    env: Env,
    context: Context,
    settings: Settings,
}

impl EdgeHost {
    pub(super) fn new(env: Env, context: Context) -> Self {
        let settings = settings(&env);
        Self(Rc::new(Inner { env, context, settings }))
    }
}

impl WebHost for EdgeHost {
    fn settings(&self) -> &Settings {
        &self.0.settings
    }
}

impl VerifySignature for EdgeHost {
    async fn verify(&self, key: VerifyKey<'_>, message: &[u8], signature: &[u8]) -> bool {
        crypto::verify(key, message, signature).await
    }
}

impl IsolateMemory for EdgeHost {
    fn with_memory<T>(&self, look: impl FnOnce(&mut Memory) -> T) -> T {
        MEMORY.with_borrow_mut(look)
    }
}

impl Background for EdgeHost {
    fn after_response(&self, task: impl Future<Output = ()> + 'static) {
        self.0.context.wait_until(task);
    }
}

/// The status and the body of a response; `None` when there is none.
async fn bytes_of(response: js_sys::Promise) -> Option<(u16, Vec<u8>)> {
    let response: web_sys::Response = JsFuture::from(response).await.ok()?.dyn_into().ok()?;
    let bytes = JsFuture::from(response.array_buffer().ok()?).await.ok()?;
    Some((response.status(), Uint8Array::new(&bytes).to_vec()))
}

#[wasm_bindgen]
extern "C" {
    /// A binding with a `fetch` method.
    type Fetcher;

    #[wasm_bindgen(method, catch)]
    fn fetch(this: &Fetcher, url: &str) -> Result<js_sys::Promise, JsValue>;
}

/// `caches.default`, which `web-sys` does not declare.
fn default_cache() -> Option<Cache> {
    let caches = Reflect::get(&js_sys::global(), &"caches".into()).ok()?;
    Reflect::get(&caches, &"default".into()).ok()?.dyn_into().ok()
}

impl SharedCache for EdgeHost {
    async fn get(&self, url: &str) -> Option<Vec<u8>> {
        bytes_of(default_cache()?.match_with_str(url)).await.map(|(_, bytes)| bytes)
    }

    async fn put(&self, url: &str, document: &[u8], max_age_s: u64) {
        let Some(cache) = default_cache() else { return };
        let headers = [("cache-control", ["public, max-age=", &max_age_s.to_string()].concat())];
        let Ok(kept) = response(200, &headers, OutgoingBody::Bytes(document.to_vec())) else { return };
        // A failed write to the cache costs another fetch.
        let _ = JsFuture::from(cache.put_with_str(url, &kept)).await;
    }
}

/// The binding `ASSETS`, which ignores the host in the URL.
impl Assets for EdgeHost {
    async fn asset(&self, name: &str) -> Option<Vec<u8>> {
        let binding: Fetcher = Reflect::get(&self.0.env, &"ASSETS".into()).ok()?.unchecked_into();
        let found = binding.fetch(&["https://assets.local/", name].concat()).ok()?;
        bytes_of(found).await.filter(|(status, _)| *status == 200).map(|(_, bytes)| bytes)
    }
}

/// The optional binding `METRICS`, an Analytics Engine dataset.
impl Metrics for EdgeHost {
    fn measure(&self, point: &Point<'_>) {
        // A missing binding or a refused point does not fail the request.
        let _ = self.try_measure(point);
    }
}

impl UserObjects for EdgeHost {
    type Body = Option<ReadableStream>;

    async fn execute(
        &self,
        command: &Command,
        context: &ProblemContext,
    ) -> Result<Received<Self::Body>, UserObjectError> {
        let response = self.send(command, context).await.map_err(|error| {
            let is_overloaded = Reflect::get(&JsValue::from(error), &"overloaded".into());
            let is_overloaded = is_overloaded.is_ok_and(|overloaded| overloaded.is_truthy());
            if is_overloaded { UserObjectError::Overloaded } else { UserObjectError::Unreachable }
        })?;
        // Each reply of the object has the header; without it the platform has responded.
        let reply = response.headers().get(REPLY_HEADER).ok().flatten();
        let executed = reply.and_then(|reply| read_reply(&reply)).ok_or(UserObjectError::Unreachable)?;
        Ok(Received { executed, body: response.body() })
    }
}

impl EdgeHost {
    fn try_measure(&self, point: &Point<'_>) -> Result<(), JsValue> {
        let dataset = Reflect::get(&self.0.env, &"METRICS".into())?;
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

    async fn send(&self, command: &Command, context: &ProblemContext) -> worker::Result<web_sys::Response> {
        let stub = self.0.env.durable_object("USER_SESSIONS")?.get_by_name(&command.user_id.to_string())?;
        let init = RequestInit::new();
        init.set_method("POST");
        // As bytes: a string would be converted to UTF-16 and back, on both sides.
        init.set_body(&Uint8Array::from(write_command(command, context).as_slice()));
        let request = web_sys::Request::new_with_str_and_init("https://user-object/", &init)?;
        Ok(stub.fetch_with_request(request.into()).await?.into())
    }
}
