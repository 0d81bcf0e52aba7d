// The module's two functions on Supabase Edge, behind the trap guard. Generations run in the isolate that accepted them, and
// their leases expire after a trap: the owner's next request resumes them on the new instance.
//
// `scripts/build.ts` bundles this file with the output of worker-build ("worker-build" below) into `ai_sessions.js`.

import Worker from 'worker-build';
import { guarded, internal, tearDown, waiting } from '../web/trap_guard.js';

const worker = new Worker();

addEventListener('unhandledrejection', ({ reason }) => tearDown(reason));
// A call of any method makes the new instance. Without it, tasks of the torn-down one would run on until the next request. After
// all listeners of the error, of which workers-rs has one too.
waiting.add(() => queueMicrotask(() => worker.toString()));

/** Responds to a request; `waitUntil` receives the work that outlives the response. */
export async function handle_request(request, environment, waitUntil) {
  try {
    return await guarded(() => worker.handle_request(request, environment, (work) => waitUntil(endOf(() => work))));
  } catch (error) {
    tearDown(error);
    return internal(request, environment, `${environment.SUPABASE_URL}/functions/v1/flashcards`, error);
  }
}

/** Releases the leases of the isolate's generations, so that another isolate can resume them at once. */
export function release_leases() {
  return endOf(() => worker.release_leases());
}

/** Resolves when that work has ended, or cannot end any more. */
const endOf = (call) => guarded(call).catch(tearDown);
