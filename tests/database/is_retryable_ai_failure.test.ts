import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { startWorld, type World } from '../support/world.ts';
import { type Actors, createActors, expectForbidden, expectStatus } from './actors.ts';

const PATH = '/rpc/is_retryable_ai_failure';

describe('is_retryable_ai_failure', () => {
  let world: World;
  let actors: Actors;
  before(async () => {
    world = await startWorld({ model: false });
    actors = await createActors(world);
  });
  after(() => world.close());

  it("every code has the value of the service's table", async () => {
    const table = await readFile(new URL('../../src/http/problem.rs', import.meta.url), 'utf8');
    const rows = [...table.matchAll(/^ +[A-Z]\w+ "([a-z_]+)" \d{3} (None|Some\(false\)|Some\(true\)), "/gm)];
    const retryable = rows.filter(([, , word]) => word === 'Some(true)').map(([, code]) => code);
    assert.ok(retryable.length > 0 && rows.length > retryable.length, 'the table was found');

    const codes = rows.map(([, code]) => code);
    const yes = await world.sql<{ code: string }>(
      'select code from unnest($1::text[]) as code where public.is_retryable_ai_failure(code)',
      [codes],
    );
    assert.deepEqual(yes.map(({ code }) => code), retryable);
  });

  it('an unknown code is not retryable', async () => {
    for (const error_code of ['', 'x', 'AI_TIMEOUT', 'ai_timeout ']) {
      const answer = await actors.owner.rest('POST', PATH, { error_code });
      expectStatus(answer, 200);
      assert.equal(answer.body, false);
    }
  });

  it('only authenticated users can call is_retryable_ai_failure', async () => {
    expectForbidden(await actors.anonymous('POST', PATH, { error_code: 'ai_timeout' }));
    expectForbidden(await world.rest(world.serviceKey)('POST', PATH, { error_code: 'ai_timeout' }));
  });
});
