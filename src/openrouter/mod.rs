//! The model API: OpenRouter, or a compatible server (a gateway, Ollama, llama.cpp).
//!
//! [`request`] builds the request, [`chunk`] reads one document of a response, [`failure`] maps failures to the codes of this
//! service, [`response_reader`] reads a whole response, [`call`](mod@call) counts the attempts. All but [`key`] are pure.
//!
//! Not for: candidates and prompts (`generation`), connections and time (`user_object::generate`).

pub mod call;
pub mod chunk;
pub mod failure;
pub mod probe;
pub mod request;
pub mod response_reader;
