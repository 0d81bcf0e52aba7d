-- The one way to the user state: public.transact_ai_user_state(request, proof), called by RPC.
--
--   request  the text of a JSON object, exactly as it was signed:
--            {"format": 1, "at_ms": …, "purpose": …, "as": "owner", "user": …, …}
--   proof    HMAC-SHA-256 of 'ai-sessions/user-state', a zero byte and the request, in 64 lower-case hexadecimal digits
--
--   purpose  further members                          result, beside version and clock_ms
--   check    as "service", no user                    (no version)
--   read                                              the whole state
--   store    version, ledger, wake_at_ms, writes      stops; or conflict with the whole state
--   poll     id, from                                 one generation without its record, its candidates from a position on
--   renew    runner, ids, lease_ms                    the generations that this runner has
--   stop     id, started_ms                           found
--
-- The function is `security definer`, because a user must not be able to write the own quota ledger: the caller has no privilege
-- in the schema ai_sessions, and what a caller may do depends on the proof, which no policy can check. It runs with the rights of
-- ai_sessions_user_state, not of postgres. A request as "owner" also needs the owner's token; one as "service" (the token has
-- expired, or the owner is not there) is sent without a token.
--
-- A request within its time can be sent again: a repeated store is refused because its version has passed, a lease and a
-- stop are set to the same value, and a read changes nothing.
-- Upkeep: src/user_state/stored.rs has the records. A new member or purpose is compatible; anything else needs another format.

-- Checks the caller and returns the request. `clock` is an argument so that its bounds can be tested.
create function ai_sessions.verify_request(request text, proof text, caller uuid, clock timestamptz)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
    -- 4 MiB: the longest batch of candidates and the longest record of a generation.
    bytes_max constant integer := 4194304;
    window_ms constant integer := 60000;
    is_signed boolean;
    verified jsonb;
    owner uuid;
    is_for_caller boolean;
begin
    -- (1) Signed by the service, before anything in it is read.
    if not exists (select from ai_sessions.service_keys) then
        raise sqlstate 'PT503' using message = 'no service key is set';
    end if;
    if octet_length(request) > bytes_max then
        raise sqlstate '54000' using message = format('request has %s bytes, at most %s are allowed', octet_length(request), bytes_max);
    end if;
    if (proof ~ '^[0-9a-f]{64}$') is true then
        -- Compares hashes under the key, so that the time of the comparison says nothing about the expected proof.
        select bool_or(
            sha256(service_keys.outer_pad || decode(proof, 'hex'))
            = sha256(service_keys.outer_pad || ai_sessions.hmac_sha256(
                service_keys.inner_pad,
                service_keys.outer_pad,
                convert_to('ai-sessions/user-state', 'UTF8') || '\x00'::bytea || convert_to(request, 'UTF8')
            ))
        )
        into is_signed
        from ai_sessions.service_keys;
    end if;
    if is_signed is not true then
        raise sqlstate '42501' using message = 'the proof is not valid';
    end if;

    verified := request::jsonb;
    if (verified ->> 'format') is distinct from '1' then
        raise sqlstate '22023' using message = 'the format of the request is not known';
    end if;

    -- (2) Signed now: 60 s are more than a call lasts and a clock is wrong. A missing time fails as well.
    if (abs(extract(epoch from clock) * 1000 - (verified ->> 'at_ms')::bigint) <= window_ms) is not true then
        raise sqlstate 'PT412' using
            message = 'the proof has expired, or is from the future',
            detail = (floor(extract(epoch from clock) * 1000)::bigint)::text;
    end if;

    -- (3) For this caller.
    owner := (verified ->> 'user')::uuid;
    if (owner is null) <> ((verified ->> 'purpose') is not distinct from 'check') then
        raise sqlstate '22023' using message = 'the user is missing';
    end if;
    is_for_caller := case verified ->> 'as'
        when 'owner' then caller = owner
        when 'service' then caller is null
    end;
    if is_for_caller is not true then
        raise sqlstate '42501' using message = 'the proof is of another caller';
    end if;
    return verified;
end;
$$;

create function ai_sessions.clock_ms()
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
    select floor(extract(epoch from clock_timestamp()) * 1000)::bigint
$$;

-- One statement, so that all parts are of one version.
create function ai_sessions.read_user_state(owner uuid)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
    select jsonb_build_object(
        'clock_ms', ai_sessions.clock_ms(),
        'version', coalesce(user_states.version, 0),
        'ledger', user_states.ledger,
        'wake_at_ms', floor(extract(epoch from user_states.wake_at) * 1000)::bigint,
        'generations', coalesce((
            select jsonb_agg(
                jsonb_build_object(
                    'id', generations.id,
                    'record', generations.record,
                    'ending', generations.ending,
                    'runner', generations.runner,
                    'is_leased', coalesce(generations.lease_until > clock_timestamp(), false),
                    'stop', generations.stop
                )
                order by generations.started_at, generations.id
            )
            from ai_sessions.generations where generations.user_id = owner
        ), '[]'),
        'candidates', coalesce((
            select jsonb_agg(
                jsonb_build_object('id', candidates.generation_id, 'position', candidates.position, 'record', candidates.record)
                order by candidates.generation_id, candidates.position
            )
            from ai_sessions.candidates where candidates.user_id = owner
        ), '[]'),
        'idempotency_records', coalesce((
            select jsonb_agg(idempotency_records.record order by idempotency_records.expires_at, idempotency_records.session_id)
            from ai_sessions.idempotency_records where idempotency_records.user_id = owner
        ), '[]')
    )
    from (values (owner)) as owners (user_id)
    left join ai_sessions.user_states on user_states.user_id = owners.user_id
$$;

