// The trap guard: answers when the Wasm module cannot, because it was torn down.
//
// A trap in Wasm (a panic, memory at its end) unwinds nothing: the promise of every request that waits in the instance
// stays open for ever, the platform cuts those requests after a while without a CORS header, and the page cannot read why.
// So each request also waits for the news of a trap. workers-rs makes a new instance before the next request. Generations
// live in Durable Objects, whose alarm takes them up again. A stream that an object has open would stay open as well, and
// silent: so each object waits for the news too, and is reset, which breaks its streams off for their readers to come back.
//
// `scripts/build.ts` puts this file around what worker-build makes ("worker-build" below). It decides nothing else.

import Worker, { UserSessions as Module } from 'worker-build';

/** Those who wait for the instance that runs now. */
const waiting = new Set();
/** An object that was evicted waits for nothing. */
const evicted = new FinalizationRegistry((tornDown) => waiting.delete(tornDown));

addEventListener('error', ({ error }) => {
  // A trap in a task comes wrapped by wasm-bindgen, with the trap as its cause.
  const trap = [error, error?.cause].find((thrown) => thrown instanceof WebAssembly.RuntimeError);
  if (trap) for (const tornDown of waiting) tornDown(trap);
});

/** What the module answers; fails when it is torn down meanwhile. */
async function answerOf(ask) {
  let tornDown;
  const trapped = new Promise((_, reject) => waiting.add((tornDown = reject)));
  try {
    return await Promise.race([ask(), trapped]);
  } finally {
    waiting.delete(tornDown);
  }
}

export default {
  async fetch(request, env, context) {
    try {
      return await answerOf(() => new Worker(context, env).fetch(request));
    } catch (error) {
      return internal(request, env, error);
    }
  },
};

/**
 * The object. One that fails is asked once more by the edge, and is a new instance then; an alarm that fails is repeated
 * by the platform.
 */
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
    return answerOf(() => this.#module.fetch(request));
  }

  alarm() {
    return answerOf(() => this.#module.alarm());
  }
}

/** The problem `internal`, in the shape of `problem.rs`; a test compares the two. */
function internal(request, env, error) {
  const sent = request.headers.get('x-request-id') ?? '';
  const request_id = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(sent) ? sent.toLowerCase() : uuidV7();
  console.error(JSON.stringify({ level: 'error', message: 'trap_guard', request_id, error: String(error?.name ?? 'trap') }));
  const problem = {
    type: `${new URL(request.url).origin}/docs#internal`,
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
  // As `config.rs` reads them: of the web in lower case, of an app only the scheme.
  const inBrowsersCase = (origin) => origin.trim().replace(/^(https?:.*|[^:]*)/i, (part) => part.toLowerCase());
  const allowed = String(env.ALLOWED_ORIGINS ?? '').split(',').map(inBrowsersCase);
  const origin = request.headers.get('origin');
  if (allowed.includes('*')) headers.set('access-control-allow-origin', '*');
  else if (origin !== null && allowed.includes(origin)) headers.set('access-control-allow-origin', origin);
  return new Response(JSON.stringify(problem), { status: 500, headers });
}

/** RFC 9562, section 5.7. */
function uuidV7() {
  const time = Date.now().toString(16).padStart(12, '0');
  return `${time.slice(0, 8)}-${time.slice(8)}-7${crypto.randomUUID().slice(15)}`;
}
