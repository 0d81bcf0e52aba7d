// The hosts of a load run.

import { type EdgeService, startInIsolates } from '../hosts/supabase_edge.ts';
import { startOnWorkerd, type WorkerdService } from '../hosts/workerd.ts';
import { type LoadedHost, VARIABLES } from './run.ts';

/** Longer than any run: a request that an isolate's end cuts has no response, which the crash tests expect and this run does not. */
const WALL_CLOCK_MS = 3_600_000;

export const onWorkerd: LoadedHost<WorkerdService> = {
  program: 'workerd',
  concurrency: 32,
  start: () => startOnWorkerd(VARIABLES),
  pids: ({ pid }) => [pid],
};

/** Two isolates, which get the requests of a user in turn. */
export const onSupabaseEdge: LoadedHost<EdgeService> = {
  program: 'Deno',
  // A third of them are of one user. The stores of a user's state wait for each other, at most 10 s: more would test how fast the
  // database of this machine is.
  concurrency: 12,
  async start() {
    const service = await startInIsolates({ isolates: 2, wall_clock_ms: WALL_CLOCK_MS }, VARIABLES);
    service.runtime.spread = 'round robin';
    return service;
  },
  pids: ({ runtime }) => runtime.isolates.map(({ pid }) => pid),
};
