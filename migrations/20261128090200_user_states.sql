-- The user state, a row for each user: its version, the quota ledger, and the time at which work is due.
--
-- The service decides; the database stores. Each store names the version on which its decision is based, and the row's lock
-- makes one store of a user wait for the other (ai_sessions.store_user_state).
-- Upkeep: rows are emptied, never deleted, except with their user: a version that began again would make an old store valid.

create table ai_sessions.user_states (
    user_id uuid not null,
    version bigint not null,
    ledger text,
    wake_at timestamptz,

    constraint user_states_pkey primary key (user_id),
    constraint user_states_user_id_fkey
        foreign key (user_id) references auth.users (id) on delete cascade,
    constraint user_states_version_check check (version > 0),
    constraint user_states_ledger_check
        check (octet_length(ledger) <= 65536 and starts_with(ledger, '{"version":')),
    constraint user_states_wake_at_check
        check (wake_at >= '2020-01-01Z' and wake_at < '10000-01-01Z')
);

alter table ai_sessions.user_states enable row level security;
revoke all on table ai_sessions.user_states from public, anon, authenticated, service_role;
alter table ai_sessions.user_states owner to ai_sessions_user_state;

comment on table ai_sessions.user_states is
    'The user states: one row for each user.';
comment on column ai_sessions.user_states.user_id is
    'The user.';
comment on column ai_sessions.user_states.version is
    'Grows by 1 with each store, and is never lowered: a store that names another version changes nothing.';
comment on column ai_sessions.user_states.ledger is
    'The record of the quota ledger, as JSON of the service; null for an empty one.';
comment on column ai_sessions.user_states.wake_at is
    'When work is due; null for none. Read by an optional scheduled wake-up, which adds an index.';

comment on constraint user_states_pkey on ai_sessions.user_states is
    'One state for each user.';
comment on constraint user_states_user_id_fkey on ai_sessions.user_states is
    'Deleting a user deletes the user''s state, and no state can be stored after that.';
comment on constraint user_states_version_check on ai_sessions.user_states is
    'Version 0 is a state that was never stored.';
comment on constraint user_states_ledger_check on ai_sessions.user_states is
    'Records begin with the version of their format. 64 KiB is four times the largest ledger: four windows of 101 buckets.';
comment on constraint user_states_wake_at_check on ai_sessions.user_states is
    'A finite time that RFC 3339 can represent.';
