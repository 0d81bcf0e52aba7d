/**
 * `npm run quality`: prints how many defects the check of cards finds in the set of tests/quality, by kind and language, and how
 * many good cards it flags. The same run fails below the figures that docs/citation.md states.
 */
import { runRust } from './run_program.ts';
import { ensureRustToolchain } from './rust_toolchain.ts';
import { Failure, runScript } from './steps.ts';

await runScript(async () => {
  await ensureRustToolchain();
  const { ok } = await runRust('cargo', ['test', '--test', 'quality', '--', '--nocapture', '--test-threads=1'], { show: 'live' });
  if (!ok) throw new Failure('The figures are below those of docs/citation.md: see the failed test above.');
});
