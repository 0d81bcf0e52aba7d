// The extensions of Supabase that the scheduled wake-up uses, pg_net and pg_cron, as marked stand-ins that record their calls, and
// the optional migration that uses them.

import { readFile } from 'node:fs/promises';
import pg from 'pg';
import type { World } from './world.ts';

const MIGRATION = new URL('../../migrations/optional/20261128110000_wake_up.sql', import.meta.url);
const DOCUMENT = new URL('../../docs/supabase.md', import.meta.url);
/** The URL of the function in the document. */
const DOCUMENTED_URL = 'https://<ref>.supabase.co/functions/v1/flashcards';

/** With the signatures of pg_net 0.14 and pg_cron 1.6, owned by the superuser. */
const STAND_INS = `
  create schema net;
  create table net.http_request_queue (
    id bigint generated always as identity, url text not null, body text not null, headers jsonb not null, timeout_milliseconds integer not null
  );
  create function net.http_post(
    url text, body jsonb default '{}', params jsonb default '{}',
    headers jsonb default '{"Content-Type": "application/json"}', timeout_milliseconds integer default 5000
  ) returns bigint language sql security definer set search_path = '' as $$
    insert into net.http_request_queue (url, body, headers, timeout_milliseconds) values (url, body::text, headers, timeout_milliseconds) returning id
  $$;
  grant usage on schema net to postgres, anon, authenticated, service_role;
  create schema cron;
  create table cron.job (jobid bigint generated always as identity, jobname text unique, schedule text not null, command text not null, username text not null);
  create function cron.schedule(job_name text, schedule text, command text) returns bigint language sql set search_path = '' as $$
    insert into cron.job (jobname, schedule, command, username) values (job_name, schedule, command, current_user) returning jobid
  $$;
  grant usage on schema cron to postgres;
  grant select, insert on cron.job to postgres;
`;

/** A call that pg_net would send. */
export type ScheduledCall = { url: string; body: string; headers: Record<string, string>; timeout_milliseconds: number };

/** Runs a statement as the role of the dashboard. */
export async function asPostgres<Row extends object>(world: World, text: string, params: unknown[] = []): Promise<Row[]> {
  const url = new URL(world.databaseUrl.replace('supabase_admin', 'postgres'));
  const client = new pg.Client({ connectionString: url.href });
  await client.connect();
  try {
    return (await client.query(text, params)).rows;
  } finally {
    await client.end();
  }
}

/** Installs the stand-ins and the migration, and starts the schedule by the statement of the document. */
export async function scheduleCalls(world: World, functionUrl: string): Promise<void> {
  await world.sql(STAND_INS);
  await asPostgres(world, await readFile(MIGRATION, 'utf8'));
  const [statement] = /select cron\.schedule\([^;]*;/.exec(await readFile(DOCUMENT, 'utf8')) ?? [];
  if (statement === undefined || !statement.includes(DOCUMENTED_URL)) throw new Error('docs/supabase.md has no statement of the schedule');
  await asPostgres(world, statement.replace(DOCUMENTED_URL, functionUrl));
}

/** Runs the scheduled command once. Returns the calls of this run. */
export async function runSchedule(world: World): Promise<ScheduledCall[]> {
  const [job] = await world.sql<{ command: string }>('select command from cron.job');
  if (job === undefined) throw new Error('there is no schedule');
  await asPostgres(world, job.command);
  return await world.sql<ScheduledCall>('with sent as (delete from net.http_request_queue returning *) select url, body, headers, timeout_milliseconds from sent order by id');
}

/** Sends a recorded call, as pg_net does. */
export const sendCall = ({ url, body, headers }: ScheduledCall): Promise<Response> => fetch(url, { method: 'POST', headers, body });

/** Lets the work of all users be due now: as some time after their last store. */
export const makeDue = (world: World): Promise<unknown> => world.sql(`update ai_sessions.user_states set wake_at = now() - interval '1 s' where wake_at is not null`);
