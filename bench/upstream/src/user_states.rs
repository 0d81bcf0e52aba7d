//! The user states of `transact_ai_user_state`, in memory: the results of the function for a service that makes no errors.
//!
//! Not for: the proof, the limits and the errors, which `tests/database` tests.

use std::collections::HashMap;

use rustix::time::{ClockId, clock_gettime};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The states, by the id of their user.
#[derive(Default)]
pub struct UserStates(HashMap<String, UserState>);

#[derive(Default)]
struct UserState {
    version: u64,
    ledger: Value,
    wake_at_ms: Value,
    generations: Vec<Generation>,
    candidates: Vec<Candidates>,
    idempotency_records: Vec<IdempotencyRecord>,
}

struct Generation {
    id: String,
    started_ms: i64,
    record: String,
    ending: Value,
    runner: Value,
    lease_until_ms: i64,
    stop: bool,
}

struct Candidates {
    id: String,
    position: u64,
    record: String,
}

struct IdempotencyRecord {
    id: String,
    expires_ms: i64,
    record: String,
}

/// The arguments of the function.
#[derive(Deserialize)]
struct Arguments {
    request: String,
}

#[derive(Deserialize)]
#[serde(tag = "purpose", rename_all = "snake_case")]
enum Purpose {
    Check,
    Read {
        user: String,
    },
    Store {
        user: String,
        version: u64,
        writes: Vec<Write>,
    },
    Poll {
        user: String,
        id: String,
        #[serde(default)]
        from: u64,
    },
    Renew {
        user: String,
        at_ms: i64,
        runner: String,
        ids: Vec<String>,
        lease_ms: i64,
    },
    Stop {
        user: String,
        id: String,
        started_ms: i64,
    },
}

#[derive(Deserialize)]
#[serde(tag = "write", rename_all = "snake_case")]
enum Write {
    Generation {
        id: String,
        started_ms: i64,
        record: String,
        #[serde(default)]
        ending: Value,
    },
    Ending {
        id: String,
        ending: Value,
    },
    Candidates {
        id: String,
        position: u64,
        record: String,
    },
    Lease {
        id: String,
        runner: Value,
        lease_ms: Option<i64>,
    },
    RemoveGeneration {
        id: String,
    },
    IdempotencyRecord {
        id: String,
        expires_ms: i64,
        record: String,
    },
    RemoveIdempotencyRecords {
        until_ms: i64,
    },
    RemoveAll,
}

impl UserStates {
    /// The result of the function; `None` for arguments that it would refuse.
    pub fn transact(&mut self, body: &[u8]) -> Option<Value> {
        let Arguments { request } = serde_json::from_slice(body).ok()?;
        let mut result = match serde_json::from_str(&request).ok()? {
            Purpose::Check => json!({}),
            Purpose::Read { user } => self.of(user).whole(),
            Purpose::Store { user, version, writes } => {
                let members: Map<String, Value> = serde_json::from_str(&request).ok()?;
                self.of(user).store(&members, version, writes)
            }
            Purpose::Poll { user, id, from } => self.of(user).poll(&id, from),
            Purpose::Renew { user, at_ms, runner, ids, lease_ms } => {
                self.of(user).renew(&runner, &ids, at_ms + lease_ms)
            }
            Purpose::Stop { user, id, started_ms } => self.of(user).stop(&id, started_ms),
        };
        result.as_object_mut()?.insert("clock_ms".to_owned(), json!(clock_ms()));
        Some(result)
    }

    fn of(&mut self, user: String) -> &mut UserState {
        self.0.entry(user).or_default()
    }
}

impl UserState {
    fn whole(&self) -> Value {
        let generation = |generation: &Generation| {
            let mut members = generation.standing();
            if let Some(members) = members.as_object_mut() {
                members.insert("id".to_owned(), json!(generation.id));
                members.insert("record".to_owned(), json!(generation.record));
            }
            members
        };
        let candidates = |batch: &Candidates| json!({ "id": batch.id, "position": batch.position, "record": batch.record });
        json!({
            "version": self.version,
            "ledger": self.ledger,
            "wake_at_ms": self.wake_at_ms,
            "generations": self.generations.iter().map(generation).collect::<Vec<Value>>(),
            "candidates": self.candidates.iter().map(candidates).collect::<Vec<Value>>(),
            "idempotency_records": self.idempotency_records.iter().map(|each| json!(each.record)).collect::<Vec<Value>>(),
        })
    }

