//! The runs of a state that several isolates share: leases, and runs that another isolate drives.
//!
//! ```text
//! driver    renews its lease, and polls for a stop
//! follower  polls candidates and the ending; requests a stop; becomes the driver when the lease has expired
//! ```

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;

use futures_util::future::select;

use super::reply::LogFields;
use super::run::{Run, RunResult};
use super::session_view::{GENERATING, SessionView};
use super::stored_session::{find, view_of};
use super::{UserObject, UserObjectHost, log_fields};
use crate::auth::credentials::Credentials;
use crate::ports::{Lease, Polled, StoreError, within};
use crate::user_state::generation::{Driver, Ending, Generation};
use crate::user_state::{UserState, Write, WriteSet};

/// Between two polls of a driver for a stop. A stopped generation reads for up to [`super::generate::step::STOP_MS`] more, so
/// that the stop takes effect within a second, the database's time and the follower's poll included.
const DRIVER_POLL_MS: u64 = 400;
/// Between two polls of a follower for candidates and the end: what the driver stores, it has received within a second.
const FOLLOWER_POLL_MS: u64 = 250;
/// Between two polls of a follower that has requested a stop.
const STOPPED_POLL_MS: u64 = 100;
/// The position from which a driver polls, so that it receives no candidates: the greatest that the database can read.
const AFTER_ALL: usize = 0x7FFF_FFFF;
/// Between two renewals of a lease: a third of the time for which it is valid.
const RENEWAL_MS: u64 = 5_000;
/// A follower ends this long after the deadline: as late as a driver persists the ending.
const GRACE_MS: u64 = 15_000;
/// A follower gives up after so many polls in a row that failed, or after which it could not become the driver.
const FAILURES_MAX: u32 = 20;

/// The progress of a follower.
enum Followed {
    /// The driver continues.
    Continues(Option<Ending>),
    /// No isolate drives it.
    Abandoned(Option<Ending>),
    /// It is not in the state any more.
    Removed,
}

impl<H: UserObjectHost> UserObject<H> {
    /// Whether the lease of a run is valid for long enough to hold its end in memory: no other isolate can continue the run
    /// meanwhile. A renewal makes it valid for three times its interval.
    pub(super) fn can_hold(&self, run: &Run) -> bool {
        let until_ms = run.leased_ms().saturating_add(2 * RENEWAL_MS);
        self.0.host.now_ms() < until_ms && !self.0.is_retiring.get()
    }

    /// Releases the leases of all runs, because the isolate ends soon. The runs continue, until another isolate takes them over.
    ///
    /// # Errors
    /// [`StoreError`]; then the leases expire.
    pub async fn release_leases(&self) -> Result<(), StoreError> {
        self.0.is_retiring.set(true);
        let is_driven = |generation: &&Generation| self.is_running(generation.accepted.id);
        self.transact(|state| {
            let mut writes = WriteSet::none();
            for generation in
                state.generations.iter().filter(is_driven).filter(|found| !found.is_taken_over())
            {
                writes.add(Write::Release(generation.accepted.id));
            }
            ((), writes)
        })
        .await
    }

    /// Renews the lease of a run until it ends, and stops the run when another isolate requests it.
    pub(super) fn keep_lease(&self, run: &Rc<Run>, generation: &Generation) {
        if generation.is_stop_requested {
            run.stop();
        }
        let (object, run) = (self.clone(), Rc::clone(run));
        let (drive, mut renewed_ms) = (run.count_drive(), self.0.host.now_ms());
        // The lease began with the acceptance, or at an unknown moment.
        run.set_leased_ms(generation.started_ms);
        run.set_checked_ms(renewed_ms);
        self.0.host.spawn(async move {
            loop {
                let next_ms = run.checked_ms().saturating_add(DRIVER_POLL_MS);
                object.0.host.sleep(next_ms.saturating_sub(object.0.host.now_ms())).await;
                if run.result().is_some() || !run.is_driver() || !run.is_last_drive(drive) {
                    return;
                }
                let now_ms = object.0.host.now_ms();
                let is_due = now_ms.saturating_sub(renewed_ms) >= RENEWAL_MS && !object.0.is_retiring.get();
                if !is_due && run.checked_ms().saturating_add(DRIVER_POLL_MS) > now_ms {
                    continue; // a store has found no stop meanwhile
                }
                run.set_checked_ms(now_ms);
                let is_stop_requested = if is_due {
                    match object.0.host.renew(run.id).await {
                        Ok(Lease::Lost) => return run.lose(),
                        Ok(Lease::Renewed { is_stop_requested }) => {
                            renewed_ms = now_ms;
                            run.set_leased_ms(now_ms);
                            is_stop_requested
                        }
                        Err(StoreError) => false,
                    }
                } else {
                    let polled = object.0.host.poll(run.id, AFTER_ALL).await.ok().flatten();
                    if polled.as_ref().is_some_and(|polled| polled.driver == Driver::Other) {
                        return run.lose();
                    }
                    polled.is_some_and(|polled| polled.is_stop_requested)
                };
                if is_stop_requested {
                    run.stop();
                }
            }
        });
    }

    /// Stops the run if the last store has found a stop that another isolate has requested.
    pub(super) async fn check_stop(&self, run: &Run) {
        run.set_checked_ms(self.0.host.now_ms());
        let is_stop_requested =
            |state: &UserState| state.find(run.id).is_some_and(|found| found.is_stop_requested);
        if self.peek(is_stop_requested).await.is_ok_and(|is_stop_requested| is_stop_requested) {
            run.stop();
        }
    }

