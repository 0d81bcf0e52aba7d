//! The user state in Postgres: its transactions against a scripted database with the semantics of
//! `public.transact_ai_user_state`, each fault at each request.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "an unexpected request fails the test"
)]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use ai_sessions::auth::credentials::Credentials;
use ai_sessions::citation::check::Citation;
use ai_sessions::config::{Config, Platform};
use ai_sessions::edge::endpoints::ready::ready;
use ai_sessions::http::Request;
use ai_sessions::json::record::FromJson;
use ai_sessions::json_string::JsonString;
use ai_sessions::keyed_hash::{hex, keyed_hash};
use ai_sessions::ports::{Cipher, Clock, Fetch, Lease, Random, StoreError, Timer, Unreachable};
use ai_sessions::supabase::user_store::{Isolate, UserStateStore, check};
use ai_sessions::user_state::generation::{Accepted, Driver, Ending, Generation, SessionCandidate};
use ai_sessions::user_state::{UserState, Write, WriteSet};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::hostile_tokens::key_set;
use crate::scripted_host::{Reply, ScriptedHost, ScriptedIncoming};

const T: u64 = 1_800_000_000_000;
const RPC: &str = "/rest/v1/rpc/transact_ai_user_state";
const KEY: &str = "the-key-of-the-user-state-in-these-tests-0123";
const USER: Uuid = Uuid::from_u128(7);
const ONE: Uuid = Uuid::from_u128(1);
/// The end of a released lease.
const RELEASED_MS: u64 = 0;

/// A fault of one request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// The connection fails before the request arrives.
    Unreachable,
    /// The request is processed, and the reply is lost.
    LostReply,
    /// The request is processed, and the gateway responds with this status.
    LostBehind(u16),
    /// A page of an intermediary, with status 200.
    Page,
    /// JSON without the members of a reply, with status 200.
    NoReply,
    /// The reply arrives after so long.
    Slow(u64),
    /// Other isolates store so often before.
    Others(u64),
    /// Another isolate empties the state before.
    Emptied,
    /// The request is refused with this status and this code.
    Refused(u16, &'static str),
}

#[derive(Debug, Clone, Default)]
struct Row {
    record: Value,
    ending: Value,
    started_ms: u64,
    runner: Option<String>,
    lease_until_ms: u64,
    stop: bool,
}

#[derive(Debug, Default)]
struct Rows {
    version: u64,
    ledger: Value,
    generations: BTreeMap<String, Row>,
    candidates: BTreeMap<(String, u64), Value>,
    faults: VecDeque<Option<Fault>>,
    /// The database's clock minus the one of the platform.
    ahead_ms: i64,
    purposes: Vec<String>,
    /// `wake_at_ms` of the last store; `None` where it had none.
    wake_at_ms: Option<Value>,
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_else(|| panic!("{member} is missing in {value}"))
}

fn number(value: &Value, member: &str) -> u64 {
    value[member].as_u64().unwrap_or_else(|| panic!("{member} is missing in {value}"))
}

impl Rows {
    fn respond(&mut self, request: &Request, platform_ms: u64) -> Reply {
        let header = |name| request.headers.iter().find(|(header, _)| *header == name);
        assert!(header("authorization").is_none(), "the key alone");
        assert_eq!(header("apikey").map(|(_, key)| key.as_str()), Some("anon"));
        let body: Value = serde_json::from_slice(&request.body).expect("the body is JSON");
        let signed = text(&body, "request");
        let proof = hex(&keyed_hash(KEY, &[b"ai-sessions/user-state\0", signed.as_bytes()]));
        assert_eq!(text(&body, "proof"), proof);
        let signed: Value = serde_json::from_str(signed).expect("the request is JSON");
        assert_eq!((text(&signed, "as"), number(&signed, "format")), ("service", 1));
        self.purposes.push(text(&signed, "purpose").to_owned());

        let now_ms = platform_ms.saturating_add_signed(self.ahead_ms);
        let refused = |status, code: &str, details: String| {
            Reply::new(status).say(json!({ "code": code, "details": details, "message": "m" }).to_string())
        };
        let fault = self.faults.pop_front().flatten();
        if number(&signed, "at_ms").abs_diff(now_ms) > 60_000 {
            return refused(412, "PT412", now_ms.to_string());
        }
        match fault {
            Some(Fault::Unreachable) => return Reply::unreachable(),
            Some(Fault::Page) => return Reply::new(200).say("<html>"),
            Some(Fault::NoReply) => return Reply::new(200).say(json!({ "clock_ms": now_ms }).to_string()),
            Some(Fault::Refused(status, code)) => return refused(status, code, String::new()),
            Some(Fault::Others(count)) => {
                for number in 0..count {
                    self.store_of_another(number);
                }
            }
            Some(Fault::Emptied) => {
                (self.version, self.ledger) = (
                    self.version + 1,
                    json!("{\"version\":1,\"ledger\":[],\"told_limited\":[],\"commits\":[\"e\"]}"),
                );
                self.generations.clear();
            }
            _ => {}
        }
        let reply = self.reply(&signed, now_ms);
        match fault {
            Some(Fault::LostReply) => Reply::new(200).say("{\"clock_ms\":").cut(),
            Some(Fault::LostBehind(status)) => Reply::new(status).say("<html>"),
            Some(Fault::Slow(ms)) => Reply::new(200).head_after(ms).say(reply.to_string()),
            _ => Reply::new(200).say(reply.to_string()),
        }
    }

    /// A store of another isolate, which adds 1000.
    fn store_of_another(&mut self, number: u64) {
        self.version += 1;
        let ledger = self.ledger.as_str().unwrap_or("{\"version\":1,\"ledger\":[],\"told_limited\":[]}");
        let mut ledger: Value = serde_json::from_str(ledger).expect("the ledger is JSON");
        ledger["rejected_until_ms"] = json!(ledger["rejected_until_ms"].as_u64().unwrap_or(0) + 1000);
        let mut commits = ledger["commits"].as_array().cloned().unwrap_or_default();
        commits.push(json!(format!("other-{number}")));
        ledger["commits"] = Value::from(commits.split_off(commits.len().saturating_sub(8)));
        self.ledger = json!(ledger.to_string());
    }

