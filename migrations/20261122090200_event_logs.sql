-- The events of a user's sessions, one row each, append-only: update and delete are granted to no role and allowed by no
-- policy. Rows are deleted only with their session or their user.
-- Users can write past the service into their own log, so the rows are information for them and for support, not evidence.

create table public.event_logs (
    id bigint generated always as identity,
    user_id uuid not null default auth.uid(),
    session_id uuid,
    type text not null,
    data jsonb not null default '{}',
    created_at timestamptz not null default now(),

    constraint event_logs_pkey primary key (id),
    constraint event_logs_user_id_fkey
        foreign key (user_id) references auth.users (id) on delete cascade,
    constraint event_logs_session_id_user_id_fkey
        foreign key (session_id, user_id)
        references public.ai_generation_sessions (id, user_id) on delete cascade,

    constraint event_logs_type_check
        check (type in ('ai_session.completed', 'ai_session.failed', 'ai_session.rate_limited')),
    constraint event_logs_session_id_check
        check ((type = 'ai_session.rate_limited') = (session_id is null)),
    constraint event_logs_data_object_check
        check (jsonb_typeof(data) = 'object'),
    constraint event_logs_data_size_check
        check (octet_length(data::text) <= 8192)
);

create unique index event_logs_one_end_per_session_idx
    on public.event_logs (session_id)
    where type in ('ai_session.completed', 'ai_session.failed');

create index event_logs_user_id_session_id_idx
    on public.event_logs (user_id, session_id);

alter table public.event_logs enable row level security;

-- An identity column needs no grant on its sequence.
revoke all on sequence public.event_logs_id_seq from public, anon, authenticated, service_role;
revoke all on table public.event_logs from public, anon, authenticated, service_role;
grant select on table public.event_logs to authenticated;
grant insert (user_id, session_id, type, data) on table public.event_logs to authenticated;

create policy "Users read their own events"
    on public.event_logs
    for select
    to authenticated
    using (user_id = (select auth.uid()));

create policy "Users append events of their own"
    on public.event_logs
    for insert
    to authenticated
    with check (user_id = (select auth.uid()));

comment on table public.event_logs is
    'Events of AI sessions, append-only.';
comment on column public.event_logs.id is
    'Order of arrival; given by the database alone.';
comment on column public.event_logs.user_id is
    'Whose event it is.';
comment on column public.event_logs.session_id is
    'The session that ended; null for an event without a session.';
comment on column public.event_logs.type is
    'What happened.';
comment on column public.event_logs.data is
    'Codes, counts, durations in milliseconds, usage; never a text, a token or a key.';
comment on column public.event_logs.created_at is
    'When it was written; not settable by callers.';

comment on constraint event_logs_pkey on public.event_logs is
    'Events have an order and a name.';
comment on constraint event_logs_user_id_fkey on public.event_logs is
    'A deleted user takes everything along; an event without a session has no other way to its user.';
comment on constraint event_logs_session_id_user_id_fkey on public.event_logs is
    'An event has its session''s owner: nobody writes into the log of another''s session.';
comment on constraint event_logs_type_check on public.event_logs is
    'The closed list of events; a new one is a migration, so that readers can rely on it.';
comment on constraint event_logs_session_id_check on public.event_logs is
    'An end names its session; a request that was refused never had one.';
comment on constraint event_logs_data_object_check on public.event_logs is
    'Readers take members by name.';
comment on constraint event_logs_data_size_check on public.event_logs is
    'A log line, not a store: 8 KiB is ten times what the service writes.';
comment on index public.event_logs_one_end_per_session_idx is
    'A session ends once, however often its end is sent.';
comment on index public.event_logs_user_id_session_id_idx is
    'The policies'' user_id, and the columns of both foreign keys for cascading deletes.';
