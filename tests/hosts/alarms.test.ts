// The alarm of a user object: results not yet persisted are persisted without a request, and an idle object has no alarm.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { create, eventually, expectProblem, signIn, type SignedIn } from '../service/service.ts';
import { createGate } from '../support/gate.ts';
import { FINISH_PATH } from '../support/gateway.ts';
import { gated } from '../support/model_behaviour.ts';
import { withObjectState } from './object_state.ts';
import { startAfter, type WorkerdService } from './workerd.ts';

/** Logs a line with the user for each alarm that is set. */
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
/** The outage, in which the second attempt to write fails too. */
const DOWN_MS = 5_000;

let service: WorkerdService;
before(async () => {
  service = await startAfter(prelude, { RATE_LIMIT_CONCURRENT: '2' });
});
after(() => service.close());

/** The delays in milliseconds of all alarms so far, of one user or of all. */
const alarmsSet = (user = { id: '.*' }): number[] =>
  service.logs.flatMap((line) => new RegExp(`alarm of ${user.id} set (-?\\d+)`).exec(line)?.slice(1).map(Number) ?? []);

async function statusesOf(users: SignedIn[]): Promise<string[]> {
  const rows = await service.world.sql<{ status: string }>('select status from ai_generation_sessions where user_id = any($1)', [users.map(({ id }) => id)]);
  return rows.map(({ status }) => status);
}

describe('the alarm', () => {
  it('the results of 24 users are stored after an outage of 5 s', async () => {
    const { gateway, openrouter } = service.world;
    const gate = createGate();
    const users = await Promise.all(Array.from({ length: USERS }, () => signIn(service)));
    openrouter.reset();
    openrouter.always(gated(gate));
    const created = users.map(({ token }) => create(service, token));
    await openrouter.arrived(USERS);
    await eventually('all rows are open', async () => ((await statusesOf(users)).length === USERS ? true : undefined));
    // Each write is cut. The openings are not: a row whose opening is not confirmed would end as a failure.
    const away = gateway.fail(FINISH_PATH, { kind: 'cut' });
    gate.open();
    for (const failed of await Promise.all(created)) expectProblem(failed, 500, 'database_error');
    // This test is about the time itself.
    await pause(DOWN_MS);
    away.clear();
    openrouter.reset();
    assert.ok(away.hits >= 2 * 3 * USERS, `two attempts each, of three requests each: ${away.hits}`);
    await eventually('all are stored', async () => {
      const statuses = await statusesOf(users);
      return statuses.every((status) => status === 'completed') ? true : undefined;
    }, 60_000);
  });

  it('an alarm after the token expired is not set again in a loop', async () => {
    const { auth, gateway, openrouter } = service.world;
    const user = await signIn(service);
    const began_ms = Date.now();
    // It expires after the second attempt is due, 2 s after the first.
    const LIFE_S = 4;
    const token = auth.token(user, { expires_in_s: LIFE_S });
    const broken = gateway.fail((request) => request.path === FINISH_PATH && request.headers['authorization'] === `Bearer ${token}`, { kind: 'answer', status: 503 });
    expectProblem(await create(service, token), 500, 'database_error');
    // The process is stopped until the token has expired: the alarm fires late.
    process.kill(service.pid, 'SIGSTOP');
    await pause(began_ms + LIFE_S * 1000 - Date.now());
    const before = alarmsSet(user).length;
    process.kill(service.pid, 'SIGCONT');
    // The alarms are counted for this long; a loop sets 130 a second.
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
    await eventually('both are stored without a request', async () => {
      const statuses = await statusesOf([user]);
      return statuses.length === 2 && statuses.every((status) => status === 'completed') ? true : undefined;
    }, 40_000);
  });

  it('an alarm is never due sooner than a second from now', () => {
    const sooner = alarmsSet().filter((in_ms) => in_ms < 990);
    assert.ok(alarmsSet().length > USERS);
    assert.deepEqual(sooner, []);
  });
});
