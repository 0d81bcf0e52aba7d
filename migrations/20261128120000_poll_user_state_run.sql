-- A poll names the run that it reads: a session may have started another run since, with candidates of its own.

create or replace function ai_sessions.poll_generation(owner uuid, request jsonb)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
    select jsonb_build_object(
        'clock_ms', ai_sessions.clock_ms(),
        'version', coalesce((
            select user_states.version from ai_sessions.user_states where user_states.user_id = owner
        ), 0),
        'generation', (
            select jsonb_build_object(
                'started_ms', floor(extract(epoch from generations.started_at) * 1000)::bigint,
                'ending', generations.ending,
                'runner', generations.runner,
                'is_leased', coalesce(generations.lease_until > clock_timestamp(), false),
                'stop', generations.stop
            )
            from ai_sessions.generations
            where generations.user_id = owner and generations.id = (request ->> 'id')::uuid
        ),
        'candidates', coalesce((
            select jsonb_agg(
                jsonb_build_object('position', candidates.position, 'record', candidates.record) order by candidates.position
            )
            from ai_sessions.candidates
            where candidates.user_id = owner
                and candidates.generation_id = (request ->> 'id')::uuid
                and candidates.position >= coalesce((request ->> 'from')::integer, 0)
        ), '[]')
    )
$$;

comment on function ai_sessions.poll_generation(uuid, jsonb) is
    'The run, the ending and the lease of a generation, and its candidates from a position on; generation: null if it is not stored.';
