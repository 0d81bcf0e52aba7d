//! The requests since the last `GET /bench/log`.

use std::collections::BTreeMap;

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use serde_json::value::RawValue;

/// The response of `GET /bench/log`, which also empties the log.
#[derive(Debug, Default, Serialize)]
pub struct Log {
    /// Requests by method and path.
    pub calls: BTreeMap<String, u64>,
    /// Connections that were opened.
    pub connections: u64,
    /// The times at which each card's last byte of the last stream was written: `CLOCK_MONOTONIC` in milliseconds, the clock of
    /// `process.hrtime` in Node.js.
    pub closed_ms: Vec<f64>,
    /// The requests whose answers were sent, in that order; only with [`crate::settings::Settings::record`].
    pub answered: Vec<String>,
    /// Those of `answered` that were sent before the last call of the model arrived.
    pub awaited: Vec<String>,
    /// The writes to the database, in order; only with [`crate::settings::Settings::record`].
    pub writes: Vec<Write>,
}

/// One request to the database.
#[derive(Debug, Serialize)]
pub struct Write {
    pub call: String,
    pub body: Box<RawValue>,
}

impl Log {
    pub fn count(&mut self, call: &str) {
        match self.calls.get_mut(call) {
            Some(count) => *count += 1,
            None => drop(self.calls.insert(call.to_owned(), 1)),
        }
    }

    /// With a delay of the database, requests that run beside the call are not answered yet.
    pub fn model_called(&mut self) {
        self.awaited.clone_from(&self.answered);
    }

    pub fn record(&mut self, call: &str, body: &[u8]) {
        let body = String::from_utf8_lossy(body).into_owned();
        let body = RawValue::from_string(body).or_else(|_| RawValue::from_string("null".to_owned()));
        if let Ok(body) = body {
            self.writes.push(Write { call: call.to_owned(), body });
        }
    }
}

/// Milliseconds of the clock that every process of this machine shares.
pub fn monotonic_ms() -> f64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as f64 * 1e3 + now.tv_nsec as f64 / 1e6
}
