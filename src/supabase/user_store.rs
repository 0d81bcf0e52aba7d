//! The user state in Postgres, shared by all isolates: compare-and-set over one HTTP request.
//!
//! ```text
//! cached state ──► decide ──► store ──► stored
//!   ▲ load           ▲          │ conflict: the reply has the state
//!                    └──────────┘
//! ```
//! A decision is made on the cached state and stored if the database still has its version, so that a warm isolate needs one
//! round trip. A decision that changes nothing is checked against the stored state too. A store whose reply is lost is sent
//! again; where its first delivery was stored, the conflict shows that by the commit's id, and no decision is made twice.
//!
//! Not for: the wire format (`user_state`), the alarm of a user object (the host).

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use futures_util::lock::Mutex;
use uuid::Uuid;

use super::rest::{
    BACKOFF_MS, BYTES_MAX, INSUFFICIENT_PRIVILEGE, RestError, accept, code_of, exchange, is_document,
};
use super::sealed_token::{self, Context};
use super::user_state::{
    COMMITS_MAX, Commit, LEASE_MS, REPLY_BYTES_MAX, Reply, StoreResult, Stored, WakeUp,
    check as check_request, clock_of_refusal, poll, read, renew, signed, stop, store,
};
use crate::config::Config;
use crate::ports::{
    Cipher, Clock, Fetch, Incoming, Lease, Polled, Random, StoreError, Timer, read_whole, within,
};
use crate::user_state::generation::Driver;
use crate::user_state::{UserState, Write, WriteSet};

/// The timeout of a transaction, with the wait for the ones before it and all retries: a client waits for it.
const DEADLINE_MS: u64 = 10_000;
/// The most conflicts of one transaction. The waits between them take 4 to 9 s in all, so that the last attempts are made when
/// the queue of another isolate is empty.
const CONFLICTS_MAX: u32 = 20;
/// The longest wait after a second conflict in a row; doubles with each further one, up to the other bound.
const JITTER_MS: std::ops::RangeInclusive<u64> = 20..=640;
/// A request of a user who does not exist is rejected by a state that is valid for this long, in one decision.
const REJECTED_MS: u64 = 1_000;

/// Everything that the store needs of its host.
pub trait StoreHost: Fetch + Timer + Clock + Random + Cipher {}
impl<H: Fetch + Timer + Clock + Random + Cipher> StoreHost for H {}

/// The parts that all user states of an isolate share.
#[derive(Debug)]
pub struct Isolate {
    runner: Uuid,
    offset_ms: Cell<i64>,
}

impl Isolate {
    /// Creates an isolate, whose leases have this id.
    #[must_use]
    pub const fn new(runner: Uuid) -> Self {
        Self { runner, offset_ms: Cell::new(0) }
    }

    /// The time by the database's clock, at that time of the platform's clock. The `Clock` of the host has to return it: the
    /// decisions of all isolates then have one clock.
    #[must_use]
    pub const fn now_ms(&self, platform_ms: u64) -> u64 {
        platform_ms.saturating_add_signed(self.offset_ms.get())
    }

    /// The reverse of [`Isolate::now_ms`].
    const fn platform_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_add_signed(self.offset_ms.get().saturating_neg())
    }

    /// Corrects the clock by the least that is necessary, so that it does not jitter: the database read its own between the
    /// two moments of the platform's clock.
    fn correct(&self, clock_ms: u64, sent_platform_ms: u64, received_platform_ms: u64) {
        let least = clock_ms.checked_signed_diff(received_platform_ms);
        let most = clock_ms.checked_signed_diff(sent_platform_ms);
        if let Some((least, most)) = least.zip(most) {
            self.offset_ms.set(self.offset_ms.get().max(least).min(most));
        }
    }
}

/// The state of one user, in Postgres.
#[derive(Debug)]
pub struct UserStateStore {
    config: Rc<Config>,
    isolate: Rc<Isolate>,
    user: Uuid,
    /// Locked during a transaction: one at a time.
    transaction: Mutex<()>,
    /// INVARIANT: `None`, or a state of that version as it was stored, with the tokens that this isolate has received or opened.
    /// A transaction changes a copy, so that the state can be read meanwhile; one that fails leaves none.
    cached: RefCell<Option<Stored>>,
}

impl UserStateStore {
    /// The state of a user, of which nothing is loaded yet.
    #[must_use]
    pub fn new(config: Rc<Config>, isolate: Rc<Isolate>, user: Uuid) -> Self {
        Self { config, isolate, user, transaction: Mutex::default(), cached: RefCell::default() }
    }