create function ai_sessions.store_user_state(owner uuid, request jsonb)
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
                    lease_until = clock_timestamp() + (write ->> 'lease_ms')::integer * interval '1 millisecond'
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
                update ai_sessions.user_states set ledger = null, wake_at = null where user_states.user_id = owner;
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

create function ai_sessions.poll_generation(owner uuid, request jsonb)
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

-- Renews from the time at which the request was signed and never shortens, so that a repetition changes nothing.
create function ai_sessions.renew_leases(owner uuid, request jsonb)
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

-- For one run, which its start identifies: a repetition does not stop a later run of the session.
create function ai_sessions.stop_generation(owner uuid, request jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
    update ai_sessions.generations set stop = true
    where generations.user_id = owner
        and generations.id = (request ->> 'id')::uuid
        and generations.started_at = to_timestamp((request ->> 'started_ms')::bigint / 1000.0)
        and generations.ending is null;
    return jsonb_build_object(
        'found', found,
        'clock_ms', ai_sessions.clock_ms(),
        'version', coalesce((
            select user_states.version from ai_sessions.user_states where user_states.user_id = owner
        ), 0)
    );
end;
$$;

create function public.transact_ai_user_state(request text, proof text)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
    -- The subject of the token, as in auth.uid(), for which the function's role would need a privilege in another schema.
    caller constant uuid := (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid;
    verified constant jsonb := ai_sessions.verify_request(request, proof, caller, clock_timestamp());
    owner constant uuid := (verified ->> 'user')::uuid;
begin
    case verified ->> 'purpose'
        when 'check' then return jsonb_build_object('clock_ms', ai_sessions.clock_ms());
        when 'read' then return ai_sessions.read_user_state(owner);
        when 'store' then return ai_sessions.store_user_state(owner, verified);
        when 'poll' then return ai_sessions.poll_generation(owner, verified);
        when 'renew' then return ai_sessions.renew_leases(owner, verified);
        when 'stop' then return ai_sessions.stop_generation(owner, verified);
        else raise sqlstate '22023' using message = 'the purpose is not known';
    end case;
end;
$$;

revoke all on function ai_sessions.verify_request(text, text, uuid, timestamptz) from public, anon, authenticated, service_role;
revoke all on function ai_sessions.clock_ms() from public, anon, authenticated, service_role;
revoke all on function ai_sessions.read_user_state(uuid) from public, anon, authenticated, service_role;
revoke all on function ai_sessions.store_user_state(uuid, jsonb) from public, anon, authenticated, service_role;
revoke all on function ai_sessions.poll_generation(uuid, jsonb) from public, anon, authenticated, service_role;
revoke all on function ai_sessions.renew_leases(uuid, jsonb) from public, anon, authenticated, service_role;
revoke all on function ai_sessions.stop_generation(uuid, jsonb) from public, anon, authenticated, service_role;
revoke all on function public.transact_ai_user_state(text, text) from public, anon, authenticated, service_role;
grant execute on function public.transact_ai_user_state(text, text) to anon, authenticated;

alter function ai_sessions.verify_request(text, text, uuid, timestamptz) owner to ai_sessions_user_state;
alter function ai_sessions.clock_ms() owner to ai_sessions_user_state;
alter function ai_sessions.read_user_state(uuid) owner to ai_sessions_user_state;
alter function ai_sessions.store_user_state(uuid, jsonb) owner to ai_sessions_user_state;
alter function ai_sessions.poll_generation(uuid, jsonb) owner to ai_sessions_user_state;
alter function ai_sessions.renew_leases(uuid, jsonb) owner to ai_sessions_user_state;
alter function ai_sessions.stop_generation(uuid, jsonb) owner to ai_sessions_user_state;

-- An owner needs the privilege to create objects in the schema at this moment, and not after it.
grant create on schema public to ai_sessions_user_state;
alter function public.transact_ai_user_state(text, text) owner to ai_sessions_user_state;
revoke create on schema public from ai_sessions_user_state;

comment on function ai_sessions.verify_request(text, text, uuid, timestamptz) is
    'Returns the request as JSON if the service signed it for this caller at most 60 s from the clock. '
    'Errors: PT503 without a key, 42501 for a proof that is not valid or of another caller, PT412 for one that has expired or is from the future '
    '(detail: the clock in ms), 54000 above 4 MiB, 22023 and 22P02 for a signed request that is not of this format.';
comment on function ai_sessions.clock_ms() is
    'The database''s clock, in milliseconds since the Unix epoch: the time of all decisions.';
comment on function ai_sessions.read_user_state(uuid) is
    'The whole state of a user, of one version; version 0 if none is stored.';
comment on function ai_sessions.store_user_state(uuid, jsonb) is
    'Stores the writes of a decision, all of them or none, if the state still has the version on which the decision is based; '
    'else returns the state with conflict: true. ledger and wake_at_ms are left as they are where they are missing. '
    'Errors: 22023 for a write that is not known or that lacks its generation, 23503 if the user does not exist, 23514 and 54000 for a limit.';
comment on function ai_sessions.poll_generation(uuid, jsonb) is
    'How a generation stands, and its candidates from a position on; generation: null if it is not stored.';
comment on function ai_sessions.renew_leases(uuid, jsonb) is
    'Renews the leases that this runner has, and returns their generations; one that is missing was lost. The version stays.';
comment on function ai_sessions.stop_generation(uuid, jsonb) is
    'Requests that a run in progress stops; the runner receives it with its next store or renewal. The version stays.';
comment on function public.transact_ai_user_state(text, text) is
    'Reads or changes the user state of AI sessions on behalf of the service, which proves itself by an HMAC of the request. '
    'security definer, because users must not be able to change their own usage: they have no privilege on the tables, and no policy can check the proof. '
    'Its owner has no privilege outside the schema ai_sessions.';
