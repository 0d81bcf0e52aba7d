//! The prompt of a generation, and the candidates in the model's answer.
//!
//! The bytes of an answer are processed in this order: `http::sse_reader` splits the connection's chunks into events,
//! `openrouter::chunk` extracts the model's content from each event, [`candidate_reader`] decides which part of the content is
//! the answer, [`candidate_finder`] finds the candidates in it, [`candidate`] checks each against its limits.
//!
//! Pure: bytes, `now` and random bits are arguments. Not for: sending, waiting, the wire format of a vendor.

pub mod candidate;
pub mod candidate_finder;
pub mod candidate_reader;
pub mod escapes;
pub mod prompt;
pub mod reasoning;
pub mod retry;
pub mod usage;
