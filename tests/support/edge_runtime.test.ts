// The stand-in for Supabase's edge runtime, with a function that shows what it receives.

import assert from 'node:assert/strict';
import { request as httpRequest } from 'node:http';
import { after, before, describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { releases } from './deno_program.ts';
import { type EdgeRuntime, type EdgeRuntimeOptions, type Isolate, startEdgeRuntime } from './edge_runtime.ts';
import { WAIT_MS, within } from './within.ts';

const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url));

const start = (options: Partial<EdgeRuntimeOptions> = {}) => startEdgeRuntime({ folder: fixture('edge_function'), environment: {}, ...options });

/** Starts one for the tests of the suite around this call. */
function started(options: Partial<EdgeRuntimeOptions> = {}): () => EdgeRuntime {
  let runtime: EdgeRuntime;
  before(async () => {
    runtime = await start(options);
  });
  after(() => runtime.close());
  return () => runtime;
}

/** Waits for a state that has no signal. */
async function until(what: string, isSo: () => boolean): Promise<void> {
  for (const end_ms = Date.now() + WAIT_MS; !isSo(); await pause(5)) assert.ok(Date.now() < end_ms, `${what}: not within ${WAIT_MS} ms`);
}

const only = (runtime: EdgeRuntime): Isolate => {
  assert.equal(runtime.isolates.length, 1);
  return runtime.isolates[0] as Isolate;
};

/** Opens the endless stream; returns after its first chunk. */
async function openStream(runtime: EdgeRuntime, headers: Record<string, string> = {}) {
  const leaving = new AbortController();
  const response = await fetch(`${runtime.url}/stream`, { headers, signal: leaving.signal });
  const reader = response.body?.getReader();
  assert.ok(reader);
  assert.equal((await reader.read()).done, false);
  return { reader, leave: () => leaving.abort() };
}

/** Expects that the stream is cut. */
const expectCut = (reader: ReadableStreamDefaultReader<Uint8Array>) =>
  within(assert.rejects(async () => { while (!(await reader.read()).done); }), 'the cut of the stream');

/** The process that serves a request with these headers. */
async function servedBy(runtime: EdgeRuntime, headers: Record<string, string> = {}): Promise<Isolate> {
  await (await fetch(`${runtime.url}/start-work`, { headers })).arrayBuffer();
  const busy = () => runtime.isolates.filter(({ pending_work }) => pending_work > 0);
  await until('the work is recorded', () => busy().length > 0);
  const [served, other] = busy();
  assert.ok(served !== undefined && other === undefined);
  await (await fetch(`${runtime.url}/finish-work`, { headers: { 'x-isolate': String(served.number) } })).arrayBuffer();
  await until('the work has ended', () => served.pending_work === 0);
  return served;
}

it('an isolate runs on the engine of Supabase, or on the newest Deno', async () => {
  const versions: (string | undefined)[] = [];
  for (const deno of ['supabase', 'newest'] as const) {
    const runtime = await start({ deno });
    versions.push(only(runtime).deno_version);
    await runtime.close();
  }
  assert.equal(versions[0], releases.supabase.version);
  // Not older: it can be the machine's own.
  assert.ok((versions[1] ?? '').localeCompare(releases.newest.version, 'en', { numeric: true }) >= 0, versions[1]);
});

