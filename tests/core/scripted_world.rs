//! The service whole, natively: the edge, the user objects, their store, the database, the model API, clients.
//!
//! ```text
//! let world = World::new(Mode::Rows);
//! world.model(answer(2));
//! let created = world.request(post().key("k"));
//! assert_eq!((created.status, world.model_calls()), (201, 1));
//! ```
//! Commands and replies cross the border between edge and object in the form of `edge::wire`. An object can crash after any
//! poll of its tasks; its store stays.

#![expect(clippy::expect_used, clippy::panic, reason = "what no script foresees is a failed test")]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::num::NonZeroU32;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ai_sessions::config::{Config, LogLevel, Misconfigured, Platform};
use ai_sessions::edge::events::write_events;
use ai_sessions::edge::execute::{Received, UserObjectError, UserObjects};
use ai_sessions::edge::handle::handle;
use ai_sessions::edge::render::Outgoing;
use ai_sessions::edge::wire::{read_command, read_reply, write_command, write_reply};
use ai_sessions::http::Request;
use ai_sessions::http::problem::ProblemContext;
use ai_sessions::points::Point;
use ai_sessions::ports::{
    Assets, Background, Clock, Fetch, Head, IsolateMemory, Lease, Log, Memory, Metrics, Polled, Random,
    SharedCache, Spawn, StoreError, Timer, Trace, Unreachable, UserStore, VerifyKey, VerifySignature,
};
use ai_sessions::user_object::UserObject;
use ai_sessions::user_object::command::Command;
use ai_sessions::user_state::{UserState, WriteSet};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::scripted_client::{
    Client, ClientBody, ClientRequest, ClientResponse, ClientSink, Takes, USER, get_events,
};
use crate::scripted_database::ScriptedDatabase;
pub(crate) use crate::scripted_host::MeasuredPoint;
use crate::scripted_host::{Reply, ScriptedHost, ScriptedIncoming, scripted_signature};
use crate::scripted_model::answer;
use crate::scripted_store::{LEASE_MS, Mode, ScriptedStore};

pub(crate) const START_MS: u64 = 1_800_000_000_000;
const SUPABASE_URL: &str = "https://p.supabase.co";
const JWT_SECRET: &str = "the secret that the project signs with";
/// A failed alarm is set again after this time.
const ALARM_AGAIN_MS: u64 = 60_000;
/// The platform repeats an alarm whose handler crashed after this time.
const ALARM_REPEATED_MS: u64 = 2_000;
/// Isolates that replace ended ones are numbered from here.
const FIRST_NEW_ISOLATE: usize = 100;

/// A clone is the same world; with a number, it is the isolate that handles a request.
#[derive(Clone)]
pub(crate) struct World(Rc<Shared>, Option<usize>);

fn owned(point: &Point<'_>) -> MeasuredPoint {
    (point.texts.iter().map(|text| (*text).to_owned()).collect(), point.figures.to_vec())
}

struct Shared {
    host: ScriptedHost,
    mode: Mode,
    config: Result<Rc<Config>, Misconfigured>,
    database: ScriptedDatabase,
    answers: Rc<RefCell<VecDeque<Reply>>>,
    model_calls: Rc<Cell<usize>>,
    model_requests: Rc<RefCell<Vec<Request>>>,
    stores: RefCell<BTreeMap<Uuid, ScriptedStore>>,
    /// By user and isolate.
    objects: RefCell<BTreeMap<(Uuid, usize), Slot>>,
    /// The isolate that gets the next requests.
    isolate: Cell<usize>,
    isolates_begun: Cell<usize>,
    random: Rc<Cell<u128>>,
    log: Rc<RefCell<Vec<(LogLevel, String)>>>,
    points: Rc<RefCell<Vec<MeasuredPoint>>>,
    spans: Rc<RefCell<Vec<String>>>,
    is_traced: Cell<bool>,
    deliveries: RefCell<VecDeque<Delivery>>,
    commands: Cell<usize>,
    woken: RefCell<Vec<Uuid>>,
    clients: RefCell<VecDeque<Vec<Takes>>>,
    assets: RefCell<HashMap<String, Vec<u8>>>,
    /// Whether each port of an object waits a moment before and after its effect.
    has_yields: Cell<bool>,
    crash_after: Cell<Option<usize>>,
    /// When an object has ended by [`World::crash_after`].
    crashed_ms: Rc<Cell<Option<u64>>>,
}

