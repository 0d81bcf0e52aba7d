// Finds the two versions of Deno that run the Edge Function: 2.1.4, the engine of Supabase's edge runtime, and the newest at the
// time of the lock file. Each is that of npm where the lock file has it for the platform, else the machine's own.

import { Failure } from '../../scripts/steps.ts';
import { isProgram, type Machine, programInPackage, programOnPath } from './installed_program.ts';

export type DenoRelease = keyof typeof releases;

/** The releases, each with the variable that names its program. The version is that of package.json. */
export const releases = {
  // npm's `deno` itself would need the binaries of all platforms in the lock file.
  supabase: { version: '2.1.4', variable: 'DENO', packageOn: ({ platform, arch }: Machine) => `@deno/${platform}-${arch}-glibc` },
  /** The `@deno/linux-x64-glibc` of another version. */
  newest: { version: '2.9.6', variable: 'DENO_NEWEST', packageOn: ({ platform, arch }: Machine) => (`${platform}-${arch}` === 'linux-x64' ? 'deno-newest' : undefined) },
} as const;

/**
 * Finds the path of the program: the variable in the environment, else the npm package, else `deno` on the `PATH`.
 * @throws Failure with how to install one, or because the variable does not name a program.
 */
export function findDeno(release: DenoRelease = 'supabase', machine: Machine = process): string {
  const { version, variable, packageOn } = releases[release];
  const named = machine.env[variable];
  if (named !== undefined && named !== '') {
    if (isProgram(named)) return named;
    throw new Failure(`${variable} names ${named}, which is not a program: set it to the path of Deno ${version}, or unset it.`);
  }
  const packageName = packageOn(machine);
  const found = (packageName === undefined ? undefined : programInPackage(packageName, 'deno')) ?? programOnPath('deno', machine);
  if (found !== undefined) return found;
  throw new Failure(
    `The lock file has no Deno for ${machine.platform} on ${machine.arch}, and there is none on the PATH: install Deno ${version} ` +
      `(\`npm install --global deno@${version}\`), or set ${variable} to the path of the program, and run the command again.`,
  );
}