describe('the gateway', () => {
  const runtime = started({ environment: { SUPABASE_URL: 'https://ref.example', EMPTY: '' } });

  it('a request arrives without /functions/v1, with its headers and body', async () => {
    const response = await fetch(`${runtime().url}/request?a=%20b`, { method: 'PUT', headers: { 'x-a': '1, 2', 'x-isolate': '0' }, body: 'text' });
    const { method, path, headers, body } = (await response.json()) as Record<string, any>;
    assert.deepEqual({ method, path, body }, { method: 'PUT', path: '/edge_function/request?a=%20b', body: 'text' });
    assert.equal(headers['x-a'], '1, 2');
    assert.equal(headers['x-isolate'], undefined);
    assert.equal(headers.host, new URL(runtime().url).host);
  });

  it('a function sees the given variables only', async () => {
    const { environment } = (await (await fetch(`${runtime().url}/request`)).json()) as Record<string, any>;
    assert.deepEqual(environment, { SUPABASE_URL: 'https://ref.example', EMPTY: '' });
  });

  it('another path is 404 and HEAD is 405, in the format of the platform', async () => {
    const { origin } = new URL(runtime().url);
    for (const path of ['/', '/edge_function/request', '/functions/v1/other', '/functions/v1/edge_function2']) {
      const response = await fetch(origin + path);
      assert.deepEqual([response.status, await response.json()], [404, { code: 'NOT_FOUND', message: 'Requested function was not found' }], path);
    }
    assert.equal((await fetch(`${runtime().url}/request`, { method: 'HEAD' })).status, 405);
  });

  it('the page of a GET is plain text', async () => {
    const types = async (method: string) => {
      const response = await fetch(`${runtime().url}/page`, { method });
      assert.deepEqual([response.status, response.headers.get('x-own'), await response.text()], [201, '1', '<!doctype html>']);
      return response.headers.get('content-type');
    };
    assert.deepEqual([await types('GET'), await types('POST')], ['text/plain; charset=utf-8', 'text/html; charset=utf-8']);
  });

  it('a chunk of a request arrives before the next is sent', async () => {
    const request = httpRequest(`${runtime().url}/echo`, { method: 'POST' });
    request.write('first');
    const response = await within(new Promise<import('node:http').IncomingMessage>((resolve) => request.once('response', resolve)), 'the response');
    const chunks = response.iterator() as AsyncIterableIterator<Buffer>;
    assert.equal(String((await within(chunks.next(), 'the first chunk')).value), 'first');
    request.end('second');
    assert.equal(String((await within(chunks.next(), 'the second chunk')).value), 'second');
    assert.equal((await chunks.next()).done, true);
  });

  it('a response that comes before the end of the request arrives', async () => {
    const request = httpRequest(`${runtime().url}/refuse`, { method: 'POST' });
    request.on('error', () => {}); // the rest of the request cannot be sent
    request.write('first');
    const status = await within(new Promise((resolve) => request.once('response', ({ statusCode }) => resolve(statusCode))), 'the response');
    request.destroy();
    assert.equal(status, 413);
  });

  it('a stream that the client does not read is not produced', async () => {
    const { leave } = await openStream(runtime());
    const sent = async () => (await (await fetch(`${runtime().url}/chunks-sent`)).json()) as number;
    let last = -1;
    for (let now = await sent(); now !== last; now = await sent()) {
      last = now;
      await pause(100);
    }
    leave();
    assert.ok(last < 1000, `${last} chunks of 64 KiB`);
  });

  it('a stream whose client leaves is cancelled', async () => {
    const { leave } = await openStream(runtime());
    runtime().logs.length = 0;
    leave();
    await until('the stream is cancelled', () => runtime().logs.includes('stream cancelled'));
    await until('the request has ended', () => only(runtime()).requests === 0);
  });

  it('work after the response is recorded', async () => {
    const isolate = only(runtime());
    await fetch(`${runtime().url}/start-work`);
    await until('the work is recorded', () => isolate.pending_work === 1);
    await fetch(`${runtime().url}/finish-work`);
    await until('the work has ended', () => isolate.pending_work === 0);
  });
});

describe('two isolates', () => {
  const runtime = started({ isolates: 2 });

  it('requests go to the newest, to the chosen one, or in turns', async () => {
    assert.equal((await servedBy(runtime())).number, 1);
    for (const number of [0, 1]) assert.equal((await servedBy(runtime(), { 'x-isolate': String(number) })).number, number);
    runtime().spread = 'round robin';
    const served = [await servedBy(runtime()), await servedBy(runtime()), await servedBy(runtime())];
    runtime().spread = 'newest';
    assert.notEqual(served[0], served[1]);
    assert.equal(served[0], served[2]);
    assert.equal((await fetch(`${runtime().url}/request`, { headers: { 'x-isolate': '7' } })).status, 503);
  });

  it('a restart kills both and starts two', async () => {
    const before = runtime().isolates.map(({ pid }) => pid);
    await runtime().restart();
    assert.deepEqual(runtime().isolates.map(({ number }) => number), [0, 1]);
    assert.ok(runtime().isolates.every(({ pid }) => !before.includes(pid)));
    assert.ok(before.every((pid) => !isRunning(pid)));
  });
});

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