    fn reply(&mut self, request: &Value, now_ms: u64) -> Value {
        match text(request, "purpose") {
            "check" => json!({ "clock_ms": now_ms }),
            "read" => self.state(now_ms),
            "store" => {
                if number(request, "version") != self.version {
                    let mut state = self.state(now_ms);
                    state["conflict"] = json!(true);
                    return state;
                }
                self.version += 1;
                self.ledger = request["ledger"].clone();
                self.wake_at_ms = request.get("wake_at_ms").cloned();
                for write in request["writes"].as_array().expect("the writes are an array") {
                    self.write(write, now_ms);
                }
                let stops = self.generations.iter().filter(|(_, row)| row.stop).map(|(id, _)| id);
                json!({ "version": self.version, "clock_ms": now_ms, "stops": stops.collect::<Vec<_>>() })
            }
            "poll" => {
                let id = text(request, "id");
                let from = number(request, "from");
                let candidates = self.candidates.iter().filter(|((of, at), _)| of == id && *at >= from);
                let candidates =
                    candidates.map(|((_, at), record)| json!({ "position": at, "record": record }));
                let row = self.generations.get(id).map(|row| row.beside(now_ms));
                let candidates: Vec<_> = candidates.collect();
                json!({ "clock_ms": now_ms, "version": self.version, "generation": row, "candidates": candidates })
            }
            "renew" => {
                let runner = text(request, "runner");
                let mut renewed = Vec::new();
                for id in request["ids"].as_array().expect("the ids are an array") {
                    let row = self.generations.get_mut(id.as_str().expect("an id is text"));
                    let is_own = |row: &&mut Row| {
                        row.runner.as_deref() == Some(runner) && row.lease_until_ms > RELEASED_MS
                    };
                    if let Some(row) = row.filter(is_own) {
                        row.lease_until_ms = now_ms + number(request, "lease_ms");
                        renewed.push(json!({ "id": id, "stop": row.stop }));
                    }
                }
                json!({ "clock_ms": now_ms, "version": self.version, "generations": renewed })
            }
            "stop" => {
                let row = self.generations.get_mut(text(request, "id"));
                let row =
                    row.filter(|row| row.started_ms == number(request, "started_ms") && row.ending.is_null());
                let found = row.map(|row| row.stop = true).is_some();
                json!({ "clock_ms": now_ms, "version": self.version, "found": found })
            }
            other => panic!("no purpose {other}"),
        }
    }

    fn write(&mut self, write: &Value, now_ms: u64) {
        let id = write["id"].as_str().unwrap_or_default().to_owned();
        match text(write, "write") {
            "generation" => {
                let row = self.generations.entry(id).or_default();
                row.record = write["record"].clone();
                row.ending = write["ending"].clone();
                row.started_ms = number(write, "started_ms");
            }
            "ending" => self.generations.get_mut(&id).expect("it is stored").ending = write["ending"].clone(),
            "candidates" => {
                let earlier =
                    self.candidates.insert((id, number(write, "position")), write["record"].clone());
                assert_eq!(earlier, None, "a position is written once");
            }
            "lease" => {
                let row = self.generations.get_mut(&id).expect("it is stored");
                row.runner = Some(text(write, "runner").to_owned());
                let lease_ms = number(write, "lease_ms");
                row.lease_until_ms = if lease_ms == 0 { RELEASED_MS } else { now_ms + lease_ms };
            }
            "remove_generation" => drop(self.generations.remove(&id)),
            "remove_all" => self.generations.clear(),
            other => panic!("no write {other}"),
        }
    }

    fn state(&self, now_ms: u64) -> Value {
        let generations = self.generations.iter().map(|(id, row)| {
            let mut found = row.beside(now_ms);
            (found["id"], found["record"]) = (json!(id), row.record.clone());
            found
        });
        let candidates = self
            .candidates
            .iter()
            .map(|((id, at), record)| json!({ "id": id, "position": at, "record": record }));
        json!({
            "clock_ms": now_ms, "version": self.version, "ledger": self.ledger, "wake_at_ms": null,
            "generations": generations.collect::<Vec<_>>(), "candidates": candidates.collect::<Vec<_>>(),
            "idempotency_records": [],
        })
    }
}

impl Row {
    fn beside(&self, now_ms: u64) -> Value {
        let is_leased = self.runner.is_some() && self.lease_until_ms > now_ms;
        json!({
            "started_ms": self.started_ms, "ending": self.ending, "runner": self.runner, "is_leased": is_leased,
            "stop": self.stop,
        })
    }
}

/// One isolate's host.
#[derive(Clone)]
struct Host {
    host: ScriptedHost,
    isolate: Rc<Isolate>,
    random: Rc<Cell<u128>>,
}

impl Clock for Host {
    fn now_ms(&self) -> u64 {
        self.isolate.now_ms(self.host.now_ms())
    }
}

impl Timer for Host {
    async fn sleep(&self, ms: u64) {
        self.host.sleep(ms).await;
    }
}

impl Random for Host {
    fn random_bits(&self) -> u128 {
        self.random.set(self.random.get().wrapping_add(0x1234_5678_9abc_def1_0000_0000_0000_1357));
        self.random.get()
    }
}

/// A cipher of these tests: the sum of nonce, key and message, byte by byte, and a keyed hash as the tag.
impl Cipher for Host {
    async fn seal(&self, key: &[u8; 32], nonce: &[u8], message: &[u8]) -> Option<Vec<u8>> {
        let pad = keyed_hash("pad", &[key, nonce]);
        let sealed: Vec<u8> =
            message.iter().zip(pad.iter().cycle()).map(|(byte, pad)| byte.wrapping_add(*pad)).collect();
        let tag = keyed_hash("tag", &[key, nonce, &sealed]);
        Some([sealed, tag.to_vec()].concat())
    }

