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

#![expect(clippy::panic, reason = "an unscripted request fails the test")]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use ai_sessions::http::Request;
use ai_sessions::points::Point;
use ai_sessions::ports::{
    Background, Body, Clock, Fetch, Head, Incoming, IsolateMemory, Memory, Metrics, Random, SharedCache,
    Timer, Unreachable, VerifyKey, VerifySignature,
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
    /// The moments that tasks wait for, each with a number of its own.
    awaited: RefCell<BTreeMap<(u64, u64), Waker>>,
    waits: Cell<u64>,
    random_bits: Cell<u128>,
    routes: RefCell<Vec<Route>>,
    sent: RefCell<Vec<Sent>>,
    slept_ms: RefCell<Vec<u64>>,
    memory: RefCell<Memory>,
    background: RefCell<Vec<Task>>,
    /// By URL: the document, and its expiry.
    cached: RefCell<HashMap<String, (Vec<u8>, u64)>>,
    signatures_checked: Cell<usize>,
    points: RefCell<Vec<MeasuredPoint>>,
}

/// The texts and the figures.
pub(crate) type MeasuredPoint = (Vec<String>, Vec<f64>);

struct Route {
    url_part: &'static str,
    once: VecDeque<Reply>,
    always: Option<Reply>,
    respond: Option<Respond>,
}

type Respond = Box<dyn FnMut(&Request, u64) -> Reply>;

/// A task, polled only when it was woken: a missing wake-up fails the test.
struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    woken: Arc<Woken>,
}

impl Task {
    fn new(future: impl Future<Output = ()> + 'static) -> Self {
        Self { future: Box::pin(future), woken: Arc::new(Woken(AtomicBool::new(true))) }
    }
}

struct Woken(AtomicBool);

impl Woken {
    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A wait for a moment of the clock; ended when it is dropped.
struct Waiting {
    shared: Rc<Shared>,
    key: Option<(u64, u64)>,
}

impl Waiting {
    const fn new(shared: Rc<Shared>) -> Self {
        Self { shared, key: None }
    }

    fn end(&mut self) {
        if let Some(key) = self.key.take() {
            self.shared.awaited.borrow_mut().remove(&key);
        }
    }

    fn poll(&mut self, due_ms: u64, context: &Context<'_>) -> Poll<()> {
        self.end();
        if self.shared.now_ms.get() >= due_ms {
            return Poll::Ready(());
        }
        let number = self.shared.waits.get();
        self.shared.waits.set(number + 1);
        self.key = Some((due_ms, number));
        self.shared.awaited.borrow_mut().insert((due_ms, number), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.end();
    }
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

    /// Scripts the response to every request whose URL contains this part, made of the request and the time by this function,
    /// once those of [`on`](Self::on) are used up.
    pub(crate) fn respond(
        &self,
        url_part: &'static str,
        respond: impl FnMut(&Request, u64) -> Reply + 'static,
    ) {
        self.with_route(url_part, |route| route.respond = Some(Box::new(respond)));
    }

    fn with_route(&self, url_part: &'static str, change: impl FnOnce(&mut Route)) {
        let mut routes = self.shared.routes.borrow_mut();
        match routes.iter_mut().find(|route| route.url_part == url_part) {
            Some(route) => change(route),
            None => {
                let mut route = Route { url_part, once: VecDeque::new(), always: None, respond: None };
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

    /// Returns the measured points.
    pub(crate) fn points(&self) -> Vec<MeasuredPoint> {
        self.shared.points.borrow().clone()
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

    /// Adds a task in the background.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.shared.background.borrow_mut().push(Task::new(task));
    }

    /// Whether there are tasks in the background.
    pub(crate) fn has_background(&self) -> bool {
        !self.shared.background.borrow().is_empty()
    }

    /// Runs the tasks in the background to their end.
    pub(crate) fn run_background(&self) {
        while self.has_background() {
            assert!(self.step(u64::MAX), "a task waits for something that no script brings");
        }
    }

    /// Polls the woken tasks of the background; where there is none, advances the clock to the next moment that a task waits
    /// for, but not beyond `until_ms`. Returns whether it did one of the two.
    pub(crate) fn step(&self, until_ms: u64) -> bool {
        self.shared.wake_due();
        self.shared.poll_background() || self.shared.jump(until_ms)
    }

    /// Runs a future to its end, and the tasks in the background beside it. Whenever none of them is woken, the clock jumps
    /// to the next moment that one waits for.
    pub(crate) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&woken));
        self.shared.wake_due();
        loop {
            if woken.take()
                && let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker))
            {
                return value;
            }
            let is_woken = self.shared.poll_background() || woken.0.load(Ordering::Relaxed);
            assert!(
                is_woken || self.shared.jump(u64::MAX),
                "the future waits for something that no script brings"
            );
        }
    }
}

