//! The requests to the user state in Postgres, and their replies: the service's side of `public.transact_ai_user_state`.
//!
//! ```text
//! POST /rest/v1/rpc/transact_ai_user_state
//! {"request": "{\"format\":1,\"at_ms\":…,\"as\":\"service\",\"purpose\":…,\"user\":…,…}", "proof": "<64 hexadecimal digits>"}
//! ```
//! The proof is an HMAC of the request's text, so a request needs no token of the user, who may have none that is valid. It is
//! sent with the API key alone: for a publishable key the gateway adds a token of the role `anon`, and PostgREST takes a
//! request without a token (with a key that is a JWT) as of the same role. Neither has a subject.
//!
//! Not for: when to send which request (`user_store`).

use uuid::Uuid;

use crate::config::Supabase;
use crate::http::{JSON, Request};
use crate::json::record::{quoted, to_json};
use crate::json::strict::read_text;
use crate::json::{Cursor, Value};
use crate::keyed_hash::{hex, keyed_hash};
use crate::ports::{Lease, Polled};
use crate::user_state::generation::Driver;
use crate::user_state::stored::{
    NotReadable, StoredGeneration, StoredRows, batch, ledger_record, load, read_batch, read_ending,
    record_without_token,
};
use crate::user_state::{UserState, Write, WriteSet};

/// The lease that a store or a renewal gives: three times the interval of renewals.
pub const LEASE_MS: u64 = 15_000;
/// The number of the last commits that the ledger's record names. A store whose reply was lost is found among them, unless as
/// many others came after it within one transaction.
pub const COMMITS_MAX: usize = 8;
/// The longest reply. With the default limits a user has 22 generations (2 in progress, 20 not yet persisted) of at most 1 MiB
/// of model output, which JSON within JSON makes longer by less than half. An isolate of 256 MB has room for the reply, its
/// strings and the state.
pub const REPLY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Separates this hash from the others under the key.
const LABEL: &[u8] = b"ai-sessions/user-state\0";

/// Signs a request, and builds its message. `members` is from one of the functions below; the database accepts a request until
/// 60 s after `now_ms`.
#[must_use]
pub fn signed(supabase: &Supabase, key: &str, members: &str, now_ms: u64) -> Request {
    let rest = members.strip_prefix('{').unwrap_or_default();
    let text = [r#"{"format":1,"at_ms":"#, &now_ms.to_string(), r#","as":"service","#, rest].concat();
    let proof = hex(&keyed_hash(key, &[LABEL, text.as_bytes()]));
    let body = object(&[("request", quoted(&text)), ("proof", quoted(&proof))]);
    Request {
        method: "POST",
        url: [&supabase.url, "/rest/v1/rpc/transact_ai_user_state"].concat(),
        headers: vec![
            ("apikey", supabase.anon_key.clone()),
            ("accept", JSON.to_owned()),
            ("content-type", JSON.to_owned()),
        ],
        body: body.into_bytes(),
    }
}

/// Checks the key.
#[must_use]
pub fn check() -> String {
    object(&[("purpose", quoted("check"))])
}

/// Reads the whole state.
#[must_use]
pub fn read(user: Uuid) -> String {
    object(&[("purpose", quoted("read")), ("user", text(user))])
}

/// Reads a generation, with its candidates from a position on.
#[must_use]
pub fn poll(user: Uuid, id: Uuid, from: usize) -> String {
    let (id, from) = (text(id), from.to_string());
    object(&[("purpose", quoted("poll")), ("user", text(user)), ("id", id), ("from", from)])
}

/// Renews the lease of a generation.
#[must_use]
pub fn renew(user: Uuid, runner: Uuid, id: Uuid) -> String {
    object(&[
        ("purpose", quoted("renew")),
        ("user", text(user)),
        ("runner", text(runner)),
        ("ids", ["[", &text(id), "]"].concat()),
        ("lease_ms", LEASE_MS.to_string()),
    ])
}

/// Requests a stop of a run.
#[must_use]
pub fn stop(user: Uuid, id: Uuid, started_ms: u64) -> String {
    let started_ms = started_ms.to_string();
    object(&[("purpose", quoted("stop")), ("user", text(user)), ("id", text(id)), ("started_ms", started_ms)])
}

/// The parts of a store beside its writes.
#[derive(Debug, Clone, Copy)]
pub struct Commit<'a> {
    /// The owner of the state.
    pub user: Uuid,
    /// The isolate, for the leases.
    pub runner: Uuid,
    /// The version on which the decision is based; 0 for a state that was never stored.
    pub version: u64,
    /// The ids of the commits before, and last the one of this commit.
    pub commits: &'a [String],
    /// For a scheduled wake-up only.
    pub wake_up: Option<&'a WakeUp>,
}

