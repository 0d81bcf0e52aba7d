// The property of workerd that the model's answers are read by: the buffer of a read in progress is filled as bytes arrive, so
// that a look, the end and a cut connection see every byte. src/web/pending_read.js runs in a Worker of its own; a server
// sends each part of an answer on request. A workerd without the property fails these tests.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import { after, before, describe, it } from 'node:test';
import { Miniflare } from 'miniflare';
import { type LoopbackServer, startLoopbackServer } from '../support/loopback_server.ts';
import { COMPATIBILITY } from './workerd.ts';

const sourceUrl = new URL('../../src/web/', import.meta.url);

/** A part of an answer that is sent, its regular end, or a closed or reset connection. */
type Part = Buffer | 'end' | 'close' | 'reset';

/** The result of reading one answer. */
type Result = {
  /** The bytes at each look after a part, in hexadecimal; `+`: the read had ended. */
  looks: string[];
  /** The bytes after the last look. */
  rest: string;
  outcome: 'end' | 'cut';
  reads: number;
};

/** A look waits until it sees as many bytes as the test expects, or this long. */
const LOOK_MS = 5_000;

const reader = `
import { connect } from './operations.js';
import { PendingRead } from './pending_read.js';

const hex = (parts) => parts.map((bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')).join('');
const sum = (parts) => parts.reduce((length, bytes) => length + bytes.length, 0);

/** The ends of reads, by the numbers of their operations. Like the module, this copies the bytes. */
const ends = new Map();
let operations = 0;
connect((id, status, head, bytes) => ends.get(id)({ status, bytes: bytes.slice() }));

async function readAnswer(upstream, { answer, at_least, looks, abort }) {
  const controller = new AbortController();
  const response = await fetch(upstream + '/' + answer, { signal: controller.signal });
  const next = () => fetch(upstream + '/next/' + answer).then((sent) => sent.text());
  const read = new PendingRead(response.body);
  let hasEnded = false;
  const begin = () => {
    const id = operations++;
    const ended = new Promise((end) => ends.set(id, end));
    ended.then(() => { hasEnded = true; });
    read.begin(id, at_least);
    return ended;
  };
  const seen = [];
  let ended = begin();
  for (const expected of looks) {
    await next();
    const until = Date.now() + ${LOOK_MS};
    const parts = [read.look().slice()];
    while (!hasEnded && sum(parts) < expected && Date.now() < until) {
      await scheduler.wait(1);
      parts.push(read.look().slice());
    }
    seen.push(hasEnded && sum(parts) === 0 ? '+' : hex(parts));
  }
  if (abort) {
    controller.abort();
    return { looks: seen, rest: '', outcome: 'cut', reads: 1 };
  }
  await next();
  const rest = [];
  for (let reads = 1; ; reads += 1) {
    const { status, bytes } = await ended;
    rest.push(bytes);
    if (status !== 1) return { looks: seen, rest: hex(rest), outcome: status === 2 ? 'end' : 'cut', reads };
    hasEnded = false;
    ended = begin();
  }
}

export default {
  async fetch(request, { UPSTREAM }) {
    return Response.json(await Promise.all((await request.json()).map((wanted) => readAnswer(UPSTREAM, wanted))));
  },
};
`;

