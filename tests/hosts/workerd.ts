// Starts the Worker in workerd, as Cloudflare runs it, against a local world. It holds no assertion.

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { Miniflare, type MiniflareOptions } from 'miniflare';
import type { Service, StartService } from '../service/service.ts';
import { startWorld } from '../support/world.ts';

const build = fileURLToPath(new URL('../../build/', import.meta.url));

/** A world of its own and a Worker in it. */
export const startOnWorkerd: StartService = async (variables = {}) => {
  const world = await startWorld();
  const storage = await mkdtemp(join(tmpdir(), 'ai-sessions-storage-'));
  const logs: string[] = [];
  const options: MiniflareOptions = {
    modules: [
      { type: 'ESModule', path: join(build, 'index.js') },
      { type: 'CompiledWasm', path: join(build, 'index_bg.wasm') },
    ],
    modulesRoot: build,
    compatibilityDate: '2026-07-01',
    compatibilityFlags: ['enable_request_signal'],
    bindings: {
      SUPABASE_URL: world.supabaseUrl,
      SUPABASE_ANON_KEY: world.anonKey,
      OPENROUTER_API_KEY: world.openrouter.key,
      OPENROUTER_BASE_URL: world.openrouter.url,
      ALLOWED_MODELS: 'test/first,test/second',
      ALLOWED_ORIGINS: 'https://cards.example',
      ...(typeof variables === 'function' ? variables(world) : variables),
    },
    durableObjects: { USER_SESSIONS: { className: 'UserSessions', useSQLite: true } },
    durableObjectsPersist: storage,
    unsafeEphemeralDurableObjects: false,
    handleRuntimeStdio: (stdout: Readable, stderr: Readable) => {
      for (const stream of [stdout, stderr]) stream.pipe(collect(logs));
    },
  };
  let miniflare = new Miniflare(options);
  let url = String(await miniflare.ready).replace(/\/$/, '');
  const service: Service = {
    world,
    logs,
    get url() {
      return url;
    },
    async restart() {
      await miniflare.dispose();
      miniflare = new Miniflare(options);
      url = String(await miniflare.ready).replace(/\/$/, '');
    },
    async close() {
      await miniflare.dispose();
      await world.close();
      await rm(storage, { recursive: true, force: true });
    },
  };
  return service;
};

/** Lines, as they come. */
function collect(lines: string[]): Writable {
  let rest = '';
  return new Writable({
    write(chunk: Buffer, _encoding, done) {
      const parts = (rest + chunk.toString('utf8')).split('\n');
      rest = parts.pop() ?? '';
      lines.push(...parts.filter((line) => line !== ''));
      done();
    },
    final(done) {
      if (rest !== '') lines.push(rest);
      done();
    },
  });
}

/** What the module is made of, for the tests that measure it. */
export const moduleFiles = async (): Promise<Buffer[]> =>
  Promise.all(['index.js', 'index_bg.wasm'].map((file) => readFile(join(build, file))));
