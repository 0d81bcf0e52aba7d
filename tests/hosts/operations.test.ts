// The operations of src/web/operations.js at their borders, in workerd, without the module: a Worker calls them as the module does.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { Miniflare } from 'miniflare';
import { createGate } from '../support/gate.ts';
import { within } from '../support/within.ts';

/** Runs one operation of `?operation=` with the JSON of `?args=` after its number, and responds with its end. */
const script = `
import * as operations from './operations.js';
const ends = new Map();
operations.connect((id, status, text, bytes, value) => ends.get(id)?.({ status, text, bytes: bytes.length, has_value: value instanceof ReadableStream, at_ms: Date.now(), stream: value }));
let next = 0;
const start = (run) => {
  const id = next++;
  return { id, end: new Promise((resolve) => { ends.set(id, resolve); run(id); }) };
};
export default {
  async fetch(request) {
    const { searchParams } = new URL(request.url);
    const operation = searchParams.get('operation');
    const args = JSON.parse(searchParams.get('args') ?? '[]').map((value) => (Array.isArray(value) ? new Uint8Array(value) : value));
    if (operation === 'receive_body') {
      const { stream, ...end } = await start((id) => operations.receive_body(id, request, ...args)).end;
      return Response.json(end);
    }
    if (operation === 'head_of') return new Response(operations.head_of(request, ...args));
    if (operation === 'respond') return new Promise((resolve) => operations.respond(resolve, ...args));
    if (operation === 'abandoned') {
      // Cancelled when the upstream has the request; the number is used again by a timer, and no end of the first arrives there.
      const { id } = start((id) => operations[args[0]](id, ...args.slice(2)));
      while (!(await (await fetch(args[1])).json())) await new Promise((resolve) => setTimeout(resolve, 2));
      operations.abandon(id);
      const again = await new Promise((resolve) => { ends.set(id, resolve); operations.timer(id, 20); });
      return Response.json({ status: again.status });
    }
    const began_ms = Date.now();
    const { stream, at_ms, ...end } = await start((id) => operations[operation](id, ...args)).end;
    return Response.json({ ...end, took_ms: at_ms - began_ms, body: stream instanceof ReadableStream ? await new Response(stream).text() : null });
  },
};
`;

/** The largest body of these tests. */
const BYTES_MAX = 1000;

let worker: Miniflare;
let url: string;
let upstream: string;
/** What the upstream has seen. */
const seen = { open: 0, closed: createGate(), headers: {} as Record<string, unknown>, method: '', body: '' };

const server = createServer((request, response) => {
  const { pathname, searchParams } = new URL(request.url ?? '', 'http://upstream');
  const send = responses[pathname];
  if (send === undefined) return void response.writeHead(404).end();
  const chunks: Buffer[] = [];
  request.on('data', (chunk: Buffer) => chunks.push(chunk));
  request.on('end', () => {
    if (pathname !== '/is-open') Object.assign(seen, { headers: request.headers, method: request.method, body: Buffer.concat(chunks).toString() });
    send(response, Number(searchParams.get('bytes') ?? 0));
  });
});

const responses: Record<string, (response: ServerResponse, bytes: number) => void> = {
  '/announced': (response, bytes) => response.writeHead(200, { 'content-length': bytes }).end('a'.repeat(bytes)),
  '/chunked': (response, bytes) => {
    response.writeHead(200);
    response.write('a'.repeat(Math.floor(bytes / 2)));
    response.end('a'.repeat(bytes - Math.floor(bytes / 2)));
  },
  '/none': (response) => response.writeHead(204).end(),
  '/redirect': (response) => response.writeHead(302, { location: '/announced' }).end(),
  // Cut after half of the announced body, or in the middle of the chunks.
  '/cut': (response, bytes) => cut(response.writeHead(200, { 'content-length': bytes }), bytes),
  '/cut-chunked': (response, bytes) => cut(response.writeHead(200), bytes),
  '/failed': (response) => void response.writeHead(503).write('never ends'),
  '/silent': (response) => hold(response),
  '/silent-body': (response) => {
    response.writeHead(200).write('a');
    hold(response);
  },
  '/is-open': (response) => response.end(String(seen.open > 0)),
  '/headers': (response) => response.writeHead(429, { 'retry-after': '7', 'content-type': 'text/plain', 'x-other': 'no' }).end('body'),
};

function cut(response: ServerResponse, bytes: number): void {
  response.write('a'.repeat(bytes / 2), () => response.destroy());
}

function hold(response: ServerResponse): void {
  seen.open += 1;
  response.on('close', () => {
    seen.open -= 1;
    seen.closed.open();
  });
}

before(async () => {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  upstream = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  worker = new Miniflare({
    modules: [
      { type: 'ESModule', path: 'index.js', contents: script },
      { type: 'ESModule', path: 'operations.js', contents: await readFile(new URL('../../src/web/operations.js', import.meta.url), 'utf8') },
    ],
    compatibilityDate: '2026-07-01',
  });
  url = String(await worker.ready);
});
after(async () => {
  await worker.dispose();
  server.closeAllConnections();
  server.close();
});

type Argument = string | number | number[];
type End = { status: number; text: string; bytes: number; took_ms: number; body: string | null };

const call = (operation: string, args: Argument[], init?: RequestInit) =>
  fetch(`${url}?operation=${operation}&args=${encodeURIComponent(JSON.stringify(args))}`, init);
const run = async (operation: string, args: Argument[], init?: RequestInit) => (await (await call(operation, args, init)).json()) as End;
const exchange = (path: string, timeout_ms = 5000, sent: Argument[] = []) =>
  run('exchange', ['POST', upstream + path, 'x-one\n1\nx-two\n2\n', sent as number[], timeout_ms, BYTES_MAX]);

