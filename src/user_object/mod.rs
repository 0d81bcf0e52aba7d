//! The user object: all work on behalf of one user, on any host. A [`Command`] in, a [`Reply`] out.
//!
//! ```text
//! command ──► decide (one transaction) ──► start runs ──► wait, or subscribe ──► reply
//! alarm   ──► due jobs ────────────────────────┘
//! ```
//! The object owns its runs: a request that leaves ends none of them. Each decision is one transaction, which the store may
//! run more than once, so a run is reserved in the decision and started after it.
//!
//! The futures that a first generation does not poll are boxed, here and in the modules below: the engine compiles a function
//! whole at its first call, and a future that is awaited in one place becomes a part of the function that awaits it.
//!
//! Not for: HTTP (`edge`), the storage (the hosts), the decisions themselves (`user_state`).

mod admit;
pub mod command;
mod decision;
mod follow;
pub mod generate;
mod points;
pub mod reply;
mod run;
pub mod session_view;
pub mod stored_session;
pub mod subscription;
mod turns;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use futures_util::FutureExt;
use uuid::Uuid;

use crate::auth::credentials::Credentials;
use crate::config::Config;
use crate::http::sse::EventId;
use crate::ports::{Clock, Fetch, Log, Metrics, Random, Spawn, StoreError, Timer, Trace, UserStore, within};
use crate::quota::{Refusal, UserQuota};
use crate::supabase::sessions;
use crate::user_state::generation::Generation;
use crate::user_state::{HEARTBEAT_MS, UserState, Write, WriteSet};
use command::{Command, Operation};
use decision::Decision;
use reply::{Cause, Executed, Failure, LogFields, Reply};
use run::{Role, Run};
use session_view::SessionView;
use subscription::{SUBSCRIBERS_PER_SESSION_MAX, SUBSCRIBERS_PER_USER_MAX, Subscription};
use turns::Turns;

/// Everything that the object needs of its host.
pub trait UserObjectHost:
    UserStore + Fetch + Timer + Clock + Random + Log + Metrics + Trace + Spawn + Clone + 'static
{
}
impl<H: UserStore + Fetch + Timer + Clock + Random + Log + Metrics + Trace + Spawn + Clone + 'static>
    UserObjectHost for H
{
}

/// One user's object. A clone is the same object.
#[derive(Debug)]
pub struct UserObject<H>(Rc<Inner<H>>);

#[derive(Debug)]
struct Inner<H> {
    host: H,
    config: Rc<Config>,
    /// The generations that are driven now: `concurrent` ones, and endings that are being persisted; and those that are followed.
    runs: RefCell<Vec<Rc<Run>>>,
    /// The moment of the alarm, where it is known.
    alarm_ms: Cell<Option<u64>>,
    /// Locked from a decision until its commit, so that no other decision joins a run that is reserved and may be dropped; and
    /// while the state is deleted.
    deciding: Turns,
    /// The runs of sessions whose end the database has and whose rows are still stored: the next write removes them. After a
    /// crash they are resumed, which finds their end in the database.
    persisted: RefCell<Vec<(Uuid, u32)>>,
    /// Whether the isolate ends soon: its leases are released.
    is_retiring: Cell<bool>,
}

impl<H> Clone for UserObject<H> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

/// The reply to a command, with its quota status and its log fields.
struct Replied {
    reply: Reply,
    quota: Option<UserQuota>,
    refusal_lasts_ms: Option<u64>,
    log: LogFields,
    subscription: Option<Subscription>,
}

impl Replied {
    fn new(reply: Reply, log: LogFields) -> Self {
        Self { reply, quota: None, refusal_lasts_ms: None, log, subscription: None }
    }

    fn bare(reply: Reply) -> Self {
        Self::new(reply, LogFields::default())
    }

    fn subscribed(subscription: Subscription, log: LogFields) -> Self {
        let reply = Reply::Subscribed(subscription.session_id);
        Self { subscription: Some(subscription), ..Self::new(reply, log) }
    }
}