    /// As [`crate::ports::UserStore::transact`]. A user who does not exist has a state in which every request is rejected, and
    /// nothing is stored.
    ///
    /// # Errors
    /// [`StoreError`]; where the last reply was lost, the writes may be stored.
    pub async fn transact(
        &self,
        host: &impl StoreHost,
        decide: &mut dyn FnMut(&mut UserState) -> WriteSet,
    ) -> Result<(), StoreError> {
        let has_begun = Cell::new(false);
        let transaction = async {
            let _locked = self.transaction.lock().await;
            has_begun.set(true);
            let cached = self.cached.borrow().clone();
            self.decide_and_store(host, cached, decide).await
        };
        let stored = within(host, DEADLINE_MS, transaction).await.unwrap_or(Err(StoreError));
        let result = stored.as_ref().map(drop).map_err(|error| *error);
        if has_begun.get() {
            self.cached.replace(stored.unwrap_or_default());
        }
        result
    }

    /// As [`crate::ports::UserStore::peek`]; reads the cached state where there is one, without a wait for a transaction.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn peek(
        &self,
        host: &impl StoreHost,
        look: &mut dyn FnMut(&UserState),
    ) -> Result<(), StoreError> {
        let loaded = if self.cached.borrow().is_some() {
            None
        } else {
            Some(within(host, DEADLINE_MS, self.load(host, None)).await.map_err(|_| StoreError)??)
        };
        let mut cached = self.cached.borrow_mut();
        // A transaction may have ended meanwhile, with a later version.
        if cached.is_none() {
            *cached = loaded;
        }
        look(&cached.as_ref().ok_or(StoreError)?.state);
        Ok(())
    }

    /// As [`crate::ports::UserStore::delete`]. The row stays, because a version must not begin again.
    pub fn delete(&self) {
        self.cached.take();
    }

    /// As [`crate::ports::UserStore::renew`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn renew(&self, host: &impl StoreHost, id: Uuid) -> Result<Lease, StoreError> {
        let reply = self.send(host, &renew(self.user, self.isolate.runner, id)).await;
        reply.map_err(|_| StoreError)?.reply.into_lease(id).map_err(|_| StoreError)
    }

    /// As [`crate::ports::UserStore::poll`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn poll(
        &self,
        host: &impl StoreHost,
        id: Uuid,
        from: usize,
    ) -> Result<Option<Polled>, StoreError> {
        let reply = self.send(host, &poll(self.user, id, from)).await;
        reply.map_err(|_| StoreError)?.reply.into_polled(self.isolate.runner).map_err(|_| StoreError)
    }

    /// As [`crate::ports::UserStore::request_stop`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn request_stop(
        &self,
        host: &impl StoreHost,
        id: Uuid,
        started_ms: u64,
    ) -> Result<bool, StoreError> {
        let reply = self.send(host, &stop(self.user, id, started_ms)).await;
        reply.map_err(|_| StoreError)?.reply.into_found().map_err(|_| StoreError)
    }

    /// Decides and stores until there is no conflict. Returns the state to keep.
    async fn decide_and_store(
        &self,
        host: &impl StoreHost,
        cached: Option<Stored>,
        decide: &mut dyn FnMut(&mut UserState) -> WriteSet,
    ) -> Result<Option<Stored>, StoreError> {
        // The lease of another isolate expires without a new version, so such a state is loaded first.
        let is_usable = cached.as_ref().is_some_and(|cached| !is_driven_elsewhere(&cached.state));
        let mut is_loaded = !is_usable;
        let mut current = match cached {
            Some(cached) if is_usable => cached,
            cached => self.load(host, cached.as_ref()).await?,
        };
        let mut conflicts = 0;
        loop {
            let writes = decide(&mut current.state);
            if is_without_effect(&writes, current.version) {
                if is_loaded {
                    return Ok(Some(current));
                }
                let loaded = self.load(host, Some(&current)).await?;
                if is_same(&loaded, &current) {
                    return Ok(Some(current));
                }
                (current, is_loaded) = (loaded, true);
                continue;
            }
            let commit_id = format!("{:016x}", host.random_bits() >> 64);
            let mut commits = current.commits.clone();
            commits.push(commit_id.clone());
            let commits = commits.split_off(commits.len().saturating_sub(COMMITS_MAX));
            let wake_up = self.wake_up(host, &current.state, &writes).await;
            let commit = Commit {
                user: self.user,
                runner: self.isolate.runner,
                version: current.version,
                commits: &commits,
                wake_up: wake_up.as_ref(),
            };
            let members = store(&commit, &current.state, &writes).map_err(|_| StoreError)?;
            let Answered { reply, is_repeated } = match self.send(host, &members).await {
                Ok(answered) => answered,
                Err(error) if error.is_unknown_user() => {
                    let rejected_until_ms = host.now_ms().saturating_add(REJECTED_MS);
                    decide(&mut UserState { rejected_until_ms, ..UserState::default() });
                    return Ok(None);
                }
                Err(_) => return Err(StoreError),
            };
            let mut loaded = match reply.into_result(self.isolate.runner).map_err(|_| StoreError)? {
                StoreResult::Stored { version, stops } => {
                    (current.version, current.commits) = (version, commits);
                    apply(&mut current.state, &writes, &stops);
                    return Ok(Some(current));
                }
                StoreResult::Conflict(loaded) => *loaded,
            };
            self.open_tokens(host, &mut loaded).await;
            keep_tokens(&mut loaded.state, &current.state);
            if loaded.commits.contains(&commit_id) {
                return Ok(Some(loaded));
            }
            let stores = usize::try_from(loaded.version.saturating_sub(current.version));
            let has_all_commits = stores.is_ok_and(|stores| stores <= COMMITS_MAX);
            if is_repeated && !has_all_commits {
                // An earlier delivery may be stored, with a commit that is named no more.
                return Err(StoreError);
            }
            (current, is_loaded) = (loaded, true);
            conflicts += 1;
            if conflicts >= CONFLICTS_MAX {
                return Err(StoreError);
            }
            if conflicts > 1 {
                host.sleep(jitter_ms(conflicts, host.random_bits())).await;
                current = self.load(host, Some(&current)).await?;
            }
        }
    }

    /// Loads the state; generations that `earlier` has too keep its tokens.
    async fn load(&self, host: &impl StoreHost, earlier: Option<&Stored>) -> Result<Stored, StoreError> {
        let answered = self.send(host, &read(self.user)).await.map_err(|_| StoreError)?;
        let mut loaded = answered.reply.into_state(self.isolate.runner).map_err(|_| StoreError)?;
        self.open_tokens(host, &mut loaded).await;
        if let Some(earlier) = earlier {
            keep_tokens(&mut loaded.state, &earlier.state);
        }
        Ok(loaded)
    }

    /// The parts of a store for a scheduled wake-up, where there is one.
    async fn wake_up(&self, host: &impl StoreHost, state: &UserState, writes: &WriteSet) -> Option<WakeUp> {
        if !self.config.wake_up {
            return None;
        }
        let mut wake_up = WakeUp { at_ms: state.wake_at_ms(LEASE_MS, host.now_ms()), tokens: Vec::new() };
        for write in writes.writes() {
            let Write::Generation(id) = *write else { continue };
            let Some(generation) = state.find(id).filter(|found| found.has_token()) else { continue };
            let credentials = &generation.accepted.credentials;
            let sealed = sealed_token::seal(host, self.context(id), credentials).await;
            wake_up.tokens.extend(sealed.map(|sealed| (id, sealed)));
        }
        Some(wake_up)
    }

    /// Opens the sealed tokens of a loaded state. A token that cannot be opened is provided by the owner's next request.
    async fn open_tokens(&self, host: &impl StoreHost, loaded: &mut Stored) {
        for (id, sealed) in std::mem::take(&mut loaded.sealed_tokens) {
            let opened = match self.config.wake_up {
                true => sealed_token::open(host, self.context(id), &sealed).await,
                false => None,
            };
            let mut generations = loaded.state.generations.iter_mut();
            let generation = generations.find(|generation| generation.accepted.id == id);
            if let Some((generation, (token, expires_ms))) = generation.zip(opened) {
                let credentials = &mut generation.accepted.credentials;
                (credentials.token, credentials.expires_ms) = (token, expires_ms);
            }
        }
    }

    fn context(&self, session: Uuid) -> Context<'_> {
        Context { secret: &self.config.service_secret, user: self.user, session }
    }

    /// Sends a request, up to three times: each may be repeated. A repeated store is a conflict with itself.
    async fn send(&self, host: &impl StoreHost, members: &str) -> Result<Answered, RestError> {
        let mut backoff_ms = BACKOFF_MS.iter();
        let (mut is_repeated, mut is_corrected) = (false, false);
        let key = self.config.user_state_key.as_deref().unwrap_or_default();
        loop {
            let now_ms = host.now_ms();
            let sent_ms = self.isolate.platform_ms(now_ms);
            let request = signed(&self.config.supabase, key, members, now_ms);
            let exchanged = exchange(host, request, REPLY_BYTES_MAX).await;
            let received_ms = self.isolate.platform_ms(host.now_ms());
            if let Ok((412, body)) = &exchanged
                && let Some(clock_ms) = clock_of_refusal(body).filter(|_| !is_corrected)
            {
                self.isolate.correct(clock_ms, sent_ms, received_ms);
                is_corrected = true;
                continue;
            }
            let answered = exchanged.and_then(|(status, body)| accept(status, body));
            // A page with status 200 is from an intermediary.
            let answered = answered.and_then(|body| Reply::read(&body).map_err(|_| RestError::Unavailable));
            match answered {
                Ok(reply) => {
                    self.isolate.correct(reply.clock_ms, sent_ms, received_ms);
                    return Ok(Answered { reply, is_repeated });
                }
                Err(error) => {
                    let wait_ms = backoff_ms.next().filter(|_| error.is_transient());
                    let Some(wait_ms) = wait_ms else { return Err(error) };
                    is_repeated = true;
                    host.sleep(*wait_ms).await;
                }
            }
        }
    }
}

