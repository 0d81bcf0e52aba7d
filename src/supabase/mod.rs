//! Supabase: the keys of the sign-in service, and the database through PostgREST with the user's own token, so that row level
//! security applies. This service has no service-role key.
//!
//! On a host without storage of its own, the user state is in the database too: [`user_state`] has the requests and replies,
//! [`user_store`] the transactions. [`wake_up`] and [`sealed_token`] are for a schedule of the database that resumes generations.

pub mod keys;
pub mod rest;
pub mod sealed_token;
pub mod sessions;
pub mod user_state;
pub mod user_store;
pub mod wake_up;
