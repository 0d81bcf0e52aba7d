/** Starts workerd without miniflare, whose own work would be most of a cold start: it writes a configuration first. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { promisify } from 'node:util';
import { npmPackage } from '../scripts/paths.ts';
import { onUnplannedExit } from '../tests/support/exit_cleanup.ts';
import { type Definition, type Target, workerOf } from './targets.ts';

const workerd = npmPackage('workerd', 'bin/workerd');

/** The folder of the modules. */
const CONFIGURATION_BYTES_MAX = 64 * 1024 * 1024;

/** An empty Cache API. */
const EMPTY_CACHE = `export default {
  fetch: ({ method }) => new Response(null, method === 'GET' ? { status: 504, headers: { 'cf-cache-status': 'MISS' } } : { status: 204 }),
};`;

export type Prepared = {
  name: string;
  /** Starts a process on the storage that is there. `stop` kills it and keeps the storage, `close` empties it. */
  start(): Promise<Target & { stop(): Promise<void> }>;
  remove(): Promise<void>;
};

/** Compiles a target's configuration, so that only the start itself is measured. */
export async function prepare(definition: Definition, upstreamUrl: string): Promise<Prepared> {
  const { name } = definition;
  const worker = await workerOf(definition, upstreamUrl);
  const folder = await mkdtemp(join(tmpdir(), 'ai-sessions-bench-'));
  const forget = onUnplannedExit(() => rmSync(folder, { recursive: true, force: true }));
  for (const { path, contents } of worker.modules) await writeFile(join(folder, path), contents);
  await writeFile(join(folder, 'config.capnp'), configurationOf(worker, folder));
  const compile = ['compile', '--config-only', join(folder, 'config.capnp')];
  const { stdout } = await promisify(execFile)(workerd, compile, { encoding: 'buffer', maxBuffer: CONFIGURATION_BYTES_MAX });
  await writeFile(join(folder, 'config.bin'), stdout);
  await emptyStorage(folder);
  return {
    name,
    async start() {
      const target = await start(name, folder);
      return {
        ...target,
        stop: target.close,
        async close() {
          await target.close();
          await emptyStorage(folder);
        },
      };
    },
    async remove() {
      forget();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function emptyStorage(folder: string): Promise<void> {
  await rm(join(folder, 'storage'), { recursive: true, force: true });
  await mkdir(join(folder, 'storage'));
}

async function start(name: string, folder: string): Promise<Target> {
  const args = ['serve', '--binary', '--experimental', '--control-fd=3', join(folder, 'config.bin')];
  const child = spawn(workerd, args, { stdio: ['ignore', 'ignore', 'inherit', 'pipe'] });
  const forget = onUnplannedExit(() => child.kill('SIGKILL'));
  // One line of JSON for each socket that listens.
  let output = '';
  for await (const chunk of child.stdio[3] as Readable) {
    output += chunk;
    if (output.includes('\n')) break;
  }
  const port = /"port":(\d+)/.exec(output)?.[1];
  if (port === undefined) throw new Error(`workerd ended before it listened for ${name}`);
  return {
    name,
    url: `http://127.0.0.1:${port}`,
    pid: Number(child.pid),
    async close() {
      forget();
      child.kill('SIGKILL');
      if (child.exitCode === null && child.signalCode === null) await once(child, 'close');
    },
  };
}

/** https://github.com/cloudflare/workerd/blob/main/src/workerd/server/workerd.capnp */
function configurationOf({ modules, durableObjects = {}, bindings, ...worker }: Awaited<ReturnType<typeof workerOf>>, folder: string): string {
  const text = JSON.stringify;
  const kinds = { ESModule: 'esModule', CompiledWasm: 'wasm' };
  const objects = Object.entries(durableObjects);
  return `
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "target")],
  services = [
    (name = "target", worker = (
      modules = [${modules.map(({ type, path }) => `(name = ${text(path)}, ${kinds[type]} = embed ${text(path)})`)}],
      compatibilityDate = ${text(worker.compatibilityDate)},
      compatibilityFlags = [${worker.compatibilityFlags.map((flag) => text(flag))}],
      bindings = [${[
        ...Object.entries(bindings).map(([name, value]) => `(name = ${text(name)}, text = ${text(value)})`),
        ...objects.map(([name, { className }]) => `(name = ${text(name)}, durableObjectNamespace = ${text(className)})`),
      ]}],
      durableObjectNamespaces = [${objects.map(([, { className }]) => `(className = ${text(className)}, uniqueKey = ${text(className)}, enableSql = true)`)}],
      durableObjectStorage = (localDisk = "storage"),
      cacheApiOutbound = "cache")),
    (name = "cache", worker = (
      modules = [(name = "cache.js", esModule = ${text(EMPTY_CACHE)})], compatibilityDate = ${text(worker.compatibilityDate)})),
    (name = "storage", disk = (path = ${text(join(folder, 'storage'))}, writable = true)),
    (name = "internet", network = (allow = ["public", "private"]))]);
`;
}
