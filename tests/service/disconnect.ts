// A client that disconnects after its request was accepted loses nothing.

import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { once } from 'node:events';
import { it } from 'node:test';
import { createGate, type Gate } from '../support/gate.ts';
import { answer, gated, httpError, type ModelBehaviour } from '../support/model_behaviour.ts';
import { create, eventually, lesson, read, remaining, type Row, rowsOf, sendRequest, type Service, type SignedIn, signIn, started, type StartService } from './service.ts';

export function tests(start: StartService): void {
  const service = started(start);

  const behaviours: [name: string, held: (gate: Gate) => ModelBehaviour][] = [
    ['before the first candidate', (gate) => gated(gate)],
    ['between two candidates', (gate) => answer({ hold: { gate, after_candidates: 3 } })],
  ];
  for (const [name, held] of behaviours) {
    it(`a client that leaves ${name} finds its session completed`, async () => {
      const { openrouter } = service().world;
      const gate = createGate();
      const user = await signIn(service());
      openrouter.reset();
      openrouter.next(held(gate));
      await leaveAt(service(), user, gate);
      gate.open();
      assert.equal(await (await openrouter.arrived(1)).over, 'answered');
      const session = await ended(service(), user);
      assert.deepEqual([session['status'], session['partial']], ['completed', false]);
      const { candidates, events } = await rowsOf(service(), user);
      assert.equal(candidates.length, 20);
      assert.deepEqual(events.map(({ type }) => type), ['ai_session.completed']);
      const found = await read(service(), user.token, session['id']);
      assert.deepEqual([found.status, found.body.status, found.body.candidates.length], [200, 'completed', 20]);
      assert.equal(openrouter.requests.total, 1);
      assert.deepEqual(remaining(await create(service(), user.token)), { burst: 8, generations: 48 });
    });
  }

  it('a client that leaves before a failure is not charged', async () => {
    const { openrouter } = service().world;
    const gate = createGate();
    const user = await signIn(service());
    openrouter.reset();
    openrouter.next(gated(gate, httpError(402)));
    await leaveAt(service(), user, gate);
    gate.open();
    const session = await ended(service(), user);
    assert.deepEqual([session['status'], session['error_code']], ['failed', 'ai_misconfigured']);
    assert.deepEqual(remaining(await create(service(), user.token)), { burst: 8, generations: 49 });
  });

  it('a generation without its client counts as concurrent until it ends', async () => {
    const { openrouter } = service().world;
    const gates = [createGate(), createGate()];
    const user = await signIn(service());
    openrouter.reset();
    for (const gate of gates) {
      openrouter.next(gated(gate));
      await leaveAt(service(), user, gate);
    }
    assert.equal((await create(service(), user.token)).status, 429);
    for (const gate of gates) gate.open();
    await eventually('both have ended', async () => {
      const { sessions } = await rowsOf(service(), user);
      return sessions.length === 2 && sessions.every(({ status }) => status === 'completed') ? sessions : undefined;
    });
    assert.equal((await create(service(), user.token)).status, 201);
  });

  it('a client that leaves in the middle of its body starts nothing', async () => {
    const { openrouter } = service().world;
    const user = await signIn(service());
    openrouter.reset();
    const { hostname, port, pathname } = new URL(`${service().url}/ai-sessions`);
    const socket = connect(Number(port), hostname);
    await once(socket, 'connect');
    const body = JSON.stringify({ input_text: lesson(), model: 'test/first' });
    socket.write(
      `POST ${pathname} HTTP/1.1\r\nHost: ${hostname}\r\nAuthorization: Bearer ${user.token}\r\n` +
        `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body.slice(0, -1)}`,
    );
    socket.destroySoon();
    await once(socket, 'close');
    // A generation of that request would be ahead of this one.
    const created = await create(service(), user.token);
    assert.equal(created.status, 201, created.text);
    assert.equal(openrouter.requests.total, 1);
    assert.deepEqual((await rowsOf(service(), user)).sessions.map(({ id }) => id), [created.body.id]);
  });
}

/** Starts a generation and disconnects when the model waits at the gate and the row is open. */
async function leaveAt(service: Service, { token, ...user }: SignedIn, gate: Gate): Promise<void> {
  const leaving = new AbortController();
  const before = (await rowsOf(service, user)).sessions.length;
  const body = { input_text: lesson(), model: 'test/first' };
  const pending = sendRequest(service, 'POST', '/ai-sessions', { token, body, signal: leaving.signal });
  const left = assert.rejects(pending, { name: 'AbortError' });
  await gate.reached;
  await eventually('the row is open', async () => (await rowsOf(service, user)).sessions[before]);
  leaving.abort();
  await left;
}

/** Waits until the user's first session has ended. */
function ended(service: Service, user: SignedIn): Promise<Row> {
  return eventually('the session ends', async () => {
    const [session] = (await rowsOf(service, user)).sessions;
    return session?.['status'] === 'generating' ? undefined : session;
  });
}