    async fn open(&self, key: &[u8; 32], nonce: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (sealed, tag) = sealed.split_at_checked(sealed.len().checked_sub(32)?)?;
        let pad = keyed_hash("pad", &[key, nonce]);
        let message = sealed.iter().zip(pad.iter().cycle()).map(|(byte, pad)| byte.wrapping_sub(*pad));
        (keyed_hash("tag", &[key, nonce, sealed]) == tag).then(|| message.collect())
    }
}

impl Fetch for Host {
    type Incoming = ScriptedIncoming;

    async fn fetch(&self, request: Request) -> Result<ScriptedIncoming, Unreachable> {
        self.host.fetch(request).await
    }
}

fn config() -> Rc<Config> {
    config_with(&[])
}

fn config_with(more: &[(&str, &str)]) -> Rc<Config> {
    let config = Config::read(Platform::SupabaseEdge, |name| {
        if let Some((_, value)) = more.iter().find(|(known, _)| *known == name) {
            return Some((*value).to_owned());
        }
        let value = match name {
            "SUPABASE_URL" => "https://p.supabase.co",
            "SUPABASE_ANON_KEY" => "anon",
            "OPENROUTER_API_KEY" => "a key of the model API with enough characters",
            "USER_STATE_KEY" => KEY,
            "PUBLIC_URL" => "https://p.supabase.co/functions/v1/flashcards",
            _ => return None,
        };
        Some(value.to_owned())
    });
    Rc::new(config.expect("the settings are valid"))
}

/// A database, and isolates that share the state of a user.
struct World {
    host: ScriptedHost,
    rows: Rc<RefCell<Rows>>,
    random: Rc<Cell<u128>>,
}

/// One isolate.
struct Instance {
    host: Host,
    store: UserStateStore,
}

impl World {
    fn new() -> Self {
        let (host, rows) = (ScriptedHost::new(T), Rc::new(RefCell::new(Rows::default())));
        let database = Rc::clone(&rows);
        host.respond(RPC, move |request, now_ms| database.borrow_mut().respond(request, now_ms));
        Self { host, rows, random: Rc::default() }
    }

    fn isolate(&self, number: u128) -> Instance {
        self.isolate_with(number, &[])
    }

    fn isolate_with(&self, number: u128, variables: &[(&str, &str)]) -> Instance {
        self.isolate_of(USER, number, variables)
    }

    fn isolate_of(&self, user: Uuid, number: u128, variables: &[(&str, &str)]) -> Instance {
        let isolate = Rc::new(Isolate::new(Uuid::from_u128(0xf000 + number)));
        let store = UserStateStore::new(config_with(variables), Rc::clone(&isolate), user);
        let host = Host { host: self.host.clone(), isolate, random: Rc::clone(&self.random) };
        Instance { host, store }
    }

    /// The faults of the next requests, one after the other.
    fn fail(&self, faults: &[Option<Fault>]) {
        self.rows.borrow_mut().faults = faults.iter().copied().collect();
    }

    /// The purposes of the requests since the last call.
    fn purposes(&self) -> Vec<String> {
        std::mem::take(&mut self.rows.borrow_mut().purposes)
    }

    /// The stored sum: 1 for each store of an instance, 1000 for each one of another isolate.
    fn sum(&self) -> u64 {
        let ledger = self.rows.borrow().ledger.as_str().unwrap_or("{}").to_owned();
        let ledger: Value = serde_json::from_str(&ledger).expect("the ledger is JSON");
        ledger["rejected_until_ms"].as_u64().unwrap_or(0)
    }
}

impl Instance {
    fn transact(&self, mut decide: impl FnMut(&mut UserState) -> WriteSet) -> Result<(), StoreError> {
        let decide: &mut dyn FnMut(&mut UserState) -> WriteSet = &mut decide;
        self.host.host.run(self.store.transact(&self.host, decide))
    }

    /// Adds 1; returns the number of decisions.
    fn add(&self) -> Result<u32, StoreError> {
        let mut decisions = 0;
        let done = self.transact(|state| {
            decisions += 1;
            state.rejected_until_ms += 1;
            WriteSet::from([Write::Ledger])
        });
        done.map(|()| decisions)
    }

    /// Reads by a decision without writes; returns the last sum, and the number of decisions.
    fn read(&self) -> Result<(u64, u32), StoreError> {
        let (mut sum, mut decisions) = (0, 0);
        let done = self.transact(|state| {
            (sum, decisions) = (state.rejected_until_ms, decisions + 1);
            WriteSet::none()
        });
        done.map(|()| (sum, decisions))
    }

    fn peek<T>(&self, mut look: impl FnMut(&UserState) -> T) -> T {
        let mut seen = None;
        let look: &mut dyn FnMut(&UserState) = &mut |state| seen = Some(look(state));
        self.host.host.run(self.store.peek(&self.host, look)).expect("the database responds");
        seen.expect("it was read")
    }

    /// Accepts a generation with a lease, in the shape of the decision of an admission.
    fn accept(&self) -> Result<(), StoreError> {
        self.transact(|state| {
            state.generations.push(generation());
            WriteSet::from([Write::Ledger, Write::Generation(ONE), Write::Lease(ONE)])
        })
    }

    /// The token of the generation, and its expiry.
    fn token(&self) -> (String, u64) {
        self.peek(|state| {
            let credentials = &state.find(ONE).expect("it is stored").accepted.credentials;
            (credentials.token.as_ref().to_owned(), credentials.expires_ms)
        })
    }

    fn driver(&self) -> Option<Driver> {
        self.peek(|state| state.find(ONE).map(|generation| generation.driver))
    }
}

