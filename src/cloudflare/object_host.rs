//! The host inside a user's object: its desk in memory and in storage, and the generations that it runs.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use uuid::Uuid;
use wasm_bindgen_futures::spawn_local;
use worker::{Env, State};

use super::object_storage::{load, store};
use super::platform::{OnWorkers, Settings, settings};
use crate::edge::generate;
use crate::ports::{Clock, DeskHost, Follower, News, StorageFailed};
use crate::user_state::record::Finished;
use crate::user_state::{UserState, WriteSet};

/// Cheap to clone: every generation has one of its own.
#[derive(Clone)]
pub(super) struct ObjectHost(Rc<Inner>);

struct Inner {
    state: State,
    settings: Settings,
    /// INVARIANT: `None`, or what the storage holds: dropped as soon as storing fails.
    desk: RefCell<Option<UserState>>,
    /// Whether this object has made sure of its tables.
    has_tables: Cell<bool>,
    /// A handful at most: `concurrent` ones, and old endings that are being written.
    running: RefCell<Vec<(Uuid, Rc<Watch>)>>,
    /// When the alarm is known to be set.
    alarm_ms: Cell<Option<u64>>,
}

/// Where the readers of a generation wait, and whoever runs it for a stop. All events of one object share one context,
/// so one may wake another.
#[derive(Default)]
struct Watch {
    ended: Cell<bool>,
    settled: RefCell<Option<Rc<Finished>>>,
    to_stop: Cell<bool>,
    /// How many streams follow it now.
    followers: Cell<usize>,
    wakers: RefCell<Vec<Waker>>,
    /// How many times all were woken: says whether a waker of before is still registered.
    wakes: Cell<u64>,
}

impl Watch {
    fn wake_all(&self) {
        self.wakes.set(self.wakes.get().wrapping_add(1));
        for waker in self.wakers.take() {
            waker.wake();
        }
    }

    /// Waits until `look` gives something; it is asked again whenever something has changed.
    async fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        let mut registered: Option<(u64, Waker)> = None;
        poll_fn(|context| {
            if let Some(found) = look() {
                return Poll::Ready(found);
            }
            // A task that is woken by something else looks too, and must not be registered each time.
            let (wakes, waker) = (self.wakes.get(), context.waker());
            let is_registered = |(at, known): &(u64, Waker)| *at == wakes && known.will_wake(waker);
            if !registered.as_ref().is_some_and(is_registered) {
                self.wakers.borrow_mut().push(waker.clone());
                registered = Some((wakes, waker.clone()));
            }
            Poll::Pending
        })
        .await
    }
}

/// A follower of a generation; counted as long as it lives.
pub(super) struct Following {
    host: ObjectHost,
    id: Uuid,
    watch: Rc<Watch>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.watch.followers.set(self.watch.followers.get().saturating_sub(1));
    }
}

impl Follower for Following {
    async fn news(&self, heard: usize) -> News {
        let look = || {
            if self.watch.ended.get() {
                return Some(self.watch.settled.borrow().clone().map_or(News::Lost, News::Finished));
            }
            let new = self.host.with_desk(|desk| {
                let cards = desk.find(self.id).and_then(|generation| generation.candidates.get(heard..));
                (cards.unwrap_or_default().to_vec(), WriteSet::default())
            });
            match new {
                Ok(cards) if cards.is_empty() => None,
                Ok(cards) => Some(News::Cards(cards)),
                Err(StorageFailed) => Some(News::Lost),
            }
        };
        self.watch.until(look).await
    }
}

impl ObjectHost {
    pub(super) fn new(state: State, env: &Env) -> Self {
        Self(Rc::new(Inner {
            state,
            settings: settings(env),
            desk: RefCell::default(),
            has_tables: Cell::default(),
            running: RefCell::default(),
            alarm_ms: Cell::default(),
        }))
    }

    /// The alarm has gone off: whatever is needed next has to be set again.
    pub(super) fn alarm_is_over(&self) {
        self.0.alarm_ms.set(None);
    }

    /// Sets the alarm for a minute from now, whatever else is wrong.
    pub(super) async fn wake_again(&self) -> worker::Result<()> {
        self.0.state.storage().set_alarm(Duration::from_secs(60)).await
    }

    /// Deletes the storage of an object that has nothing to remember.
    pub(super) async fn delete_if_empty(&self) -> worker::Result<()> {
        let is_empty = self.0.desk.borrow().as_ref().is_some_and(UserState::is_empty);
        if is_empty && self.0.running.borrow().is_empty() {
            self.0.desk.take();
            self.0.has_tables.set(false);
            self.0.state.storage().delete_all().await?;
        }
        Ok(())
    }

    fn watch(&self, id: Uuid) -> Option<Rc<Watch>> {
        self.0.running.borrow().iter().find(|(running, _)| *running == id).map(|(_, watch)| Rc::clone(watch))
    }

