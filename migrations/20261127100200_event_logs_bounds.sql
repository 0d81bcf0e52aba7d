-- Bounds for the number of events that a user can append past the service: one for each of the first 1000 runs of a session,
-- and for events without a session one per policy and minute.
--
-- The service appends at most one 'ai_session.rate_limited' per user, policy and window. The windows (RATE_LIMIT_*) are not in
-- the database: a minute is the shortest default. With shorter windows, further events of the same minute are refused (23505),
-- which the service ignores. All unknown names count as one name.
-- Upkeep: the policies are those of src/quota and src/edge; a name that is missing here shares a minute with all unknown names.
-- 20261127100400 removes events of later runs and validates.

alter table public.event_logs
    drop constraint event_logs_run_check,
    add constraint event_logs_run_check
        check (run between 1 and 1000) not valid;

-- No event may arrive between the removal of duplicates and the index. The service never appended such duplicates.
lock table public.event_logs in share row exclusive mode;

delete from public.event_logs
where id in (
    select id
    from (
        select
            id,
            row_number() over (
                partition by
                    user_id,
                    case
                        when data ->> 'policy' in ('attempts', 'burst', 'concurrent', 'generations', 'reads', 'spend')
                            then data ->> 'policy'
                        else 'other'
                    end,
                    date_bin('1 minute', created_at, '2020-01-01T00:00:00Z')
                order by id
            ) as place
        from public.event_logs
        where type = 'ai_session.rate_limited'
    ) as numbered
    where place > 1
);

create unique index event_logs_one_limit_per_minute_idx
    on public.event_logs (
        user_id,
        (
            case
                when data ->> 'policy' in ('attempts', 'burst', 'concurrent', 'generations', 'reads', 'spend')
                    then data ->> 'policy'
                else 'other'
            end
        ),
        date_bin('1 minute', created_at, '2020-01-01T00:00:00Z')
    )
    where type = 'ai_session.rate_limited';

comment on constraint event_logs_run_check on public.event_logs is
    'Runs are counted from 1. A session has at most 1000 events; the ends of later runs are not logged.';
comment on index public.event_logs_one_limit_per_minute_idx is
    'A user''s log has at most one event per policy and minute.';