fn generation() -> Generation {
    let accepted = Accepted {
        id: ONE,
        run: 1,
        user_id: USER,
        input_text: JsonString::new("A text with \"quotes\", \u{e9} and \u{1f600}."),
        model: Rc::from("a/one"),
        credentials: Credentials { token: Rc::from("token"), expires_ms: T + 3_600_000, traceparent: None },
        referer: Rc::from(""),
        no_cache: false,
    };
    let reservation = FromJson::read(T.to_string().as_bytes()).expect("a reservation is its moment");
    Generation::new(accepted, reservation, 60_000, T)
}

fn candidate(number: u128) -> Rc<SessionCandidate> {
    let text = || number.to_string();
    let (id, citation) = (Uuid::from_u128(number), Citation::default());
    Rc::new(SessionCandidate { id, front: text(), back: text(), prompt: text(), citation })
}

#[test]
fn a_warm_isolate_stores_with_one_request() {
    let world = World::new();
    let one = world.isolate(1);
    assert_eq!((one.add(), world.purposes()), (Ok(1), vec!["read".to_owned(), "store".to_owned()]));
    assert_eq!((one.add(), world.purposes()), (Ok(1), vec!["store".to_owned()]));
    assert_eq!((one.read(), world.purposes()), (Ok((2, 1)), vec!["read".to_owned()]));
    assert_eq!(one.peek(|state| state.rejected_until_ms), 2);
    assert_eq!(world.purposes(), Vec::<String>::new());
}

#[test]
fn a_conflict_is_decided_again_on_the_state_of_the_reply() {
    let world = World::new();
    let (one, two) = (world.isolate(1), world.isolate(2));
    assert_eq!((one.add(), two.add(), one.add()), (Ok(1), Ok(1), Ok(2)));
    assert_eq!((world.sum(), one.read(), two.read()), (3, Ok((3, 1)), Ok((3, 2))));
}

#[test]
fn repeated_conflicts_wait_longer_and_end_with_an_error() {
    let world = World::new();
    let one = world.isolate(1);
    assert_eq!(one.add(), Ok(1));
    world.fail(&[Some(Fault::Others(1)), Some(Fault::Others(1)), None, Some(Fault::Others(1)), None, None]);
    assert_eq!((one.add(), world.sum()), (Ok(4), 3002));
    let waits: Vec<_> = world.host.slept_ms().into_iter().filter(|ms| *ms < 5000).collect();
    assert_eq!(waits.len(), 2);
    assert!((10..=20).contains(&waits[0]) && (20..=40).contains(&waits[1]), "{waits:?}");

    world.fail(&[Some(Fault::Others(1)); 100]);
    let began_ms = world.host.now_ms();
    assert_eq!(one.add(), Err(StoreError));
    assert!((4_000..=10_000).contains(&(world.host.now_ms() - began_ms)));
    world.fail(&[]);
    let before = world.sum();
    assert_eq!((one.add(), world.sum()), (Ok(1), before + 1));
}

#[test]
fn a_lost_request_or_reply_is_sent_again_and_counts_once() {
    for (fault, decisions) in [
        (Fault::Unreachable, 1),
        (Fault::Page, 1),
        (Fault::Refused(503, "PGRST002"), 1),
        (Fault::Refused(429, "over"), 1),
        (Fault::LostReply, 1),
        (Fault::LostBehind(502), 1),
        (Fault::Slow(6_000), 1),
    ] {
        let world = World::new();
        let one = world.isolate(1);
        // While the first state is loaded, and at a store.
        world.fail(&[Some(fault)]);
        assert_eq!((one.add(), world.sum()), (Ok(decisions), 1), "{fault:?}");
        world.fail(&[Some(fault)]);
        assert_eq!((one.add(), world.sum()), (Ok(decisions), 2), "{fault:?}");
        // The cached state is the stored one.
        world.purposes();
        assert_eq!((one.add(), world.sum()), (Ok(1), 3), "{fault:?}");
        assert_eq!(world.purposes(), ["store"]);
    }
}

#[test]
fn a_stored_commit_is_recognized_behind_seven_others() {
    for (others, done, sum) in [(0, Ok(1), 2), (7, Ok(1), 7002), (8, Err(StoreError), 8002)] {
        for lost in [Fault::LostReply, Fault::LostBehind(504)] {
            let world = World::new();
            let one = world.isolate(1);
            assert_eq!(one.add(), Ok(1));
            world.fail(&[Some(lost), Some(Fault::Others(others))]);
            assert_eq!((one.add(), world.sum()), (done, sum), "{others} after {lost:?}");
            assert_eq!(one.read(), Ok((sum, 1)));
        }
    }
}

#[test]
fn a_store_that_was_not_stored_is_decided_again_after_its_conflict() {
    let world = World::new();
    let one = world.isolate(1);
    assert_eq!(one.add(), Ok(1));
    world.fail(&[Some(Fault::Unreachable), Some(Fault::Others(8))]);
    assert_eq!((one.add(), world.sum()), (Ok(2), 8002));
    world.fail(&[Some(Fault::Unreachable), Some(Fault::Others(9))]);
    assert_eq!((one.add(), world.sum()), (Err(StoreError), 17002), "it may be stored, and be named no more");
    world.fail(&[Some(Fault::Others(9))]);
    assert_eq!((one.add(), world.sum()), (Ok(1), 26003), "it is loaded first");
    world.fail(&[Some(Fault::Others(9))]);
    assert_eq!((one.add(), world.sum()), (Ok(2), 35004), "the first delivery has its reply");
}

#[test]
fn a_silent_or_refusing_database_is_an_error_within_10_s() {
    for (fault, requests) in [
        (Fault::Slow(600_000), 2),
        (Fault::Unreachable, 3),
        (Fault::NoReply, 1),
        (Fault::Refused(401, "42501"), 1),
        (Fault::Refused(413, "54000"), 1),
        (Fault::Refused(400, "22023"), 1),
        (Fault::Refused(403, "PGRST301"), 1),
    ] {
        let world = World::new();
        let one = world.isolate(1);
        assert_eq!(one.add(), Ok(1));
        let before = world.purposes().len();
        let began_ms = world.host.now_ms();
        world.fail(&[Some(fault); 10]);
        assert_eq!(one.add(), Err(StoreError), "{fault:?}");
        assert!(world.host.now_ms() - began_ms <= 10_000, "{fault:?}");
        assert_eq!((before, world.purposes().len()), (2, requests), "{fault:?}");
        world.fail(&[]);
        assert_eq!(one.add(), Ok(1));
        assert_eq!(world.purposes(), ["read", "store"], "nothing is cached after an error");
    }
}

