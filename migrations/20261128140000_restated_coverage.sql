-- Restates a comment: a completed session whose candidates have no source has a share of 0. Nothing else changes. It can be
-- applied while the service runs, before or after it is updated.

comment on column public.ai_generation_sessions.coverage_percent is
    'The share of the text that has a candidate, in percent; 0 if no candidate has a source, null before the end, after a failure and in sessions from before candidates had sources.';
