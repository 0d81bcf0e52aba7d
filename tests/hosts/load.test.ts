// A short `npm run load`.

import { onWorkerd } from '../load/hosts.ts';
import { shortLoad } from './short_load.ts';

shortLoad(onWorkerd);
