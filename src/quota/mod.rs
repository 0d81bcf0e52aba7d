//! How much a user may still do: four policies, decided together, in one [`Ledger`] per user; and a fifth, `reads`, in the memory of one
//! isolate ([`Reads`]).
//!
//! | policy | counts | unit comes back |
//! | --- | --- | --- |
//! | `burst` | every request that passed authentication | when it has left the window |
//! | `generations` | accepted generations | when it has left the window, or given back at once by a failure |
//! | `attempts` | model calls, retries included | when it has left the window: never refunded |
//! | `concurrent` | generations in flight | when the generation ends, or its lease does |
//!
//! Pure: the time comes in as `now_ms`, what was decided goes out as a value. Not for: where the ledger is kept and
//! what makes two decisions one transaction (the user's object), nor the problem document of a refusal
//! ([`crate::problem`]).

#[cfg(test)]
pub(crate) mod counts;
pub mod headers;
mod lease;
mod ledger;
#[cfg(test)]
mod promises;
mod reads;
mod window;

pub use lease::Leases;
pub use ledger::{ATTEMPTS, BURST, CONCURRENT, GENERATIONS, Ledger, Policies, Refusal};
pub use reads::{READS, Reads};
pub use window::{Quota, QuotaStatus, Reservation, Window};