struct Slot {
    store: ScriptedStore,
    running: Option<(UserObject<ObjectHost>, Rc<Process>)>,
}

/// How a command and its reply are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    Regular,
    LostCommand,
    LostReply,
    Overloaded,
    /// The platform replies, not the object.
    NoReply,
}

// The process of an object.

/// The tasks of one object, which end together.
pub(crate) struct Process {
    host: ScriptedHost,
    has_ended: Cell<bool>,
    polls: Cell<usize>,
    crash_after: Cell<Option<usize>>,
    crashed_ms: Rc<Cell<Option<u64>>>,
    wakers: RefCell<Vec<Waker>>,
}

impl Process {
    fn end(&self) {
        self.has_ended.set(true);
        self.wakers.take().into_iter().for_each(Waker::wake);
    }
}

/// As on workerd, a task runs up to its first wait in the turn that spawned it, also when the process ends after that turn.
struct TaskOfProcess {
    process: Rc<Process>,
    has_begun: bool,
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Future for TaskOfProcess {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.process.has_ended.get() && std::mem::replace(&mut self.has_begun, true) {
            self.future = None;
            return Poll::Ready(());
        }
        self.has_begun = true;
        let mut wakers = self.process.wakers.borrow_mut();
        if !wakers.iter().any(|known| known.will_wake(context.waker())) {
            wakers.push(context.waker().clone());
        }
        drop(wakers);
        let Some(future) = &mut self.future else { return Poll::Ready(()) };
        let polled = future.as_mut().poll(context);
        let polls = self.process.polls.get() + 1;
        self.process.polls.set(polls);
        if self.process.has_ended.get() || self.process.crash_after.get() == Some(polls) {
            self.process.crashed_ms.set(Some(self.process.host.now_ms()));
            self.process.end();
            self.future = None;
            return Poll::Ready(());
        }
        if polled.is_ready() {
            self.future = None;
        }
        polled
    }
}

/// A value that another task waits for; `None` when its sender is dropped.
struct Promise<T>(Rc<RefCell<Promised<T>>>);

struct Sender<T>(Rc<RefCell<Promised<T>>>);

struct Promised<T> {
    value: Option<T>,
    is_over: bool,
    waker: Option<Waker>,
}

fn promise<T>() -> (Sender<T>, Promise<T>) {
    let promised = Rc::new(RefCell::new(Promised { value: None, is_over: false, waker: None }));
    (Sender(Rc::clone(&promised)), Promise(promised))
}

impl<T> Sender<T> {
    fn send(self, value: T) {
        self.0.borrow_mut().value = Some(value);
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut promised = self.0.borrow_mut();
        promised.is_over = true;
        if let Some(waker) = promised.waker.take() {
            waker.wake();
        }
    }
}

impl<T> Future for Promise<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut promised = self.0.borrow_mut();
        if promised.is_over {
            return Poll::Ready(promised.value.take());
        }
        promised.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

