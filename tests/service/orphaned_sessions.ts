// A generating session without a generation: the user object abandoned it, or a user inserted it past the service. It is
// ended once any session would have reached its deadline.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Answer, create, expectProblem, lesson, read, rowsOf, sendRequest, type SignedIn, signIn, started, type StartService } from './service.ts';

const AI_TIMEOUT_MS = 5_000;
/** From its creation: AI_TIMEOUT_MS + 60 s. */
const END_MS = AI_TIMEOUT_MS + 60_000;

export function tests(start: StartService): void {
  const service = started(start, { AI_TIMEOUT_MS: String(AI_TIMEOUT_MS) });

  /** Inserts a session past the service, created that long ago. */
  async function opened(age_ms: number): Promise<{ user: SignedIn; id: string }> {
    const user = await signIn(service());
    const id = crypto.randomUUID();
    const row = { id, model: 'test/first', input_text: lesson(), created_at: new Date(Date.now() - age_ms) };
    const { status } = await service().world.rest(user.token)('POST', '/ai_generation_sessions', row);
    assert.equal(status, 201);
    return { user, id };
  }

  async function expectEnded(user: SignedIn, id: string): Promise<void> {
    const { sessions, events } = await rowsOf(service(), user);
    assert.deepEqual(sessions.map(({ id, status, error_code }) => [id, status, error_code]), [[id, 'failed', 'database_error']]);
    assert.deepEqual(events.map(({ type, session_id, data }) => [type, session_id, data.code]), [['ai_session.failed', id, 'database_error']]);
  }

  describe('after its deadline', () => {
    const ways: [name: string, send: (user: SignedIn, id: string) => Promise<Answer>, expect: (response: Answer) => void][] = [
      [
        'GET reports a failure',
        (user, id) => read(service(), user.token, id),
        ({ status, body, headers }) => {
          assert.deepEqual([status, body.status, body.error, body.candidates], [200, 'failed', 'database_error', []]);
          assert.equal(headers.get('retry-after'), null);
        },
      ],
      [
        'its events end with an error',
        (user, id) => sendRequest(service(), 'GET', `/ai-sessions/${id}/events`, { token: user.token }),
        ({ status, text }) => {
          assert.equal(status, 200, text);
          assert.match(text, /event: error\ndata: .*"code":"database_error".*\n\n$/);
        },
      ],
      ['DELETE is not_running', (user, id) => sendRequest(service(), 'DELETE', `/ai-sessions/${id}`, { token: user.token }), (response) => void expectProblem(response, 409, 'not_running')],
    ];
    for (const [name, askFor, expect] of ways) {
      it(`an orphaned session is ended with one event: ${name}`, async () => {
        const { user, id } = await opened(END_MS + 1_000);
        expect(await askFor(user, id));
        await expectEnded(user, id);
        expect(await askFor(user, id));
        await expectEnded(user, id);
      });
    }

    it('concurrent reads end an orphaned session once', async () => {
      const { user, id } = await opened(END_MS + 1_000);
      const found = await Promise.all(Array.from({ length: 8 }, () => read(service(), user.token, id)));
      for (const { status, body } of found) assert.deepEqual([status, body.status, body.error], [200, 'failed', 'database_error']);
      await expectEnded(user, id);
    });

    it('only its owner ends an orphaned session', async () => {
      const { user, id } = await opened(END_MS + 1_000);
      const stranger = await signIn(service());
      expectProblem(await read(service(), stranger.token, id), 404, 'not_found');
      expectProblem(await sendRequest(service(), 'DELETE', `/ai-sessions/${id}`, { token: stranger.token }), 404, 'not_found');
      const { sessions, events } = await rowsOf(service(), user);
      assert.deepEqual([sessions[0]?.['status'], events], ['generating', []]);
    });

    it('a database that rejects the end of an orphaned session is reported', async () => {
      const { user, id } = await opened(END_MS + 1_000);
      const away = service().world.gateway.fail(({ path, headers }) => path.endsWith('/finish_ai_session') && headers['authorization'] === `Bearer ${user.token}`, { kind: 'answer', status: 503 });
      expectProblem(await read(service(), user.token, id), 500, 'database_error');
      away.clear();
      assert.equal((await read(service(), user.token, id)).body.error, 'database_error');
      await expectEnded(user, id);
    });
  });

  describe('before its deadline', () => {
    it('an orphaned session before its deadline is generating', async () => {
      const { user, id } = await opened(END_MS - 20_000);
      const found = await read(service(), user.token, id);
      assert.deepEqual([found.status, found.body.status, found.body.ended_at], [200, 'generating', null]);
      assert.match(found.headers.get('retry-after') ?? '', /^[1-9]\d*$/);
      expectProblem(await sendRequest(service(), 'GET', `/ai-sessions/${id}/events`, { token: user.token }), 500, 'database_error');
      expectProblem(await sendRequest(service(), 'DELETE', `/ai-sessions/${id}`, { token: user.token }), 409, 'not_running');
      const { sessions, events } = await rowsOf(service(), user);
      assert.deepEqual([sessions.map(({ status }) => status), events], [['generating'], []]);
    });

    it('an orphaned session does not count as concurrent', async () => {
      const { user } = await opened(0);
      assert.equal((await create(service(), user.token)).status, 201);
    });
  });
}
