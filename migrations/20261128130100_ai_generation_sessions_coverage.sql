-- How much of a session's text has a candidate. Stored, because the borders of its sentences are the service's: a later read
-- returns what the first response said. Null for sessions from before, and where no candidate has a source.
-- public.reopen_ai_session need not reset it: only a completed session has it, and that is never reopened.
--
-- The check is `not valid`, as those of 20261128130000; 20261128130300 validates it.

alter table public.ai_generation_sessions
    add column coverage_percent smallint,
    add constraint ai_generation_sessions_coverage_percent_check
        check (coverage_percent is null or (coverage_percent between 0 and 100 and status = 'completed')) not valid;

grant update (coverage_percent) on table public.ai_generation_sessions to authenticated;

comment on column public.ai_generation_sessions.coverage_percent is
    'The share of the text that has a candidate, in percent; null if no candidate has a source.';
comment on constraint ai_generation_sessions_coverage_percent_check on public.ai_generation_sessions is
    'A share, of a session that has candidates.';
