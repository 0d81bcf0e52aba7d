-- Validates the checks of 20261128130000 and 20261128130100. No row violates them: the earlier ones have none of the columns. The
-- tables can be read and written meanwhile.

alter table public.flashcard_candidates
    validate constraint flashcard_candidates_source_check,
    validate constraint flashcard_candidates_supported_check,
    validate constraint flashcard_candidates_notes_check;
alter table public.ai_generation_sessions
    validate constraint ai_generation_sessions_coverage_percent_check;
