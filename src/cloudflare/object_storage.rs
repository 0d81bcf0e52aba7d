//! The user state in the object's SQLite storage.
//!
//! ```text
//! ledger       one row
//! generations  a row each, without its candidates
//! candidates   a row per batch, by the position of its first
//! claims       a row per idempotency record
//! ```
//! The records are those of [`crate::user_state::stored`]. The tables are created with the first write: an object that only reads
//! stores nothing. All statements of one [`store`] are one transaction, which is rolled back when one of them fails; without it,
//! those before the failed one would be kept
//! (<https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/#transactionsync>).

use std::cell::Cell;

use wasm_bindgen::prelude::*;
use worker::{SqlStorage, SqlStorageValue, State};

use crate::json::record::to_json;
use crate::user_state::stored::{self, StoredGeneration, StoredRows, batch, ledger_record};
use crate::user_state::{UserState, Write, WriteSet};

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
    /// The members of `DurableObjectStorage` that `worker` does not declare.
    type SyncStorage;

    #[wasm_bindgen(method, catch, js_name = transactionSync)]
    fn transaction_sync(
        this: &SyncStorage,
        work: &mut dyn FnMut() -> Result<JsValue, JsValue>,
    ) -> Result<JsValue, JsValue>;
}

/// A row that cannot be read or written.
pub(super) type StorageResult<T> = Result<T, ()>;

/// Loads the state.
pub(super) fn load(sql: &SqlStorage) -> StorageResult<UserState> {
    if rows(sql, "select 1 from sqlite_master where name = 'claims'")?.is_empty() {
        return Ok(UserState::default());
    }
    let mut stored = StoredRows::default();
    for row in rows(sql, "select record from ledger")? {
        stored.ledger = text(row.into_iter().next());
    }
    for row in rows(sql, "select record from claims")? {
        stored.idempotency_records.extend(text(row.into_iter().next()));
    }
    let in_order = "select record, ending from generations order by json_extract(record, '$.started_ms')";
    for row in rows(sql, in_order)? {
        let mut row = row.into_iter();
        let record = text(row.next()).ok_or(())?;
        stored.generations.push(StoredGeneration {
            record,
            ending: text(row.next()),
            ..StoredGeneration::default()
        });
    }
    if !stored.generations.is_empty() {
        for row in rows(sql, "select generation_id, record from candidates order by generation_id, position")?
        {
            let mut row = row.into_iter();
            let id = text(row.next()).ok_or(())?;
            stored.candidates.push((id, text(row.next()).ok_or(())?));
        }
    }
    stored::load(&stored).map_err(drop)
}

fn text(value: Option<SqlStorageValue>) -> Option<String> {
    match value {
        Some(SqlStorageValue::String(text)) => Some(text),
        _ => None,
    }
}

/// Stores the writes of a decision: all of them or none.
pub(super) fn store(
    object: &State,
    state: &UserState,
    writes: &WriteSet,
    has_tables: &Cell<bool>,
) -> StorageResult<()> {
    let storage: SyncStorage = object.as_raw().storage().map_err(drop)?.unchecked_into();
    let sql = object.storage().sql();
    // An exception rolls the transaction back.
    let mut work =
        || write_all(&sql, state, writes, has_tables).map_err(|()| JsValue::NULL).map(|()| JsValue::NULL);
    storage.transaction_sync(&mut work).map(drop).map_err(drop)
}

fn write_all(
    sql: &SqlStorage,
    state: &UserState,
    writes: &WriteSet,
    has_tables: &Cell<bool>,
) -> StorageResult<()> {
    for write in writes.writes() {
        if *write != Write::RemoveAll && !has_tables.replace(true) {
            exec(sql, SCHEMA, Vec::new())?;
        }
        write_one(sql, state, *write)?;
    }
    Ok(())
}

fn write_one(sql: &SqlStorage, state: &UserState, write: Write) -> StorageResult<()> {
    let key = |id: uuid::Uuid| JsValue::from(id.to_string());
    match write {
        Write::Ledger => {
            let record = ledger_record(state);
            exec(sql, "insert or replace into ledger values (0, ?)", vec![record.into()])
        }
        Write::Generation(id) => {
            let Some(generation) = state.find(id) else { return Ok(()) };
            let ending = generation.ending.as_ref().map(|ending| to_json(ending));
            // Not `insert or replace`, which would delete the candidates.
            let query = "insert into generations values (?, ?, ?)
                on conflict (id) do update set record = excluded.record, ending = excluded.ending";
            let ending = ending.map_or(JsValue::NULL, JsValue::from);
            exec(sql, query, vec![key(id), to_json(generation).into(), ending])
        }
        Write::Ending(id) => {
            let Some(ending) = state.find(id).and_then(|generation| generation.ending.as_ref()) else {
                return Ok(());
            };
            let ending = to_json(ending);
            exec(sql, "update generations set ending = ? where id = ?", vec![ending.into(), key(id)])
        }
        Write::Candidates(id, from) => {
            let Some(generation) = state.find(id) else { return Ok(()) };
            let position = JsValue::from(u32::try_from(from).map_err(drop)?);
            let batch = batch(generation, from);
            exec(sql, "insert into candidates values (?, ?, ?)", vec![key(id), position, batch.into()])
        }
        Write::RemoveGeneration(id) => exec(sql, "delete from generations where id = ?", vec![key(id)]),
        // This object is the only one.
        Write::Lease(_) | Write::Release(_) => Ok(()),
        Write::IdempotencyRecord(id) => {
            let Some(found) = state.records.iter().find(|record| record.session_id == id) else {
                return Ok(());
            };
            let values = vec![key(id), milliseconds(found.expires_ms()), to_json(found).into()];
            exec(sql, "insert or replace into claims values (?, ?, ?)", values)
        }
        Write::RemoveIdempotencyRecords(until_ms) => {
            exec(sql, "delete from claims where ends_ms <= ?", vec![milliseconds(until_ms)])
        }
        Write::RemoveAll => {
            for table in ["ledger", "candidates", "generations", "claims"] {
                exec(sql, &["drop table if exists ", table].concat(), Vec::new())?;
            }
            Ok(())
        }
    }
}

fn exec(sql: &SqlStorage, query: &str, values: Vec<JsValue>) -> StorageResult<()> {
    sql.exec_raw(query, values).map(drop).map_err(drop)
}

fn rows(sql: &SqlStorage, query: &str) -> StorageResult<Vec<Vec<SqlStorageValue>>> {
    sql.exec(query, None).map_err(drop)?.raw().collect::<worker::Result<_>>().map_err(drop)
}

/// Exact: a moment has 41 bits, a JavaScript number 53.
#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "SQLite takes JavaScript's numbers")]
fn milliseconds(moment: u64) -> JsValue {
    JsValue::from(moment as f64)
}
