// The requests that the service sends to the user state, as tests/core builds them, and the replies that tests/core reads.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { startWorld, type World } from '../support/world.ts';
import { expectStatus } from './actors.ts';
import { type Members, proofOf, send, setKey, type Signed } from './user_state.ts';

type Fixture = {
  key: string;
  user: string;
  at_ms: number;
  requests: { name: string; body: Signed; reply: Members }[];
};

const file = new URL('../fixtures/user_state_requests.json', import.meta.url);
const fixture = JSON.parse(readFileSync(file, 'utf8')) as Fixture;

describe('the requests of the service to the user state', () => {
  let world: World;
  before(async () => {
    world = await startWorld({ model: false });
    await setKey(world, fixture.key);
    await world.sql('insert into auth.users (id) values ($1)', [fixture.user]);
  });
  after(() => world.close());

  it('Postgres accepts the proof of each request', async () => {
    assert.equal(fixture.requests.length, 14);
    for (const { name, body } of fixture.requests) {
      assert.equal(proofOf(body.request, fixture.key), body.proof, name);
      const values = [body.request, body.proof, fixture.at_ms];
      const [row] = await world.sql('select ai_sessions.verify_request($1, $2, null, to_timestamp($3::bigint / 1000.0)) as verified', values);
      assert.deepEqual(row?.['verified'], JSON.parse(body.request), name);
    }
  });

  it('each request has the reply that the service reads', async () => {
    const replies: Members[] = [];
    for (const { body } of fixture.requests) {
      const request = body.request.replace(`"at_ms":${fixture.at_ms},`, `"at_ms":${Date.now()},`);
      assert.notEqual(request, body.request);
      const answer = await send(world.rest(), { request, proof: proofOf(request, fixture.key) });
      expectStatus(answer, 200);
      replies.push({ ...(answer.body as Members), clock_ms: fixture.at_ms });
    }
    assert.deepEqual(replies, fixture.requests.map(({ reply }) => reply), `the replies are\n${JSON.stringify(replies)}`);
  });
});
