//! What a host must give, as small traits: everything that the pure stages may not have.
//!
//! A function asks for the least that it needs, so that its signature tells what it can touch. The hosts are
//! `cloudflare` (Wasm only) and the scripted one of `tests/core`. One thread: no future here is `Send`.

#![expect(async_fn_in_trait, reason = "the traits are for this crate's hosts, all of them single-threaded")]

pub mod alarm;

use std::pin::pin;
use std::rc::Rc;

use futures_util::future::{Either, select};
use uuid::Uuid;

use crate::answer::readiness::Readiness;
use crate::auth::{jwk::PublicKey, key_cache::KeyCache, verified::VerifiedTokens};
use crate::config::LogLevel;
use crate::http::Request;
use crate::quota::Reads;
use crate::user_state::ask::{Ask, LogFields};
use crate::user_state::record::{Finished, SessionCandidate};
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

/// The body of a message that is coming in.
pub trait Body {
    /// The next bytes, or `None` at the regular end. Waits until there are `at_least` of them, or the body ends: 1 where
    /// somebody waits for every piece, more where nobody does (each bite costs a crossing). Bytes that came before the
    /// connection broke are always given first; and when a bite of more than one is not waited for to its end, the next
    /// call gives what there is of it.
    ///
    /// # Errors
    /// [`Unreachable`] when the connection broke before the end.
    async fn next(&mut self, at_least: usize) -> Result<Option<Vec<u8>>, Unreachable>;
    /// The next bytes of a body that is of use only whole: as many at once as the host can give.
    ///
    /// # Errors
    /// [`Unreachable`] when the connection broke; what came before may be lost.
    async fn next_of_whole(&mut self) -> Result<Option<Vec<u8>>, Unreachable>;
}

/// The answer of a neighbour, its body still coming. Dropping it closes the connection.
pub trait Incoming: Head + Body {
    /// 100 to 599.
    fn status(&self) -> u16;
}

/// The way out: every request to a neighbour goes through this one port.
pub trait Fetch {
    /// What comes back.
    type Incoming: Incoming;
    /// Sends a request; ends when the head of the answer is there. Redirects are not followed. Dropping the future
    /// before its end closes the connection.
    ///
    /// # Errors
    /// [`Unreachable`] when no answer came.
    async fn fetch(&self, request: Request) -> Result<Self::Incoming, Unreachable>;
}

/// No connection, or one that broke. Says no more: a platform's error text is nothing that a caller may see and
/// nothing that a decision could rest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreachable;

