//! The host of a user object, on any platform.

use std::num::NonZeroU32;
use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use uuid::Uuid;
use wasm_bindgen::JsValue;
use web_sys::ReadableStream;

use super::pipe::pipe;
use super::settings::Settings;
use super::{WebHost, crypto};
use crate::edge::events::write_events;
use crate::http::problem::ProblemContext;
use crate::points::Point;
use crate::ports::{Cipher, Clock, Lease, Metrics, Polled, Spawn, StoreError, Trace, UserStore};
use crate::user_object::subscription::Subscription;
use crate::user_state::{UserState, WriteSet};

/// Everything about a user object in which platforms differ: its tasks, and its store with the functions of [`UserStore`]. `host`:
/// the object's own, for stores that send requests.
pub(crate) trait ObjectPlatform {
    /// The settings of the deployment.
    fn settings(&self) -> &Settings;
    /// The time by the clock of the store, in milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;
    /// Runs a task to its end.
    fn spawn(&self, task: LocalBoxFuture<'static, ()>);
    /// [`Metrics::measure`].
    fn measure(&self, point: &Point<'_>);
    /// [`Trace::begin_span`].
    fn begin_span(&self, name: &'static str) -> Option<NonZeroU32>;
    /// [`Trace::end_span`].
    fn end_span(&self, number: NonZeroU32);
    /// [`UserStore::transact`].
    fn transact<'a>(
        &'a self,
        host: &'a ObjectHost,
        decide: &'a mut dyn FnMut(&mut UserState) -> WriteSet,
    ) -> LocalBoxFuture<'a, Result<(), StoreError>>;
    /// [`UserStore::peek`].
    fn peek<'a>(
        &'a self,
        host: &'a ObjectHost,
        look: &'a mut dyn FnMut(&UserState),
    ) -> LocalBoxFuture<'a, Result<(), StoreError>>;
    /// [`UserStore::set_alarm`].
    fn set_alarm(&self, at_ms: u64) -> LocalBoxFuture<'_, Result<(), StoreError>>;
    /// [`UserStore::delete`].
    fn delete(&self) -> LocalBoxFuture<'_, Result<(), StoreError>>;
    /// [`UserStore::is_shared`].
    fn is_shared(&self) -> bool;
    /// [`UserStore::renew`].
    fn renew<'a>(&'a self, host: &'a ObjectHost, id: Uuid) -> LocalBoxFuture<'a, Result<Lease, StoreError>>;
    /// [`UserStore::poll`].
    fn poll<'a>(
        &'a self,
        host: &'a ObjectHost,
        id: Uuid,
        from: usize,
    ) -> LocalBoxFuture<'a, Result<Option<Polled>, StoreError>>;
    /// [`UserStore::request_stop`].
    fn request_stop<'a>(
        &'a self,
        host: &'a ObjectHost,
        id: Uuid,
        started_ms: u64,
    ) -> LocalBoxFuture<'a, Result<bool, StoreError>>;
}

/// A clone is the same host.
#[derive(Clone)]
pub(crate) struct ObjectHost(Rc<dyn ObjectPlatform>);

impl ObjectHost {
    pub(crate) fn new(platform: Rc<impl ObjectPlatform + 'static>) -> Self {
        Self(platform)
    }

    /// Makes a body of the events of a subscription, which are written in a task that continues after the head of the response.
    ///
    /// # Errors
    /// An exception of the platform.
    pub(crate) fn stream(
        &self,
        subscription: Subscription,
        context: ProblemContext,
    ) -> Result<ReadableStream, JsValue> {
        let (sink, body) = pipe()?;
        let host = self.clone();
        self.spawn(async move {
            // The client has left.
            let _ = write_events(&host, &subscription, &context, sink).await;
        });
        Ok(body)
    }
}

impl WebHost for ObjectHost {
    fn settings(&self) -> &Settings {
        self.0.settings()
    }
}

impl Clock for ObjectHost {
    fn now_ms(&self) -> u64 {
        self.0.now_ms()
    }
}

impl Spawn for ObjectHost {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.0.spawn(Box::pin(task));
    }
}

impl Metrics for ObjectHost {
    fn measure(&self, point: &Point<'_>) {
        self.0.measure(point);
    }
}

impl Trace for ObjectHost {
    fn begin_span(&self, name: &'static str) -> Option<NonZeroU32> {
        self.0.begin_span(name)
    }

    fn end_span(&self, number: NonZeroU32) {
        self.0.end_span(number);
    }
}

impl Cipher for ObjectHost {
    async fn seal(&self, key: &[u8; 32], nonce: &[u8], message: &[u8]) -> Option<Vec<u8>> {
        crypto::aes_gcm("encrypt", key, nonce, message).await
    }

    async fn open(&self, key: &[u8; 32], nonce: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        crypto::aes_gcm("decrypt", key, nonce, sealed).await
    }
}

impl UserStore for ObjectHost {
    async fn transact(&self, decide: &mut dyn FnMut(&mut UserState) -> WriteSet) -> Result<(), StoreError> {
        self.0.transact(self, decide).await
    }

    async fn peek(&self, look: &mut dyn FnMut(&UserState)) -> Result<(), StoreError> {
        self.0.peek(self, look).await
    }

    async fn set_alarm(&self, at_ms: u64) -> Result<(), StoreError> {
        self.0.set_alarm(at_ms).await
    }

    async fn delete(&self) -> Result<(), StoreError> {
        self.0.delete().await
    }

    fn is_shared(&self) -> bool {
        self.0.is_shared()
    }

    async fn renew(&self, id: Uuid) -> Result<Lease, StoreError> {
        self.0.renew(self, id).await
    }

    async fn poll(&self, id: Uuid, from: usize) -> Result<Option<Polled>, StoreError> {
        self.0.poll(self, id, from).await
    }

    async fn request_stop(&self, id: Uuid, started_ms: u64) -> Result<bool, StoreError> {
        self.0.request_stop(self, id, started_ms).await
    }
}
