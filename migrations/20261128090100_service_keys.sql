-- The keys with which the service signs its requests to the user state (HMAC-SHA-256, RFC 2104). There are at most two, so that
-- a key is rotated without an interruption. Without a key every request is refused.
--
-- A key is stored as its two padded halves, from which core functions compute an HMAC: no extension is required. The halves are
-- as secret as the key.
-- Upkeep: ai_sessions.set_service_key is the only writer; migrations/README.md has the statements.

create table ai_sessions.service_keys (
    name text not null,
    inner_pad bytea not null,
    outer_pad bytea not null,
    set_at timestamptz not null default clock_timestamp(),

    constraint service_keys_pkey primary key (name),
    constraint service_keys_name_check check (name in ('current', 'previous')),
    constraint service_keys_inner_pad_check check (octet_length(inner_pad) = 64),
    constraint service_keys_outer_pad_check check (octet_length(outer_pad) = 64)
);

alter table ai_sessions.service_keys enable row level security;
revoke all on table ai_sessions.service_keys from public, anon, authenticated, service_role;
alter table ai_sessions.service_keys owner to ai_sessions_user_state;

comment on table ai_sessions.service_keys is
    'The keys with which the service signs its requests: the current one, and the one before until it is removed.';
comment on column ai_sessions.service_keys.name is
    'current or previous; both are valid.';
comment on column ai_sessions.service_keys.inner_pad is
    'The key, padded to a block of SHA-256, each byte xor 0x36.';
comment on column ai_sessions.service_keys.outer_pad is
    'The key, padded to a block of SHA-256, each byte xor 0x5c.';
comment on column ai_sessions.service_keys.set_at is
    'When the key was set.';

comment on constraint service_keys_pkey on ai_sessions.service_keys is
    'One key of each name.';
comment on constraint service_keys_name_check on ai_sessions.service_keys is
    'At most two keys: more than a rotation needs would only be more to lose.';
comment on constraint service_keys_inner_pad_check on ai_sessions.service_keys is
    'The block of SHA-256.';
comment on constraint service_keys_outer_pad_check on ai_sessions.service_keys is
    'The block of SHA-256.';

create function ai_sessions.hmac_sha256(inner_pad bytea, outer_pad bytea, message bytea)
returns bytea
language sql
immutable
security invoker
set search_path = ''
as $$
    select sha256(hmac_sha256.outer_pad || sha256(hmac_sha256.inner_pad || hmac_sha256.message))
$$;

create function ai_sessions.set_service_key(secret text)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
    key bytea := convert_to(secret, 'UTF8');
    new_inner bytea;
    new_outer bytea;
begin
    if (secret ~ '^[!-~]+$' and octet_length(secret) between 32 and 512) is not true then
        raise sqlstate '22023' using message = 'the key must have 32 to 512 visible ASCII characters; `openssl rand -hex 32` makes one';
    end if;

    -- RFC 2104, section 2: a key longer than a block is hashed first, and padded with zeros.
    if octet_length(key) > 64 then
        key := sha256(key);
    end if;
    key := key || decode(repeat('00', 64 - octet_length(key)), 'hex');
    select
        decode(string_agg(lpad(to_hex(get_byte(key, index) # 54), 2, '0'), '' order by index), 'hex'),
        decode(string_agg(lpad(to_hex(get_byte(key, index) # 92), 2, '0'), '' order by index), 'hex')
    into new_inner, new_outer
    from generate_series(0, 63) as index;

    lock table ai_sessions.service_keys in share row exclusive mode;
    -- A repeated statement does not remove the previous key.
    if exists (
        select from ai_sessions.service_keys
        where service_keys.name = 'current' and service_keys.inner_pad = new_inner
    ) then
        return;
    end if;
    delete from ai_sessions.service_keys where service_keys.name = 'previous';
    update ai_sessions.service_keys set name = 'previous' where service_keys.name = 'current';
    insert into ai_sessions.service_keys (name, inner_pad, outer_pad) values ('current', new_inner, new_outer);
end;
$$;

revoke all on function ai_sessions.hmac_sha256(bytea, bytea, bytea) from public, anon, authenticated, service_role;
revoke all on function ai_sessions.set_service_key(text) from public, anon, authenticated, service_role;
alter function ai_sessions.hmac_sha256(bytea, bytea, bytea) owner to ai_sessions_user_state;
alter function ai_sessions.set_service_key(text) owner to ai_sessions_user_state;

comment on function ai_sessions.hmac_sha256(bytea, bytea, bytea) is
    'HMAC-SHA-256 of a message under a key that is given as its two padded halves.';
comment on function ai_sessions.set_service_key(text) is
    'Sets the current key of the service. The current one becomes the previous one, which stays valid until it is deleted or the next key is set. '
    'The same key again changes nothing. Error: 22023 for a key that is too short.';
