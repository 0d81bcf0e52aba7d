//! A PostgREST with the tables of `migrations/`, which fails by script.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a request that the service never sends fails the test"
)]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;

use ai_sessions::http::Request;
use ai_sessions::user_object::session_view::rfc3339;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::scripted_host::{Reply, ScriptedHost};

/// A request to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    Open,
    Reopen,
    Finish,
    Read,
    List,
    LogEvent,
}

/// How the database fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// 503.
    Down,
    /// The connection is never answered.
    Silent,
    /// Refused with this status and code.
    Refused(u16, &'static str),
    /// A firewall's page with this status.
    Firewall(u16),
    /// A page with status 200.
    Page,
    /// The request is executed, and its response is lost.
    LostResponse,
    /// The response takes so long.
    Slow(u64),
}

/// The row of a session.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) owner: Uuid,
    pub(crate) run: u64,
    pub(crate) status: String,
    pub(crate) model: String,
    pub(crate) input_text: String,
    pub(crate) partial: bool,
    pub(crate) error_code: Option<String>,
    pub(crate) created_at: String,
    pub(crate) ended_at: Option<String>,
    pub(crate) usage: [Value; 3],
    pub(crate) coverage_percent: Value,
    pub(crate) candidates: Vec<Value>,
}

/// A clone is the same database.
#[derive(Clone, Default)]
pub(crate) struct ScriptedDatabase(Rc<Tables>);

#[derive(Default)]
struct Tables {
    now_ms: Cell<u64>,
    /// The owner of each token, and when it expires.
    tokens: RefCell<HashMap<String, (Uuid, u64)>>,
    rows: RefCell<BTreeMap<Uuid, Row>>,
    /// Owner and type.
    events: RefCell<Vec<(Uuid, String)>>,
    once: RefCell<HashMap<Operation, VecDeque<Failure>>>,
    always: RefCell<HashMap<Operation, Failure>>,
    requests: RefCell<Vec<Operation>>,
}

impl ScriptedDatabase {
    /// A database that a host reaches.
    pub(crate) fn on(host: &ScriptedHost) -> Self {
        let database = Self::default();
        let tables = database.clone();
        host.respond("/rest/v1/", move |request, now_ms| {
            tables.0.now_ms.set(now_ms);
            tables.respond(request)
        });
        database
    }

    /// Accepts a token of this user until it expires.
    pub(crate) fn accept(&self, token: &str, owner: Uuid, expires_ms: u64) {
        self.0.tokens.borrow_mut().insert(token.to_owned(), (owner, expires_ms));
    }

    /// The next requests of this kind fail so.
    pub(crate) fn fail(&self, operation: Operation, failures: &[Failure]) {
        self.0.once.borrow_mut().entry(operation).or_default().extend(failures);
    }

    /// Every request of this kind fails so; `None`: none.
    pub(crate) fn fail_always(&self, operation: Operation, failure: Option<Failure>) {
        let mut always = self.0.always.borrow_mut();
        match failure {
            Some(failure) => always.insert(operation, failure),
            None => always.remove(&operation),
        };
    }

    /// Every request fails so; `None`: none.
    pub(crate) fn fail_all(&self, failure: Option<Failure>) {
        use Operation::{Finish, List, LogEvent, Open, Read, Reopen};
        for operation in [Open, Reopen, Finish, Read, List, LogEvent] {
            self.fail_always(operation, failure);
        }
    }

    /// The row of a session.
    pub(crate) fn row(&self, id: Uuid) -> Option<Row> {
        self.0.rows.borrow().get(&id).cloned()
    }

    /// All rows.
    pub(crate) fn rows(&self) -> Vec<(Uuid, Row)> {
        self.0.rows.borrow().iter().map(|(id, row)| (*id, row.clone())).collect()
    }

    /// Writes a row past the service.
    pub(crate) fn insert(&self, id: Uuid, row: Row) {
        self.0.rows.borrow_mut().insert(id, row);
    }

    /// Removes a row past the service.
    pub(crate) fn remove(&self, id: Uuid) {
        self.0.rows.borrow_mut().remove(&id);
    }

    /// The owner and the type of each event.
    pub(crate) fn events(&self) -> Vec<(Uuid, String)> {
        self.0.events.borrow().clone()
    }

    /// How many requests of this kind there were.
    pub(crate) fn count(&self, operation: Operation) -> usize {
        self.0.requests.borrow().iter().filter(|known| **known == operation).count()
    }

