/** The targets on Cloudflare: this project, a peer, and a floor. Each runs in its own workerd, started by miniflare, except for cold starts. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { Miniflare } from 'miniflare';
import { buildFolder, root } from '../scripts/paths.ts';
import { peerBundle } from './peer_packages.ts';
import { pidWith } from './processes.ts';

/** The floor reads the model's answer in three ways; where that does not matter, it reads the answer whole. */
export const TARGETS = ['ours', 'peer', 'floor', 'floor in batches', 'floor by chunk'] as const;
export type TargetName = (typeof TARGETS)[number];

export const MODEL = 'bench/model';
const ANON_KEY = 'bench-anon-key';
const MODEL_KEY = 'bench-model-key-of-32-characters';
/** More than any user of a run sends. */
export const MANY = 1_000_000;

type Script = {
  modules: { type: 'ESModule' | 'CompiledWasm'; path: string; contents: string | Buffer }[];
  durableObjects?: Record<string, { className: string; useSQLite: true }>;
  gzippedBytes: number;
};

/** The limits of each user; `limit`: admitted requests in a minute. */
export const limitsOf = (name: 'ours' | 'peer', limit: number): Record<string, string> =>
  name === 'peer'
    ? { RATE_LIMIT: String(limit) }
    : { RATE_LIMIT_BURST: `${limit}/60`, RATE_LIMIT_GENERATIONS: `${MANY}/86400`, RATE_LIMIT_CONCURRENT: '100', MAX_CANDIDATES: '2000' };

/** `limit`: admitted requests of each user in a minute. */
type Definition = { script(): Promise<Script>; bindings(limit: number): Record<string, string> };

const floor = (READ: string): Definition => ({
  async script() {
    const contents = await readFile(join(root, 'bench/floor/worker.js'), 'utf8');
    return { ...oneModule(contents), durableObjects: { USER_OBJECT: { className: 'UserObject', useSQLite: true } } };
  },
  bindings: (limit) => ({ RATE_LIMIT: String(limit), READ }),
});

const definitions: Record<TargetName | 'empty', Definition> = {
  ours: {
    async script() {
      const [index, wasm] = await Promise.all(['index.js', 'index_bg.wasm'].map((file) => readFile(join(buildFolder, file))));
      if (index === undefined || wasm === undefined) throw new Error('build/ has both');
      return {
        modules: [
          { type: 'ESModule', path: 'index.js', contents: index.toString() },
          { type: 'CompiledWasm', path: 'index_bg.wasm', contents: wasm },
        ],
        durableObjects: { USER_SESSIONS: { className: 'UserSessions', useSQLite: true } },
        gzippedBytes: gzipped(index) + gzipped(wasm),
      };
    },
    bindings: (limit) => limitsOf('ours', limit),
  },
  peer: {
    async script() {
      const contents = await readFile(join(peerBundle, 'worker.js'), 'utf8');
      return { ...oneModule(contents), durableObjects: { LIMITER: { className: 'Limiter', useSQLite: true } } };
    },
    bindings: (limit) => limitsOf('peer', limit),
  },
  floor: floor('whole'),
  'floor in batches': floor('batches'),
  'floor by chunk': floor('chunks'),
  empty: {
    script: async () => oneModule("export default { fetch: () => new Response('ok') };"),
    bindings: () => ({}),
  },
};

export const gzipped = (bytes: Buffer | string) => gzipSync(bytes, { level: 9 }).length;

const oneModule = (contents: string) => ({
  modules: [{ type: 'ESModule' as const, path: 'worker.js', contents }],
  gzippedBytes: gzipped(contents),
});

export const gzippedKb = async (name: TargetName): Promise<number> => (await definitions[name].script()).gzippedBytes / 1000;

/** A running target. */
export type Target = { name: string; url: string; pid: number; close(): Promise<void> };

/** An environment variable that identifies one workerd. */
const SERVES_FROM = 'BENCH_STORAGE';

/** The variables of all targets on every host. */
export const commonVariables = (upstreamUrl: string): Record<string, string> => ({
  SUPABASE_URL: upstreamUrl,
  SUPABASE_ANON_KEY: ANON_KEY,
  OPENROUTER_API_KEY: MODEL_KEY,
  OPENROUTER_BASE_URL: `${upstreamUrl}/api/v1`,
  ALLOWED_MODELS: MODEL,
  ALLOWED_ORIGINS: 'https://cards.example',
});

/** The script and bindings of a target. */
export async function workerOf(name: TargetName | 'empty', upstreamUrl: string, limit = MANY) {
  const { gzippedBytes: _, ...script } = await definitions[name].script();
  return {
    ...script,
    compatibilityDate: '2026-07-01',
    compatibilityFlags: ['enable_request_signal'],
    bindings: { ...commonVariables(upstreamUrl), ...definitions[name].bindings(limit) },
  };
}

export async function startTarget(name: TargetName | 'empty', upstreamUrl: string, limit = MANY): Promise<Target> {
  const storage = await mkdtemp(join(tmpdir(), 'ai-sessions-bench-'));
  const miniflare = new Miniflare({
    ...(await workerOf(name, upstreamUrl, limit)),
    name: 'target',
    durableObjectsPersist: storage,
    // Without miniflare's own entry worker, whose constant cost for each request would hide differences.
    unsafeDirectSockets: [{ host: '127.0.0.1', port: 0 }],
    unsafeRuntimeEnv: { [SERVES_FROM]: storage },
    handleRuntimeStdio: (stdout: Readable, stderr: Readable) => {
      stdout.resume();
      stderr.resume();
    },
  });
  await miniflare.ready;
  const url = String(await miniflare.unsafeGetDirectURL('target')).replace(/\/$/, '');
  return {
    name,
    url,
    pid: await pidWith(SERVES_FROM, storage),
    async close() {
      await miniflare.dispose();
      await rm(storage, { recursive: true, force: true });
    },
  };
}
