-- The last step of a run: candidates, outcome and event in one transaction, called by RPC with the user's own token.
-- It runs with the caller's rights, so that row level security decides here as everywhere. It may be called again after
-- a lost response: the second call changes nothing and returns the session's status.
--
-- New since 20261122090300: it ends the run that is passed and no other, and begins that run if its beginning was not
-- confirmed.

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

    -- (1) The beginning of the run, or of the session, may not have been confirmed: repeat it.
    perform public.reopen_ai_session(session);

    -- (2) Lock the row while this run is generating. One that another call ended, or took over for a later run, while this
    -- one waited for the lock is not found.
    perform
    from public.ai_generation_sessions
    where ai_generation_sessions.id = wanted_id
        and ai_generation_sessions.status = 'generating'
        and ai_generation_sessions.run = wanted_run
    for update;

    -- (3) This run is over: return the session's status, change nothing.
    if not found then
        return (
            select ai_generation_sessions.status
            from public.ai_generation_sessions
            where ai_generation_sessions.id = wanted_id
        );
    end if;

    -- (4) The candidates first: their policy requires a session that is generating.
    insert into public.flashcard_candidates (id, session_id, position, front, back, prompt)
    select
        (card.value ->> 'id')::uuid,
        wanted_id,
        card.ordinality - 1,
        card.value ->> 'front',
        card.value ->> 'back',
        card.value ->> 'prompt'
    from jsonb_array_elements(candidates) with ordinality as card;

    update public.ai_generation_sessions
    set
        status = outcome,
        partial = coalesce((session ->> 'partial')::boolean, false),
        error_code = session ->> 'error_code',
        prompt_tokens = (session ->> 'prompt_tokens')::integer,
        completion_tokens = (session ->> 'completion_tokens')::integer,
        cost = (session ->> 'cost')::numeric,
        ended_at = now()
    where ai_generation_sessions.id = wanted_id;

    insert into public.event_logs (session_id, run, type, data)
    values (wanted_id, wanted_run, 'ai_session.' || outcome, coalesce(event, '{}'));

    return outcome;
end;
$$;

revoke all on function public.finish_ai_session(jsonb, jsonb, jsonb)
    from public, anon, authenticated, service_role;
grant execute on function public.finish_ai_session(jsonb, jsonb, jsonb) to authenticated;

comment on function public.finish_ai_session(jsonb, jsonb, jsonb) is
    'Ends a run of the caller''s session in one transaction: stores the candidates in order, the outcome and one event, and returns the status. '
    'session: {id, run or null for 1, model, input_text or null, created_at or null, status: completed or failed, partial, error_code, prompt_tokens, completion_tokens, cost}; '
    'candidates: [{id, front, back, prompt}]; event: the event''s data. '
    'It begins as reopen_ai_session does. A session whose run has ended, or that a later run has taken over, stays as it is and its status is returned: '
    'completed, failed, or generating while the later run is. '
    'Errors: PT404 if the caller has no such session, 22023 if outcome and candidates contradict each other.';