describe('a pending read', () => {
  let server: LoopbackServer;
  let miniflare: Miniflare;
  let url: string;
  const answers: { parts: Part[]; response?: ServerResponse }[] = [];

  before(async () => {
    server = await startLoopbackServer((request, response) => {
      const [, number, of] = (request.url ?? '').split('/');
      const answer = answers[Number(of ?? number)];
      if (of === undefined) {
        if (answer !== undefined) answer.response = response;
        response.flushHeaders();
        return;
      }
      const part = answer?.parts.shift();
      if (part === 'end') answer?.response?.end();
      else if (part === 'close') answer?.response?.destroy();
      else if (part === 'reset') answer?.response?.socket?.resetAndDestroy();
      else answer?.response?.write(part);
      response.end();
    });
    miniflare = new Miniflare({
      modules: [
        { type: 'ESModule', path: 'reader.js', contents: reader },
        ...(await Promise.all(
          ['pending_read.js', 'operations.js'].map(async (path) => ({ type: 'ESModule' as const, path, contents: await readFile(new URL(path, sourceUrl), 'utf8') })),
        )),
      ],
      ...COMPATIBILITY,
      bindings: { UPSTREAM: server.url },
    });
    url = String(await miniflare.ready);
  });
  after(async () => {
    await miniflare.dispose();
    await server.close();
  });

  /** Reads answers of these parts at once. Before each part but the last, `looks` has the number of bytes that it adds. */
  async function readAll(wanted: { parts: Part[]; looks?: number[]; at_least?: number; abort?: boolean }[]): Promise<Result[]> {
    const requests = wanted.map(({ parts, looks = [], at_least = ALL, abort = false }) => ({ answer: answers.push({ parts: [...parts] }) - 1, at_least, looks, abort }));
    const response = await fetch(url, { method: 'POST', body: JSON.stringify(requests) });
    assert.equal(response.status, 200, await response.clone().text());
    return (await response.json()) as Result[];
  }
  const readOne = async (parts: Part[], looks: number[] = [], at_least = ALL) => (await readAll([{ parts, looks, at_least }]))[0];

  it('a look takes the bytes that have arrived', async () => {
    const parts = [Buffer.from('one'), Buffer.from('twelve'), Buffer.from('last')];
    const result = await readOne([...parts, 'end'], parts.map(({ length }) => length));
    assert.deepEqual(result, { looks: parts.map((part) => part.toString('hex')), rest: '', outcome: 'end', reads: 1 });
  });

  for (const end of ['close', 'reset'] as const) {
    it(`the bytes before a cut are there (${end})`, async () => {
      const [looked, unseen] = [Buffer.from('looked at'), Buffer.from(' and not')];
      // The unseen bytes are a part of their own, so that the read in progress has them and no look has taken them.
      assert.deepEqual(await readOne([looked, end], [looked.length]), { looks: [looked.toString('hex')], rest: '', outcome: 'cut', reads: 1 });
      const result = await readOne([Buffer.concat([looked, unseen]), end], [0]);
      assert.equal((result?.looks.join('') ?? '') + result?.rest, Buffer.concat([looked, unseen]).toString('hex'));
      assert.equal(result?.outcome, 'cut');
    });
  }

  it('NULs are read at any place, at the end with the end', async () => {
    const [begin, nuls, end] = [Buffer.from('a\0\0b'), Buffer.from('\0\0'), Buffer.from('\0c\0')];
    const hex = (...parts: Buffer[]) => Buffer.concat(parts).toString('hex');
    assert.deepEqual(await readOne([begin, nuls, end, 'end'], [4, 0, 4]), {
      looks: [hex(begin), '', hex(nuls, Buffer.from('\0c'))],
      rest: '00',
      outcome: 'end',
      reads: 1,
    });
    assert.deepEqual(await readOne([nuls, 'end'], [0]), { looks: [''], rest: hex(nuls), outcome: 'end', reads: 1 });
  });

  it('an answer larger than the buffer is whole', async () => {
    for (const length of [BUFFER - 1, BUFFER, BUFFER + 1, 147_000, 1_048_576]) {
      const bytes = Buffer.from(Array.from({ length }, (_, at) => (at * 7) % 256));
      const result = await readOne([bytes.subarray(0, 100), bytes.subarray(100), 'end'], [100, 0]);
      const read = Buffer.from((result?.looks.join('') ?? '').replaceAll('+', '') + result?.rest, 'hex');
      assert.ok(read.equals(bytes), `${length}: ${read.length} bytes`);
      assert.deepEqual([result?.outcome, result?.reads], ['end', Math.floor(length / BUFFER) + 1]);
    }
  });

  it('a read ends with the bytes that it waits for', async () => {
    const result = await readOne([Buffer.from('123'), Buffer.from('45'), 'end'], [3, 2], 5);
    // The last look may come before or after the end of the first read.
    const bytes = (result?.looks.join('') ?? '').replace('+', '') + result?.rest;
    assert.deepEqual([bytes, result?.reads, result?.outcome], [Buffer.from('12345').toString('hex'), 2, 'end']);
  });

  it('buffers are reused without bytes of other answers', async () => {
    const letters = 'abcdefghijklmnopqrstuvwxyz';
    for (let round = 0; round < 4; round += 1) {
      // More at once than buffers are kept; long and short ones, cut and abandoned ones in between.
      const wanted = Array.from({ length: letters.length }, (_, at) => {
        const bytes = Buffer.alloc(1 + ((at * 1_237 + round * 7_919) % 20_000), letters[at]);
        const parts: Part[] = [bytes, at % 5 === 1 ? 'reset' : 'end'];
        return { bytes, parts, looks: [bytes.length], abort: at % 5 === 2 };
      });
      for (const [at, { looks, rest }] of (await readAll(wanted)).entries()) {
        assert.equal(looks.join('') + rest, wanted[at]?.bytes.toString('hex'), `round ${round}, ${letters[at]}`);
      }
    }
  });
});

/** BUFFER_BYTES of pending_read.js. */
const BUFFER = 32 * 1024;
/** As many bytes as a read can wait for. */
const ALL = 2 ** 32 - 1;
