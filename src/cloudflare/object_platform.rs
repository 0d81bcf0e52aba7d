//! A user object on Workers: its state in memory and in the storage of a Durable Object, and its alarm.

use std::cell::{Cell, RefCell};
use std::future::ready;
use std::num::NonZeroU32;

use futures_util::future::LocalBoxFuture;
use uuid::Uuid;
use wasm_bindgen::prelude::*;
use worker::worker_sys::DurableObjectState as Context;

use super::metrics::write_point;
use super::object_storage::{load, store};
use crate::config::Platform;
use crate::points::Point;
use crate::ports::{Lease, Polled, StoreError};
use crate::user_state::{UserState, WriteSet};
use crate::web::clock::now_ms;
use crate::web::object_host::{ObjectHost, ObjectPlatform};
use crate::web::operations::Operation;
use crate::web::settings::{Settings, settings};
use crate::web::tasks::spawn;

#[wasm_bindgen(module = "/src/cloudflare/operations.js")]
extern "C" {
    fn begin_span(tracing: &JsValue, name: &str) -> u32;
    fn end_span(number: u32);
    fn set_alarm(id: u32, storage: &JsValue, after_ms: u32);
    fn delete_all(id: u32, storage: &JsValue);
}

pub(super) struct DurableObjectState {
    /// The `DurableObjectStorage`.
    storage: JsValue,
    environment: JsValue,
    /// `tracing` of `cloudflare:workers`.
    tracing: JsValue,
    settings: Settings,
    /// INVARIANT: `None`, or the state that is stored: dropped as soon as a write fails.
    memory: RefCell<Option<UserState>>,
    /// Whether this object has created its tables.
    has_tables: Cell<bool>,
}

impl DurableObjectState {
    pub(super) fn new(context: &Context, environment: JsValue, tracing: JsValue) -> Self {
        // Without a storage, no write succeeds.
        let storage = context.storage().map_or(JsValue::UNDEFINED, JsValue::from);
        Self {
            storage,
            settings: settings(Platform::Cloudflare, &environment),
            environment,
            tracing,
            memory: RefCell::default(),
            has_tables: Cell::default(),
        }
    }

    fn load(&self, memory: Option<UserState>) -> Result<UserState, StoreError> {
        match memory {
            Some(state) => Ok(state),
            None => load(&self.storage).map_err(|()| StoreError),
        }
    }

    fn transact(&self, decide: &mut dyn FnMut(&mut UserState) -> WriteSet) -> Result<(), StoreError> {
        let mut memory = self.memory.borrow_mut();
        let mut state = self.load(memory.take())?;
        let writes = decide(&mut state);
        if !writes.is_empty() && store(&self.storage, &state, &writes, &self.has_tables).is_err() {
            self.has_tables.set(false);
            return Err(StoreError);
        }
        *memory = Some(state);
        Ok(())
    }

    fn peek(&self, look: &mut dyn FnMut(&UserState)) -> Result<(), StoreError> {
        let mut memory = self.memory.borrow_mut();
        let state = self.load(memory.take())?;
        look(&state);
        *memory = Some(state);
        Ok(())
    }
}

/// Runs an operation of the storage.
async fn succeeded(start: impl FnOnce(u32)) -> Result<(), StoreError> {
    if Operation::other(start).await.status == 0 { Err(StoreError) } else { Ok(()) }
}

/// The object is the only one that changes its state, and its storage is synchronous: a decision runs once, and completes at once.
/// The output gate delays everything that is sent after a write until the write is stored
/// (<https://developers.cloudflare.com/durable-objects/reference/in-memory-state/>).
impl ObjectPlatform for DurableObjectState {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn now_ms(&self) -> u64 {
        now_ms()
    }

    fn spawn(&self, task: LocalBoxFuture<'static, ()>) {
        spawn(task);
    }

    fn measure(&self, point: &Point<'_>) {
        write_point(&self.environment, point);
    }

    fn begin_span(&self, name: &'static str) -> Option<NonZeroU32> {
        NonZeroU32::new(begin_span(&self.tracing, name))
    }

    fn end_span(&self, number: NonZeroU32) {
        end_span(number.get());
    }

    fn transact<'a>(
        &'a self,
        _: &'a ObjectHost,
        decide: &'a mut dyn FnMut(&mut UserState) -> WriteSet,
    ) -> LocalBoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async { self.transact(decide) })
    }

    fn peek<'a>(
        &'a self,
        _: &'a ObjectHost,
        look: &'a mut dyn FnMut(&UserState),
    ) -> LocalBoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async { self.peek(look) })
    }

    fn set_alarm(&self, at_ms: u64) -> LocalBoxFuture<'_, Result<(), StoreError>> {
        let after_ms = u32::try_from(at_ms.saturating_sub(now_ms())).unwrap_or(u32::MAX);
        Box::pin(succeeded(move |id| set_alarm(id, &self.storage, after_ms)))
    }

    fn delete(&self) -> LocalBoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async {
            self.memory.take();
            self.has_tables.set(false);
            succeeded(|id| delete_all(id, &self.storage)).await
        })
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn renew<'a>(&'a self, _: &'a ObjectHost, _: Uuid) -> LocalBoxFuture<'a, Result<Lease, StoreError>> {
        Box::pin(ready(Err(StoreError)))
    }

    fn poll<'a>(
        &'a self,
        _: &'a ObjectHost,
        _: Uuid,
        _: usize,
    ) -> LocalBoxFuture<'a, Result<Option<Polled>, StoreError>> {
        Box::pin(ready(Err(StoreError)))
    }

    fn request_stop<'a>(
        &'a self,
        _: &'a ObjectHost,
        _: Uuid,
        _: u64,
    ) -> LocalBoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(ready(Err(StoreError)))
    }
}
