// `kill -9` of an isolate of an Edge Function at each stage of a generation; an isolate that is suspended while another one takes
// its generation over; an isolate that the platform retires.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { type Answer, create, createStream, endedSession, eventually, expectList, lesson, ofTheList, read, remaining, rowsOf, sendRequest, type Service, type SignedIn, signIn, subscribe } from '../service/service.ts';
import { isEnd, type StreamEvent } from '../support/event_stream.ts';
import { createGate } from '../support/gate.ts';
import { answer, candidateByCandidate, gated, goodAnswer, type ModelBehaviour } from '../support/model_behaviour.ts';
import { WAIT_MS, within } from '../support/within.ts';
import { onSupabaseEdge } from './crash_host.ts';
import { crashedGenerations } from './generation_crashes.ts';
import { expireLeases, followed, generations, inIsolate, noLeases, subscribeIn } from './isolates.ts';
import { crashedStreams } from './open_stream_crashes.ts';
import { type EdgeService, startInIsolates, startOnSupabaseEdge } from './supabase_edge.ts';

/** A killed isolate leaves leases that expire after so long. */
const LEASE_MS = 15_000;
const CANDIDATES = 20;
const body = { input_text: lesson(), model: 'test/first' };
const KEY = { 'idempotency-key': '"the-one"' };

// The parts wait for different clocks.
describe('an isolate that ends', { concurrency: 2 }, () => {
  crashedGenerations(onSupabaseEdge);
  crashedStreams(onSupabaseEdge);
  describe('with a lease', { concurrency: false }, realLease);
  describe('only for a while', { concurrency: false }, suspended);
  describe('retired', { concurrency: false }, retired);
  describe('at the end of its wall clock', { concurrency: false }, wallClock);
});

const ids = (found: { body: any }): string[] => found.body.candidates.map(({ id }: { id: string }) => id);

/** Expects one session of the user with that many candidates, one event, and one charged generation. */
async function expectOneSession(service: Service, user: SignedIn, candidates: number): Promise<Answer> {
  await endedSession(service, user);
  const rows = await rowsOf(service, user);
  assert.deepEqual(rows.sessions.map(({ status, partial }) => [status, partial]), [['completed', candidates < CANDIDATES]]);
  assert.deepEqual(rows.candidates.map(({ position }) => position), Array.from({ length: candidates }, (_, n) => n));
  assert.deepEqual(rows.events.map(({ type }) => type), ['ai_session.completed']);
  const found = await read(service, user.token, rows.sessions[0]?.['id']);
  assert.deepEqual(ids(found), rows.candidates.map(({ id }) => id));
  assert.equal(remaining(await create(service, user.token, '{'))['generations'], 49);
  return found;
}

function realLease(): void {
  let service: EdgeService;
  before(async () => {
    service = await startOnSupabaseEdge();
  });
  after(() => service.close());

  it('a generation of a killed isolate is resumed when its lease expires', async () => {
    const user = await signIn(service);
    service.world.openrouter.next(answer({ hold: { gate: createGate(), after_candidates: 2 } }));
    const stream = await createStream(service, user.token, body);
    const received = await stream.some(3);
    await service.runtime.restart();
    assert.equal(await within(stream.end, 'the end of the connection'), 'broken');
    const rest = await subscribe(service, user.token, received[0]?.data.id, stream.lastEventId);
    // Not before: the isolate could still run.
    await followed(service, user);
    assert.deepEqual(rest.events, []);
    expectList([...received, ...(await rest.whole(LEASE_MS + WAIT_MS))], 2, 'done');
    await expectOneSession(service, user, 2);
    assert.equal(service.world.openrouter.requests.total, 1);
  });
}

