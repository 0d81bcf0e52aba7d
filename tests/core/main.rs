//! Several modules together, without a host: one binary, so that it links once.

mod architecture;
mod database_refusals;
mod documents;
mod edge;
mod formulas;
mod hostile_tokens;
mod model_call;
mod openapi;
mod scripted_client;
mod scripted_database;
mod scripted_host;
mod scripted_model;
mod scripted_store;
mod scripted_world;
mod session_events;
mod signing_keys;
mod stored_rows;
mod texts;
mod user_object_admission;
mod user_object_crashes;
mod user_object_generation;
mod user_object_isolates;
mod user_object_jobs;
mod user_object_store;
mod user_object_streams;
mod vocabulary;
