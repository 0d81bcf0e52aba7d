/** The targets on Cloudflare: this project, a peer, and two floors. Each runs in its own workerd, started by miniflare, except for cold starts. */
import { access, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { Miniflare } from 'miniflare';
import { unstable_readConfig as readConfig } from 'wrangler';
import { buildFolder, root } from '../scripts/paths.ts';
import { peerBundle } from './peer_packages.ts';
import { pidWith } from './processes.ts';

export const MODEL = 'bench/model';
const ANON_KEY = 'bench-anon-key';
const MODEL_KEY = 'bench-model-key-of-32-characters';
/** More than any user of a run sends. */
export const MANY = 1_000_000;

/** Of targets without a `wrangler.toml`. */
const COMPATIBILITY_DATE = '2026-07-01';

type Script = {
  modules: { type: 'ESModule' | 'CompiledWasm'; path: string; contents: string | Buffer }[];
  durableObjects?: Record<string, { className: string; useSQLite: true }>;
  compatibilityDate: string;
  compatibilityFlags: string[];
  gzippedBytes: number;
};

/** The limits of each user; `limit`: admitted requests in a minute. */
export const limitsOf = (name: 'ours' | 'peer', limit: number): Record<string, string> =>
  name === 'peer'
    ? { RATE_LIMIT: String(limit) }
    : { RATE_LIMIT_BURST: `${limit}/60`, RATE_LIMIT_GENERATIONS: `${MANY}/86400`, RATE_LIMIT_ATTEMPTS: `${MANY}/86400`, RATE_LIMIT_CONCURRENT: '100', MAX_CANDIDATES: '2000' };

/** A worker, before its start. `limit`: admitted requests of each user in a minute. */
export type Definition = { name: string; script(): Promise<Script>; bindings(limit: number): Record<string, string> };

/** A build of this service; its entry, objects and compatibility flags are those of its `wrangler.toml`. */
const serviceIn = (name: string, folder: string): Definition => ({
  name,
  async script() {
    const config = readConfig({ config: await configurationOf(folder) }, { hideWarnings: true });
    const entry = basename(config.main ?? 'index.js');
    const wasm = (await readdir(folder)).filter((file) => file.endsWith('.wasm'));
    const read = (file: string) => readFile(join(folder, file));
    const modules = [
      { type: 'ESModule' as const, path: entry, contents: (await read(entry)).toString() },
      ...(await Promise.all(wasm.map(async (path) => ({ type: 'CompiledWasm' as const, path, contents: await read(path) })))),
    ];
    const objects = config.durable_objects.bindings.map(({ name, class_name }: { name: string; class_name: string }) => [name, { className: class_name, useSQLite: true as const }]);
    return {
      modules,
      durableObjects: Object.fromEntries(objects),
      compatibilityDate: config.compatibility_date ?? COMPATIBILITY_DATE,
      compatibilityFlags: config.compatibility_flags,
      gzippedBytes: modules.reduce((sum, { contents }) => sum + gzipped(contents), 0),
    };
  },
  bindings: (limit) => limitsOf('ours', limit),
});

/** The `wrangler.toml` beside a build folder, or this checkout's. */
async function configurationOf(folder: string): Promise<string> {
  const own = join(folder, '../wrangler.toml');
  const hasOwn = await access(own).then(() => true, () => false);
  return hasOwn ? own : join(root, 'wrangler.toml');
}

/** The worker of a single module. */
const singleModule = (name: string, file: string, object: { binding: string; className: string }): Definition => ({
  name,
  async script() {
    const contents = await readFile(file, 'utf8');
    return { ...scriptOf({ 'worker.js': contents }), durableObjects: { [object.binding]: { className: object.className, useSQLite: true } } };
  },
  bindings: (limit) => limitsOf('peer', limit),
});

/** The modules of a folder, of which `worker.js` is the entry. */
const floorWithPromises: Definition = {
  name: 'floor-with-promises',
  async script() {
    const folder = join(root, 'bench/floor_with_promises');
    const files = ['worker.js', ...(await readdir(folder)).filter((file) => file.endsWith('.js') && file !== 'worker.js')];
    const read = files.map(async (file) => [file, await readFile(join(folder, file), 'utf8')] as const);
    const script = scriptOf(Object.fromEntries(await Promise.all(read)));
    const flags = [...script.compatibilityFlags, 'streams_byob_reader_does_not_detach_buffer'];
    return { ...script, compatibilityFlags: flags, durableObjects: { USER_OBJECT: { className: 'UserObject', useSQLite: true } } };
  },
  bindings: (limit) => limitsOf('ours', limit),
};

/** Another build of this service, from `--target NAME=FOLDER`. */
export type OtherBuild = { name: string; folder: string };

/** The targets in the order of the table's columns. */
export const definitionsWith = (builds: OtherBuild[]): Definition[] => [
  serviceIn('ours', buildFolder),
  ...builds.map(({ name, folder }) => serviceIn(name, folder)),
  singleModule('peer', join(peerBundle, 'worker.js'), { binding: 'LIMITER', className: 'Limiter' }),
  floorWithPromises,
  singleModule('floor', join(root, 'bench/floor/worker.js'), { binding: 'USER_OBJECT', className: 'UserObject' }),
];

/** An empty worker, for cold starts. */
export const emptyWorker: Definition = {
  name: 'empty',
  script: async () => scriptOf({ 'worker.js': "export default { fetch: () => new Response('ok') };" }),
  bindings: () => ({}),
};

export const gzipped = (bytes: Buffer | string) => gzipSync(bytes, { level: 9 }).length;

/** The script of these modules; the first is the entry. */
const scriptOf = (modules: Record<string, string>): Script => ({
  modules: Object.entries(modules).map(([path, contents]) => ({ type: 'ESModule', path, contents })),
  compatibilityDate: COMPATIBILITY_DATE,
  compatibilityFlags: ['enable_request_signal'],
  gzippedBytes: Object.values(modules).reduce((sum, contents) => sum + gzipped(contents), 0),
});

export const gzippedKb = async (definition: Definition): Promise<number> => (await definition.script()).gzippedBytes / 1000;

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
export async function workerOf(definition: Definition, upstreamUrl: string, limit = MANY) {
  const { gzippedBytes: _, ...script } = await definition.script();
  return { ...script, bindings: { ...commonVariables(upstreamUrl), ...definition.bindings(limit) } };
}

/** `onLine` gets each line of the worker's log. */
export async function startTarget(definition: Definition, upstreamUrl: string, limit = MANY, onLine?: (line: string) => void): Promise<Target & { storage: string }> {
  const storage = await mkdtemp(join(tmpdir(), 'ai-sessions-bench-'));
  const miniflare = new Miniflare({
    ...(await workerOf(definition, upstreamUrl, limit)),
    name: 'target',
    durableObjectsPersist: storage,
    // Without miniflare's own entry worker, whose constant cost for each request would hide differences.
    unsafeDirectSockets: [{ host: '127.0.0.1', port: 0 }],
    unsafeRuntimeEnv: { [SERVES_FROM]: storage },
    handleRuntimeStdio: (stdout: Readable, stderr: Readable) => {
      if (onLine === undefined) stdout.resume();
      else createInterface(stdout).on('line', onLine);
      stderr.resume();
    },
  });
  await miniflare.ready;
  const url = String(await miniflare.unsafeGetDirectURL('target')).replace(/\/$/, '');
  return {
    name: definition.name,
    storage,
    url,
    pid: await pidWith(SERVES_FROM, storage),
    async close() {
      await miniflare.dispose();
      await rm(storage, { recursive: true, force: true });
    },
  };
}
