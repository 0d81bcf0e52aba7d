/**
 * `npm run lint`: runs all checks, and fails if one of them does.
 * `npm run lint -- --advisories` also looks for published vulnerabilities of the dependencies, which needs the network.
 */
import { parseArgs } from 'node:util';
import { checkCrateAdvisories, checkCrates, checkNpmAdvisories } from './dependencies.ts';
import { checkPageTypes } from './example_page.ts';
import { npmPackage } from './paths.ts';
import { type Ended, run, runRust } from './run_program.ts';
import { ensureRustToolchain } from './rust_toolchain.ts';
import { Failure, runScript, step } from './steps.ts';

const warningsAreErrors = ['--', '-D', 'warnings'];

const checks: [name: string, check: () => Promise<Ended>][] = [
  ['the Rust code is formatted by rustfmt', () => runRust('cargo', ['fmt', '--check'])],
  [
    'clippy finds nothing in the core and its tests',
    () => runRust('cargo', ['clippy', '--locked', '--all-targets', ...warningsAreErrors]),
  ],
  [
    'clippy finds nothing in the Worker',
    () => runRust('cargo', ['clippy', '--locked', '--lib', '--target', 'wasm32-unknown-unknown', ...warningsAreErrors]),
  ],
  ['the TypeScript types agree', () => run(process.execPath, [npmPackage('typescript', 'bin/tsc')])],
  ["the example page's types are those of the OpenAPI document", checkPageTypes],
  ['deny.toml allows every crate', checkCrates],
];

/** Checks against databases that change independently: not among the checks that must pass at any time. */
const advisories: typeof checks = [
  ['RustSec lists no vulnerability of a crate', checkCrateAdvisories],
  ['npm lists no vulnerability of a package', checkNpmAdvisories],
];

await runScript(async () => {
  const { values } = parseArgs({ options: { advisories: { type: 'boolean', default: false } } });
  await ensureRustToolchain();
  const broken: string[] = [];
  for (const [name, check] of values.advisories ? [...checks, ...advisories] : checks) {
    await step(name, async () => {
      const { ok, output } = await check();
      if (ok) return;
      process.stderr.write(output);
      throw new Failure(name);
    }).catch((error: unknown) => {
      if (!(error instanceof Failure)) throw error;
      broken.push(error.message);
    });
  }
  if (broken.length > 0) throw new Failure(`Not so: ${broken.join('; ')}. See the messages above.`);
});
