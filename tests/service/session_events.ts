// GET /ai-sessions/{id}/events: one list for every subscriber, at any time and from any event. A stream that is cut at any
// byte and resumed has, joined, the bytes of one that was not cut.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseEvents } from '../support/event_stream.ts';
import { createGate } from '../support/gate.ts';
import { SESSIONS_PATH } from '../support/gateway.ts';
import { answer, httpError } from '../support/model_behaviour.ts';
import { seededChoices, seedFrom } from '../support/seeded_random.ts';
import {
  create,
  createStream,
  expectList,
  expectProblem,
  lesson,
  ofTheList,
  openStream,
  rowsOf,
  sendRequest,
  type SignedIn,
  signIn,
  started,
  type StartService,
  subscribe,
} from './service.ts';

/** Concurrent subscribers of one session. */
const SUBSCRIBERS_MAX = 8;

const seed = seedFrom('CUT_SEED');
const choices = seededChoices(seed);

export function tests(start: StartService): void {
  describe(`cut and resumed (CUT_SEED=${seed})`, () => resumed(start));
  describe('for a late subscriber', () => late(start));
  describe('after Last-Event-ID', () => after(start));
  describe('of a repeated session', () => again(start));
  describe('for others', () => strangers(start));
}

/** Every border of an event, and random places. */
function cutsOf(bytes: Buffer, random: number): number[] {
  const borders = [0];
  for (let at = bytes.indexOf('\n\n'); at >= 0; at = bytes.indexOf('\n\n', at + 1)) borders.push(at + 2);
  return [...borders, ...Array.from({ length: random }, () => choices.between(1, bytes.length - 1))];
}

/** The whole events of a stream that was cut there, and the id of the last one. */
function wholeEventsBefore(bytes: Buffer, cut: number): { whole: Buffer; lastEventId?: string } {
  const whole = bytes.subarray(0, cut).subarray(0, bytes.subarray(0, cut).lastIndexOf('\n\n') + 2);
  const id = parseEvents(whole).at(-1)?.id;
  return id === undefined ? { whole: Buffer.alloc(0) } : { whole, lastEventId: id };
}

function resumed(start: StartService): void {
  const service = started(start);

  /** Resumes after each of these cuts of the received bytes, concurrently; the result must be `uncut`. */
  const resumeAll = async (user: SignedIn, id: string, soFar: Buffer, cuts: number[], uncut: () => Promise<Buffer>) => {
    const readers = await Promise.all(
      cuts.map(async (cut) => {
        const { whole, lastEventId } = wholeEventsBefore(soFar, cut);
        return { cut, whole, rest: await subscribe(service(), user.token, id, lastEventId) };
      }),
    );
    const expected = (await uncut()).toString();
    for (const { cut, whole, rest } of readers) {
      await rest.whole();
      assert.equal(Buffer.concat([whole, rest.bytes]).toString(), expected, `cut after ${cut} bytes`);
    }
  };

  it('a running stream can be resumed at any byte by 8 subscribers', async () => {
    const user = await signIn(service());
    // The cuts are those of one stream; the others have the same length.
    let cuts: number[] | undefined;
    do {
      const gate = createGate();
      service().world.openrouter.next(answer({ hold: { gate, after_candidates: 9 } }));
      const stream = await createStream(service(), user.token);
      const [session] = await stream.some(10);
      cuts ??= cutsOf(stream.bytes, 40);
      await resumeAll(user, session?.data.id, stream.bytes, cuts.splice(0, SUBSCRIBERS_MAX - 1), async () => {
        gate.open();
        await stream.whole();
        return stream.bytes;
      });
      expectList(stream.events, 20, 'done');
    } while (cuts.length > 0);
  });

  it('an ended stream can be resumed at any byte', async () => {
    const user = await signIn(service());
    const stream = await createStream(service(), user.token, { input_text: lesson(40), model: 'test/first' });
    const { id } = expectList(await stream.whole(), 20, 'done');
    await resumeAll(user, id, stream.bytes, cutsOf(stream.bytes, 40), async () => stream.bytes);
  });

  it('a stream can be resumed at any byte after a restart', async () => {
    const user = await signIn(service());
    service().world.openrouter.next(answer({ whole_candidates: 6, plus_chars: 9, instead_of_end: 'cut' }));
    const stream = await createStream(service(), user.token);
    const { id, partial } = expectList(await stream.whole(), 6, 'done');
    assert.equal(partial, true);
    await service().restart();
    await resumeAll(user, id, stream.bytes, cutsOf(stream.bytes, 10), async () => stream.bytes);
  });

  it('a failed stream can be resumed at any byte', async () => {
    const user = await signIn(service());
    service().world.openrouter.next(httpError(402));
    const stream = await createStream(service(), user.token);
    const events = await stream.whole();
    expectList(events, 0, 'error');
    for (const cut of cutsOf(stream.bytes, 10)) {
      const { whole, lastEventId } = wholeEventsBefore(stream.bytes, cut);
      const rest = await subscribe(service(), user.token, events[0]?.data.id, lastEventId);
      const joined = [...parseEvents(whole), ...(await rest.whole())];
      assert.deepEqual(joined.map(ofTheList), events.map(ofTheList), `cut after ${cut} bytes`);
    }
  });

  it('a stream can be resumed many times', async () => {
    const user = await signIn(service());
    service().world.openrouter.next(answer({ pause_ms: 2 }));
    let stream = await createStream(service(), user.token);
    const joined = [await stream.next()];
    while (joined.at(-1)?.event !== 'done') {
      const count = choices.between(1, 4);
      for (let n = 0; n < count && joined.at(-1)?.event !== 'done'; n += 1) joined.push(await stream.next());
      stream.leave();
      stream = await subscribe(service(), user.token, joined[0]?.data.id, joined.at(-1)?.id);
    }
    assert.deepEqual(await stream.whole(), []);
    expectList(joined, 20, 'done');
    assert.deepEqual(joined, await (await subscribe(service(), user.token, joined[0]?.data.id)).whole());
  });
}

