//! The settings of the upstream.

use std::time::Duration;

use serde::Deserialize;

/// The body of `PUT /bench/settings`.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The key set, as JSON text.
    pub key_set: String,
    /// Cards in an answer of the model.
    pub cards: usize,
    /// Bytes of the message in a chunk.
    pub chunk_bytes: usize,
    /// Milliseconds between two chunks; one completion takes as long as the stream would.
    pub chunk_delay_ms: u64,
    /// Milliseconds before the model's first byte.
    pub model_delay_ms: u64,
    /// Milliseconds before an answer of the database.
    pub database_delay_ms: u64,
    /// Whether the log keeps the bodies of requests to the database, and the order of the answers.
    pub record: bool,
}

impl Settings {
    pub const fn chunk_delay(&self) -> Duration {
        Duration::from_millis(self.chunk_delay_ms)
    }

    pub const fn model_delay(&self) -> Duration {
        Duration::from_millis(self.model_delay_ms)
    }

    pub const fn database_delay(&self) -> Duration {
        Duration::from_millis(self.database_delay_ms)
    }
}
