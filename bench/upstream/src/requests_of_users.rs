//! The peer's limiter on Supabase: the database function `take_request`, a sliding window over the requests of one minute.

use std::collections::{HashMap, VecDeque};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::user_states::clock_ms;

const WINDOW_MS: i64 = 60_000;

/// The times of the admitted requests, by the id of their user.
#[derive(Default)]
pub struct RequestsOfUsers(HashMap<String, VecDeque<i64>>);

#[derive(Deserialize)]
struct Arguments {
    requests_max: usize,
}

/// The part of a token that `auth.uid()` returns.
#[derive(Deserialize)]
struct Claims {
    sub: String,
}

impl RequestsOfUsers {
    /// The result of the function; `None` without a token or the argument.
    pub fn take(&mut self, authorization: &str, body: &[u8]) -> Option<Value> {
        let claims = BASE64_URL_SAFE_NO_PAD.decode(authorization.split('.').nth(1)?).ok()?;
        let Claims { sub } = serde_json::from_slice(&claims).ok()?;
        let Arguments { requests_max } = serde_json::from_slice(body).ok()?;
        let now_ms = clock_ms();
        let requests = self.0.entry(sub).or_default();
        while requests.front().is_some_and(|at_ms| *at_ms <= now_ms - WINDOW_MS) {
            requests.pop_front();
        }
        let allowed = requests.len() < requests_max;
        if allowed {
            requests.push_back(now_ms);
        }
        let reset_ms = requests.front().unwrap_or(&now_ms) + WINDOW_MS - now_ms;
        Some(json!({
            "allowed": allowed,
            "limit": requests_max,
            "remaining": requests_max - requests.len(),
            "resetSeconds": (reset_ms + 999) / 1000,
        }))
    }
}