function late(start: StartService): void {
  const service = started(start);

  it('a late subscriber receives the list so far, then the rest', async () => {
    const gate = createGate();
    const { token } = await signIn(service());
    service().world.openrouter.next(answer({ hold: { gate, after_candidates: 5 } }));
    const first = await createStream(service(), token);
    const soFar = await first.some(6);
    const others = await Promise.all(Array.from({ length: SUBSCRIBERS_MAX - 1 }, () => subscribe(service(), token, soFar[0]?.data.id)));
    for (const other of others) assert.deepEqual(await other.some(6), soFar);
    gate.open();
    const events = await first.whole();
    expectList(events, 20, 'done');
    for (const other of others) assert.deepEqual(await other.whole(), events);
  });

  it('a generation without a subscriber has its events', async () => {
    const gate = createGate();
    const { token } = await signIn(service());
    service().world.openrouter.next(answer({ hold: { gate, after_candidates: 3 } }));
    const accepted = await create(service(), token, undefined, { prefer: 'respond-async' });
    assert.equal(accepted.status, 202, accepted.text);
    const stream = await subscribe(service(), token, accepted.body.id);
    assert.deepEqual((await stream.some(4)).map(({ id }) => id), ['1.0', '1.1', '1.2', '1.3']);
    gate.open();
    expectList(await stream.whole(), 20, 'done');
  });

  it('a session of sync mode has the same events', async () => {
    const { token } = await signIn(service());
    const { body } = await create(service(), token);
    const events = await (await subscribe(service(), token, body.id)).whole();
    expectList(events, 20, 'done');
    assert.deepEqual(events.slice(1, -1).map(({ data: { index, ...candidate } }) => candidate), body.candidates);
  });

  it('the response headers equal those of the POST stream', async () => {
    const gate = createGate();
    const { token } = await signIn(service());
    const headers = { origin: 'https://cards.example', accept: 'application/json', 'accept-encoding': 'gzip, br' };
    service().world.openrouter.next(answer({ hold: { gate, after_candidates: 1 } }));
    const first = await createStream(service(), token);
    const { data: { id } } = await first.next();
    const running = await openStream(service(), 'GET', `/ai-sessions/${id}/events`, { token, headers });
    gate.open();
    await Promise.all([first.whole(), running.whole()]);
    const stored = await openStream(service(), 'GET', `/ai-sessions/${id}/events`, { token, headers });
    assert.deepEqual(stored.headers.get('location'), running.headers.get('location'));
    for (const stream of [running, stored]) {
      assert.equal(stream.headers.get('cache-control'), 'no-store, no-transform');
      assert.equal(stream.headers.get('content-encoding'), null);
      assert.equal(stream.headers.get('access-control-allow-origin'), 'https://cards.example');
      assert.ok(stream.headers.get('x-request-id'));
      expectList(await stream.whole(), 20, 'done');
    }
  });
}

