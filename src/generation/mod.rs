//! What is asked of the model, and how cards come out of what it says.
//!
//! The bytes of an answer pass through here from the outside in: [`event_stream`] splits the connection's chunks into
//! events, `openrouter::chunk` extracts the model's content from each event, [`candidate_reader`] decides which part of the
//! content is the answer, [`candidate_finder`] finds the candidates in it, [`candidate`] keeps those that hold to the contract.
//!
//! Not for: sending, waiting, the wire format of a vendor. All of it is pure: bytes, `now` and random bits
//! come in.

pub mod candidate;
pub mod candidate_finder;
pub mod candidate_reader;
pub mod escapes;
pub mod event_stream;
pub mod json;
pub mod prompt;
pub mod reasoning;
pub mod retry;
pub mod usage;
