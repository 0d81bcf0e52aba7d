//! A desk in the object's SQLite storage.
//!
//! ```text
//! ledger       one row: what was used
//! generations  a row each, without its candidates
//! candidates   a row per batch, by the position of its first
//! ```
//! The calls are synchronous; all that are made in one turn of the event loop are one transaction.

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use wasm_bindgen::JsValue;
use worker::{SqlStorage, SqlStorageValue};

use crate::desk::record::{Generation, KeptCandidate};
use crate::desk::{Desk, Effects};
use crate::quota::Ledger;

const SCHEMA: &str = "
    create table if not exists ledger (id integer primary key check (id = 0), record text not null) strict;
    create table if not exists generations (id text primary key, record text not null) strict;
    create table if not exists candidates (
        generation_id text not null, position integer not null, record text not null,
        primary key (generation_id, position)
    ) strict;";

/// What cannot be read or written: nothing may be decided then.
pub(super) type StorageResult<T> = Result<T, ()>;

#[derive(Serialize)]
struct LedgerRecord<'a> {
    ledger: &'a Ledger,
    told_limited: &'a [(String, u64)],
}

#[derive(Deserialize)]
struct StoredLedger {
    ledger: Ledger,
    told_limited: Vec<(String, u64)>,
}

/// Loads the desk.
pub(super) fn load(sql: &SqlStorage) -> StorageResult<Desk> {
    sql.exec(SCHEMA, None).map_err(drop)?;
    let mut desk = Desk::default();
    for row in rows(sql, "select record from ledger")? {
        let stored: StoredLedger = read(row.first())?;
        desk.ledger = stored.ledger;
        desk.told_limited = stored.told_limited;
    }
    // UUIDv7: the order of the ids is that of their acceptance.
    for row in rows(sql, "select record from generations order by id")? {
        desk.generations.push(read::<Generation>(row.first())?);
    }
    if desk.generations.is_empty() {
        return Ok(desk);
    }
    for row in rows(sql, "select generation_id, record from candidates order by generation_id, position")? {
        let Some(SqlStorageValue::String(id)) = row.first() else { return Err(()) };
        let id = Uuid::try_parse(id).map_err(drop)?;
        let found = desk.generations.iter_mut().find(|generation| generation.accepted.id == id);
        if let Some(generation) = found {
            generation.candidates.extend(read::<Vec<KeptCandidate>>(row.get(1))?);
        }
    }
    Ok(desk)
}

/// Stores what a decision says has to be stored.
pub(super) fn store(sql: &SqlStorage, desk: &Desk, effects: &Effects) -> StorageResult<()> {
    let exec = |query: &str, values: Vec<JsValue>| sql.exec_raw(query, values).map(drop).map_err(drop);
    if effects.clear {
        for query in ["delete from ledger", "delete from generations", "delete from candidates"] {
            exec(query, Vec::new())?;
        }
        return Ok(());
    }
    if effects.ledger {
        let record = LedgerRecord { ledger: &desk.ledger, told_limited: &desk.told_limited };
        exec("insert or replace into ledger values (0, ?)", vec![write(&record)?])?;
    }
    if let Some(generation) = effects.generation.and_then(|id| desk.find(id)) {
        let id = JsValue::from(generation.accepted.id.to_string());
        exec("insert or replace into generations values (?, ?)", vec![id, write(generation)?])?;
    }
    if let Some((from, generation)) = effects.candidates.and_then(|(id, from)| Some((from, desk.find(id)?))) {
        let id = JsValue::from(generation.accepted.id.to_string());
        let position = JsValue::from(u32::try_from(from).map_err(drop)?);
        let batch = generation.candidates.get(from..).unwrap_or_default();
        exec("insert into candidates values (?, ?, ?)", vec![id, position, write(&batch)?])?;
    }
    if let Some(id) = effects.forget {
        let id = JsValue::from(id.to_string());
        exec("delete from generations where id = ?", vec![id.clone()])?;
        exec("delete from candidates where generation_id = ?", vec![id])?;
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

fn write(record: &impl Serialize) -> StorageResult<JsValue> {
    serde_json::to_string(record).map(|record| JsValue::from(record.as_str())).map_err(drop)
}