#[test]
fn a_decision_without_writes_is_made_on_the_stored_state() {
    let world = World::new();
    let one = world.isolate(1);
    assert_eq!(one.add(), Ok(1));
    assert_eq!(one.read(), Ok((1, 1)));
    world.rows.borrow_mut().store_of_another(1);
    assert_eq!((one.read(), one.read()), (Ok((1001, 2)), Ok((1001, 1))));
    // Where the second decision has writes, they are stored.
    world.rows.borrow_mut().store_of_another(2);
    let written = one.transact(|state| {
        let is_late = state.rejected_until_ms > 2000;
        state.rejected_until_ms += u64::from(is_late);
        if is_late { WriteSet::from([Write::Ledger]) } else { WriteSet::none() }
    });
    assert_eq!((written, world.sum()), (Ok(()), 2002));
    // A state that cannot be loaded is no state without changes.
    world.fail(&[Some(Fault::Refused(400, "22023"))]);
    assert_eq!(one.read(), Err(StoreError));
}

#[test]
fn one_transaction_runs_at_a_time() {
    let world = World::new();
    let one = world.isolate(1);
    assert_eq!(one.add(), Ok(1));
    let both = async {
        let add = |state: &mut UserState| {
            state.rejected_until_ms += 1;
            WriteSet::from([Write::Ledger])
        };
        let (mut first, mut second) = (add, add);
        let (first, second) =
            (one.store.transact(&one.host, &mut first), one.store.transact(&one.host, &mut second));
        futures_util::future::join(first, second).await
    };
    assert_eq!(world.host.run(both), (Ok(()), Ok(())));
    assert_eq!(world.sum(), 3);
    assert_eq!(world.purposes(), ["read", "store", "store", "store"], "none of them was a conflict");
}

#[test]
fn the_clock_is_corrected_by_the_database() {
    for ahead_ms in [-7_200_000, -70_000, -2_000, 0, 2_000, 70_000, 7_200_000] {
        let world = World::new();
        world.rows.borrow_mut().ahead_ms = ahead_ms;
        let one = world.isolate(1);
        let (mut sum, mut now_ms) = (0, 0);
        let done = one.transact(|state| {
            (sum, now_ms) = (state.rejected_until_ms, one.host.now_ms());
            WriteSet::none()
        });
        assert_eq!((done, sum), (Ok(()), 0), "{ahead_ms}");
        assert_eq!(now_ms, T.saturating_add_signed(ahead_ms), "{ahead_ms}");
        let reads = if ahead_ms.abs() > 60_000 { 2 } else { 1 };
        assert_eq!(world.purposes().len(), reads, "{ahead_ms}");
        assert_eq!((one.add(), world.purposes().len()), (Ok(1), 1), "no further request is late");
    }
}

#[test]
fn a_clock_that_stays_wrong_is_an_error() {
    let world = World::new();
    let refused = json!({ "code": "PT412", "details": (T + 90_000).to_string(), "message": "m" });
    for _ in 0..2 {
        world.host.on(RPC, Reply::new(412).say(refused.to_string()));
    }
    let one = world.isolate(1);
    assert_eq!(one.add(), Err(StoreError));
    assert!(world.host.is_used_up());
}

#[test]
fn a_slow_reply_moves_the_clock_by_no_more_than_is_necessary() {
    let world = World::new();
    let one = world.isolate(1);
    world.fail(&[Some(Fault::Slow(3_000))]);
    assert_eq!(one.add(), Ok(1));
    assert_eq!(one.host.now_ms(), world.host.now_ms(), "the database's clock was between the two moments");
}

#[test]
fn a_generation_is_stored_without_its_token_and_keeps_it_here() {
    let world = World::new();
    let (one, two) = (world.isolate(1), world.isolate(2));
    assert_eq!(one.accept(), Ok(()));
    let stored = format!("{:?}", world.rows.borrow().generations);
    assert!(stored.contains("A text with") && !stored.contains("\"token\\\":\\\"token"), "{stored}");
    let token = |state: &UserState| state.find(ONE).map(|found| found.accepted.credentials.token.to_string());
    assert_eq!((one.peek(token), two.peek(token)), (Some("token".to_owned()), Some(String::new())));
    // Also when the state is loaded again, and after a conflict.
    world.rows.borrow_mut().store_of_another(1);
    assert_eq!(one.read().map(|(sum, _)| sum), Ok(1000));
    assert_eq!(one.peek(token).as_deref(), Some("token"));
    world.rows.borrow_mut().store_of_another(2);
    assert_eq!((one.add(), one.peek(token).as_deref()), (Ok(2), Some("token")));
}

