//! The usage of a generation, as the model API reports it.
//!
//! Not for: quotas, which count generations (`quota`).

use serde::Serialize;

use crate::json::record::{FromJson, Members, ToJson, write_object};

/// Tokens and cost, summed over all attempts: a failed attempt is billed, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens of the answer.
    pub completion_tokens: u64,
    /// US dollars (OpenRouter's credits); 0 where the server reports none.
    pub cost: f64,
}

/// The maximum of the database's columns; more cannot be a count of tokens.
const TOKENS_MAX: u64 = 2_147_483_647;
/// More than any answer costs, and small enough that sums stay finite.
const COST_MAX: f64 = 1_000_000.0;

impl ToJson for Usage {
    fn write(&self, json: &mut String) {
        let members: [(&str, &dyn ToJson); 3] = [
            ("prompt_tokens", &self.prompt_tokens),
            ("completion_tokens", &self.completion_tokens),
            ("cost", &self.cost),
        ];
        write_object(json, &members);
    }
}

impl FromJson for Usage {
    fn read(json: &[u8]) -> Option<Self> {
        let members = Members::read(json)?;
        Some(Self {
            prompt_tokens: members.get("prompt_tokens")?,
            completion_tokens: members.get("completion_tokens")?,
            cost: members.get("cost")?,
        })
    }
}

impl Usage {
    /// Limits the figures to the range of the columns: an invalid figure of a server must not prevent the write of a session.
    #[must_use]
    pub fn bounded(self) -> Self {
        Self {
            prompt_tokens: self.prompt_tokens.min(TOKENS_MAX),
            completion_tokens: self.completion_tokens.min(TOKENS_MAX),
            cost: if (0.0..=COST_MAX).contains(&self.cost) { self.cost } else { 0.0 },
        }
    }

    /// Adds both.
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
