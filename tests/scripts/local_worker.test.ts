// `npm run dev` serves the built module with `wrangler dev`: a client that leaves does not end it, and it is restarted when it
// ends. The static assets are bound by wrangler.toml, as in a deployment.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type FileHandle, mkdir, open, readFile, rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { folderOfPort, freePort, launchLocalWorker, type LocalWorker } from '../../scripts/local_worker.ts';
import { assetsFolder, testOutputFolder } from '../../scripts/paths.ts';
import { keepRunning, type KeptProgram } from '../../scripts/restarts.ts';
import { lesson } from '../service/service.ts';
import { createGate } from '../support/gate.ts';
import { answer, gated } from '../support/model_behaviour.ts';
import { within } from '../support/within.ts';
import { startWorld, type World } from '../support/world.ts';

/** Each way of leaving is repeated: about one disconnect in ten ended wrangler 4.116.0. */
const TIMES = 30;

/** wrangler takes 3 to 6 s to start on two busy cores. */
const START_MS = 60_000;

/** A port of another range, so that a concurrent `npm run dev` keeps its port. */
const FIRST_PORT = 18_787;

/** wrangler logs each of those clients at length. */
let log: FileHandle;
let world: World;
let worker: LocalWorker;
let vars: Record<string, string>;
let token: string;

before(async () => {
  world = await startWorld();
  token = world.auth.token(await world.auth.createUser());
  vars = {
    SUPABASE_URL: world.supabaseUrl,
    SUPABASE_ANON_KEY: world.anonKey,
    OPENROUTER_BASE_URL: world.openrouter.url,
    OPENROUTER_API_KEY: world.openrouter.key,
    ALLOWED_MODELS: 'test/first',
    RATE_LIMIT_BURST: '100000/1',
    RATE_LIMIT_GENERATIONS: '100000/1',
    RATE_LIMIT_CONCURRENT: '100',
  };
  await mkdir(testOutputFolder, { recursive: true });
  log = await open(join(testOutputFolder, 'wrangler_dev.log'), 'w');
  worker = await launchLocalWorker(await freePort(FIRST_PORT), vars, log.fd);
  await worker.ready();
});

after(async () => {
  await worker.stop();
  await world.close();
  await log.close();
  await rm(folderOfPort(Number(new URL(worker.url).port)), { recursive: true, force: true });
});

describe('the static assets of wrangler dev', () => {
  const text = (name: string) => readFile(join(assetsFolder, name), 'utf8');

  for (const [path, asset] of [['/docs', 'docs.html'], ['/openapi.json', 'openapi.json']] as const) {
    it(`the Worker sends a static asset at ${path}`, async () => {
      const response = await fetch(`${worker.url}${path}`);
      assert.equal(response.status, 200);
      assert.equal(response.headers.get('cache-control'), 'public, max-age=300');
      assert.match(response.headers.get('server-timing') ?? '', /^total;/);
      assert.ok(response.headers.has('x-request-id'));
      assert.equal(response.headers.has('content-security-policy'), path === '/docs');
      assert.equal(await response.text(), await text(asset));
      const posted = await fetch(`${worker.url}${path}`, { method: 'POST' });
      assert.equal(posted.status, 405);
    });
  }

  it('static assets have no other path', async () => {
    for (const path of ['/docs.html', '/docs/', '/openapi', '/assets/docs.html', '/']) {
      const response = await fetch(`${worker.url}${path}`, { redirect: 'manual' });
      assert.equal(response.status, 404, path);
      assert.equal(response.headers.get('content-type'), 'application/problem+json', path);
    }
  });
});

