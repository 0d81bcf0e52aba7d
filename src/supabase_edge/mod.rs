//! Supabase Edge Functions: the parts of the hosts that differ from other platforms. Provides ports, makes no decision.
//!
//! All requests of an isolate share one instance of this module, and a user's requests may come to several isolates.

mod background;
mod edge_platform;
mod handle_request;
mod isolate;
mod object_platform;
mod objects;
mod unread_body;