    /// Gives the user's state from memory, or else loads it from the storage. Not in [`DeskHost::with_desk`], which is compiled
    /// once for each of its callers.
    fn loaded(&self, memory: Option<UserState>) -> Result<UserState, StorageFailed> {
        match memory {
            Some(desk) => Ok(desk),
            None => load(&self.0.state.storage().sql()).map_err(|()| StorageFailed),
        }
    }

    /// Stores what a decision has changed, and sets the alarm for what is next.
    fn store(&self, desk: &UserState, effects: &WriteSet) -> Result<(), StorageFailed> {
        let has_changed = *effects != WriteSet::default();
        if has_changed && store(&self.0.state, desk, effects, &self.0.has_tables).is_err() {
            self.0.has_tables.set(false);
            return Err(StorageFailed);
        }
        // Also where nothing changed, when no alarm is set: the last one may have found everything running, or not yet
        // idle, and the next job needs an alarm of its own.
        if has_changed || self.is_alarm_set(self.now_ms()).is_none() {
            self.set_alarm(desk);
        }
        Ok(())
    }

    fn set_alarm(&self, desk: &UserState) {
        let now_ms = self.now_ms();
        let Some(wanted_ms) = desk.alarm_ms(|id| self.is_busy(id), now_ms) else { return };
        if self.is_alarm_set(now_ms).is_some_and(|set_ms| set_ms <= wanted_ms) {
            return;
        }
        self.0.alarm_ms.set(Some(wanted_ms));
        let host = self.clone();
        spawn_local(async move {
            let after = Duration::from_millis(wanted_ms.saturating_sub(now_ms));
            if host.0.state.storage().set_alarm(after).await.is_err() {
                // The storage still has the alarm before; the next decision sets it again.
                host.alarm_is_over();
            }
        });
    }

    /// When the alarm goes off that was set. One whose time has passed is as good as none: it has gone off, or is lost.
    fn is_alarm_set(&self, now_ms: u64) -> Option<u64> {
        self.0.alarm_ms.get().filter(|set_ms| *set_ms > now_ms)
    }

    /// Sets the alarm for what is next, after the end of something that was running.
    fn set_next_alarm(&self) {
        // A storage that fails has the alarm before: the heartbeat of what was running.
        let _ = self.with_desk(|desk| {
            self.set_alarm(desk);
            ((), WriteSet::default())
        });
    }
}

impl OnWorkers for ObjectHost {
    fn settings(&self) -> &Settings {
        &self.0.settings
    }
}

impl DeskHost for ObjectHost {
    fn with_desk<T>(&self, decide: impl FnOnce(&mut UserState) -> (T, WriteSet)) -> Result<T, StorageFailed> {
        let mut memory = self.0.desk.borrow_mut();
        let mut desk = self.loaded(memory.take())?;
        let (decided, effects) = decide(&mut desk);
        // What is not stored is not kept in memory either.
        self.store(&desk, &effects)?;
        *memory = Some(desk);
        if let Some(watch) = effects.candidates.and_then(|(id, _)| self.watch(id)) {
            watch.wake_all();
        }
        Ok(decided)
    }

    fn is_busy(&self, id: Uuid) -> bool {
        self.watch(id).is_some()
    }

    fn start(&self, id: Uuid) {
        let watch = Rc::new(Watch::default());
        self.0.running.borrow_mut().push((id, Rc::clone(&watch)));
        let host = self.clone();
        spawn_local(async move {
            let settled = match host.settings().as_ref() {
                Ok(config) => generate::run(&host, config, id).await.ok().flatten(),
                Err(_) => None,
            };
            host.0.running.borrow_mut().retain(|(running, _)| *running != id);
            // What is not written yet has its own time now, which may be sooner than the heartbeat.
            host.set_next_alarm();
            *watch.settled.borrow_mut() = settled.map(Rc::new);
            watch.ended.set(true);
            watch.wake_all();
        });
    }

    async fn settled(&self, id: Uuid) -> Option<Rc<Finished>> {
        let watch = self.watch(id)?;
        watch.until(|| watch.ended.get().then_some(())).await;
        watch.settled.borrow().clone()
    }

    type Follower = Following;

    fn follow(&self, id: Uuid) -> Option<Following> {
        let watch = self.watch(id)?;
        watch.followers.set(watch.followers.get().saturating_add(1));
        Some(Following { host: self.clone(), id, watch })
    }

    fn subscribers(&self, id: Option<Uuid>) -> usize {
        let running = self.0.running.borrow();
        let of_these = running.iter().filter(|(running, _)| id.is_none_or(|id| id == *running));
        of_these.map(|(_, watch)| watch.followers.get()).fold(0, usize::saturating_add)
    }

    fn is_followed(&self, id: Uuid) -> bool {
        self.watch(id).is_some_and(|watch| watch.followers.get() > 0)
    }

    fn stop(&self, id: Uuid) {
        if let Some(watch) = self.watch(id) {
            watch.to_stop.set(true);
            watch.wake_all();
        }
    }

    async fn stopped(&self, id: Uuid) {
        match self.watch(id) {
            Some(watch) => watch.until(|| watch.to_stop.get().then_some(())).await,
            None => pending().await,
        }
    }
}
