// The rules for all tables, policies, foreign keys and functions, read from the catalog, so that new ones are checked too.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { startWorld, type World } from '../support/world.ts';

/** The schemas of this project; PostgREST exposes `public` alone. */
const SCHEMAS = `array['public'::regnamespace, 'ai_sessions'::regnamespace]`;

describe('the catalog', () => {
  let world: World;
  before(async () => {
    world = await startWorld({ model: false });
  });
  after(() => world.close());

  it('the public tables are the listed ones', async () => {
    const tables = await world.sql(`select tablename from pg_tables where schemaname = 'public' order by 1`);
    assert.deepEqual(
      tables.map((table) => table['tablename']),
      ['ai_generation_sessions', 'event_logs', 'flashcard_candidates'],
    );
  });

  it('the tables of the user state are the known ones', async () => {
    const tables = await world.sql(`select tablename, tableowner from pg_tables where schemaname = 'ai_sessions' order by 1`);
    assert.deepEqual(
      tables.map(({ tablename, tableowner }) => `${tablename} of ${tableowner}`),
      ['candidates', 'generations', 'idempotency_records', 'service_keys', 'user_states'].map((table) => `${table} of ai_sessions_user_state`),
    );
  });

  it('every table has row level security', async () => {
    assert.deepEqual(
      await world.sql(`select relname from pg_class where relnamespace = any (${SCHEMAS}) and relkind in ('r', 'p') and not relrowsecurity`),
      [],
    );
  });

  it('no relation is outside row level security', async () => {
    assert.deepEqual(
      await world.sql(`select relname from pg_class where relnamespace = any (${SCHEMAS}) and relkind in ('v', 'm', 'f')`),
      [],
    );
  });

  it('the user state has no policy, so that no API role has a row', async () => {
    assert.deepEqual(await world.sql(`select policyname from pg_policies where schemaname = 'ai_sessions'`), []);
  });

  it('every policy is for authenticated and uses (select auth.uid())', async () => {
    const policies = await world.sql<{
      tablename: string;
      policyname: string;
      roles: string;
      cmd: string;
      expressions: string;
    }>(
      `select tablename, policyname, roles::text, cmd, concat_ws(' ', qual, with_check) as expressions
       from pg_policies where schemaname = 'public' order by tablename, cmd`,
    );
    assert.deepEqual(
      policies.map(({ tablename, cmd }) => `${tablename} ${cmd}`),
      [
        'ai_generation_sessions INSERT',
        'ai_generation_sessions SELECT',
        'ai_generation_sessions UPDATE',
        'ai_generation_sessions UPDATE',
        'event_logs INSERT',
        'event_logs SELECT',
        'flashcard_candidates DELETE',
        'flashcard_candidates INSERT',
        'flashcard_candidates SELECT',
      ],
    );
    for (const { policyname, roles, expressions } of policies) {
      assert.equal(roles, '{authenticated}', policyname);
      assert.match(expressions, /\( SELECT auth\.uid\(\)/, policyname);
      // A call outside a sub-select is evaluated per row.
      assert.doesNotMatch(expressions.replaceAll('( SELECT auth.uid()', ''), /auth\.uid\(\)/, policyname);
      assert.match(policyname, /^[A-Z][a-z]+ .+ .+/, 'a policy is named by a sentence');
    }
  });

  it('every foreign key has an index with its columns first', async () => {
    const keys = await world.sql<{ conname: string; indexed: boolean }>(
      `select key.conname, exists (
         select from pg_index as index
         where index.indrelid = key.conrelid and index.indpred is null
           and (index.indkey::int2[])[0:cardinality(key.conkey) - 1] @> key.conkey
       ) as indexed
       from pg_constraint as key
       where key.contype = 'f' and key.connamespace = any (${SCHEMAS})`,
    );
    assert.equal(keys.length, 8);
    for (const key of keys) assert.ok(key.indexed, key.conname);
  });

  it('every column that a policy compares with the user leads an index', async () => {
    const unindexed = await world.sql(
      `select policy.tablename from pg_policies as policy
       where policy.schemaname = 'public' and not exists (
         select from pg_index as index
         join pg_attribute as attribute on attribute.attrelid = index.indrelid and attribute.attnum = index.indkey[0]
         where index.indrelid = format('public.%I', policy.tablename)::regclass and attribute.attname = 'user_id'
       )`,
    );
    assert.deepEqual(unindexed, []);
  });

  it('one foreign key lets PostgREST embed candidates in sessions', async () => {
    const keys = await world.sql(
      `select conname from pg_constraint where contype = 'f'
       and conrelid = 'public.flashcard_candidates'::regclass`,
    );
    assert.equal(keys.length, 1);
  });

  it('every function but one is security invoker; all have a fixed search path', async () => {
    const functions = await world.sql<{ name: string; owner: string; prosecdef: boolean; proconfig: string[] | null }>(
      `select pronamespace::regnamespace || '.' || proname as name, proowner::regrole::text as owner, prosecdef, proconfig
       from pg_proc where pronamespace = any (${SCHEMAS}) order by 1`,
    );
    assert.deepEqual(
      functions.map(({ name }) => name),
      [
        'ai_sessions.clock_ms',
        'ai_sessions.hmac_sha256',
        'ai_sessions.poll_generation',
        'ai_sessions.read_user_state',
        'ai_sessions.renew_leases',
        'ai_sessions.set_service_key',
        'ai_sessions.stop_generation',
        'ai_sessions.store_user_state',
        'ai_sessions.verify_request',
        'public.check_ai_session_change',
        'public.check_candidate_removal',
        'public.finish_ai_session',
        'public.hold_ai_session',
        'public.is_retryable_ai_failure',
        'public.reopen_ai_session',
        'public.transact_ai_user_state',
      ],
    );
    for (const { name, owner, prosecdef, proconfig } of functions) {
      assert.equal(prosecdef, name === 'public.transact_ai_user_state', name);
      assert.equal(owner, /ai_sessions\.|user_state/.test(name) ? 'ai_sessions_user_state' : 'postgres', name);
      assert.deepEqual(proconfig, ['search_path=""'], name);
    }
  });

  it('the reason for the security definer function is documented', async () => {
    const [row] = await world.sql<{ comment: string }>(
      `select obj_description('public.transact_ai_user_state(text, text)'::regprocedure, 'pg_proc') as comment`,
    );
    assert.match(row?.comment ?? '', /security definer, because/);
    const readme = await readFile(new URL('../../migrations/README.md', import.meta.url), 'utf8');
    assert.match(readme, /`transact_ai_user_state` is the only `security definer` function\./);
  });

  it('no API role has a privilege on the schema of the user state', async () => {
    const roles = await world.sql(
      `select role, privilege from unnest('{anon,authenticated,service_role,authenticator,public}'::text[]) as role,
         unnest('{usage,create}'::text[]) as privilege where has_schema_privilege(role, 'ai_sessions', privilege)`,
    );
    assert.deepEqual(roles, []);
  });

  for (const [role, allowed] of [
    ['anon', ['transact_ai_user_state EXECUTE']],
    ['service_role', []],
    ['public', []],
  ] as const) {
    it(`${role} has no privilege on any object but ${allowed.length} function`, async () => {
      // acldefault: without grants or revokes, Postgres' default applies (functions: execute for public).
      const privileges = await world.sql<{ privilege: string }>(
        `with acl as (
           select relname as object, coalesce(relacl, acldefault(case relkind when 'S' then 's' else 'r' end::"char", relowner)) as acl
           from pg_class where relnamespace = any (${SCHEMAS}) and relkind in ('r', 'p', 'v', 'm', 'S')
           union all
           select attrelid::regclass::text || '.' || attname, attacl
           from pg_attribute join pg_class on pg_class.oid = attrelid
           where relnamespace = any (${SCHEMAS}) and attacl is not null
           union all
           select proname, coalesce(proacl, acldefault('f', proowner))
           from pg_proc where pronamespace = any (${SCHEMAS})
         )
         select object || ' ' || privilege_type as privilege from acl, aclexplode(acl.acl)
         where grantee = coalesce((select oid from pg_roles where rolname = $1), 0)`,
        [role],
      );
      assert.deepEqual(privileges.map(({ privilege }) => privilege), allowed);
    });
  }

  it('authenticated has the listed table privileges only', async () => {
    const tables = await world.sql<{ privilege: string }>(
      `select table_name || ' ' || privilege_type as privilege from information_schema.role_table_grants
       where table_schema in ('public', 'ai_sessions') and grantee = 'authenticated' order by 1`,
    );
    assert.deepEqual(tables.map(({ privilege }) => privilege), [
      'ai_generation_sessions SELECT',
      'event_logs SELECT',
      'flashcard_candidates DELETE',
      'flashcard_candidates SELECT',
    ]);
    const columns = await world.sql<{ privilege: string; columns: string }>(
      `select table_name || ' ' || privilege_type as privilege,
              string_agg(column_name::text, ' ' order by column_name::text) as columns
       from information_schema.role_column_grants
       where table_schema in ('public', 'ai_sessions') and grantee = 'authenticated' and privilege_type <> 'SELECT'
       group by 1 order by 1`,
    );
    assert.deepEqual(columns, [
      { privilege: 'ai_generation_sessions INSERT', columns: 'created_at id input_text model run status user_id' },
      {
        privilege: 'ai_generation_sessions UPDATE',
        columns: 'completion_tokens cost coverage_percent ended_at error_code partial prompt_tokens run status',
      },
      { privilege: 'event_logs INSERT', columns: 'data run session_id type user_id' },
      { privilege: 'flashcard_candidates INSERT', columns: 'back front id notes position prompt session_id source_end source_start supported user_id' },
    ]);
  });

  it('authenticated may execute the listed functions only', async () => {
    const functions = await world.sql<{ proname: string }>(
      `select proname from pg_proc
       where pronamespace = any (${SCHEMAS}) and has_function_privilege('authenticated', oid, 'execute')
       order by proname`,
    );
    assert.deepEqual(
      functions.map(({ proname }) => proname),
      ['finish_ai_session', 'is_retryable_ai_failure', 'reopen_ai_session', 'transact_ai_user_state'],
    );
  });

  it('every table, column, constraint, function and trigger has a comment', async () => {
    const silent = await world.sql(
      `select relname as object from pg_class
         where relnamespace = any (${SCHEMAS}) and relkind = 'r' and obj_description(oid, 'pg_class') is null
       union all
       select attrelid::regclass::text || '.' || attname from pg_attribute join pg_class on pg_class.oid = attrelid
         where relnamespace = any (${SCHEMAS}) and relkind = 'r' and attnum > 0 and not attisdropped
           and col_description(attrelid, attnum) is null
       union all
       select conname from pg_constraint
         where connamespace = any (${SCHEMAS}) and contype <> 'n' and obj_description(oid, 'pg_constraint') is null
       union all
       select proname from pg_proc
         where pronamespace = any (${SCHEMAS}) and obj_description(oid, 'pg_proc') is null
       union all
       select tgname from pg_trigger join pg_class on pg_class.oid = tgrelid
         where relnamespace = any (${SCHEMAS}) and not tgisinternal and obj_description(pg_trigger.oid, 'pg_trigger') is null
       union all
       select nspname from pg_namespace where nspname = 'ai_sessions' and obj_description(oid, 'pg_namespace') is null
       union all
       select rolname from pg_roles where rolname = 'ai_sessions_user_state' and shobj_description(oid, 'pg_authid') is null`,
    );
    assert.deepEqual(silent, []);
  });

  it('every check is validated', async () => {
    const unvalidated = await world.sql(
      `select conname from pg_constraint where connamespace = any (${SCHEMAS}) and not convalidated`,
    );
    assert.deepEqual(unvalidated, []);
  });
});