#[test]
fn the_driver_of_a_generation_is_this_isolate_or_another() {
    let world = World::new();
    let (one, two) = (world.isolate(1), world.isolate(2));
    assert_eq!(one.accept(), Ok(()));
    assert_eq!((one.driver(), two.driver()), (Some(Driver::Own), Some(Driver::Other)));
    world.purposes();
    // Its lease can expire at any moment, so it is loaded before each decision.
    world.host.set_now_ms(T + 15_000);
    let mut driver = None;
    let taken = two.transact(|state| {
        driver = state.find(ONE).map(|found| found.driver);
        WriteSet::from([Write::Lease(ONE)])
    });
    assert_eq!((taken, driver, two.driver()), (Ok(()), Some(Driver::Lapsed), Some(Driver::Own)));
    assert_eq!(world.purposes(), ["read", "store"]);
    // The isolate that has lost it finds that at its next transaction.
    assert_eq!((one.read().map(|(_, decisions)| decisions), one.driver()), (Ok(2), Some(Driver::Other)));
    // A released lease is free for all.
    assert_eq!(two.transact(|_| WriteSet::from([Write::Release(ONE)])), Ok(()));
    assert_eq!(one.read().map(|(_, decisions)| decisions), Ok(1));
    assert_eq!((one.driver(), two.driver()), (Some(Driver::Lapsed), Some(Driver::Own)));
    // A renewal does not bring it back.
    assert_eq!(world.host.run(two.store.renew(&two.host, ONE)), Ok(Lease::Lost));
    assert_eq!((one.read().map(|_| ()), one.driver()), (Ok(()), Some(Driver::Lapsed)));
}

#[test]
fn a_lease_is_renewed_until_another_isolate_has_it() {
    let world = World::new();
    let (one, two) = (world.isolate(1), world.isolate(2));
    let renew = |of: &Instance| world.host.run(of.store.renew(&of.host, ONE));
    assert_eq!(renew(&one), Ok(Lease::Lost));
    assert_eq!(one.accept(), Ok(()));
    assert_eq!(renew(&one), Ok(Lease::Renewed { is_stop_requested: false }));
    assert_eq!(renew(&two), Ok(Lease::Lost));
    let stop = |started_ms| world.host.run(two.store.request_stop(&two.host, ONE, started_ms));
    assert_eq!((stop(T + 1), stop(T)), (Ok(false), Ok(true)));
    assert_eq!(renew(&one), Ok(Lease::Renewed { is_stop_requested: true }));
    // A store reports it too.
    let is_stopped = |of: &Instance| of.peek(|state| state.find(ONE).map(|found| found.is_stop_requested));
    assert_eq!(is_stopped(&one), Some(false));
    assert_eq!((one.add(), is_stopped(&one)), (Ok(1), Some(true)));
    world.fail(&[Some(Fault::Refused(400, "22023")); 3]);
    assert_eq!((renew(&one), stop(T)), (Err(StoreError), Err(StoreError)));
    assert_eq!(world.host.run(one.store.poll(&one.host, ONE, 0)), Err(StoreError));
}

#[test]
fn a_poll_reads_the_candidates_from_a_position_on() {
    let world = World::new();
    let (one, two) = (world.isolate(1), world.isolate(2));
    let poll = |from| world.host.run(two.store.poll(&two.host, ONE, from));
    assert_eq!(poll(0), Ok(None));
    assert_eq!(one.accept(), Ok(()));
    for (from, numbers) in [(0, vec![11, 12]), (2, vec![13])] {
        let stored = one.transact(|state| {
            let found = state.generations.iter_mut().find(|found| found.accepted.id == ONE);
            found.expect("it is stored").candidates.extend(numbers.iter().copied().map(candidate));
            WriteSet::from([Write::Candidates(ONE, from)])
        });
        assert_eq!(stored, Ok(()));
    }
    let polled = poll(0).expect("the database responds").expect("it is stored");
    assert_eq!(polled.candidates, [11, 12, 13].map(candidate));
    assert_eq!((polled.ending, polled.driver, polled.is_stop_requested), (None, Driver::Other, false));
    assert_eq!(polled.started_ms, T);
    let polled = poll(2).expect("the database responds").expect("it is stored");
    assert_eq!(polled.candidates, [candidate(13)]);

    let ending = Ending::failed(ai_sessions::http::problem::Code::AiTimeout, 1, T);
    let ended = one.transact(|state| {
        let found = state.generations.iter_mut().find(|found| found.accepted.id == ONE);
        found.expect("it is stored").ending = Some(ending.clone());
        WriteSet::from([Write::Ending(ONE)])
    });
    let polled = poll(3).expect("the database responds").expect("it is stored");
    assert_eq!((ended, polled.ending, polled.candidates), (Ok(()), Some(ending), Vec::new()));
}

#[test]
fn an_emptied_state_keeps_its_version_and_its_last_commits() {
    let world = World::new();
    let one = world.isolate(1);
    // A state that was never stored is not stored to be emptied.
    assert_eq!(one.transact(UserState::clear), Ok(()));
    assert_eq!(world.purposes(), ["read"]);
    assert_eq!(one.transact(UserState::clear), Ok(()));
    assert_eq!(world.purposes(), ["read"]);
    assert_eq!(one.add(), Ok(1));
    world.fail(&[Some(Fault::LostReply)]);
    assert_eq!((one.transact(UserState::clear), world.sum()), (Ok(()), 0));
    assert!(one.peek(UserState::is_empty));
    assert_eq!(world.rows.borrow().version, 2);
    one.store.delete();
    world.purposes();
    assert_eq!((one.add(), world.purposes()), (Ok(1), vec!["read".to_owned(), "store".to_owned()]));
    world.fail(&[Some(Fault::Emptied)]);
    assert_eq!((one.add(), world.sum()), (Ok(2), 1));
}

#[test]
fn a_user_who_does_not_exist_is_rejected_and_nothing_is_stored() {
    let world = World::new();
    let one = world.isolate(1);
    for _ in 0..2 {
        world.fail(&[None, Some(Fault::Refused(409, "23503"))]);
        let mut rejected = Vec::new();
        let done = one.transact(|state| {
            rejected.push(state.is_rejected(one.host.now_ms()));
            WriteSet::from([Write::Ledger])
        });
        assert_eq!((done, rejected), (Ok(()), vec![false, true]));
        assert_eq!(world.purposes(), ["read", "store"]);
    }
    assert_eq!(world.rows.borrow().version, 0);
}

#[test]
fn a_state_of_a_later_format_is_an_error() {
    let world = World::new();
    world.rows.borrow_mut().ledger = json!("{\"version\":2}");
    let one = world.isolate(1);
    assert_eq!(one.add(), Err(StoreError));
    assert_eq!(world.rows.borrow().version, 0);
}