async fn yield_once() {
    let mut has_yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The host of one user object.
#[derive(Clone)]
pub(crate) struct ObjectHost {
    host: ScriptedHost,
    store: ScriptedStore,
    process: Rc<Process>,
    random: Rc<Cell<u128>>,
    log: Rc<RefCell<Vec<(LogLevel, String)>>>,
    points: Rc<RefCell<Vec<MeasuredPoint>>>,
    spans: Rc<RefCell<Vec<String>>>,
    is_traced: bool,
    has_yields: bool,
}

impl ObjectHost {
    async fn pause(&self) {
        if self.has_yields {
            yield_once().await;
        }
    }
}

impl UserStore for ObjectHost {
    async fn transact(&self, decide: &mut dyn FnMut(&mut UserState) -> WriteSet) -> Result<(), StoreError> {
        self.pause().await;
        let stored = self.store.transact(decide).await;
        self.pause().await;
        stored
    }

    async fn peek(&self, look: &mut dyn FnMut(&UserState)) -> Result<(), StoreError> {
        self.pause().await;
        self.store.peek(look)
    }

    /// Part of the same write as the transaction before, as on workerd.
    async fn set_alarm(&self, at_ms: u64) -> Result<(), StoreError> {
        let set = self.store.set_alarm(at_ms, self.host.now_ms());
        self.pause().await;
        set
    }

    async fn delete(&self) -> Result<(), StoreError> {
        // Longer than a transaction.
        for _ in 0..5 {
            self.pause().await;
        }
        self.store.delete()
    }

    fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    async fn renew(&self, id: Uuid) -> Result<Lease, StoreError> {
        self.pause().await;
        self.store.renew(id)
    }

    async fn poll(&self, id: Uuid, from: usize) -> Result<Option<Polled>, StoreError> {
        self.pause().await;
        let polled = self.store.poll(id, from);
        if self.store.poll_delay_ms() > 0 {
            self.host.sleep(self.store.poll_delay_ms()).await;
        }
        polled
    }

    async fn request_stop(&self, id: Uuid, started_ms: u64) -> Result<bool, StoreError> {
        self.pause().await;
        self.store.request_stop(id, started_ms)
    }
}

impl Fetch for ObjectHost {
    type Incoming = ScriptedIncoming;

    async fn fetch(&self, request: Request) -> Result<ScriptedIncoming, Unreachable> {
        self.pause().await;
        let response = self.host.fetch(request).await;
        self.pause().await;
        response
    }
}

impl Timer for ObjectHost {
    async fn sleep(&self, ms: u64) {
        self.host.sleep(ms).await;
    }
}

impl Clock for ObjectHost {
    fn now_ms(&self) -> u64 {
        self.host.now_ms()
    }
}

fn next_random(random: &Cell<u128>) -> u128 {
    // Every id differs, in its first bits, too.
    let number = random.get() + 1;
    random.set(number);
    number << 64 | number
}

impl Random for ObjectHost {
    fn random_bits(&self) -> u128 {
        next_random(&self.random)
    }
}

impl Log for ObjectHost {
    fn log(&self, level: LogLevel, line: &str) {
        self.log.borrow_mut().push((level, line.to_owned()));
    }
}

impl Metrics for ObjectHost {
    fn measure(&self, point: &Point<'_>) {
        self.points.borrow_mut().push(owned(point));
    }
}

/// Records a span by its name once it begins, and with a `/` before it once it ends.
impl Trace for ObjectHost {
    fn begin_span(&self, name: &'static str) -> Option<NonZeroU32> {
        let mut spans = self.spans.borrow_mut();
        spans.push(name.to_owned());
        let number = u32::try_from(spans.len()).ok().and_then(NonZeroU32::new);
        number.filter(|_| self.is_traced)
    }

    fn end_span(&self, number: NonZeroU32) {
        let mut spans = self.spans.borrow_mut();
        let index = usize::try_from(number.get()).expect("a small number") - 1;
        let ended = ["/", spans.get(index).expect("it has begun")].concat();
        spans.push(ended);
    }
}

impl Spawn for ObjectHost {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let process = Rc::clone(&self.process);
        self.host.spawn(TaskOfProcess { process, has_begun: false, future: Some(Box::pin(task)) });
    }
}

// The edge.

impl Fetch for World {
    type Incoming = ScriptedIncoming;

    async fn fetch(&self, request: Request) -> Result<ScriptedIncoming, Unreachable> {
        self.0.host.fetch(request).await
    }
}

impl Timer for World {
    async fn sleep(&self, ms: u64) {
        self.0.host.sleep(ms).await;
    }
}

impl Clock for World {
    fn now_ms(&self) -> u64 {
        self.0.host.now_ms()
    }
}

impl Random for World {
    fn random_bits(&self) -> u128 {
        next_random(&self.0.random)
    }
}

