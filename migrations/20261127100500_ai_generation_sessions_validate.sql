-- Validates the bounds of the sessions, in a file of its own: the service can run under the lock that this requires, but not
-- under that of 20261127100400.

alter table public.ai_generation_sessions
    validate constraint ai_generation_sessions_cost_check,
    validate constraint ai_generation_sessions_created_at_check,
    validate constraint ai_generation_sessions_ended_at_years_check;
