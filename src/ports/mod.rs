//! The ports that a host provides, as small traits.
//!
//! A function requires the least that it needs, so that its signature shows the resources that it can use. The hosts are `cloudflare` (Wasm only)
//! and the scripted one of `tests/core`. One thread: no future here is `Send`.

#![expect(async_fn_in_trait, reason = "the traits are for this crate's hosts, all of them single-threaded")]

pub mod reusable_timer;

use std::num::NonZeroU32;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_util::future::{Either, LocalBoxFuture, select};
use serde::Serialize;
use uuid::Uuid;

use crate::auth::{jwk::PublicKey, key_cache::KeyCache, verified_tokens::VerifiedTokens};
use crate::config::LogLevel;
use crate::http::Request;
use crate::points::Point;
use crate::quota::{Reads, RememberedRefusals};
use crate::readiness::Readiness;
use crate::user_state::generation::{Driver, Ending, SessionCandidate};
use crate::user_state::{UserState, WriteSet};

/// The time.
pub trait Clock {
    /// Milliseconds since the Unix epoch. On Workers it stands still while the CPU works.
    fn now_ms(&self) -> u64;
}

/// Waiting.
pub trait Timer {
    /// Ends after `ms` milliseconds, never before.
    async fn sleep(&self, ms: u64);
}

/// Randomness.
pub trait Random {
    /// 128 bits from the platform's cryptographic generator.
    fn random_bits(&self) -> u128;
}

/// The head of a message that has come in.
pub trait Head {
    /// The value of a header, by its name in lower case; several lines of one name are joined by `, `
    /// (RFC 9110, section 5.3).
    fn header(&self, name: &str) -> Option<String>;
}

/// The body of a message that is being received.
pub trait Body {
    /// Receives the next bytes, or `None` at the regular end. Waits until there are `at_least` of them, or the body ends: each
    /// read costs a crossing. A read in progress continues with its own number, whether or not it is polled. Bytes that arrived
    /// before the connection was cut are always returned first.
    ///
    /// # Errors
    /// [`Unreachable`] when the connection was cut before the end.
    fn poll_next(
        &mut self,
        at_least: usize,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Vec<u8>>, Unreachable>>;
    /// Takes the bytes of the read in progress that have arrived. They count toward its number.
    fn look(&mut self) -> Vec<u8>;
    /// Receives the next bytes of a body that is of use only complete: as many at once as the host can return.
    ///
    /// # Errors
    /// [`Unreachable`] when the connection was cut; bytes that arrived before may be lost.
    async fn next_of_whole(&mut self) -> Result<Option<Vec<u8>>, Unreachable>;
}

/// What a response may take that is of use only complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From the request to the last byte.
    pub timeout_ms: u64,
    /// Of the body.
    pub bytes_max: usize,
}

/// The response of an upstream, received to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholeResponse {
    /// 100 to 599.
    pub status: u16,
    /// Empty when the status is a 5xx: such a body is not received.
    pub body: Vec<u8>,
}

/// The response of an upstream, whose body is being received. Dropping it closes the connection.
pub trait Incoming: Head + Body {
    /// 100 to 599.
    fn status(&self) -> u16;
}

/// Requests to upstreams: all of them go through this one port.
pub trait Fetch {
    /// The response.
    type Incoming: Incoming;
    /// Sends a request; ends with the head of the response. Redirects are not followed. Dropping the future before its end
    /// closes the connection.
    ///
    /// # Errors
    /// [`Unreachable`] when there is no response.
    async fn fetch(&self, request: Request) -> Result<Self::Incoming, Unreachable>;
    /// Sends a request, and receives the response to its end. A host with an operation for both does without the calls between.
    ///
    /// # Errors
    /// [`Unreachable`] without a response within the limits.
    async fn fetch_whole(&self, request: Request, limits: Limits) -> Result<WholeResponse, Unreachable>
    where
        Self: Timer + Sized,
    {
        let received = within(self, limits.timeout_ms, async {
            let mut incoming = self.fetch(request).await?;
            let status = incoming.status();
            if status >= 500 {
                return Ok(WholeResponse { status, body: Vec::new() });
            }
            let body = read_whole(&mut incoming, limits.bytes_max).await.map_err(|_| Unreachable)?;
            Ok(WholeResponse { status, body })
        });
        received.await.unwrap_or(Err(Unreachable))
    }
}