/// The parts of a store for a scheduled wake-up.
#[derive(Debug, Clone, Default)]
pub struct WakeUp {
    /// When work is due; `None` for none.
    pub at_ms: Option<u64>,
    /// The sealed tokens of generations.
    pub tokens: Vec<(Uuid, String)>,
}

impl WakeUp {
    /// A record with the sealed token of its generation, which only [`Reply::into_state`] reads.
    fn seal(&self, id: Uuid, mut record: String) -> String {
        let token = self.tokens.iter().find(|(of, _)| *of == id);
        if let Some((_, token)) = token.filter(|_| record.ends_with('}')) {
            record.pop();
            for part in [",\"sealed_token\":\"", token, "\"}"] {
                record.push_str(part);
            }
        }
        record
    }
}

/// Stores the writes of a decision. The ledger is always stored, because its record names the commit.
///
/// # Errors
/// [`NotReadable`] when a record cannot be written.
pub fn store(commit: &Commit<'_>, state: &UserState, writes: &WriteSet) -> Result<String, NotReadable> {
    let mut rows = Vec::new();
    for write in writes.writes() {
        rows.extend(row_of(commit, state, *write)?);
    }
    let ledger = ledger_record(state);
    let ledger = ledger.strip_suffix('}').ok_or(NotReadable)?;
    let ledger = [ledger, ",\"commits\":[\"", &commit.commits.join("\",\""), "\"]}"].concat();
    let mut members = vec![
        ("purpose", quoted("store")),
        ("user", text(commit.user)),
        ("version", commit.version.to_string()),
        ("ledger", quoted(&ledger)),
        ("writes", ["[", &rows.join(","), "]"].concat()),
    ];
    if let Some(WakeUp { at_ms, .. }) = commit.wake_up {
        members.push(("wake_at_ms", at_ms.map_or_else(|| "null".to_owned(), |at_ms| at_ms.to_string())));
    }
    Ok(object(&members))
}

