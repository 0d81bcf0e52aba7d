-- Brings earlier rows within the bounds of 20261127100000 to 20261127100300, and validates those of the candidates and the
-- events. A time or a figure is set to the nearest allowed one; candidates beyond the 2000th and events beyond the 1000th run of
-- a session are removed. Users who wrote past the service have such rows; the service itself wrote costs of more than 12
-- decimal places.
--
-- The service can run meanwhile: the lock on the sessions is taken last, after all reading, and only if there is such a row.
-- The bounds of the sessions are validated in 20261127100500, without that lock.

delete from public.flashcard_candidates
where position >= 2000;

delete from public.event_logs
where run > 1000;

alter table public.flashcard_candidates
    validate constraint flashcard_candidates_position_check;
alter table public.event_logs
    validate constraint event_logs_run_check;

do $$
declare
    -- No further ones can appear: the checks apply to every new write.
    session_ids constant uuid[] := array(
        select id
        from public.ai_generation_sessions
        where cost > 1000000
            or scale(cost) > 12
            or created_at < '2020-01-01T00:00:00Z'
            or created_at >= '2100-01-01T00:00:00Z'
            or ended_at < '2020-01-01T00:00:00Z'
            or ended_at >= '2100-01-01T00:00:00Z'
    );
begin
    if cardinality(session_ids) = 0 then
        return;
    end if;

    -- Sessions that have ended are rewritten here, and only here.
    alter table public.ai_generation_sessions
        disable trigger ai_generation_sessions_check_change;

    -- In one statement: a row that violates several checks must be corrected at once.
    update public.ai_generation_sessions
    set
        -- `least` and `greatest` skip nulls.
        cost = case when cost is null then null else trim_scale(round(least(cost, 1000000), 12)) end,
        created_at = case
            when created_at >= '2100-01-01T00:00:00Z' then now()
            else greatest(created_at, '2020-01-01T00:00:00Z')
        end,
        ended_at = case
            when ended_at is null then null
            when ended_at >= '2100-01-01T00:00:00Z' then now()
            else greatest(ended_at, '2020-01-01T00:00:00Z')
        end
    where id = any (session_ids);

    alter table public.ai_generation_sessions
        enable trigger ai_generation_sessions_check_change;
end;
$$;
