-- The complete candidates of a generation, a row for each batch, stored before they are sent. They are removed with their
-- generation, once public.flashcard_candidates has them.

create table ai_sessions.candidates (
    user_id uuid not null,
    generation_id uuid not null,
    position integer not null,
    record text not null,

    constraint candidates_pkey primary key (user_id, generation_id, position),
    constraint candidates_user_id_generation_id_fkey
        foreign key (user_id, generation_id)
        references ai_sessions.generations (user_id, id) on delete cascade,
    constraint candidates_position_check check (position between 0 and 1999),
    constraint candidates_record_check check (octet_length(record) between 1 and 3145728)
);

alter table ai_sessions.candidates enable row level security;
revoke all on table ai_sessions.candidates from public, anon, authenticated, service_role;
alter table ai_sessions.candidates owner to ai_sessions_user_state;

comment on table ai_sessions.candidates is
    'Candidates of generations that are in progress or not yet persisted, in batches.';
comment on column ai_sessions.candidates.user_id is
    'The owner.';
comment on column ai_sessions.candidates.generation_id is
    'The generation that produced the candidates.';
comment on column ai_sessions.candidates.position is
    'The position of the batch''s first candidate in the model''s output, from 0.';
comment on column ai_sessions.candidates.record is
    'The batch, as JSON of the service or sealed by it.';

comment on constraint candidates_pkey on ai_sessions.candidates is
    'A batch is stored once; its index serves every read.';
comment on constraint candidates_user_id_generation_id_fkey on ai_sessions.candidates is
    'A batch has its generation''s owner, and is removed with the generation.';
comment on constraint candidates_position_check on ai_sessions.candidates is
    'At most 2000 candidates in a session, as in public.flashcard_candidates.';
comment on constraint candidates_record_check on ai_sessions.candidates is
    'The model''s output has at most 1 MiB; the rest is ids, escapes and the seal.';
