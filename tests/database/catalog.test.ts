// The rules for all tables, policies, foreign keys and functions, read from the catalog, so that new ones are checked too.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { startWorld, type World } from '../support/world.ts';

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

  it('every public table has row level security', async () => {
    assert.deepEqual(
      await world.sql(
        `select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and not relrowsecurity`,
      ),
      [],
    );
  });

  it('public has no relation outside row level security', async () => {
    assert.deepEqual(
      await world.sql(
        `select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('v', 'm', 'f')`,
      ),
      [],
    );
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
       where key.contype = 'f' and key.connamespace = 'public'::regnamespace`,
    );
    assert.equal(keys.length, 4);
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

  it('every function is security invoker with a fixed search path', async () => {
    const functions = await world.sql<{ proname: string; prosecdef: boolean; proconfig: string[] | null }>(
      `select proname, prosecdef, proconfig from pg_proc where pronamespace = 'public'::regnamespace order by proname`,
    );
    assert.deepEqual(
      functions.map(({ proname }) => proname),
      [
        'check_ai_session_change',
        'check_candidate_removal',
        'finish_ai_session',
        'hold_ai_session',
        'is_retryable_ai_failure',
        'reopen_ai_session',
      ],
    );
    for (const { proname, prosecdef, proconfig } of functions) {
      assert.equal(prosecdef, false, proname);
      assert.deepEqual(proconfig, ['search_path=""'], proname);
    }
  });

  for (const role of ['anon', 'service_role', 'public']) {
    it(`${role} has no privilege on any object`, async () => {
      // acldefault: without grants or revokes, Postgres' default applies (functions: execute for public).
      const privileges = await world.sql(
        `with acl as (
           select relname as object, coalesce(relacl, acldefault(case relkind when 'S' then 's' else 'r' end::"char", relowner)) as acl
           from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v', 'm', 'S')
           union all
           select attrelid::regclass::text || '.' || attname, attacl
           from pg_attribute join pg_class on pg_class.oid = attrelid
           where relnamespace = 'public'::regnamespace and attacl is not null
           union all
           select proname, coalesce(proacl, acldefault('f', proowner))
           from pg_proc where pronamespace = 'public'::regnamespace
         )
         select object, privilege_type from acl, aclexplode(acl.acl)
         where grantee = coalesce((select oid from pg_roles where rolname = $1), 0)`,
        [role],
      );
      assert.deepEqual(privileges, []);
    });
  }

  it('authenticated has the listed table privileges only', async () => {
    const tables = await world.sql<{ privilege: string }>(
      `select table_name || ' ' || privilege_type as privilege from information_schema.role_table_grants
       where table_schema = 'public' and grantee = 'authenticated' order by 1`,
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
       where table_schema = 'public' and grantee = 'authenticated' and privilege_type <> 'SELECT'
       group by 1 order by 1`,
    );
    assert.deepEqual(columns, [
      { privilege: 'ai_generation_sessions INSERT', columns: 'created_at id input_text model run status user_id' },
      {
        privilege: 'ai_generation_sessions UPDATE',
        columns: 'completion_tokens cost ended_at error_code partial prompt_tokens run status',
      },
      { privilege: 'event_logs INSERT', columns: 'data run session_id type user_id' },
      { privilege: 'flashcard_candidates INSERT', columns: 'back front id position prompt session_id user_id' },
    ]);
  });

  it('authenticated may execute the listed functions only', async () => {
    const functions = await world.sql<{ proname: string }>(
      `select proname from pg_proc
       where pronamespace = 'public'::regnamespace and has_function_privilege('authenticated', oid, 'execute')
       order by proname`,
    );
    assert.deepEqual(
      functions.map(({ proname }) => proname),
      ['finish_ai_session', 'is_retryable_ai_failure', 'reopen_ai_session'],
    );
  });

  it('every table, column, constraint, function and trigger has a comment', async () => {
    const silent = await world.sql(
      `select relname as object from pg_class
         where relnamespace = 'public'::regnamespace and relkind = 'r' and obj_description(oid, 'pg_class') is null
       union all
       select attrelid::regclass::text || '.' || attname from pg_attribute join pg_class on pg_class.oid = attrelid
         where relnamespace = 'public'::regnamespace and relkind = 'r' and attnum > 0 and not attisdropped
           and col_description(attrelid, attnum) is null
       union all
       select conname from pg_constraint
         where connamespace = 'public'::regnamespace and contype <> 'n' and obj_description(oid, 'pg_constraint') is null
       union all
       select proname from pg_proc
         where pronamespace = 'public'::regnamespace and obj_description(oid, 'pg_proc') is null
       union all
       select tgname from pg_trigger join pg_class on pg_class.oid = tgrelid
         where relnamespace = 'public'::regnamespace and not tgisinternal and obj_description(pg_trigger.oid, 'pg_trigger') is null`,
    );
    assert.deepEqual(silent, []);
  });

  it('every check is validated', async () => {
    const unvalidated = await world.sql(
      `select conname from pg_constraint where connamespace = 'public'::regnamespace and not convalidated`,
    );
    assert.deepEqual(unvalidated, []);
  });
});
