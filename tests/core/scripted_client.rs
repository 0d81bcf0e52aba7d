//! Clients: their requests, their responses, and how they receive a stream.

#![expect(clippy::expect_used, clippy::panic, reason = "a response without its parts fails the test")]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll};

use ai_sessions::ports::{Body, BodyError, Clock, EventSink, Head, Inbound, Timer, Unreachable, read_whole};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::scripted_database::ScriptedDatabase;
use crate::scripted_host::ScriptedHost;
use crate::scripted_store::ScriptedStore;

pub(crate) const ORIGIN: &str = "https://cards.example";
pub(crate) const USER: Uuid = Uuid::from_u128(0x5d3e_2c1b_0000_4000_8000_0000_0000_000a);
pub(crate) const STRANGER: Uuid = Uuid::from_u128(0x5d3e_2c1b_0000_4000_8000_0000_0000_000b);
/// A client's token is valid for so long.
const TOKEN_MS: u64 = 3_600_000;

/// How a client takes one chunk of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    AfterMs(u64),
    Never,
    Gone,
}

/// The body of a response.
#[derive(Debug)]
pub(crate) enum ClientBody {
    Complete(Vec<u8>),
    Stream(Rc<Client>),
}

/// A client that receives a stream.
#[derive(Debug, Default)]
pub(crate) struct Client {
    /// Each chunk, and when it was received.
    pub(crate) chunks: RefCell<Vec<(u64, String)>>,
    /// When the stream ended; whether it was cut.
    pub(crate) ended: Cell<Option<(u64, bool)>>,
    /// Whether a candidate was sent before it was stored.
    is_early: Cell<bool>,
}

/// An event of a stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) at_ms: u64,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) data: Value,
}

impl Client {
    /// The whole text.
    pub(crate) fn text(&self) -> String {
        self.chunks.borrow().iter().map(|(_, chunk)| chunk.as_str()).collect()
    }

    /// The events, without comments.
    pub(crate) fn events(&self) -> Vec<Event> {
        assert!(!self.is_early.get(), "a candidate is stored before it is sent");
        let chunks = self.chunks.borrow();
        let events = chunks.iter().flat_map(|(at_ms, chunk)| events_of(*at_ms, chunk));
        events.collect()
    }

    /// The names of the events.
    pub(crate) fn names(&self) -> Vec<String> {
        self.events().into_iter().map(|event| event.name).collect()
    }

    /// How many comments there were.
    pub(crate) fn comments(&self) -> usize {
        self.text().split("\n\n").filter(|event| *event == ":").count()
    }

    /// Whether the stream ended regularly.
    pub(crate) fn is_closed(&self) -> bool {
        self.ended.get().is_some_and(|(_, is_cut)| !is_cut)
    }

    /// Whether the stream was cut.
    pub(crate) fn is_cut(&self) -> bool {
        self.ended.get().is_some_and(|(_, is_cut)| is_cut)
    }
}

/// The events of a text.
pub(crate) fn events_of(at_ms: u64, text: &str) -> Vec<Event> {
    let events = text.split_terminator("\n\n").filter(|event| *event != ":");
    let events = events.map(|event| {
        let field = |name: &str| {
            let line = event.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{name} in {event}")).to_owned()
        };
        let data = serde_json::from_str(&field("data: ")).expect("the data is JSON");
        Event { at_ms, id: field("id: "), name: field("event: "), data }
    });
    events.collect()
}

/// The sink of a stream, on the side of the object.
pub(crate) struct ClientSink {
    pub(crate) host: ScriptedHost,
    pub(crate) store: ScriptedStore,
    pub(crate) database: ScriptedDatabase,
    pub(crate) takes: VecDeque<Takes>,
    pub(crate) client: Rc<Client>,
}

impl EventSink for ClientSink {
    async fn write(&mut self, chunk: &[u8]) -> Result<(), Unreachable> {
        let text = String::from_utf8(chunk.to_vec()).expect("events are UTF-8");
        for event in events_of(0, &text).into_iter().filter(|event| event.name == "candidate") {
            let id = event.data.get("id").and_then(Value::as_str).expect("an id");
            let rows = self.database.rows();
            let is_persisted = rows.iter().any(|(_, row)| {
                row.candidates.iter().any(|candidate| candidate.get("id").and_then(Value::as_str) == Some(id))
            });
            if !is_persisted && !self.store.has_candidate(id) {
                self.client.is_early.set(true);
            }
        }
        match self.takes.pop_front().unwrap_or(Takes::AfterMs(0)) {
            Takes::AfterMs(ms) => self.host.sleep(ms).await,
            Takes::Never => std::future::pending().await,
            Takes::Gone => return Err(Unreachable),
        }
        self.client.chunks.borrow_mut().push((self.host.now_ms(), text));
        Ok(())
    }

    async fn close(self) {
        self.client.ended.set(Some((self.host.now_ms(), false)));
    }
}

impl Drop for ClientSink {
    fn drop(&mut self) {
        if self.client.ended.get().is_none() {
            self.client.ended.set(Some((self.host.now_ms(), true)));
        }
    }
}