impl VerifySignature for World {
    async fn verify(&self, key: VerifyKey<'_>, message: &[u8], signature: &[u8]) -> bool {
        self.0.host.verify(key, message, signature).await
    }
}

impl IsolateMemory for World {
    fn with_memory<T>(&self, look: impl FnOnce(&mut Memory) -> T) -> T {
        self.0.host.with_memory(look)
    }
}

impl Background for World {
    fn after_response(&self, task: impl Future<Output = ()> + 'static) {
        self.0.host.after_response(task);
    }
}

impl SharedCache for World {
    async fn get(&self, url: &str) -> Option<Vec<u8>> {
        self.0.host.get(url).await
    }

    async fn put(&self, url: &str, document: &[u8], max_age_s: u64) {
        self.0.host.put(url, document, max_age_s).await;
    }
}

impl Assets for World {
    async fn asset(&self, name: &str) -> Option<Vec<u8>> {
        self.0.assets.borrow().get(name).cloned()
    }
}

impl Log for World {
    fn log(&self, level: LogLevel, line: &str) {
        self.0.log.borrow_mut().push((level, line.to_owned()));
    }
}

impl Metrics for World {
    fn measure(&self, point: &Point<'_>) {
        self.0.points.borrow_mut().push(owned(point));
    }
}

impl UserObjects for World {
    type Body = ClientBody;

    async fn execute(
        &self,
        command: &Command,
        context: &ProblemContext,
    ) -> Result<Received<ClientBody>, UserObjectError> {
        let delivery = self.0.deliveries.borrow_mut().pop_front().unwrap_or(Delivery::Regular);
        match delivery {
            Delivery::LostCommand | Delivery::NoReply => return Err(UserObjectError::Unreachable),
            Delivery::Overloaded => return Err(UserObjectError::Overloaded),
            Delivery::Regular | Delivery::LostReply => {}
        }
        self.0.commands.set(self.0.commands.get() + 1);
        let bytes = write_command(command, context);
        let (object, process) = self.object(command.user_id);
        let store = self.store_of(command.user_id);
        let (sender, reply) = promise();
        let world = self.clone();
        let host = object.host().clone();
        host.clone().spawn(async move {
            let (command, context) = read_command(&bytes).expect("a command is read as it was written");
            let (mut executed, subscription) = object.execute(&command).await;
            let (reply, document) = write_reply(&mut executed);
            let body = match subscription {
                None => ClientBody::Complete(document),
                Some(subscription) => {
                    let takes = world.0.clients.borrow_mut().pop_front().unwrap_or_default();
                    let client = Rc::new(Client::default());
                    let takes = VecDeque::from(takes);
                    let database = world.0.database.clone();
                    let sink = ClientSink {
                        host: world.0.host.clone(),
                        store,
                        database,
                        takes,
                        client: Rc::clone(&client),
                    };
                    let writer = host.clone();
                    host.spawn(async move {
                        let _ = write_events(&writer, &subscription, &context, sink).await;
                    });
                    ClientBody::Stream(client)
                }
            };
            sender.send((reply, body));
        });
        drop(process);
        let (reply, body) = reply.await.ok_or(UserObjectError::Unreachable)?;
        if delivery == Delivery::LostReply {
            return Err(UserObjectError::Unreachable);
        }
        let executed = read_reply(&reply).expect("a reply is read as it was written");
        Ok(Received { executed, body })
    }

    fn wake_up(&self, user_id: Uuid) {
        self.0.woken.borrow_mut().push(user_id);
    }
}

/// A request on its way.
#[derive(Clone)]
pub(crate) struct Call(Rc<RefCell<Option<ClientResponse>>>);

impl Call {
    /// Whether the response has been received.
    pub(crate) fn is_answered(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// The response.
    pub(crate) fn response(&self) -> ClientResponse {
        self.0.borrow_mut().take().expect("there is a response")
    }
}

impl World {
    /// A world with the default settings.
    pub(crate) fn new(mode: Mode) -> Self {
        Self::with(mode, &[])
    }

