/** The Edge Functions: this project, and the peer. Each runs in its own process of Deno 2.1.4, the engine of Supabase's runtime. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';
import { npmPackage, root } from '../scripts/paths.ts';
import { onUnplannedExit } from '../tests/support/exit_cleanup.ts';
import { peerBundle } from './peer_packages.ts';
import { forgetCpu } from './processes.ts';
import { commonVariables, gzipped, limitsOf, MANY, type Target } from './targets.ts';
import type { Upstream } from './upstream.ts';

export const FUNCTIONS = ['ours', 'peer'] as const;
export type FunctionName = (typeof FUNCTIONS)[number];

/** The only route segment that the gateway leaves before a function's own paths. */
const SLUG = 'flashcards';
const USER_STATE_KEY = 'bench-user-state-key-of-48-visible-characters-00';

/** The files that are uploaded; the first is the entry. Documents are in none of the script sizes. */
const FILES: Record<FunctionName | 'empty', string[]> = {
  ours: ['index.ts', 'ai_sessions.js', 'ai_sessions_bg.wasm'].map((file) => join(root, 'supabase/functions', SLUG, file)),
  peer: [join(peerBundle, 'edge_function.js')],
  empty: [join(root, 'bench/isolate/empty.js')],
};

const deno = npmPackage(`@deno/linux-${process.arch}-glibc`, 'deno');

/** The permissions of the platform. Its runtime caches no compiled code between isolates, so neither does this. */
const FLAGS = ['--quiet', '--no-prompt', '--no-config', '--no-lock', '--no-remote', '--no-npm', '--no-code-cache', '--allow-net', '--allow-env', '--allow-read'];

/** The one command line that starts an isolate. */
const commandOf = (name: FunctionName | 'empty') => ['run', ...FLAGS, join(root, 'bench/isolate/main.js'), pathToFileURL(FILES[name][0] ?? '').href];

function variablesOf(name: FunctionName | 'empty', upstream: Upstream, limit: number): Record<string, string> {
  const common = commonVariables(upstream.url);
  if (name !== 'ours') return { ...common, ...limitsOf('peer', limit) };
  return {
    ...common,
    ...limitsOf('ours', limit),
    SUPABASE_JWKS: JSON.stringify(upstream.keySet),
    PUBLIC_URL: `https://project.supabase.example/functions/v1/${SLUG}`,
    USER_STATE_KEY,
  };
}

export type StartedFunction = Target & {
  /** From before the import of the function's entry to its call of `Deno.serve`. */
  import_ms: number;
};

/** Starts one isolate. The first start of a function also transpiles it, and keeps the result for the next ones. */
export async function startFunction(name: FunctionName | 'empty', upstream: Upstream, limit = MANY): Promise<StartedFunction> {
  const env = { ...variablesOf(name, upstream, limit), DENO_DIR: npmPackage('.cache', 'deno-supabase'), DENO_NO_PACKAGE_JSON: '1', DENO_NO_UPDATE_CHECK: '1', NO_COLOR: '1' };
  const child = spawn(deno, commandOf(name), { env, stdio: ['ignore', 'pipe', 'inherit'] });
  const forget = onUnplannedExit(() => child.kill('SIGKILL'));
  const lines = createInterface(child.stdout);
  const ended = once(child, 'close').then(() => undefined);
  const first = await Promise.race([once(lines, 'line'), ended]);
  if (first === undefined) throw new Error(`Deno ended before it listened for ${name}`);
  lines.close();
  child.stdout.resume();
  const { port, import_ms } = JSON.parse(String(first[0])) as { port: number; import_ms: number };
  return {
    name: `the Edge Function of ${name}`,
    url: `http://127.0.0.1:${port}/${SLUG}`,
    pid: Number(child.pid),
    import_ms,
    async close() {
      forget();
      child.kill('SIGKILL');
      await ended;
      forgetCpu(Number(child.pid));
    },
  };
}

export async function functionKb(name: FunctionName): Promise<number> {
  const files = await Promise.all(FILES[name].map((file) => readFile(file)));
  return files.reduce((sum, file) => sum + gzipped(file), 0) / 1000;
}
