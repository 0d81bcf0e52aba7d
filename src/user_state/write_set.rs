//! The writes of one transaction.

use uuid::Uuid;

/// One write of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// Stores the ledger and the values beside it in its row.
    Ledger,
    /// Stores the record and the ending of this generation, without its candidates.
    Generation(Uuid),
    /// Stores the ending of this generation, whose record is stored.
    Ending(Uuid),
    /// Stores the candidates of this generation from this position on.
    Candidates(Uuid, usize),
    /// Removes this generation, its ending and its candidates.
    RemoveGeneration(Uuid),
    /// Gives this isolate the lease of this generation, whose record is stored. For a shared state only.
    Lease(Uuid),
    /// Ends the lease, so that any isolate can drive the generation. For a shared state only.
    Release(Uuid),
    /// Stores the idempotency record of this session.
    IdempotencyRecord(Uuid),
    /// Removes the idempotency records that expire at this moment or before it.
    RemoveIdempotencyRecords(u64),
    /// Removes everything.
    RemoveAll,
}

/// The writes of one transaction, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteSet(Vec<Write>);

impl WriteSet {
    /// No write.
    #[must_use]
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Adds a write. The ledger is written once.
    pub fn add(&mut self, write: Write) {
        if write != Write::Ledger || !self.0.contains(&write) {
            self.0.push(write);
        }
    }

    /// Adds the writes of another decision of the same transaction.
    pub fn extend(&mut self, more: Self) {
        for write in more.0 {
            self.add(write);
        }
    }

    /// The same writes after the removal of these generations.
    #[must_use]
    pub fn after_removals(self, ids: impl Iterator<Item = Uuid>) -> Self {
        if self.0.contains(&Write::RemoveAll) {
            return self;
        }
        Self(ids.map(Write::RemoveGeneration).chain(self.0).collect())
    }

    /// Whether it removes this generation, with output of it that was not stored before, and writes nothing else.
    #[must_use]
    pub fn is_removal_of(&self, id: Uuid) -> bool {
        self.0.iter().all(|write| {
            let (Write::RemoveGeneration(of) | Write::Ending(of) | Write::Candidates(of, _)) = write else {
                return false;
            };
            *of == id
        })
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The writes.
    #[must_use]
    pub fn writes(&self) -> &[Write] {
        &self.0
    }
}

impl<const N: usize> From<[Write; N]> for WriteSet {
    fn from(writes: [Write; N]) -> Self {
        Self(writes.into())
    }
}