struct Answered {
    reply: Reply,
    /// Whether an earlier delivery had no reply, and may have been processed.
    is_repeated: bool,
}

fn is_driven_elsewhere(state: &UserState) -> bool {
    state.generations.iter().any(|generation| generation.driver == Driver::Other)
}

/// Whether nothing has to be stored; a state that was never stored is not stored to be emptied.
fn is_without_effect(writes: &WriteSet, version: u64) -> bool {
    writes.is_empty() || (version == 0 && writes.writes().iter().all(|write| *write == Write::RemoveAll))
}

/// Whether a state is still the stored one. Drivers and stops change without a new version.
fn is_same(loaded: &Stored, current: &Stored) -> bool {
    let beside = |stored: &Stored| -> Vec<_> {
        let generations = stored.state.generations.iter();
        generations.map(|generation| (generation.driver, generation.is_stop_requested)).collect()
    };
    loaded.version == current.version && beside(loaded) == beside(current)
}

/// Applies the values that the database has stored beside the records.
fn apply(state: &mut UserState, writes: &WriteSet, stops: &[Uuid]) {
    for generation in &mut state.generations {
        let id = generation.accepted.id;
        generation.is_stop_requested = stops.contains(&id);
        // A released lease has expired, and is this isolate's all the same.
        if writes
            .writes()
            .iter()
            .any(|write| matches!(write, Write::Lease(of) | Write::Release(of) if *of == id))
        {
            generation.driver = Driver::Own;
        }
    }
}

