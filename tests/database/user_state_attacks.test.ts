// Attacks on the user state in Postgres by its owner, a stranger, a client without a token and one with the key of the service
// role: each is refused and changes nothing.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import pg from 'pg';
import { startWorld, type Rest, type World } from '../support/world.ts';
import { type Actor, type Actors, createActors, expectForbidden, expectStatus } from './actors.ts';
import {
  allRows,
  candidates,
  expectCode,
  generation,
  idempotencyRecord,
  KEY,
  lease,
  type Members,
  OTHER_RUNNER,
  proofOf,
  read,
  record,
  RUNNER,
  send,
  setKey,
  type Signed,
  signed,
  store,
  T,
  TABLES,
  TRANSACT,
  transact,
} from './user_state.ts';

const WINDOW_MS = 60_000;
const NEW_KEY = 'another-key-of-the-service-in-these-tests-9876543210';
const README = new URL('../../migrations/README.md', import.meta.url);

describe('attacks on the user state in Postgres', () => {
  let world: World;
  let actors: Actors;
  let serviceRole: Rest;
  before(async () => {
    world = await startWorld({ model: false });
    await setKey(world);
    actors = await createActors(world);
    serviceRole = world.rest(world.serviceKey);
  });
  after(() => world.close());

  const id = crypto.randomUUID();
  before(async () => {
    const writes = [generation(id), lease(id), candidates(id, 0), idempotencyRecord(id, T)];
    await store(actors.owner, 0, writes, { ledger: record({ used: 10 }), wake_at_ms: T });
  });

  /** Runs attacks, and expects that no row was written. */
  async function changesNothing(attack: () => Promise<void>): Promise<void> {
    const before = await allRows(world);
    await attack();
    assert.deepEqual(await allRows(world), before);
  }

  const versionOf = async (actor: Actor) => Number((await read(actor))['version']);
  /** A store that would lower the recorded usage. */
  const lowering = async (): Promise<Members> => ({
    purpose: 'store',
    version: await versionOf(actors.owner),
    writes: [{ write: 'remove_all' }],
    ledger: record({ used: 0 }),
  });
  const everyPurpose = async (): Promise<Members[]> => [
    await lowering(),
    { purpose: 'read' },
    { purpose: 'poll', id },
    { purpose: 'renew', runner: RUNNER, ids: [id], lease_ms: 60_000 },
    { purpose: 'stop', id, started_ms: T },
  ];

  describe('with a proof that is not valid', () => {
    const forgeries: [what: string, forge: (sent: Signed) => object][] = [
      ['no proof', ({ request }) => ({ request, proof: null })],
      ['an empty proof', ({ request }) => ({ request, proof: '' })],
      ['no request', ({ proof }) => ({ request: null, proof })],
      ['a proof under a key of the own', ({ request }) => ({ request, proof: proofOf(request, 'a-key-of-the-attacker-with-enough-characters') })],
      ['a proof under the public API key', ({ request }) => ({ request, proof: proofOf(request, world.anonKey) })],
      ['a proof under an empty key', ({ request }) => ({ request, proof: proofOf(request, '') })],
      ['a plain hash under the key', ({ request }) => ({ request, proof: createHmac('sha256', KEY).update(request).digest('hex') })],
      ['a hash of another purpose of the key', ({ request }) => ({ request, proof: proofOf(request, KEY, 'ai-sessions/session-id\0') })],
      ['a proof of another request', ({ request }) => ({ request, proof: proofOf(`${request} `) })],
      ['a request with a space more', ({ request, proof }) => ({ request: `${request} `, proof })],
      ['a request of another user', ({ request, proof }) => ({ request: request.replace(actors.stranger.id, actors.owner.id), proof })],
      ['a proof in upper case', ({ request, proof }) => ({ request, proof: proof.toUpperCase() })],
      ['a shorter proof', ({ request, proof }) => ({ request, proof: proof.slice(0, 62) })],
      ['a longer proof', ({ request, proof }) => ({ request, proof: `${proof}00` })],
      ['a proof with a line break', ({ request, proof }) => ({ request, proof: `${proof}\n` })],
      ['a proof that is no hexadecimal number', ({ request }) => ({ request, proof: 'g'.repeat(64) })],
      ['a request that is no JSON', () => ({ request: '{', proof: '0'.repeat(64) })],
    ];
    for (const [what, forge] of forgeries) {
      it(`${what} is refused`, () =>
        changesNothing(async () => {
          for (const members of await everyPurpose()) {
            const sent = signed(actors.owner.id, members);
            const forged = forge(what.includes('another user') ? signed(actors.stranger.id, members) : sent);
            for (const rest of [actors.owner.rest, actors.stranger.rest, actors.anonymous, serviceRole]) {
              expectForbidden(await send(rest, forged));
            }
          }
        }));
    }

    it('arguments of other names and types reach no function', () =>
      changesNothing(async () => {
        const { request, proof } = signed(actors.owner.id, await lowering());
        for (const body of [{}, { request }, { proof }, { request, proof, user: actors.owner.id }, { ask: request, proof }]) {
          expectCode(await send(actors.owner.rest, body), 'PGRST202', 404);
        }
        expectForbidden(await send(actors.owner.rest, { request: JSON.parse(request), proof: '0'.repeat(64) }));
        const query = new URLSearchParams({ request, proof });
        assert.ok((await actors.owner.rest('GET', `${TRANSACT}?${query}`)).status >= 400);
      }));
  });

  describe('with a valid proof', () => {
    it('a request of another user is refused', () =>
      changesNothing(async () => {
        for (const members of await everyPurpose()) {
          const sent = signed(actors.owner.id, members);
          for (const rest of [actors.stranger.rest, actors.anonymous, serviceRole]) expectForbidden(await send(rest, sent));
        }
      }));

    it('a request of the service alone is refused with a token', () =>
      changesNothing(async () => {
        for (const members of await everyPurpose()) {
          const sent = signed(actors.owner.id, { ...members, as: 'service' });
          for (const rest of [actors.owner.rest, actors.stranger.rest, serviceRole]) expectForbidden(await send(rest, sent));
        }
      }));

    it('a request of the service alone is accepted without a token', async () => {
      const { stranger } = await createActors(world);
      const alone = async (members: Members) => {
        const answer = await send(actors.anonymous, signed(stranger.id, { ...members, as: 'service' }));
        expectStatus(answer, 200);
        return answer.body as Members;
      };
      await alone({ purpose: 'store', version: 0, writes: [], ledger: record() });
      assert.deepEqual([(await alone({ purpose: 'read' }))['ledger'], (await read(stranger))['ledger']], [record(), record()]);
    });

    it('a request that lacks a member is refused', () =>
      changesNothing(async () => {
        const incomplete: [members: Members, code: string][] = [
          [{ as: undefined }, '42501'],
          [{ as: null }, '42501'],
          [{ as: 'authenticated' }, '42501'],
          [{ user: undefined }, '22023'],
          [{ user: null }, '22023'],
          [{ user: 'no uuid' }, '22P02'],
          [{ at_ms: undefined }, 'PT412'],
          [{ at_ms: null }, 'PT412'],
          [{ at_ms: 'NaN' }, '22P02'],
          [{ at_ms: 'infinity' }, '22P02'],
          [{ at_ms: '9223372036854775807' }, 'PT412'],
          [{ at_ms: '-9223372036854775808' }, 'PT412'],
          [{ at_ms: '9223372036854775808' }, '22003'],
          [{ at_ms: 1e300 }, '22003'],
          [{ at_ms: Date.now() + 0.5 }, '22P02'],
          [{ format: undefined }, '22023'],
          [{ format: 2 }, '22023'],
          [{ purpose: undefined }, '22023'],
          [{ purpose: 'delete' }, '22023'],
          [{ purpose: 'check' }, '22023'],
        ];
        for (const [members, code] of incomplete) {
          expectCode(await send(actors.owner.rest, signed(actors.owner.id, { purpose: 'read', ...members })), code);
        }
        for (const request of ['[]', 'null', '1', '""', '"text"']) {
          expectCode(await send(actors.owner.rest, { request, proof: proofOf(request) }), '22023');
        }
        for (const request of ['', '{', '{"a":"\\u0000"}']) {
          assert.equal((await send(actors.owner.rest, { request, proof: proofOf(request) })).status, 400, request);
        }
      }));

    it('a proof of a read is no proof of a store', () =>
      changesNothing(async () => {
        const members = await lowering();
        const { request, proof } = signed(actors.owner.id, { ...members, purpose: 'read' });
        const { body } = await send(actors.owner.rest, { request, proof });
        assert.equal((body as Members)['ledger'], record({ used: 10 }));
        expectForbidden(await send(actors.owner.rest, { request: request.replace('"read"', '"store"'), proof }));
        // JSON takes the last of two members.
        expectForbidden(await send(actors.owner.rest, { request: request.replace('}', ',"purpose":"store"}'), proof }));
      }));
  });

  describe('with a proof of another time', () => {
    it('an old proof and one from the future are refused', () =>
      changesNothing(async () => {
        for (const offset_ms of [-3_600_000, -WINDOW_MS - 1_000, WINDOW_MS + 5_000, 3_600_000]) {
          for (const members of await everyPurpose()) {
            const answer = await send(actors.owner.rest, signed(actors.owner.id, { ...members, at_ms: Date.now() + offset_ms }));
            expectCode(answer, 'PT412', 412);
            const clock_ms = Number((answer.body as { details: string }).details);
            assert.ok(Math.abs(clock_ms - Date.now()) < 5_000, 'the service learns the clock');
          }
        }
      }));

    it('a proof is valid for exactly 60 s before and after its time', async () => {
      const [row] = await world.sql<{ ms: string }>(`select ai_sessions.clock_ms() as ms`);
      const { request, proof } = signed(actors.owner.id, { purpose: 'read', at_ms: Number(row?.ms) });
      const verify = (offset_ms: number) => {
        const values = [request, proof, actors.owner.id, Number(row?.ms) + offset_ms];
        return world.sql(`select ai_sessions.verify_request($1, $2, $3, to_timestamp($4::bigint / 1000.0))`, values);
      };
      for (const offset_ms of [-WINDOW_MS, -1, 0, 1, WINDOW_MS]) await verify(offset_ms);
      for (const offset_ms of [-WINDOW_MS - 1, WINDOW_MS + 1]) await assert.rejects(verify(offset_ms), { code: 'PT412' });
    });
  });

  describe('with a repeated request', () => {
    it('a repeated store changes nothing, also after a removal', async () => {
      const { owner } = await createActors(world);
      const first = signed(owner.id, { purpose: 'store', version: 0, writes: [generation(id)], ledger: record({ used: 0 }) });
      expectStatus(await send(owner.rest, first), 200);
      const repeat = () =>
        changesNothing(async () => {
          const { body } = await send(owner.rest, first);
          assert.equal((body as Members)['conflict'], true);
        });
      await repeat();
      await store(owner, 1, [], { ledger: record({ used: 1 }) });
      await repeat();
      await store(owner, 2, [{ write: 'remove_all' }]);
      await repeat();
    });

    it('a repeated renewal and a repeated stop change nothing', async () => {
      const { owner } = await createActors(world);
      await store(owner, 0, [generation(id), lease(id, RUNNER, 0)]);
      const renewal = signed(owner.id, { purpose: 'renew', runner: RUNNER, ids: [id], lease_ms: 30_000 });
      const stop = signed(owner.id, { purpose: 'stop', id, started_ms: T });
      const state = async () =>
        world.sql('select runner, lease_until, stop from ai_sessions.generations where user_id = $1', [owner.id]);
      const repeat = async () => {
        const before = await state();
        for (const sent of [renewal, stop]) expectStatus(await send(owner.rest, sent), 200);
        assert.deepEqual(await state(), before);
      };
      for (const sent of [renewal, stop]) expectStatus(await send(owner.rest, sent), 200);
      await repeat();
      // Another runner has the lease, and the session has a later run.
      await store(owner, 1, [generation(id, { started_ms: T + 1 }), lease(id, OTHER_RUNNER, 0)]);
      await repeat();
      await store(owner, 2, [lease(id, null, null)]);
      await repeat();
    });
  });

  describe('past the function', () => {
    const everyRest = (): [name: string, rest: Rest][] => [
      ['owner', actors.owner.rest],
      ['stranger', actors.stranger.rest],
      ['anonymous', actors.anonymous],
      ['service_role', serviceRole],
    ];

    it('no table of the schema is reached over HTTP', () =>
      changesNothing(async () => {
        for (const [name, rest] of everyRest()) {
          for (const table of TABLES) {
            for (const [method, body] of [['GET'], ['POST', {}], ['PATCH', { user_id: actors.stranger.id }], ['DELETE']] as const) {
              for (const path of [`/${table}`, `/ai_sessions.${table}`]) {
                assert.equal((await rest(method, path, body)).status, 404, `${name} ${method} ${path}`);
              }
              const profile = { 'accept-profile': 'ai_sessions', 'content-profile': 'ai_sessions' };
              expectCode(await rest(method, `/${table}`, body, profile), 'PGRST106', 406);
            }
          }
        }
      }));

    it('no function of the schema is reached over HTTP', () =>
      changesNothing(async () => {
        const functions = await world.sql<{ proname: string }>(`select proname from pg_proc where pronamespace = 'ai_sessions'::regnamespace`);
        assert.ok(functions.length >= 9);
        for (const { proname } of functions) {
          for (const [, rest] of everyRest()) {
            for (const body of [{}, { owner: actors.owner.id }, { owner: actors.owner.id, request: {} }, { secret: KEY }]) {
              expectCode(await rest('POST', `/rpc/${proname}`, body), 'PGRST202', 404);
              expectCode(await rest('POST', `/rpc/${proname}`, body, { 'content-profile': 'ai_sessions' }), 'PGRST106', 406);
            }
          }
        }
      }));

    it('no row is embedded in a row of the user', async () => {
      for (const table of TABLES) {
        expectCode(await actors.owner.rest('GET', `/ai_generation_sessions?select=*,${table}(*)`), 'PGRST200', 400);
      }
    });

    it('no API role has a privilege in the schema', () =>
      changesNothing(async () => {
        const [functions, client] = [
          await world.sql<{ call: string }>(
            `select format('select ai_sessions.%I(%s)', proname,
               (select string_agg(format('null::%s', type::regtype), ', ') from unnest(proargtypes::oid[]) as type)) as call
             from pg_proc where pronamespace = 'ai_sessions'::regnamespace`,
          ),
          new pg.Client({ connectionString: world.databaseUrl }),
        ];
        const statements = [
          ...functions.map(({ call }) => call),
          ...TABLES.flatMap((table) => [
            `select from ai_sessions.${table}`,
            `update ai_sessions.${table} set ${table === 'service_keys' ? 'set_at = now()' : 'user_id = user_id'}`,
            `delete from ai_sessions.${table}`,
            `truncate ai_sessions.${table}`,
            `insert into ai_sessions.${table} default values`,
            `lock table ai_sessions.${table} in access share mode`,
            `alter table ai_sessions.${table} disable row level security`,
          ]),
          'create table ai_sessions.mine ()',
          'drop schema ai_sessions cascade',
          'set role ai_sessions_user_state',
          'alter function public.transact_ai_user_state(text, text) security invoker',
          'drop function public.transact_ai_user_state(text, text)',
          'create function public.mine() returns int language sql as $$ select 1 $$',
        ];
        await client.connect();
        try {
          for (const role of ['anon', 'authenticated', 'service_role']) {
            for (const statement of statements) {
              await client.query('begin');
              await client.query(`select set_config('request.jwt.claims', $1, true)`, [JSON.stringify({ sub: actors.owner.id })]);
              // Also not as a role that the session could return to.
              await client.query(`set local session authorization ${role}`);
              await assert.rejects(client.query(statement), { code: '42501' }, `${role}: ${statement}`);
              await client.query('rollback');
            }
          }
        } finally {
          await client.end();
        }
      }));

    it('no token makes its bearer the owner of the tables', async () => {
      for (const role of ['ai_sessions_user_state', 'postgres', 'supabase_admin']) {
        const rest = world.rest(world.auth.token({ id: actors.owner.id }, { claims: { role } }));
        expectForbidden(await send(rest, signed(actors.owner.id, { purpose: 'read' })));
      }
    });

    it("the function's owner has no privilege outside the schema", async () => {
      const [role] = await world.sql(
        `select rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls
         from pg_roles where rolname = 'ai_sessions_user_state'`,
      );
      assert.deepEqual(new Set(Object.values(role ?? {})), new Set([false]));
      assert.deepEqual(
        await world.sql(
          `select nspname from pg_namespace where nspname !~ '^pg_' and nspname not in ('information_schema', 'ai_sessions')
             and (has_schema_privilege('ai_sessions_user_state', oid, 'create')
               or nspname <> 'public' and has_schema_privilege('ai_sessions_user_state', oid, 'usage'))`,
        ),
        [],
      );
      assert.deepEqual(
        await world.sql(
          `select oid::regclass from pg_class
           where relkind in ('r', 'p', 'v', 'm') and relnamespace in ('public'::regnamespace, 'auth'::regnamespace)
             and has_table_privilege('ai_sessions_user_state', oid, 'select, insert, update, delete')`,
        ),
        [],
      );
      const members = await world.sql(
        `select member::regrole::text as member from pg_auth_members
         where roleid = 'ai_sessions_user_state'::regrole or member = 'ai_sessions_user_state'::regrole`,
      );
      assert.deepEqual([...new Set(members.map(({ member }) => member))], ['postgres']);
    });
  });

  it('no user can lower the recorded usage', async () => {
    const { owner } = await createActors(world);
    const used = async () => JSON.parse(String((await read(owner))['ledger'])).used;
    const stored = signed(owner.id, { purpose: 'store', version: 0, writes: [], ledger: record({ used: 1 }) });
    expectStatus(await send(owner.rest, stored), 200);
    await store(owner, 1, [], { ledger: record({ used: 9 }) });
    const lower = { purpose: 'store', version: 2, writes: [{ write: 'remove_all' }], ledger: record({ used: 0 }) };
    const lowered = signed(owner.id, lower, 'a-key-of-the-attacker-with-enough-characters');
    await Promise.all([
      send(owner.rest, stored),
      send(owner.rest, lowered),
      send(owner.rest, { ...lowered, proof: stored.proof }),
      send(owner.rest, signed(owner.id, { ...lower, at_ms: T })),
      owner.rest('PATCH', `/user_states?user_id=eq.${owner.id}`, { ledger: null }, { 'content-profile': 'ai_sessions' }),
      owner.rest('DELETE', `/user_states?user_id=eq.${owner.id}`),
      owner.rest('DELETE', '/ai_generation_sessions'),
      owner.rest('POST', '/rpc/set_service_key', { secret: NEW_KEY }),
    ]);
    assert.equal(await used(), 9);
  });

  describe('with the keys of the service', () => {
    const attempt = (key: string) => send(actors.owner.rest, signed(actors.owner.id, { purpose: 'read' }, key));
    const names = async () => (await world.sql<{ name: string }>('select name from ai_sessions.service_keys order by 1')).map(({ name }) => name);
    /** The statements of migrations/README.md, run as a deployer runs them. */
    const deployerRuns = async (matching: RegExp, key?: string) => {
      const statements = (await readFile(README, 'utf8')).match(/^(select|delete) .*ai_sessions\.[^;]*;/gm) ?? [];
      const [statement, ...more] = statements.filter((text) => matching.test(text));
      assert.ok(statement !== undefined && more.length === 0, String(matching));
      const url = new URL(world.databaseUrl.replace('supabase_admin', 'postgres'));
      const client = new pg.Client({ connectionString: url.href });
      await client.connect();
      try {
        await client.query(key === undefined ? statement : statement.replace(/'[^']*'/, `'${key}'`));
      } finally {
        await client.end();
      }
    };

    it('without a key every request is refused with a code of its own', async () => {
      await world.sql('delete from ai_sessions.service_keys');
      await changesNothing(async () => {
        for (const rest of [actors.owner.rest, actors.anonymous]) {
          for (const proof of [proofOf('{}'), proofOf('{}', ''), '', null]) {
            expectCode(await send(rest, { request: '{}', proof }), 'PT503', 503);
          }
          expectCode(await send(rest, signed(undefined, { purpose: 'check', as: 'service' })), 'PT503', 503);
        }
      });
    });

    it('the statement of the README sets the key', async () => {
      await deployerRuns(/set_service_key/, KEY);
      const check = (key: string) => send(actors.anonymous, signed(undefined, { purpose: 'check', as: 'service' }, key));
      const answer = await check(KEY);
      expectStatus(answer, 200);
      assert.deepEqual(Object.keys(answer.body as object), ['clock_ms']);
      expectForbidden(await check(NEW_KEY));
    });

    it('the previous key is valid until it is removed', async () => {
      await setKey(world);
      await deployerRuns(/set_service_key/, NEW_KEY);
      for (const key of [KEY, NEW_KEY]) expectStatus(await attempt(key), 200);
      // Repeated by a deployer who is not sure.
      await deployerRuns(/set_service_key/, NEW_KEY);
      for (const key of [KEY, NEW_KEY]) expectStatus(await attempt(key), 200);
      assert.deepEqual(await names(), ['current', 'previous']);
      await deployerRuns(/delete/);
      expectForbidden(await attempt(KEY));
      expectStatus(await attempt(NEW_KEY), 200);
      assert.deepEqual(await names(), ['current']);
    });

    it('a third key removes the first', async () => {
      await setKey(world);
      for (const key of [NEW_KEY, 'x'.repeat(32)]) await world.sql('select ai_sessions.set_service_key($1)', [key]);
      expectForbidden(await attempt(KEY));
      for (const key of [NEW_KEY, 'x'.repeat(32)]) expectStatus(await attempt(key), 200);
    });

    it('a key of any allowed length is the key of HMAC-SHA-256', async () => {
      for (const length of [32, 63, 64, 65, 512]) {
        await setKey(world, 'k'.repeat(length));
        expectStatus(await attempt('k'.repeat(length)), 200);
        expectForbidden(await attempt('k'.repeat(length - 1)));
      }
      await setKey(world);
    });

    it('a known request has a known proof', async () => {
      const user = '00000000-0000-4000-8000-000000000001';
      const request = `{"format":1,"at_ms":${T},"as":"owner","user":"${user}","purpose":"read"}`;
      const proof = 'ba7f1a4c53cb10425149248b80bb7a0dcc1dcf5a5e5b3ee429a6375cae30d324';
      await setKey(world, '0123456789abcdef0123456789abcdef');
      const values = [request, proof, user, T];
      const [row] = await world.sql('select ai_sessions.verify_request($1, $2, $3, to_timestamp($4::bigint / 1000.0)) as verified', values);
      assert.deepEqual(row?.['verified'], JSON.parse(request));
      await setKey(world);
    });

    it('a short key and one that is no visible text are refused', async () => {
      await setKey(world);
      for (const key of ['', 'k'.repeat(31), 'k'.repeat(513), `${'k'.repeat(32)} `, `${'k'.repeat(32)}\n`, 'é'.repeat(32), null]) {
        await assert.rejects(world.sql('select ai_sessions.set_service_key($1)', [key]), (error: Error & { code?: string }) => {
          assert.equal(error.code, '22023');
          assert.ok(!key || !error.message.includes(key));
          return true;
        });
      }
      expectStatus(await attempt(KEY), 200);
    });

    it('a multi-byte request is signed by its bytes', async () => {
      await transact(actors.owner, { purpose: 'read', note: 'é, € and \u{1f600}' });
    });
  });
});
