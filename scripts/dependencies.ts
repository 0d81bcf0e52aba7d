/** Checks the dependencies that the lock files pin: by the rules of deny.toml, and against published advisories. */
import { join } from 'node:path';
import { ensureCargoDeny } from './cargo_tools.ts';
import { root } from './paths.ts';
import { type Ended, run } from './run_program.ts';

/** Every folder with a Cargo.lock; a test compares the list with the repository. */
export const crates = ['.', 'fuzz', 'bench/micro', 'bench/upstream', 'tools'];

/** Every folder with a package-lock.json; a test compares the list too. */
export const npmProjects = ['.', 'bench', 'examples/astro'];

/** One deny.toml serves all lock files, so an exception that one of them does not need is no finding. */
const sharedExceptions = ['unmatched-skip', 'unnecessary-skip', 'license-exception-not-encountered'].flatMap((code) => ['--allow', code]);

/** Licences, duplicates and sources of every crate. Needs no network once the crates are downloaded. */
export const checkCrates = () => denied('bans', 'licenses', 'sources');

/** RustSec's advisories and withdrawn versions. Fetches the advisory database with git. */
export const checkCrateAdvisories = () => denied('advisories');

/** The advisories of the npm registry for everything that the lock files name, whether it is installed or not. */
export async function checkNpmAdvisories(): Promise<Ended> {
  return together(npmProjects.map((folder) => () => run('npm', ['audit', '--package-lock-only'], { cwd: join(root, folder) })));
}

async function denied(...which: string[]): Promise<Ended> {
  const cargoDeny = await ensureCargoDeny();
  return together(
    crates.map((folder) => () => {
      const args = ['--config', join(root, 'deny.toml'), '--manifest-path', join(root, folder, 'Cargo.toml'), '--locked'];
      return run(cargoDeny, [...args, 'check', '--hide-inclusion-graph', ...sharedExceptions, ...which], { env: { CARGO_TERM_COLOR: 'never' } });
    }),
  );
}

/** Runs all, one after the other; succeeds if each does. */
async function together(checks: (() => Promise<Ended>)[]): Promise<Ended> {
  const ended: Ended[] = [];
  for (const check of checks) ended.push(await check());
  const joined = (key: 'output' | 'stdout') => ended.map((each) => each[key]).join('');
  return { ok: ended.every(({ ok }) => ok), output: joined('output'), stdout: joined('stdout') };
}
