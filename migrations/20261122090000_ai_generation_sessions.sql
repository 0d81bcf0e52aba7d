-- One row per accepted request for flashcards: the text, the requested model and the outcome.
--
-- The service inserts the row ('generating') with the user's own token while the model generates, and ends the session exactly
-- once through public.finish_ai_session. A user can access this table through PostgREST past the service, so the checks repeat
-- the service's limits and the policies restrict each user to their own rows.
-- Upkeep: change a limit here and in the service (src/input, src/generation) together.

create table public.ai_generation_sessions (
    id uuid not null,
    user_id uuid not null default auth.uid(),
    status text not null default 'generating',
    model text not null,
    input_text text not null,
    partial boolean not null default false,
    error_code text,
    prompt_tokens integer,
    completion_tokens integer,
    cost numeric,
    created_at timestamptz not null default now(),
    ended_at timestamptz,

    constraint ai_generation_sessions_pkey primary key (id),
    constraint ai_generation_sessions_id_user_id_key unique (id, user_id),
    constraint ai_generation_sessions_user_id_fkey
        foreign key (user_id) references auth.users (id) on delete cascade,

    constraint ai_generation_sessions_status_check
        check (status in ('generating', 'completed', 'failed')),
    constraint ai_generation_sessions_model_check
        check (char_length(model) between 1 and 200),
    constraint ai_generation_sessions_input_text_length_check
        check (char_length(input_text) between 1000 and 10000),
    constraint ai_generation_sessions_input_text_trimmed_check
        check (input_text = btrim(
            input_text,
            E' \t\n\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000'
        )),
    constraint ai_generation_sessions_input_text_clean_check
        check (input_text !~ '[\u0001-\u0008\u000b-\u001f\u007f-\u009f\ufeff\U000e0000-\U000e007f]'),
    constraint ai_generation_sessions_partial_check
        check (status = 'completed' or not partial),
    constraint ai_generation_sessions_error_code_check
        check ((status = 'failed') = (error_code is not null)),
    constraint ai_generation_sessions_error_code_form_check
        check (error_code ~ '^[a-z_]{1,64}$'),
    constraint ai_generation_sessions_prompt_tokens_check
        check (prompt_tokens >= 0),
    constraint ai_generation_sessions_completion_tokens_check
        check (completion_tokens >= 0),
    constraint ai_generation_sessions_cost_check
        check (cost >= 0 and cost < 'infinity'),
    constraint ai_generation_sessions_ended_at_check
        check ((status = 'generating') = (ended_at is null))
);

create index ai_generation_sessions_user_id_created_at_id_idx
    on public.ai_generation_sessions (user_id, created_at desc, id desc);

alter table public.ai_generation_sessions enable row level security;

-- A Supabase project grants all privileges on a new table to its API roles: revoke them, then grant those in use.
revoke all on table public.ai_generation_sessions from public, anon, authenticated, service_role;
grant select on table public.ai_generation_sessions to authenticated;
grant insert (id, user_id, status, model, input_text, created_at)
    on table public.ai_generation_sessions to authenticated;
grant update (status, partial, error_code, prompt_tokens, completion_tokens, cost, ended_at)
    on table public.ai_generation_sessions to authenticated;

create policy "Users read their own sessions"
    on public.ai_generation_sessions
    for select
    to authenticated
    using (user_id = (select auth.uid()));

create policy "Users open sessions of their own"
    on public.ai_generation_sessions
    for insert
    to authenticated
    with check (user_id = (select auth.uid()) and status = 'generating');

create policy "Users end their own sessions while these are generating"
    on public.ai_generation_sessions
    for update
    to authenticated
    using (user_id = (select auth.uid()) and status = 'generating')
    with check (user_id = (select auth.uid()));

comment on table public.ai_generation_sessions is
    'Requests for flashcards: what a user asked of which model, and how it ended.';
comment on column public.ai_generation_sessions.id is
    'Made by the service before the row exists, so that the answer never waits for the insert.';
comment on column public.ai_generation_sessions.user_id is
    'The owner; taken from the caller''s token.';
comment on column public.ai_generation_sessions.status is
    'generating, then once and for good completed or failed.';
comment on column public.ai_generation_sessions.model is
    'The model that was asked for, as OpenRouter names it.';
comment on column public.ai_generation_sessions.input_text is
    'The sanitized text, byte for byte what the model was sent.';
comment on column public.ai_generation_sessions.partial is
    'The model''s answer broke off and the cards that were complete in it were kept.';
comment on column public.ai_generation_sessions.error_code is
    'The problem code that the caller was told; null unless failed.';
comment on column public.ai_generation_sessions.prompt_tokens is
    'Tokens read by the model as OpenRouter counts them; null if it did not say.';
comment on column public.ai_generation_sessions.completion_tokens is
    'Tokens written by the model as OpenRouter counts them; null if it did not say.';
comment on column public.ai_generation_sessions.cost is
    'What OpenRouter charged, in credits (US dollars); null if it did not say.';
comment on column public.ai_generation_sessions.created_at is
    'When the request was accepted.';
comment on column public.ai_generation_sessions.ended_at is
    'When the session was completed or failed; null while it is generating.';

comment on constraint ai_generation_sessions_pkey on public.ai_generation_sessions is
    'One session per accepted request, however often its opening is sent.';
comment on constraint ai_generation_sessions_id_user_id_key on public.ai_generation_sessions is
    'Lets other tables refer to a session together with its owner, so that nothing can hang on another user''s session.';
comment on constraint ai_generation_sessions_user_id_fkey on public.ai_generation_sessions is
    'A deleted user takes everything along.';
comment on constraint ai_generation_sessions_status_check on public.ai_generation_sessions is
    'The closed list of states that callers can see.';
comment on constraint ai_generation_sessions_model_check on public.ai_generation_sessions is
    'The service decides which models are allowed; here only the size is bounded.';
comment on constraint ai_generation_sessions_input_text_length_check on public.ai_generation_sessions is
    'The service''s limits, counted in Unicode scalar values as the service counts them.';
comment on constraint ai_generation_sessions_input_text_trimmed_check on public.ai_generation_sessions is
    'The service trims before it measures: untrimmed text never came through it. The list is Unicode White_Space.';
comment on constraint ai_generation_sessions_input_text_clean_check on public.ai_generation_sessions is
    'No control character but tab and newline, no byte order mark, no tag character: they hide text from a reader.';
comment on constraint ai_generation_sessions_partial_check on public.ai_generation_sessions is
    'Only a session that has cards can be partial.';
comment on constraint ai_generation_sessions_error_code_check on public.ai_generation_sessions is
    'A failed session says why, and no other claims a failure.';
comment on constraint ai_generation_sessions_error_code_form_check on public.ai_generation_sessions is
    'A code from the service''s problem table, never a sentence or a foreign error.';
comment on constraint ai_generation_sessions_prompt_tokens_check on public.ai_generation_sessions is
    'A count cannot be negative.';
comment on constraint ai_generation_sessions_completion_tokens_check on public.ai_generation_sessions is
    'A count cannot be negative.';
comment on constraint ai_generation_sessions_cost_check on public.ai_generation_sessions is
    'A finite amount: Postgres sorts NaN above infinity, so the upper bound refuses both.';
comment on constraint ai_generation_sessions_ended_at_check on public.ai_generation_sessions is
    'Exactly the sessions that are over have an end.';
comment on index public.ai_generation_sessions_user_id_created_at_id_idx is
    'The list of a user''s sessions, newest first; also the policies'' user_id and the foreign key to auth.users.';
