//! Supabase: the keys of the sign-in service, and the database through PostgREST with the user's own token, so that row level
//! security applies. This service has no service-role key.

pub mod keys;
pub mod rest;
pub mod sessions;
