// The trap guard of every host: responds when the Wasm module cannot, because it was torn down.
//
// A trap in Wasm (a panic, no memory) unwinds nothing: the promises of waiting requests stay pending, the platform cuts those
// requests later without a CORS header, and a page cannot read the error. So each call of the module also waits for a trap, and the
// next one makes a new instance.

import { __wbg_reset_state as makeInstance } from 'wasm-bindgen';

/** The callbacks of everything that waits for the current instance. */
export const waiting = new Set();

/** The number of the current instance: its objects do not exist in another one. */
export let instance = 0;

let isTornDown = false;

addEventListener('error', ({ error }) => tearDown(error));

/** The traps that were reported. */
const reported = new WeakSet();

/** Reports a trap once to everything that waits; other errors are ignored. */
export function tearDown(thrown) {
  // wasm-bindgen may wrap a trap in a task, with the trap as the cause.
  const trap = [thrown, thrown?.cause].find((each) => each instanceof WebAssembly.RuntimeError);
  if (trap === undefined || reported.has(trap)) return;
  reported.add(trap);
  isTornDown = true;
  for (const tornDown of waiting) tornDown(trap);
}

/** Makes a new instance in place of a torn-down one. */
export function renew() {
  if (!isTornDown) return;
  isTornDown = false;
  instance += 1;
  makeInstance();
}

/** Runs a call of the module, which resolves or rejects it; fails if the module is torn down before. */
export function guarded(call) {
  return new Promise((resolve, reject) => {
    const fail = (error) => {
      waiting.delete(fail);
      reject(error);
    };
    const end = (value) => {
      waiting.delete(fail);
      resolve(value);
    };
    waiting.add(fail);
    try {
      renew();
      call(end, fail);
    } catch (error) {
      tearDown(error);
      fail(error);
    }
  });
}

/** The problem `internal`, in the format of `problem.rs`; a test compares the two. `defaultUrl` is the base without PUBLIC_URL. */
export function internal(request, variables, defaultUrl, error) {
  const sent = request.headers.get('x-request-id') ?? '';
  const request_id = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(sent) ? sent.toLowerCase() : uuidV7();
  console.error(JSON.stringify({ level: 'error', message: 'trap_guard', request_id, error: String(error?.name ?? 'trap') }));
  const problem = {
    type: `${publicUrl(variables) || defaultUrl}/docs#internal`,
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
  const allowed = String(variables.ALLOWED_ORIGINS ?? '').split(',').map(inBrowsersCase);
  const origin = request.headers.get('origin');
  if (allowed.includes('*')) headers.set('access-control-allow-origin', '*');
  else if (origin !== null && allowed.includes(origin)) headers.set('access-control-allow-origin', origin);
  return new Response(JSON.stringify(problem), { status: 500, headers });
}

/** `PUBLIC_URL` as `config.rs` reads it; empty where it is not set. */
function publicUrl(variables) {
  return String(variables.PUBLIC_URL ?? '').trim().replace(/\/+$/, '');
}

/** RFC 9562, section 5.7. */
function uuidV7() {
  const time = Date.now().toString(16).padStart(12, '0');
  return `${time.slice(0, 8)}-${time.slice(8)}-7${crypto.randomUUID().slice(15)}`;
}
