// `kill -9` of workerd at random moments of generations under load.

import { randomCrashes } from './random_crashes.ts';
import { startOnWorkerd, type WorkerdService } from './workerd.ts';

randomCrashes<WorkerdService>({
  start: startOnWorkerd,
  crash: (service) => service.kill(),
  // The alarms do.
  async resume() {},
  surely_stored_ms: 1_000,
});
