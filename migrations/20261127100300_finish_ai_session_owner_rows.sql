-- The last step of a run: candidates, outcome and event in one transaction, called by RPC with the user's own token and
-- with the caller's rights. It may be called again after a lost response: the second call changes nothing and returns the
-- session's status.
--
-- New since 20261124090300: rows that the owner inserted past the service do not stop it.
--   - Candidates of the session are replaced, so that those of the service are all stored, under their ids and positions.
--     A candidate of another running session of the owner that has one of these ids (a stream sends ids before they are
--     stored) is removed.
--   - An existing event of this run remains, in place of the service's: a user's own events need not be true.
--   - The lock is the weakest that excludes another end. A foreign key check of an event or a candidate does not wait for it,
--     so that no two transactions wait for each other.
--   - A cost is rounded to what its check allows.
-- An owner can still end or reopen their own session before the service does. The function then changes nothing and returns
-- the session's status. A candidate id of an ended session, or of another user's session, is refused (23505).
--
-- The check of the cost is added here, not valid as those of 20261127100000, because without the rounding it refuses the service's
-- own sums, such as 0.1 + 0.2 = 0.30000000000000004, and with them the generated candidates.
-- Upkeep: the bound of the cost is that of src/generation/usage.rs.

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
    insert into public.flashcard_candidates (id, session_id, position, front, back, prompt)
    select
        (candidate.value ->> 'id')::uuid,
        wanted_id,
        candidate.ordinality - 1,
        candidate.value ->> 'front',
        candidate.value ->> 'back',
        candidate.value ->> 'prompt'
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
    'session: {id, run or null for 1, model, input_text or null, created_at or null, status: completed or failed, partial, error_code, prompt_tokens, completion_tokens, cost}; '
    'candidates: [{id, front, back, prompt}]; event: the event''s data. '
    'It begins as reopen_ai_session does. Candidates that the session has are replaced; an event that the run has stays. '
    'A session whose run has ended, or that a later run has taken over, stays as it is and its status is returned: '
    'completed, failed, or generating while the later run is. '
    'Errors: PT404 if the caller has no such session, 22023 if outcome and candidates contradict each other, 23505 if a candidate id is taken by a session that has ended or is not the caller''s.';

alter table public.ai_generation_sessions
    drop constraint ai_generation_sessions_cost_check,
    add constraint ai_generation_sessions_cost_check
        check (cost >= 0 and cost <= 1000000 and scale(cost) <= 12) not valid;

comment on constraint ai_generation_sessions_cost_check on public.ai_generation_sessions is
    'A finite amount of at most 20 digits: Postgres sorts NaN and infinity above every bound, and a reader''s number type holds the rest.';
