//! Turns a learner's text into flashcards at the edge.
//!
//! One `POST /ai-sessions`, walked through the modules in the order in which it meets them:
//!
//! 1. `cloudflare` (Wasm only) takes it from the platform and hands it, with the platform's abilities as [`ports`],
//!    to [`edge::answer`]. The settings are one typed value ([`config`]).
//! 2. [`auth`] makes a user of the `Authorization` header, with keys from [`supabase`]`::keys`.
//! 3. [`input`] makes a [`input::new_session::NewSession`] of the body.
//! 4. [`user_state`], inside the user's own object, counts it ([`quota`]) and accepts a generation, in one transaction.
//! 5. [`edge::generate`] opens the row ([`supabase`]) and asks the model ([`openrouter`]) at the same time;
//!    [`generation`] reads cards out of the answer as they come.
//! 6. One database transaction ends the session; [`answer`] says so in JSON, [`problem`] whatever went wrong.
//!
//! From outside all of that is `src/answer/openapi.json`; `npm run build` makes of it the static assets that
//! `GET /openapi.json` and `GET /docs` serve.
//!
//! Four layers, imports point left only: pure stages ← vendors ← edge ← hosts. `tests/core/architecture.rs` checks
//! it.

pub mod config;
pub mod http;
pub mod keyed_hash;
pub mod ports;
pub mod problem;
pub mod pseudonym;

pub mod answer;
pub mod auth;
pub mod generation;
pub mod input;
pub mod quota;
pub mod user_state;

pub mod openrouter;
pub mod supabase;

pub mod edge;

#[cfg(target_arch = "wasm32")]
mod cloudflare;