/// A write; `None` for one of a generation or a record that the decision has removed again.
fn row_of(commit: &Commit<'_>, state: &UserState, write: Write) -> Result<Option<String>, NotReadable> {
    let row = |name: &str, id: Uuid, members: &[(&'static str, String)]| {
        let head = [("write", quoted(name)), ("id", text(id))];
        Some(object(&[&head, members].concat()))
    };
    let lease = |id, lease_ms: u64| {
        row("lease", id, &[("runner", text(commit.runner)), ("lease_ms", lease_ms.to_string())])
    };
    Ok(match write {
        // Beside the writes.
        Write::Ledger => None,
        Write::Generation(id) => {
            let Some(generation) = state.find(id) else { return Ok(None) };
            let ending = generation.ending.as_ref().map(|ending| to_json(ending));
            let mut record = record_without_token(generation);
            if let Some(wake_up) = commit.wake_up {
                record = wake_up.seal(id, record);
            }
            let members = [
                ("started_ms", generation.started_ms.to_string()),
                ("record", quoted(&record)),
                ("ending", ending.map_or_else(|| "null".to_owned(), |ending| quoted(&ending))),
            ];
            row("generation", id, &members)
        }
        Write::Ending(id) => {
            let ending = state.find(id).and_then(|generation| generation.ending.as_ref());
            let Some(ending) = ending else { return Ok(None) };
            row("ending", id, &[("ending", quoted(&to_json(ending)))])
        }
        Write::Candidates(id, from) => {
            let Some(generation) = state.find(id) else { return Ok(None) };
            let batch = quoted(&batch(generation, from));
            row("candidates", id, &[("position", from.to_string()), ("record", batch)])
        }
        Write::RemoveGeneration(id) => row("remove_generation", id, &[]),
        Write::Lease(id) => state.find(id).and_then(|_| lease(id, LEASE_MS)),
        // Its runner stays, and cannot renew it any more.
        Write::Release(id) => state.find(id).and_then(|_| lease(id, 0)),
        Write::IdempotencyRecord(id) => {
            let Some(found) = state.records.iter().find(|record| record.session_id == id) else {
                return Ok(None);
            };
            let members =
                [("expires_ms", found.expires_ms().to_string()), ("record", quoted(&to_json(found)))];
            row("idempotency_record", id, &members)
        }
        Write::RemoveIdempotencyRecords(until_ms) => Some(object(&[
            ("write", quoted("remove_idempotency_records")),
            ("until_ms", until_ms.to_string()),
        ])),
        Write::RemoveAll => Some(object(&[("write", quoted("remove_all"))])),
    })
}

/// An object, of members whose values are JSON.
fn object(members: &[(&'static str, String)]) -> String {
    let mut json = String::from("{");
    for (index, (name, value)) in members.iter().enumerate() {
        for part in [if index == 0 { "\"" } else { ",\"" }, name, "\":", value] {
            json.push_str(part);
        }
    }
    json.push('}');
    json
}

fn text(id: Uuid) -> String {
    quoted(&id.to_string())
}

/// A reply to a signed request: the members of all of them.
#[derive(Debug, Default)]
pub struct Reply {
    /// The database's clock, in milliseconds since the Unix epoch.
    pub clock_ms: u64,
    version: Option<u64>,
    has_conflict: bool,
    ledger: Option<String>,
    generations: Option<Vec<GenerationRow>>,
    candidates: Option<Vec<CandidatesRow>>,
    idempotency_records: Option<Vec<String>>,
    stops: Option<Vec<Uuid>>,
    generation: Option<GenerationRow>,
    found: Option<bool>,
}

#[derive(Debug, Default)]
struct GenerationRow {
    id: Option<Uuid>,
    started_ms: Option<u64>,
    record: Option<String>,
    ending: Option<String>,
    runner: Option<Uuid>,
    is_leased: bool,
    is_stop_requested: bool,
    /// Whether it has the members beside the record.
    has_beside: bool,
}

#[derive(Debug, Default)]
struct CandidatesRow {
    id: Option<String>,
    record: Option<String>,
}

/// Reads values, and notes one of another kind than expected. Without types for serde, which make the module larger.
#[derive(Default)]
struct Reader {
    is_broken: bool,
}

impl Reader {
    fn expect<T>(&mut self, value: Option<T>) -> Option<T> {
        self.is_broken |= value.is_none();
        value
    }

    fn number(&mut self, value: Value<'_>) -> Option<u64> {
        let number = match value {
            Value::Bare(digits) => std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()),
            _ => None,
        };
        self.expect(number)
    }

    /// Reads a text or null.
    fn text(&mut self, value: Value<'_>) -> Option<String> {
        match value {
            Value::Bare(b"null") => None,
            Value::Text(text) => {
                let text = read_text(&[b"\"", text, b"\""].concat());
                self.expect(text)
            }
            _ => self.expect(None),
        }
    }

    /// Reads an id or null.
    fn id(&mut self, value: Value<'_>) -> Option<Uuid> {
        let id = self.text(value)?;
        self.expect(Uuid::try_parse(&id).ok())
    }

    fn switch(&mut self, value: Value<'_>) -> bool {
        let is_true = value == Value::Bare(b"true");
        self.is_broken |= !is_true && value != Value::Bare(b"false");
        is_true
    }

    fn list(&mut self, value: Value<'_>, on_item: &mut dyn FnMut(&mut Self, &mut Cursor<'_>)) {
        let Value::List(list) = value else {
            self.is_broken = true;
            return;
        };
        let mut cursor = Cursor::new(list);
        cursor.list(&mut |cursor| on_item(self, cursor));
        self.is_broken |= cursor.rest().is_none();
    }

    fn generation(&mut self, cursor: &mut Cursor<'_>) -> GenerationRow {
        let mut row = GenerationRow::default();
        cursor.object(&mut |name, cursor| match (name, cursor.value()) {
            (b"id", value) => row.id = self.id(value),
            (b"started_ms", value) => row.started_ms = self.number(value),
            (b"record", value) => row.record = self.text(value),
            (b"ending", value) => row.ending = self.text(value),
            (b"runner", value) => row.runner = self.id(value),
            (b"is_leased", value) => row.is_leased = self.switch(value),
            (b"stop", value) => (row.is_stop_requested, row.has_beside) = (self.switch(value), true),
            _ => {}
        });
        row
    }

    fn candidates(&mut self, cursor: &mut Cursor<'_>) -> CandidatesRow {
        let mut row = CandidatesRow::default();
        cursor.object(&mut |name, cursor| match (name, cursor.value()) {
            (b"id", value) => row.id = self.text(value),
            (b"record", value) => row.record = self.text(value),
            _ => {}
        });
        row
    }
}

/// A state as it is stored.
#[derive(Debug, Clone, Default)]
pub struct Stored {
    /// Without a token in any generation.
    pub state: UserState,
    /// Grows by 1 with each store; 0: never stored.
    pub version: u64,
    /// The ids of the last commits, the newest last.
    pub commits: Vec<String>,
    /// The sealed tokens of its generations.
    pub sealed_tokens: Vec<(Uuid, String)>,
}

/// The result of a store.
#[derive(Debug)]
pub enum StoreResult {
    /// It is stored.
    Stored {
        /// The version now.
        version: u64,
        /// The generations of which another isolate has requested a stop.
        stops: Vec<Uuid>,
    },
    /// Nothing is stored: the state has another version.
    Conflict(Box<Stored>),
}

impl Reply {
    /// Reads a reply.
    ///
    /// # Errors
    /// [`NotReadable`].
    pub fn read(body: &[u8]) -> Result<Self, NotReadable> {
        let (mut reply, mut reader, mut clock_ms) = (Self::default(), Reader::default(), None);
        let mut cursor = Cursor::new(body);
        cursor.object(&mut |name, cursor| match name {
            b"clock_ms" => clock_ms = reader.number(cursor.value()),
            b"version" => reply.version = reader.number(cursor.value()),
            b"conflict" => reply.has_conflict = reader.switch(cursor.value()),
            b"ledger" => reply.ledger = reader.text(cursor.value()),
            b"found" => reply.found = Some(reader.switch(cursor.value())),
            b"generations" => {
                let rows = reply.generations.insert(Vec::new());
                reader.list(cursor.value(), &mut |reader, cursor| rows.push(reader.generation(cursor)));
            }
            b"candidates" => {
                let rows = reply.candidates.insert(Vec::new());
                reader.list(cursor.value(), &mut |reader, cursor| rows.push(reader.candidates(cursor)));
            }
            b"idempotency_records" => {
                let records = reply.idempotency_records.insert(Vec::new());
                reader
                    .list(cursor.value(), &mut |reader, cursor| records.extend(reader.text(cursor.value())));
            }
            b"stops" => {
                let stops = reply.stops.insert(Vec::new());
                reader.list(cursor.value(), &mut |reader, cursor| stops.extend(reader.id(cursor.value())));
            }
            b"generation" => {
                // Null, or a row, whose members are never all missing.
                let row = reader.generation(cursor);
                reply.generation = row.has_beside.then_some(row);
            }
            _ => drop(cursor.value()),
        });
        let is_whole = cursor.rest().is_some_and(|rest| rest.trim_ascii().is_empty());
        reply.clock_ms = clock_ms.filter(|_| is_whole && !reader.is_broken).ok_or(NotReadable)?;
        Ok(reply)
    }

    /// The reply to [`read`], for the isolate of that id.
    ///
    /// # Errors
    /// [`NotReadable`].
    pub fn into_state(self, runner: Uuid) -> Result<Stored, NotReadable> {
        let version = self.version.ok_or(NotReadable)?;
        let commits = self.ledger.as_deref().map(commits_of).unwrap_or_default();
        let mut rows = StoredRows {
            ledger: self.ledger,
            idempotency_records: self.idempotency_records.ok_or(NotReadable)?,
            ..StoredRows::default()
        };
        let mut sealed_tokens = Vec::new();
        for row in self.generations.ok_or(NotReadable)? {
            let sealed = row.record.as_deref().and_then(sealed_token_of);
            sealed_tokens.extend(row.id.zip(sealed));
            rows.generations.push(StoredGeneration {
                driver: row.driver(runner),
                record: row.record.ok_or(NotReadable)?,
                ending: row.ending,
                is_stop_requested: row.is_stop_requested,
            });
        }
        for row in self.candidates.ok_or(NotReadable)? {
            rows.candidates.push((row.id.ok_or(NotReadable)?, row.record.ok_or(NotReadable)?));
        }
        Ok(Stored { state: load(&rows)?, version, commits, sealed_tokens })
    }

    /// The reply to [`store`], for the isolate of that id.
    ///
    /// # Errors
    /// [`NotReadable`].
    pub fn into_result(self, runner: Uuid) -> Result<StoreResult, NotReadable> {
        if self.has_conflict {
            return self.into_state(runner).map(|stored| StoreResult::Conflict(Box::new(stored)));
        }
        let version = self.version.ok_or(NotReadable)?;
        Ok(StoreResult::Stored { version, stops: self.stops.ok_or(NotReadable)? })
    }

    /// The reply to [`poll`], for the isolate of that id.
    ///
    /// # Errors
    /// [`NotReadable`].
    pub fn into_polled(self, runner: Uuid) -> Result<Option<Polled>, NotReadable> {
        let rows = self.candidates.ok_or(NotReadable)?;
        let Some(row) = self.generation else { return Ok(None) };
        let mut candidates = Vec::new();
        for row in rows {
            candidates.extend(read_batch(&row.record.ok_or(NotReadable)?)?);
        }
        Ok(Some(Polled {
            started_ms: row.started_ms.ok_or(NotReadable)?,
            driver: row.driver(runner),
            ending: row.ending.as_deref().map(read_ending).transpose()?,
            is_stop_requested: row.is_stop_requested,
            candidates,
        }))
    }

    /// The reply to [`renew`] of that generation.
    ///
    /// # Errors
    /// [`NotReadable`].
    pub fn into_lease(self, id: Uuid) -> Result<Lease, NotReadable> {
        let rows = self.generations.ok_or(NotReadable)?;
        let found = rows.iter().find(|row| row.id == Some(id));
        Ok(found.map_or(Lease::Lost, |row| Lease::Renewed { is_stop_requested: row.is_stop_requested }))
    }

    /// The reply to [`stop`]: whether the run is in progress.
    ///
    /// # Errors
    /// [`NotReadable`].
    pub fn into_found(self) -> Result<bool, NotReadable> {
        self.found.ok_or(NotReadable)
    }
}

impl GenerationRow {
    fn driver(&self, runner: Uuid) -> Driver {
        match self.runner {
            None => Driver::None,
            Some(own) if own == runner => Driver::Own,
            Some(_) if self.is_leased => Driver::Other,
            Some(_) => Driver::Lapsed,
        }
    }
}

fn sealed_token_of(record: &str) -> Option<String> {
    let mut token = None;
    Cursor::new(record.as_bytes()).object(&mut |name, cursor| {
        let value = cursor.value();
        if name == b"sealed_token" {
            token = value.as_str().map(str::to_owned);
        }
    });
    token
}

fn commits_of(ledger: &str) -> Vec<String> {
    let mut commits = Vec::new();
    Cursor::new(ledger.as_bytes()).object(&mut |name, cursor| {
        if name != b"commits" {
            cursor.value();
            return;
        }
        cursor.list(&mut |cursor| commits.extend(cursor.value().as_str().map(str::to_owned)));
    });
    commits
}

/// The database's clock, from the refusal of a request whose time is too far from it.
#[must_use]
pub fn clock_of_refusal(body: &[u8]) -> Option<u64> {
    let (mut has_code, mut clock_ms) = (false, None);
    Cursor::new(body).object(&mut |name, cursor| match (name, cursor.value()) {
        (b"code", value) => has_code = value == Value::Text(b"PT412"),
        (b"details", value) => clock_ms = value.whole(),
        _ => {}
    });
    clock_ms.filter(|_| has_code)
}
