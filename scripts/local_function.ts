/** Runs the Edge Function on Deno on this machine, inside the stand-in for Supabase's edge runtime. */
import { type EdgeRuntime, startEdgeRuntime } from '../tests/support/edge_runtime.ts';
import { edgeFunctionFolder } from './paths.ts';

/** Starts it; `log` receives every line of its isolates. */
export function startLocalFunction(port: number, vars: Record<string, string>, log: (line: string) => void): Promise<EdgeRuntime> {
  return startEdgeRuntime({ folder: edgeFunctionFolder, port, log, environment: (url) => ({ PUBLIC_URL: url, ...namesOnSupabase(vars) }) });
}

/** The variables with the names that they have there: a deployer cannot set one that begins with SUPABASE_. */
export function namesOnSupabase({ SUPABASE_JWT_SECRET: secret, ...variables }: Record<string, string>): Record<string, string> {
  return secret === undefined ? variables : { ...variables, JWT_SECRET: secret };
}