/// A request of a client.
#[derive(Debug, Clone)]
pub(crate) struct ClientRequest {
    method: &'static str,
    url: String,
    headers: Vec<(&'static str, String)>,
    chunks: VecDeque<Vec<u8>>,
    is_cut: bool,
    pub(crate) user: Option<Uuid>,
    pub(crate) token_ms: u64,
}

/// A request without a body.
pub(crate) fn request(method: &'static str, path: &str) -> ClientRequest {
    ClientRequest {
        method,
        url: [ORIGIN, path].concat(),
        headers: Vec::new(),
        chunks: VecDeque::new(),
        is_cut: false,
        user: Some(USER),
        token_ms: TOKEN_MS,
    }
}

/// The request for a session.
pub(crate) fn get(id: Uuid) -> ClientRequest {
    request("GET", &format!("/ai-sessions/{id}"))
}

/// The request for the events of a session.
pub(crate) fn get_events(id: Uuid) -> ClientRequest {
    request("GET", &format!("/ai-sessions/{id}/events"))
}

/// The request to stop a session.
pub(crate) fn delete(id: Uuid) -> ClientRequest {
    request("DELETE", &format!("/ai-sessions/{id}"))
}

/// The request for a generation.
pub(crate) fn post() -> ClientRequest {
    post_text(&"text ".repeat(300))
}

/// The request for a generation from this text.
pub(crate) fn post_text(text: &str) -> ClientRequest {
    let body = json!({ "input_text": text, "model": "a/one" });
    request("POST", "/ai-sessions").with("content-type", "application/json").body(body.to_string().as_bytes())
}

impl ClientRequest {
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(crate) fn without(mut self, name: &'static str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self
    }

    /// The body, in chunks of 1000 bytes.
    pub(crate) fn body(mut self, body: &[u8]) -> Self {
        self.chunks = body.chunks(1000).map(<[u8]>::to_vec).collect();
        self
    }

    /// The connection is cut after the body.
    pub(crate) fn cut(self) -> Self {
        Self { is_cut: true, ..self }
    }

    pub(crate) fn has_key(&self) -> bool {
        self.headers.iter().any(|(name, _)| *name == "idempotency-key")
    }

    pub(crate) fn key(self, key: &str) -> Self {
        self.with("idempotency-key", key)
    }

    pub(crate) fn stream(self) -> Self {
        self.with("accept", "text/event-stream")
    }

    pub(crate) fn respond_async(self) -> Self {
        self.with("prefer", "respond-async")
    }

    pub(crate) fn after(self, id: &str) -> Self {
        self.with("last-event-id", id)
    }

    pub(crate) fn user(self, user: Option<Uuid>) -> Self {
        Self { user, ..self }
    }

    /// The token expires after so long.
    pub(crate) fn token_ms(self, token_ms: u64) -> Self {
        Self { token_ms, ..self }
    }
}

impl Head for ClientRequest {
    fn header(&self, name: &str) -> Option<String> {
        self.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    }
}

impl Body for ClientRequest {
    fn poll_next(
        &mut self,
        _at_least: usize,
        _context: &mut Context<'_>,
    ) -> Poll<Result<Option<Vec<u8>>, Unreachable>> {
        Poll::Ready(match self.chunks.pop_front() {
            Some(chunk) => Ok(Some(chunk)),
            None if self.is_cut => Err(Unreachable),
            None => Ok(None),
        })
    }

    fn look(&mut self) -> Vec<u8> {
        Vec::new()
    }

    async fn next_of_whole(&mut self) -> Result<Option<Vec<u8>>, Unreachable> {
        std::future::poll_fn(|context| self.poll_next(usize::MAX, context)).await
    }
}

impl Inbound for ClientRequest {
    fn method(&self) -> &str {
        self.method
    }

    fn url(&self) -> &str {
        &self.url
    }

    async fn whole_body(&mut self, bytes_max: usize) -> Result<Vec<u8>, BodyError> {
        read_whole(self, bytes_max).await
    }
}

/// A response as its client receives it.
#[derive(Debug)]
pub(crate) struct ClientResponse {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: ClientBody,
}

impl ClientResponse {
    /// The first header of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// The complete body.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.body {
            ClientBody::Complete(bytes) => bytes,
            ClientBody::Stream(_) => panic!("it is a stream"),
        }
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(self.bytes()).expect("the body is JSON")
    }

    /// The code of a problem; empty without one.
    pub(crate) fn code(&self) -> String {
        if self.status < 400 {
            return String::new();
        }
        self.json().get("code").and_then(Value::as_str).expect("a problem has a code").to_owned()
    }

    /// The status of the session in the body.
    pub(crate) fn session_status(&self) -> String {
        self.json().get("status").and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// The id of the session, from `Location` or the body.
    pub(crate) fn session(&self) -> Uuid {
        let id = match self.header("location").and_then(|location| location.rsplit('/').next()) {
            Some(id) => id.to_owned(),
            None => self.json().get("id").and_then(Value::as_str).expect("an id").to_owned(),
        };
        Uuid::parse_str(&id).expect("an id")
    }

    /// How many candidates the body has.
    pub(crate) fn candidates(&self) -> usize {
        self.json().get("candidates").and_then(Value::as_array).map_or(0, Vec::len)
    }

    /// The stream.
    pub(crate) fn stream(&self) -> Rc<Client> {
        match &self.body {
            ClientBody::Stream(client) => Rc::clone(client),
            ClientBody::Complete(bytes) => {
                panic!("{} {}", self.status, String::from_utf8_lossy(bytes))
            }
        }
    }

    /// What is left of `burst`, `generations` and `attempts`.
    pub(crate) fn quota(&self) -> [u32; 3] {
        let field = self.header("ratelimit").expect("RateLimit");
        let mut left = field.split("r=").skip(1).map(|part| {
            let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().expect("a number")
        });
        [(); 3].map(|()| left.next().expect("three policies"))
    }
}
