/** The peer as a Supabase Edge Function: no memory is shared between isolates, so a function of the database counts the requests. */
import { appWith } from './app.ts';
import type { Environment } from './environment.ts';
import { limitWith, type Verdict } from './limit.ts';
import { databaseOf } from './rows.ts';

declare const Deno: { env: { toObject(): Record<string, string> }; serve(handle: (request: Request) => Response | Promise<Response>): void };

const environment = Deno.env.toObject() as Environment;

const limit = limitWith(async (c) => {
  const { data, error } = await databaseOf(c).rpc('take_request', { requests_max: Number(c.env.RATE_LIMIT) });
  if (error !== null) throw error;
  return data as Verdict;
});

const app = appWith(limit, '/flashcards');

Deno.serve((request) => app.fetch(request, environment));
