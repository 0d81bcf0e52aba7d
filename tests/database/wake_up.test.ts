// ai_sessions.wake_users, which a schedule calls: the users that it calls the service for, and its callers.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { after, before, beforeEach, describe, it } from 'node:test';
import { asPostgres, makeDue, runSchedule, type ScheduledCall, scheduleCalls } from '../support/scheduled_calls.ts';
import { startWorld, type World } from '../support/world.ts';
import { type Actor, type Actors, createActors, expectForbidden } from './actors.ts';
import { allRows, expectCode, generation, KEY, lease, OTHER_RUNNER, setKey, store } from './user_state.ts';

const BASE_URL = 'https://project.example/functions/v1/flashcards';
const PAST_MS = 1_790_000_000_000;

describe('the scheduled wake-up', () => {
  let world: World;
  before(async () => {
    world = await startWorld({ model: false });
    await scheduleCalls(world, BASE_URL);
  });
  after(() => world.close());
  let actors: Actors;
  beforeEach(async () => {
    await setKey(world);
    await world.sql('delete from auth.users');
    actors = await createActors(world);
  });

  /** Stores a generation whose lease has this many milliseconds left; without a lease for `null`. */
  async function stored({ id, rest }: Actor, lease_ms: number | null, wake_at_ms: number | null = PAST_MS): Promise<void> {
    const session = crypto.randomUUID();
    const leases = lease_ms === null ? [] : [lease(session, OTHER_RUNNER, lease_ms)];
    await store({ id, rest }, 0, [generation(session), ...leases], { wake_at_ms });
  }
  const usersOf = (calls: ScheduledCall[]): string[] => calls.map(({ body }) => JSON.parse(body).user as string);
  const wakeAt = async ({ id }: Actor): Promise<number | undefined> => {
    const [row] = await world.sql<{ seconds: number | null }>('select extract(epoch from wake_at - clock_timestamp())::float8 as seconds from ai_sessions.user_states where user_id = $1', [id]);
    return row?.seconds ?? undefined;
  };

  it('a call is signed under the current key by a label of its own', async () => {
    await stored(actors.owner, 0);
    const [call, ...more] = await runSchedule(world);
    assert.ok(call);
    assert.deepEqual(more, []);
    assert.equal(call.url, `${BASE_URL}/internal/wake-up`);
    assert.equal(call.headers['Content-Type'], 'application/json');
    const { user, at_ms, proof, ...others } = JSON.parse(call.body);
    assert.deepEqual([user, others], [actors.owner.id, {}]);
    assert.ok(Math.abs(at_ms - Date.now()) < 30_000);
    assert.equal(proof, createHmac('sha256', KEY).update(`ai-sessions/wake-up\0${user} ${at_ms}`).digest('hex'));
  });

  it('a user is called for work that is due and that no isolate does', async () => {
    for (const [lease_ms, wake_at_ms, isCalled] of [
      [0, PAST_MS, true],
      [null, PAST_MS, true],
      [60_000, PAST_MS, false],
      [0, Date.now() + 3_600_000, false],
      [0, null, false],
    ] as const) {
      const { owner } = await createActors(world);
      await stored(owner, lease_ms, wake_at_ms);
      assert.deepEqual(usersOf(await runSchedule(world)), isCalled ? [owner.id] : [], `${lease_ms} ${wake_at_ms}`);
    }
  });

  it('a user without a generation is not called', async () => {
    await store(actors.owner, 0, [], { wake_at_ms: PAST_MS });
    assert.deepEqual(await runSchedule(world), []);
  });

  it('a user is not called again within a minute', async () => {
    await stored(actors.owner, 0);
    assert.deepEqual(usersOf(await runSchedule(world)), [actors.owner.id]);
    assert.deepEqual(await runSchedule(world), []);
    const seconds = await wakeAt(actors.owner);
    assert.ok(seconds !== undefined && seconds > 40 && seconds <= 50, String(seconds));
  });

  it('work that is left for long is called ever more rarely', async () => {
    await stored(actors.owner, 0);
    for (const [left, least_s, most_s] of [
      ['10 minutes', 590, 610],
      ['2 days', 3590, 3600],
    ] as const) {
      await world.sql(`update ai_sessions.generations set lease_until = clock_timestamp() - $1::interval`, [left]);
      await makeDue(world);
      assert.equal((await runSchedule(world)).length, 1);
      const seconds = await wakeAt(actors.owner);
      assert.ok(seconds !== undefined && seconds > least_s && seconds <= most_s, `${left}: ${seconds}`);
    }
  });

  it('a run calls at most 100 users, and the next one the others', async () => {
    await world.sql(`
      with users as (insert into auth.users (id) select gen_random_uuid() from generate_series(1, 130) returning id),
        states as (insert into ai_sessions.user_states (user_id, version, wake_at) select id, 1, now() - interval '1 s' from users returning user_id)
      select count(*) from states`);
    await world.sql(`
      insert into ai_sessions.generations (user_id, id, started_at, record)
      select user_id, gen_random_uuid(), now(), '{"version":1}' from ai_sessions.user_states`);
    const [first, second, third] = [await runSchedule(world), await runSchedule(world), await runSchedule(world)];
    assert.deepEqual([first.length, second.length, third.length], [100, 30, 0]);
    assert.equal(new Set([...usersOf(first), ...usersOf(second)]).size, 130);
  });

  it('two runs at once call each user once', async () => {
    await stored(actors.owner, 0);
    await stored(actors.stranger, 0);
    const calls = (await Promise.all([runSchedule(world), runSchedule(world), runSchedule(world)])).flat();
    assert.deepEqual(usersOf(calls).sort(), [actors.owner.id, actors.stranger.id].sort());
  });

  it('a call changes nothing but the time of the next one', async () => {
    await stored(actors.owner, 0);
    const rows = async () => JSON.stringify(await allRows(world), (name, value) => (name === 'wake_at' || name === 'xmin' ? undefined : value));
    const before = await rows();
    assert.equal((await runSchedule(world)).length, 1);
    assert.equal(await rows(), before);
  });

  it('the new key signs after a rotation', async () => {
    const NEW_KEY = 'another-key-of-the-service-in-these-tests-9876543210';
    await world.sql('select ai_sessions.set_service_key($1)', [NEW_KEY]);
    await stored(actors.owner, 0);
    const [call] = await runSchedule(world);
    const { user, at_ms, proof } = JSON.parse(call?.body ?? '{}');
    assert.equal(proof, createHmac('sha256', NEW_KEY).update(`ai-sessions/wake-up\0${user} ${at_ms}`).digest('hex'));
  });

  it('without a key, and with a URL that is not valid, a run is an error', async () => {
    await stored(actors.owner, 0);
    const before = await allRows(world);
    for (const url of ['', 'flashcards', 'ftp://a.example', 'https://', 'https://a.example/', 'https://a.example/b?c', 'https://a.example/b#c', 'https://a .example', null]) {
      await assert.rejects(asPostgres(world, 'select ai_sessions.wake_users($1)', [url]), { code: '22023' }, String(url));
    }
    await world.sql('delete from ai_sessions.service_keys');
    await assert.rejects(runSchedule(world), { code: 'PT503' });
    assert.deepEqual({ ...(await allRows(world)), service_keys: undefined }, { ...before, service_keys: undefined });
  });

  it('no user and no API role can call it', async () => {
    await stored(actors.owner, 0);
    const before = await allRows(world);
    for (const rest of [actors.owner.rest, actors.stranger.rest, actors.anonymous, world.rest(world.serviceKey)]) {
      expectCode(await rest('POST', '/rpc/wake_users', { base_url: BASE_URL }), 'PGRST202', 404);
      const inSchema = await rest('POST', '/rpc/wake_users', { base_url: BASE_URL }, { 'content-profile': 'ai_sessions' });
      assert.ok(inSchema.status >= 400, String(inSchema.status));
    }
    for (const role of ['anon', 'authenticated', 'service_role', 'authenticator']) {
      await assert.rejects(world.sql(`set role ${role}; select ai_sessions.wake_users('${BASE_URL}')`), { code: '42501' }, role);
    }
    assert.deepEqual(await allRows(world), before);
    assert.deepEqual(await world.sql('select * from net.http_request_queue'), []);
  });

  it('the function follows the rules of the others', async () => {
    const functions = await world.sql(
      `select prosecdef, proconfig, proowner::regrole::text as owner, proacl::text as acl, obj_description(oid, 'pg_proc') is not null as has_comment
       from pg_proc where oid = 'ai_sessions.wake_users(text)'::regprocedure`,
    );
    assert.deepEqual(functions, [
      {
        prosecdef: false,
        proconfig: ['search_path=""'],
        owner: 'ai_sessions_user_state',
        acl: '{ai_sessions_user_state=X/ai_sessions_user_state}',
        has_comment: true,
      },
    ]);
  });

  it('no proof of a call is valid for the user state', async () => {
    await stored(actors.owner, 0);
    const [call] = await runSchedule(world);
    const { user, at_ms, proof } = JSON.parse(call?.body ?? '{}');
    const before = await allRows(world);
    for (const request of [call?.body, `${user} ${at_ms}`]) {
      for (const rest of [actors.owner.rest, actors.anonymous]) expectForbidden(await rest('POST', '/rpc/transact_ai_user_state', { request, proof }));
    }
    assert.deepEqual(await allRows(world), before);
  });
});
