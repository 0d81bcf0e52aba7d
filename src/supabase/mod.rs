//! Supabase: the sign-in service's keys, and the database through PostgREST with the user's own token, so that row
//! level security decides. No service-role key exists anywhere here.

pub mod keys;
pub mod rest;
pub mod sessions;