    fn respond(&self, request: &Request) -> Reply {
        let (_, path) = request.url.split_once("/rest/v1").expect("a path of PostgREST");
        let operation = match (request.method, path.split('?').next().unwrap_or_default()) {
            ("POST", "/ai_generation_sessions") => Operation::Open,
            ("POST", "/rpc/reopen_ai_session") => Operation::Reopen,
            ("POST", "/rpc/finish_ai_session") => Operation::Finish,
            ("POST", "/event_logs") => Operation::LogEvent,
            ("GET", "/ai_generation_sessions") if path.contains("?id=eq.") => Operation::Read,
            ("GET", "/ai_generation_sessions") => Operation::List,
            other => panic!("no such request: {other:?}"),
        };
        let authorization = request.headers.iter().find(|(name, _)| *name == "authorization");
        let Some((_, authorization)) = authorization else {
            return refused(401, "42501"); // the check of readiness
        };
        self.0.requests.borrow_mut().push(operation);
        let once = self.0.once.borrow_mut().get_mut(&operation).and_then(VecDeque::pop_front);
        let failure = once.or_else(|| self.0.always.borrow().get(&operation).copied());
        match failure {
            Some(Failure::Down) => return Reply::new(503),
            Some(Failure::Silent) => return Reply::silence(),
            Some(Failure::Refused(status, sqlstate)) => return refused(status, sqlstate),
            Some(Failure::Firewall(status)) => return Reply::new(status).say("<html>blocked</html>"),
            Some(Failure::Page) => return Reply::new(200).say("<html>checking</html>"),
            Some(Failure::LostResponse | Failure::Slow(_)) | None => {}
        }
        let token = authorization.strip_prefix("Bearer ").expect("a bearer token");
        let known = self.0.tokens.borrow().get(token).copied();
        let reply = match known {
            Some((owner, expires_ms)) if self.0.now_ms.get() < expires_ms => {
                self.execute(operation, owner, path, &request.body)
            }
            _ => Reply::new(401).say(json!({ "code": "PGRST303", "message": "JWT expired" }).to_string()),
        };
        match failure {
            Some(Failure::LostResponse) => Reply::unreachable(),
            Some(Failure::Slow(ms)) => reply.head_after(ms),
            _ => reply,
        }
    }

    fn execute(&self, operation: Operation, owner: Uuid, path: &str, body: &[u8]) -> Reply {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        match operation {
            Operation::Open => self.open(owner, &body),
            Operation::Reopen => match self.reopen(owner, body.get("session").expect("session")) {
                true => Reply::new(204),
                false => refused(404, "PT404"),
            },
            Operation::Finish => self.finish(owner, &body),
            Operation::LogEvent => {
                let kind = body.get("type").and_then(Value::as_str).expect("type").to_owned();
                self.0.events.borrow_mut().push((owner, kind));
                Reply::new(201)
            }
            Operation::Read => {
                let (_, id) = path.split_once("?id=eq.").expect("an id");
                let id = Uuid::parse_str(id.split('&').next().unwrap_or_default()).expect("an id");
                let rows = self.0.rows.borrow();
                let row = rows.get(&id).filter(|row| row.owner == owner);
                let found: Vec<_> = row.map(|row| document(id, row, true)).into_iter().collect();
                Reply::new(200).say(json!(found).to_string())
            }
            Operation::List => {
                let parameter = |name: &str| {
                    path.split(['?', '&']).find_map(|part| part.strip_prefix(name)).map(str::to_owned)
                };
                let limit: usize = parameter("limit=").and_then(|limit| limit.parse().ok()).expect("a limit");
                let before = parameter("created_at=lte.");
                let after_id = parameter("or=").and_then(|or| {
                    let (_, id) = or.rsplit_once("id.lt.")?;
                    Some(id.trim_end_matches(')').to_owned())
                });
                let rows = self.0.rows.borrow();
                let mut rows: Vec<_> = rows.iter().filter(|(_, row)| row.owner == owner).collect();
                rows.sort_by_key(|(id, row)| std::cmp::Reverse((row.created_at.clone(), **id)));
                let is_before = |id: &Uuid, row: &Row| {
                    let Some(before) = &before else { return true };
                    let at = chrono::DateTime::parse_from_rfc3339(&row.created_at).expect("a time");
                    let limit = chrono::DateTime::parse_from_rfc3339(before).expect("a time");
                    at < limit
                        || (at == limit && after_id.as_ref().is_some_and(|other| id.to_string() < *other))
                };
                let rows = rows.into_iter().filter(|(id, row)| is_before(id, row)).take(limit);
                let rows: Vec<_> = rows.map(|(id, row)| document(*id, row, false)).collect();
                Reply::new(200).say(json!(rows).to_string())
            }
        }
    }

