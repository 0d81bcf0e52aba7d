/** Runs the Worker in workerd on this machine with `wrangler dev`, which reloads it when build/ changes. */
import { spawn } from 'node:child_process';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { localFolder, programEnvironment, root } from './paths.ts';
import type { Program } from './restarts.ts';
import { Failure } from './steps.ts';
import { quietWrangler, wranglerProgram } from './wrangler.ts';

export interface LocalWorker extends Program {
  url: string;
  /** The process id of wrangler; undefined when it could not be started. */
  pid: number | undefined;
}

const startDeadlineMs = 60_000;
const stopDeadlineMs = 5_000;

/** Starts it; `ready` settles when it is up, and `stop` may be called before that. A number is an open file that gets its output. */
export async function launchLocalWorker(port: number, vars: Record<string, string>, output: 'inherit' | number = 'inherit'): Promise<LocalWorker> {
  const folder = folderOfPort(port);
  await mkdir(folder, { recursive: true });
  // A file, because any user of the machine can read a command line.
  const varsFile = join(folder, 'worker.env');
  await writeFile(varsFile, envFile(vars), { mode: 0o600 });
  const wrangler = spawn(
    process.execPath,
    [
      wranglerProgram,
      'dev',
      ...['--ip', '127.0.0.1', '--port', String(port)],
      ...['--env-file', varsFile, '--persist-to', join(folder, 'state')],
      '--show-interactive-dev-session=false',
    ],
    {
      cwd: root,
      stdio: ['ignore', output, output],
      env: programEnvironment({
        ...quietWrangler,
        // It would request this machine's location from a host on the internet.
        CLOUDFLARE_CF_FETCH_ENABLED: 'false',
        WRANGLER_REGISTRY_PATH: join(folder, 'registry'),
      }),
      // Its own process group: the session decides when a Ctrl-C reaches it, and workerd ends with it.
      detached: true,
    },
  );
  const { promise: ended, resolve: setEnded } = Promise.withResolvers<void>();
  wrangler.on('error', () => setEnded()).on('close', () => setEnded());
  let running = true;
  const kill = (signal: NodeJS.Signals) => {
    if (wrangler.pid === undefined) return;
    try {
      process.kill(-wrangler.pid, signal);
    } catch {
      // The group has ended already.
    }
  };
  const killNow = () => kill('SIGKILL');
  process.once('exit', killNow);
  void ended.then(() => {
    running = false;
    // A crashed wrangler may leave workerd, which keeps the port.
    killNow();
    process.off('exit', killNow);
  });

  const stop = async () => {
    if (running) kill('SIGTERM');
    await Promise.race([ended, delay(stopDeadlineMs, undefined, { ref: false })]);
    if (running) {
      killNow();
      await ended;
    }
    await rm(varsFile, { force: true });
  };
  const url = `http://127.0.0.1:${port}`;
  const ready = async () => {
    const deadline = performance.now() + startDeadlineMs;
    while (!(await answers(`${url}/health`))) {
      if (!running || performance.now() > deadline) throw new Failure('wrangler dev did not start the Worker: see its message above.');
      await delay(100);
    }
  };
  return { url, pid: wrangler.pid, ready, ended, stop };
}

/** The state of the Worker on this port: two concurrent sessions do not share it. */
export const folderOfPort = (port: number) => join(localFolder, String(port));

/** The wanted port, or the next free one. */
export async function freePort(wanted: number): Promise<number> {
  for (let port = wanted; port < wanted + 100; port += 1) if (await isFree(port)) return port;
  throw new Failure(`All ports from ${wanted} to ${wanted + 99} are taken: end a program that listens there.`);
}

function isFree(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const server = createServer();
  server.once('error', () => resolve(false));
  server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  return promise;
}

const answers = (url: string) =>
  fetch(url, { signal: AbortSignal.timeout(2000) }).then(
    (response) => response.ok,
    () => false,
  );

/** Quotes a value for wrangler, which reads a bare `$` as the name of another variable. */
function envFile(vars: Record<string, string>): string {
  const quoted = (value: string) => {
    const quote = ["'", '"', '`'].find((mark) => !value.includes(mark)) ?? "'";
    return `${quote}${value.replaceAll('$', '\\$')}${quote}`;
  };
  return Object.entries(vars).map(([name, value]) => `${name}=${quoted(value)}\n`).join('');
}
