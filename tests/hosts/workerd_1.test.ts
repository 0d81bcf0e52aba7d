// Runs half of tests/service on workerd.

import { serviceTests } from './listed_exceptions.ts';
import { startMeasured } from './points.ts';

await serviceTests(startMeasured, [], { part: 1, parts: 2 });
