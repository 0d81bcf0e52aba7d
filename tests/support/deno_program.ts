// Finds Deno 2.1.4, the version of Supabase's edge runtime: that of npm where the lock file has it for the platform, else the
// machine's own.

import { Failure } from '../../scripts/steps.ts';
import { isProgram, type Machine, programInPackage, programOnPath } from './installed_program.ts';

/**
 * Finds the path of the program: `DENO` in the environment, else the npm package, else `deno` on the `PATH`.
 * @throws Failure with how to install one, or because `DENO` does not name a program.
 */
export function findDeno(machine: Machine = process): string {
  const named = machine.env['DENO'];
  if (named !== undefined && named !== '') {
    if (isProgram(named)) return named;
    throw new Failure(`DENO names ${named}, which is not a program: set it to the path of Deno, or unset it.`);
  }
  // The binary of npm's `deno`. That package itself would need those of all platforms in the lock file.
  const found = programInPackage(`@deno/${machine.platform}-${machine.arch}-glibc`, 'deno') ?? programOnPath('deno', machine);
  if (found !== undefined) return found;
  throw new Failure(
    `The lock file has no Deno for ${machine.platform} on ${machine.arch}, and there is none on the PATH: install Deno 2.1.4 ` +
      '(`npm install --global deno@2.1.4`), or set DENO to the path of the program, and run the command again.',
  );
}