/// Copies the tokens of the generations that both states have: a stored record has none.
fn keep_tokens(loaded: &mut UserState, earlier: &UserState) {
    for generation in &mut loaded.generations {
        let Some(known) = earlier.find(generation.accepted.id) else { continue };
        if known.accepted.credentials.expires_ms > generation.accepted.credentials.expires_ms {
            generation.accepted.credentials = known.accepted.credentials.clone();
        }
    }
}

/// The wait after that many conflicts: random, so that two isolates do not meet again, and at least half of its bound.
fn jitter_ms(conflicts: u32, random_bits: u128) -> u64 {
    let bound_ms = JITTER_MS.start().saturating_mul(1 << conflicts.saturating_sub(2).min(16));
    let half_ms = bound_ms.min(*JITTER_MS.end()) / 2;
    let random = u64::try_from(random_bits & u128::from(u32::MAX)).unwrap_or_default();
    half_ms.saturating_add(random % half_ms.saturating_add(1))
}

/// Checks that the database takes the key.
///
/// # Errors
/// A description of the failure, in words of this service.
pub async fn check(host: &(impl Fetch + Clock), config: &Config) -> Result<(), String> {
    let key = config.user_state_key.as_deref().unwrap_or_default();
    let request = signed(&config.supabase, key, &check_request(), host.now_ms());
    let mut answer = host.fetch(request).await.map_err(|_| "no connection".to_owned())?;
    let status = answer.status();
    let body = read_whole(&mut answer, BYTES_MAX).await.unwrap_or_default();
    let detail = match (status, code_of(&body).as_deref()) {
        (200..=299, _) if Reply::read(&body).is_ok() => return Ok(()),
        // The key is the right one; the first request of a user state corrects the clock.
        (412, Some("PT412")) => return Ok(()),
        (_, Some("PT503")) => {
            "no key is set: run select ai_sessions.set_service_key('…') with USER_STATE_KEY"
        }
        (_, Some(INSUFFICIENT_PRIVILEGE)) => {
            "USER_STATE_KEY is not a key that ai_sessions.set_service_key has set"
        }
        (404, _) => "the tables are not there: apply the migrations",
        (401 | 403, _) if is_document(&body) => "the API key is not taken",
        (401 | 403, _) => "refused by a firewall",
        (200..=299, _) => "no reply of the database",
        _ => return Err(["status ", &status.to_string()].concat()),
    };
    Err(detail.to_owned())
}
