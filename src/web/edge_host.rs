//! The host at the edge: the ports of a request from a client, on any platform.

use std::cell::RefCell;
use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use js_sys::{Function, Reflect};
use uuid::Uuid;
use wasm_bindgen::prelude::*;

use super::messages::InboundRequest;
use super::operations::{Operation, OutgoingBody, respond_to};
use super::settings::Settings;
use super::{WebHost, crypto};
use crate::edge::execute::{Received, UserObjectError, UserObjects};
use crate::edge::handle::handle;
use crate::edge::render::Outgoing;
use crate::http::problem::ProblemContext;
use crate::points::Point;
use crate::ports::{
    Assets, Background, Clock, IsolateMemory, Memory, Metrics, SharedCache, VerifyKey, VerifySignature,
};
use crate::user_object::command::Command;

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

/// The reply of a user object, or the reason why there is none.
pub(crate) type Execution = Result<Received<OutgoingBody>, UserObjectError>;

/// Everything at the edge in which platforms differ.
pub(crate) trait EdgePlatform {
    /// The object with the variables and bindings of the deployment.
    fn environment(&self) -> &JsValue;
    /// The settings of the deployment.
    fn settings(&self) -> &Settings;
    /// The time by the clock of the user objects, in milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;
    /// Runs a task to its end, whatever happens to the request.
    fn after_response(&self, task: LocalBoxFuture<'static, ()>);
    /// [`UserObjects::execute`].
    fn execute<'a>(
        &'a self,
        command: &'a Command,
        context: &'a ProblemContext,
    ) -> LocalBoxFuture<'a, Execution>;
    /// [`UserObjects::wake_up`]; for a platform whose user objects have no alarm that outlives them.
    fn wake_up(&self, _: Uuid) {}
    /// [`SharedCache::get`].
    fn cached<'a>(&'a self, url: &'a str) -> LocalBoxFuture<'a, Option<Vec<u8>>>;
    /// [`SharedCache::put`].
    fn cache<'a>(&'a self, url: &'a str, document: &'a [u8], max_age_s: u64) -> LocalBoxFuture<'a, ()>;
    /// [`Metrics::measure`].
    fn measure(&self, point: &Point<'_>);
}

/// Cheap to clone: each task that continues after the response has a clone.
#[derive(Clone)]
pub(crate) struct EdgeHost(Rc<dyn EdgePlatform>);

impl EdgeHost {
    pub(crate) fn new(platform: impl EdgePlatform + 'static) -> Self {
        Self(Rc::new(platform))
    }

    /// Handles a request.
    pub(crate) async fn handle(&self, request: InboundRequest) -> Outgoing<OutgoingBody> {
        handle(self, self.settings(), request).await
    }
}

/// Resolves the call of JavaScript with the response.
pub(crate) fn respond(resolve: &Function, outgoing: Outgoing<OutgoingBody>) {
    let (head, body) = match outgoing {
        Outgoing::Complete(mut complete) => {
            let body = std::mem::take(&mut complete.body);
            (complete, OutgoingBody::Bytes(body))
        }
        Outgoing::Forwarded(head, body) => (head, body),
    };
    respond_to(resolve, head.status, &head.headers, &body);
}

impl WebHost for EdgeHost {
    fn settings(&self) -> &Settings {
        self.0.settings()
    }
}

impl Clock for EdgeHost {
    fn now_ms(&self) -> u64 {
        self.0.now_ms()
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
        self.0.after_response(Box::pin(task));
    }
}

/// The status and the body of a response; `None` when there is none.
pub(crate) async fn bytes_of(response: &js_sys::Promise) -> Option<(u16, Vec<u8>)> {
    let end = Operation::receive_response(response).await;
    (end.status != 0).then_some((end.status, end.bytes))
}

#[wasm_bindgen]
extern "C" {
    /// A binding with a `fetch` method.
    type Fetcher;

    #[wasm_bindgen(method, catch)]
    fn fetch(this: &Fetcher, url: &str) -> Result<js_sys::Promise, JsValue>;
}

impl SharedCache for EdgeHost {
    async fn get(&self, url: &str) -> Option<Vec<u8>> {
        self.0.cached(url).await
    }

    async fn put(&self, url: &str, document: &[u8], max_age_s: u64) {
        self.0.cache(url, document, max_age_s).await;
    }
}

/// The binding `ASSETS`, which ignores the host in the URL.
impl Assets for EdgeHost {
    async fn asset(&self, name: &str) -> Option<Vec<u8>> {
        let binding: Fetcher = Reflect::get(self.0.environment(), &"ASSETS".into()).ok()?.unchecked_into();
        let found = binding.fetch(&["https://assets.local/", name].concat()).ok()?;
        bytes_of(&found).await.filter(|(status, _)| *status == 200).map(|(_, bytes)| bytes)
    }
}

impl Metrics for EdgeHost {
    fn measure(&self, point: &Point<'_>) {
        self.0.measure(point);
    }
}

impl UserObjects for EdgeHost {
    type Body = OutgoingBody;

    async fn execute(&self, command: &Command, context: &ProblemContext) -> Execution {
        self.0.execute(command, context).await
    }

    fn wake_up(&self, user_id: Uuid) {
        self.0.wake_up(user_id);
    }
}