    /// Follows a run of another isolate in a task of its own, with the credentials of the request that joins it.
    pub(super) fn follow(&self, run: Rc<Run>, generation: Generation, credentials: Credentials) {
        let object = self.clone();
        self.0.host.spawn(async move { object.follow_to_end(&run, generation, &credentials).await });
    }

    /// Follows a run until it ends, or until this object drives it: then the task of the driver ends it.
    pub(super) async fn follow_to_end(
        &self,
        run: &Rc<Run>,
        generation: Generation,
        credentials: &Credentials,
    ) {
        let result = self.followed_result(run, generation, credentials).await;
        // A decision may be making this object the driver.
        run.until(|| (!run.is_reserved()).then_some(())).await;
        if !run.is_driver() {
            self.remove(run);
            run.end(result);
        }
    }

    async fn followed_result(
        &self,
        run: &Rc<Run>,
        mut generation: Generation,
        credentials: &Credentials,
    ) -> Option<RunResult> {
        let host = &self.0.host;
        let until_ms = generation.deadline_ms.saturating_add(GRACE_MS);
        let (mut failures, mut is_stop_sent) = (0_u32, false);
        // Besides this task, the list of runs alone has a reference when no client waits any more.
        while failures < FAILURES_MAX && host.now_ms() < until_ms && Rc::strong_count(run) > 2 {
            if run.is_stopped() && !is_stop_sent {
                is_stop_sent = host.request_stop(run.id, generation.started_ms).await.is_ok();
                failures = failures.saturating_add(u32::from(!is_stop_sent));
            }
            let left_ms = until_ms.saturating_sub(host.now_ms());
            let polled = within(host, left_ms, host.poll(run.id, run.stored_count())).await;
            if run.is_driver() {
                return None;
            }
            match polled.unwrap_or(Err(StoreError)).map(|polled| followed(run, &generation, polled)) {
                Ok(Followed::Removed) => return self.stored_result(run, generation, credentials).await,
                Ok(Followed::Continues(ending)) => {
                    generation.ending = ending;
                    failures = if is_stop_sent || !run.is_stopped() { 0 } else { failures };
                }
                Ok(Followed::Abandoned(ending)) => {
                    generation.ending = ending;
                    let resumed = self.decide(Some(credentials), |decision| {
                        decision.resume_pending_work(credentials, Some(run.id), None);
                    });
                    if resumed.await.is_ok() && run.is_driver() {
                        return None;
                    }
                    failures = failures.saturating_add(1);
                }
                Err(StoreError) => failures = failures.saturating_add(1),
            }
            if run.is_stopped() {
                host.sleep(STOPPED_POLL_MS).await;
            } else {
                let wait = pin!(host.sleep(FOLLOWER_POLL_MS));
                select(wait, pin!(poll_fn(|context| run.poll_stop(context)))).await;
            }
        }
        // Where it has ended, it cannot be persisted now.
        result_of(run, generation, false)
    }

    /// The result of a run whose generation is not in the state any more: the database has it, or its row was refused.
    async fn stored_result(
        &self,
        run: &Run,
        mut generation: Generation,
        credentials: &Credentials,
    ) -> Option<RunResult> {
        let id = generation.accepted.id;
        let found = find(&self.0.host, &self.0.config, credentials, id).await.ok().flatten();
        // A later run may have begun.
        let found = found.filter(|row| row.status != GENERATING && row.run == run.number);
        if let Some(row) = found {
            let (log, session) = (log_fields(&generation), view_of(row));
            // The row has no time of a retry, and does not say whether a firewall has refused it.
            let ending = generation.ending.as_ref();
            let session = SessionView {
                retry_after_s: ending.and_then(|ending| ending.retry_after_s),
                was_reused: ending.and_then(|ending| ending.was_reused),
                is_blocked: ending.is_some_and(|ending| ending.is_blocked),
                ..session
            };
            let log = LogFields { code: session.failure, usage: session.usage, ..log };
            return Some(RunResult { session, log });
        }
        if generation.ending.is_none() {
            let failure = self.decide(None, |decision| decision.state.failure_of(id));
            let now_ms = self.0.host.now_ms();
            generation.ending = failure.await.ok().flatten().map(|code| Ending::failed(code, 0, now_ms));
        }
        result_of(run, generation, true)
    }
}

/// The result with the ending that was polled.
fn result_of(run: &Run, mut generation: Generation, is_persisted: bool) -> Option<RunResult> {
    generation.ending.as_ref()?;
    generation.candidates = run.stored_from(0);
    let session = SessionView::of_generation(&generation, is_persisted);
    Some(RunResult { session, log: log_fields(&generation) })
}

/// Adds what the driver has stored.
fn followed(run: &Run, generation: &Generation, polled: Option<Polled>) -> Followed {
    let polled = polled.filter(|polled| polled.started_ms == generation.started_ms);
    let Some(polled) = polled else { return Followed::Removed };
    if !polled.candidates.is_empty() {
        run.add_stored(polled.candidates);
    }
    if polled.driver == Driver::Other {
        Followed::Continues(polled.ending)
    } else {
        Followed::Abandoned(polled.ending)
    }
}
