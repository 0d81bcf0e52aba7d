//! A state in the object's SQLite storage.
//!
//! ```text
//! ledger       one row: what was used
//! generations  a row each, without its candidates
//! candidates   a row per batch, by the position of its first
//! claims       a row each
//! ```
//! The tables are made with the first thing that is stored: an object that is only asked keeps nothing.
//! The calls are synchronous. All statements of one [`store`] are one transaction, which is rolled back when one of them
//! fails; without it, those before the failed one would hold
//! (<https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/#transactionsync>).

use std::cell::Cell;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use wasm_bindgen::prelude::*;
use worker::{SqlStorage, SqlStorageValue, State};

use crate::quota::{Ledger, Window};
use crate::user_state::record::{Generation, SessionCandidate};
use crate::user_state::{UserState, WriteSet};

const SCHEMA: &str = "
    create table if not exists ledger (id integer primary key check (id = 0), record text not null) strict;
    create table if not exists generations (id text primary key, record text not null, ending text) strict;
    create table if not exists candidates (
        generation_id text not null references generations (id) on delete cascade,
        position integer not null, record text not null,
        primary key (generation_id, position)
    ) strict;
    create table if not exists claims (
        session_id text primary key, ends_ms integer not null, record text not null
    ) strict;";

#[wasm_bindgen]
extern "C" {
    /// `DurableObjectStorage`, as far as `worker` does not know it.
    type SyncStorage;

    #[wasm_bindgen(method, catch, js_name = transactionSync)]
    fn transaction_sync(
        this: &SyncStorage,
        work: &mut dyn FnMut() -> Result<JsValue, JsValue>,
    ) -> Result<JsValue, JsValue>;
}

/// What cannot be read or written: nothing may be decided then.
pub(super) type StorageResult<T> = Result<T, ()>;

#[derive(Serialize)]
struct LedgerRecord<'a> {
    ledger: &'a Ledger,
    attempts: &'a Window,
    #[serde(rename = "told_limited")]
    logged_limits: &'a [(String, u64)],
    rejected_until_ms: u64,
}

#[derive(Deserialize)]
struct StoredLedger {
    ledger: Ledger,
    #[serde(default)]
    attempts: Window,
    #[serde(rename = "told_limited")]
    logged_limits: Vec<(String, u64)>,
    #[serde(default)]
    rejected_until_ms: u64,
}

/// Loads the state.
pub(super) fn load(sql: &SqlStorage) -> StorageResult<UserState> {
    if rows(sql, "select 1 from sqlite_master where name = 'claims'")?.is_empty() {
        return Ok(UserState::default());
    }
    let (mut ledger, mut logged_limits, mut rejected_until_ms) = (Ledger::default(), Vec::new(), 0);
    for row in rows(sql, "select record from ledger")? {
        let record: StoredLedger = read(row.first())?;
        ledger = Ledger { attempts: record.attempts, ..record.ledger };
        (logged_limits, rejected_until_ms) = (record.logged_limits, record.rejected_until_ms);
    }
    let mut records = Vec::new();
    for row in rows(sql, "select record from claims")? {
        records.push(read(row.first())?);
    }
    let mut generations = Vec::new();
    let in_order = "select record, ending from generations order by json_extract(record, '$.started_ms')";
    for row in rows(sql, in_order)? {
        let mut generation: Generation = read(row.first())?;
        if let ending @ Some(SqlStorageValue::String(_)) = row.get(1) {
            generation.ending = Some(read(ending)?);
        }
        generations.push(generation);
    }
    if !generations.is_empty() {
        for row in rows(sql, "select generation_id, record from candidates order by generation_id, position")?
        {
            let Some(SqlStorageValue::String(id)) = row.first() else { return Err(()) };
            let id = Uuid::try_parse(id).map_err(drop)?;
            let found = generations.iter_mut().find(|generation| generation.accepted.id == id);
            if let Some(generation) = found {
                generation.candidates.extend(read::<Vec<SessionCandidate>>(row.get(1))?);
            }
        }
    }
    Ok(UserState::stored((ledger, logged_limits, rejected_until_ms), records, generations))
}

