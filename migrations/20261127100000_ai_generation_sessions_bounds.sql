-- Bounds for the times that an owner can write past the service: a row created in the year 294276 broke the owner's own
-- list of sessions. The bound of the cost is in 20261127100300, with the function that rounds a cost to it.
--
-- The checks apply to every write from here on, and are `not valid`: earlier rows may violate them. 20261127100400 cleans
-- those rows, and 20261127100500 validates, in files of their own, so that the exclusive lock for adding a check is released
-- before the table is read.
-- Token counts need no further bound: the columns are integers.
-- Upkeep: the range of years allows for wrong clocks.

alter table public.ai_generation_sessions
    add constraint ai_generation_sessions_created_at_check
        check (created_at >= '2020-01-01T00:00:00Z' and created_at < '2100-01-01T00:00:00Z') not valid,
    add constraint ai_generation_sessions_ended_at_years_check
        check (ended_at >= '2020-01-01T00:00:00Z' and ended_at < '2100-01-01T00:00:00Z') not valid;

comment on constraint ai_generation_sessions_created_at_check on public.ai_generation_sessions is
    'A finite time that has a form in RFC 3339 and a place in the cursor of a list.';
comment on constraint ai_generation_sessions_ended_at_years_check on public.ai_generation_sessions is
    'A finite time that has a form in RFC 3339.';
