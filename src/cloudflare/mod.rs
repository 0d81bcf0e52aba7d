//! Cloudflare Workers: provides the ports, makes no decision. Only this folder and `web` name `worker` or `wasm-bindgen`.

mod edge_host;
mod fetch_event;
mod object_host;
mod object_storage;
mod pipe;
mod platform;
mod stream_body;
mod user_sessions_do;
