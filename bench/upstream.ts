/** The upstream of all targets: key set, PostgREST and model in one native program (bench/upstream). */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { root } from '../scripts/paths.ts';
import { runRust } from '../scripts/run_program.ts';
import { Failure } from '../scripts/steps.ts';
import { onUnplannedExit } from '../tests/support/exit_cleanup.ts';

const folder = join(root, 'bench/upstream');
/** A folder of its own: other flags would empty the crate's. */
export const benchTargetFolder = join(process.env['CARGO_TARGET_DIR'] ?? join(root, 'target'), 'bench');

/** The settings of bench/upstream/src/settings.rs. */
export type Settings = {
  cards: number;
  chunk_bytes: number;
  chunk_delay_ms: number;
  model_delay_ms: number;
  database_delay_ms: number;
  record: boolean;
};

export type Log = {
  /** Requests by method and path. */
  calls: Record<string, number>;
  /** The opened connections, those of the benchmark's own requests included. */
  connections: number;
  /** Of the last stream: the time of each candidate's last byte, on the clock of `process.hrtime`. */
  closed_ms: number[];
  /** With `record`: the requests that were answered before the last call of the model arrived. */
  awaited: string[];
  writes: { call: string; body: unknown }[];
};

export type Upstream = {
  url: string;
  pid: number;
  keySet: object;
  /** Default: 8 candidates in chunks of 20 bytes, without delay. */
  set(settings?: Partial<Settings>): Promise<void>;
  /** The requests since the last call. */
  log(): Promise<Log>;
  close(): Promise<void>;
};

/** 20 bytes, as seen from providers: some five tokens. */
const PLAIN: Settings = { cards: 8, chunk_bytes: 20, chunk_delay_ms: 0, model_delay_ms: 0, database_delay_ms: 0, record: false };

export async function buildUpstream(): Promise<void> {
  const args = ['build', '--locked', '--release', '--manifest-path', join(folder, 'Cargo.toml'), '--target-dir', benchTargetFolder];
  const { ok, output } = await runRust('cargo', args);
  if (ok) return;
  process.stderr.write(output);
  throw new Failure("The benchmark's upstream could not be built: see the compiler's message above.");
}

export async function startUpstream(keySet: object): Promise<Upstream> {
  const child = spawn(join(benchTargetFolder, 'release/bench-upstream'), { stdio: ['ignore', 'pipe', 'inherit'] });
  const forget = onUnplannedExit(() => child.kill('SIGKILL'));
  const [url] = (await once(createInterface(child.stdout), 'line')) as [string];
  const call = async (method: string, path: string, body?: object) => {
    const answer = await fetch(url + path, { method, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
    if (!answer.ok) throw new Error(`the upstream answers ${method} ${path} with ${answer.status}`);
    return answer;
  };
  const upstream: Upstream = {
    url,
    pid: Number(child.pid),
    keySet,
    async set(settings = {}) {
      await call('PUT', '/bench/settings', { ...PLAIN, ...settings, key_set: JSON.stringify(keySet) });
    },
    async log() {
      return (await (await call('GET', '/bench/log')).json()) as Log;
    },
    async close() {
      forget();
      child.kill('SIGKILL');
      await once(child, 'close');
    },
  };
  await upstream.set();
  return upstream;
}
