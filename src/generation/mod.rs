//! What is asked of the model, and how cards come out of what it says.
//!
//! The bytes of an answer pass through here from the outside in: [`event_stream`] takes events out of the
//! connection's pieces, `openrouter::chunk` takes the model's content out of each event, [`candidate_reader`]
//! takes cards out of the content, [`candidate`] keeps those that hold to the contract.
//!
//! Not for: sending, waiting, the wire format of a vendor. All of it is pure: bytes, `now` and random bits
//! come in.

pub mod candidate;
pub mod candidate_reader;
pub mod escapes;
pub mod event_stream;
pub mod json;
pub mod prompt;
pub mod retry;
pub mod usage;
