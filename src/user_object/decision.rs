//! A decision inside one transaction: due jobs, the runs that it reserves, the limits that it meets.

use std::rc::Rc;

use serde::Serialize;
use uuid::Uuid;

use super::generate::log::Note;
use super::points::{JobName, Reason, measure_generation, measure_job};
use super::reply::Reply;
use super::run::{Role, Run};
use super::{UserObject, UserObjectHost};
use crate::auth::credentials::Credentials;
use crate::config::LogLevel;
use crate::http::problem::Code;
use crate::ports::{Log, log_line};
use crate::quota::{Refusal, UserQuota};
use crate::user_state::generation::{Ending, Generation};
use crate::user_state::{Job, UserState, Write, WriteSet};

/// One decision. Its reserved runs start once the transaction is stored; a repeated decision begins anew.
pub(super) struct Decision<'a, H: UserObjectHost> {
    object: &'a UserObject<H>,
    pub(super) state: &'a mut UserState,
    pub(super) writes: &'a mut WriteSet,
    reserved: &'a mut Reserved<H>,
    pub(super) now_ms: u64,
}

/// The consequences of a decision: runs to start, lines and rows to log.
pub(super) struct Reserved<H: UserObjectHost> {
    runs: Vec<ReservedRun<H>>,
    abandoned: Vec<Generation>,
    /// The policies whose limit has to be written to the event log.
    limits: Vec<&'static str>,
}

impl<H: UserObjectHost> Default for Reserved<H> {
    fn default() -> Self {
        Self { runs: Vec::new(), abandoned: Vec::new(), limits: Vec::new() }
    }
}

impl<H: UserObjectHost> Reserved<H> {
    /// Starts the runs. Returns the limits that have to be logged.
    pub(super) fn start(self, object: &UserObject<H>) -> Vec<&'static str> {
        for generation in &self.abandoned {
            measure_abandoned(object.host(), generation);
        }
        for reserved in self.runs {
            reserved.start();
        }
        self.limits
    }
}

/// A run that counts as running from the decision on, so that no other decision starts it too. Dropped before its start, it is
/// removed, or followed again.
struct ReservedRun<H: UserObjectHost> {
    object: UserObject<H>,
    run: Rc<Run>,
    generation: Option<Generation>,
    /// With the credentials of the request that follows it.
    reserved: ReservedAs,
}

enum ReservedAs {
    Driver,
    /// A follower that becomes the driver.
    NextDriver,
    Follower(Credentials),
}

impl<H: UserObjectHost> ReservedRun<H> {
    fn start(mut self) {
        let Some(generation) = self.generation.take() else { return };
        let run = Rc::clone(&self.run);
        match &self.reserved {
            ReservedAs::Driver => self.object.start(run, generation),
            ReservedAs::NextDriver => {
                run.set_role(Role::Driver);
                run.set_stored(&generation.candidates);
                run.set_reserved(false);
                self.object.start(run, generation);
            }
            ReservedAs::Follower(credentials) => self.object.follow(run, generation, credentials.clone()),
        }
    }
}

impl<H: UserObjectHost> Drop for ReservedRun<H> {
    fn drop(&mut self) {
        if self.generation.is_none() {
            return;
        }
        match self.reserved {
            ReservedAs::NextDriver => self.run.set_reserved(false),
            ReservedAs::Driver | ReservedAs::Follower(_) => self.object.remove(&self.run),
        }
    }
}

impl<'a, H: UserObjectHost> Decision<'a, H> {
    pub(super) const fn new(
        object: &'a UserObject<H>,
        state: &'a mut UserState,
        writes: &'a mut WriteSet,
        reserved: &'a mut Reserved<H>,
        now_ms: u64,
    ) -> Self {
        Self { object, state, writes, reserved, now_ms }
    }

    /// Resumes pending work with the credentials of a request. The session that the request names comes first; `except` is
    /// left alone.
    pub(super) fn resume_pending_work(
        &mut self,
        credentials: &Credentials,
        named: Option<Uuid>,
        except: Option<Uuid>,
    ) {
        let writes = self.state.use_credentials(credentials, named, self.now_ms);
        self.writes.extend(writes);
        self.start_due_jobs(named, except);
    }

    /// Starts the due jobs, and abandons endings that were not persisted in time.
    pub(super) fn start_due_jobs(&mut self, named: Option<Uuid>, except: Option<Uuid>) {
        self.abandon_expired(except);
        let object = self.object;
        for job in self.state.due_jobs(|id| object.is_running(id), named, self.now_ms) {
            let (Job::Resume(id) | Job::Persist(id)) = job;
            if except == Some(id) {
                continue;
            }
            let run = self.reserve_run(id);
            if job == Job::Resume(id)
                && let Some(run) = run
            {
                run.set_resumed();
            }
        }
    }