describe('exchange', () => {
  for (const path of ['/announced', '/chunked']) {
    it(`a body of ${path} arrives up to the limit`, async () => {
      for (const bytes of [0, 1, BYTES_MAX]) {
        const end = await exchange(`${path}?bytes=${bytes}`);
        assert.deepEqual([end.status, end.bytes], [200, bytes]);
      }
    });

    it(`a body of ${path} above the limit is no response`, async () => {
      const end = await exchange(`${path}?bytes=${BYTES_MAX + 1}`);
      assert.deepEqual([end.status, end.bytes], [0, 0]);
    });
  }

  for (const path of ['/cut', '/cut-chunked']) {
    it(`a connection that is cut (${path}) is no response`, async () => {
      const end = await exchange(`${path}?bytes=${BYTES_MAX}`);
      assert.deepEqual([end.status, end.bytes], [0, 0]);
    });
  }

  it('method, headers and body are sent', async () => {
    await exchange('/none', 5000, [104, 105]);
    assert.deepEqual([seen.method, seen.headers['x-one'], seen.headers['x-two'], seen.body], ['POST', '1', '2', 'hi']);
  });

  it('a redirect is not followed', async () => {
    assert.equal((await exchange('/redirect')).status, 302);
  });

  it('the body of a 5xx is not waited for', async () => {
    const end = await exchange('/failed');
    assert.deepEqual([end.status, end.bytes], [503, 0]);
  });

  for (const path of ['/silent', '/silent-body']) {
    it(`the timeout ends ${path}, never before its time`, async () => {
      seen.closed = createGate();
      const end = await exchange(path, 150);
      assert.equal(end.status, 0);
      assert.ok(end.took_ms >= 150 && end.took_ms < 1000, `${end.took_ms} ms`);
      await within(seen.closed.pass(), 'the connection is closed');
    });

    it(`a cancelled request to ${path} closes the connection, without an end`, async () => {
      seen.closed = createGate();
      const end = await run('abandoned', ['exchange', `${upstream}/is-open`, 'POST', upstream + path, '', [], 60_000, BYTES_MAX]);
      assert.equal(end.status, 1);
      await within(seen.closed.pass(), 'the connection is closed');
    });
  }

  it('an upstream that cannot be reached is no response', async () => {
    assert.equal((await run('exchange', ['GET', 'http://127.0.0.1:1/', '', [], 5000, BYTES_MAX])).status, 0);
  });

  it('a header that the platform refuses is no response', async () => {
    assert.equal((await run('exchange', ['GET', `${upstream}/none`, 'x-one\na\rb\n', [], 5000, BYTES_MAX])).status, 0);
  });
});

describe('open', () => {
  it('the head has the named headers, and the body is a stream', async () => {
    const end = await run('open', ['GET', `${upstream}/headers`, '', [], 'content-type retry-after x-absent']);
    assert.deepEqual([end.status, end.text, end.body], [429, 'content-type\ntext/plain\nretry-after\n7\n', 'body']);
  });

  it('a cancelled request closes the connection, after its head too', async () => {
    for (const path of ['/silent', '/silent-body']) {
      seen.closed = createGate();
      await run('abandoned', ['open', `${upstream}/is-open`, 'GET', upstream + path, '', [], '']);
      await within(seen.closed.pass(), 'the connection is closed');
    }
  });
});

describe('the request and the response of a client', () => {
  /** A body in two chunks, without a length. */
  const chunked = (bytes: number) => {
    const body = new ReadableStream({
      start(controller) {
        controller.enqueue(new Uint8Array(Math.floor(bytes / 2)).fill(97));
        controller.enqueue(new Uint8Array(bytes - Math.floor(bytes / 2)).fill(97));
        controller.close();
      },
    });
    return { method: 'POST', body, duplex: 'half' } as RequestInit;
  };
  const announced = (bytes: number) => ({ method: 'POST', body: 'a'.repeat(bytes) });

  for (const [how, send] of Object.entries({ announced, chunked })) {
    it(`a body that is ${how} arrives up to the limit`, async () => {
      for (const [bytes, status] of [[2, 1], [BYTES_MAX, 1], [BYTES_MAX + 1, 2]] as const) {
        const end = await run('receive_body', [BYTES_MAX], send(bytes));
        assert.deepEqual([end.status, end.bytes], [status, status === 1 ? bytes : 0], `${bytes} bytes`);
      }
    });
  }

  it('a request without a body has an empty one', async () => {
    assert.deepEqual([(await run('receive_body', [BYTES_MAX])).status, (await run('receive_body', [BYTES_MAX])).bytes], [1, 0]);
  });

  it('the head has method, URL and the named headers', async () => {
    const head = await (await call('head_of', ['accept x-absent x-empty'], { method: 'DELETE', headers: { accept: 'a, b', 'x-empty': '' } })).text();
    const [method, sentTo, ...rest] = head.split('\n');
    assert.deepEqual([method, new URL(sentTo ?? '').searchParams.get('operation'), rest], ['DELETE', 'head_of', ['accept', 'a, b', 'x-empty', '', '']]);
  });

  it('a response has status, headers and body', async () => {
    const response = await call('respond', [201, 'x-one\n1\nx-two\n\n', [104, 105]]);
    assert.deepEqual([response.status, response.headers.get('x-one'), response.headers.get('x-two'), await response.text()], [201, '1', '', 'hi']);
    assert.equal((await call('respond', [204, '', []])).status, 204);
  });
});

it('a timer never ends before its time', async () => {
  for (const ms of [0, 1, 20]) {
    const end = await run('timer', [ms]);
    assert.ok(end.status === 1 && end.took_ms >= ms, `${end.took_ms} ms`);
  }
});
