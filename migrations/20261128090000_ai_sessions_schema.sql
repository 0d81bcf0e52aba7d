-- The schema of the user state: quota ledger, idempotency records, and the generations in progress or not yet persisted.
-- Only a host without storage of its own uses it; on Cloudflare the Durable Objects store the user state, and it stays empty.
--
-- PostgREST does not expose the schema, and no API role has a privilege in it. Its tables belong to a role of their own, with
-- the rights of which public.transact_ai_user_state runs: that function can access these tables and nothing else.
-- Upkeep: do not add the schema to the exposed schemas of the project, and grant the role to no API role.

create role ai_sessions_user_state nologin noinherit;

-- The role that applies the migrations creates the objects, and sets the key.
grant ai_sessions_user_state to current_user;

create schema ai_sessions authorization ai_sessions_user_state;

revoke all on schema ai_sessions from public, anon, authenticated, service_role;

comment on role ai_sessions_user_state is
    'Owns the user state of AI sessions; public.transact_ai_user_state runs with its rights, which end at the schema ai_sessions.';
comment on schema ai_sessions is
    'The user state of AI sessions, for the service only: not exposed, and without a privilege for any API role.';