    fn open(&self, owner: Uuid, session: &Value) -> Reply {
        let id = id_of(session);
        if self.0.rows.borrow().contains_key(&id) {
            return refused(409, "23505");
        }
        self.insert(id, new_row(owner, session));
        Reply::new(201)
    }

    /// As `reopen_ai_session`: begins the session, or the run, where that was not confirmed.
    fn reopen(&self, owner: Uuid, session: &Value) -> bool {
        let id = id_of(session);
        let run = session.get("run").and_then(Value::as_u64).unwrap_or(1);
        let has_text = session.get("input_text").is_some_and(Value::is_string);
        let mut rows = self.0.rows.borrow_mut();
        match rows.get_mut(&id) {
            Some(row) if row.owner != owner => false,
            Some(row) => {
                if row.run < run && row.status != "completed" {
                    *row = Row {
                        run,
                        status: "generating".to_owned(),
                        error_code: None,
                        ended_at: None,
                        ..row.clone()
                    };
                }
                true
            }
            None if has_text => {
                rows.insert(id, new_row(owner, session));
                true
            }
            None => false,
        }
    }

    fn finish(&self, owner: Uuid, body: &Value) -> Reply {
        let session = body.get("session").expect("session");
        let candidates = body.get("candidates").and_then(Value::as_array).expect("candidates").clone();
        let status = session.get("status").and_then(Value::as_str).expect("status");
        if (status == "completed") == candidates.is_empty() {
            return refused(400, "22023");
        }
        if !self.reopen(owner, session) {
            return refused(404, "PT404");
        }
        let mut rows = self.0.rows.borrow_mut();
        let row = rows.get_mut(&id_of(session)).expect("it was begun");
        let run = session.get("run").and_then(Value::as_u64).unwrap_or(1);
        if row.status == "generating" && row.run == run {
            let text = |name: &str| session.get(name).and_then(Value::as_str).map(str::to_owned);
            let number = |name: &str| session.get(name).cloned().unwrap_or_default();
            *row = Row {
                status: status.to_owned(),
                partial: session.get("partial").and_then(Value::as_bool).unwrap_or(false),
                error_code: text("error_code"),
                usage: [number("prompt_tokens"), number("completion_tokens"), number("cost")],
                coverage_percent: number("coverage_percent"),
                ended_at: Some(rfc3339(self.0.now_ms.get())),
                candidates: candidates.into_iter().map(columns_of).collect(),
                ..row.clone()
            };
            self.0.events.borrow_mut().push((owner, format!("ai_session.{status}")));
        }
        Reply::new(200).say(json!(row.status).to_string())
    }
}

fn id_of(session: &Value) -> Uuid {
    session.get("id").and_then(Value::as_str).and_then(|id| Uuid::parse_str(id).ok()).expect("an id")
}

fn new_row(owner: Uuid, session: &Value) -> Row {
    let text = |name: &str| session.get(name).and_then(Value::as_str).expect(name).to_owned();
    Row {
        owner,
        run: session.get("run").and_then(Value::as_u64).unwrap_or(1),
        status: "generating".to_owned(),
        model: text("model"),
        input_text: text("input_text"),
        partial: false,
        error_code: None,
        created_at: text("created_at"),
        ended_at: None,
        usage: [Value::Null, Value::Null, Value::Null],
        coverage_percent: Value::Null,
        candidates: Vec::new(),
    }
}

/// The columns of a candidate, which has the ends of its source in two of them.
fn columns_of(mut candidate: Value) -> Value {
    let columns = candidate.as_object_mut().expect("an object");
    let source = columns.remove("source").expect("a source, or null");
    for (column, end) in [("source_start", "start"), ("source_end", "end")] {
        columns.insert(column.to_owned(), source.get(end).cloned().unwrap_or_default());
    }
    candidate
}

fn document(id: Uuid, row: &Row, with_candidates: bool) -> Value {
    let [prompt_tokens, completion_tokens, cost] = &row.usage;
    let mut document = json!({
        "id": id, "run": row.run, "status": row.status, "model": row.model, "partial": row.partial,
        "error_code": row.error_code, "created_at": row.created_at, "ended_at": row.ended_at,
        "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "cost": cost,
        "coverage_percent": row.coverage_percent,
    });
    let (name, value) = if with_candidates {
        ("flashcard_candidates", json!(row.candidates))
    } else {
        ("counted", json!([{ "count": row.candidates.len() }]))
    };
    document.as_object_mut().expect("it is an object").insert(name.to_owned(), value);
    document
}

fn refused(status: u16, sqlstate: &str) -> Reply {
    Reply::new(status)
        .with("content-type", "application/json")
        .say(json!({ "code": sqlstate, "message": "refused" }).to_string())
}
