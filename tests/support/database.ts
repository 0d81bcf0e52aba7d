// The database of a world: a cluster like that of a new Supabase project, with this project's migrations.

import { readdir, readFile } from 'node:fs/promises';
import pg from 'pg';
import { type Postgres, startPostgres } from './postgres.ts';

/** Runs one statement as a superuser, past row level security, and returns its rows. */
export type Sql = <Row extends object = Record<string, unknown>>(text: string, params?: unknown[]) => Promise<Row[]>;

export type Database = {
  postgres: Postgres;
  sql: Sql;
  /** Applies the omitted migrations. */
  migrate(): Promise<void>;
  stop(): Promise<void>;
};

const BOOTSTRAP = new URL('supabase_bootstrap.sql', import.meta.url);
const MIGRATIONS = new URL('../../migrations/', import.meta.url);

/** `before` omits the migrations from that name on: the state of a project that has not been updated yet. */
export async function startDatabase(before?: string): Promise<Database> {
  const postgres = await startPostgres();
  const pool = new pg.Pool({ connectionString: postgres.url('supabase_admin'), max: 5 });
  // The cluster cuts idle connections when it stops.
  pool.on('error', () => {});
  const stop = async () => {
    await pool.end();
    await postgres.stop();
  };
  try {
    await pool.query(await readFile(BOOTSTRAP, 'utf8'));
    await applyMigrations(postgres, (name) => before === undefined || name < before);
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    postgres,
    sql: async (text, params = []) => (await pool.query(text, params)).rows,
    migrate: () => applyMigrations(postgres, (name) => before !== undefined && name >= before),
    stop,
  };
}

/** Applies the requested files of `migrations/` in order, as the role that `supabase db push` uses. */
async function applyMigrations(postgres: Postgres, isWanted: (name: string) => boolean): Promise<void> {
  const names = (await readdir(MIGRATIONS)).filter((name) => name.endsWith('.sql') && isWanted(name)).sort();
  const client = new pg.Client({ connectionString: postgres.url('postgres') });
  await client.connect();
  try {
    for (const name of names) {
      try {
        // Several statements in one query are one transaction.
        await client.query(await readFile(new URL(name, MIGRATIONS), 'utf8'));
      } catch (error) {
        throw new Error(`migration ${name} failed: ${error instanceof Error ? error.message : error}`, { cause: error });
      }
    }
  } finally {
    await client.end();
  }
}
