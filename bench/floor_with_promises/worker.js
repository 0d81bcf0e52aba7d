/**
 * The floor with promises: plain JavaScript that keeps the promises of this service. Its distance from the floor is their cost,
 * and ours from it the cost of Wasm. It verifies tokens, validates bodies, counts three windows, honours idempotency keys, stores
 * an accepted generation in one commit, and resumes it after a crash. It has no other endpoint and no second model call.
 *
 * This module handles a request at the edge; `user_object.js` does the user's work.
 */
import { authenticate } from './access_token.js';
import { readNewSession } from './new_session.js';
import { Problem } from './problem.js';

export { UserObject } from './user_object.js';

const EXPOSED = 'X-Request-Id, Location, Retry-After, RateLimit, RateLimit-Policy, Server-Timing, WWW-Authenticate';

export default {
  async fetch(request, env) {
    const { origin, pathname } = new URL(request.url);
    const context = { request_id: crypto.randomUUID(), origin, route: pathname, start_ms: Date.now() };
    let answer;
    try {
      answer = await respond(request, env, context);
    } catch (error) {
      if (!(error instanceof Problem)) console.error(JSON.stringify({ level: 'error', message: 'failure', request_id: context.request_id, error: String(error) }));
      answer = (error instanceof Problem ? error : new Problem('internal', 'the request failed')).response(context);
    }
    const duration_ms = Date.now() - context.start_ms;
    const { request_id, route, user } = context;
    const session_id = answer.headers.get('location')?.slice('/ai-sessions/'.length);
    console.log(JSON.stringify({ level: 'info', message: 'request', request_id, method: request.method, route, status: answer.status, user, duration_ms, session_id }));
    return new Response(answer.body, { status: answer.status, headers: headersOf(answer, request, env, context, duration_ms) });
  },
};

/** Responds to a request; adds the user's pseudonym to the context, for the log. */
async function respond(request, env, context) {
  if (context.route === '/health') return Response.json({ status: 'ok' });
  if (context.route !== '/ai-sessions' || request.method !== 'POST') throw new Problem('not_found', 'there is no such resource');
  const { token, user, pseudonym } = await authenticate(request, env);
  context.user = pseudonym;
  const command = {
    request_id: context.request_id,
    origin: context.origin,
    token,
    key: readKey(request.headers.get('idempotency-key')),
    isStream: request.headers.get('accept')?.includes('text/event-stream') ?? false,
    ...(await readNewSession(request, env.ALLOWED_MODELS.split(','))),
  };
  return env.USER_OBJECT.getByName(user).fetch('https://object/', { method: 'POST', body: JSON.stringify(command) });
}

function readKey(text) {
  if (text === null) return undefined;
  if (/^[\x21-\x7e]{8,200}$/.test(text)) return text;
  throw new Problem('invalid_idempotency_key', 'an idempotency key has 8 to 200 visible characters');
}

function headersOf(answer, request, env, { request_id }, duration_ms) {
  const headers = new Headers(answer.headers);
  headers.set('x-request-id', request_id);
  headers.set('server-timing', [headers.get('server-timing'), `total;dur=${duration_ms}`].filter(Boolean).join(', '));
  headers.set('vary', 'Origin');
  const origin = request.headers.get('origin');
  if (!env.ALLOWED_ORIGINS.split(',').includes(origin)) return headers;
  headers.set('access-control-allow-origin', origin);
  headers.set('access-control-expose-headers', EXPOSED);
  return headers;
}
