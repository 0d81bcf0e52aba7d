// Runs half of tests/service on Supabase's engine, except for the differences that the contract allows there.

import { serviceTests } from './listed_exceptions.ts';
import { startOnSupabaseEdge } from './supabase_edge.ts';
import { exceptions } from './supabase_edge_exceptions.ts';

await serviceTests(startOnSupabaseEdge, exceptions, { part: 1, parts: 2 });
