//! Cloudflare Workers: the parts of the hosts that differ from other platforms. Provides ports, makes no decision. Only the host
//! folders name `wasm-bindgen`, and only this one `worker`.

mod edge_platform;
mod fetch_event;
mod metrics;
mod object_platform;
mod object_storage;
mod user_sessions_do;
