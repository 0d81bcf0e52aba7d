//! Turns a learner's text into flashcards at the edge.
//!
//! One `POST /ai-sessions`, walked through the modules:
//!
//! 1. `cloudflare` or `supabase_edge` (Wasm only) receives the request, and `web` calls [`edge::handle`] with the [`ports`] of the platform. The settings
//!    are one typed value ([`config`]).
//! 2. [`auth`] turns the `Authorization` header into a user, with keys from [`supabase`]`::keys`.
//! 3. [`input`] turns the body into a [`input::new_session::NewSession`].
//! 4. [`user_object`] executes the command: [`user_state`] counts it ([`quota`]) and accepts a generation, in one transaction.
//! 5. [`user_object::generate`] opens the row ([`supabase`]) and calls the model ([`openrouter`]) at the same time;
//!    [`generation`] reads candidates out of the answer as they arrive.
//!    [`citation`] finds the passage of the text that each rests on.
//! 6. One database transaction ends the session; [`edge::render`] turns the reply into the response, [`http::problem`] has every
//!    error.
//!
//! `src/edge/openapi.json` describes the API; `npm run build` makes of it the static assets that `GET /openapi.json` and
//! `GET /docs` serve.
//!
//! Imports point left only: pure ← vendors ← `user_object` ← `edge` ← hosts. `tests/core/architecture.rs` checks it.

pub mod config;
pub mod http;
pub mod ids;
pub mod json;
pub mod json_string;
pub mod keyed_hash;
pub mod least_recently_used;
pub mod lower_case;
pub mod money;
pub mod points;
pub mod ports;
pub mod pseudonym;
pub mod readiness;
pub mod rfc3339;
pub mod text_search;

pub mod auth;
pub mod citation;
pub mod generation;
pub mod input;
pub mod quota;
pub mod user_state;

pub mod openrouter;
pub mod supabase;

pub mod user_object;

pub mod edge;

#[cfg(target_arch = "wasm32")]
mod cloudflare;
#[cfg(target_arch = "wasm32")]
mod supabase_edge;
#[cfg(target_arch = "wasm32")]
mod web;
