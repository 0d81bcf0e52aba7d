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

impl Usage {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            prompt_tokens: self.prompt_tokens.saturating_add(other.prompt_tokens),
            completion_tokens: self.completion_tokens.saturating_add(other.completion_tokens),
            cost: self.cost + other.cost,
        }
    }
}