    /// A world with these variables.
    pub(crate) fn with(mode: Mode, variables: &[(&str, &str)]) -> Self {
        Self::on(Platform::Cloudflare, mode, variables)
    }

    /// The users whose due jobs a request without a user has started.
    pub(crate) fn woken(&self) -> Vec<Uuid> {
        self.0.woken.borrow().clone()
    }

    /// A world with these variables on a platform.
    pub(crate) fn on(platform: Platform, mode: Mode, variables: &[(&str, &str)]) -> Self {
        let config = Config::read(platform, |name| {
            let set = variables.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
            let value = set.or(match name {
                "SUPABASE_URL" => Some(SUPABASE_URL),
                "SUPABASE_ANON_KEY" => Some("the anon key"),
                "OPENROUTER_API_KEY" => Some("the key of the model API"),
                "OPENROUTER_BASE_URL" => Some("https://model.example/v1"),
                "SERVICE_SECRET" => Some("the secret of the service's own hashes"),
                "SUPABASE_JWT_SECRET" => Some(JWT_SECRET),
                "ALLOWED_MODELS" => Some("a/one,b/two"),
                "ALLOWED_ORIGINS" => Some("https://page.example"),
                _ => None,
            });
            value.map(str::to_owned)
        });
        let host = ScriptedHost::new(START_MS);
        let answers: Rc<RefCell<VecDeque<Reply>>> = Rc::default();
        let model_calls: Rc<Cell<usize>> = Rc::default();
        let model_requests: Rc<RefCell<Vec<Request>>> = Rc::default();
        let (queue, calls, requests) =
            (Rc::clone(&answers), Rc::clone(&model_calls), Rc::clone(&model_requests));
        host.respond("/chat/completions", move |request, _| {
            calls.set(calls.get() + 1);
            requests.borrow_mut().push(request.clone());
            queue.borrow_mut().pop_front().unwrap_or_else(|| answer(3))
        });
        let database = ScriptedDatabase::on(&host);
        Self(
            Rc::new(Shared {
                host,
                mode,
                config: config.map(Rc::new),
                database,
                answers,
                model_calls,
                model_requests,
                stores: RefCell::default(),
                objects: RefCell::default(),
                isolate: Cell::default(),
                isolates_begun: Cell::default(),
                random: Rc::default(),
                log: Rc::default(),
                points: Rc::default(),
                spans: Rc::default(),
                is_traced: Cell::default(),
                deliveries: RefCell::default(),
                commands: Cell::default(),
                woken: RefCell::default(),
                clients: RefCell::default(),
                assets: RefCell::default(),
                has_yields: Cell::default(),
                crash_after: Cell::default(),
                crashed_ms: Rc::default(),
            }),
            None,
        )
    }

    fn isolate(&self) -> usize {
        self.1.unwrap_or_else(|| self.0.isolate.get())
    }

    /// The time.
    pub(crate) fn host_now(&self) -> u64 {
        self.0.host.now_ms()
    }

    /// The host below.
    pub(crate) fn host(&self) -> &ScriptedHost {
        &self.0.host
    }

    /// The database.
    pub(crate) fn database(&self) -> &ScriptedDatabase {
        &self.0.database
    }

    /// The store of the default user.
    pub(crate) fn store(&self) -> ScriptedStore {
        self.store_of(USER)
    }

    fn store_of(&self, user: Uuid) -> ScriptedStore {
        self.with_slot((user, self.isolate()), |slot| slot.store.clone())
    }

    /// Sends the next requests to that isolate, which shares the state with the others.
    pub(crate) fn use_isolate(&self, isolate: usize) {
        self.0.isolate.set(isolate);
    }

    fn with_slot<T>(&self, (user, isolate): (Uuid, usize), look: impl FnOnce(&mut Slot) -> T) -> T {
        let mut stores = self.0.stores.borrow_mut();
        let store = stores.entry(user).or_insert_with(|| ScriptedStore::new(&self.0.host, self.0.mode));
        let mut objects = self.0.objects.borrow_mut();
        let slot = objects
            .entry((user, isolate))
            .or_insert_with(|| Slot { store: store.for_isolate(isolate), running: None });
        look(slot)
    }

