//! The host of a user object: its state in memory and in the object's storage, its alarm and its tasks.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use uuid::Uuid;
use wasm_bindgen_futures::spawn_local;
use worker::{Env, State};

use super::object_storage::{load, store};
use super::platform::settings;
use crate::ports::{Clock, Lease, Polled, Spawn, StoreError, UserStore};
use crate::user_state::{UserState, WriteSet};
use crate::web::{Settings, WebHost};

/// A clone is the same host.
#[derive(Clone)]
pub(super) struct ObjectHost(Rc<Inner>);

struct Inner {
    state: State,
    settings: Settings,
    /// INVARIANT: `None`, or the state that is stored: dropped as soon as a write fails.
    memory: RefCell<Option<UserState>>,
    /// Whether this object has created its tables.
    has_tables: Cell<bool>,
}

impl ObjectHost {
    pub(super) fn new(state: State, env: &Env) -> Self {
        let (memory, has_tables) = (RefCell::default(), Cell::default());
        Self(Rc::new(Inner { state, settings: settings(env), memory, has_tables }))
    }

    fn load(&self, memory: Option<UserState>) -> Result<UserState, StoreError> {
        match memory {
            Some(state) => Ok(state),
            None => load(&self.0.state.storage().sql()).map_err(|()| StoreError),
        }
    }
}

impl WebHost for ObjectHost {
    fn settings(&self) -> &Settings {
        &self.0.settings
    }
}

impl Spawn for ObjectHost {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        spawn_local(task);
    }
}

/// The object is the only one that changes its state, and its storage is synchronous: a decision runs once, and completes at once.
/// The output gate delays everything that is sent after a write until the write is stored
/// (<https://developers.cloudflare.com/durable-objects/reference/in-memory-state/>).
impl UserStore for ObjectHost {
    async fn transact(&self, decide: &mut dyn FnMut(&mut UserState) -> WriteSet) -> Result<(), StoreError> {
        let mut memory = self.0.memory.borrow_mut();
        let mut state = self.load(memory.take())?;
        let writes = decide(&mut state);
        if !writes.is_empty() && store(&self.0.state, &state, &writes, &self.0.has_tables).is_err() {
            self.0.has_tables.set(false);
            return Err(StoreError);
        }
        *memory = Some(state);
        Ok(())
    }

    async fn peek(&self, look: &mut dyn FnMut(&UserState)) -> Result<(), StoreError> {
        let mut memory = self.0.memory.borrow_mut();
        let state = self.load(memory.take())?;
        look(&state);
        *memory = Some(state);
        Ok(())
    }

    async fn set_alarm(&self, at_ms: u64) -> Result<(), StoreError> {
        let after = Duration::from_millis(at_ms.saturating_sub(self.now_ms()));
        self.0.state.storage().set_alarm(after).await.map_err(|_| StoreError)
    }

    async fn delete(&self) -> Result<(), StoreError> {
        self.0.memory.take();
        self.0.has_tables.set(false);
        self.0.state.storage().delete_all().await.map_err(|_| StoreError)
    }

    fn is_shared(&self) -> bool {
        false
    }

    async fn renew(&self, _: Uuid) -> Result<Lease, StoreError> {
        Err(StoreError)
    }

    async fn poll(&self, _: Uuid, _: usize) -> Result<Option<Polled>, StoreError> {
        Err(StoreError)
    }

    async fn request_stop(&self, _: Uuid, _: u64) -> Result<bool, StoreError> {
        Err(StoreError)
    }
}