function after(start: StartService): void {
  const service = started(start);

  it('a Last-Event-ID that is no event id is refused', async () => {
    const { token } = await signIn(service());
    const { body } = await create(service(), token);
    for (const id of ['x', '1', '1.', '-1.0', '1.0.0', '1.4294967296', crypto.randomUUID()]) {
      const refused = await sendRequest(service(), 'GET', `/ai-sessions/${body.id}/events`, { token, headers: { 'last-event-id': id } });
      const problem = expectProblem(refused, 400, 'invalid_parameter');
      assert.deepEqual(problem.errors.map(({ field }: { field: string }) => field), ['Last-Event-ID'], id);
    }
  });

  it('the events after the end are none, after another run all', async () => {
    const { token } = await signIn(service());
    const events = await (await createStream(service(), token)).whole();
    const id = events[0]?.data.id;
    for (const lastId of ['1.21', '1.22', '1.4294967295']) {
      assert.deepEqual(await (await subscribe(service(), token, id, lastId)).whole(), [], lastId);
    }
    for (const lastId of ['0.5', '2.0', '7.21']) assert.deepEqual(await (await subscribe(service(), token, id, lastId)).whole(), events, lastId);
  });

  it('a subscriber that has all events waits for the next ones', async () => {
    const gate = createGate();
    const { token } = await signIn(service());
    service().world.openrouter.next(answer({ hold: { gate, after_candidates: 2 } }));
    const first = await createStream(service(), token);
    const [session] = await first.some(3);
    const readers = await Promise.all(['1.2', '1.4', '1.500'].map((lastId) => subscribe(service(), token, session?.data.id, lastId)));
    gate.open();
    const events = await first.whole();
    const [rest, more, beyond] = await Promise.all(readers.map((reader) => reader.whole()));
    assert.deepEqual([rest, more, beyond], [events.slice(3), events.slice(5), []]);
  });

  it('a new generation ignores Last-Event-ID', async () => {
    const { token } = await signIn(service());
    const stream = await createStream(service(), token, undefined, { 'last-event-id': '1.7' });
    expectList(await stream.whole(), 20, 'done');
  });

  it('the same POST with its key resumes the stream', async () => {
    const gate = createGate();
    const { openrouter } = service().world;
    const { token } = await signIn(service());
    openrouter.reset();
    openrouter.next(answer({ hold: { gate, after_candidates: 4 } }));
    const key = { 'idempotency-key': '"one"' };
    const first = await createStream(service(), token, undefined, key);
    const received = await first.some(5);
    first.leave();
    const running = await createStream(service(), token, undefined, { ...key, 'last-event-id': first.lastEventId });
    gate.open();
    const joined = [...received, ...(await running.whole())];
    expectList(joined, 20, 'done');
    const stored = await createStream(service(), token, undefined, { ...key, 'last-event-id': '1.3' });
    assert.deepEqual(await stored.whole(), joined.slice(4));
    assert.equal(openrouter.requests.total, 1);
  });
}

function again(start: StartService): void {
  const service = started(start, { AI_MAX_ATTEMPTS: '1' });

  it('a subscriber of an earlier run receives the last run from its start', async () => {
    const { token } = await signIn(service());
    service().world.openrouter.next(httpError(503));
    const key = { 'idempotency-key': 'two' };
    const failed = await createStream(service(), token, undefined, key);
    assert.equal(expectList(await failed.whole(), 0, 'error').code, 'ai_unavailable');
    const second = await createStream(service(), token, undefined, { ...key, 'last-event-id': failed.lastEventId });
    const events = await second.whole();
    expectList(events, 20, 'done', 2);
    assert.equal(events[0]?.data.id, failed.events[0]?.data.id);
    const later = await subscribe(service(), token, events[0]?.data.id, failed.lastEventId);
    assert.deepEqual(await later.whole(), events);
  });
}

function strangers(start: StartService): void {
  const service = started(start);

  it('the events of another user’s session are a 404', async () => {
    const gate = createGate();
    const [owner, stranger] = [await signIn(service()), await signIn(service())];
    service().world.openrouter.next(answer({ hold: { gate, after_candidates: 2 } }));
    const stream = await createStream(service(), owner.token);
    const [session] = await stream.some(3);
    const path = `/ai-sessions/${session?.data.id}/events`;
    const refused = async () => {
      expectProblem(await sendRequest(service(), 'GET', path, { token: stranger.token }), 404, 'not_found');
      expectProblem(await sendRequest(service(), 'GET', path), 401, 'missing_token');
    };
    await refused();
    gate.open();
    expectList(await stream.whole(), 20, 'done');
    await refused();
    assert.deepEqual(await rowsOf(service(), stranger), { sessions: [], candidates: [], events: [] });
  });

  it('the events of an unknown session are a 404', async () => {
    const { token } = await signIn(service());
    for (const id of [crypto.randomUUID(), 'x', '%00']) {
      expectProblem(await sendRequest(service(), 'GET', `/ai-sessions/${id}/events`, { token }), 404, 'not_found');
    }
    expectProblem(await sendRequest(service(), 'POST', `/ai-sessions/${crypto.randomUUID()}/events`, { token }), 405, 'method_not_allowed');
  });

  it('the events report a database outage', async () => {
    const { token } = await signIn(service());
    const { body } = await create(service(), token);
    const set = service().world.gateway.fail(SESSIONS_PATH, { kind: 'cut' });
    const failed = await sendRequest(service(), 'GET', `/ai-sessions/${body.id}/events`, { token });
    set.clear();
    expectProblem(failed, 500, 'database_error');
  });
}
