/** `npm test`: cargo's tests, then Node's against the built module; the last line counts those of all runners. */
import { glob } from 'node:fs/promises';
import { join } from 'node:path';
import { build } from './build.ts';
import { runNodeTests } from './node_tests.ts';
import { root } from './paths.ts';
import { runRust } from './run_program.ts';
import { ensureRustToolchain } from './rust_toolchain.ts';
import { Failure, messageOf, runScript } from './steps.ts';
import { type Counts, add, countsOfCargo, judge, none } from './test_counts.ts';

/** Each is a folder of tests/. Those in tests/service are run by each host's file in tests/hosts. */
const parts = ['core', 'support', 'database', 'hosts'];

await runScript(async () => {
  const asked = process.argv.slice(2);
  const unknown = asked.find((part) => !parts.includes(part));
  if (unknown !== undefined) throw new Failure(`There are no tests "${unknown}": take some of ${parts.join(', ')}, or none of them for all.`);
  const chosen = asked.length > 0 ? asked : parts;

  let counts = none;
  if (chosen.includes('core')) counts = add(counts, await cargoTests());
  const folders = chosen.filter((part) => part !== 'core');
  // The other files do not need the module, so they are run without it when it cannot be built.
  const built = !folders.includes('hosts') || (await buildForTests());
  if (!built) counts = add(counts, { passed: 0, failed: 1 });
  const files = await testFiles(built ? folders : folders.filter((part) => part !== 'hosts'));
  if (folders.length > 0) counts = add(counts, await runNodeTests(files));

  if (counts.failed > 0) process.exitCode = 1;
  console.log(`${counts.passed} passed, ${counts.failed} failed`);
});

async function cargoTests(): Promise<Counts> {
  await ensureRustToolchain();
  const { ok, output } = await runRust('cargo', ['test', '--no-fail-fast'], { show: 'live' });
  return judge(countsOfCargo(output), ok);
}

async function buildForTests(): Promise<boolean> {
  return build().then(
    () => true,
    (error: unknown) => {
      console.error(messageOf(error));
      return false;
    },
  );
}

async function testFiles(folders: string[]): Promise<string[]> {
  const files: string[] = [];
  for await (const file of glob(folders.map((folder) => `tests/${folder}/**/*.test.ts`), { cwd: root })) files.push(join(root, file));
  return files.sort();
}
