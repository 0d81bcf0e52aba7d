-- A session can end once per run, and each end has its event.
-- The default is the first run: the service before this migration has no other, and does not send the column.

alter table public.event_logs
    add column run integer not null default 1,
    add constraint event_logs_run_check
        check (run >= 1);

grant insert (run) on table public.event_logs to authenticated;

create unique index event_logs_one_end_per_run_idx
    on public.event_logs (session_id, run)
    where type in ('ai_session.completed', 'ai_session.failed');

drop index public.event_logs_one_end_per_session_idx;

comment on column public.event_logs.run is
    'Which run of the session ended, from 1; 1 for an event without a session.';
comment on column public.event_logs.session_id is
    'The session whose run ended; null for an event without a session.';
comment on constraint event_logs_run_check on public.event_logs is
    'Runs are counted from 1.';
comment on index public.event_logs_one_end_per_run_idx is
    'A run ends once, however often its end is sent.';
