//! A host without a platform: a virtual clock that advances only when all tasks wait, and upstreams with scripted responses.
//!
//! ```text
//! let host = ScriptedHost::new(0);
//! host.on("/chat/completions", Reply::new(200).say("data: …\n\n").wait(400).cut());
//! let answer = host.run(call(&host, …));
//! assert_eq!(host.sent()[0].at_ms, 0);
//! ```
//! Deterministic: no thread, no timer, no real time. A future that waits for an unscripted event
//! fails the test instead of hanging it.
//!
//! Not for: behaviour of a platform beyond the ports.

#![expect(clippy::expect_used, clippy::panic, reason = "an unscripted request fails the test")]

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ai_sessions::http::Request;
use ai_sessions::ports::{
    Background, Body, Clock, Fetch, Head, Incoming, IsolateMemory, Memory, Random, SharedCache, Timer,
    Unreachable, VerifyKey, VerifySignature,
};
use sha2::{Digest as _, Sha256};

/// The host. A clone is the same host.
#[derive(Clone)]
pub(crate) struct ScriptedHost {
    shared: Rc<Shared>,
}

#[derive(Default)]
struct Shared {
    now_ms: Cell<u64>,
    /// The moments that tasks wait for, since the last poll.
    awaited_ms: RefCell<Vec<u64>>,
    random_bits: Cell<u128>,
    routes: RefCell<Vec<Route>>,
    sent: RefCell<Vec<Sent>>,
    slept_ms: RefCell<Vec<u64>>,
    memory: RefCell<Memory>,
    background: RefCell<Vec<Pin<Box<dyn Future<Output = ()>>>>>,
    /// By URL: the document, and its expiry.
    cached: RefCell<HashMap<String, (Vec<u8>, u64)>>,
    signatures_checked: Cell<usize>,
}

struct Route {
    url_part: &'static str,
    once: VecDeque<Reply>,
    always: Option<Reply>,
}

/// A sent request, and the end of its connection.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    /// The time of sending.
    pub(crate) at_ms: u64,
    /// The request.
    pub(crate) request: Request,
    /// The time at which this side closed the connection.
    pub(crate) closed_ms: Option<u64>,
}

impl Sent {
    /// Returns the first header of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.request.headers.iter().find(|(header, _)| *header == name).map(|(_, value)| value.as_str())
    }
}

/// A scripted response of an upstream: a head, then the steps of its connection, one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    head_after_ms: Option<u64>,
    /// `None`: there is no connection.
    status: Option<u16>,
    headers: Vec<(&'static str, String)>,
    steps: Vec<Step>,
    ending: Ending,
}

#[derive(Debug, Clone)]
enum Step {
    Say(Vec<u8>),
    Wait(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Regular,
    Cut,
    Never,
}

impl Reply {
    /// Responds at once with this status, without headers or body.
    pub(crate) fn new(status: u16) -> Self {
        Self {
            head_after_ms: Some(0),
            status: Some(status),
            headers: Vec::new(),
            steps: Vec::new(),
            ending: Ending::Regular,
        }
    }

    /// Refuses the connection.
    pub(crate) fn unreachable() -> Self {
        Self { status: None, ..Self::new(0) }
    }

    /// Accepts the connection and sends nothing.
    pub(crate) fn silence() -> Self {
        Self { head_after_ms: None, ..Self::new(0) }
    }

    /// Delays the head.
    pub(crate) fn head_after(self, ms: u64) -> Self {
        Self { head_after_ms: Some(ms), ..self }
    }

    /// Adds a header.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sends the next bytes of the body.
    pub(crate) fn say(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.steps.push(Step::Say(bytes.as_ref().to_vec()));
        self
    }

    /// Sends nothing for so long.
    pub(crate) fn wait(mut self, ms: u64) -> Self {
        self.steps.push(Step::Wait(ms));
        self
    }

    /// Cuts the connection.
    pub(crate) fn cut(self) -> Self {
        Self { ending: Ending::Cut, ..self }
    }

    /// Sends nothing more, and no end.
    pub(crate) fn hang(self) -> Self {
        Self { ending: Ending::Never, ..self }
    }
}

impl ScriptedHost {
    /// Creates a host at this moment (milliseconds since the Unix epoch), without upstreams; its random bits are 0.
    pub(crate) fn new(now_ms: u64) -> Self {
        let shared = Rc::new(Shared::default());
        shared.now_ms.set(now_ms);
        Self { shared }
    }

    /// Scripts the response to the next request, without one so far, whose URL contains this part.
    pub(crate) fn on(&self, url_part: &'static str, reply: Reply) {
        self.with_route(url_part, |route| route.once.push_back(reply));
    }

    /// Scripts the response to every request whose URL contains this part, once those of [`on`](Self::on) are used up.
    pub(crate) fn always(&self, url_part: &'static str, reply: Reply) {
        self.with_route(url_part, |route| route.always = Some(reply));
    }

