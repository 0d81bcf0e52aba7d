-- The last step of a run, as in 20261127100300, and new: it stores where each candidate comes from, and how much of the
-- text has a candidate. It accepts a call without these members, which a service sends that has not been updated yet.

create or replace function public.finish_ai_session(session jsonb, candidates jsonb, event jsonb)
returns text
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
    wanted_id constant uuid := (session ->> 'id')::uuid;
    wanted_run constant integer := coalesce((session ->> 'run')::integer, 1);
    outcome constant text := session ->> 'status';
    candidate_ids uuid[];
begin
    if wanted_id is null then
        raise sqlstate '22023' using message = 'session.id is missing';
    end if;
    if outcome is null or outcome not in ('completed', 'failed') then
        raise sqlstate '22023' using message = 'session.status must be completed or failed';
    end if;
    if jsonb_typeof(candidates) is distinct from 'array' then
        raise sqlstate '22023' using message = 'candidates must be an array';
    end if;
    if (outcome = 'completed') <> (jsonb_array_length(candidates) > 0) then
        raise sqlstate '22023' using message = 'a completed session has candidates and a failed one has none';
    end if;

    -- (1) The beginning of the run, or even of the session, may never have been confirmed: make sure of it.
    perform public.reopen_ai_session(session);

    -- (2) Lock the row while this run is generating. One that another call ended, or took over for a later run, while this
    -- one waited for the lock is not found.
    perform
    from public.ai_generation_sessions
    where ai_generation_sessions.id = wanted_id
        and ai_generation_sessions.status = 'generating'
        and ai_generation_sessions.run = wanted_run
    for no key update;

    -- (3) This run is over: return how the session stands, change nothing.
    if not found then
        return (
            select ai_generation_sessions.status
            from public.ai_generation_sessions
            where ai_generation_sessions.id = wanted_id
        );
    end if;

    -- (4) Remove the candidates that stand in the way. The policy finds the caller's own, in sessions that are generating.
    select array_agg((candidate.value ->> 'id')::uuid)
    into candidate_ids
    from jsonb_array_elements(candidates) as candidate;

    perform set_config('ai_sessions.finishes', 'on', true);
    delete from public.flashcard_candidates
    where flashcard_candidates.session_id = wanted_id
        or flashcard_candidates.id = any (candidate_ids);

    -- (5) The candidates before the outcome: their policy wants a session that is still generating.
    insert into public.flashcard_candidates (
        id, session_id, position, front, back, prompt, source_start, source_end, supported, notes
    )
    select
        (candidate.value ->> 'id')::uuid,
        wanted_id,
        candidate.ordinality - 1,
        candidate.value ->> 'front',
        candidate.value ->> 'back',
        candidate.value ->> 'prompt',
        (candidate.value #>> '{source,start}')::smallint,
        (candidate.value #>> '{source,end}')::smallint,
        (candidate.value ->> 'supported')::boolean,
        array(
            select note.value
            from jsonb_array_elements_text(coalesce(candidate.value -> 'notes', '[]')) with ordinality as note
            order by note.ordinality
        )
    from jsonb_array_elements(candidates) with ordinality as candidate;
    perform set_config('ai_sessions.finishes', 'off', true);

    update public.ai_generation_sessions
    set
        status = outcome,
        partial = coalesce((session ->> 'partial')::boolean, false),
        error_code = session ->> 'error_code',
        prompt_tokens = (session ->> 'prompt_tokens')::integer,
        completion_tokens = (session ->> 'completion_tokens')::integer,
        cost = trim_scale(round((session ->> 'cost')::numeric, 12)),
        coverage_percent = (session ->> 'coverage_percent')::smallint,
        ended_at = now()
    where ai_generation_sessions.id = wanted_id;

    -- (6) One event per run, up to the last run that event_logs_run_check allows.
    insert into public.event_logs (session_id, run, type, data)
    select wanted_id, wanted_run, 'ai_session.' || outcome, coalesce(event, '{}')
    where wanted_run <= 1000
    on conflict do nothing;

    return outcome;
end;
$$;

revoke all on function public.finish_ai_session(jsonb, jsonb, jsonb)
    from public, anon, authenticated, service_role;
grant execute on function public.finish_ai_session(jsonb, jsonb, jsonb) to authenticated;

comment on function public.finish_ai_session(jsonb, jsonb, jsonb) is
    'Ends a run of the caller''s session in one transaction: stores the candidates in order, the outcome and one event, and returns the status. '
    'session: {id, run or null for 1, model, input_text or null, created_at or null, status: completed or failed, partial, error_code, prompt_tokens, completion_tokens, cost, coverage_percent or null}; '
    'candidates: [{id, front, back, prompt, source: null or {start, end}, supported, notes: [code]}], the last three optional; '
    'event: the event''s data. '
    'It begins as reopen_ai_session does. Candidates that the session has are replaced; an event that the run has stays. '
    'A session whose run has ended, or that a later run has taken over, stays as it is and its status is returned: '
    'completed, failed, or generating while the later run is. '
    'Errors: PT404 if the caller has no such session, 22023 if outcome and candidates contradict each other, 23505 if a candidate id is taken by a session that has ended or is not the caller''s.';
