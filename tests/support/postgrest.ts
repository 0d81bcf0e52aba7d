// PostgREST in front of a cluster. It listens on a Unix socket in the cluster's folder; only the gateway talks to it.

import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { ended, untilReady } from './server_process.ts';
import { onUnplannedExit } from './exit_cleanup.ts';
import type { Postgres } from './postgres.ts';
import { findPostgrest } from './postgrest_program.ts';
import { within } from './within.ts';

export type Postgrest = {
  socket: string;
  pid: number;
  /** Makes PostgREST verify tokens with these keys from now on. */
  useKeys(jwks: object): Promise<void>;
  stop(): Promise<void>;
};

export async function startPostgrest(postgres: Postgres, jwks: object): Promise<Postgrest> {
  const socket = join(postgres.folder, 'postgrest.sock');
  const keysFile = join(postgres.folder, 'jwks.json');
  writeFileSync(keysFile, JSON.stringify(jwks));

  const child = spawn(findPostgrest(), [], {
    env: {
      LANG: 'C.UTF-8',
      PGRST_DB_URI: postgres.url('authenticator'),
      PGRST_DB_SCHEMAS: 'public',
      PGRST_DB_EXTRA_SEARCH_PATH: 'public, extensions',
      PGRST_DB_ANON_ROLE: 'anon',
      PGRST_DB_POOL: '10',
      // As in a hosted Supabase project.
      PGRST_DB_MAX_ROWS: '1000',
      // Not as in a hosted project: lets a test see the index of a query of the service.
      PGRST_DB_PLAN_ENABLED: 'true',
      PGRST_JWT_SECRET: `@${keysFile}`,
      PGRST_SERVER_UNIX_SOCKET: socket,
      PGRST_LOG_LEVEL: 'error',
    },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  });
  const forget = onUnplannedExit(() => child.kill('SIGKILL'));
  let reloaded = Promise.withResolvers<void>();
  const watchReload = (bytes: Buffer) => {
    if (/config (re-?loaded|re-?read)/i.test(bytes.toString('utf8'))) reloaded.resolve();
  };
  child.stdout.on('data', watchReload);
  child.stderr.on('data', watchReload);

  try {
    await untilReady(child, 'PostgREST', answers(socket));
  } catch (error) {
    forget();
    throw error;
  }

  return {
    socket,
    pid: child.pid ?? 0,
    async useKeys(next) {
      writeFileSync(keysFile, JSON.stringify(next));
      reloaded = Promise.withResolvers<void>();
      child.kill('SIGUSR2');
      await within(reloaded.promise, 'PostgREST reads its keys again');
    },
    async stop() {
      child.kill('SIGKILL');
      await ended(child);
      forget();
    },
  };
}

/** PostgREST does not report when its schema cache is loaded: request until it answers 200. */
async function answers(socketPath: string): Promise<void> {
  for (;;) {
    const status = await new Promise<number>((resolve) => {
      const probe = request({ socketPath, path: '/' }, (answer) => {
        answer.resume();
        resolve(answer.statusCode ?? 0);
      });
      probe.on('error', () => resolve(0));
      probe.end();
    });
    if (status === 200) return;
    await pause(10);
  }
}
