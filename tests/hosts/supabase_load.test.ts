// A short `npm run load -- --host supabase`.

import { onSupabaseEdge } from '../load/hosts.ts';
import { shortLoad } from './short_load.ts';

shortLoad(onSupabaseEdge);
