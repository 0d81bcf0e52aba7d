-- A renewal does not bring a released lease back: one that is in flight during the release, or is sent again after it, would keep
-- other instances from the generation for another 15 s. A released lease ended at 1970-01-01. One that has expired, which its
-- runner may still renew, ended later. The runner stays, so that a runner before it sees that it lost its lease.

create or replace function ai_sessions.store_user_state(owner uuid, request jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
    -- More than a decision has.
    writes_max constant integer := 256;
    -- RATE_LIMIT_CONCURRENT is at most 100, and at most 20 are not yet persisted.
    generations_max constant integer := 120;
    -- 200 times the default quota of the day for which a record is kept.
    idempotency_records_max constant integer := 10000;
    lease_ms_max constant integer := 60000;
    based_on constant bigint := (request ->> 'version')::bigint;
    write jsonb;
    write_id uuid;
begin
    if based_on is null or based_on < 0 then
        raise sqlstate '22023' using message = 'version is missing';
    end if;
    if jsonb_typeof(request -> 'writes') is distinct from 'array' then
        raise sqlstate '22023' using message = 'writes must be an array';
    end if;
    if jsonb_array_length(request -> 'writes') > writes_max then
        raise sqlstate '54000' using message = format('at most %s writes are allowed', writes_max);
    end if;

    -- (1) Compare and set. A second store of the user waits here for the first, and then finds its version.
    if based_on = 0 then
        insert into ai_sessions.user_states (user_id, version, ledger, wake_at)
        values (owner, 1, request ->> 'ledger', to_timestamp((request ->> 'wake_at_ms')::bigint / 1000.0))
        on conflict do nothing;
    else
        update ai_sessions.user_states
        set
            version = user_states.version + 1,
            ledger = case when request ? 'ledger' then request ->> 'ledger' else user_states.ledger end,
            wake_at = case
                when request ? 'wake_at_ms' then to_timestamp((request ->> 'wake_at_ms')::bigint / 1000.0)
                else user_states.wake_at
            end
        where user_states.user_id = owner and user_states.version = based_on;
    end if;
    if not found then
        return ai_sessions.read_user_state(owner) || jsonb_build_object('conflict', true);
    end if;

    -- (2) The writes in their order.
    for write in select element.value from jsonb_array_elements(request -> 'writes') as element loop
        write_id := (write ->> 'id')::uuid;
        case write ->> 'write'
            when 'generation' then
                insert into ai_sessions.generations (user_id, id, started_at, record, ending)
                values (
                    owner, write_id, to_timestamp((write ->> 'started_ms')::bigint / 1000.0),
                    write ->> 'record', write ->> 'ending'
                )
                on conflict (user_id, id) do update
                set
                    -- A stop was requested for one run.
                    stop = generations.stop and generations.started_at = excluded.started_at,
                    started_at = excluded.started_at,
                    record = excluded.record,
                    ending = excluded.ending;
            when 'ending' then
                update ai_sessions.generations set ending = write ->> 'ending'
                where generations.user_id = owner and generations.id = write_id;
            when 'candidates' then
                insert into ai_sessions.candidates (user_id, generation_id, position, record)
                select owner, generations.id, (write ->> 'position')::integer, write ->> 'record'
                from ai_sessions.generations
                where generations.user_id = owner and generations.id = write_id;
            when 'lease' then
                if (write ->> 'lease_ms')::bigint not between 0 and lease_ms_max then
                    raise sqlstate '22023' using message = format('lease_ms must be 0 to %s', lease_ms_max);
                end if;
                update ai_sessions.generations
                set
                    runner = (write ->> 'runner')::uuid,
                    lease_until = case (write ->> 'lease_ms')::integer
                        when 0 then timestamptz 'epoch'
                        else clock_timestamp() + (write ->> 'lease_ms')::integer * interval '1 millisecond'
                    end
                where generations.user_id = owner and generations.id = write_id;
            when 'remove_generation' then
                delete from ai_sessions.generations
                where generations.user_id = owner and generations.id = write_id;
                continue;
            when 'idempotency_record' then
                insert into ai_sessions.idempotency_records (user_id, session_id, expires_at, record)
                values (owner, write_id, to_timestamp((write ->> 'expires_ms')::bigint / 1000.0), write ->> 'record')
                on conflict (user_id, session_id) do update
                set expires_at = excluded.expires_at, record = excluded.record;
            when 'remove_idempotency_records' then
                delete from ai_sessions.idempotency_records
                where idempotency_records.user_id = owner
                    and idempotency_records.expires_at <= to_timestamp((write ->> 'until_ms')::bigint / 1000.0);
                continue;
            when 'remove_all' then
                update ai_sessions.user_states
                set
                    ledger = case when request ? 'ledger' then user_states.ledger end,
                    wake_at = case when request ? 'wake_at_ms' then user_states.wake_at end
                where user_states.user_id = owner;
                delete from ai_sessions.generations where generations.user_id = owner;
                delete from ai_sessions.idempotency_records where idempotency_records.user_id = owner;
                continue;
            else
                raise sqlstate '22023' using message = 'the write is not known';
        end case;
        if not found then
            raise sqlstate '22023' using message = 'the generation of the write is not stored';
        end if;
    end loop;

    -- (3) The limits that no check of a row can have.
    if exists (
        select from ai_sessions.generations where generations.user_id = owner offset generations_max
    ) then
        raise sqlstate '54000' using message = format('at most %s generations are allowed', generations_max);
    end if;
    if exists (
        select from ai_sessions.idempotency_records
        where idempotency_records.user_id = owner offset idempotency_records_max
    ) then
        raise sqlstate '54000' using message = format('at most %s idempotency records are allowed', idempotency_records_max);
    end if;

    return jsonb_build_object(
        'version', based_on + 1,
        'clock_ms', ai_sessions.clock_ms(),
        'stops', coalesce((
            select jsonb_agg(generations.id order by generations.started_at, generations.id)
            from ai_sessions.generations where generations.user_id = owner and generations.stop
        ), '[]')
    );
end;
$$;

-- Renews from the time at which the request was signed and never shortens, so that a repetition changes nothing.
create or replace function ai_sessions.renew_leases(owner uuid, request jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
    lease_ms_max constant integer := 60000;
    renewed_until constant timestamptz :=
        to_timestamp(((request ->> 'at_ms')::bigint + (request ->> 'lease_ms')::integer) / 1000.0);
    stored_version bigint;
    renewed jsonb;
begin
    if ((request ->> 'lease_ms')::integer between 0 and lease_ms_max) is not true then
        raise sqlstate '22023' using message = format('lease_ms must be 0 to %s', lease_ms_max);
    end if;
    if jsonb_typeof(request -> 'ids') is distinct from 'array' then
        raise sqlstate '22023' using message = 'ids must be an array';
    end if;
    -- The lock of a store first: two requests that lock the same generations in another order would wait for each other.
    select user_states.version into stored_version
    from ai_sessions.user_states where user_states.user_id = owner
    for no key update;
    with renewed_rows as (
        update ai_sessions.generations
        set lease_until = greatest(generations.lease_until, renewed_until)
        where generations.user_id = owner
            and generations.runner = (request ->> 'runner')::uuid
            and generations.lease_until > timestamptz 'epoch'
            and generations.id = any (array(select id.value::uuid from jsonb_array_elements_text(request -> 'ids') as id))
        returning generations.id, generations.stop
    )
    select jsonb_agg(jsonb_build_object('id', renewed_rows.id, 'stop', renewed_rows.stop) order by renewed_rows.id)
    into renewed
    from renewed_rows;
    return jsonb_build_object(
        'clock_ms', ai_sessions.clock_ms(),
        'version', coalesce(stored_version, 0),
        'generations', coalesce(renewed, '[]')
    );
end;
$$;

comment on function ai_sessions.store_user_state(uuid, jsonb) is
    'Stores the writes of a decision, all of them or none, if the state still has the version on which the decision is based; '
    'else returns the state with conflict: true. ledger and wake_at_ms are left as they are where they are missing; '
    'remove_all removes all but those of the request. lease_ms: 0 releases a lease. '
    'Errors: 22023 for a write that is not known or that lacks its generation, 23503 if the user does not exist, 23514 and 54000 for a limit.';
comment on function ai_sessions.renew_leases(uuid, jsonb) is
    'Renews the leases that this runner has, and returns their generations; one that is missing was lost or released. The version stays.';
comment on column ai_sessions.generations.lease_until is
    'Until when the runner is taken to run; after that another instance may resume the generation. 1970-01-01 for a released lease.';
