// The reader of Server-Sent Events, with every border of a chunk.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConnectionError } from '../../examples/astro/src/ai-sessions/errors.ts';
import { EventReader, eventsIn, type StreamEvent } from '../../examples/astro/src/ai-sessions/event_stream.ts';

const stream =
  '\ufeff: a comment\n\nid: r.1\nevent: session\ndata: {"id":"x"}\n\n' +
  'id:r.2\r\nevent:candidate\r\ndata:{"front":"Où 🌊?",\r\ndata: "back":"…"}\r\n\r\n' +
  ': alive\r\rid: r.3\revent: done\rdata\r\rretry: 5\nunknown: field\n\nid: r.4\ndata: never ended\n';

const expected: StreamEvent[] = [
  { id: 'r.1', type: 'session', data: '{"id":"x"}' },
  { id: 'r.2', type: 'candidate', data: '{"front":"Où 🌊?",\n"back":"…"}' },
  { id: 'r.3', type: 'done', data: '' },
];

async function read(bytes: Uint8Array, chunk_bytes: number): Promise<StreamEvent[]> {
  let at = 0;
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      if (at >= bytes.length) return controller.close();
      controller.enqueue(bytes.slice(at, (at += chunk_bytes)));
    },
  });
  return Array.fromAsync(eventsIn(body, () => {}));
}

test('the events do not depend on the size of chunks', async () => {
  const bytes = new TextEncoder().encode(stream);
  for (let size = 1; size <= bytes.length; size += 1) assert.deepEqual(await read(bytes, size), expected, `chunks of ${size} bytes`);
});

test('the events do not depend on a single border', () => {
  const text = stream.slice(1); // the decoder takes the byte order mark
  for (let at = 0; at <= text.length; at += 1) {
    const reader = new EventReader();
    assert.deepEqual([...reader.push(text.slice(0, at)), ...reader.push(text.slice(at))], expected, `a border at ${at}`);
  }
});

test('an event is complete with its empty line, with any line end', () => {
  for (const end of ['\n', '\r\n', '\r']) {
    assert.equal(new EventReader().push(`data: x${end}${end}`).length, 1, JSON.stringify(end));
  }
});

test('an id stays until the next one, and one with U+0000 is ignored', () => {
  const ids = new EventReader().push('id: 1\ndata: a\n\ndata: b\n\nid: 2\0\ndata: c\n\nid\ndata: d\n\n').map(({ id }) => id);
  assert.deepEqual(ids, ['1', '1', '1', '']);
});

test('an endless event is an error', () => {
  const reader = new EventReader();
  const chunk = 'x'.repeat(10_000);
  assert.throws(() => {
    for (let i = 0; i < 20; i += 1) reader.push(chunk);
  }, ConnectionError);
  const lines = new EventReader();
  assert.throws(() => {
    for (let i = 0; i < 20; i += 1) lines.push(`data: ${chunk}\n`);
  }, ConnectionError);
});

test('a reader that stops closes the connection', async () => {
  const cancelled = Promise.withResolvers<void>();
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => controller.enqueue(new TextEncoder().encode('data: 1\n\n')),
    cancel: () => cancelled.resolve(),
  });
  for await (const _ of eventsIn(body, () => {})) break;
  await cancelled.promise;
});
