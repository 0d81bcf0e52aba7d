/**
 * The floor: plain JavaScript that makes the same hops (key set, user object, row ∥ model, `finish_ai_session`) and nothing
 * else: no checks, no limits on reads, no errors, no restarts.
 */
import { DurableObject } from 'cloudflare:workers';

const WINDOW_MS = 60_000;
const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };

const encoder = new TextEncoder();
let key;

export default {
  async fetch(request, env) {
    if (new URL(request.url).pathname === '/health') return Response.json({ status: 'ok' });
    const token = request.headers.get('authorization').slice('Bearer '.length);
    const [header, claims, signature] = token.split('.');
    key ??= await readKey(env);
    const signed = encoder.encode(`${header}.${claims}`);
    if (!(await crypto.subtle.verify(ALGORITHM, key, bytesOf(signature), signed))) return problem(401, 'invalid_token');
    const user = JSON.parse(atob(claims.replaceAll('-', '+').replaceAll('_', '/'))).sub;
    const { input_text, model } = await request.json();
    return env.USER_OBJECT.getByName(user).fetch('https://object/', {
      method: 'POST',
      body: JSON.stringify({ token, user, input_text, model, stream: request.headers.get('accept') === 'text/event-stream' }),
    });
  },
};

async function readKey(env) {
  const answer = await fetch(`${env.SUPABASE_URL}/auth/v1/.well-known/jwks.json`);
  const { keys } = await answer.json();
  return crypto.subtle.importKey('jwk', keys[0], ALGORITHM, false, ['verify']);
}

const bytesOf = (base64url) => Uint8Array.from(atob(base64url.replaceAll('-', '+').replaceAll('_', '/')), (char) => char.charCodeAt(0));

const problem = (status, code) => Response.json({ status, code }, { status, headers: { 'content-type': 'application/problem+json' } });

export class UserObject extends DurableObject {
  constructor(state, env) {
    super(state, env);
    state.storage.sql.exec('create table if not exists hits (at integer not null)');
  }

  async fetch(request) {
    const input = await request.json();
    if (!this.take()) return problem(429, 'rate_limited');
    if (input.input_text.length < 1000) return problem(400, 'validation_failed');
    const id = crypto.randomUUID();
    const opened = this.write(input, 'ai_generation_sessions', { id, model: input.model, input_text: input.input_text });
    const answer = await this.callModel(input);
    return input.stream ? this.streamCandidates(input, id, answer, opened) : this.wholeAnswer(input, id, answer, opened);
  }

  take() {
    const { sql } = this.ctx.storage;
    const now = Date.now();
    sql.exec('delete from hits where at <= ?', now - WINDOW_MS);
    if (sql.exec('select count(*) as count from hits').one().count >= Number(this.env.RATE_LIMIT)) return false;
    sql.exec('insert into hits (at) values (?)', now);
    return true;
  }

  async wholeAnswer(input, id, answer, opened) {
    const text = contentOf(await answer.text());
    const candidates = JSON.parse(text).candidates.map((candidate) => ({ id: crypto.randomUUID(), ...candidate }));
    await opened;
    await this.complete(input, id, candidates);
    return Response.json({ id, partial: false, candidates }, { status: 201 });
  }

  streamCandidates(input, id, answer, opened) {
    const { readable, writable } = new IdentityTransformStream();
    const writer = writable.getWriter();
    const send = (event, data) => writer.write(encoder.encode(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`));
    const run = async () => {
      send('session', { id });
      const candidates = [];
      await eachCandidate(answer, (candidate) => {
        const kept = { id: crypto.randomUUID(), ...candidate };
        send('candidate', { index: candidates.length, ...kept });
        candidates.push(kept);
      });
      await opened;
      await this.complete(input, id, candidates);
      send('done', { id, count: candidates.length, partial: false });
      await writer.close();
    };
    this.ctx.waitUntil(run());
    return new Response(readable, { headers: { 'content-type': 'text/event-stream' } });
  }

  callModel({ input_text, model }) {
    return fetch(`${this.env.OPENROUTER_BASE_URL}/chat/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${this.env.OPENROUTER_API_KEY}`, 'content-type': 'application/json' },
      body: JSON.stringify({ model, stream: true, messages: [{ role: 'user', content: input_text }] }),
    });
  }

  complete(input, id, candidates) {
    const event = { candidates: candidates.length };
    return this.write(input, 'rpc/finish_ai_session', { session: { id, status: 'completed' }, candidates, event });
  }

  async write({ token }, path, body) {
    const answer = await fetch(`${this.env.SUPABASE_URL}/rest/v1/${path}`, {
      method: 'POST',
      headers: { apikey: this.env.SUPABASE_ANON_KEY, authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    await answer.arrayBuffer();
  }
}

/** The message in the events of a stream. */
function contentOf(events) {
  let content = '';
  for (const line of events.split('\n')) content += deltaOf(line);
  return content;
}

function deltaOf(line) {
  if (!line.startsWith('data: {')) return '';
  return JSON.parse(line.slice('data: '.length)).choices[0]?.delta.content ?? '';
}

/** Calls `take` with each candidate as soon as its closing brace has arrived. */
async function eachCandidate(answer, take) {
  const decoder = new TextDecoder();
  let rest = '';
  let candidate = '';
  let depth = 0;
  let inString = false;
  let escaped = false;
  const read = (char) => {
    if (inString) {
      if (escaped) escaped = false;
      else if (char === '\\') escaped = true;
      else if (char === '"') inString = false;
    } else if (char === '"') inString = true;
    else if (char === '{') depth += 1;
    else if (char === '}') depth -= 1;
    if (depth === 2 || candidate !== '') candidate += char;
    if (candidate !== '' && depth === 1) {
      take(JSON.parse(candidate));
      candidate = '';
    }
  };
  for await (const chunk of answer.body) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n');
    rest = lines.pop();
    for (const line of lines) for (const char of deltaOf(line)) read(char);
  }
}
