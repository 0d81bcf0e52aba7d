//! The quotas of a user: five policies that are decided together in one [`Ledger`] per user, and a sixth, `reads`, in the
//! memory of one isolate ([`Reads`]).
//!
//! | policy | counts | a reservation ends |
//! | --- | --- | --- |
//! | `burst` | every authenticated request | when it has left the window |
//! | `generations` | accepted generations | when it has left the window, or by a refund after a failure |
//! | `attempts` | model calls, retries included | when it has left the window: never refunded |
//! | `spend` | US dollars, where it is configured | when its cost has left the window; at its end it becomes the reported cost |
//! | `concurrent` | generations in flight | when the generation ends, or its lease does |
//!
//! Pure: the time is an argument (`now_ms`), the decision is a returned value. Not for: storing the ledger in a transaction
//! (the user's object), nor the problem document of a refusal ([`crate::http::problem`]).

#[cfg(test)]
pub(crate) mod counts;
mod lease;
mod ledger;
#[cfg(test)]
mod promises;
mod reads;
mod remembered;
mod spend;
#[cfg(test)]
mod spend_promises;
mod window;

pub use lease::Leases;
pub use ledger::{
    ATTEMPTS, BURST, CONCURRENT, GENERATIONS, Ledger, Policies, PolicyStatus, Refusal, SPEND, UserQuota,
};
pub use reads::{READS, Reads};
pub use remembered::RememberedRefusals;
pub use spend::{
    PROMPT_TOKENS_MAX, Price, Reported, Spend, SpendPolicy, SpendStatus, TEXT_BYTES_MAX,
    TEXT_BYTES_PER_BYTE_OF_NUMBERS,
};
pub use window::{Quota, QuotaStatus, Reservation, Window};
