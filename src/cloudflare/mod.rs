//! Cloudflare Workers: gives the ports, holds no decision. The only code that names `worker` or `wasm-bindgen`.

mod edge_host;
mod fetch_event;
mod incoming;
mod object_host;
mod object_storage;
mod outgoing;
mod platform;
mod user_sessions_do;
mod web_crypto;
