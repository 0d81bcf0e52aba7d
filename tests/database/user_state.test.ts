// The user state in Postgres as the service reads and stores it, through public.transact_ai_user_state.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import pg from 'pg';
import { startWorld, type World } from '../support/world.ts';
import { type Actor, createActors, expectRefusedBy, expectStatus } from './actors.ts';
import {
  allRows,
  candidates,
  expectCode,
  generation,
  idempotencyRecord,
  lease,
  type Members,
  OTHER_RUNNER,
  read,
  record,
  RUNNER,
  send,
  setKey,
  signed,
  store,
  T,
  transact,
} from './user_state.ts';

const ids = (count: number) => Array.from({ length: count }, () => crypto.randomUUID());

describe('the user state in Postgres', () => {
  let world: World;
  before(async () => {
    world = await startWorld({ model: false });
    await setKey(world);
  });
  after(() => world.close());

  const newOwner = async (): Promise<Actor> => (await createActors(world)).owner;
  const one = () => crypto.randomUUID();
  const attempt = (actor: Actor, members: Members) => send(actor.rest, signed(actor.id, members));
  const attemptStore = (actor: Actor, version: number, writes: object[], more: object = {}) =>
    attempt(actor, { purpose: 'store', version, writes, ...more });
  const versionOf = async (actor: Actor) => Number((await read(actor))['version']);

  const empty = { version: 0, ledger: null, wake_at_ms: null, generations: [], candidates: [], idempotency_records: [] };
  const withoutClock = ({ clock_ms, ...state }: Members): Members => {
    assert.ok(Math.abs(Number(clock_ms) - Date.now()) < 5_000, String(clock_ms));
    return state;
  };

  it('a state that was never stored is empty, and reading it stores nothing', async () => {
    const owner = await newOwner();
    assert.deepEqual(withoutClock(await read(owner)), empty);
    assert.deepEqual(await world.sql('select from ai_sessions.user_states where user_id = $1', [owner.id]), []);
  });

  it('every write is read back', async () => {
    const owner = await newOwner();
    const [first = '', second = ''] = ids(2);
    const ledger = record({ text: 'a "quote", a \\ and \u{1f600}' });
    const ending = record({ partial: false });
    const writes = [
      generation(second, { started_ms: T + 1 }),
      generation(first, { record: 'é, and an escaped \\u0000' }),
      { write: 'ending', id: second, ending },
      lease(first),
      candidates(first, 1),
      candidates(first, 0),
      idempotencyRecord(second, T + 2),
      idempotencyRecord(first, T + 1),
    ];
    assert.deepEqual(withoutClock(await store(owner, 0, writes, { ledger, wake_at_ms: T + 123 })), { version: 1, stops: [] });
    assert.deepEqual(withoutClock(await read(owner)), {
      version: 1,
      ledger,
      wake_at_ms: T + 123,
      generations: [
        { id: first, record: 'é, and an escaped \\u0000', ending: null, runner: RUNNER, is_leased: true, stop: false },
        { id: second, record: 'sealed', ending, runner: null, is_leased: false, stop: false },
      ],
      candidates: [
        { id: first, position: 0, record: '[{"front":"0"}]' },
        { id: first, position: 1, record: '[{"front":"1"}]' },
      ],
      idempotency_records: [record({ session_id: first }), record({ session_id: second })],
    });
  });

  it('a generation stored again keeps its candidates and its lease', async () => {
    const owner = await newOwner();
    const id = one();
    await store(owner, 0, [generation(id), lease(id), candidates(id, 0)]);
    await store(owner, 1, [generation(id, { record: 'sealed again', ending: record() })]);
    const state = await read(owner);
    assert.deepEqual(state['generations'], [{ id, record: 'sealed again', ending: record(), runner: RUNNER, is_leased: true, stop: false }]);
    assert.equal((state['candidates'] as object[]).length, 1);
  });

  it('a removed generation takes its candidates along and nothing else', async () => {
    const owner = await newOwner();
    const [gone = '', kept = ''] = ids(2);
    await store(owner, 0, [generation(gone), candidates(gone, 0), generation(kept), candidates(kept, 0)]);
    await store(owner, 1, [{ write: 'remove_generation', id: gone }, { write: 'remove_generation', id: gone }]);
    const state = await read(owner);
    assert.deepEqual((state['generations'] as Members[]).map(({ id }) => id), [kept]);
    assert.deepEqual((state['candidates'] as Members[]).map(({ id }) => id), [kept]);
  });

  it('an idempotency record is replaced by session, removed by time', async () => {
    const owner = await newOwner();
    const [first = '', second = ''] = ids(2);
    await store(owner, 0, [idempotencyRecord(first, T), idempotencyRecord(second, T + 1)]);
    const changed = record({ outcome: 'Completed' });
    await store(owner, 1, [idempotencyRecord(second, T + 1, { record: changed }), { write: 'remove_idempotency_records', until_ms: T }]);
    assert.deepEqual((await read(owner))['idempotency_records'], [changed]);
    await store(owner, 2, [{ write: 'remove_idempotency_records', until_ms: T + 1 }]);
    assert.deepEqual((await read(owner))['idempotency_records'], []);
  });

  it('the ledger and the time to wake stay where they are missing', async () => {
    const owner = await newOwner();
    const of = async () => {
      const { version, ledger, wake_at_ms } = await read(owner);
      return { version, ledger, wake_at_ms };
    };
    await store(owner, 0, [], { ledger: record(), wake_at_ms: T });
    await store(owner, 1);
    assert.deepEqual(await of(), { version: 2, ledger: record(), wake_at_ms: T });
    await store(owner, 2, [], { wake_at_ms: null });
    assert.deepEqual(await of(), { version: 3, ledger: record(), wake_at_ms: null });
    await store(owner, 3, [], { ledger: null, wake_at_ms: T + 1 });
    assert.deepEqual(await of(), { version: 4, ledger: null, wake_at_ms: T + 1 });
    const [row] = await world.sql<{ wake_at: Date }>('select wake_at from ai_sessions.user_states where user_id = $1', [owner.id]);
    assert.equal(row?.wake_at.getTime(), T + 1);
  });

  it('a removed state keeps its version', async () => {
    const owner = await newOwner();
    const id = one();
    await store(owner, 0, [generation(id), candidates(id, 0), idempotencyRecord(id, T)], { ledger: record(), wake_at_ms: T });
    await store(owner, 1, [{ write: 'remove_all' }]);
    assert.deepEqual(withoutClock(await read(owner)), { ...empty, version: 2 });
  });

  it('a store that removes everything keeps its own ledger', async () => {
    const owner = await newOwner();
    const id = one();
    await store(owner, 0, [generation(id), candidates(id, 0), idempotencyRecord(id, T)], { ledger: record(), wake_at_ms: T });
    const ledger = record({ commits: ['00000000000000f1'] });
    await store(owner, 1, [{ write: 'remove_all' }], { ledger });
    assert.deepEqual(withoutClock(await read(owner)), { ...empty, version: 2, ledger });
  });

  it('a refused write rolls the whole store back', async () => {
    const owner = await newOwner();
    const [id = '', missing = ''] = ids(2);
    await store(owner, 0, [generation(id)], { ledger: record() });
    const before = await allRows(world);
    const refused: [write: Members, code: string][] = [
      [{ write: 'unknown', id }, '22023'],
      [{ id }, '22023'],
      [{ write: 'ending', id: missing, ending: record() }, '22023'],
      [candidates(missing, 0), '22023'],
      [lease(missing), '22023'],
      [lease(id, RUNNER, 60_001), '22023'],
      [lease(id, RUNNER, -1), '22023'],
      [lease(id, RUNNER, null), '23514'],
      [lease(id, 'no uuid'), '22P02'],
      [generation(id, { started_ms: null }), '23502'],
      [generation(id, { started_ms: '9223372036854775808' }), '22003'],
      [generation(id, { started_ms: '9223372036854775807' }), '22008'],
      [generation(id, { started_ms: 0 }), '23514'],
      [generation(id, { record: null }), '23502'],
      [candidates(id, 2_147_483_648), '22003'],
    ];
    for (const [write, code] of refused) {
      const writes = [candidates(id, 0), write];
      expectCode(await attemptStore(owner, 1, writes, { ledger: record({ n: 1 }) }), code, 400);
    }
    expectCode(await attemptStore(owner, 1, [candidates(id, 0), candidates(id, 0)]), '23505', 409);
    assert.deepEqual(await allRows(world), before);
  });

  it('every text, number of rows and request has a limit', async () => {
    const owner = await newOwner();
    const id = one();
    await store(owner, 0, [generation(id)]);
    // A character of 3 bytes: bytes are counted.
    const long = (bytes: number, prefix = '') => {
      const count = Math.floor((bytes - prefix.length) / 3);
      return prefix + '€'.repeat(count) + ' '.repeat(bytes - prefix.length - 3 * count);
    };
    const versioned = (bytes: number) => long(bytes, '{"version":');
    assert.equal(Buffer.byteLength(versioned(65_536)), 65_536);

    let version = 1;
    const limits: [constraint: string, largest: number, members: (bytes: number) => [writes: object[], more?: object]][] = [
      ['user_states_ledger_check', 65_536, (bytes) => [[], { ledger: versioned(bytes) }]],
      ['generations_record_check', 262_144, (bytes) => [[generation(id, { record: long(bytes) })]]],
      ['generations_ending_check', 8_192, (bytes) => [[{ write: 'ending', id, ending: versioned(bytes) }]]],
      ['candidates_record_check', 3_145_728, (bytes) => [[candidates(id, 0, { record: long(bytes) })]]],
      ['idempotency_records_record_check', 2_048, (bytes) => [[idempotencyRecord(id, T, { record: versioned(bytes) })]]],
    ];
    for (const [constraint, largest, members] of limits) {
      expectRefusedBy(await attemptStore(owner, version, ...members(largest + 1)), constraint);
      await store(owner, version, ...members(largest));
      version += 1;
    }
    for (const [constraint, writes, more] of [
      ['user_states_ledger_check', [], { ledger: '{}' }],
      ['generations_record_check', [generation(id, { record: '' })], {}],
      ['generations_ending_check', [{ write: 'ending', id, ending: '{}' }], {}],
      ['idempotency_records_record_check', [idempotencyRecord(id, T, { record: '{}' })], {}],
      ['candidates_position_check', [candidates(id, -1)], {}],
      ['candidates_position_check', [candidates(id, 2000)], {}],
      ['candidates_record_check', [candidates(id, 1, { record: '' })], {}],
      ['user_states_wake_at_check', [], { wake_at_ms: 253_402_300_800_000 }],
      ['user_states_wake_at_check', [], { wake_at_ms: -1 }],
      ['idempotency_records_expires_at_check', [idempotencyRecord(id, 0)], {}],
    ] as [string, object[], object][]) {
      expectRefusedBy(await attemptStore(owner, version, writes, more), constraint);
    }

    const request = (bytes: number) => signed(owner.id, { purpose: 'read', pad: '' }).request.replace('"pad":""', `"pad":"${'x'.repeat(bytes)}"`);
    const overhead = Buffer.byteLength(request(0));
    for (const [bytes, code] of [[4_194_304, '42501'], [4_194_305, '54000']] as const) {
      expectCode(await send(owner.rest, { request: request(bytes - overhead), proof: '0'.repeat(64) }), code);
    }
  });

  it('a user has at most 120 generations, and a store 256 writes', async () => {
    const owner = await newOwner();
    const most = ids(120).map((id) => generation(id));
    expectCode(await attemptStore(owner, 0, [...most, generation(one())]), '54000', 413);
    await store(owner, 0, most);
    expectCode(await attemptStore(owner, 1, [generation(one())]), '54000', 413);
    await store(owner, 1, [generation(most[0]?.id ?? ''), { write: 'remove_generation', id: most[1]?.id }, generation(one())]);

    const writes = Array.from({ length: 256 }, () => ({ write: 'remove_generation', id: one() }));
    await store(owner, 2, writes);
    expectCode(await attemptStore(owner, 3, [...writes, { write: 'remove_all' }]), '54000', 413);
  });

  it('a user has at most 10000 idempotency records', async () => {
    const owner = await newOwner();
    await store(owner, 0);
    await world.sql(
      `insert into ai_sessions.idempotency_records (user_id, session_id, expires_at, record)
       select $1, gen_random_uuid(), '2027-01-15Z', '{"version":1}' from generate_series(1, 9999)`,
      [owner.id],
    );
    await store(owner, 1, [idempotencyRecord(one(), T)]);
    expectCode(await attemptStore(owner, 2, [idempotencyRecord(one(), T)]), '54000', 413);
  });

  describe('with compare-and-set', () => {
    it('a store on another version gets the present state and changes nothing', async () => {
      const owner = await newOwner();
      const id = one();
      await store(owner, 0, [generation(id)], { ledger: record() });
      const before = await allRows(world);
      for (const version of [0, 2, '9223372036854775807']) {
        const answer = await attemptStore(owner, version as number, [{ write: 'remove_all' }], { ledger: null, wake_at_ms: null });
        assert.deepEqual(withoutClock(answer.body as Members), { ...withoutClock(await read(owner)), conflict: true });
      }
      for (const [version, code] of [[null, '22023'], [undefined, '22023'], [-1, '22023'], ['9223372036854775808', '22003'], ['NaN', '22P02']] as const) {
        expectCode(await attempt(owner, { purpose: 'store', version, writes: [] }), code, 400);
      }
      for (const writes of [null, undefined, {}, '[]']) {
        expectCode(await attempt(owner, { purpose: 'store', version: 1, writes }), '22023', 400);
      }
      assert.deepEqual(await allRows(world), before);
    });

    it('a version above 2^53 is compared exactly', async () => {
      const owner = await newOwner();
      await store(owner, 0);
      await world.sql('update ai_sessions.user_states set version = 9007199254740993 where user_id = $1', [owner.id]);
      const conflict = await attempt(owner, { purpose: 'store', version: '9007199254740992', writes: [] });
      assert.equal((conflict.body as Members)['conflict'], true);
      await transact(owner, { purpose: 'store', version: '9007199254740993', writes: [] });
    });

    it('of 12 instances at once at a limit of 10 exactly 10 are admitted', async () => {
      const owner = await newOwner();
      const used = (state: Members) => (state['ledger'] === null ? 0 : Number(JSON.parse(String(state['ledger'])).used));
      let conflicts = 0;
      const admit = async (): Promise<boolean> => {
        for (let state = await read(owner); ; conflicts += 1) {
          if (used(state) >= 10) return false;
          state = await store(owner, Number(state['version']), [generation(one())], { ledger: record({ used: used(state) + 1 }) });
          if (state['conflict'] !== true) return true;
        }
      };
      const admitted = await Promise.all(Array.from({ length: 12 }, admit));
      assert.equal(admitted.filter(Boolean).length, 10);
      assert.ok(conflicts > 0);
      const state = await read(owner);
      assert.deepEqual([used(state), state['version'], (state['generations'] as object[]).length], [10, 10, 10]);
    });

    it('of two first stores at once one is a conflict', async () => {
      const owner = await newOwner();
      const results = await Promise.all(Array.from({ length: 6 }, (_, n) => store(owner, 0, [], { ledger: record({ n }) })));
      assert.equal(results.filter(({ conflict }) => conflict === undefined).length, 1);
      assert.equal(await versionOf(owner), 1);
    });

    /** Waits until this many connections wait for another one. */
    async function waits(count: number): Promise<void> {
      const query = 'select from pg_stat_activity where cardinality(pg_blocking_pids(pid)) > 0';
      while ((await world.sql(query)).length < count);
    }

    it('stores and renewals wait for those of their user only', async () => {
      const [{ owner, stranger }, client] = [await createActors(world), new pg.Client({ connectionString: world.databaseUrl })];
      await store(owner, 0);
      await client.connect();
      try {
        await client.query('begin');
        await client.query('select from ai_sessions.user_states where user_id = $1 for update', [owner.id]);
        await store(stranger, 0);
        // Neither a read nor a refused request waits.
        await read(owner);
        const { request } = signed(owner.id, { purpose: 'store', version: 1, writes: [] });
        expectCode(await send(owner.rest, { request, proof: '0'.repeat(64) }), '42501');
        const waiting = [store(owner, 1), transact(owner, { purpose: 'renew', runner: RUNNER, ids: [], lease_ms: 0 })];
        await waits(waiting.length);
        await client.query('update ai_sessions.user_states set version = version + 1 where user_id = $1', [owner.id]);
        await client.query('commit');
        const results = (await Promise.all(waiting)).map(({ conflict, version }) => ({ conflict, version }));
        assert.deepEqual(results, [{ conflict: true, version: 2 }, { conflict: undefined, version: 2 }]);
      } finally {
        await client.end();
      }
    });

    it('no lock outlives a request', async () => {
      const owner = await newOwner();
      await store(owner, 0);
      const locks = await world.sql(
        `select from pg_locks join pg_class on pg_class.oid = relation where relnamespace = 'ai_sessions'::regnamespace`,
      );
      assert.deepEqual(locks, []);
    });
  });

  describe('with leases', () => {
    const renew = (actor: Actor, members: Members) => transact(actor, { purpose: 'renew', runner: RUNNER, lease_ms: 15_000, ...members });
    const leaseOf = async (id: string) =>
      (await world.sql<{ runner: string | null; ms: number | null }>(
        `select runner, extract(epoch from lease_until - clock_timestamp())::float8 * 1000 as ms from ai_sessions.generations where id = $1`,
        [id],
      ))[0];

    it('a renewal extends the leases of its runner and keeps the version', async () => {
      const owner = await newOwner();
      const [mine = '', theirs = '', free = ''] = ids(3);
      await store(owner, 0, [generation(mine), lease(mine, RUNNER, 1), generation(theirs), lease(theirs, OTHER_RUNNER, 0), generation(free)]);
      const { generations, version } = await renew(owner, { ids: [mine, theirs, free, one()] });
      assert.deepEqual([generations, version], [[{ id: mine, stop: false }], 1]);
      const renewed = await leaseOf(mine);
      assert.ok(renewed?.ms && renewed.ms > 10_000 && renewed.ms <= 15_000, JSON.stringify(renewed));
      assert.ok(Number((await leaseOf(theirs))?.ms) <= 0);
      const state = await read(owner);
      const leased = (state['generations'] as Members[]).filter(({ is_leased }) => is_leased === true);
      assert.deepEqual(leased.map(({ id }) => id), [mine]);
      for (const lease_ms of [-1, 60_001, null]) {
        expectCode(await attempt(owner, { purpose: 'renew', runner: RUNNER, ids: [mine], lease_ms }), '22023', 400);
      }
      expectCode(await attempt(owner, { purpose: 'renew', runner: RUNNER, ids: mine, lease_ms: 1 }), '22023', 400);
    });

    it('a renewal never shortens a lease', async () => {
      const owner = await newOwner();
      const id = one();
      await store(owner, 0, [generation(id), lease(id, RUNNER, 60_000)]);
      await renew(owner, { ids: [id], lease_ms: 0 });
      assert.ok(Number((await leaseOf(id))?.ms) > 50_000);
    });

    it('a runner that lost its lease has a conflict at its next store', async () => {
      const owner = await newOwner();
      const id = one();
      await store(owner, 0, [generation(id), lease(id, RUNNER, 0)]);
      await store(owner, 1, [lease(id, OTHER_RUNNER)]);
      assert.deepEqual((await renew(owner, { ids: [id] }))['generations'], []);
      const conflict = await store(owner, 1, [candidates(id, 0)]);
      assert.equal(conflict['conflict'], true);
      assert.deepEqual((conflict['generations'] as Members[]).map(({ runner }) => runner), [OTHER_RUNNER]);
      assert.deepEqual(conflict['candidates'], []);
    });

    it('a renewal sent before or after a release does not bring the lease back', async () => {
      const owner = await newOwner();
      const id = one();
      const renewal = signed(owner.id, { purpose: 'renew', runner: RUNNER, ids: [id], lease_ms: 15_000 });
      const leased = async () => {
        const [generation] = (await read(owner))['generations'] as Members[];
        return [generation?.['runner'], generation?.['is_leased']];
      };
      await store(owner, 0, [generation(id), lease(id)]);
      await store(owner, 1, [lease(id, RUNNER, 0)]);
      for (const sent of [renewal, signed(owner.id, { purpose: 'renew', runner: RUNNER, ids: [id], lease_ms: 15_000 })]) {
        const answer = await send(owner.rest, sent);
        expectStatus(answer, 200);
        assert.deepEqual((answer.body as Members)['generations'], []);
        assert.deepEqual(await leased(), [RUNNER, false]);
      }
      // The next lease can be renewed again.
      await store(owner, 2, [lease(id, OTHER_RUNNER, 1)]);
      assert.deepEqual((await renew(owner, { runner: OTHER_RUNNER, ids: [id] }))['generations'], [{ id, stop: false }]);
      assert.deepEqual(await leased(), [OTHER_RUNNER, true]);
    });

    it('a released lease is free at once', async () => {
      const owner = await newOwner();
      const id = one();
      await store(owner, 0, [generation(id), lease(id)]);
      await store(owner, 1, [lease(id, null, null)]);
      assert.deepEqual(await leaseOf(id), { runner: null, ms: null });
      assert.deepEqual((await renew(owner, { ids: [id] }))['generations'], []);
    });

    it('a stop reaches the runner with its next store, renewal and poll', async () => {
      const owner = await newOwner();
      const [id = '', other = ''] = ids(2);
      await store(owner, 0, [generation(id), lease(id), generation(other), lease(other)]);
      const stopped = withoutClock(await transact(owner, { purpose: 'stop', id, started_ms: T }));
      assert.deepEqual(stopped, { found: true, version: 1 });
      const renewed = (await renew(owner, { ids: [id, other] }))['generations'] as Members[];
      assert.deepEqual(renewed.filter(({ stop }) => stop === true), [{ id, stop: true }]);
      assert.equal(renewed.length, 2);
      assert.deepEqual((await store(owner, 1, [generation(id, { record: 'sealed again' })]))['stops'], [id]);
      const { generation: polled } = await transact(owner, { purpose: 'poll', id });
      assert.deepEqual(polled, { started_ms: T, ending: null, runner: RUNNER, is_leased: true, stop: true });
    });

    it('a stop is for one run, and for one that is in progress', async () => {
      const owner = await newOwner();
      const id = one();
      await store(owner, 0, [generation(id)]);
      await transact(owner, { purpose: 'stop', id, started_ms: T });
      // The next run of the session.
      assert.deepEqual((await store(owner, 1, [generation(id, { started_ms: T + 1 })]))['stops'], []);
      assert.equal(((await transact(owner, { purpose: 'poll', id }))['generation'] as Members)['started_ms'], T + 1);
      for (const [session, started_ms] of [[id, T], [id, null], [one(), T + 1]] as const) {
        assert.equal((await transact(owner, { purpose: 'stop', id: session, started_ms }))['found'], false);
      }
      await store(owner, 2, [{ write: 'ending', id, ending: record() }]);
      assert.equal((await transact(owner, { purpose: 'stop', id, started_ms: T + 1 }))['found'], false);
    });
  });

  it('a poll has the candidates from a position on', async () => {
    const owner = await newOwner();
    const [id = '', other = ''] = ids(2);
    await store(owner, 0, [generation(id), generation(other), candidates(other, 7), ...[0, 3, 5].map((position) => candidates(id, position))]);
    const polled = async (from?: number) =>
      ((await transact(owner, { purpose: 'poll', id, from }))['candidates'] as Members[]).map(({ position }) => position);
    assert.deepEqual(await polled(), [0, 3, 5]);
    assert.deepEqual(await polled(1), [3, 5]);
    assert.deepEqual(await polled(5), [5]);
    assert.deepEqual(await polled(6), []);
    assert.deepEqual(withoutClock(await transact(owner, { purpose: 'poll', id: one() })), { version: 1, generation: null, candidates: [] });
  });

  it('the ids of one user are not in the way of another', async () => {
    const { owner, stranger } = await createActors(world);
    const id = one();
    await store(owner, 0, [generation(id, { record: 'of the owner' }), candidates(id, 0), idempotencyRecord(id, T)]);
    await store(stranger, 0, [generation(id, { record: 'of the stranger' }), candidates(id, 0), idempotencyRecord(id, T)]);
    const before = withoutClock(await read(owner));
    await store(stranger, 1, [{ write: 'remove_generation', id }, { write: 'remove_all' }]);
    assert.deepEqual(withoutClock(await read(owner)), before);
  });

  it('the deletion of an account deletes its state for good', async () => {
    const { owner, stranger } = await createActors(world);
    const id = one();
    for (const actor of [owner, stranger]) {
      await store(actor, 0, [generation(id), candidates(id, 0), idempotencyRecord(id, T)], { ledger: record() });
    }
    const kept = withoutClock(await read(stranger));
    await world.sql('delete from auth.users where id = $1', [owner.id]);
    assert.deepEqual(withoutClock(await read(owner)), empty);
    assert.equal((await store(owner, 1))['conflict'], true);
    expectCode(await attemptStore(owner, 0, []), '23503', 409);
    assert.deepEqual(withoutClock(await read(owner)), empty);
    assert.deepEqual(withoutClock(await read(stranger)), kept);
  });

  it('each request is a handful of index look-ups', async () => {
    const { owner } = await createActors(world);
    const [id = '', other = ''] = ids(2);
    await store(owner, 0, [generation(id), lease(id), candidates(id, 0), generation(other), idempotencyRecord(id, T)]);
    await world.sql(`
      with users as (insert into auth.users (id) select gen_random_uuid() from generate_series(1, 2000) returning id),
      states as (insert into ai_sessions.user_states (user_id, version) select id, 1 from users returning user_id),
      runs as (
        insert into ai_sessions.generations (user_id, id, started_at, record)
        select user_id, gen_random_uuid(), '2027-01-15Z', 'sealed' from states, generate_series(1, 3) returning user_id, id
      ),
      batches as (insert into ai_sessions.candidates select user_id, id, number, '[]' from runs, generate_series(0, 2) as number)
      insert into ai_sessions.idempotency_records
      select user_id, gen_random_uuid(), '2027-01-15Z', '{"version":1}' from states, generate_series(1, 5)`);
    await world.sql('analyze ai_sessions.user_states, ai_sessions.generations, ai_sessions.candidates, ai_sessions.idempotency_records');

    const client = new pg.Client({ connectionString: world.databaseUrl });
    await client.connect();
    try {
      // Counted from the beginning of the connection, as long as they are not sent to the statistics.
      const counts = async () => {
        const { rows } = await client.query(
          `select sum(seq_scan)::int as tables, sum(idx_scan)::int as indexes, sum(idx_tup_fetch)::int as rows
           from pg_stat_xact_user_tables where schemaname = 'ai_sessions' and relname <> 'service_keys'`,
        );
        return rows[0] as { tables: number; indexes: number; rows: number };
      };
      const scans = async (members: Members) => {
        await client.query('begin');
        const before = await counts();
        await client.query(`select set_config('role', 'authenticated', true), set_config('request.jwt.claims', $1, true)`, [JSON.stringify({ sub: owner.id })]);
        const { request, proof } = signed(owner.id, members);
        await client.query('select public.transact_ai_user_state($1, $2)', [request, proof]);
        await client.query('reset role');
        const { tables, indexes, rows } = await counts();
        await client.query('rollback');
        return { tables: tables - before.tables, indexes: indexes - before.indexes, rows: rows - before.rows };
      };
      const version = await versionOf(owner);
      const admission = [generation(one()), lease(id), candidates(id, 1), idempotencyRecord(one(), T)];
      for (const [members, most] of [
        [{ purpose: 'read' }, 4],
        [{ purpose: 'poll', id, from: 0 }, 3],
        [{ purpose: 'renew', runner: RUNNER, ids: [id, other], lease_ms: 1 }, 2],
        [{ purpose: 'stop', id, started_ms: T }, 2],
        [{ purpose: 'store', version: version + 1, writes: [] }, 5],
        [{ purpose: 'store', version, writes: admission, ledger: record(), wake_at_ms: T }, 11],
        [{ purpose: 'store', version, writes: [{ write: 'remove_generation', id }] }, 6],
      ] as [Members, number][]) {
        const { tables, indexes, rows } = await scans(members);
        assert.equal(tables, 0, `${JSON.stringify(members)}: ${tables} scans of whole tables`);
        assert.ok(indexes <= most, `${JSON.stringify(members)}: ${indexes} index scans`);
        assert.ok(rows <= 16, `${JSON.stringify(members)}: ${rows} rows`);
      }
    } finally {
      await client.end();
    }
  });
});
