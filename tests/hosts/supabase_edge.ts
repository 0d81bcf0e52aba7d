// Starts the Edge Function in the stand-in for Supabase's edge runtime, in a local world. Contains no assertion.

import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { namesOnSupabase } from '../../scripts/local_function.ts';
import { edgeFunctionFolder } from '../../scripts/paths.ts';
import type { Service, Variables } from '../service/service.ts';
import { type EdgeRuntime, type EdgeRuntimeOptions, startEdgeRuntime } from '../support/edge_runtime.ts';
import { setServiceKey } from '../support/service_key.ts';
import { startWorld, type World } from '../support/world.ts';

/** A service with access to its isolates. */
export type EdgeService = Service & {
  readonly runtime: EdgeRuntime;
};

/** Starts a new world and an Edge Function in it. */
export const startOnSupabaseEdge = (variables?: Variables): Promise<EdgeService> => startInIsolates({}, variables);

/** Starts it with JavaScript that runs before the entry, for tests that break the platform. */
export async function startAfter(prelude: string, variables?: Variables): Promise<EdgeService> {
  const temporary = await mkdtemp(join(tmpdir(), 'ai-sessions-function-'));
  const folder = join(temporary, basename(edgeFunctionFolder));
  await cp(edgeFunctionFolder, folder, { recursive: true });
  const entry = join(folder, 'index.ts');
  await writeFile(entry, prelude + (await readFile(entry, 'utf8')));
  const service = await startInIsolates({ folder }, variables);
  return {
    ...service,
    async close() {
      await service.close();
      await rm(temporary, { recursive: true });
    },
  };
}

/** Starts it with other options of the runtime. */
export async function startInIsolates(
  options: Partial<Pick<EdgeRuntimeOptions, 'deno' | 'folder' | 'isolates' | 'wall_clock_ms' | 'drop_idle'>>,
  variables: Variables = {},
): Promise<EdgeService> {
  const world = await startWorld();
  // A function or a key that does not start must not leave anything that keeps the test run from ending.
  const runtime = await start(world, options, variables).catch(async (error: unknown) => {
    await world.close();
    throw error;
  });
  return {
    world,
    runtime,
    url: runtime.url,
    logs: runtime.logs,
    restart: runtime.restart,
    async close() {
      await runtime.close();
      await world.close();
    },
  };
}

async function start(world: World, options: Partial<EdgeRuntimeOptions>, variables: Variables): Promise<EdgeRuntime> {
  const key = await setServiceKey(world);
  return startEdgeRuntime({
    folder: edgeFunctionFolder,
    ...options,
    environment: (url) => ({
      // Of the platform.
      SUPABASE_URL: world.supabaseUrl,
      SUPABASE_ANON_KEY: world.anonKey,
      SUPABASE_SERVICE_ROLE_KEY: world.serviceKey,
      // Of the deployer.
      PUBLIC_URL: url,
      USER_STATE_KEY: key,
      OPENROUTER_API_KEY: world.openrouter.key,
      OPENROUTER_BASE_URL: world.openrouter.url,
      ALLOWED_MODELS: 'test/first,test/second',
      ALLOWED_ORIGINS: 'https://cards.example',
      ...namesOnSupabase(typeof variables === 'function' ? variables(world) : variables),
    }),
  });
}
