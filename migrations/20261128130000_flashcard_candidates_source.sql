-- Where a candidate comes from: the range of the session's text, whether the answer occurs in it, and advice. Rows from before
-- have no range and no advice. public.finish_ai_session stores the fields from 20261128130200 on.
--
-- The checks are `not valid`, as in 20261127100000: 20261128130300 validates them, so that the exclusive lock for adding a column
-- is released before the table is read. A column that is null, or has a constant default, rewrites no row.
-- Upkeep: 10000 is the longest text (src/input); the codes are those of src/citation. Change them together.

alter table public.flashcard_candidates
    add column source_start smallint,
    add column source_end smallint,
    add column supported boolean,
    add column notes text[] not null default '{}',
    add constraint flashcard_candidates_source_check
        check (
            (source_start is null) = (source_end is null)
            and (source_start is null or (source_start >= 0 and source_start < source_end and source_end <= 10000))
        ) not valid,
    add constraint flashcard_candidates_supported_check
        check (supported is null or source_start is not null) not valid,
    -- Each code that is in the list counts once, so that the sum is the length of a list of different codes alone.
    add constraint flashcard_candidates_notes_check
        check (
            case
                when array_ndims(notes) > 1 then false
                else cardinality(notes) =
                    (array_position(notes, 'answer_in_question') is not null)::integer
                    + (array_position(notes, 'yes_or_no') is not null)::integer
                    + (array_position(notes, 'refers_to_text') is not null)::integer
                    + (array_position(notes, 'near_duplicate') is not null)::integer
                    + (array_position(notes, 'other_language') is not null)::integer
                    + (array_position(notes, 'list_answer') is not null)::integer
            end
        ) not valid;

grant insert (source_start, source_end, supported, notes)
    on table public.flashcard_candidates to authenticated;

comment on column public.flashcard_candidates.source_start is
    'The first character of the passage in the session''s text, from 0, in Unicode scalar values; null when the model named no passage.';
comment on column public.flashcard_candidates.source_end is
    'The first character after the passage.';
comment on column public.flashcard_candidates.supported is
    'Whether the numbers, the names and most of the content words of the answer occur in the passage; null without a passage.';
comment on column public.flashcard_candidates.notes is
    'Advice to the learner, as codes.';

comment on constraint flashcard_candidates_source_check on public.flashcard_candidates is
    'A range of the longest text, 10000 characters, or none.';
comment on constraint flashcard_candidates_supported_check on public.flashcard_candidates is
    'Without a passage there is nothing to compare the answer with.';
comment on constraint flashcard_candidates_notes_check on public.flashcard_candidates is
    'The service''s codes, each at most once.';
