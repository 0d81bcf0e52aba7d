//! A user object: its tasks, its alarm, and its state in Postgres, which other isolates share.

use std::cell::{Cell, RefCell};
use std::future::ready;
use std::num::NonZeroU32;
use std::rc::Rc;

use futures_util::future::{AbortHandle, LocalBoxFuture, abortable};
use uuid::Uuid;

use super::isolate::{isolate, now_ms};
use super::{background, objects};
use crate::config::{Config, LogLevel};
use crate::points::Point;
use crate::ports::{Lease, Log, Polled, StoreError, UserStore};
use crate::supabase::user_store::UserStateStore;
use crate::user_state::{UserState, WriteSet};
use crate::web::object_host::{ObjectHost, ObjectPlatform};
use crate::web::settings::Settings;
use crate::web::timer::sleep;

/// A later alarm is not set, because a waiting timer keeps the isolate: the owner's next request runs the due jobs.
const ALARM_WAIT_MS_MAX: u64 = 60_000;
/// A failed alarm is set again after this time.
const ALARM_AGAIN_MS: u64 = 30_000;

pub(super) struct IsolateObject {
    user_id: Uuid,
    settings: Settings,
    store: UserStateStore,
    /// The commands and tasks in progress.
    in_progress: Rc<Cell<usize>>,
    /// The timer of the alarm.
    alarm: RefCell<Option<AbortHandle>>,
}

/// A command or a task in progress.
pub(super) struct Busy(Rc<Cell<usize>>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl IsolateObject {
    pub(super) fn new(user_id: Uuid, settings: &Settings, config: &Rc<Config>) -> Self {
        Self {
            user_id,
            settings: Rc::clone(settings),
            store: UserStateStore::new(Rc::clone(config), isolate(), user_id),
            in_progress: Rc::default(),
            alarm: RefCell::default(),
        }
    }

    /// Marks the object as busy, for as long as the value exists.
    pub(super) fn busy(&self) -> Busy {
        self.in_progress.set(self.in_progress.get().saturating_add(1));
        Busy(Rc::clone(&self.in_progress))
    }

    pub(super) fn is_busy(&self) -> bool {
        self.in_progress.get() > 0
    }
}

/// Runs the due jobs of a user, unless the object was removed.
pub(super) async fn run_alarm(user_id: Uuid) {
    let Some(object) = objects::find(user_id) else { return };
    if object.run_alarm().await.is_err() {
        let host = object.host();
        host.log(LogLevel::Error, r#"{"level":"error","message":"alarm failed"}"#);
        // Setting a timer does not fail.
        let _ = host.set_alarm(now_ms().saturating_add(ALARM_AGAIN_MS)).await;
    }
}

impl ObjectPlatform for IsolateObject {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn now_ms(&self) -> u64 {
        now_ms()
    }

    fn spawn(&self, task: LocalBoxFuture<'static, ()>) {
        let busy = self.busy();
        background::spawn(Box::pin(async move {
            task.await;
            drop(busy);
        }));
    }

    /// No dataset exists here.
    fn measure(&self, _: &Point<'_>) {}

    /// The platform has no traces.
    fn begin_span(&self, _: &'static str) -> Option<NonZeroU32> {
        None
    }

    fn end_span(&self, _: NonZeroU32) {}

    fn transact<'a>(
        &'a self,
        host: &'a ObjectHost,
        decide: &'a mut dyn FnMut(&mut UserState) -> WriteSet,
    ) -> LocalBoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.store.transact(host, decide))
    }

    fn peek<'a>(
        &'a self,
        host: &'a ObjectHost,
        look: &'a mut dyn FnMut(&UserState),
    ) -> LocalBoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.store.peek(host, look))
    }

    fn set_alarm(&self, at_ms: u64) -> LocalBoxFuture<'_, Result<(), StoreError>> {
        let wait_ms = at_ms.saturating_sub(now_ms());
        if wait_ms <= ALARM_WAIT_MS_MAX {
            let (waiting, handle) = abortable(sleep(wait_ms));
            if let Some(before) = self.alarm.replace(Some(handle)) {
                before.abort();
            }
            let user_id = self.user_id;
            background::spawn(Box::pin(async move {
                if waiting.await.is_ok() {
                    run_alarm(user_id).await;
                }
            }));
        }
        Box::pin(ready(Ok(())))
    }

    fn delete(&self) -> LocalBoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async {
            self.store.delete();
            Ok(())
        })
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn renew<'a>(&'a self, host: &'a ObjectHost, id: Uuid) -> LocalBoxFuture<'a, Result<Lease, StoreError>> {
        Box::pin(self.store.renew(host, id))
    }

    fn poll<'a>(
        &'a self,
        host: &'a ObjectHost,
        id: Uuid,
        from: usize,
    ) -> LocalBoxFuture<'a, Result<Option<Polled>, StoreError>> {
        Box::pin(self.store.poll(host, id, from))
    }

    fn request_stop<'a>(
        &'a self,
        host: &'a ObjectHost,
        id: Uuid,
        started_ms: u64,
    ) -> LocalBoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(self.store.request_stop(host, id, started_ms))
    }
}
