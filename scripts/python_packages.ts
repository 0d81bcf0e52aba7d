/** Python environments in .tools/: packages at pinned versions with pinned hashes. */
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { root } from './paths.ts';
import { run } from './run_program.ts';
import { Failure, step } from './steps.ts';

const PYTHON_IS_MISSING =
  'Python is missing, which these tests need: install Python 3.11 or newer with its venv (Debian, Ubuntu: `apt install python3 python3-venv`) and run the command again.';

/** What the environment is for: a package of the requirements, and its program if it has one. */
export interface Wanted {
  name: string;
  /** Must print the version of the package with `--version`. */
  program?: string;
  /** Leaves out the dependencies of the packages. Default false. */
  alone?: boolean;
}

/** Makes the environment, unless it has these requirements already. */
export async function ensurePythonPackages(environment: string, requirements: string, { name, program, alone = false }: Wanted): Promise<void> {
  /** The installed requirements; written last, so that a broken installation does not count. */
  const installedStamp = join(environment, '.installed-from');
  const wanted = await readFile(requirements, 'utf8');
  const pinned = new RegExp(`^${name}==([^ ]+)`, 'm').exec(wanted)?.[1];
  const installed = await readFile(installedStamp, 'utf8').catch(() => '');
  if (installed === wanted && (program === undefined || (await versionOf(program)) === pinned)) return;
  await step(`installing ${name} ${pinned} into ${relative(root, environment)}/ (pip; once)`, async () => {
    await rm(environment, { recursive: true, force: true });
    const made = await run('python3', ['-m', 'venv', environment], { ifMissing: PYTHON_IS_MISSING });
    if (!made.ok) {
      process.stderr.write(made.output);
      throw new Failure(PYTHON_IS_MISSING);
    }
    const settings = ['--quiet', '--require-hashes', ...(alone ? ['--no-deps'] : [])];
    const { ok, output } = await run(join(environment, 'bin/python'), ['-m', 'pip', 'install', ...settings, '-r', requirements]);
    if (!ok) {
      process.stderr.write(output);
      throw new Failure(`pip could not install ${name}: see its message above, check the network and the index, and run the command again.`);
    }
    await writeFile(installedStamp, wanted);
  });
}

async function versionOf(program: string): Promise<string | undefined> {
  const { stdout } = await run(program, ['--version']).catch(() => ({ stdout: '' }));
  return stdout.trim().split(' ').at(-1);
}