function suspended(): void {
  let service: EdgeService;
  before(async () => {
    service = await startInIsolates({ isolates: 2 }, { AI_IDLE_TIMEOUT_MS: '60000' });
  });
  after(() => service.close());

  /** Suspends isolate 0, lets the other one finish what it has in progress, and continues it. Returns the list of the other. */
  async function takeOver(user: SignedIn, id: string, lastEventId: string | undefined, meanwhile: () => Promise<void>): Promise<StreamEvent[]> {
    const zombie = service.runtime.isolates.find(({ number }) => number === 0);
    assert.ok(zombie);
    process.kill(zombie.pid, 'SIGSTOP');
    try {
      await meanwhile();
      await expireLeases(service, user);
      return await (await subscribeIn(service, 1, user, id, lastEventId)).whole();
    } finally {
      process.kill(zombie.pid, 'SIGCONT');
    }
  }

  const idle = () => eventually('no work is pending', () => (service.runtime.isolates.every(({ pending_work }) => pending_work === 0) ? true : undefined));

  it('one that is suspended after two candidates writes nothing more', async () => {
    const user = await signIn(service);
    const { openrouter } = service.world;
    const gates = Array.from({ length: 4 }, createGate);
    openrouter.reset();
    openrouter.next(candidateByCandidate(gates));
    const stream = await createStream(service, user.token, body, inIsolate(0));
    gates[0]?.open();
    const received = await stream.some(3);
    // The rest of the answer arrives while it is suspended: it is the first thing that it reads.
    const list = await takeOver(user, received[0]?.data.id, undefined, async () => {
      for (const gate of gates) gate.open();
    });
    assert.equal(expectList(list, 2, 'done').partial, true);
    await within(stream.end, 'the end of the connection');
    assert.deepEqual(stream.events.map(ofTheList), list.slice(0, stream.events.length).map(ofTheList));
    await idle();
    await expectOneSession(service, user, 2);
    assert.equal(openrouter.requests.total, 1);
    assert.deepEqual(await generations(service, user), []);
  });

  for (const mode of ['stream', 'sync'] as const) {
    it(`one that is suspended before the first candidate has no second result (${mode})`, async () => {
      const user = await signIn(service);
      const { openrouter } = service.world;
      const gate = createGate();
      openrouter.reset();
      openrouter.next(gated(gate));
      const path = '/ai-sessions';
      const accept = mode === 'stream' ? 'text/event-stream' : 'application/json';
      const waiting = sendRequest(service, 'POST', path, { token: user.token, body, headers: inIsolate(0, { accept, ...KEY }) }).catch(() => undefined);
      const call = await openrouter.arrived(1);
      await eventually('the row is open', async () => (await rowsOf(service, user)).sessions[0]);
      const list = await takeOver(user, String(call.headers['x-session-id']), undefined, async () => gate.open());
      expectList(list, CANDIDATES, 'done');
      const first = await waiting;
      await idle();
      const found = await expectOneSession(service, user, CANDIDATES);
      assert.deepEqual(list.slice(1, -1).map(({ data }) => data.id), ids(found));
      if (mode === 'sync' && first?.status === 201) assert.deepEqual(first.body.candidates, found.body.candidates);
      if (mode === 'stream' && first !== undefined) for (const id of ids(found)) assert.ok(!/event: candidate/.test(first.text) || first.text.includes(id));
      assert.equal(openrouter.requests.total, 2);
      // A repetition in the isolate that was suspended has the same result.
      const again = await create(service, user.token, body, inIsolate(0, KEY));
      assert.deepEqual([again.status, again.body.candidates], [201, found.body.candidates]);
    });
  }
}

/** A subscriber that reconnects until the list has ended. */
async function readToEnd(service: EdgeService, user: SignedIn, input_text: string): Promise<{ events: StreamEvent[]; connections: number }> {
  let stream = await createStream(service, user.token, { ...body, input_text });
  const events: StreamEvent[] = [];
  for (let connections = 1; ; connections += 1) {
    await within(stream.end, 'the end of the connection', LEASE_MS);
    events.push(...stream.events);
    if (isEnd(events.at(-1))) return { events, connections };
    stream = await subscribe(service, user.token, events[0]?.data.id, events.at(-1)?.id);
  }
}

