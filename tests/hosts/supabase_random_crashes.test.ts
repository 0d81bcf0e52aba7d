// `kill -9` of one of two isolates at random moments of generations under load.

import { read } from '../service/service.ts';
import { generations, noLeases } from './isolates.ts';
import { randomCrashes } from './random_crashes.ts';
import { type EdgeService, startInIsolates } from './supabase_edge.ts';

/** A killed isolate leaves leases that expire after 15 s. */
const LEASES_EXPIRED_MS = 40_000;

randomCrashes<EdgeService>({
  async start(variables) {
    const service = await startInIsolates({ isolates: 2 }, variables);
    service.runtime.spread = 'round robin';
    return service;
  },
  async crash({ runtime }, choices) {
    await runtime.isolates[choices.between(0, 1)]?.kill();
    await runtime.start();
  },
  // Each owner returns once.
  async resume(service, users) {
    await noLeases(service, LEASES_EXPIRED_MS);
    for (const { user_id, id } of await generations(service)) {
      const owner = users.find((user) => user.id === user_id);
      if (owner !== undefined) await read(service, owner.token, id);
    }
  },
  // The faults of the database delay each store of a state too.
  surely_stored_ms: 4_000,
});
