// The alarm of a user's object: what could not be written is written without anybody's call, and an object with nothing to do
// is not woken.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { create, eventually, expectProblem, signIn, type SignedIn } from '../service/service.ts';
import { createGate } from '../support/gate.ts';
import { FINISH_PATH } from '../support/gateway.ts';
import { gated } from '../support/model_behaviour.ts';
import { withObjectState } from './object_state.ts';
import { startAfter, type WorkerdService } from './workerd.ts';

/** Each alarm that is set writes a line with its user. */
const prelude = withObjectState(`
  const { storage } = state;
  const { setAlarm } = storage;
  Object.defineProperty(storage, 'setAlarm', {
    value: (at, options) => {
      console.log('alarm of ' + state.id.name + ' set ' + (Number(at) - Date.now()));
      return setAlarm.call(storage, at, options);
    },
  });
`);

const USERS = 24;
/** The length of the outage, in which the second try to write fails too. */
const DOWN_MS = 5_000;

let service: WorkerdService;
before(async () => {
  service = await startAfter(prelude, { RATE_LIMIT_CONCURRENT: '2' });
});
after(() => service.close());

/** In how many milliseconds each alarm was to go off that was set so far, of one user or of all. */
const alarmsSet = (user = { id: '.*' }): number[] =>
  service.logs.flatMap((line) => new RegExp(`alarm of ${user.id} set (-?\\d+)`).exec(line)?.slice(1).map(Number) ?? []);

async function statusesOf(users: SignedIn[]): Promise<string[]> {
  const rows = await service.world.sql<{ status: string }>('select status from ai_generation_sessions where user_id = any($1)', [users.map(({ id }) => id)]);
  return rows.map(({ status }) => status);
}

describe('the alarm', () => {
  it('writes all paid results of 24 users after the database was down for 5 s', async () => {
    const { gateway, openrouter } = service.world;
    const gate = createGate();
    const users = await Promise.all(Array.from({ length: USERS }, () => signIn(service)));
    openrouter.reset();
    openrouter.always(gated(gate));
    const created = users.map(({ token }) => create(service, token));
    await openrouter.arrived(USERS);
    await eventually('all rows are open', async () => ((await statusesOf(users)).length === USERS ? true : undefined));
    // Each write is cut off. The openings are not: a row whose opening is not confirmed would end as a failure.
    const away = gateway.fail(FINISH_PATH, { kind: 'cut' });
    gate.open();
    for (const failed of await Promise.all(created)) expectProblem(failed, 500, 'database_error');
    // The time itself is what is tested here.
    await pause(DOWN_MS);
    away.clear();
    openrouter.reset();
    assert.ok(away.hits >= 2 * 3 * USERS, `two tries of each, of three requests each: ${away.hits}`);
    await eventually('all are written', async () => {
      const statuses = await statusesOf(users);
      return statuses.every((status) => status === 'completed') ? true : undefined;
    }, 60_000);
  });

  it('that goes off after the token’s end is not set again and again, and a later generation survives a crash', async () => {
    const { auth, gateway, openrouter } = service.world;
    const user = await signIn(service);
    const began_ms = Date.now();
    // It ends after the second try is due, which comes 2 s after the first one.
    const LIFE_S = 4;
    const token = auth.token(user, { expires_in_s: LIFE_S });
    const broken = gateway.fail((request) => request.path === FINISH_PATH && request.headers['authorization'] === `Bearer ${token}`, { kind: 'answer', status: 503 });
    expectProblem(await create(service, token), 500, 'database_error');
    // The process stands still until the token has ended: the alarm goes off late.
    process.kill(service.pid, 'SIGSTOP');
    await pause(began_ms + LIFE_S * 1000 - Date.now());
    const before = alarmsSet(user).length;
    process.kill(service.pid, 'SIGCONT');
    // For so long the alarms are counted; a loop sets 130 a second.
    await pause(3_000);
    const set = alarmsSet(user).slice(before);
    assert.ok(set.length <= 2, `alarms in 3 s: ${set.length}`);
    broken.clear();

    const gate = createGate();
    openrouter.next(gated(gate));
    const accepted = await create(service, user.token, undefined, { prefer: 'respond-async' });
    assert.equal(accepted.status, 202, accepted.text);
    await gate.reached;
    gate.open();
    openrouter.reset();
    await service.kill();
    await eventually('both are written without a call', async () => {
      const statuses = await statusesOf([user]);
      return statuses.length === 2 && statuses.every((status) => status === 'completed') ? true : undefined;
    }, 40_000);
  });

  it('is never sooner than a second from when it is set', () => {
    const sooner = alarmsSet().filter((in_ms) => in_ms < 990);
    assert.ok(alarmsSet().length > USERS);
    assert.deepEqual(sooner, []);
  });
});
