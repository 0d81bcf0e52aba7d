import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { type RestAnswer, startWorld, type World } from '../support/world.ts';
import {
  type Actors,
  completed,
  createActors,
  endedSession,
  expectForbidden,
  expectStatus,
  failed,
  FINISH,
  nextRun,
  openSession,
  REOPEN,
  storedRows,
  TEXT,
} from './actors.ts';

describe('reopen_ai_session', () => {
  let world: World;
  let actors: Actors;
  before(async () => {
    world = await startWorld({ model: false });
    actors = await createActors(world);
  });
  after(() => world.close());

  const reopen = (args: object) => actors.owner.rest('POST', REOPEN, args);
  const stored = (id: string) => storedRows(world, id);

  function expectReturned(answer: RestAnswer, status: string): void {
    expectStatus(answer, 200);
    assert.equal(answer.body, status);
  }

  it('reopening a failed session begins its next run', async () => {
    const id = await endedSession(actors.owner, failed);
    const { session: before } = await stored(id);
    expectReturned(await reopen(nextRun(id)), 'generating');

    const { session, events } = await stored(id);
    assert.deepEqual(session, {
      ...before,
      status: 'generating',
      run: 2,
      partial: false,
      error_code: null,
      prompt_tokens: null,
      completion_tokens: null,
      cost: null,
      ended_at: null,
    });
    assert.deepEqual(events.map(({ run, type }) => [run, type]), [[1, 'ai_session.failed']]);
  });

  for (const code of ['ai_unavailable', 'ai_timeout', 'ai_invalid_response', 'database_error', 'cancelled']) {
    it(`a session with ${code} can be reopened`, async () => {
      const id = await endedSession(actors.owner, (id) => failed(id, code));
      expectReturned(await reopen(nextRun(id)), 'generating');
    });
  }

  for (const code of ['ai_refused', 'ai_misconfigured', 'internal', 'x']) {
    it(`a session with ${code} is not reopened`, async () => {
      const id = await endedSession(actors.owner, (id) => failed(id, code));
      const before = await stored(id);
      expectReturned(await reopen(nextRun(id)), 'failed');
      assert.deepEqual(await stored(id), before);
    });
  }

  it('a completed session is not reopened', async () => {
    const id = await endedSession(actors.owner, (id) => completed(id));
    const before = await stored(id);
    expectReturned(await reopen(nextRun(id, { run: 9 })), 'completed');
    assert.deepEqual(await stored(id), before);
  });

  it('repeated and concurrent calls begin one run', async () => {
    const id = await endedSession(actors.owner, failed);
    const answers = await Promise.all(Array.from({ length: 8 }, () => reopen(nextRun(id))));
    for (const answer of answers) expectReturned(answer, 'generating');
    const before = await stored(id);
    expectReturned(await reopen(nextRun(id)), 'generating');
    assert.deepEqual(await stored(id), before);
    assert.equal(before.session?.['run'], 2);
  });

  it('an ended run is not reopened', async () => {
    const id = await endedSession(actors.owner, failed);
    expectStatus(await actors.owner.rest('POST', FINISH, failed(id, 'ai_timeout', { run: 3 })), 200);
    const before = await stored(id);
    for (const run of [1, 2, 3]) expectReturned(await reopen(nextRun(id, { run })), 'failed');
    assert.deepEqual(await stored(id), before);
    expectReturned(await reopen(nextRun(id, { run: 4 })), 'generating');
  });

  it('a session whose earlier run has no end is reopened', async () => {
    const id = await openSession(actors.owner);
    expectReturned(await reopen(nextRun(id)), 'generating');
    assert.equal((await stored(id)).session?.['run'], 2);
  });

  it('a missing session is opened once, in that run', async () => {
    const id = crypto.randomUUID();
    const args = nextRun(id, { input_text: TEXT, created_at: '2026-11-24T10:00:00.123Z' });
    const answers = await Promise.all(Array.from({ length: 8 }, () => reopen(args)));
    for (const answer of answers) expectReturned(answer, 'generating');
    const { session, events } = await stored(id);
    assert.equal(session?.['user_id'], actors.owner.id);
    assert.equal(session?.['run'], 2);
    assert.equal(session?.['input_text'], TEXT);
    assert.equal((session?.['created_at'] as Date).toISOString(), '2026-11-24T10:00:00.123Z');
    assert.deepEqual(events, []);
  });

  it('the input and time of the first run are kept', async () => {
    const id = await endedSession(actors.owner, failed);
    const { session: before } = await stored(id);
    const other = { input_text: `${TEXT} changed`, created_at: '2020-01-01T00:00:00Z', model: 'other/model' };
    expectReturned(await reopen(nextRun(id, other)), 'generating');
    const { session } = await stored(id);
    for (const column of ['input_text', 'model', 'created_at']) assert.deepEqual(session?.[column], before?.[column]);
  });

  it('a call without an opening for a missing session is a 404', async () => {
    expectStatus(await reopen(nextRun(crypto.randomUUID())), 404);
  });

  it("a stranger's call is a 404 and changes nothing", async () => {
    for (const id of [await endedSession(actors.owner, failed), await openSession(actors.owner)]) {
      const before = await stored(id);
      for (const input_text of [null, TEXT]) {
        expectStatus(await actors.stranger.rest('POST', REOPEN, nextRun(id, { input_text })), 404);
      }
      assert.deepEqual(await stored(id), before);
    }
  });

  it('only authenticated users can call reopen_ai_session', async () => {
    const id = await endedSession(actors.owner, failed);
    expectForbidden(await actors.anonymous('POST', REOPEN, nextRun(id)));
    expectForbidden(await world.rest(world.serviceKey)('POST', REOPEN, nextRun(id)));
  });

  it('a call without an id is rejected', async () => {
    const answer = await reopen({ session: { run: 2 } });
    expectStatus(answer, 400);
    assert.equal((answer.body as { code: string }).code, '22023');
  });
});