/// Stores what a decision says has to be stored: all of it or nothing.
pub(super) fn store(
    object: &State,
    state: &UserState,
    effects: &WriteSet,
    has_tables: &Cell<bool>,
) -> StorageResult<()> {
    let storage: SyncStorage = object.as_raw().storage().map_err(drop)?.unchecked_into();
    let sql = object.storage().sql();
    // What is thrown rolls the transaction back.
    let mut work =
        || write_all(&sql, state, effects, has_tables).map_err(|()| JsValue::NULL).map(|()| JsValue::NULL);
    storage.transaction_sync(&mut work).map(drop).map_err(drop)
}

fn write_all(
    sql: &SqlStorage,
    state: &UserState,
    effects: &WriteSet,
    has_tables: &Cell<bool>,
) -> StorageResult<()> {
    let exec = |query: &str, values: Vec<JsValue>| sql.exec_raw(query, values).map(drop).map_err(drop);
    if effects.clear {
        for table in ["ledger", "candidates", "generations", "claims"] {
            exec(&["drop table if exists ", table].concat(), Vec::new())?;
        }
        return Ok(());
    }
    if !has_tables.replace(true) {
        exec(SCHEMA, Vec::new())?;
    }
    if effects.ledger {
        let record = LedgerRecord {
            ledger: &state.ledger,
            attempts: &state.ledger.attempts,
            logged_limits: &state.logged_limits,
            rejected_until_ms: state.rejected_until_ms,
        };
        exec("insert or replace into ledger values (0, ?)", vec![write(&record)?])?;
    }
    if let Some(generation) = effects.generation.and_then(|id| state.find(id)) {
        let id = JsValue::from(generation.accepted.id.to_string());
        let ending = generation.ending.as_ref().map_or(Ok(JsValue::NULL), write)?;
        // Not `insert or replace`, which would take the candidates along.
        let query = "insert into generations values (?, ?, ?)
            on conflict (id) do update set record = excluded.record, ending = excluded.ending";
        exec(query, vec![id, write(generation)?, ending])?;
    }
    if let Some(generation) = effects.ending.and_then(|id| state.find(id)) {
        let id = JsValue::from(generation.accepted.id.to_string());
        exec("update generations set ending = ? where id = ?", vec![write(&generation.ending)?, id])?;
    }
    if let Some((from, generation)) = effects.candidates.and_then(|(id, from)| Some((from, state.find(id)?)))
    {
        let id = JsValue::from(generation.accepted.id.to_string());
        let position = JsValue::from(u32::try_from(from).map_err(drop)?);
        let batch = generation.candidates.get(from..).unwrap_or_default();
        exec("insert into candidates values (?, ?, ?)", vec![id, position, write(&batch)?])?;
    }
    let record = effects.record.and_then(|id| state.records.iter().find(|record| record.session_id == id));
    if let Some(record) = record {
        let id = JsValue::from(record.session_id.to_string());
        let values = vec![id, milliseconds(record.ends_ms()), write(record)?];
        exec("insert or replace into claims values (?, ?, ?)", values)?;
    }
    if let Some(until_ms) = effects.records_until_ms {
        exec("delete from claims where ends_ms <= ?", vec![milliseconds(until_ms)])?;
    }
    if let Some(id) = effects.forget {
        let id = JsValue::from(id.to_string());
        exec("delete from generations where id = ?", vec![id])?;
    }
    Ok(())
}

fn rows(sql: &SqlStorage, query: &str) -> StorageResult<Vec<Vec<SqlStorageValue>>> {
    sql.exec(query, None).map_err(drop)?.raw().collect::<worker::Result<_>>().map_err(drop)
}

fn read<T: for<'a> Deserialize<'a>>(value: Option<&SqlStorageValue>) -> StorageResult<T> {
    let Some(SqlStorageValue::String(record)) = value else { return Err(()) };
    serde_json::from_slice(record.as_bytes()).map_err(drop)
}

/// Exact: a moment has 41 bits, a JavaScript number 53.
#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "SQLite takes JavaScript's numbers")]
fn milliseconds(moment: u64) -> JsValue {
    JsValue::from(moment as f64)
}

fn write(record: &impl Serialize) -> StorageResult<JsValue> {
    serde_json::to_string(record).map(|record| JsValue::from(record.as_str())).map_err(drop)
}
