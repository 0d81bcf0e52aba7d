// Streams in workerd: many at once, readers that leave, readers that never read. Observed from inside (a prelude that logs
// writes and reads) and from outside (the memory of the process).

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { processFigures } from '../load/figures.ts';
import { create, createStream, eventually, expectList, read, rowsOf, type SignedIn, signIn, subscribe } from '../service/service.ts';
import type { Candidate } from '../support/candidate_maker.ts';
import { isEnd } from '../support/event_stream.ts';
import { createGate } from '../support/gate.ts';
import type { EventSubscriber } from '../support/event_subscriber.ts';
import { answer, candidateByCandidate } from '../support/model_behaviour.ts';
import { within } from '../support/within.ts';
import { withObjectState } from './object_state.ts';
import { startAfter, startOnWorkerd, type WorkerdService } from './workerd.ts';

const hasEnded = (stream: EventSubscriber) => isEnd(stream.events.at(-1));

const rss_mb = async (service: WorkerdService) => (await processFigures([service.pid])).rss_mb;

describe('200 streams at once, of 200 users', () => {
  const STREAMS = 200;
  const BATCH = 20;
  const DEADLINE_MS = 120_000;
  /** An object costs workerd more than a MB for any request; an open stream adds half of one. */
  const GROWTH_MB_MAX = 300;
  let service: WorkerdService;
  let users: SignedIn[];
  before(async () => {
    // Opening all streams may take longer than the default idle timeout.
    service = await startOnWorkerd({ AI_IDLE_TIMEOUT_MS: String(DEADLINE_MS), AI_TIMEOUT_MS: String(2 * DEADLINE_MS) });
    users = await Promise.all(Array.from({ length: STREAMS }, () => signIn(service)));
    // The object of every user exists and has generated once.
    for (let at = 0; at < STREAMS; at += BATCH) {
      const answers = await Promise.all(users.slice(at, at + BATCH).map(({ token }) => create(service, token)));
      assert.deepEqual([...new Set(answers.map(({ status }) => status))], [201]);
    }
  });
  after(() => service.close());

  it('200 open streams all end whole in bounded memory', async () => {
    // In batches: the database is not measured here.
    const gates = Array.from({ length: STREAMS / BATCH }, createGate);
    for (const gate of gates) service.world.openrouter.next(answer({ hold: { gate, after_candidates: 5 } }), BATCH);
    const before_mb = await rss_mb(service);
    const streams: EventSubscriber[] = [];
    while (streams.length < STREAMS) {
      const batch = users.slice(streams.length, streams.length + BATCH).map(({ token }) => createStream(service, token));
      streams.push(...(await Promise.all(batch)));
      await Promise.all(streams.slice(-BATCH).map((stream) => stream.some(6, DEADLINE_MS)));
    }
    const open_mb = await rss_mb(service);
    for (const [n, gate] of gates.entries()) {
      gate.open();
      await eventually('a batch has ended', () => (streams.filter(hasEnded).length >= (n + 1) * BATCH ? true : undefined), DEADLINE_MS);
    }
    for (const stream of streams) expectList(await stream.whole(), 20, 'done');
    const after_mb = await rss_mb(service);
    const figures = `workerd: ${before_mb.toFixed(0)} MB before, ${open_mb.toFixed(0)} MB with ${STREAMS} streams open, ${after_mb.toFixed(0)} MB after`;
    console.log(figures);
    assert.ok(Math.max(open_mb, after_mb) - before_mb < GROWTH_MB_MAX, figures);
    const stored = await service.world.sql('select status, partial, count(*)::int from ai_generation_sessions group by 1, 2');
    assert.deepEqual(stored, [{ status: 'completed', partial: false, count: 2 * STREAMS }]);
  });
});

/** Logs the outcome of each write into a stream, and each read of a stream in JavaScript or in Wasm. */
const prelude = `{
  const write = WritableStreamDefaultWriter.prototype.write;
  WritableStreamDefaultWriter.prototype.write = function (chunk) {
    const written = write.call(this, chunk);
    console.log('write begins');
    written.then(() => console.log('write ends'), () => console.log('write fails'));
    return written;
  };
  for (const [reader, method] of [[ReadableStreamBYOBReader, 'readAtLeast'], [ReadableStreamBYOBReader, 'read'], [ReadableStreamDefaultReader, 'read']]) {
    const original = reader.prototype[method];
    reader.prototype[method] = async function (...wanted) {
      const read = await original.apply(this, wanted);
      const text = new TextDecoder().decode(read.value ?? new Uint8Array());
      if (text.includes('chat.completion.chunk')) console.log('read of the model');
      if (text.includes('event: candidate')) console.log('read of the stream');
      return read;
    };
  }
}
`;

