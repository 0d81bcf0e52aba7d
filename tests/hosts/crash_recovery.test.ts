// `kill -9` of workerd at each stage of a generation.

import { crashedGenerations } from './generation_crashes.ts';
import { onWorkerd } from './crash_host.ts';

crashedGenerations(onWorkerd);
