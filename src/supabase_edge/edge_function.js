// The module's two functions on Supabase Edge, behind the trap guard. Generations run in the isolate that accepted them, and
// their leases expire after a trap: the owner's next request resumes them on the new instance.
//
// `scripts/build.ts` bundles this file with the output of wasm-bindgen ("wasm-bindgen" below) into `ai_sessions.js`.

import * as module from 'wasm-bindgen';
import { guarded, internal, renew, tearDown, waiting } from '../web/trap_guard.js';

addEventListener('unhandledrejection', ({ reason }) => tearDown(reason));
// Without a new instance, tasks of the torn-down one would run on until the next request. After all listeners of the error.
waiting.add(() => queueMicrotask(renew));

/** Responds to a request; `waitUntil` receives the work that outlives the response. */
export async function handle_request(request, environment, waitUntil) {
  const keep = (work) => waitUntil(endOf((resolve, reject) => work.then(resolve, reject)));
  const responding = guarded((resolve) => module.handle_request(request, environment, keep, resolve));
  // A command continues when its client leaves.
  waitUntil(responding.catch(() => {}));
  try {
    return await responding;
  } catch (error) {
    tearDown(error);
    return internal(request, environment, `${environment.SUPABASE_URL}/functions/v1/flashcards`, error);
  }
}

/** Releases the leases of the isolate's generations, so that another isolate can resume them at once. */
export function release_leases() {
  return endOf((resolve, reject) => module.release_leases().then(resolve, reject));
}

/** Resolves when that work has ended, or cannot end any more. */
const endOf = (call) => guarded(call).catch(tearDown);
