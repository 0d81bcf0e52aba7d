/** The user's rows, written with the user's own token, step by step. */
import { createClient, type SupabaseClient } from '@supabase/supabase-js';
import type { Context } from 'hono';
import type { AppContext, Environment } from './environment.ts';
import type { Card, Usage } from './model.ts';

export type KeptCard = Card & { id: string };

/** One client for each request, with the user's token. */
export function databaseOf(c: Context<AppContext>): SupabaseClient {
  const database = c.get('database') ?? createUserClient(c.env, c.get('token'));
  c.set('database', database);
  return database;
}

const createUserClient = (environment: Environment, token: string): SupabaseClient =>
  createClient(environment.SUPABASE_URL, environment.SUPABASE_ANON_KEY, {
    global: { headers: { Authorization: `Bearer ${token}` } },
    auth: { persistSession: false, autoRefreshToken: false, detectSessionInUrl: false },
  });

export async function openSession(database: SupabaseClient, id: string, model: string, input_text: string): Promise<void> {
  const { error } = await database.from('ai_generation_sessions').insert({ id, model, input_text });
  if (error !== null) throw error;
}

export async function completeSession(database: SupabaseClient, session_id: string, cards: KeptCard[], usage: Usage): Promise<void> {
  const rows = cards.map((card, position) => ({ ...card, session_id, position }));
  const inserted = await database.from('flashcard_candidates').insert(rows);
  if (inserted.error !== null) throw inserted.error;
  const ended_at = new Date().toISOString();
  const ended = await database.from('ai_generation_sessions').update({ status: 'completed', ended_at, ...usage }).eq('id', session_id);
  if (ended.error !== null) throw ended.error;
  const logged = await database.from('event_logs').insert({ type: 'ai_session.completed', session_id, data: { candidates: cards.length, usage } });
  if (logged.error !== null) throw logged.error;
}