describe('the way of a stream', () => {
  let service: WorkerdService;
  before(async () => {
    service = await startAfter(prelude, { MAX_CANDIDATES: '2000' });
  });
  after(() => service.close());
  const count = (line: string) => service.logs.filter((written) => written === line).length;

  it('a stream reaches the client without being read by the Worker', async () => {
    const { token } = await signIn(service);
    const stream = await createStream(service, token, undefined, { 'accept-encoding': 'identity' });
    const { id } = expectList(await stream.whole(), 20, 'done');
    expectList(await (await subscribe(service, token, id)).whole(), 20, 'done');
    assert.deepEqual([count('read of the model') > 0, count('read of the stream')], [true, 0]);
  });

  it('writes end at the second candidate after the reader has left', async () => {
    const gates = Array.from({ length: 8 }, createGate);
    const user = await signIn(service);
    service.world.openrouter.next(candidateByCandidate(gates));
    const stream = await createStream(service, user.token);
    await stream.some(2);
    const { token } = user;
    const other = await subscribe(service, token, stream.events[0]?.data.id);
    await other.some(2);
    stream.leave();
    assert.equal(await stream.end, 'broken');
    const failedBefore = count('write fails');
    for (const gate of gates) {
      gate.open();
      await other.next();
    }
    expectList(await other.whole(), 8, 'done');
    await eventually('every write has ended', () => (isQuiet() ? true : undefined));
    assert.equal(count('write fails') - failedBefore, 1, 'nothing is written after the write that failed');
    assert.equal((await read(service, token, stream.events[0]?.data.id)).body.candidates.length, 8);
  });

  it('readers that never read delay nothing and buffer at most one list', async () => {
    /** With the stream that is read, as many as a session may have. */
    const READERS = 7;
    /** The memory of the generation itself, and garbage. */
    const BESIDE_MB = 80;
    const user = await signIn(service);
    const candidates = Array.from({ length: 180 }, (_, n) => largestCandidate(n));
    const gate = createGate();
    service.world.openrouter.next(answer({ candidates, content_bytes: 2_000, hold: { gate, after_candidates: 1 } }));
    const stream = await createStream(service, user.token);
    const { data: { id } } = await stream.next();
    const before_mb = await rss_mb(service);
    const writesBefore = count('write begins');
    const mute = await Promise.all(Array.from({ length: READERS }, () => neverRead(service, user, `/ai-sessions/${id}/events`)));
    await eventually('all have subscribed', () => (count('write begins') >= writesBefore + READERS ? true : undefined));
    gate.open();
    const done = expectList(await stream.whole(), 180, 'done');
    assert.equal(done.partial, false);
    const after_mb = await rss_mb(service);
    const stream_mb = stream.bytes.length / 2 ** 20;
    const figures = `workerd: ${before_mb.toFixed(0)} MB before, ${after_mb.toFixed(0)} MB with ${READERS} that do not read ${stream_mb.toFixed(1)} MB each`;
    console.log(figures);
    assert.ok(after_mb - before_mb < READERS * stream_mb + BESIDE_MB, figures);
    assert.equal((await rowsOf(service, user)).candidates.length, 180);
    for (const socket of mute) socket.destroy();
    await eventually('their writes have failed', () => (isQuiet() ? true : undefined));
  });

  const isQuiet = () => count('write begins') === count('write ends') + count('write fails');
});

/** A candidate of the maximum size: 1200 characters of four bytes. */
function largestCandidate(n: number): Candidate {
  const text = (length: number) => `${n} `.padEnd(length - 1, 'x').replaceAll('x', '\u{1f422}') + '.';
  return { front: text(200), back: text(500), prompt: text(500) };
}

/** Sends a request and never reads from its socket. */
async function neverRead(service: WorkerdService, { token }: SignedIn, path: string): Promise<Socket> {
  const { hostname, port } = new URL(service.url);
  const socket = connect(Number(port), hostname);
  socket.pause();
  await once(socket, 'connect');
  socket.write(`GET ${path} HTTP/1.1\r\nHost: ${hostname}\r\nAuthorization: Bearer ${token}\r\n\r\n`);
  return socket;
}

/** Makes the storage fail from the third insert of candidates. */
const brokenStorage = withObjectState(`
  const storage = Object.getPrototypeOf(state.storage.sql);
  if (storage.isBroken) return;
  storage.isBroken = true;
  const { exec } = storage;
  let left = 2;
  storage.exec = function (statement, ...bound) {
    if (statement.startsWith('insert into candidates') && (left -= 1) < 0) throw new Error('disk full');
    return exec.call(this, statement, ...bound);
  };
`);

describe('a stream whose storage fails', () => {
  let service: WorkerdService;
  before(async () => {
    service = await startAfter(brokenStorage);
  });
  after(() => service.close());

  it('a stream whose storage fails is cut and can be resumed', async () => {
    const gates = Array.from({ length: 5 }, createGate);
    const { token } = await signIn(service);
    service.world.openrouter.next(candidateByCandidate(gates));
    const stream = await createStream(service, token);
    const received = await stream.some(2);
    gates[0]?.open();
    received.push(await stream.next());
    for (const gate of gates) gate.open();
    // workerd lets a body that broke off look like one that ended: without `done` or `error` it is no end.
    await within(stream.end, 'the end of the connection');
    assert.deepEqual(stream.events, received);
    const rest = await subscribe(service, token, received[0]?.data.id, stream.lastEventId);
    assert.equal(expectList([...received, ...(await rest.whole())], 2, 'done').partial, true);
    assert.equal(service.world.openrouter.requests.total, 1);
  });
});