/// The same and waiting, as one object: code that uses it is compiled once for all hosts.
pub trait Exchange {
    /// [`Fetch::fetch_whole`].
    fn exchange(
        &self,
        request: Request,
        limits: Limits,
    ) -> LocalBoxFuture<'_, Result<WholeResponse, Unreachable>>;
    /// [`Timer::sleep`].
    fn pause(&self, ms: u64) -> LocalBoxFuture<'_, ()>;
}

impl<H: Fetch + Timer> Exchange for H {
    fn exchange(
        &self,
        request: Request,
        limits: Limits,
    ) -> LocalBoxFuture<'_, Result<WholeResponse, Unreachable>> {
        Box::pin(self.fetch_whole(request, limits))
    }

    fn pause(&self, ms: u64) -> LocalBoxFuture<'_, ()> {
        Box::pin(self.sleep(ms))
    }
}

/// No connection, or one that was cut. Without the platform's error text: no response contains it, and no decision depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreachable;

/// The key of a signature.
#[derive(Debug, Clone, Copy)]
pub enum VerifyKey<'a> {
    /// A published key.
    Public(&'a PublicKey),
    /// The project's shared secret, for HS256.
    Secret(&'a str),
}

/// Signature checks. WebCrypto takes 0.09 ms for ES256; in Wasm it takes 1.4 ms and 100 KB more of a module.
pub trait VerifySignature {
    /// Whether `signature` is valid for `message` under `key`; `false` for everything that the platform refuses.
    async fn verify(&self, key: VerifyKey<'_>, message: &[u8], signature: &[u8]) -> bool;
}

/// Authenticated encryption: AES-256-GCM (NIST SP 800-38D), by WebCrypto.
pub trait Cipher {
    /// Encrypts a message; the result ends with the tag. `None` for everything that the platform refuses.
    async fn seal(&self, key: &[u8; 32], nonce: &[u8], message: &[u8]) -> Option<Vec<u8>>;
    /// Decrypts such a result; `None` for one that was not sealed under this key and this nonce.
    async fn open(&self, key: &[u8; 32], nonce: &[u8], sealed: &[u8]) -> Option<Vec<u8>>;
}

/// A cache that outlives the isolate (the Cache API), for public documents only.
pub trait SharedCache {
    /// The document with this URL.
    async fn get(&self, url: &str) -> Option<Vec<u8>>;
    /// Stores a document for `max_age_s` seconds, or less.
    async fn put(&self, url: &str, document: &[u8], max_age_s: u64);
}

/// The static assets of the deployment, made by `npm run build`.
pub trait Assets {
    /// The bytes of the asset of that name, or `None` when the host does not provide it.
    async fn asset(&self, name: &str) -> Option<Vec<u8>>;
}

/// The log.
pub trait Log {
    /// Writes one line of JSON.
    fn log(&self, level: LogLevel, line: &str);
}

/// Writes a line to the log.
pub fn log_line(log: &impl Log, level: LogLevel, line: &impl Serialize) {
    log.log(level, &serde_json::to_string(line).unwrap_or_default());
}

/// Data points for dashboards and alerts.
pub trait Metrics {
    /// Writes one point, where the deployment has a dataset.
    fn measure(&self, point: &Point<'_>);
}

/// Spans of the platform's traces.
pub trait Trace {
    /// Begins a span in the trace of the call that runs now. Returns its number; `None` where no trace is sampled.
    fn begin_span(&self, name: &'static str) -> Option<NonZeroU32>;
    /// Ends a span.
    fn end_span(&self, number: NonZeroU32);
}

/// Runs a future for at most `ms` milliseconds.
///
/// # Errors
/// [`TimedOut`]; the future is dropped, and its connections are closed.
pub async fn within<T>(timer: &impl Timer, ms: u64, future: impl Future<Output = T>) -> Result<T, TimedOut> {
    match select(pin!(future), pin!(timer.sleep(ms))).await {
        Either::Left((value, _)) => Ok(value),
        Either::Right(_) => Err(TimedOut),
    }
}

/// The time has run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimedOut;

/// Reads a body to its end.
///
/// # Errors
/// [`BodyError::TooLarge`] as soon as there is more than `bytes_max`: the rest is not read.
pub async fn read_whole(body: &mut impl Body, bytes_max: usize) -> Result<Vec<u8>, BodyError> {
    let mut whole = Vec::new();
    while let Some(chunk) = body.next_of_whole().await.map_err(|_| BodyError::Cut)? {
        if whole.len().saturating_add(chunk.len()) > bytes_max {
            return Err(BodyError::TooLarge);
        }
        if whole.is_empty() {
            whole = chunk;
        } else {
            whole.extend_from_slice(&chunk);
        }
    }
    Ok(whole)
}

/// Why a body was not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// It is larger than allowed.
    TooLarge,
    /// The connection was cut.
    Cut,
}

/// A received request of a client.
pub trait Inbound: Head {
    /// In upper case.
    fn method(&self) -> &str;
    /// Absolute, as it was sent.
    fn url(&self) -> &str;
    /// Receives the body to its end.
    ///
    /// # Errors
    /// [`BodyError::TooLarge`] as soon as there is more than `bytes_max`: the rest is not received.
    async fn whole_body(&mut self, bytes_max: usize) -> Result<Vec<u8>, BodyError>;
}

/// Tasks that continue after the response.
pub trait Background: Clone {
    /// Runs a task to its end, whatever happens to the request.
    fn after_response(&self, task: impl Future<Output = ()> + 'static);
}

/// Tasks of an object, which no request owns.
pub trait Spawn {
    /// Runs a task to its end.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);
}

/// The memory that the requests of an isolate share.
pub trait IsolateMemory {
    /// Reads or changes it.
    fn with_memory<T>(&self, look: impl FnOnce(&mut Memory) -> T) -> T;
}

/// It is lost with the isolate, so only speed may depend on it.
#[derive(Debug, Default)]
pub struct Memory {
    /// The signing keys.
    pub keys: KeyCache,
    /// The verified tokens.
    pub verified: VerifiedTokens,
    /// The last response of `GET /health/ready`.
    pub readiness: Readiness,
    /// The reads of each user.
    pub reads: Reads,
    /// The refusals of users at their limit.
    pub refusals: RememberedRefusals,
}

/// The state of one user, in a store.
pub trait UserStore {
    /// Loads the state, decides, and stores the returned writes: all of them in one transaction, or none. On a conflict with
    /// another transaction it may load and decide again: a decision undoes every other effect of the one before. No request that
    /// is sent afterwards leaves before the writes are stored.
    ///
    /// # Errors
    /// [`StoreError`]; then no change of the last decision is stored.
    async fn transact(&self, decide: &mut dyn FnMut(&mut UserState) -> WriteSet) -> Result<(), StoreError>;
    /// Loads the state and reads it, without a transaction.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn peek(&self, look: &mut dyn FnMut(&UserState)) -> Result<(), StoreError>;
    /// Sets the one alarm of the object, in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// [`StoreError`]; the alarm before stays.
    async fn set_alarm(&self, at_ms: u64) -> Result<(), StoreError>;
    /// Deletes an empty state, with the storage of the object.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn delete(&self) -> Result<(), StoreError>;
    /// Whether other isolates share the state. Then each generation has a lease, and the three functions below are used.
    fn is_shared(&self) -> bool;
    /// Renews the lease of a generation.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn renew(&self, id: Uuid) -> Result<Lease, StoreError>;
    /// Reads a generation, with its candidates from a position on; `None` when the state does not have it.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn poll(&self, id: Uuid, from: usize) -> Result<Option<Polled>, StoreError>;
    /// Requests a stop of the run that was accepted at that moment. Whether it is in progress.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn request_stop(&self, id: Uuid, started_ms: u64) -> Result<bool, StoreError>;
}

/// The result of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// This isolate has the lease.
    Renewed {
        /// Whether another isolate has requested a stop.
        is_stop_requested: bool,
    },
    /// Another isolate has taken the generation over, or it is not in the state any more.
    Lost,
}

/// A generation as another isolate has stored it.
#[derive(Debug, Clone, PartialEq)]
pub struct Polled {
    /// When its run was accepted, which identifies the run, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// The ending, which is not yet persisted.
    pub ending: Option<Ending>,
    /// The isolate that drives it.
    pub driver: Driver,
    /// Whether another isolate has requested a stop.
    pub is_stop_requested: bool,
    /// The candidates from the position on.
    pub candidates: Vec<Rc<SessionCandidate>>,
}

/// The store refused, or does not respond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreError;

/// A response's body that is written chunk by chunk. Dropped before [`EventSink::close`], it ends as a cut one.
pub trait EventSink {
    /// Waits until the client can receive more.
    ///
    /// # Errors
    /// [`Unreachable`] when the client has left.
    async fn write(&mut self, chunk: &[u8]) -> Result<(), Unreachable>;
    /// Ends it regularly.
    async fn close(self);
}
