// A stand-in for Supabase's edge runtime, with the gateway before it: serves one Edge Function under `/functions/v1/<slug>`, each
// isolate in a process of Deno 2.1.4, the engine of that runtime (a test may choose the newest). Like there, an isolate has a wall clock from its creation: at
// half of it, it gets no more requests; at 90 %, `beforeunload`; at its end, it is killed with everything in flight. CPU time
// accumulates over its life, and has a limit with the same effects where a test sets one.
//
// Not imitated: the limit of memory, and `beforeunload` before the limit of CPU time.

import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { Agent, type IncomingMessage, request as httpRequest, type ServerResponse } from 'node:http';
import { basename, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { npmPackage } from '../../scripts/paths.ts';
import { type DenoRelease, findDeno } from './deno_program.ts';
import { onUnplannedExit } from './exit_cleanup.ts';
import { eachLine } from './log_lines.ts';
import { startLoopbackServer } from './loopback_server.ts';
import { ended } from './server_process.ts';
import { within } from './within.ts';

export type EdgeRuntimeOptions = {
  /** The folder of the function, with its `index.ts`; its name is the slug. */
  folder: string;
  /** The only variables that the function can read; a function where they depend on the URL of the function. */
  environment: Record<string, string> | ((url: string) => Record<string, string>);
  /** The engine. Default: that of Supabase's edge runtime. */
  deno?: DenoRelease;
  /** The isolates to start at once; default 1. */
  isolates?: number;
  /** The life of an isolate, in milliseconds; default: that of the free plan. */
  wall_clock_ms?: number;
  /** The CPU time of an isolate since it listens, in milliseconds; 2000 on the platform. Default: no limit. Only on Linux. */
  cpu_ms?: number;
  /** Ends a retired isolate as soon as it has no request and no pending work. Default false. */
  drop_idle?: boolean;
  /** Default: a free one. */
  port?: number;
  /** Receives every line that the isolates write, besides `logs`. */
  log?: (line: string) => void;
};

export type Isolate = {
  /** Counts the isolates since the last start of the runtime, from 0. */
  readonly number: number;
  readonly pid: number;
  /** The version of its engine, once it listens. */
  readonly deno_version: string | undefined;
  readonly state: 'live' | 'retired' | 'ended';
  /** Requests whose response has not ended. */
  readonly requests: number;
  /** Promises given to `EdgeRuntime.waitUntil` that are pending. */
  readonly pending_work: number;
  /** The CPU time of the process, its start included, in milliseconds; accurate to 10. Only on Linux. */
  cpu_ms(): Promise<number>;
  /** Sends it no more requests. */
  retire(): void;
  /** Dispatches `beforeunload`; resolves when its listeners have returned. */
  beforeUnload(): Promise<void>;
  /** Sends `kill -9`; resolves when the process has ended. */
  kill(): Promise<void>;
};

export type EdgeRuntime = {
  /** The base of the function, without a slash at the end. */
  readonly url: string;
  /** The isolates that have not ended, the newest last. */
  readonly isolates: readonly Isolate[];
  /** Every line that the isolates have written. */
  readonly logs: string[];
  /** Which isolate gets a request without the header `x-isolate`; a retired one never does. Default `newest`. */
  spread: 'newest' | 'round robin';
  /** Starts one more. */
  start(): Promise<Isolate>;
  /** Kills all isolates, and starts as many as in the beginning. */
  restart(): Promise<void>;
  close(): Promise<void>;
};

/** The lines that the stand-in and `edge_isolate.ts` exchange. */
export type IsolateOrder = { beforeunload: 'wall_clock' | 'early_drop' };
export type IsolateReport = { port: number; deno_version: string } | { pending_work: number } | { unloading: true };

/** Chooses an isolate by its number; removed from the request. */
export const ISOLATE_HEADER = 'x-isolate';

/** https://supabase.com/docs/guides/functions/limits, the free plan. */
const WALL_CLOCK_MS = 150_000;
const START_MS = 30_000;
/** How often the CPU time is compared with its limit. */
const CPU_CHECK_MS = 50;
/** The unit of CPU times in /proc on every Linux. */
const TICK_MS = 10;

/** Headers that belong to one connection, not to the message (RFC 9110 7.6.1). */
const HOP_BY_HOP = new Set(['connection', 'keep-alive', 'transfer-encoding', 'te', 'trailer', 'upgrade']);

/** The platform's own errors: its own format, without CORS. */
const PLATFORM_ERRORS = {
  NOT_FOUND: { status: 404, message: 'Requested function was not found' },
  METHOD_NOT_ALLOWED: { status: 405, message: 'Method not allowed' },
  BOOT_ERROR: { status: 503, message: 'Function failed to start (please check logs)' },
  WORKER_LIMIT: { status: 546, message: 'Function failed due to not having enough compute resources (please check logs)' },
} as const;

export async function startEdgeRuntime(options: EdgeRuntimeOptions): Promise<EdgeRuntime> {
  const slug = basename(options.folder);
  const base = `/functions/v1/${slug}`;
  const logs: string[] = [];
  let isolates: StartedIsolate[] = [];
  let starting: Promise<StartedIsolate> | undefined;
  let created = 0;
  let turn = 0;

  async function start(): Promise<StartedIsolate> {
    const isolate = new StartedIsolate(created, options, environment(), logs, () => (isolates = isolates.filter((each) => each !== isolate)));
    created += 1;
    isolates.push(isolate);
    await isolate.listening();
    return isolate;
  }

  /** The chosen isolate; a new one if all are retired or have ended. */
  async function chosen(wanted: string | undefined): Promise<StartedIsolate> {
    if (wanted !== undefined) {
      const isolate = isolates.find(({ number, state }) => String(number) === wanted && state === 'live');
      if (isolate === undefined) throw new Error(`isolate ${wanted} is retired, or has ended`);
      return isolate;
    }
    const live = isolates.filter(({ state, isListening }) => state === 'live' && isListening);
    turn += 1;
    const isolate = runtime.spread === 'newest' ? live.at(-1) : live[turn % live.length];
    if (isolate !== undefined) return isolate;
    starting ??= start().finally(() => (starting = undefined));
    return starting;
  }

  async function handle(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const path = incoming.url ?? '';
    if (!(path.startsWith(base) && ['', '/', '?'].includes(path.charAt(base.length)))) return refuse(outgoing, 'NOT_FOUND');
    if (incoming.method === 'HEAD') return refuse(outgoing, 'METHOD_NOT_ALLOWED');
    const wanted = incoming.headers[ISOLATE_HEADER];
    const isolate = await chosen(typeof wanted === 'string' ? wanted : undefined).catch((error: unknown) => {
      logs.push(String(error));
    });
    if (isolate === undefined) return refuse(outgoing, 'BOOT_ERROR');
    forward(isolate, path.slice('/functions/v1'.length), incoming, outgoing);
  }

  const server = await startLoopbackServer((incoming, outgoing) => void handle(incoming, outgoing), options.port);
  const startAll = async () => {
    created = 0;
    await Promise.all(Array.from({ length: options.isolates ?? 1 }, start));
  };
  const killAll = async () => void (await Promise.all(isolates.map((isolate) => isolate.kill())));
  const url = server.url + base;
  const environment = () => (typeof options.environment === 'function' ? options.environment(url) : options.environment);
  const runtime: EdgeRuntime = {
    url,
    get isolates() {
      return isolates;
    },
    logs,
    spread: 'newest',
    start,
    async restart() {
      await killAll();
      await startAll();
    },
    async close() {
      await killAll();
      await server.close();
    },
  };
  // A function that does not start must not leave anything that keeps the test run from ending.
  await startAll().catch(async (error: unknown) => {
    await runtime.close();
    throw error;
  });
  return runtime;
}

/** One process of Deno. */
class StartedIsolate implements Isolate {
  readonly number: number;
  state: Isolate['state'] = 'live';
  requests = 0;
  pending_work = 0;
  /** Undefined until it listens. */
  port: number | undefined;
  deno_version: string | undefined;

  readonly #process: ChildProcess;
  readonly #drop_idle: boolean;
  readonly #listening = Promise.withResolvers<void>();
  readonly #timers: NodeJS.Timeout[];
  #unloading = Promise.withResolvers<void>();

  constructor(number: number, options: EdgeRuntimeOptions, environment: Record<string, string>, logs: string[], removed: () => void) {
    const log = (line: string) => {
      logs.push(line);
      options.log?.(line);
    };
    this.number = number;
    this.#drop_idle = options.drop_idle ?? false;
    // Random, so that no line of the function can be taken for a report.
    const mark = `${randomUUID()} `;
    this.#process = spawnDeno(options.deno ?? 'supabase', options.folder, environment, mark);
    const isNamed = `isolate ${number} of ${basename(options.folder)}`;
    this.#process.stdout?.pipe(
      eachLine((line) => {
        if (line.startsWith(mark)) this.#received(JSON.parse(line.slice(mark.length)) as IsolateReport);
        else log(line);
      }),
    );
    this.#process.stderr?.pipe(eachLine(log));
    // An order to a process that has just ended.
    this.#process.stdin?.on('error', () => {});
    this.#process.once('error', (error) => this.#listening.reject(error));
    const forget = onUnplannedExit(() => this.#process.kill('SIGKILL'));

    const wall_clock_ms = options.wall_clock_ms ?? WALL_CLOCK_MS;
    const after = (part: number, act: () => void) => setTimeout(act, wall_clock_ms * part).unref();
    this.#timers = [after(0.5, () => this.retire()), after(0.9, () => void this.beforeUnload()), after(1, () => void this.kill())];
    this.#process.once('close', (code, signal) => {
      this.state = 'ended';
      for (const timer of this.#timers) clearTimeout(timer);
      forget();
      removed();
      this.#unloading.resolve();
      this.#listening.reject(new Error(`${isNamed} ended (${code ?? signal}): ${logs.slice(-20).join('\n')}`));
    });
    this.#listening.promise.then(() => this.#limitCpu(options.cpu_ms)).catch(() => {});
  }

  get pid(): number {
    return this.#process.pid ?? 0;
  }

  get isListening(): boolean {
    return this.port !== undefined;
  }

  listening(): Promise<void> {
    return within(this.#listening.promise, `isolate ${this.number} did not start`, START_MS);
  }

  retire(): void {
    if (this.state === 'live') this.state = 'retired';
    this.dropIfIdle();
  }

  beforeUnload(reason: IsolateOrder['beforeunload'] = 'wall_clock'): Promise<void> {
    if (this.state === 'ended') return Promise.resolve();
    this.#unloading = Promise.withResolvers();
    this.#process.stdin?.write(`${JSON.stringify({ beforeunload: reason } satisfies IsolateOrder)}\n`);
    return this.#unloading.promise;
  }

  async kill(): Promise<void> {
    this.#process.kill('SIGKILL');
    await ended(this.#process);
    // Not only ended: its output has been read.
    if (this.state !== 'ended') await new Promise((resolve) => this.#process.once('close', resolve));
  }

  async cpu_ms(): Promise<number> {
    const stat = await readFile(`/proc/${this.pid}/stat`, 'utf8');
    // proc(5): utime and stime, the 14th and 15th field; the second is a name in parentheses.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
  }

  async #limitCpu(limit_ms: number | undefined): Promise<void> {
    if (limit_ms === undefined) return;
    const begin_ms = await this.cpu_ms();
    const check = async () => {
      const used_ms = (await this.cpu_ms()) - begin_ms;
      if (used_ms >= limit_ms / 2) this.retire();
      if (used_ms >= limit_ms) await this.kill();
    };
    // The process may end between two checks.
    this.#timers.push(setInterval(() => void check().catch(() => {}), CPU_CHECK_MS).unref());
  }

  dropIfIdle(): void {
    if (!this.#drop_idle || this.state !== 'retired' || this.requests > 0 || this.pending_work > 0) return;
    void this.beforeUnload('early_drop').then(() => this.kill());
  }

  #received(report: IsolateReport): void {
    if ('port' in report) {
      this.port = report.port;
      this.deno_version = report.deno_version;
      this.#listening.resolve();
    } else if ('pending_work' in report) {
      this.pending_work = report.pending_work;
      this.dropIfIdle();
    } else this.#unloading.resolve();
  }
}

/** Starts the function with the permissions and the variables that it has on the platform. */
function spawnDeno(release: DenoRelease, folder: string, environment: Record<string, string>, mark: string): ChildProcess {
  const own: Record<string, string> = {
    // A cache for each release, which both can use at once.
    DENO_DIR: npmPackage('.cache', `deno-${release}`),
    DENO_NO_PACKAGE_JSON: '1',
    DENO_NO_UPDATE_CHECK: '1',
    NO_COLOR: '1',
  };
  const entry = pathToFileURL(join(folder, 'index.ts')).href;
  const before = fileURLToPath(new URL('edge_isolate.ts', import.meta.url));
  return spawn(
    findDeno(release),
    [
      ...['run', '--quiet', '--no-prompt', '--no-config', '--no-lock', '--no-remote', '--no-npm'],
      ...['--allow-net', '--allow-env', '--allow-read'],
      ...[before, entry, mark, ...Object.keys(own)],
    ],
    { cwd: folder, env: { ...environment, ...own }, stdio: ['pipe', 'pipe', 'pipe'] },
  );
}

/** A connection for each request: a kept one could be closed by the isolate just when it is used. */
const agent = new Agent({ keepAlive: false });

function forward(isolate: StartedIsolate, path: string, incoming: IncomingMessage, outgoing: ServerResponse): void {
  isolate.requests += 1;
  const headers = sentHeaders(incoming.rawHeaders, (name) => name !== ISOLATE_HEADER);
  const { port, method } = { port: isolate.port, method: incoming.method };
  const upstream = httpRequest({ host: '127.0.0.1', port, agent, method, path, headers: headers as unknown as Record<string, string> });
  upstream.setNoDelay(true);

  let hasResponded = false;
  upstream.once('response', (response) => {
    hasResponded = true;
    const isPage = method === 'GET' && /^text\/html\b/.test(response.headers['content-type'] ?? '');
    const kept = sentHeaders(response.rawHeaders, () => true);
    // Without a custom domain, the gateway lets no page of a function be one.
    const received = isPage ? kept.map((value, index) => (kept[index - 1]?.toLowerCase() === 'content-type' && index % 2 === 1 ? value.replace('text/html', 'text/plain') : value)) : kept;
    outgoing.writeHead(response.statusCode ?? 502, response.statusMessage, received);
    outgoing.flushHeaders();
    response.pipe(outgoing);
    response.once('error', () => outgoing.destroy());
  });
  upstream.once('error', () => {
    // The isolate may have closed the connection before it read the whole request, and responded.
    if (!hasResponded) refuse(outgoing, 'WORKER_LIMIT');
  });
  upstream.on('error', () => incoming.resume());
  incoming.pipe(upstream);
  incoming.once('close', () => {
    if (!incoming.complete) upstream.destroy();
  });
  outgoing.once('close', () => {
    upstream.destroy();
    isolate.requests -= 1;
    isolate.dropIfIdle();
  });
}

/** Raw headers (names and values alternate) without those of the connection. */
function sentHeaders(raw: string[], isKept: (name: string) => boolean): string[] {
  const pairs = Array.from({ length: raw.length / 2 }, (_, pair) => [raw[2 * pair] ?? '', raw[2 * pair + 1] ?? '']);
  return pairs.filter(([name = '']) => !HOP_BY_HOP.has(name.toLowerCase()) && isKept(name.toLowerCase())).flat();
}

function refuse(outgoing: ServerResponse, code: keyof typeof PLATFORM_ERRORS): void {
  const { status, message } = PLATFORM_ERRORS[code];
  outgoing.writeHead(status, { 'content-type': 'application/json' });
  outgoing.end(outgoing.req.method === 'HEAD' ? undefined : JSON.stringify({ code, message }));
}
