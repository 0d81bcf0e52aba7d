// The migrations of 2026-11-27 on a database while the service runs.

import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import pg from 'pg';
import { type Database, startDatabase } from '../support/database.ts';
import { TEXT } from './actors.ts';

const USER = '00000000-0000-4000-8000-000000000001';
const MIGRATIONS = new URL('../../migrations/', import.meta.url);
/** The cost of two attempts at 0.1 and 0.2 dollars, as the service adds it up. */
const COST = 0.1 + 0.2;

describe('the migrations of 2026-11-27 while the service runs', () => {
  let database: Database;
  let files: { name: string; text: string }[];
  before(async () => {
    database = await startDatabase('20261127');
    await database.sql('insert into auth.users (id) values ($1)', [USER]);
    const names = (await readdir(MIGRATIONS)).filter((name) => name.endsWith('.sql') && name >= '20261127').sort();
    files = await Promise.all(names.map(async (name) => ({ name, text: await readFile(new URL(name, MIGRATIONS), 'utf8') })));
  });
  after(() => database.stop());

  async function connected<T>(role: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
    const client = new pg.Client({ connectionString: database.postgres.url(role) });
    await client.connect();
    try {
      return await work(client);
    } finally {
      await client.end();
    }
  }

  /** Runs statements as the service does, with the rights of the user. */
  const asUser = (work: (query: (text: string, params?: unknown[]) => Promise<unknown>) => Promise<void>) =>
    connected('supabase_admin', async (client) => {
      await client.query('begin');
      await client.query(`select set_config('request.jwt.claims', $1, true)`, [JSON.stringify({ sub: USER, role: 'authenticated' })]);
      await client.query(`set local role authenticated`);
      await client.query(`set local lock_timeout = '3s'`);
      await work((text, params) => client.query(text, params));
      await client.query('commit');
    });

  const open = (id: string) => asUser(async (query) => {
    await query('insert into public.ai_generation_sessions (id, model, input_text) values ($1, $2, $3)', [id, 'stand-in/model', TEXT]);
  });

  const finish = (id: string) => asUser(async (query) => {
    const session = { id, status: 'completed', model: 'stand-in/model', prompt_tokens: 1, completion_tokens: 1, cost: COST };
    const candidates = [{ id: crypto.randomUUID(), front: 'Front?', back: 'Back.', prompt: 'Tests it.' }];
    await query('select public.finish_ai_session($1, $2, $3)', [session, JSON.stringify(candidates), {}].map((value) => (typeof value === 'string' ? value : JSON.stringify(value))));
  });

  it('a session opens and ends while each file is applied', async () => {
    await open(crypto.randomUUID());
    const blocked: string[] = [];
    const refused: string[] = [];
    for (const { name, text } of files) {
      await connected('supabase_admin', async (other) => {
        // In place of a long scan.
        await other.query('begin');
        await other.query('lock table public.flashcard_candidates, public.event_logs in access exclusive mode');
        const migrating = connected('postgres', (client) => client.query(text));
        await new Promise((resolve) => setTimeout(resolve, 500));
        await open(crypto.randomUUID()).catch((error: Error) => blocked.push(`${name}: ${error.message}`));
        await other.query('rollback');
        await migrating;
      });
      const id = crypto.randomUUID();
      await open(id);
      await finish(id).catch((error: Error) => refused.push(`${name}: ${error.message}`));
    }
    assert.deepEqual({ blocked, refused }, { blocked: [], refused: [] });
  });
});
