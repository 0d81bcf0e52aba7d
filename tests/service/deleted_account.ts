// A deleted account whose access token is still valid: the database rejects its rows, so each generation would be one more
// billed call whose result cannot be stored.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createGate } from '../support/gate.ts';
import { SESSIONS_PATH } from '../support/gateway.ts';
import { gated, goodAnswer } from '../support/model_behaviour.ts';
import { create, expectProblem, read, sendRequest, type SignedIn, signIn, started, type StartService } from './service.ts';

export function tests(start: StartService): void {
  const service = started(start);

  /** Signs in a user and deletes the account. */
  async function deleted(): Promise<SignedIn> {
    const user = await signIn(service());
    await service().world.sql('delete from auth.users where id = $1', [user.id]);
    return user;
  }

  for (const [name, isFast] of [['slower', false], ['faster', true]] as const) {
    describe(`with a model that is ${name} than the database`, () => {
      it('a deleted account is rejected after one model call', async () => {
        const { openrouter, gateway } = service().world;
        const user = await deleted();
        const gate = createGate();
        openrouter.reset();
        openrouter.always(isFast ? goodAnswer : gated(gate));
        const opening = isFast ? gateway.fail(SESSIONS_PATH, { kind: 'gate', gate }) : undefined;
        const first = create(service(), user.token);
        const { over } = await openrouter.arrived(1);
        if (isFast) {
          await over;
          gate.open();
        }
        expectProblem(await first, 500, 'database_error');
        gate.open();
        opening?.clear();
        for (let n = 0; n < 3; n += 1) {
          const refused = await create(service(), user.token);
          expectProblem(refused, 401, 'invalid_token');
          assert.match(refused.headers.get('www-authenticate') ?? '', /^Bearer .*error="invalid_token"/);
        }
        expectProblem(await create(service(), user.token, '{'), 401, 'invalid_token');
        expectProblem(await read(service(), user.token, crypto.randomUUID()), 401, 'invalid_token');
        expectProblem(await sendRequest(service(), 'DELETE', `/ai-sessions/${crypto.randomUUID()}`, { token: user.token }), 401, 'invalid_token');
        assert.equal(openrouter.requests.total, 1);
        openrouter.reset();
      });
    });
  }

  it('a deleted account is rejected after a restart too', async () => {
    const { openrouter } = service().world;
    const user = await deleted();
    expectProblem(await create(service(), user.token), 500, 'database_error');
    await service().restart();
    openrouter.reset();
    expectProblem(await create(service(), user.token), 401, 'invalid_token');
    assert.equal(openrouter.requests.total, 0);
  });

  it('a deleted account does not affect another user', async () => {
    expectProblem(await create(service(), (await deleted()).token), 500, 'database_error');
    assert.equal((await create(service(), (await signIn(service())).token)).status, 201);
  });
}
