-- The generations of a user state: in progress, or ended and not yet persisted in public.ai_generation_sessions.
--
-- A generation is run by one instance of the service, its runner. The lease is how other instances see that the runner still
-- runs. What excludes two runners is the version of the user state: a runner that lost its lease has an old one, so its next
-- store is a conflict.
-- Upkeep: the record and the ending are written by ai_sessions.store_user_state, the lease also by ai_sessions.renew_leases,
-- `stop` by ai_sessions.stop_generation.

create table ai_sessions.generations (
    user_id uuid not null,
    id uuid not null,
    started_at timestamptz not null,
    record text not null,
    ending text,
    runner uuid,
    lease_until timestamptz,
    stop boolean not null default false,

    constraint generations_pkey primary key (user_id, id),
    constraint generations_user_id_fkey
        foreign key (user_id) references ai_sessions.user_states (user_id) on delete cascade,
    constraint generations_started_at_check
        check (started_at >= '2020-01-01Z' and started_at < '10000-01-01Z'),
    constraint generations_record_check check (octet_length(record) between 1 and 262144),
    constraint generations_ending_check
        check (octet_length(ending) <= 8192 and starts_with(ending, '{"version":')),
    constraint generations_lease_until_check
        check ((runner is null) = (lease_until is null))
);

alter table ai_sessions.generations enable row level security;
revoke all on table ai_sessions.generations from public, anon, authenticated, service_role;
alter table ai_sessions.generations owner to ai_sessions_user_state;

comment on table ai_sessions.generations is
    'Generations that are in progress or not yet persisted.';
comment on column ai_sessions.generations.user_id is
    'The owner.';
comment on column ai_sessions.generations.id is
    'The id of the session.';
comment on column ai_sessions.generations.started_at is
    'When the run of the session was accepted: the order of a user''s generations, and the identity of the run for a stop.';
comment on column ai_sessions.generations.record is
    'The record of the generation, sealed by the service (AES-256-GCM), because it contains the text. Never an access token.';
comment on column ai_sessions.generations.ending is
    'How the generation ended, as JSON of the service; null while it is in progress.';
comment on column ai_sessions.generations.runner is
    'The instance of the service that runs the generation; null for none.';
comment on column ai_sessions.generations.lease_until is
    'Until when the runner is taken to run; after that another instance may resume the generation.';
comment on column ai_sessions.generations.stop is
    'Whether the owner requested that the run stops.';

comment on constraint generations_pkey on ai_sessions.generations is
    'One generation of a session. The owner comes first: no id of another user is in the way, and the index serves every read.';
comment on constraint generations_user_id_fkey on ai_sessions.generations is
    'A generation is part of a user state.';
comment on constraint generations_started_at_check on ai_sessions.generations is
    'A finite time that RFC 3339 can represent.';
comment on constraint generations_record_check on ai_sessions.generations is
    '256 KiB is twice the longest text, 10000 characters of 4 bytes, with every character escaped and the record sealed.';
comment on constraint generations_ending_check on ai_sessions.generations is
    'Records begin with the version of their format. 8 KiB is ten times what the service writes.';
comment on constraint generations_lease_until_check on ai_sessions.generations is
    'A lease has a runner and an end.';
