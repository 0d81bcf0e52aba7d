// Runs the other half of tests/service on workerd.

import { serviceTests } from './listed_exceptions.ts';
import { startMeasured } from './points.ts';

await serviceTests(startMeasured, [], { part: 2, parts: 2 });
