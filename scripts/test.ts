/** `npm test`: cargo's tests, then Node's against the built module; the last line counts those of all runners. */
import { glob } from 'node:fs/promises';
import { join } from 'node:path';
import { build } from './build.ts';
import { ensureChromium } from './chromium.ts';
import { buildExamplePage } from './example_page.ts';
import { buildFuzzTargets } from './fuzz.ts';
import { runNodeTests } from './node_tests.ts';
import { root } from './paths.ts';
import { runRust } from './run_program.ts';
import { ensureRustToolchain } from './rust_toolchain.ts';
import { Failure, messageOf, runScript } from './steps.ts';
import { ensureApiTester } from './test_api.ts';
import { type Counts, add, countsOfCargo, judge, none } from './test_counts.ts';

/** Each is a folder of tests/. Those in tests/service are run by each host's file in tests/hosts. */
const parts = ['core', 'support', 'client', 'database', 'hosts', 'browser', 'api', 'fuzz'];

/** What has to be built for the files of a part; the others are run without it when it cannot be. */
const builds: [part: string, make: () => Promise<void>][] = [
  ['hosts', build],
  ['api', () => build().then(ensureApiTester)],
  ['browser', async () => {
    await build();
    await buildExamplePage();
    await ensureChromium();
  }],
  ['fuzz', buildFuzzTargets],
];

await runScript(async () => {
  const asked = process.argv.slice(2);
  const unknown = asked.find((part) => !parts.includes(part));
  if (unknown !== undefined) throw new Failure(`There are no tests "${unknown}": take some of ${parts.join(', ')}, or none of them for all.`);
  const chosen = asked.length > 0 ? asked : parts;

  let counts = none;
  if (chosen.includes('core')) counts = add(counts, await cargoTests());
  let folders = chosen.filter((part) => part !== 'core');
  for (const [part, make] of builds) {
    if (!folders.includes(part) || (await isBuilt(make))) continue;
    counts = add(counts, { passed: 0, failed: 1 });
    folders = folders.filter((folder) => folder !== part);
  }
  if (folders.length > 0) counts = add(counts, await runNodeTests(await testFiles(folders)));

  if (counts.failed > 0) process.exitCode = 1;
  console.log(`${counts.passed} passed, ${counts.failed} failed`);
});

async function cargoTests(): Promise<Counts> {
  await ensureRustToolchain();
  const { ok, output } = await runRust('cargo', ['test', '--no-fail-fast'], { show: 'live' });
  return judge(countsOfCargo(output), ok);
}

function isBuilt(make: () => Promise<void>): Promise<boolean> {
  return make().then(
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