    fn with_route(&self, url_part: &'static str, change: impl FnOnce(&mut Route)) {
        let mut routes = self.shared.routes.borrow_mut();
        match routes.iter_mut().find(|route| route.url_part == url_part) {
            Some(route) => change(route),
            None => {
                let mut route = Route { url_part, once: VecDeque::new(), always: None };
                change(&mut route);
                routes.push(route);
            }
        }
    }

    /// Sets the random bits from now on.
    pub(crate) fn set_random_bits(&self, bits: u128) {
        self.shared.random_bits.set(bits);
    }

    /// Returns the requests so far.
    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.shared.sent.borrow().clone()
    }

    /// Whether every response that was scripted by [`on`](Self::on) was requested.
    pub(crate) fn is_used_up(&self) -> bool {
        self.shared.routes.borrow().iter().all(|route| route.once.is_empty())
    }

    /// Returns the duration of each timer, in the order of setting.
    pub(crate) fn slept_ms(&self) -> Vec<u64> {
        self.shared.slept_ms.borrow().clone()
    }

    /// Returns the number of checked signatures.
    pub(crate) fn signatures_checked(&self) -> usize {
        self.shared.signatures_checked.get()
    }

    /// Returns the URLs of the documents in the shared cache.
    pub(crate) fn cached_urls(&self) -> Vec<String> {
        self.shared.cached.borrow().keys().cloned().collect()
    }

    /// Drops the memory of the isolate; the cache that isolates share stays.
    pub(crate) fn replace_isolate(&self) {
        *self.shared.memory.borrow_mut() = Memory::default();
    }

    /// Advances the clock, while no task waits.
    pub(crate) fn set_now_ms(&self, now_ms: u64) {
        self.shared.now_ms.set(now_ms);
    }

    /// Runs the tasks in the background to their end.
    pub(crate) fn run_background(&self) {
        self.run(poll_fn(|_| match self.shared.background.borrow().is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }));
    }

    /// Runs a future to its end, and the tasks in the background beside it. Whenever none of them can continue, the clock
    /// jumps to the next moment that one waits for.
    pub(crate) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        loop {
            self.shared.awaited_ms.borrow_mut().clear();
            if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                return value;
            }
            if self.shared.poll_background(&mut context) {
                continue;
            }
            let next_ms = self.shared.awaited_ms.borrow().iter().copied().min();
            let next_ms = next_ms.expect("the future waits for an unscripted event");
            assert!(next_ms > self.shared.now_ms.get(), "the future waits for a moment that has passed");
            self.shared.now_ms.set(next_ms);
        }
    }
}

impl Shared {
    fn poll_until(&self, due_ms: u64) -> Poll<()> {
        if self.now_ms.get() >= due_ms {
            return Poll::Ready(());
        }
        self.awaited_ms.borrow_mut().push(due_ms);
        Poll::Pending
    }

    /// Polls all tasks in the background. Returns whether one of them has ended, so that others may continue.
    fn poll_background(&self, context: &mut Context<'_>) -> bool {
        // Taken out meanwhile: a task may add more.
        let mut works = self.background.take();
        let before = works.len();
        works.retain_mut(|work| work.as_mut().poll(context).is_pending());
        let has_ended = works.len() < before;
        let is_new = !self.background.borrow().is_empty();
        self.background.borrow_mut().splice(0..0, works);
        has_ended || is_new
    }
}

impl Clock for ScriptedHost {
    fn now_ms(&self) -> u64 {
        self.shared.now_ms.get()
    }
}

impl Timer for ScriptedHost {
    async fn sleep(&self, ms: u64) {
        self.shared.slept_ms.borrow_mut().push(ms);
        let due_ms = self.shared.now_ms.get().saturating_add(ms);
        poll_fn(|_| self.shared.poll_until(due_ms)).await;
    }
}

impl Random for ScriptedHost {
    fn random_bits(&self) -> u128 {
        self.shared.random_bits.get()
    }
}

/// The valid signature: no cryptography, which is the platform's, but it depends on every bit of the key and of the message,
/// and has the length of an ES256 signature.
pub(crate) fn scripted_signature(key: &str, message: &[u8]) -> [u8; 64] {
    let mut signature = [0; 64];
    let halves = signature.chunks_exact_mut(32).zip(["r", "s"]);
    for (half, name) in halves {
        half.copy_from_slice(
            &Sha256::new().chain_update([name, key, "\0"].concat()).chain_update(message).finalize(),
        );
    }
    signature
}

impl VerifySignature for ScriptedHost {
    async fn verify(&self, key: VerifyKey<'_>, message: &[u8], signature: &[u8]) -> bool {
        self.shared.signatures_checked.set(self.shared.signatures_checked.get() + 1);
        let key = match key {
            VerifyKey::Public(key) => &key.jwk,
            VerifyKey::Secret(secret) => secret,
        };
        signature == scripted_signature(key, message)
    }
}

impl IsolateMemory for ScriptedHost {
    fn with_memory<T>(&self, look: impl FnOnce(&mut Memory) -> T) -> T {
        look(&mut self.shared.memory.borrow_mut())
    }
}

