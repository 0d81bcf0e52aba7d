-- The scheduled wake-up, for hosts that share the user state: resumes a generation that a killed isolate left, without a request
-- of its owner. Optional: the service works without it, and calls it only with WAKE_UP=1. It needs the extensions pg_net, for
-- the calls, and pg_cron, or another scheduler, for the schedule.
--
-- ai_sessions.wake_users calls POST <base_url>/internal/wake-up for each user whose work is due and that no isolate does:
--   {"user": …, "at_ms": …, "proof": HMAC-SHA-256 of 'ai-sessions/wake-up', a zero byte, the user, a space and at_ms}
-- The call contains no token and no text, and names no work: a repetition of it changes nothing.
-- Upkeep: docs/supabase.md has the statement of the schedule. src/supabase/wake_up.rs has the other side of the call.

create index user_states_wake_at_idx on ai_sessions.user_states (wake_at) where wake_at is not null;

comment on index ai_sessions.user_states_wake_at_idx is
    'The users whose work is due, for ai_sessions.wake_users.';

create function ai_sessions.wake_users(base_url text)
returns integer
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
    -- Of one run. The others are the first ones of the next run.
    users_max constant integer := 100;
    -- Less than the minute between two runs of the schedule, so that the next one finds the user again.
    wait_min constant interval := '50 seconds';
    wait_max constant interval := '1 hour';
    clock constant timestamptz := clock_timestamp();
    label constant bytea := convert_to('ai-sessions/wake-up', 'UTF8') || '\x00'::bytea;
    key ai_sessions.service_keys;
    owner uuid;
    at_ms bigint;
    called integer := 0;
begin
    if (base_url ~ '^https?://[^/?#[:space:]]+(/[^/?#[:space:]]+)*$') is not true then
        raise sqlstate '22023' using message = 'base_url must be an http(s) URL without a slash at the end';
    end if;
    select * into key from ai_sessions.service_keys where service_keys.name = 'current';
    if not found then
        raise sqlstate 'PT503' using message = 'no service key is set';
    end if;

    for owner in
        -- A run that another one overlaps skips its users.
        with due as (
            select user_states.user_id, left_alone.since
            from ai_sessions.user_states
            cross join lateral (
                -- A released lease ended at 1970-01-01.
                select max(coalesce(nullif(generations.lease_until, timestamptz 'epoch'), generations.started_at)) as since
                from ai_sessions.generations
                where generations.user_id = user_states.user_id and (generations.lease_until > clock) is not true
            ) as left_alone
            where user_states.wake_at <= clock and left_alone.since is not null
            order by user_states.wake_at
            limit users_max
            for update of user_states skip locked
        )
        -- The next store sets the time anew. Without one, each wait is as long as the work has been left: a service that does not
        -- respond, or work that it cannot do, is called ever more rarely.
        update ai_sessions.user_states
        set wake_at = clock + least(greatest(clock - due.since, wait_min), wait_max)
        from due
        where user_states.user_id = due.user_id
        returning user_states.user_id
    loop
        at_ms := ai_sessions.clock_ms();
        perform net.http_post(
            url := base_url || '/internal/wake-up',
            body := jsonb_build_object(
                'user', owner,
                'at_ms', at_ms,
                'proof', encode(
                    ai_sessions.hmac_sha256(
                        key.inner_pad,
                        key.outer_pad,
                        label || convert_to(format('%s %s', owner, at_ms), 'UTF8')
                    ),
                    'hex'
                )
            ),
            -- The service responds at once; a new isolate takes a few seconds to start.
            timeout_milliseconds := 10000
        );
        called := called + 1;
    end loop;
    return called;
end;
$$;

revoke all on function ai_sessions.wake_users(text) from public, anon, authenticated, service_role;
alter function ai_sessions.wake_users(text) owner to ai_sessions_user_state;

comment on function ai_sessions.wake_users(text) is
    'Calls the service under this URL for at most 100 users whose work is due and that no isolate does, each at most once in 50 seconds; returns their number. '
    'To be called by a schedule. Errors: PT503 without a key, 22023 for a URL that is not valid.';

comment on column ai_sessions.generations.record is
    'The record of the generation, as JSON of the service. It contains the text, as public.ai_generation_sessions does, and with WAKE_UP=1 the owner''s access token, sealed by AES-256-GCM; never a readable token.';
comment on column ai_sessions.user_states.wake_at is
    'When work is due; null for none. Set by each store of a service with WAKE_UP=1, and moved on by ai_sessions.wake_users.';
