//! The model API: OpenRouter, or a server that speaks as it does (a gateway, Ollama, llama.cpp).
//!
//! [`request`] says what is sent, [`chunk`] what one document of an answer says, [`failure`] which of our
//! codes each of its failures is, [`response_reader`] what a whole answer came to; [`call`](mod@call) puts them in
//! order, with attempts and deadlines. All but the last are pure.
//!
//! Not for: cards and prompts (`generation`), sessions (`routes`).

pub mod call;
pub mod chunk;
pub mod failure;
pub mod key;
pub mod request;
pub mod response_reader;
