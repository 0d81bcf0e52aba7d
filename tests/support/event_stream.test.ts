import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { EventStreamReader, parseStream, type StreamItem } from './event_stream.ts';

const whole = [
  'id: 1.0\nevent: session\ndata: {"id":"a"}\n\n',
  ':\n\n',
  'id: 1.1\nevent: candidate\ndata: {"front":"żółw 🐢"}\n\n',
  ': a word\n\n',
  'id: 1.2\nevent: done\ndata: {"count":\ndata: 1}\n\n',
].join('');

const items: StreamItem[] = [
  { id: '1.0', event: 'session', data: { id: 'a' } },
  { comment: '' },
  { id: '1.1', event: 'candidate', data: { front: 'żółw 🐢' } },
  { comment: 'a word' },
  { id: '1.2', event: 'done', data: { count: 1 } },
];

describe('the reader of event streams', () => {
  for (const [name, line_end] of [['LF', '\n'], ['CRLF', '\r\n'], ['CR', '\r']] as const) {
    it(`the events do not depend on the chunks, with ${name}`, () => {
      // A colon follows, because a CR at the very end may be half of a CRLF.
      const bytes = Buffer.from(`${whole.replaceAll('\n', line_end)}:`);
      for (let size = 1; size <= bytes.length; size += 1) {
        const reader = new EventStreamReader();
        const chunks = Array.from({ length: Math.ceil(bytes.length / size) }, (_, n) => bytes.subarray(n * size, (n + 1) * size));
        assert.deepEqual(chunks.flatMap((chunk) => reader.push(chunk)), items, `chunks of ${size} bytes`);
        assert.equal(reader.lastEventId, '1.2');
      }
    });
  }

  it('an event is returned when it is complete', () => {
    const bytes = Buffer.from(whole);
    for (let cut = 0; cut < bytes.length; cut += 1) {
      const reader = new EventStreamReader();
      const returned = reader.push(bytes.subarray(0, cut));
      assert.deepEqual(returned, items.slice(0, returned.length));
      const ids = returned.flatMap((one) => ('id' in one ? [one.id] : []));
      assert.equal(reader.lastEventId, ids.at(-1) ?? '', `cut at ${cut}`);
    }
  });

  it('fields without a space or a value are accepted', () => {
    assert.deepEqual(parseStream('data:1\n\nevent\ndata: 2\nunknown: x\nid:7\n\n'), [
      { id: '', event: 'message', data: 1 },
      { id: '7', event: 'message', data: 2 },
    ]);
  });
});
