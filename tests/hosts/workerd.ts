// Starts the Worker in workerd, as Cloudflare runs it, in a local world. Contains no assertion.

import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { Miniflare, type MiniflareOptions, type WorkerOptions } from 'miniflare';
import type { Service, Variables } from '../service/service.ts';
import { eachLine } from '../support/log_lines.ts';
import { startWorld } from '../support/world.ts';

const build = fileURLToPath(new URL('../../build/', import.meta.url));

/** As in wrangler.toml. */
export const COMPATIBILITY = {
  compatibilityDate: '2026-07-01',
  compatibilityFlags: ['enable_request_signal', 'streams_byob_reader_does_not_detach_buffer'],
};

/** A service with access to its process and storage. */
export type WorkerdService = Service & {
  /** The process id of workerd, since the last start. */
  readonly pid: number;
  /** The folder of the objects' storage. */
  readonly storage: string;
  /** Stops it and starts it again on the same storage, with other variables. */
  restart(changed?: Record<string, string>): Promise<void>;
  /** Sends `kill -9` immediately, then starts on the same storage. */
  kill(): Promise<void>;
};

/** Starts a new world and a Worker in it. */
export const startOnWorkerd = (variables?: Variables): Promise<WorkerdService> => startAfter('', variables);

/** Starts a Worker with JavaScript that runs before the module, for tests that break the platform. */
export async function startAfter(
  prelude: string,
  variables: Variables = {},
  /** Bindings that a script of their own makes, by name. */
  wrapped: Record<string, string> = {},
  /** A script with a streaming tail handler, which receives the spans of the Worker and its objects. */
  tail?: string,
): Promise<WorkerdService> {
  const world = await startWorld();
  const storage = await mkdtemp(join(tmpdir(), 'ai-sessions-storage-'));
  const logs: string[] = [];
  const bindings: Record<string, string> = {
    SUPABASE_URL: world.supabaseUrl,
    SUPABASE_ANON_KEY: world.anonKey,
    OPENROUTER_API_KEY: world.openrouter.key,
    OPENROUTER_BASE_URL: world.openrouter.url,
    ALLOWED_MODELS: 'test/first,test/second',
    ALLOWED_ORIGINS: 'https://cards.example',
    ...(typeof variables === 'function' ? variables(world) : variables),
  };
  const worker: WorkerOptions = {
    name: 'ai-sessions',
    modules: [
      { type: 'ESModule', path: join(build, 'index.js'), contents: prelude + (await readFile(join(build, 'index.js'), 'utf8')) },
      { type: 'CompiledWasm', path: join(build, 'index_bg.wasm') },
    ],
    modulesRoot: build,
    ...COMPATIBILITY,
    bindings,
    durableObjects: { USER_SESSIONS: { className: 'UserSessions', useSQLite: true } },
    // workerd's own file service. miniflare's `assets` puts two workers before this one, which cost each start 130 ms and each
    // request 0.5 ms; tests/scripts/local_worker.test.ts has them, as wrangler.toml sets them.
    serviceBindings: { ASSETS: { disk: { path: join(build, 'assets'), writable: false } } },
    wrappedBindings: Object.fromEntries(Object.keys(wrapped).map((name) => [name, { scriptName: name }])),
    unsafeEphemeralDurableObjects: false,
    ...(tail === undefined ? {} : { streamingTails: ['tail'] }),
  };
  const tailWorker: WorkerOptions = {
    name: 'tail',
    modules: true,
    script: tail ?? '',
    ...COMPATIBILITY,
    compatibilityFlags: ['experimental', 'streaming_tail_worker'],
  };
  const options: MiniflareOptions = {
    workers: [worker, ...Object.entries(wrapped).map(([name, script]) => ({ name, modules: true, script }) satisfies WorkerOptions), ...(tail === undefined ? [] : [tailWorker])],
    durableObjectsPersist: storage,
    unsafeRuntimeEnv: { [SERVES_FROM]: storage },
    handleRuntimeStdio: (stdout: Readable, stderr: Readable) => {
      for (const stream of [stdout, stderr]) stream.pipe(eachLine((line) => logs.push(line)));
    },
  };
  let miniflare: Miniflare;
  let url: string;
  let pid: number;
  const begin = async () => {
    miniflare = new Miniflare(options);
    url = String(await miniflare.ready).replace(/\/$/, '');
    pid = await pidOf(storage);
  };
  const service: WorkerdService = {
    world,
    logs,
    storage,
    get pid() {
      return pid;
    },
    get url() {
      return url;
    },
    async restart(changed = {}) {
      Object.assign(bindings, changed);
      await miniflare.dispose();
      await begin();
    },
    kill() {
      process.kill(pid, 'SIGKILL');
      return service.restart();
    },
    async close() {
      await miniflare.dispose();
      await world.close();
      await rm(storage, { recursive: true, force: true });
    },
  };
  // A module that does not start must not leave anything that keeps the test run from ending.
  await begin().catch(async (error: unknown) => {
    await miniflare.dispose().catch(() => {}); // fails again with the error of the start
    await world.close();
    throw error;
  });
  return service;
}

/** An environment variable that identifies one workerd of a test run. */
const SERVES_FROM = 'AI_SESSIONS_STORAGE';

/** Finds the workerd of that folder; miniflare does not report it. */
async function pidOf(storage: string): Promise<number> {
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const environment = await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => ''); // ended, or not ours
    if (environment.split('\0').includes(`${SERVES_FROM}=${storage}`)) return Number(pid);
  }
  throw new Error('no workerd serves from the storage of this service');
}

/** The files of the module, for the tests that measure it. */
export const moduleFiles = async (): Promise<Buffer[]> =>
  Promise.all(['index.js', 'index_bg.wasm'].map((file) => readFile(join(build, file))));