#[test]
fn the_check_names_the_missing_key() {
    let refused = |status, code: &str| Reply::new(status).say(json!({ "code": code }).to_string());
    for (reply, expected) in [
        (Reply::new(200).say("{\"clock_ms\":1}"), None),
        (refused(412, "PT412"), None),
        (
            refused(503, "PT503"),
            Some("no key is set: run select ai_sessions.set_service_key('…') with USER_STATE_KEY"),
        ),
        (refused(401, "42501"), Some("USER_STATE_KEY is not a key that ai_sessions.set_service_key has set")),
        (refused(404, "PGRST202"), Some("the tables are not there: apply the migrations")),
        (Reply::new(401).say("{\"message\":\"Invalid API key\"}"), Some("the API key is not taken")),
        (Reply::new(403).say("<html>"), Some("refused by a firewall")),
        (Reply::new(200).say("<html>"), Some("no reply of the database")),
        (refused(503, "PGRST002"), Some("status 503")),
        (Reply::unreachable(), Some("no connection")),
    ] {
        let world = World::new();
        world.host.on(RPC, reply);
        let one = world.isolate(1);
        let checked = world.host.run(check(&one.host, &config()));
        assert_eq!(checked.err().as_deref(), expected);
    }
}

#[test]
fn ready_checks_the_key_in_place_of_the_tables() {
    let refused = json!({ "code": "PT503", "message": "no service key is set" }).to_string();
    for (reply, status) in [
        (Reply::new(200).say(json!({ "clock_ms": T }).to_string()), 200),
        (Reply::new(503).say(refused), 503),
    ] {
        let host = ScriptedHost::new(T);
        host.always("/jwks.json", Reply::new(200).say(key_set(&["a"])));
        host.always("/api/v1/key", Reply::new(200));
        host.on(RPC, reply);
        let response = host.run(ready(&host, &Ok(config())));
        assert_eq!((response.status, host.is_used_up(), host.sent().len()), (status, true, 3));
        let document: Value = serde_json::from_slice(&response.body).expect("the document is JSON");
        let check = &document["checks"][2];
        assert_eq!((&check["name"], &check["ok"]), (&json!("database"), &json!(status == 200)));
        let names_it =
            check["detail"].as_str().is_some_and(|detail| detail.contains("ai_sessions.set_service_key"));
        assert_eq!(names_it, status == 503, "{check}");
    }
}

const WAKE_UP: (&str, &str) = ("WAKE_UP", "1");

#[test]
fn a_stored_token_is_sealed_and_opened_by_another_isolate() {
    let world = World::new();
    assert_eq!(world.isolate_with(1, &[WAKE_UP]).accept(), Ok(()));
    let row = world.rows.borrow().generations[&ONE.to_string()].record.clone();
    let stored: Value = serde_json::from_str(row.as_str().expect("a record is text")).expect("it is JSON");
    assert_eq!(
        (&stored["accepted"]["token"], &stored["accepted"]["token_expires_ms"]),
        (&json!(""), &json!(0))
    );
    let sealed = stored["sealed_token"].as_str().expect("it is sealed").to_owned();
    assert!(!row.to_string().contains("token\": \"token") && sealed.len() > 2 * (12 + 5));
    assert_eq!(world.isolate_with(2, &[WAKE_UP]).token(), ("token".to_owned(), T + 3_600_000));

    // Where another secret is set, or the wake-up is off, the owner's next request provides the token.
    let other_secret = ("SERVICE_SECRET", "another secret of the service, of enough characters");
    for variables in [[WAKE_UP, other_secret].as_slice(), &[]] {
        assert_eq!(world.isolate_with(3, variables).token(), (String::new(), 0));
    }
}

#[test]
fn a_sealed_token_is_of_one_session_and_one_user() {
    let world = World::new();
    assert_eq!(world.isolate_with(1, &[WAKE_UP]).accept(), Ok(()));
    // The rows as those of another user.
    let stranger = world.isolate_of(Uuid::from_u128(8), 2, &[WAKE_UP]);
    assert_eq!(stranger.token(), (String::new(), 0));

    let change = |change: &dyn Fn(&mut Value)| {
        let world = World::new();
        assert_eq!(world.isolate_with(1, &[WAKE_UP]).accept(), Ok(()));
        {
            let mut rows = world.rows.borrow_mut();
            let row = rows.generations.get_mut(&ONE.to_string()).expect("it is stored");
            let mut record: Value =
                serde_json::from_str(row.record.as_str().expect("text")).expect("it is JSON");
            change(&mut record);
            row.record = json!(record.to_string());
        }
        world.isolate_with(2, &[WAKE_UP]).token()
    };
    assert_eq!(change(&|_| {}).0, "token");
    for sealed in ["", "00", "zz", &"0".repeat(24), &"0".repeat(200)] {
        assert_eq!(change(&|record| record["sealed_token"] = json!(sealed)), (String::new(), 0), "{sealed}");
    }
    let flipped = change(&|record| {
        let sealed = record["sealed_token"].as_str().expect("text").to_owned();
        let last = if sealed.ends_with('0') { "1" } else { "0" };
        record["sealed_token"] = json!([&sealed[..sealed.len() - 1], last].concat());
    });
    assert_eq!(flipped, (String::new(), 0));
}

#[test]
fn without_the_wake_up_no_token_and_no_time_are_stored() {
    let world = World::new();
    assert_eq!(world.isolate(1).accept(), Ok(()));
    let rows = world.rows.borrow();
    assert_eq!(rows.wake_at_ms, None);
    assert!(!rows.generations[&ONE.to_string()].record.to_string().contains("sealed_token"));
}