    fn object(&self, user: Uuid) -> (UserObject<ObjectHost>, Rc<Process>) {
        self.object_in(user, self.isolate())
    }

    fn object_in(&self, user: Uuid, isolate: usize) -> (UserObject<ObjectHost>, Rc<Process>) {
        let config = self.0.config.as_ref().expect("the settings are valid");
        self.with_slot((user, isolate), |slot| {
            if let Some((object, process)) = &slot.running
                && !process.has_ended.get()
            {
                return (object.clone(), Rc::clone(process));
            }
            slot.store.forget();
            if slot.running.is_some() && slot.store.is_shared() {
                // A new isolate in its place: the leases of the one before are not its own.
                self.0.isolates_begun.set(self.0.isolates_begun.get() + 1);
                slot.store = slot.store.for_isolate(FIRST_NEW_ISOLATE + self.0.isolates_begun.get());
            }
            let process = Rc::new(Process {
                host: self.0.host.clone(),
                has_ended: Cell::default(),
                polls: Cell::default(),
                crash_after: Cell::new(self.0.crash_after.take()),
                crashed_ms: Rc::clone(&self.0.crashed_ms),
                wakers: RefCell::default(),
            });
            let host = ObjectHost {
                host: self.0.host.clone(),
                store: slot.store.clone(),
                process: Rc::clone(&process),
                random: Rc::clone(&self.0.random),
                log: Rc::clone(&self.0.log),
                points: Rc::clone(&self.0.points),
                spans: Rc::clone(&self.0.spans),
                is_traced: self.0.is_traced.get(),
                has_yields: self.0.has_yields.get(),
            };
            let object = UserObject::new(host, Rc::clone(config));
            slot.running = Some((object.clone(), Rc::clone(&process)));
            (object, process)
        })
    }

    /// The next answers of the model; after them it answers with three candidates.
    pub(crate) fn model(&self, answer: Reply) {
        self.0.answers.borrow_mut().push_back(answer);
    }

    /// How many model calls were made: each is billed.
    pub(crate) fn model_calls(&self) -> usize {
        self.0.model_calls.get()
    }

    /// The requests to the model API.
    pub(crate) fn model_requests(&self) -> Vec<Request> {
        self.0.model_requests.borrow().clone()
    }

    /// How many commands reached an object.
    pub(crate) fn commands(&self) -> usize {
        self.0.commands.get()
    }

    /// How the next commands are delivered.
    pub(crate) fn deliver(&self, deliveries: &[Delivery]) {
        self.0.deliveries.borrow_mut().extend(deliveries);
    }

    /// How the client of the next stream takes its chunks; those of later streams take them at once.
    pub(crate) fn next_client(&self, takes: &[Takes]) {
        self.0.clients.borrow_mut().push_back(takes.to_vec());
    }

    /// Adds an asset.
    pub(crate) fn add_asset(&self, name: &str, bytes: &[u8]) {
        self.0.assets.borrow_mut().insert(name.to_owned(), bytes.to_vec());
    }

    /// The lines of the log.
    pub(crate) fn log_lines(&self) -> Vec<Value> {
        let log = self.0.log.borrow();
        log.iter().map(|(_, line)| serde_json::from_str(line).expect("a line is JSON")).collect()
    }

    /// The whole log.
    pub(crate) fn log_text(&self) -> String {
        self.0.log.borrow().iter().map(|(_, line)| [line, "\n"].concat()).collect()
    }

    /// The measured points.
    pub(crate) fn points(&self) -> Vec<MeasuredPoint> {
        self.0.points.borrow().clone()
    }

    /// Samples the traces of later objects.
    pub(crate) fn trace(&self) {
        self.0.is_traced.set(true);
    }

    /// The spans in the order of their begins and ends; an end has a `/` before the name.
    pub(crate) fn spans(&self) -> Vec<String> {
        self.0.spans.borrow().clone()
    }

    /// Makes each port of the objects wait a moment, so that a crash can happen before and after its effect.
    pub(crate) fn yield_at_ports(&self) {
        self.0.has_yields.set(true);
    }