    /// Abandons the endings that were not persisted in their time, but for `except`. Whether there were any.
    pub(super) fn abandon_expired(&mut self, except: Option<Uuid>) -> bool {
        let object = self.object;
        let is_kept = |id| object.is_running(id) || except == Some(id);
        let (abandoned, writes) = self.state.abandon_expired(is_kept, self.now_ms);
        let has_abandoned = !abandoned.is_empty();
        self.reserved.abandoned.extend(abandoned);
        self.writes.extend(writes);
        has_abandoned
    }

    /// Reserves a run of that generation, which this object drives.
    pub(super) fn reserve_run(&mut self, id: Uuid) -> Option<Rc<Run>> {
        if self.object.host().is_shared() {
            let writes = self.state.lease(id);
            self.writes.extend(writes);
        }
        let number = self.state.find(id)?.accepted.run;
        match self.object.run_of(id, number) {
            Some(run) => {
                run.set_reserved(true);
                self.reserve(run, ReservedAs::NextDriver)
            }
            None => self.reserve_new(id, Role::Driver, ReservedAs::Driver),
        }
    }

    fn reserve_new(&mut self, id: Uuid, role: Role, reserved: ReservedAs) -> Option<Rc<Run>> {
        let run = Rc::new(Run::new(self.state.find(id)?, role));
        self.object.0.runs.borrow_mut().push(Rc::clone(&run));
        self.reserve(run, reserved)
    }

    fn reserve(&mut self, run: Rc<Run>, reserved: ReservedAs) -> Option<Rc<Run>> {
        let generation = Some(self.state.find(run.id)?.clone());
        let object = self.object.clone();
        self.reserved.runs.push(ReservedRun { object, run: Rc::clone(&run), generation, reserved });
        Some(run)
    }

    /// The run of that generation; follows it where another isolate drives it.
    pub(super) fn run_or_follow(&mut self, id: Uuid, credentials: &Credentials) -> Option<Rc<Run>> {
        let generation = self.state.find(id)?;
        let run = self.object.run_of(id, generation.accepted.run);
        if run.is_some() || !generation.is_driven_elsewhere() {
            return run;
        }
        self.reserve_new(id, Role::Follower, ReservedAs::Follower(credentials.clone()))
    }

    /// The run of that generation; reserves one to persist it where it has none. `None` when as many as allowed are persisted
    /// now: then it is left to a later job.
    pub(super) fn run_or_persist(&mut self, id: Uuid, credentials: &Credentials) -> Option<Rc<Run>> {
        let object = self.object;
        let run = self.run_or_follow(id, credentials);
        if run.is_some() || self.state.writes_left(|id| object.is_running(id)) == 0 {
            return run;
        }
        self.reserve_run(id)
    }

    /// The reply to a request over a limit, which the event log gets once per window.
    pub(super) fn exceed_limit(&mut self, refusal: Refusal) -> Reply {
        let policies = &self.object.0.config.rate_limit;
        let limits = self.state.limits_to_log(policies, &refusal, self.now_ms);
        if !limits.is_empty() {
            // Stored, so that no other instance of the object logs it again in the same window.
            self.writes.add(Write::Ledger);
        }
        self.reserved.limits = limits;
        Reply::LimitExceeded(refusal)
    }

    /// [`UserState::refusal_lasts_ms`].
    pub(super) fn refusal_lasts_ms(&self, refusal: &Refusal) -> Option<u64> {
        self.state.refusal_lasts_ms(&self.object.0.config.rate_limit, refusal, self.now_ms)
    }

    /// The user's quota now.
    pub(super) fn quota(&self) -> UserQuota {
        self.state.ledger.status(&self.object.0.config.rate_limit, self.now_ms)
    }
}

/// Logs and measures a generation that no job continues. One that never ended has no other point.
fn measure_abandoned(host: &impl UserObjectHost, generation: &Generation) {
    let (now_ms, note) = (host.now_ms(), Note::default());
    log_abandoned(host, generation.accepted.id);
    let job = if generation.ending.is_some() { JobName::Persist } else { JobName::Resume };
    measure_job(host, job, Reason::Abandoned, generation, now_ms);
    if generation.ending.is_none() {
        let ending = Ending::failed(Code::DatabaseError, generation.attempts, now_ms);
        measure_generation(host, generation, &ending, &note, 0, false);
    }
}

#[derive(Serialize)]
struct AbandonedLine {
    level: &'static str,
    message: &'static str,
    session_id: Uuid,
}

/// Logs that an ended generation is lost.
pub(super) fn log_abandoned(log: &impl Log, session_id: Uuid) {
    let level = LogLevel::Error;
    log_line(log, level, &AbandonedLine { level: level.name(), message: "abandoned", session_id });
}
