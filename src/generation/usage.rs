//! What a generation used, as the model API counts it.
//!
//! Not for: quotas. Those count generations, and live in `quota`.

use serde::{Deserialize, Serialize};

/// Tokens and money, summed over all attempts: a failed attempt is paid for too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens that were read.
    pub prompt_tokens: u64,
    /// Tokens that were written.
    pub completion_tokens: u64,
    /// US dollars (OpenRouter's credits); 0 where the server does not tell.
    pub cost: f64,
}

/// What the database's columns hold; more is no count of tokens, whoever says so.
const TOKENS_MAX: u64 = 2_147_483_647;
/// More than any answer costs, and far from where a sum would not be a number.
const COST_MAX: f64 = 1_000_000.0;

impl Usage {
    /// The same, within what can be stored: a server that makes figures up must not make a session unwritable.
    #[must_use]
    pub fn bounded(self) -> Self {
        Self {
            prompt_tokens: self.prompt_tokens.min(TOKENS_MAX),
            completion_tokens: self.completion_tokens.min(TOKENS_MAX),
            cost: if (0.0..=COST_MAX).contains(&self.cost) { self.cost } else { 0.0 },
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            prompt_tokens: self.prompt_tokens.saturating_add(other.prompt_tokens),
            completion_tokens: self.completion_tokens.saturating_add(other.completion_tokens),
            cost: self.cost + other.cost,
        }
        .bounded()
    }
}