    fn store(&mut self, members: &Map<String, Value>, version: u64, writes: Vec<Write>) -> Value {
        if version != self.version {
            let mut whole = self.whole();
            if let Some(whole) = whole.as_object_mut() {
                whole.insert("conflict".to_owned(), json!(true));
            }
            return whole;
        }
        self.version += 1;
        for write in writes {
            self.apply(write);
        }
        // After the writes: one that removes everything keeps these of its own request.
        if let Some(ledger) = members.get("ledger") {
            self.ledger = ledger.clone();
        }
        if let Some(wake_at_ms) = members.get("wake_at_ms") {
            self.wake_at_ms = wake_at_ms.clone();
        }
        let stops: Vec<&String> =
            self.generations.iter().filter(|each| each.stop).map(|each| &each.id).collect();
        json!({ "version": self.version, "stops": stops })
    }

    fn apply(&mut self, write: Write) {
        match write {
            Write::Generation { id, started_ms, record, ending } => match self.generation(&id) {
                Some(known) => {
                    // A stop was requested for one run.
                    known.stop &= known.started_ms == started_ms;
                    (known.started_ms, known.record, known.ending) = (started_ms, record, ending);
                }
                None => self.generations.push(Generation {
                    id,
                    started_ms,
                    record,
                    ending,
                    runner: Value::Null,
                    lease_until_ms: 0,
                    stop: false,
                }),
            },
            Write::Ending { id, ending } => {
                if let Some(known) = self.generation(&id) {
                    known.ending = ending;
                }
            }
            Write::Candidates { id, position, record } => {
                self.candidates.push(Candidates { id, position, record });
            }
            Write::Lease { id, runner, lease_ms } => {
                if let Some(known) = self.generation(&id) {
                    known.runner = runner;
                    // 0: released.
                    known.lease_until_ms = lease_ms.filter(|ms| *ms > 0).map_or(0, |ms| clock_ms() + ms);
                }
            }
            Write::RemoveGeneration { id } => {
                self.generations.retain(|each| each.id != id);
                self.candidates.retain(|each| each.id != id);
            }
            Write::IdempotencyRecord { id, expires_ms, record } => {
                self.idempotency_records.retain(|each| each.id != id);
                self.idempotency_records.push(IdempotencyRecord { id, expires_ms, record });
            }
            Write::RemoveIdempotencyRecords { until_ms } => {
                self.idempotency_records.retain(|each| each.expires_ms > until_ms);
            }
            Write::RemoveAll => *self = Self { version: self.version, ..Self::default() },
        }
    }

    fn poll(&self, id: &str, from: u64) -> Value {
        let generation = self.generations.iter().find(|each| each.id == id).map(|each| {
            let mut standing = each.standing();
            standing["started_ms"] = json!(each.started_ms);
            standing
        });
        let candidates: Vec<Value> = self
            .candidates
            .iter()
            .filter(|each| each.id == id && each.position >= from)
            .map(|each| json!({ "position": each.position, "record": each.record }))
            .collect();
        json!({ "version": self.version, "generation": generation, "candidates": candidates })
    }

    fn renew(&mut self, runner: &str, ids: &[String], until_ms: i64) -> Value {
        let mut renewed = Vec::new();
        for known in self
            .generations
            .iter_mut()
            .filter(|each| each.runner == runner && each.lease_until_ms > 0 && ids.contains(&each.id))
        {
            known.lease_until_ms = known.lease_until_ms.max(until_ms);
            renewed.push(json!({ "id": known.id, "stop": known.stop }));
        }
        json!({ "version": self.version, "generations": renewed })
    }

    fn stop(&mut self, id: &str, started_ms: i64) -> Value {
        let running =
            self.generation(id).filter(|known| known.started_ms == started_ms && known.ending.is_null());
        let found = running.map(|known| known.stop = true).is_some();
        json!({ "version": self.version, "found": found })
    }

    fn generation(&mut self, id: &str) -> Option<&mut Generation> {
        self.generations.iter_mut().find(|each| each.id == id)
    }
}

impl Generation {
    fn standing(&self) -> Value {
        json!({
            "ending": self.ending,
            "runner": self.runner,
            "is_leased": self.lease_until_ms > clock_ms(),
            "stop": self.stop,
        })
    }
}

/// Milliseconds since the Unix epoch.
pub fn clock_ms() -> i64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}