impl<H: UserObjectHost> UserObject<H> {
    /// The object of one user, whose state the host stores.
    #[must_use]
    pub fn new(host: H, config: Rc<Config>) -> Self {
        Self(Rc::new(Inner {
            host,
            config,
            runs: RefCell::default(),
            alarm_ms: Cell::default(),
            deciding: Turns::default(),
            persisted: RefCell::default(),
            is_retiring: Cell::default(),
        }))
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &H {
        &self.0.host
    }

    /// Executes a command. A subscription comes with [`Reply::Subscribed`]. The host has to run it to its end, also when the client
    /// leaves.
    pub async fn execute(&self, command: &Command) -> (Executed, Option<Subscription>) {
        let replied = match &command.operation {
            Operation::Count => self.count(&command.credentials).boxed_local().await,
            Operation::Generate(generate) => admit::generate(self, command, generate).await,
            Operation::Read { id } => self.read(command, *id).boxed_local().await,
            Operation::Subscribe { id, after } => self.subscribe(command, *id, *after).boxed_local().await,
            Operation::Stop { id } => self.stop(command, *id).boxed_local().await,
        };
        let Replied { reply, quota, refusal_lasts_ms, log, subscription } = replied.unwrap_or_else(failed);
        (Executed { reply, quota, refusal_lasts_ms, log }, subscription)
    }

    /// Runs the due jobs, and deletes a state that is no longer needed. To be called when the alarm fires.
    ///
    /// # Errors
    /// [`StoreError`]; the host has to set the alarm again.
    pub async fn run_alarm(&self) -> Result<(), StoreError> {
        self.0.alarm_ms.set(None);
        let is_empty = self.decide(None, |decision| {
            if decision.state.is_idle(decision.now_ms) {
                let writes = decision.state.clear();
                decision.writes.extend(writes);
            }
            decision.start_due_jobs(None, None);
            if !decision.state.is_empty() && !self.0.persisted.borrow().is_empty() {
                // A write, so that their rows are removed.
                decision.writes.add(Write::Ledger);
            }
            decision.state.is_empty()
        });
        if is_empty.await.map_err(|_| StoreError)? && self.0.runs.borrow().is_empty() {
            let deciding = self.0.deciding.next().await;
            // Another decision may have changed the state since.
            let mut is_empty = false;
            self.0.host.peek(&mut |state| is_empty = state.is_empty()).await?;
            if is_empty {
                self.0.host.delete().await?;
            }
            drop(deciding);
        }
        Ok(())
    }

    async fn count(&self, credentials: &Credentials) -> Result<Replied, Cause> {
        let policies = &self.0.config.rate_limit;
        let (reply, quota) = self
            .decide(Some(credentials), |decision| {
                let reply = match decision.state.count(policies, decision.now_ms) {
                    Ok(writes) => {
                        decision.writes.extend(writes);
                        Reply::Counted
                    }
                    Err(refusal) => decision.exceed_limit(refusal),
                };
                (reply, decision.quota())
            })
            .await?;
        Ok(Replied { quota: Some(quota), ..Replied::bare(reply) })
    }

    async fn read(&self, command: &Command, id: Uuid) -> Result<Replied, Cause> {
        let found = self.decide(Some(&command.credentials), |decision| {
            decision.resume_pending_work(&command.credentials, Some(id), None);
            let generation = decision.state.find(id).cloned()?;
            let run = match generation.ending {
                Some(_) => decision.run_or_follow(id, &command.credentials),
                None => self.run_of(id, generation.accepted.run).filter(|run| run.ended_ms().is_some()),
            };
            Some((generation, run))
        });
        let Some((generation, run)) = found.await? else { return Ok(Replied::bare(Reply::NotFound)) };
        // An ending is being persisted.
        let result = match run {
            Some(run) => run.finished().await,
            None => None,
        };
        let (session, log) = match result {
            Some(result) => {
                (result.session.document(), LogFields { database_ms: None, ..result.log.clone() })
            }
            None => (SessionView::of_generation(&generation, false).document(), log_fields(&generation)),
        };
        Ok(Replied::new(Reply::Session(session), log))
    }

    async fn subscribe(&self, command: &Command, id: Uuid, after: Option<EventId>) -> Result<Replied, Cause> {
        self.decide(Some(&command.credentials), |decision| {
            decision.resume_pending_work(&command.credentials, Some(id), None);
            let Some(generation) = decision.state.find(id).cloned() else {
                return Replied::bare(Reply::NotFound);
            };
            if !self.may_subscribe(id) {
                return Replied::bare(Reply::LimitExceeded(Refusal::by_concurrent()));
            }
            let subscription = match decision.run_or_persist(id, &command.credentials) {
                Some(run) => Subscription::to_run(generation.accepted.run, after, &run),
                None => Subscription::to_ended(SessionView::of_generation(&generation, false), after),
            };
            Replied::subscribed(subscription, log_fields(&generation))
        })
        .await
    }

    async fn stop(&self, command: &Command, id: Uuid) -> Result<Replied, Cause> {
        let found = self.decide(Some(&command.credentials), |decision| {
            decision.resume_pending_work(&command.credentials, Some(id), None);
            let run = decision.run_or_follow(id, &command.credentials);
            decision.state.find(id).cloned().map(|generation| (generation, run))
        });
        let Some((generation, run)) = found.await? else { return Ok(Replied::bare(Reply::NotFound)) };
        let log = log_fields(&generation);
        let ended_ms = generation.ending.as_ref().map(|ending| ending.ended_ms);
        match (ended_ms.or_else(|| run.as_ref()?.ended_ms()), run) {
            (None, Some(run)) => {
                run.stop();
                // The next read must find it ended.
                let finished = run.finished().await;
                // After a crash, the database may have its end.
                if run.ended_ms().is_some_and(|ended_ms| !has_ended_since(command.began_ms, ended_ms)) {
                    return Ok(Replied::bare(Reply::NotRunning));
                }
                // Without a result it is resumed later, as if it had not been stopped.
                Ok(finished.map_or_else(|| failed(Cause::Lost), |_| Replied::new(Reply::Stopped, log)))
            }
            (Some(ended_ms), _) if command.is_repeated && has_ended_since(command.began_ms, ended_ms) => {
                Ok(Replied::new(Reply::Stopped, log))
            }
            _ => Ok(Replied::bare(Reply::NotRunning)),
        }
    }

    /// Decides in one transaction, then starts the runs that the decision has reserved, and logs the generations that it has
    /// abandoned. The store may run `decide` more than once; only its last result counts.
    ///
    /// # Errors
    /// [`Cause::Storage`], or [`Cause::UnknownUser`] for a request of a user whose account does not exist.
    async fn decide<T>(
        &self,
        credentials: Option<&Credentials>,
        mut decide: impl FnMut(&mut Decision<'_, H>) -> T,
    ) -> Result<T, Cause> {
        let mut reserved = decision::Reserved::default();
        let decided = self.transact(|state| {
            reserved = decision::Reserved::default();
            let mut writes = WriteSet::none();
            let now_ms = self.0.host.now_ms();
            if credentials.is_some() && state.is_rejected(now_ms) {
                return (None, writes);
            }
            let mut decision = Decision::new(self, state, &mut writes, &mut reserved, now_ms);
            let decided = decide(&mut decision);
            (Some(decided), writes)
        });
        let decided = decided.await.map_err(|StoreError| Cause::Storage)?.ok_or(Cause::UnknownUser)?;
        let limits = reserved.start(self);
        if let Some(credentials) = credentials.filter(|_| !limits.is_empty()) {
            self.log_limits(credentials.clone(), limits);
        }
        Ok(decided)
    }

    /// Changes the state in one transaction, and sets the alarm for the next job.
    async fn transact<T>(
        &self,
        mut decide: impl FnMut(&mut UserState) -> (T, WriteSet),
    ) -> Result<T, StoreError> {
        let (mut decided, mut alarm_ms, mut removed) = (None, None, Vec::new());
        let mut decide = |state: &mut UserState| {
            let persisted = self.forget_persisted(state);
            let (value, mut writes) = decide(state);
            decided = Some(value);
            (alarm_ms, removed) = if writes.is_empty() {
                (self.missing_alarm_ms(state), Vec::new())
            } else {
                writes = writes.after_removals(persisted.iter().map(|(id, _)| *id));
                (self.next_alarm_ms(state), persisted)
            };
            writes
        };
        self.transact_in_turn(&mut decide).await?;
        self.0.persisted.borrow_mut().retain(|persisted| !removed.contains(persisted));
        self.set_alarm(alarm_ms);
        decided.ok_or(StoreError)
    }

    async fn transact_in_turn(
        &self,
        decide: &mut dyn FnMut(&mut UserState) -> WriteSet,
    ) -> Result<(), StoreError> {
        let turn = self.0.deciding.next();
        // Alone, a state is stored at once; where it is shared, each transaction before may take as long as its store allows.
        let deciding = if self.0.host.is_shared() {
            within(&self.0.host, TURN_MS, turn).boxed_local().await.map_err(|_| StoreError)?
        } else {
            turn.await
        };
        let stored = self.0.host.transact(decide).await;
        drop(deciding);
        stored
    }

    /// Reads the state.
    async fn peek<T>(&self, look: impl FnOnce(&UserState) -> T) -> Result<T, StoreError> {
        let (mut look, mut seen, mut alarm_ms) = (Some(look), None, None);
        let mut look = |state: &UserState| {
            let mut without = None;
            if self.0.persisted.borrow().iter().any(|(id, run)| state.has_run(*id, *run)) {
                self.forget_persisted(without.insert(state.clone()));
            }
            let state = without.as_ref().unwrap_or(state);
            if let Some(look) = look.take() {
                seen = Some(look(state));
            }
            alarm_ms = self.missing_alarm_ms(state);
        };
        self.0.host.peek(&mut look).await?;
        self.set_alarm(alarm_ms);
        seen.ok_or(StoreError)
    }

    /// Removes from a loaded state the runs whose rows the next write removes. Returns them.
    fn forget_persisted(&self, state: &mut UserState) -> Vec<(Uuid, u32)> {
        let mut persisted = self.0.persisted.borrow_mut();
        persisted.retain(|(id, run)| {
            state.forget(*id, *run);
            state.find(*id).is_none() // a later run has replaced it
        });
        persisted.clone()
    }

    fn next_alarm_ms(&self, state: &UserState) -> Option<u64> {
        // A run of a shared state is resumed by the isolate that gets the owner's next request; its end sets the next alarm.
        if self.0.host.is_shared() && !self.0.runs.borrow().is_empty() {
            return None;
        }
        state.alarm_ms(|id| self.is_running(id), self.0.host.now_ms())
    }

    /// The same, where no write has removed the rows of persisted runs yet: the alarm does it.
    fn next_alarm_without_write_ms(&self, state: &UserState) -> Option<u64> {
        let has_rows = !self.0.persisted.borrow().is_empty();
        let removal_ms = has_rows.then(|| self.0.host.now_ms().saturating_add(HEARTBEAT_MS));
        self.next_alarm_ms(state).into_iter().chain(removal_ms).min()
    }

    /// The next alarm where none is set: the last one may have fired while all generations were running, or before the state was
    /// idle.
    fn missing_alarm_ms(&self, state: &UserState) -> Option<u64> {
        self.current_alarm_ms().is_none().then(|| self.next_alarm_without_write_ms(state)).flatten()
    }

    /// The moment of the alarm. One that has passed has fired, or is lost.
    fn current_alarm_ms(&self) -> Option<u64> {
        let now_ms = self.0.host.now_ms();
        self.0.alarm_ms.get().filter(|set_ms| *set_ms > now_ms)
    }

    /// Sets the alarm, unless it fires sooner already.
    fn set_alarm(&self, at_ms: Option<u64>) {
        let Some(at_ms) = at_ms else { return };
        if self.current_alarm_ms().is_some_and(|set_ms| set_ms <= at_ms) {
            return;
        }
        self.0.alarm_ms.set(Some(at_ms));
        let object = self.clone();
        self.0.host.spawn(async move {
            if object.0.host.set_alarm(at_ms).await.is_err() {
                // The storage still has the alarm before; the next decision sets it again.
                object.0.alarm_ms.set(None);
            }
        });
    }

    /// Drives a generation to its end, in a task of its own.
    fn start(&self, run: Rc<Run>, generation: Generation) {
        let object = self.clone();
        if self.0.host.is_shared() {
            self.keep_lease(&run, &generation);
        }
        self.0.host.spawn(async move {
            let result = match generate::run(&object, &run, generation.clone()).await {
                Ok(Some(result)) => Some(result),
                // The storage failed, or another isolate has taken the generation over.
                Ok(None) | Err(StoreError) if object.0.host.is_shared() => {
                    run.set_role(Role::Follower);
                    run.set_ended_ms(None);
                    let credentials = generation.accepted.credentials.clone();
                    object.follow_to_end(&run, generation, &credentials).boxed_local().await;
                    return;
                }
                Ok(None) | Err(StoreError) => None,
            };
            object.remove(&run);
            run.end(result);
            // An ending that is not yet persisted has a time of its own, which may be sooner than the heartbeat. A storage that
            // fails still has the alarm before.
            let next_ms = object.peek(|state| object.next_alarm_without_write_ms(state)).await;
            object.set_alarm(next_ms.ok().flatten());
        });
    }

    fn remove(&self, run: &Rc<Run>) {
        self.0.runs.borrow_mut().retain(|other| !Rc::ptr_eq(other, run));
    }

    fn run_of(&self, id: Uuid, number: u32) -> Option<Rc<Run>> {
        self.0.runs.borrow().iter().find(|run| run.id == id && run.number == number).map(Rc::clone)
    }

    fn is_running(&self, id: Uuid) -> bool {
        self.0.runs.borrow().iter().any(|run| run.id == id && (run.is_driver() || run.is_reserved()))
    }

    /// Whether another stream of that generation is within the limits.
    fn may_subscribe(&self, id: Uuid) -> bool {
        let runs = self.0.runs.borrow();
        let sum = |of_session: bool| {
            let counted = runs.iter().filter(|run| !of_session || run.id == id);
            counted.map(|run| run.subscribers()).fold(0, usize::saturating_add)
        };
        let (of_session, of_user) = (sum(true), sum(false));
        of_session < SUBSCRIBERS_PER_SESSION_MAX && of_user < SUBSCRIBERS_PER_USER_MAX
    }

    /// Writes to the event log that limits were reached, after the reply. One attempt: the user is not billed for it.
    fn log_limits(&self, credentials: Credentials, policies: Vec<&'static str>) {
        let object = self.clone();
        self.0.host.spawn(async move {
            for policy in policies {
                let Inner { host, config, .. } = &*object.0;
                let _ = sessions::log_rate_limited(host, &config.supabase, &credentials, policy).await;
            }
        });
    }
}

fn failed(cause: Cause) -> Replied {
    Replied::bare(Reply::Failed(Failure::new(cause)))
}

/// Whether a generation that a request stops has ended since the request began. Where the first delivery of the request had no
/// reply, that delivery has stopped it, or came just as it ended.
#[must_use]
pub const fn has_ended_since(began_ms: u64, ended_ms: u64) -> bool {
    began_ms <= ended_ms.saturating_add(CLOCKS_MS)
}

/// The longest wait of a transaction for those before it, where the state is shared.
const TURN_MS: u64 = 10_000;

/// By how much the clocks of the Worker, the object and the database may differ.
const CLOCKS_MS: u64 = 1_000;

fn log_fields(generation: &Generation) -> LogFields {
    let ending = generation.ending.as_ref();
    LogFields {
        code: ending.and_then(|ending| ending.code),
        session_id: Some(generation.accepted.id),
        model: Some(generation.accepted.model.as_ref().to_owned()),
        attempts: ending.map(|ending| ending.attempts),
        usage: ending.and_then(|ending| ending.usage),
        model_ms: ending.map(|ending| ending.ended_ms.saturating_sub(generation.started_ms)),
        database_ms: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_is_compared_with_the_tolerance_of_clocks() {
        const T: u64 = 1_800_000_000_000;
        for (ended_ms, since) in [(T + 5, true), (T, true), (T - 1_000, true), (T - 1_001, false), (0, false)]
        {
            assert_eq!(has_ended_since(T, ended_ms), since, "{ended_ms}");
        }
    }
}
