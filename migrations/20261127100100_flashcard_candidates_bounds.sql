-- Bounds for the candidates that an owner can insert past the service: at most 2000 in a session, and only while it is
-- generating. public.finish_ai_session replaces the candidates of the session, so that the generated ones are all stored,
-- under the ids and positions that the caller has already received.
--
-- Removing rows under the caller's rights needs the caller's own privilege: a grant, a policy (the caller's rows of sessions
-- that are generating) and a trigger that refuses every removal outside public.finish_ai_session. The function sets a
-- setting of its transaction, which no request to PostgREST can set. The alternatives: a `security definer` function would
-- bypass row level security, and an update in place would make every column of a candidate writable.
-- Upkeep: 2000 is the largest MAX_CANDIDATES (src/config.rs). 20261127100400 cleans earlier rows and validates.

alter table public.flashcard_candidates
    drop constraint flashcard_candidates_position_check,
    add constraint flashcard_candidates_position_check
        check (position >= 0 and position < 2000) not valid;

grant delete on table public.flashcard_candidates to authenticated;

create policy "Users replace candidates of their own sessions that are generating"
    on public.flashcard_candidates
    for delete
    to authenticated
    using (
        user_id = (select auth.uid())
        and exists (
            select 1
            from public.ai_generation_sessions
            where ai_generation_sessions.id = flashcard_candidates.session_id
                and ai_generation_sessions.user_id = (select auth.uid())
                and ai_generation_sessions.status = 'generating'
        )
    );

create function public.check_candidate_removal()
returns trigger
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
    -- A session or a user that is deleted takes candidates along with the rights of the table's owner.
    if row_security_active('public.flashcard_candidates')
        and current_setting('ai_sessions.finishes', true) is distinct from 'on'
    then
        raise insufficient_privilege
            using message = 'only public.finish_ai_session removes candidates';
    end if;
    return null;
end;
$$;

create function public.hold_ai_session()
returns trigger
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
    if not row_security_active('public.flashcard_candidates') then
        return new;
    end if;

    -- One transaction at a time adds candidates to a session or ends it. The policy alone would look at the session before
    -- public.finish_ai_session ends it, and would let a candidate in afterwards.
    perform
    from public.ai_generation_sessions
    where ai_generation_sessions.id = new.session_id
        and ai_generation_sessions.user_id = new.user_id
        and ai_generation_sessions.status = 'generating'
    for no key update;

    if not found then
        raise insufficient_privilege
            using message = 'a candidate is added to a session of the caller that is generating';
    end if;
    return new;
end;
$$;

-- A trigger needs no grant to run.
revoke all on function public.check_candidate_removal()
    from public, anon, authenticated, service_role;
revoke all on function public.hold_ai_session()
    from public, anon, authenticated, service_role;

create trigger flashcard_candidates_check_removal
    before delete on public.flashcard_candidates
    for each statement
    execute function public.check_candidate_removal();

create trigger flashcard_candidates_hold_session
    before insert on public.flashcard_candidates
    for each row
    -- public.finish_ai_session has locked the session already.
    when (current_setting('ai_sessions.finishes', true) is distinct from 'on')
    execute function public.hold_ai_session();

comment on constraint flashcard_candidates_position_check on public.flashcard_candidates is
    'Positions are counted from 0, and a session has at most 2000 candidates: the largest MAX_CANDIDATES.';
comment on function public.check_candidate_removal() is
    'Refuses the removal of candidates by a user outside public.finish_ai_session. '
    'Error: 42501.';
comment on function public.hold_ai_session() is
    'Locks the session of a new candidate until the transaction ends, and refuses the candidate when the session is not the caller''s or not generating. '
    'Error: 42501.';
comment on trigger flashcard_candidates_check_removal on public.flashcard_candidates is
    'Candidates are replaced by public.finish_ai_session alone.';
comment on trigger flashcard_candidates_hold_session on public.flashcard_candidates is
    'A session that has ended gets no further candidate, also not from a transaction that began before its end.';