    /// The process of the next object ends after so many polls of its tasks.
    pub(crate) fn crash_after(&self, polls: usize) {
        self.0.crash_after.set(Some(polls));
    }

    /// The process of the running object ends after so many more polls of its tasks.
    pub(crate) fn crash_in(&self, polls: usize) {
        let (_, process) = self.object(USER);
        process.crash_after.set(Some(process.polls.get() + polls));
    }

    /// Whether an object has ended by [`World::crash_after`].
    pub(crate) fn was_crashed(&self) -> bool {
        self.0.crashed_ms.get().is_some()
    }

    /// When an object has ended by [`World::crash_after`].
    pub(crate) fn crashed_ms(&self) -> Option<u64> {
        self.0.crashed_ms.get()
    }

    /// The isolate releases its leases, as before its end.
    pub(crate) fn release_leases(&self) {
        let (object, _) = self.object(USER);
        self.0.host.spawn(async move { object.release_leases().await.expect("the store is up") });
        self.run_for(0);
    }

    /// What is used of `burst`, `generations` and `attempts`.
    pub(crate) fn used(&self, state: &UserState) -> [u32; 3] {
        let policies = &self.0.config.as_ref().expect("the settings are valid").rate_limit;
        let counts = [policies.burst.count, policies.generations.count, policies.attempts.count];
        let status = state.ledger.status(policies, self.now_ms());
        let mut used = counts.iter().zip(status.counts).map(|(count, status)| count - status.remaining);
        [(); 3].map(|()| used.next().expect("three policies"))
    }

    /// What remains of `spend`, in nanodollars.
    pub(crate) fn remaining_money(&self, state: &UserState) -> u64 {
        let policies = &self.0.config.as_ref().expect("the settings are valid").rate_limit;
        state.ledger.status(policies, self.now_ms()).spend.expect("it is configured").remaining
    }

    /// The process of the object ends.
    pub(crate) fn crash(&self) {
        self.with_slot((USER, self.isolate()), |slot| {
            if let Some((_, process)) = &slot.running {
                process.end();
            }
            slot.store.forget();
        });
        // The tasks are dropped.
        while self.0.host.step(self.now_ms()) {}
    }

    /// The owner reads the events of each session that is not persisted, once the lease of an ended isolate has expired: without that, no isolate
    /// resumes a generation of a shared state.
    pub(crate) fn let_owner_return(&self) {
        if self.0.mode != Mode::Shared {
            return;
        }
        self.run_for(LEASE_MS);
        for generation in self.store().state().generations {
            self.request(get_events(generation.accepted.id));
        }
    }

