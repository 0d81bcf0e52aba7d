-- The first step of a run that follows a retryable failure, called by RPC with the user's own token and with the caller's
-- rights. It may be called again after a lost response, and public.finish_ai_session begins with it, because at that
-- point its outcome may be unknown.

create or replace function public.reopen_ai_session(session jsonb)
returns text
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
    wanted_id constant uuid := (session ->> 'id')::uuid;
    wanted_run constant integer := coalesce((session ->> 'run')::integer, 1);
    current_status text;
begin
    if wanted_id is null then
        raise sqlstate '22023' using message = 'session.id is missing';
    end if;

    -- (1) No run before this one was ever confirmed to be there: make the row now, unless it had arrived after all.
    if session ->> 'input_text' is not null then
        insert into public.ai_generation_sessions (id, run, model, input_text, created_at)
        values (
            wanted_id,
            wanted_run,
            session ->> 'model',
            session ->> 'input_text',
            coalesce((session ->> 'created_at')::timestamptz, now())
        )
        on conflict do nothing;
    end if;

    -- (2) Begin the run. The update policies find the caller's row only while it is generating (the end of the run before
    -- never arrived, and comes too late from now on) or when it failed and can be tried again.
    update public.ai_generation_sessions
    set
        status = 'generating',
        run = wanted_run,
        partial = false,
        error_code = null,
        prompt_tokens = null,
        completion_tokens = null,
        cost = null,
        ended_at = null
    where ai_generation_sessions.id = wanted_id
        and ai_generation_sessions.run < wanted_run;

    -- (3) Say how it stands. Not visible at all: it is not the caller's, or it does not exist.
    select ai_generation_sessions.status
    into current_status
    from public.ai_generation_sessions
    where ai_generation_sessions.id = wanted_id;

    if not found then
        -- PostgREST answers PTnnn with the HTTP status nnn.
        raise sqlstate 'PT404' using message = 'session not found';
    end if;
    return current_status;
end;
$$;

revoke all on function public.reopen_ai_session(jsonb)
    from public, anon, authenticated, service_role;
grant execute on function public.reopen_ai_session(jsonb) to authenticated;

comment on function public.reopen_ai_session(jsonb) is
    'Begins a run of the caller''s session, and returns the status that the session then has: generating, also when this run had begun before. '
    'session: {id, run or null for 1, model, input_text or null, created_at or null}. '
    'With input_text it opens the session first if it is not there. A session that is completed, that failed for good or that has come to this run or a later one stays as it is. '
    'Errors: PT404 if the caller has no such session, 22023 without an id.';
