// A deleted account on Supabase Edge, whose access token is still valid: its user state cannot be stored, so each request is rejected
// before a model call.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { create, createStream, expectProblem, NoStream, read, sendRequest, type SignedIn, signIn, started } from '../service/service.ts';
import { startOnSupabaseEdge } from './supabase_edge.ts';

const service = started(startOnSupabaseEdge);

async function deleted({ hasState }: { hasState: boolean }): Promise<SignedIn> {
  const user = await signIn(service());
  if (hasState) assert.equal((await create(service(), user.token)).status, 201);
  await service().world.sql('delete from auth.users where id = $1', [user.id]);
  return user;
}

for (const [name, hasState] of [['that has generated', true], ['without a generation', false]] as const) {
  it(`an account ${name} and is deleted causes no model call`, async () => {
    const { openrouter } = service().world;
    const { token } = await deleted({ hasState });
    openrouter.reset();
    for (const body of [undefined, '{']) expectProblem(await create(service(), token, body), 401, 'invalid_token');
    await assert.rejects(createStream(service(), token), (error: NoStream) => {
      expectProblem(error.answer, 401, 'invalid_token');
      return true;
    });
    const missing = `/ai-sessions/${crypto.randomUUID()}`;
    assert.ok([401, 404].includes((await read(service(), token, crypto.randomUUID())).status));
    assert.ok([401, 404].includes((await sendRequest(service(), 'DELETE', missing, { token })).status));
    assert.equal(openrouter.requests.total, 0);
  });
}

it('a deleted account does not affect another user', async () => {
  expectProblem(await create(service(), (await deleted({ hasState: false })).token), 401, 'invalid_token');
  assert.equal((await create(service(), (await signIn(service())).token)).status, 201);
});