describe('wrangler dev stays up after clients that leave', () => {
  const whole = Buffer.from(JSON.stringify({ input_text: lesson(), model: 'test/first' }));
  const signedIn = () => `Authorization: Bearer ${token}\r\n`;

  const ways: [name: string, leave: () => Promise<void>][] = [
    ['in the middle of a body without a token', () => leaveInBody('Content-Length: 150000\r\n', '{"input_text":"x')],
    ['in the middle of a body', () => leaveInBody(`${signedIn()}Content-Length: 150000\r\n`, '{"input_text":"x')],
    ['in the middle of a body of most of its length', () => leaveInBody(`${signedIn()}Content-Length: 150000\r\n`, 'x'.repeat(120_000))],
    ['in the middle of a chunk of a body', () => leaveInBody(`${signedIn()}Transfer-Encoding: chunked\r\n`, '100\r\n{"input_text":"x')],
    ['in the middle of a body that comes slowly', () => leaveInBody(`${signedIn()}Content-Length: 150000\r\n`, '{', ...Array<string>(20).fill('"input_text":"x'))],
    ['before the response', async () => {
      const gate = createGate();
      world.openrouter.next(gated(gate));
      const socket = await post(`${signedIn()}Content-Length: ${whole.length}\r\n`, whole);
      await within(gate.reached, 'the model call');
      socket.resetAndDestroy();
      gate.open();
    }],
    ['in the middle of a stream', async () => {
      const gate = createGate();
      world.openrouter.next(answer({ hold: { gate, after_candidates: 2 } }));
      const socket = await post(`${signedIn()}Accept: text/event-stream\r\nContent-Length: ${whole.length}\r\n`, whole);
      await within(once(socket, 'data'), 'the first event');
      await within(gate.reached, 'the second candidate');
      socket.resetAndDestroy();
      gate.open();
    }],
  ];
  for (const [name, leave] of ways) {
    it(`wrangler dev survives clients that leave ${name}`, async () => {
      for (let time = 1; time <= TIMES; time += 1) {
        await leave();
        assert.equal(await health(), 200, `after ${time} clients`);
      }
      // The same wrangler, not a restarted one.
      assert.ok(process.kill(worker.pid ?? 0, 0));
    });
  }

  it('wrangler dev generates candidates after clients that leave', async () => {
    const response = await fetch(`${worker.url}/ai-sessions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json', connection: 'close' },
      body: whole,
    });
    assert.equal(response.status, 201);
    assert.ok(((await response.json()) as { candidates: unknown[] }).candidates.length > 0);
  });
});

it('wrangler dev is restarted on its port after a crash, and stopped', async () => {
  const up = Promise.withResolvers<void>();
  let second: LocalWorker | undefined;
  const kept: KeptProgram = keepRunning(
    'wrangler dev',
    worker,
    async () => (second = await launchLocalWorker(Number(new URL(worker.url).port), vars, log.fd)),
    (line) => {
      if (line.includes('up again')) up.resolve();
    },
  );
  assert.ok(worker.pid !== undefined && process.kill(worker.pid, 'SIGKILL'));
  await within(Promise.race([up.promise, kept.finished]), 'the restart', START_MS);
  assert.equal(await health(), 200);
  assert.notEqual(second?.pid, worker.pid);

  await kept.stop();
  await second?.ended;
  await assert.rejects(health());
});

const health = async () => (await fetch(`${worker.url}/health`, { headers: { connection: 'close' }, signal: AbortSignal.timeout(10_000) })).status;

async function post(headers: string, body: string | Buffer): Promise<Socket> {
  const { hostname, port } = new URL(worker.url);
  const socket = connect(Number(port), hostname);
  // wrangler may close the connection first, and a write then fails.
  socket.on('error', () => {});
  await within(once(socket, 'connect'), 'a connection');
  socket.write(`POST /ai-sessions HTTP/1.1\r\nHost: ${hostname}\r\nContent-Type: application/json\r\n${headers}\r\n`);
  socket.write(body);
  return socket;
}

/** Sends parts of a body, then the end of the connection; waits until the server has closed its side too. */
async function leaveInBody(headers: string, first: string, ...rest: string[]): Promise<void> {
  const socket = await post(headers, first);
  const closed = within(once(socket, 'close'), 'the end of the connection');
  socket.resume();
  for (const part of rest) await new Promise((resolve) => socket.write(part, resolve));
  socket.end();
  await closed;
}