describe('the life of an isolate', () => {
  let runtime: EdgeRuntime;
  const life = (name: string, options: Partial<EdgeRuntimeOptions>, check: () => Promise<void>) =>
    it(name, async () => {
      runtime = await start(options);
      await check().finally(runtime.close);
    });

  life('a retired isolate ends its stream, and a new one serves the next request', {}, async () => {
    const old = only(runtime);
    const stream = await openStream(runtime);
    old.retire();
    assert.notEqual(await servedBy(runtime), old);
    assert.equal((await stream.reader.read()).done, false);
    assert.deepEqual([old.state, old.requests], ['retired', 1]);
    stream.leave();
  });

  life('beforeunload is dispatched by order', {}, async () => {
    await only(runtime).beforeUnload();
    assert.deepEqual(runtime.logs, ['beforeunload: wall_clock']);
  });

  life('a kill cuts a stream, and a new isolate serves the next request', {}, async () => {
    const old = only(runtime);
    const stream = await openStream(runtime);
    await old.kill();
    await expectCut(stream.reader);
    assert.deepEqual([old.state, runtime.isolates.length], ['ended', 0]);
    assert.notEqual((await servedBy(runtime)).pid, old.pid);
  });

  for (const [name, path, end] of [
    ['a kill before the response is 546', 'hang', (isolate: Isolate) => isolate.kill()],
    ['an uncaught error before the response is 546', 'throw', () => Promise.resolve()],
  ] as const) {
    life(name, {}, async () => {
      const waiting = fetch(`${runtime.url}/${path}`);
      const isolate = only(runtime);
      if (path === 'hang') await until('the request has arrived', () => runtime.logs.includes('hanging'));
      await end(isolate);
      const response = await within(waiting, 'the response');
      assert.deepEqual([response.status, ((await response.json()) as { code: string }).code], [546, 'WORKER_LIMIT']);
      await until('the isolate has ended', () => isolate.state === 'ended');
    });
  }

  life('the wall clock retires it, warns it and ends it', { wall_clock_ms: 1_000 }, async () => {
    const isolate = only(runtime);
    const stream = await openStream(runtime);
    const ended = expectCut(stream.reader);
    await until('it is retired', () => isolate.state === 'retired');
    assert.deepEqual(runtime.logs, []);
    await until('it is warned', () => runtime.logs.includes('beforeunload: wall_clock'));
    assert.equal(isolate.state, 'retired');
    await ended;
    await until('it has ended', () => isolate.state === 'ended');
  });

  life('half of the limit of CPU time retires it', { cpu_ms: 1_000 }, async () => {
    const isolate = only(runtime);
    // By the clock: other processes may use the processor meanwhile.
    while (isolate.state === 'live') assert.equal((await fetch(`${runtime.url}/spin?50`)).status, 200);
    assert.equal(isolate.state, 'retired');
    assert.equal((await fetch(`${runtime.url}/spin?1`)).status, 200);
    assert.deepEqual(runtime.isolates.map(({ number, state }) => [number, state]), [[0, 'retired'], [1, 'live']]);
  });

  life('a request that needs more CPU time than the limit is 546', { cpu_ms: 500 }, async () => {
    const isolate = only(runtime);
    assert.equal((await fetch(`${runtime.url}/spin?5000`)).status, 546);
    await until('it has ended', () => isolate.state === 'ended');
  });

  life('a retired isolate with pending work is not dropped', { drop_idle: true }, async () => {
    const isolate = only(runtime);
    const stream = await openStream(runtime);
    await (await fetch(`${runtime.url}/start-work`)).arrayBuffer();
    await until('the work is recorded', () => isolate.pending_work === 1);
    isolate.retire();
    stream.leave();
    await until('the request has ended', () => isolate.requests === 0);
    assert.deepEqual([isolate.state, isolate.pending_work], ['retired', 1]);
  });

  life('an idle isolate is dropped when it is retired', { drop_idle: true }, async () => {
    const isolate = only(runtime);
    isolate.retire();
    await until('the isolate has ended', () => isolate.state === 'ended');
    assert.deepEqual(runtime.logs, ['beforeunload: early_drop']);
  });
});

it('a function that does not start is an error with its output', async () => {
  await assert.rejects(start({ folder: fixture('edge_function_that_throws') }), /thrown at the top level/);
});
