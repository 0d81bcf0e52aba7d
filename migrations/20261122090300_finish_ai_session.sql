-- The last step of a session: candidates, outcome and event in one transaction, called by RPC with the user's own token.
-- It runs with the caller's rights, so that row level security decides here as everywhere. It may be called again after
-- a lost response: the second call changes nothing and returns how the session ended.

create or replace function public.finish_ai_session(session jsonb, candidates jsonb, event jsonb)
returns text
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
    wanted_id constant uuid := (session ->> 'id')::uuid;
    outcome constant text := session ->> 'status';
    current_status text;
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

    -- (1) The first insert was not confirmed: insert the row, unless it exists.
    if session ->> 'input_text' is not null then
        insert into public.ai_generation_sessions (id, model, input_text, created_at)
        values (
            wanted_id,
            session ->> 'model',
            session ->> 'input_text',
            coalesce((session ->> 'created_at')::timestamptz, now())
        )
        on conflict (id) do nothing;
    end if;

    -- (2) Lock the caller's row. A locking read obeys the update policy too, so it finds only a session that is still
    -- generating; one that another call ended while this one waited for the lock is not found either.
    select ai_generation_sessions.status
    into current_status
    from public.ai_generation_sessions
    where ai_generation_sessions.id = wanted_id
    for update;

    -- (3) Already ended: return the status, change nothing. Not visible: another user's session, or no session.
    if not found then
        select ai_generation_sessions.status
        into current_status
        from public.ai_generation_sessions
        where ai_generation_sessions.id = wanted_id;

        if not found then
            -- PostgREST responds to PTnnn with the HTTP status nnn.
            raise sqlstate 'PT404' using message = 'session not found';
        end if;
        return current_status;
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

    insert into public.event_logs (session_id, type, data)
    values (wanted_id, 'ai_session.' || outcome, coalesce(event, '{}'));

    return outcome;
end;
$$;

revoke all on function public.finish_ai_session(jsonb, jsonb, jsonb)
    from public, anon, authenticated, service_role;
grant execute on function public.finish_ai_session(jsonb, jsonb, jsonb) to authenticated;

comment on function public.finish_ai_session(jsonb, jsonb, jsonb) is
    'Ends the caller''s session in one transaction: stores the candidates in order, the outcome and one event, and returns the status. '
    'session: {id, model, input_text or null, created_at or null, status: completed or failed, partial, error_code, prompt_tokens, completion_tokens, cost}; '
    'candidates: [{id, front, back, prompt}]; event: the event''s data. '
    'With input_text it opens the session first if it is not there. A session that has ended stays as it is and its status is returned. '
    'Errors: PT404 if the caller has no such session, 22023 if outcome and candidates contradict each other.';
