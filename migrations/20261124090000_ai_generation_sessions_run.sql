-- A session whose failure is retryable can generate again under its own id: a *run* is one such attempt, counted from 1. The
-- row is set to 'generating' for the next run and ends once more; the outcomes of earlier runs are in public.event_logs.
--
-- Policies of one command are or-ed, their using and their with check separately, so they cannot restrict which old row may
-- become which new one. The trigger does, for every role: a migration that rewrites sessions that have ended disables it
-- meanwhile.
-- Upkeep: the retryable codes are those of the service's table (src/http/problem.rs); a test in tests/database compares them.

alter table public.ai_generation_sessions
    add column run integer not null default 1,
    add constraint ai_generation_sessions_run_check
        check (run >= 1);

grant insert (run), update (run) on table public.ai_generation_sessions to authenticated;

create function public.is_retryable_ai_failure(error_code text)
returns boolean
language sql
immutable
security invoker
set search_path = ''
as $$
    select error_code in (
        'ai_invalid_response',
        'ai_timeout',
        'ai_unavailable',
        'cancelled',
        'database_error'
    );
$$;

-- Policies and functions run it with the caller's rights.
revoke all on function public.is_retryable_ai_failure(text)
    from public, anon, authenticated, service_role;
grant execute on function public.is_retryable_ai_failure(text) to authenticated;

create policy "Users reopen their own sessions that failed and can be tried again"
    on public.ai_generation_sessions
    for update
    to authenticated
    using (
        user_id = (select auth.uid())
        and status = 'failed'
        and public.is_retryable_ai_failure(error_code)
    )
    with check (user_id = (select auth.uid()) and status = 'generating');

create function public.check_ai_session_change()
returns trigger
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
    -- (1) The run that is generating goes on or ends.
    if old.status = 'generating' and new.run = old.run then
        return new;
    end if;

    -- (2) A later run begins, with nothing left of the one before: the table's checks clear the other columns of an end.
    -- It begins out of 'generating' too, where the end of the run before never arrived.
    if new.status = 'generating'
        and new.run > old.run
        and num_nonnulls(new.prompt_tokens, new.completion_tokens, new.cost) = 0
        and (
            old.status = 'generating'
            or (old.status = 'failed' and public.is_retryable_ai_failure(old.error_code))
        )
    then
        return new;
    end if;

    raise insufficient_privilege
        using message = 'a session that has ended stays as it is, unless a later run begins after a retryable failure';
end;
$$;

-- A trigger needs no grant to run.
revoke all on function public.check_ai_session_change()
    from public, anon, authenticated, service_role;

create trigger ai_generation_sessions_check_change
    before update on public.ai_generation_sessions
    for each row
    execute function public.check_ai_session_change();

comment on column public.ai_generation_sessions.run is
    'Which try this is, from 1: a failure that is retryable can be followed by another run under the same id.';
comment on column public.ai_generation_sessions.status is
    'generating, then for good completed or failed; only a retryable failure can become generating again, for a later run.';
comment on column public.ai_generation_sessions.ended_at is
    'When the last run was completed or failed; null while one is generating.';
comment on constraint ai_generation_sessions_run_check on public.ai_generation_sessions is
    'Runs are counted from 1.';
comment on function public.is_retryable_ai_failure(text) is
    'Whether the same request can succeed later, by the error code of a session that failed. '
    'The only list of these codes in the database.';
comment on function public.check_ai_session_change() is
    'Refuses an update that would change how a session ended, or take it back to an earlier run. '
    'Error: 42501.';
comment on trigger ai_generation_sessions_check_change on public.ai_generation_sessions is
    'What has ended stays, except that a later run may begin after a retryable failure.';
