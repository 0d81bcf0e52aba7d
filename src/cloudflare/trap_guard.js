// The trap guard: responds when the Wasm module cannot, because it was torn down.
//
// A trap in Wasm (a panic, no memory) unwinds nothing: the promises of waiting requests stay pending, the platform cuts those
// requests later without a CORS header, and a page cannot read the error. So each request also waits for a trap. workers-rs
// makes a new instance before the next request. Generations run in Durable Objects, whose alarm resumes them. An open stream
// of an object would stay open and silent: so each object waits for a trap too, and is reset, which cuts its streams, so that
// subscribers reconnect.
//
// `scripts/build.ts` wraps the output of worker-build ("worker-build" below) in this file.

import Worker, { UserSessions as Module } from 'worker-build';

/** The callbacks of everything that waits for the current instance. */
const waiting = new Set();
/** Removes the callback of an evicted object. */
const evicted = new FinalizationRegistry((tornDown) => waiting.delete(tornDown));

addEventListener('error', ({ error }) => {
  // wasm-bindgen wraps a trap in a task, with the trap as the cause.
  const trap = [error, error?.cause].find((thrown) => thrown instanceof WebAssembly.RuntimeError);
  if (trap) for (const tornDown of waiting) tornDown(trap);
});

/** Runs a call of the module; fails if the module is torn down meanwhile. */
async function guarded(call) {
  let tornDown;
  const trapped = new Promise((_, reject) => waiting.add((tornDown = reject)));
  try {
    return await Promise.race([call(), trapped]);
  } finally {
    waiting.delete(tornDown);
  }
}

export default {
  async fetch(request, env, context) {
    try {
      return await guarded(() => new Worker(context, env).fetch(request));
    } catch (error) {
      return internal(request, env, error);
    }
  },
};

/** The user object. The edge repeats a failed call once, on a new instance; the platform repeats a failed alarm. */
export class UserSessions {
  #module;

  constructor(state, env) {
    this.#module = new Module(state, env);
    const object = new WeakRef(state);
    const trapped = new Promise((tornDown) => {
      waiting.add(tornDown);
      evicted.register(state, tornDown);
    });
    // In the object's own context, the only one in which it can be reset.
    trapped.then(() => object.deref()?.abort('torn down'));
  }

  fetch(request) {
    return guarded(() => this.#module.fetch(request));
  }

  alarm() {
    return guarded(() => this.#module.alarm());
  }
}

/** The problem `internal`, in the format of `problem.rs`; a test compares the two. */
function internal(request, env, error) {
  const sent = request.headers.get('x-request-id') ?? '';
  const request_id = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(sent) ? sent.toLowerCase() : uuidV7();
  console.error(JSON.stringify({ level: 'error', message: 'trap_guard', request_id, error: String(error?.name ?? 'trap') }));
  const problem = {
    type: `${publicUrl(env) || new URL(request.url).origin}/docs#internal`,
    title: 'Something here is broken',
    status: 500,
    detail: 'the request was lost; try again',
    code: 'internal',
    request_id,
  };
  const headers = new Headers({
    'content-type': 'application/problem+json',
    'cache-control': 'no-store',
    'x-request-id': request_id,
    'access-control-expose-headers': 'X-Request-Id',
    vary: 'Origin',
  });
  // Like `config.rs`: origins of the web in lower case, of an app only the scheme.
  const inBrowsersCase = (origin) => origin.trim().replace(/^(https?:.*|[^:]*)/i, (part) => part.toLowerCase());
  const allowed = String(env.ALLOWED_ORIGINS ?? '').split(',').map(inBrowsersCase);
  const origin = request.headers.get('origin');
  if (allowed.includes('*')) headers.set('access-control-allow-origin', '*');
  else if (origin !== null && allowed.includes(origin)) headers.set('access-control-allow-origin', origin);
  return new Response(JSON.stringify(problem), { status: 500, headers });
}

/** `PUBLIC_URL` as `config.rs` reads it; empty where it is not set. */
function publicUrl(env) {
  return String(env.PUBLIC_URL ?? '').trim().replace(/\/+$/, '');
}

/** RFC 9562, section 5.7. */
function uuidV7() {
  const time = Date.now().toString(16).padStart(12, '0');
  return `${time.slice(0, 8)}-${time.slice(8)}-7${crypto.randomUUID().slice(15)}`;
}