impl Shared {
    /// Wakes the tasks whose moment has come.
    fn wake_due(&self) {
        let later = self.awaited.borrow_mut().split_off(&(self.now_ms.get() + 1, 0));
        let due = self.awaited.replace(later);
        due.into_values().for_each(Waker::wake);
    }

    /// Moves the clock to the next moment that a task waits for.
    fn jump(&self, until_ms: u64) -> bool {
        let next = self.awaited.borrow().keys().next().map(|(due_ms, _)| *due_ms);
        let Some(next_ms) = next.filter(|next_ms| *next_ms <= until_ms) else { return false };
        self.now_ms.set(next_ms.max(self.now_ms.get()));
        self.wake_due();
        true
    }

    /// Polls the woken tasks in the background. Whether there was one.
    fn poll_background(&self) -> bool {
        // Taken out meanwhile: a task may add more.
        let mut tasks = self.background.take();
        let mut has_polled = false;
        tasks.retain_mut(|task| {
            if !task.woken.take() {
                return true;
            }
            has_polled = true;
            let waker = Waker::from(Arc::clone(&task.woken));
            task.future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending()
        });
        self.background.borrow_mut().splice(0..0, tasks);
        has_polled
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
        let mut waiting = Waiting::new(Rc::clone(&self.shared));
        poll_fn(|context| waiting.poll(due_ms, context)).await;
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

impl Metrics for ScriptedHost {
    fn measure(&self, point: &Point<'_>) {
        let texts = point.texts.iter().map(|text| (*text).to_owned()).collect();
        self.shared.points.borrow_mut().push((texts, point.figures.to_vec()));
    }
}

impl Background for ScriptedHost {
    fn after_response(&self, task: impl Future<Output = ()> + 'static) {
        self.spawn(task);
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
            let reply = route.and_then(|route| {
                let once = route.once.pop_front().or_else(|| route.always.clone());
                let now_ms = self.shared.now_ms.get();
                once.or_else(|| route.respond.as_mut().map(|respond| respond(&request, now_ms)))
            });
            reply.unwrap_or_else(|| panic!("no answer is scripted for {}", request.url))
        };
        let connection = {
            let mut sent = self.shared.sent.borrow_mut();
            sent.push(Sent { at_ms: self.shared.now_ms.get(), request, closed_ms: None });
            Connection { shared: Rc::clone(&self.shared), at: sent.len() - 1 }
        };
        let Some(head_after_ms) = reply.head_after_ms else { return std::future::pending().await };
        let head_ms = self.shared.now_ms.get() + head_after_ms;
        let mut waiting = Waiting::new(Rc::clone(&self.shared));
        poll_fn(|context| waiting.poll(head_ms, context)).await;
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
            waiting,
            status,
            headers: reply.headers,
            arrivals,
            end_ms: at_ms,
            ending: reply.ending,
            arrived: Vec::new(),
            wanted: None,
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
    waiting: Waiting,
    status: u16,
    headers: Vec<(&'static str, String)>,
    arrivals: VecDeque<(u64, Vec<u8>)>,
    end_ms: u64,
    ending: Ending,
    arrived: Vec<u8>,
    /// The number of bytes that the read in progress still waits for.
    wanted: Option<usize>,
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
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Vec<u8>>, Unreachable>> {
        let wanted = *self.wanted.get_or_insert(at_least);
        self.waiting.end();
        self.arrive();
        let now_ms = self.connection.shared.now_ms.get();
        let is_over = self.arrivals.is_empty() && now_ms >= self.end_ms && self.ending != Ending::Never;
        if !self.arrived.is_empty() && (is_over || self.arrived.len() >= wanted) {
            self.wanted = None;
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.arrived))));
        }
        if is_over {
            return Poll::Ready(if self.ending == Ending::Cut { Err(Unreachable) } else { Ok(None) });
        }
        let next_ms = self.arrivals.front().map(|(at_ms, _)| *at_ms);
        if let Some(next_ms) = next_ms.or((self.ending != Ending::Never).then_some(self.end_ms)) {
            let _ = self.waiting.poll(next_ms, context);
        }
        Poll::Pending
    }

    fn look(&mut self) -> Vec<u8> {
        self.arrive();
        self.wanted = self.wanted.map(|wanted| wanted.saturating_sub(self.arrived.len()).max(1));
        std::mem::take(&mut self.arrived)
    }

    async fn next_of_whole(&mut self) -> Result<Option<Vec<u8>>, Unreachable> {
        poll_fn(|context| self.poll_next(usize::MAX, context)).await
    }
}

impl ScriptedIncoming {
    /// Receives what has been sent until now.
    fn arrive(&mut self) {
        let now_ms = self.connection.shared.now_ms.get();
        while let Some((_, bytes)) = self.arrivals.pop_front_if(|(at_ms, _)| *at_ms <= now_ms) {
            self.arrived.extend(bytes);
        }
    }
}

impl Incoming for ScriptedIncoming {
    fn status(&self) -> u16 {
        self.status
    }
}