    /// A token of a user that expires after so long.
    pub(crate) fn token(&self, user: Uuid, token_ms: u64) -> String {
        let now_s = self.now_ms() / 1000;
        let expires_s = now_s + token_ms / 1000;
        let claims = json!({
            "iss": format!("{SUPABASE_URL}/auth/v1"), "aud": "authenticated", "role": "authenticated",
            "sub": user, "iat": now_s, "exp": expires_s,
        });
        let header = base64url(br#"{"alg":"HS256","typ":"JWT"}"#);
        let signed = [&header, ".", &base64url(claims.to_string().as_bytes())].concat();
        let signature = base64url(&scripted_signature(JWT_SECRET, signed.as_bytes()));
        let token = [&signed, ".", &signature].concat();
        self.0.database.accept(&token, user, expires_s * 1000);
        token
    }

    /// Sends a request.
    pub(crate) fn send(&self, request: ClientRequest) -> Call {
        let mut request = request;
        if let Some(user) = request.user
            && request.header("authorization").is_none()
        {
            let token = self.token(user, request.token_ms);
            request = request.with("authorization", &["Bearer ", &token].concat());
        }
        let call = Call(Rc::default());
        let (world, slot) = (Self(Rc::clone(&self.0), Some(self.isolate())), Rc::clone(&call.0));
        self.0.host.spawn(async move {
            let outgoing = handle(&world, &world.0.config, request).await;
            let (response, body) = match outgoing {
                Outgoing::Complete(response) => {
                    let body = ClientBody::Complete(response.body.clone());
                    (response, body)
                }
                Outgoing::Forwarded(head, body) => (head, body),
            };
            let response = ClientResponse { status: response.status, headers: response.headers, body };
            *slot.borrow_mut() = Some(response);
        });
        call
    }

    /// Sends a request, and waits for the response.
    pub(crate) fn request(&self, request: ClientRequest) -> ClientResponse {
        let call = self.send(request);
        self.wait(&call)
    }

    /// Waits for the response.
    pub(crate) fn wait(&self, call: &Call) -> ClientResponse {
        self.run_while(|| !call.is_answered(), u64::MAX);
        call.response()
    }

    /// Waits until no task goes on; alarms go off meanwhile.
    pub(crate) fn run_tasks(&self) {
        self.run_while(|| self.0.host.has_background(), u64::MAX);
    }

    /// Lets so much time pass.
    pub(crate) fn run_for(&self, ms: u64) {
        let end_ms = self.now_ms() + ms;
        self.run_while(|| true, end_ms);
    }

    /// Waits until no task goes on and no alarm is set.
    pub(crate) fn run_to_idle(&self) {
        self.run_while(|| self.0.host.has_background() || self.next_alarm().is_some(), u64::MAX);
    }

    fn next_alarm(&self) -> Option<(u64, (Uuid, usize))> {
        let objects = self.0.objects.borrow();
        let alarms = objects.iter().filter_map(|(place, slot)| Some((slot.store.alarm_ms()?, *place)));
        alarms.min()
    }

    fn run_while(&self, condition: impl Fn() -> bool, end_ms: u64) {
        for _ in 0..1_000_000 {
            if !condition() {
                return;
            }
            let alarm = self.next_alarm();
            if let Some((at_ms, place)) = alarm
                && at_ms <= self.now_ms()
            {
                self.fire_alarm_of(place);
                continue;
            }
            let until_ms = alarm.map_or(end_ms, |(at_ms, _)| at_ms.min(end_ms));
            if self.0.host.step(until_ms) {
                continue;
            }
            assert_ne!(until_ms, u64::MAX, "a task waits for something that no script brings");
            self.0.host.set_now_ms(until_ms.max(self.now_ms()));
            if until_ms == end_ms {
                return;
            }
        }
        panic!("the tasks never come to rest");
    }

    /// The alarm goes off.
    pub(crate) fn fire_alarm(&self, user: Uuid) {
        self.fire_alarm_of((user, self.isolate()));
    }

    fn fire_alarm_of(&self, (user, isolate): (Uuid, usize)) {
        let store = self.with_slot((user, isolate), |slot| slot.store.clone());
        store.take_alarm();
        let (object, _) = self.object_in(user, isolate);
        let host = object.host().clone();
        let handled =
            HandledAlarm { store: store.clone(), host: self.0.host.clone(), is_done: Cell::new(false) };
        host.clone().spawn(async move {
            let handled = handled;
            if object.run_alarm().await.is_err() {
                host.log(LogLevel::Error, r#"{"level":"error","message":"alarm failed"}"#);
                let _ = store.set_alarm(host.now_ms() + ALARM_AGAIN_MS, host.now_ms());
            }
            handled.is_done.set(true);
        });
    }
}

/// The platform repeats an alarm whose handler crashed.
struct HandledAlarm {
    store: ScriptedStore,
    host: ScriptedHost,
    is_done: Cell<bool>,
}

impl Drop for HandledAlarm {
    fn drop(&mut self) {
        if !self.is_done.get() && self.store.alarm_ms().is_none() {
            let _ = self.store.set_alarm(self.host.now_ms() + ALARM_REPEATED_MS, self.host.now_ms());
        }
    }
}

fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..=group.len() {
            let sextet = usize::try_from(bits >> (18 - 6 * place) & 63).expect("six bits");
            text.push(char::from(*ALPHABET.get(sextet).expect("six bits")));
        }
    }
    text
}
