//! The rows of one user in memory. Applies write sets as a host does, through the JSON of [`stored`].

use std::collections::BTreeMap;

use super::*;
use crate::json::record::to_json;
use crate::user_state::stored::{self, StoredGeneration, StoredRows};

/// Rows, as the tables of `cloudflare::object_storage` have them.
#[derive(Debug, Default)]
pub(super) struct Rows {
    ledger: Option<String>,
    /// The record and the ending.
    generations: BTreeMap<Uuid, (String, Option<String>)>,
    /// By the generation and the position of the first candidate.
    candidates: BTreeMap<(Uuid, usize), String>,
    /// The moment of expiry and the record.
    idempotency_records: BTreeMap<Uuid, (u64, String)>,
}

impl Rows {
    /// Applies the writes of a decision in their order.
    pub(super) fn store(&mut self, state: &UserState, writes: &WriteSet) {
        for write in writes.writes() {
            self.apply(state, *write);
        }
    }

    fn apply(&mut self, state: &UserState, write: Write) {
        match write {
            Write::Ledger => self.ledger = Some(stored::ledger_record(state)),
            Write::Generation(id) => {
                let Some(generation) = state.find(id) else { return };
                let ending = generation.ending.as_ref().map(|ending| to_json(ending));
                let record = to_json(generation);
                self.generations.insert(id, (record, ending));
            }
            Write::Ending(id) => {
                let Some(ending) = state.find(id).and_then(|generation| generation.ending.as_ref()) else {
                    return;
                };
                let row = self.generations.get_mut(&id).expect("the record is stored before its ending");
                row.1 = Some(to_json(ending));
            }
            Write::Candidates(id, from) => {
                let Some(generation) = state.find(id) else { return };
                assert!(self.generations.contains_key(&id), "the foreign key");
                let batch = stored::batch(generation, from);
                assert_eq!(self.candidates.insert((id, from), batch), None, "the primary key");
            }
            Write::RemoveGeneration(id) => {
                self.generations.remove(&id);
                self.candidates.retain(|(generation, _), _| *generation != id);
            }
            Write::Lease(id) | Write::Release(id) => {
                assert!(self.generations.contains_key(&id), "the generation of a lease is stored");
            }
            Write::IdempotencyRecord(id) => {
                let Some(found) = state.records.iter().find(|record| record.session_id == id) else { return };
                let record = to_json(found);
                self.idempotency_records.insert(id, (found.expires_ms(), record));
            }
            Write::RemoveIdempotencyRecords(until_ms) => {
                self.idempotency_records.retain(|_, (expires_ms, _)| *expires_ms > until_ms);
            }
            Write::RemoveAll => *self = Self::default(),
        }
    }

    /// Loads the state, as after a crash.
    pub(super) fn load(&self) -> UserState {
        let batch = |((id, _), batch): (&(Uuid, usize), &String)| (id.to_string(), batch.clone());
        let started_ms = |(record, _): &(String, Option<String>)| {
            serde_json::from_str::<serde_json::Value>(record).expect("it is JSON")["started_ms"].as_u64()
        };
        let mut generations: Vec<_> = self.generations.values().cloned().collect();
        generations.sort_by_cached_key(started_ms);
        let row = |(record, ending)| StoredGeneration { record, ending, ..StoredGeneration::default() };
        let rows = StoredRows {
            ledger: self.ledger.clone(),
            generations: generations.into_iter().map(row).collect(),
            candidates: self.candidates.iter().map(batch).collect(),
            idempotency_records: self
                .idempotency_records
                .values()
                .map(|(_, record)| record.clone())
                .collect(),
        };
        stored::load(&rows).expect("every record is readable")
    }

    /// Asserts that a restart loses nothing: the loaded state is the one in memory, except for the changes that are not
    /// stored. Returns the loaded state.
    pub(super) fn assert_stored(&self, state: &UserState, policies: &Policies, now_ms: u64) -> UserState {
        let loaded = self.load();
        assert_eq!(loaded.ledger.status(policies, now_ms), state.ledger.status(policies, now_ms));
        assert_eq!(in_use(&loaded.ledger.leases, now_ms), in_use(&state.ledger.leases, now_ms));
        assert_eq!(loaded.rejected_until_ms, state.rejected_until_ms);
        let by_session = |state: &UserState| -> BTreeMap<Uuid, IdempotencyRecord> {
            state.records.iter().map(|record| (record.session_id, record.clone())).collect()
        };
        assert_eq!(by_session(&loaded), by_session(state));
        assert_eq!(loaded.generations.len(), state.generations.len());
        for found in &loaded.generations {
            let current = state.find(found.accepted.id).expect("a removed generation has no row");
            // Memory only: newer credentials and the write that they make due, the state of the row, the first attempt.
            assert!(found.accepted.credentials.expires_ms <= current.accepted.credentials.expires_ms);
            assert!(found.write_at_ms >= current.write_at_ms);
            assert!(found.row == current.row || found.row == RowState::Unknown);
            assert_eq!(found.attempts.max(1), current.attempts.max(1));
            let accepted =
                Accepted { credentials: found.accepted.credentials.clone(), ..current.accepted.clone() };
            let (write_at_ms, row, attempts) = (found.write_at_ms, found.row, found.attempts);
            let driver = found.driver;
            assert_eq!(
                *found,
                Generation { accepted, write_at_ms, row, attempts, driver, ..current.clone() }
            );
        }
        loaded
    }
}