#[test]
fn a_store_names_the_time_at_which_work_is_due() {
    let world = World::new();
    let one = world.isolate_with(1, &[WAKE_UP]);
    assert_eq!(one.add(), Ok(1));
    assert_eq!(world.rows.borrow().wake_at_ms, Some(Value::Null));
    assert_eq!(one.accept(), Ok(()));
    assert_eq!(world.rows.borrow().wake_at_ms, Some(json!(T + 15_000)));
    let removed = one.transact(|state| {
        state.generations.clear();
        WriteSet::from([Write::RemoveGeneration(ONE)])
    });
    assert_eq!((removed, &world.rows.borrow().wake_at_ms), (Ok(()), &Some(Value::Null)));
}

#[test]
fn a_conflict_loses_no_sealed_token() {
    let world = World::new();
    let (one, two) = (world.isolate_with(1, &[WAKE_UP]), world.isolate_with(2, &[WAKE_UP]));
    assert_eq!((two.add(), one.accept()), (Ok(1), Ok(())));
    // The reply to its store has the state of the other isolate.
    assert_eq!((two.add(), two.token().0), (Ok(2), "token".to_owned()));
}

/// Numbers from 0 on, by a linear congruential generator.
fn pick(seed: &mut u64, count: usize) -> usize {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*seed >> 33).expect("it has 31 bits") % count
}

#[test]
fn random_faults_never_lose_or_repeat_a_transaction() {
    const FAULTS: [Option<Fault>; 10] = [
        None,
        None,
        None,
        Some(Fault::Unreachable),
        Some(Fault::LostReply),
        Some(Fault::LostBehind(502)),
        Some(Fault::Page),
        Some(Fault::Slow(6_000)),
        Some(Fault::Others(1)),
        Some(Fault::Refused(503, "PGRST002")),
    ];
    let (mut confirmed, mut failed) = (0, 0);
    for number in 0..100 {
        let (mut seed, world) = (number, World::new());
        let isolates = [world.isolate(1), world.isolate(2), world.isolate(3)];
        world.fail(&std::array::from_fn::<_, 40, _>(|_| FAULTS[pick(&mut seed, FAULTS.len())]));
        let (mut added, mut unknown) = (0, 0);
        for _ in 0..12 {
            let isolate = &isolates[pick(&mut seed, isolates.len())];
            if pick(&mut seed, 4) == 0 {
                let _ = isolate.read();
            } else if isolate.add().is_ok() {
                added += 1;
            } else {
                unknown += 1;
            }
        }
        let sum = world.sum() % 1000;
        assert!((added..=added + unknown).contains(&sum), "seed {number}: {sum} of {added} and {unknown}");
        (confirmed, failed) = (confirmed + added, failed + unknown);
        world.fail(&[]);
        let all = world.sum();
        assert!(isolates.iter().all(|isolate| isolate.read().map(|(sum, _)| sum) == Ok(all)));
    }
    assert!(confirmed > 300 && failed > 15, "{confirmed} and {failed}");
}

/// The wait for the transactions before is part of the 10 s.
#[test]
fn each_of_several_requests_fails_within_10_s_of_silence() {
    let world = World::new();
    let one = world.isolate(1);
    assert_eq!(one.add(), Ok(1));
    world.fail(&[Some(Fault::Slow(600_000)); 100]);
    let began_ms = world.host.now_ms();
    let all = async {
        let mut decisions: Vec<_> =
            (0..10).map(|_| |_: &mut UserState| WriteSet::from([Write::Ledger])).collect();
        let stores = decisions.iter_mut().map(|decide| one.store.transact(&one.host, decide));
        futures_util::future::join_all(stores).await
    };
    let all = world.host.run(all);
    assert!(all.iter().all(Result::is_err));
    assert!(world.host.now_ms() - began_ms <= 10_000, "{} ms", world.host.now_ms() - began_ms);
    // Nor does a reader wait longer, without a state in memory.
    let mut look = |_: &UserState| {};
    let began_ms = world.host.now_ms();
    assert_eq!(world.host.run(one.store.peek(&one.host, &mut look)), Err(StoreError));
    assert!(world.host.now_ms() - began_ms <= 10_000, "{} ms", world.host.now_ms() - began_ms);
}

#[test]
fn a_reader_does_not_wait_for_a_transaction() {
    let world = World::new();
    let one = world.isolate(1);
    assert_eq!(one.add(), Ok(1));
    world.fail(&[Some(Fault::Slow(3_000))]);
    let began_ms = world.host.now_ms();
    let mut decide = |state: &mut UserState| {
        state.rejected_until_ms += 1;
        WriteSet::from([Write::Ledger])
    };
    let (mut seen, mut read_ms) = (0, 0);
    let mut look = |state: &UserState| (seen, read_ms) = (state.rejected_until_ms, world.host.now_ms());
    let both = async {
        let stored = one.store.transact(&one.host, &mut decide);
        futures_util::join!(stored, one.store.peek(&one.host, &mut look))
    };
    assert_eq!(world.host.run(both), (Ok(()), Ok(())));
    assert_eq!((seen, read_ms), (1, began_ms), "the state before the transaction");
    assert_eq!(one.peek(|state| state.rejected_until_ms), 2);
}

/// The state that a reader loads does not replace the one of a transaction that ended in the meantime.
#[test]
fn a_slow_reader_does_not_replace_a_later_state() {
    let world = World::new();
    let one = world.isolate(1);
    world.fail(&[Some(Fault::Slow(3_000))]);
    let mut decide = |state: &mut UserState| {
        state.generations.push(generation());
        WriteSet::from([Write::Ledger, Write::Generation(ONE), Write::Lease(ONE)])
    };
    let mut look = |_: &UserState| {};
    let both = async {
        let read = one.store.peek(&one.host, &mut look);
        futures_util::join!(read, one.store.transact(&one.host, &mut decide))
    };
    assert_eq!(world.host.run(both), (Ok(()), Ok(())));
    assert!(one.peek(|state| state.find(ONE).is_some_and(Generation::has_token)));
    world.purposes();
    assert_eq!((one.add(), world.purposes()), (Ok(1), vec!["store".to_owned()]));
}
