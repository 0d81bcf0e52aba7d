-- The idempotency records of a user state. A row for each, so that accepting a request writes one and not all of a day.

create table ai_sessions.idempotency_records (
    user_id uuid not null,
    session_id uuid not null,
    expires_at timestamptz not null,
    record text not null,

    constraint idempotency_records_pkey primary key (user_id, session_id),
    constraint idempotency_records_user_id_fkey
        foreign key (user_id) references ai_sessions.user_states (user_id) on delete cascade,
    constraint idempotency_records_expires_at_check
        check (expires_at >= '2020-01-01Z' and expires_at < '10000-01-01Z'),
    constraint idempotency_records_record_check
        check (octet_length(record) <= 2048 and starts_with(record, '{"version":'))
);

alter table ai_sessions.idempotency_records enable row level security;
revoke all on table ai_sessions.idempotency_records from public, anon, authenticated, service_role;
alter table ai_sessions.idempotency_records owner to ai_sessions_user_state;

comment on table ai_sessions.idempotency_records is
    'Idempotency keys in use.';
comment on column ai_sessions.idempotency_records.user_id is
    'The owner.';
comment on column ai_sessions.idempotency_records.session_id is
    'The session of the key.';
comment on column ai_sessions.idempotency_records.expires_at is
    'The moment from which on the record is not valid.';
comment on column ai_sessions.idempotency_records.record is
    'The record, as JSON of the service.';

comment on constraint idempotency_records_pkey on ai_sessions.idempotency_records is
    'At most one record of a session; its index serves every read.';
comment on constraint idempotency_records_user_id_fkey on ai_sessions.idempotency_records is
    'A record is part of a user state.';
comment on constraint idempotency_records_expires_at_check on ai_sessions.idempotency_records is
    'A finite time that RFC 3339 can represent.';
comment on constraint idempotency_records_record_check on ai_sessions.idempotency_records is
    'Records begin with the version of their format. 2 KiB is twice the longest: a key of 255 characters, each escaped.';
