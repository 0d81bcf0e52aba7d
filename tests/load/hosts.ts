// The hosts of a load run.

import { type EdgeService, startInIsolates } from '../hosts/supabase_edge.ts';
import { startOnWorkerd, type WorkerdService } from '../hosts/workerd.ts';
import { type LoadedHost, VARIABLES } from './run.ts';

/** Longer than any run: a request that an isolate's end cuts has no response, which the crash tests expect and this run does not. */
const WALL_CLOCK_MS = 3_600_000;

export const onWorkerd: LoadedHost<WorkerdService> = {
  program: 'workerd',
  start: () => startOnWorkerd(VARIABLES),
  pids: ({ pid }) => [pid],
};

/** Two isolates, which get the requests of a user in turn. */
export const onSupabaseEdge: LoadedHost<EdgeService> = {
  program: 'Deno',
  async start() {
    const service = await startInIsolates({ isolates: 2, wall_clock_ms: WALL_CLOCK_MS }, VARIABLES);
    service.runtime.spread = 'round robin';
    return service;
  },
  pids: ({ runtime }) => runtime.isolates.map(({ pid }) => pid),
};