impl Background for ScriptedHost {
    fn after_response(&self, task: impl Future<Output = ()> + 'static) {
        self.shared.background.borrow_mut().push(Box::pin(task));
    }
}

impl SharedCache for ScriptedHost {
    async fn get(&self, url: &str) -> Option<Vec<u8>> {
        let cached = self.shared.cached.borrow();
        let (document, until_ms) = cached.get(url)?;
        (self.shared.now_ms.get() <= *until_ms).then(|| document.clone())
    }

    async fn put(&self, url: &str, document: &[u8], max_age_s: u64) {
        let until_ms = self.shared.now_ms.get() + max_age_s * 1000;
        self.shared.cached.borrow_mut().insert(url.to_owned(), (document.to_vec(), until_ms));
    }
}

impl Fetch for ScriptedHost {
    type Incoming = ScriptedIncoming;

    async fn fetch(&self, request: Request) -> Result<ScriptedIncoming, Unreachable> {
        let reply = {
            let mut routes = self.shared.routes.borrow_mut();
            let route = routes
                .iter_mut()
                .filter(|route| request.url.contains(route.url_part))
                .max_by_key(|route| route.url_part.len());
            let reply = route.and_then(|route| route.once.pop_front().or_else(|| route.always.clone()));
            reply.unwrap_or_else(|| panic!("no answer is scripted for {}", request.url))
        };
        let connection = {
            let mut sent = self.shared.sent.borrow_mut();
            sent.push(Sent { at_ms: self.shared.now_ms.get(), request, closed_ms: None });
            Connection { shared: Rc::clone(&self.shared), at: sent.len() - 1 }
        };
        let Some(head_after_ms) = reply.head_after_ms else { return std::future::pending().await };
        let head_ms = self.shared.now_ms.get() + head_after_ms;
        poll_fn(|_| self.shared.poll_until(head_ms)).await;
        let status = reply.status.ok_or(Unreachable)?;

        let mut at_ms = head_ms;
        let mut arrivals = VecDeque::new();
        for step in reply.steps {
            match step {
                Step::Wait(ms) => at_ms += ms,
                Step::Say(bytes) => arrivals.push_back((at_ms, bytes)),
            }
        }
        Ok(ScriptedIncoming {
            connection,
            status,
            headers: reply.headers,
            arrivals,
            end_ms: at_ms,
            ending: reply.ending,
            arrived: Vec::new(),
            unfilled_bytes: None,
        })
    }
}

/// An open connection; dropped, it is closed.
struct Connection {
    shared: Rc<Shared>,
    at: usize,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(sent) = self.shared.sent.borrow_mut().get_mut(self.at) {
            sent.closed_ms = Some(self.shared.now_ms.get());
        }
    }
}

/// A response whose body is being received. Bytes that arrived before a cut are returned before it.
pub(crate) struct ScriptedIncoming {
    connection: Connection,
    status: u16,
    headers: Vec<(&'static str, String)>,
    arrivals: VecDeque<(u64, Vec<u8>)>,
    end_ms: u64,
    ending: Ending,
    arrived: Vec<u8>,
    /// The number of bytes that the unfilled read waits for.
    unfilled_bytes: Option<usize>,
}

impl Head for ScriptedIncoming {
    fn header(&self, name: &str) -> Option<String> {
        let values: Vec<_> = self
            .headers
            .iter()
            .filter(|(header, _)| *header == name)
            .map(|(_, value)| value.as_str())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }
}

impl Body for ScriptedIncoming {
    fn poll_next(
        &mut self,
        at_least: usize,
        _: &mut Context<'_>,
    ) -> Poll<Result<Option<Vec<u8>>, Unreachable>> {
        // A smaller read ends the one that has not filled: it returns the bytes that have arrived.
        let is_ended = self.unfilled_bytes.replace(at_least).is_some_and(|unfilled| at_least < unfilled);
        let shared = &self.connection.shared;
        while let Some((_, bytes)) = self.arrivals.pop_front_if(|(at_ms, _)| *at_ms <= shared.now_ms.get()) {
            self.arrived.extend(bytes);
        }
        let is_over =
            self.arrivals.is_empty() && shared.now_ms.get() >= self.end_ms && self.ending != Ending::Never;
        if !self.arrived.is_empty() && (is_over || is_ended || self.arrived.len() >= at_least) {
            self.unfilled_bytes = None;
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.arrived))));
        }
        if is_over {
            return Poll::Ready(if self.ending == Ending::Cut { Err(Unreachable) } else { Ok(None) });
        }
        if let Some((at_ms, _)) = self.arrivals.front() {
            shared.awaited_ms.borrow_mut().push(*at_ms);
        } else if self.ending != Ending::Never {
            shared.awaited_ms.borrow_mut().push(self.end_ms);
        }
        Poll::Pending
    }

    async fn next_of_whole(&mut self) -> Result<Option<Vec<u8>>, Unreachable> {
        poll_fn(|context| self.poll_next(usize::MAX, context)).await
    }
}

impl Incoming for ScriptedIncoming {
    fn status(&self) -> u16 {
        self.status
    }
}
