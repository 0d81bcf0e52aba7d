-- The flashcards that a session's model proposed, in the model's order. public.finish_ai_session inserts all of them at
-- once, and they do not change afterwards: the cards that a user keeps or edits belong to the flashcard app's own tables.
-- Upkeep: the lengths are the service's (src/generation); change both together.

create table public.flashcard_candidates (
    id uuid not null,
    session_id uuid not null,
    user_id uuid not null default auth.uid(),
    position smallint not null,
    front text not null,
    back text not null,
    prompt text not null,
    created_at timestamptz not null default now(),

    constraint flashcard_candidates_pkey primary key (id),
    constraint flashcard_candidates_session_id_position_key unique (session_id, position),
    constraint flashcard_candidates_session_id_user_id_fkey
        foreign key (session_id, user_id)
        references public.ai_generation_sessions (id, user_id) on delete cascade,

    constraint flashcard_candidates_position_check
        check (position >= 0),
    constraint flashcard_candidates_front_length_check
        check (char_length(front) between 1 and 200),
    constraint flashcard_candidates_back_length_check
        check (char_length(back) between 1 and 500),
    constraint flashcard_candidates_prompt_length_check
        check (char_length(prompt) between 1 and 500),
    constraint flashcard_candidates_front_trimmed_check
        check (front = btrim(
            front,
            E' \t\n\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000'
        )),
    constraint flashcard_candidates_back_trimmed_check
        check (back = btrim(
            back,
            E' \t\n\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000'
        )),
    constraint flashcard_candidates_prompt_trimmed_check
        check (prompt = btrim(
            prompt,
            E' \t\n\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000'
        )),
    constraint flashcard_candidates_front_clean_check
        check (front !~ '[\u0001-\u0008\u000b-\u001f\u007f-\u009f\ufeff\U000e0000-\U000e007f]'),
    constraint flashcard_candidates_back_clean_check
        check (back !~ '[\u0001-\u0008\u000b-\u001f\u007f-\u009f\ufeff\U000e0000-\U000e007f]'),
    constraint flashcard_candidates_prompt_clean_check
        check (prompt !~ '[\u0001-\u0008\u000b-\u001f\u007f-\u009f\ufeff\U000e0000-\U000e007f]')
);

create index flashcard_candidates_user_id_session_id_idx
    on public.flashcard_candidates (user_id, session_id);

alter table public.flashcard_candidates enable row level security;

revoke all on table public.flashcard_candidates from public, anon, authenticated, service_role;
grant select on table public.flashcard_candidates to authenticated;
grant insert (id, session_id, user_id, position, front, back, prompt)
    on table public.flashcard_candidates to authenticated;

create policy "Users read the candidates of their own sessions"
    on public.flashcard_candidates
    for select
    to authenticated
    using (user_id = (select auth.uid()));

create policy "Users add candidates to their own sessions while these are generating"
    on public.flashcard_candidates
    for insert
    to authenticated
    with check (
        user_id = (select auth.uid())
        and exists (
            select 1
            from public.ai_generation_sessions
            where ai_generation_sessions.id = flashcard_candidates.session_id
                and ai_generation_sessions.user_id = (select auth.uid())
                and ai_generation_sessions.status = 'generating'
        )
    );

comment on table public.flashcard_candidates is
    'Flashcards proposed by a model for a session''s text; written once and never changed.';
comment on column public.flashcard_candidates.id is
    'Made by the service, so that a caller can be shown a card before it is stored.';
comment on column public.flashcard_candidates.session_id is
    'The session that the card came from.';
comment on column public.flashcard_candidates.user_id is
    'The owner; always the session''s.';
comment on column public.flashcard_candidates.position is
    'The card''s place in the model''s answer, from 0.';
comment on column public.flashcard_candidates.front is
    'The question side.';
comment on column public.flashcard_candidates.back is
    'The answer side.';
comment on column public.flashcard_candidates.prompt is
    'One sentence by the model on what the card tests; not the prompt that was sent.';
comment on column public.flashcard_candidates.created_at is
    'When the card was stored.';

comment on constraint flashcard_candidates_pkey on public.flashcard_candidates is
    'A card that is sent twice is stored once.';
comment on constraint flashcard_candidates_session_id_position_key on public.flashcard_candidates is
    'Two completions of one session cannot mix their cards.';
comment on constraint flashcard_candidates_session_id_user_id_fkey on public.flashcard_candidates is
    'A card has its session''s owner. The only foreign key between the two tables: PostgREST embeds by it without being told which.';
comment on constraint flashcard_candidates_position_check on public.flashcard_candidates is
    'Places are counted from 0.';
comment on constraint flashcard_candidates_front_length_check on public.flashcard_candidates is
    'The service''s limit in Unicode scalar values: what fits on the question side.';
comment on constraint flashcard_candidates_back_length_check on public.flashcard_candidates is
    'The service''s limit in Unicode scalar values: what fits on the answer side.';
comment on constraint flashcard_candidates_prompt_length_check on public.flashcard_candidates is
    'The service''s limit in Unicode scalar values: one short sentence.';
comment on constraint flashcard_candidates_front_trimmed_check on public.flashcard_candidates is
    'The service trims before it measures. The list is Unicode White_Space.';
comment on constraint flashcard_candidates_back_trimmed_check on public.flashcard_candidates is
    'The service trims before it measures. The list is Unicode White_Space.';
comment on constraint flashcard_candidates_prompt_trimmed_check on public.flashcard_candidates is
    'The service trims before it measures. The list is Unicode White_Space.';
comment on constraint flashcard_candidates_front_clean_check on public.flashcard_candidates is
    'No control character but tab and newline, no byte order mark, no tag character: they hide text from a reader.';
comment on constraint flashcard_candidates_back_clean_check on public.flashcard_candidates is
    'No control character but tab and newline, no byte order mark, no tag character: they hide text from a reader.';
comment on constraint flashcard_candidates_prompt_clean_check on public.flashcard_candidates is
    'No control character but tab and newline, no byte order mark, no tag character: they hide text from a reader.';
comment on index public.flashcard_candidates_user_id_session_id_idx is
    'The policies'' user_id, and both columns of the foreign key for cascading deletes.';