function retired(): void {
  let service: EdgeService;
  before(async () => {
    service = await startOnSupabaseEdge({ AI_IDLE_TIMEOUT_MS: '60000' });
  });
  after(() => service.close());

  it('5 open streams resume in a new isolate, with no wait for a lease', async () => {
    const { openrouter } = service.world;
    const [isolate] = service.runtime.isolates;
    assert.ok(isolate);
    const streams = [];
    for (const candidates of [0, 1, 2, 5, 9]) {
      const user = await signIn(service);
      const gates = Array.from({ length: candidates + 1 }, createGate);
      for (const gate of gates.slice(0, Math.max(0, candidates - 1))) gate.open();
      openrouter.next(candidates > 0 ? candidateByCandidate(gates) : gated(createGate()));
      const stream = await createStream(service, user.token, body);
      const received = await stream.some(1 + candidates);
      streams.push({ user, candidates, gates, stream, id: received[0]?.data.id });
    }
    await openrouter.arrived(streams.length);
    isolate.retire();
    assert.equal((await create(service, (await signIn(service)).token)).status, 201, 'a new isolate serves');
    assert.equal(service.runtime.isolates.length, 2);

    await isolate.beforeUnload();
    await noLeases(service);
    // It runs on until its end: the next candidate is sent too.
    for (const { gates, candidates, stream } of streams.filter(({ candidates }) => candidates > 0)) {
      gates[candidates - 1]?.open();
      assert.equal((await stream.next()).id, `1.${candidates + 1}`);
    }
    await noLeases(service, 1);
    await isolate.kill();

    await Promise.all(
      streams.map(async ({ user, candidates, stream, id }) => {
        await within(stream.end, 'the end of the connection');
        const rest = await subscribe(service, user.token, id, stream.lastEventId);
        // Without a candidate, the model is called again.
        const count = candidates > 0 ? candidates + 1 : CANDIDATES;
        expectList([...stream.events, ...(await rest.whole())], count, 'done');
        await expectOneSession(service, user, count);
      }),
    );
    assert.equal(openrouter.requests.total, streams.length + 2);
  });

  it('a request that joins a retired isolate takes its generation over', async () => {
    const user = await signIn(service);
    const { openrouter } = service.world;
    openrouter.reset();
    const [isolate] = service.runtime.isolates;
    assert.ok(isolate);
    const gates = Array.from({ length: 3 }, createGate);
    openrouter.next(candidateByCandidate(gates));
    const stream = await createStream(service, user.token, body);
    const received = await stream.some(2);
    isolate.retire();
    await isolate.beforeUnload();
    await noLeases(service);
    const other = await subscribe(service, user.token, received[0]?.data.id);
    const list = await other.whole();
    assert.equal(expectList(list, 1, 'done').partial, true);
    // The retired isolate stops at its next write, and its own client has the same result.
    gates[0]?.open();
    assert.deepEqual((await stream.whole()).map(ofTheList), list.map(ofTheList));
    await openrouter.aborted(1);
    await expectOneSession(service, user, 1);
  });
}

function wallClock(): void {
  const WALL_CLOCK_MS = 6_000;
  let service: EdgeService;
  before(async () => {
    service = await startInIsolates({ wall_clock_ms: WALL_CLOCK_MS }, { AI_IDLE_TIMEOUT_MS: '60000' });
  });
  after(() => service.close());

  it('generations longer than its life end in the next one', async () => {
    const { openrouter } = service.world;
    // By their texts: the order of the calls depends on the moment at which the isolate ends.
    const cases: { sentences: number; behaviour: ModelBehaviour; candidates?: number; calls: number }[] = [
      { sentences: 24, behaviour: gated(createGate()), calls: 2 },
      { sentences: 25, behaviour: answer({ hold: { gate: createGate(), after_candidates: 3 } }), candidates: 3, calls: 1 },
    ];
    const called = new Set<string>();
    openrouter.always((turn) => {
      const session = String(turn.request.headers['x-session-id']);
      const isFirst = !called.has(session);
      called.add(session);
      const ofText = cases.findLast(({ sentences }) => turn.request.raw.includes(`Planet number ${sentences} `));
      return (isFirst && ofText !== undefined ? ofText.behaviour : goodAnswer)(turn);
    });
    await Promise.all(
      cases.map(async ({ sentences, candidates, calls }) => {
        const user = await signIn(service);
        const { events, connections } = await readToEnd(service, user, lesson(sentences));
        // The second answer may be cut by the end of the next isolate, on a busy machine.
        const count = candidates ?? events.length - 2;
        expectList(events, count, 'done');
        assert.ok(connections > 1, 'its first connection was cut');
        await expectOneSession(service, user, count);
        const made = openrouter.requests.where(({ headers }) => headers['x-session-id'] === events[0]?.data.id).length;
        assert.ok(made >= calls && (candidates === undefined || made === calls), `${made} model calls`);
      }),
    );
  });
}
