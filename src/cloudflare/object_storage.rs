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

#[wasm_bindgen(module = "/src/cloudflare/operations.js")]
extern "C" {
    #[wasm_bindgen(js_name = store)]
    fn execute(storage: &JsValue, statements: &str) -> bool;
    fn select(storage: &JsValue, query: &str) -> Option<String>;
}

/// Ends a statement, or a row.
const END: char = '\u{1e}';
/// Before each value of a statement, and between the values of a row.
const VALUE: char = '\u{1f}';

/// A row that cannot be read or written.
pub(super) type StorageResult<T> = Result<T, ()>;

/// Loads the state.
pub(super) fn load(storage: &JsValue) -> StorageResult<UserState> {
    if rows(storage, "select 1 from sqlite_master where name = 'claims'")?.is_empty() {
        return Ok(UserState::default());
    }
    let mut stored = StoredRows::default();
    for (record, _) in rows(storage, "select record from ledger")? {
        stored.ledger = Some(record);
    }
    for (record, _) in rows(storage, "select record from claims")? {
        stored.idempotency_records.push(record);
    }
    let in_order = "select record, ending from generations order by json_extract(record, '$.started_ms')";
    for (record, ending) in rows(storage, in_order)? {
        // The column has no empty text: `nullif` makes it null.
        let ending = Some(ending).filter(|ending| !ending.is_empty());
        stored.generations.push(StoredGeneration { record, ending, ..StoredGeneration::default() });
    }
    if !stored.generations.is_empty() {
        let in_order = "select generation_id, record from candidates order by generation_id, position";
        stored.candidates = rows(storage, in_order)?;
    }
    stored::load(&stored).map_err(drop)
}

/// Stores the writes of a decision: all of them or none.
pub(super) fn store(
    storage: &JsValue,
    state: &UserState,
    writes: &WriteSet,
    has_tables: &Cell<bool>,
) -> StorageResult<()> {
    let mut statements = Statements::default();
    for write in writes.writes() {
        if *write != Write::RemoveAll && !has_tables.replace(true) {
            statements.add(SCHEMA, &[])?;
        }
        statements.write(state, *write)?;
    }
    if execute(storage, &statements.0) { Ok(()) } else { Err(()) }
}

/// Statements with their values, as one text for JavaScript.
#[derive(Default)]
struct Statements(String);

impl Statements {
    fn add(&mut self, query: &str, values: &[&str]) -> StorageResult<()> {
        self.0.push_str(query);
        for value in values {
            // No value can end its statement: JSON has no control characters.
            if value.bytes().any(|byte| byte < b' ') {
                return Err(());
            }
            self.0.push(VALUE);
            self.0.push_str(value);
        }
        self.0.push(END);
        Ok(())
    }

    fn write(&mut self, state: &UserState, write: Write) -> StorageResult<()> {
        match write {
            Write::Ledger => {
                self.add("insert or replace into ledger values (0, ?)", &[&ledger_record(state)])
            }
            Write::Generation(id) => {
                let Some(generation) = state.find(id) else { return Ok(()) };
                let ending = generation.ending.as_ref().map(|ending| to_json(ending)).unwrap_or_default();
                // Not `insert or replace`, which would delete the candidates.
                let query = "insert into generations values (?, ?, nullif(?, ''))
                    on conflict (id) do update set record = excluded.record, ending = excluded.ending";
                self.add(query, &[&id.to_string(), &to_json(generation), &ending])
            }
            Write::Ending(id) => {
                let Some(ending) = state.find(id).and_then(|generation| generation.ending.as_ref()) else {
                    return Ok(());
                };
                let query = "update generations set ending = ? where id = ?";
                self.add(query, &[&to_json(ending), &id.to_string()])
            }
            Write::Candidates(id, from) => {
                let Some(generation) = state.find(id) else { return Ok(()) };
                let query = "insert into candidates values (?, ?, ?)";
                self.add(query, &[&id.to_string(), &from.to_string(), &batch(generation, from)])
            }
            Write::RemoveGeneration(id) => {
                self.add("delete from generations where id = ?", &[&id.to_string()])
            }
            // This object is the only one.
            Write::Lease(_) | Write::Release(_) => Ok(()),
            Write::IdempotencyRecord(id) => {
                let Some(found) = state.records.iter().find(|record| record.session_id == id) else {
                    return Ok(());
                };
                let values = [&*id.to_string(), &found.expires_ms().to_string(), &to_json(found)];
                self.add("insert or replace into claims values (?, ?, ?)", &values)
            }
            Write::RemoveIdempotencyRecords(until_ms) => {
                self.add("delete from claims where ends_ms <= cast(? as integer)", &[&until_ms.to_string()])
            }
            Write::RemoveAll => {
                for table in ["ledger", "candidates", "generations", "claims"] {
                    self.add(&["drop table if exists ", table].concat(), &[])?;
                }
                Ok(())
            }
        }
    }
}

/// Rows of one or two values; the second is empty where there is none.
fn rows(storage: &JsValue, query: &str) -> StorageResult<Vec<(String, String)>> {
    let rows = select(storage, query).ok_or(())?;
    Ok(rows
        .split_terminator(END)
        .map(|row| {
            let (first, second) = row.split_once(VALUE).unwrap_or((row, ""));
            (first.to_owned(), second.to_owned())
        })
        .collect())
}
