/** `npm test`: cargo's tests, then Node's against the built module; the last line counts those of all runners. */
import { glob, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { build } from './build.ts';
import { ensureChromium } from './chromium.ts';
import { ensureClickHouse } from './clickhouse.ts';
import { buildExamplePage } from './example_page.ts';
import { buildFuzzTargets } from './fuzz.ts';
import { runNodeTests } from './node_tests.ts';
import { root } from './paths.ts';
import { runRust } from './run_program.ts';
import { ensureRustToolchain } from './rust_toolchain.ts';
import { Failure, messageOf, runScript } from './steps.ts';
import { ensureApiTester } from './test_api.ts';
import { type Counts, add, countsOfCargo, judge, none } from './test_counts.ts';

/** The folders of tests/. The files in tests/service are run by each host's file in tests/hosts. */
const parts = ['core', 'scripts', 'support', 'client', 'database', 'hosts', 'browser', 'api', 'operations', 'fuzz'];

/** The builds that a part needs; a failed build fails its part only. */
const builds = new Map<string, () => Promise<void>>([
  ['hosts', build],
  ['scripts', build],
  ['api', () => build().then(ensureApiTester)],
  ['operations', () => build().then(ensureClickHouse)],
  ['browser', async () => {
    await build();
    await buildExamplePage();
    await ensureChromium();
  }],
  ['fuzz', buildFuzzTargets],
]);

await runScript(async () => {
  const requested = process.argv.slice(2);
  const unknown = requested.find((part) => !parts.includes(part));
  if (unknown !== undefined) throw new Failure(`There are no tests "${unknown}": take some of ${parts.join(', ')}, or none of them for all.`);
  const chosen = requested.length > 0 ? requested : parts;

  const counts = new Map<string, Counts>();
  if (chosen.includes('core')) counts.set('core', await cargoTests());
  for (const part of chosen.filter((part) => part !== 'core')) {
    const make = builds.get(part);
    const isReady = make === undefined || (await isBuilt(make));
    counts.set(part, isReady ? await runNodeTests(await testFiles(part)) : { passed: 0, failed: 1 });
  }
  if (requested.length === 0) counts.set('README.md', await statedCounts(counts));

  const all = [...counts.values()].reduce(add, none);
  if (all.failed > 0) process.exitCode = 1;
  console.log([...counts].map(([part, { passed, failed }]) => `${part}: ${passed + failed}`).join(', '));
  console.log(`${all.passed} passed, ${all.failed} failed`);
});

/** Whether the README states how many cases each kind has, to a tenth. */
async function statedCounts(counts: Map<string, Counts>): Promise<Counts> {
  const readme = await readFile(join(root, 'README.md'), 'utf8');
  const wrong = [...counts].filter(([part, { passed, failed }]) => {
    const stated = Number(new RegExp(`^- \`${part}\` \\((\\d+) case`, 'm').exec(readme)?.[1]);
    return !(Math.abs(stated - passed - failed) <= stated / 10);
  });
  for (const [part, { passed, failed }] of wrong) console.error(`README.md does not say that \`${part}\` has ${passed + failed} cases, to a tenth.`);
  return { passed: wrong.length === 0 ? 1 : 0, failed: wrong.length === 0 ? 0 : 1 };
}

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

async function testFiles(folder: string): Promise<string[]> {
  const files: string[] = [];
  for await (const file of glob(`tests/${folder}/**/*.test.ts`, { cwd: root })) files.push(join(root, file));
  return files.sort();
}
