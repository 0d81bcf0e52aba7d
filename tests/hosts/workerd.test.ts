// Runs all of tests/service on workerd. The folder is the list, so that no file can be forgotten. Its data points are in the log of
// the service, in which no suite may leave a text, a token or a key.

import { readdirSync } from 'node:fs';
import { describe } from 'node:test';
import type { StartService } from '../service/service.ts';
import { SINK } from './points.ts';
import { startAfter } from './workerd.ts';

type ServiceTests = { tests: (start: StartService) => void };

const startMeasured: StartService = (variables) => startAfter('', variables, { METRICS: SINK });

const folder = new URL('../service/', import.meta.url);
const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'));

for (const file of files.filter((file) => file !== 'service.ts').sort()) {
  // A file without `tests` throws here, and the run fails.
  const { tests } = (await import(new URL(file, folder).href)) as ServiceTests;
  describe(file, () => tests(startMeasured));
}