/// What a signature is checked with.
#[derive(Debug, Clone, Copy)]
pub enum VerifyKey<'a> {
    /// A published key.
    Public(&'a PublicKey),
    /// The project's shared secret, for HS256.
    Secret(&'a str),
}

/// Checking signatures. The host has a faster way than Wasm: WebCrypto needs 0.09 ms for ES256, the same in Wasm
/// 1.4 ms and 100 KB more of a module.
pub trait VerifySignature {
    /// Whether `signature` holds for `message` under `key`; `false` for whatever the platform refuses.
    async fn verify(&self, key: VerifyKey<'_>, message: &[u8], signature: &[u8]) -> bool;
}

/// A cache that outlives the isolate (the Cache API), for public documents only.
pub trait SharedCache {
    /// What was kept under this URL.
    async fn get(&self, url: &str) -> Option<Vec<u8>>;
    /// Keeps it for `max_age_s` seconds, or less.
    async fn put(&self, url: &str, document: &[u8], max_age_s: u64);
}

/// The static assets of the deployment, made by `npm run build`.
pub trait Assets {
    /// The bytes of the asset of that name, or `None` when the host does not provide it.
    async fn asset(&self, name: &str) -> Option<Vec<u8>>;
}

/// The log.
pub trait Log {
    /// One line of JSON.
    fn log(&self, level: LogLevel, line: &str);
}

/// Figures for a dashboard.
pub trait Metrics {
    /// Writes one point, where the deployment has somewhere to write it.
    fn measure(&self, point: &Point<'_>);
}

/// One request in figures. The order of the members is that of the point's columns, and is not changed: a dashboard
/// names them by number.
#[derive(Debug, Clone, PartialEq)]
pub struct Point<'a> {
    /// Route, method, code, model; empty where there is none.
    pub texts: [&'a str; 4],
    /// Status, total ms, auth ms, model ms, database ms, attempts, prompt tokens, completion tokens, US dollars; 0
    /// where there is none.
    pub figures: [f64; 9],
}

/// Runs a future for at most `ms` milliseconds.
///
/// # Errors
/// [`TimedOut`]; the future is dropped, and with it what it had open.
pub async fn within<T>(timer: &impl Timer, ms: u64, future: impl Future<Output = T>) -> Result<T, TimedOut> {
    match select(pin!(future), pin!(timer.sleep(ms))).await {
        Either::Left((value, _)) => Ok(value),
        Either::Right(_) => Err(TimedOut),
    }
}

/// The time was over first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimedOut;

/// Reads a body to its end.
///
/// # Errors
/// [`BodyError::TooLarge`] as soon as there is more than `bytes_max`: the rest is not read.
pub async fn read_whole(body: &mut impl Body, bytes_max: usize) -> Result<Vec<u8>, BodyError> {
    let mut whole = Vec::new();
    while let Some(piece) = body.next_of_whole().await.map_err(|_| BodyError::Broken)? {
        if whole.len().saturating_add(piece.len()) > bytes_max {
            return Err(BodyError::TooLarge);
        }
        if whole.is_empty() {
            whole = piece;
        } else {
            whole.extend_from_slice(&piece);
        }
    }
    Ok(whole)
}

/// Why a body was not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// It is larger than what is read.
    TooLarge,
    /// The connection broke.
    Broken,
}

/// A request that has come in from outside.
pub trait Inbound: Head + Body {
    /// In capitals.
    fn method(&self) -> &str;
    /// Absolute, as it was sent.
    fn url(&self) -> &str;
}

/// Work that goes on after the answer.
pub trait Background: Clone {
    /// Runs it to its end, whatever happens to the request.
    fn after_answer(&self, work: impl Future<Output = ()> + 'static);
}

/// What an isolate remembers between requests.
pub trait IsolateMemory {
    /// Looks into it, or changes it.
    fn with_memory<T>(&self, look: impl FnOnce(&mut Memory) -> T) -> T;
}

/// It is lost with the isolate, so nothing may depend on it but speed.
#[derive(Debug, Default)]
pub struct Memory {
    /// The sign-in service's keys.
    pub keys: KeyCache,
    /// Tokens that were verified.
    pub verified: VerifiedTokens,
    /// The last answer of `GET /health/ready`.
    pub readiness: Readiness,
    /// How often each user has read.
    pub reads: Reads,
}

/// The way to a user's desk.
pub trait Desks {
    /// A body that is passed on to the caller as it comes.
    type Stream;
    /// Asks the desk of that user.
    ///
    /// # Errors
    /// [`DeskError`] when the object gave no answer.
    async fn ask(&self, ask: &Ask) -> Result<DeskReply<Self::Stream>, DeskError>;
}

/// Why a user's object gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeskError {
    /// The platform lost the call, or its answer.
    Unreachable,
    /// The platform refused the call, because more of them wait for the object than it can serve.
    Overloaded,
}

/// What a desk answers.
#[derive(Debug)]
pub struct DeskReply<S> {
    /// The HTTP status.
    pub status: u16,
    /// Those of [`DESK_HEADERS`] that it has.
    pub headers: Vec<(&'static str, String)>,
    /// For the log.
    pub facts: LogFields,
    /// Passed on untouched.
    pub body: S,
}

/// The headers of a desk's answer that belong to the caller.
pub const DESK_HEADERS: &[&str] = &[
    "content-type",
    "cache-control",
    "location",
    "retry-after",
    "cache-status",
    "preference-applied",
    "www-authenticate",
    "ratelimit-policy",
    "ratelimit",
];

/// One desk, from the inside of its object.
pub trait DeskHost: Clock + Random + Log {
    /// Load, decide, store: what `decide` says in its [`WriteSet`] is stored in one transaction with all other calls
    /// of the same turn, before anything that was sent can be seen outside (Durable Objects: output gate).
    ///
    /// # Errors
    /// [`StorageFailed`]; then nothing that `decide` changed holds.
    fn with_desk<T>(&self, decide: impl FnOnce(&mut UserState) -> (T, WriteSet)) -> Result<T, StorageFailed>;
    /// Whether somebody in this object runs or writes that generation now.
    fn is_busy(&self, id: Uuid) -> bool;
    /// Runs `edge::generate::run` for it; the object, not the request, owns it.
    fn start(&self, id: Uuid);
    /// Waits until it is settled. `None` when nobody is busy with it.
    async fn settled(&self, id: Uuid) -> Option<Rc<Finished>>;
    /// Who follows a generation.
    type Follower: Follower;
    /// Follows it to its end, whoever else does. `None` when nobody is busy with it.
    fn follow(&self, id: Uuid) -> Option<Self::Follower>;
    /// How many follow that generation now; `None`: any generation of the user.
    fn subscribers(&self, id: Option<Uuid>) -> usize;
    /// Whether somebody follows it now: then each card is worth storing at once.
    fn is_followed(&self, id: Uuid) -> bool;
    /// Tells whoever runs it that it is to end now.
    fn stop(&self, id: Uuid);
    /// Waits until [`DeskHost::stop`] is called for it.
    async fn stopped(&self, id: Uuid);
}

/// One of those who follow a generation.
pub trait Follower {
    /// Waits until it has more than `heard` cards on the desk, or is settled.
    async fn news(&self, heard: usize) -> News;
}

/// What there is to tell of a generation.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// The cards after those that were heard; at least one.
    Cards(Vec<SessionCandidate>),
    /// It is over.
    Finished(Rc<Finished>),
    /// The storage failed.
    Lost,
}

/// An answer's body that is written piece by piece. Dropped before [`EventSink::close`], it ends as one that broke off.
pub trait EventSink {
    /// Waits until the reader has room for more.
    ///
    /// # Errors
    /// [`Unreachable`] when nobody reads it any more.
    async fn write(&mut self, piece: &[u8]) -> Result<(), Unreachable>;
    /// Ends it as it should end.
    async fn close(self);
}

/// The storage refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageFailed;
